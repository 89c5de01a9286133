"""Who decodes images on this machine, and why.

In: what the loader was asked for, "auto", "native", "pillow" or "dali", and the kind of device that batches
are made for. Out: a `Backend` that says what it is. Promised: the choice is made once, by what the machine
has and never by load; nothing slower is taken without being named.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from fastload import _native, backends
from fastload.errors import BackendError, ConfigError
from fastload.shortage import naming_shortage, shortage_told_by, way_out


@dataclass(frozen=True)
class Backend:
    """name: "native", "simplejpeg", "pillow" or "dali". jpeg: who decodes JPEGs, and with what."""

    name: str
    jpeg: str

    def describe(self) -> str:
        return f"{self.name} (JPEG: {self.jpeg}; other formats: {self.others})"

    @property
    def others(self) -> str:
        """Who decodes what is no JPEG."""
        return "PNG, WebP and BMP of 8 bits DALI, else Pillow" if self.name == "dali" else "Pillow"


def choose_backend(decode: str, device_type: str = "cpu") -> Backend:
    """The backend that `decode` means on this machine for batches on "cpu" or "cuda".

    "auto" is DALI for a GPU and native for the CPU. Where no libjpeg can be loaded, native leaves JPEGs to
    the simplejpeg package, on Python's threads. Raises BackendError where what is asked for is missing, with
    the reason.
    """
    backends.ignore_jpegmem()
    if decode == "pillow":
        return Backend("pillow", "Pillow, the reference")
    if decode == "dali" or (decode == "auto" and device_type == "cuda"):
        return _dali(decode, device_type)
    if decode not in ("auto", "native"):
        raise ConfigError(f'decode={decode!r}: give "auto", "native", "dali" or "pillow".')
    path, abi, reasons = load_libjpeg()
    if path is not None:
        return Backend("native", f"{Path(path).name}, ABI {abi}, {_native.pixel_kernels()}")
    if backends.has("simplejpeg"):
        return Backend("simplejpeg", f"simplejpeg on Python threads, because no libjpeg would do: {reasons}")
    raise BackendError(
        f'decode="{decode}": no libjpeg could be loaded ({reasons}), and simplejpeg is not installed. '
        'Install simplejpeg, or use decode="pillow".'
    )


def load_libjpeg() -> tuple[str | None, int, str]:
    """(path, ABI, why others were refused) of the libjpeg in use; the path is None where none will do.

    Raises BackendError where there are no descriptors or memory to look: that says nothing about what is
    there, and something slower is not taken for it.
    """
    with naming_shortage("no libjpeg can be looked for"):
        path, abi, reasons = _native.load_jpeg_library([str(path) for path in backends.find_libjpeg()])
    short = None if path is not None else shortage_told_by(reasons)
    if short is not None:
        raise BackendError(f"no libjpeg can be loaded ({os.strerror(short)}). {way_out(short, '')}")
    return path, abi, reasons


def _dali(decode: str, device_type: str) -> Backend:
    if not backends.has("nvidia.dali"):
        raise BackendError(
            f'decode="{decode}" for device="{device_type}" needs NVIDIA DALI, which is not installed: '
            'pip install "fastload[cu13]" (or "fastload[cu12]"), or use decode="native".'
        )
    where = "nvJPEG on the GPU" if device_type == "cuda" else "DALI on the CPU"
    return Backend("dali", f"{where}, at full size; CMYK: Pillow")
