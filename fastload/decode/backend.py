"""Which backend decodes images on this machine, and why.

In: the loader's `decode` ("auto", "native", "pillow" or "dali"), and the type of device of its batches. Out:
a `Backend` that describes itself. Promised: the choice is made once, by what is installed and never by load;
a slower backend is never chosen without saying so.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from fastload import _native, backends
from fastload.errors import BackendError, ConfigError
from fastload.shortage import naming_shortage, shortage_in, way_out


@dataclass(frozen=True)
class Backend:
    """name: "native", "simplejpeg", "pillow" or "dali". jpeg: the decoder of JPEGs, in words."""

    name: str
    jpeg: str

    def describe(self) -> str:
        return f"{self.name} (JPEG: {self.jpeg}; other formats: {self.others})"

    @property
    def others(self) -> str:
        """The decoder of all other formats, in words."""
        return "DALI for 8-bit PNG, WebP and BMP, else Pillow" if self.name == "dali" else "Pillow"


def choose_backend(decode: str, device_type: str = "cpu") -> Backend:
    """The backend that `decode` means on this machine for batches on "cpu" or "cuda".

    "auto" is DALI for a GPU and native for the CPU. If no libjpeg can be loaded, "native" leaves JPEGs to the
    simplejpeg package, on Python's threads. Raises BackendError, with the reason, if the backend is missing.
    """
    backends.ignore_jpegmem()
    if decode == "pillow":
        return Backend("pillow", "Pillow, the reference")
    if decode == "dali" or (decode == "auto" and device_type == "cuda"):
        return _dali(decode, device_type)
    if decode not in ("auto", "native"):
        raise ConfigError(f'decode must be "auto", "native", "dali" or "pillow", got {decode!r}.')
    path, abi, reasons = load_libjpeg()
    if path is not None:
        return Backend("native", f"{Path(path).name}, ABI {abi}, {_native.pixel_kernels()}")
    if backends.has("simplejpeg"):
        return Backend("simplejpeg", f"simplejpeg on Python threads, because no libjpeg is usable: {reasons}")
    raise BackendError(
        f'decode="{decode}": no libjpeg could be loaded ({reasons}), and simplejpeg is not installed. '
        'Install simplejpeg, or use decode="pillow".'
    )


def load_libjpeg() -> tuple[str | None, int, str]:
    """(path, ABI, why others were refused) of the libjpeg in use; the path is None if none is usable.

    Raises BackendError if descriptors or memory run out: then it is not known which libjpeg is installed, and
    no slower backend is chosen because of that.
    """
    with naming_shortage("cannot search for a libjpeg"):
        path, abi, reasons = _native.load_jpeg_library([str(path) for path in backends.find_libjpeg()])
    code = None if path is not None else shortage_in(reasons)
    if code is not None:
        raise BackendError(f"no libjpeg can be loaded ({os.strerror(code)}). {way_out(code, '')}")
    return path, abi, reasons


def _dali(decode: str, device_type: str) -> Backend:
    if not backends.has("nvidia.dali"):
        raise BackendError(
            f'decode="{decode}" for device="{device_type}" needs NVIDIA DALI, which is not installed: '
            'pip install "fastload[cu13]" (or "fastload[cu12]"), or use decode="native".'
        )
    where = "nvJPEG on the GPU" if device_type == "cuda" else "DALI on the CPU"
    return Backend("dali", f"{where}, at full size; CMYK: Pillow")
