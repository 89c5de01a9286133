"""Who decodes images on this machine, and why.

In: what the loader was asked for, "auto", "native" or "pillow". Out: a `Backend` that says what it is.
Promised: the choice is made once, by what the machine has and never by load; nothing slower is taken without
being named.
"""

from dataclasses import dataclass
from pathlib import Path

from fastload import _native, backends
from fastload.errors import BackendError, ConfigError


@dataclass(frozen=True)
class Backend:
    """name: "native", "simplejpeg" or "pillow". jpeg: who decodes JPEGs, and with what."""

    name: str
    jpeg: str

    def describe(self) -> str:
        return f"{self.name} (JPEG: {self.jpeg}; other formats: Pillow)"


def choose_backend(decode: str) -> Backend:
    """The backend that `decode` means on this machine; "auto" is native.

    Where no libjpeg can be loaded, JPEGs go through the simplejpeg package, on Python's threads. Raises
    BackendError where that is missing too, with the reason of each refusal.
    """
    if decode == "pillow":
        return Backend("pillow", "Pillow, the reference")
    if decode not in ("auto", "native"):
        raise ConfigError(f'decode={decode!r}: give "auto", "native" or "pillow".')
    path, abi, reasons = _native.load_jpeg_library([str(path) for path in backends.find_libjpeg()])
    if path is not None:
        return Backend("native", f"{Path(path).name}, ABI {abi}, {_native.pixel_kernels()}")
    if backends.has("simplejpeg"):
        return Backend("simplejpeg", f"simplejpeg on Python threads, because no libjpeg would do: {reasons}")
    raise BackendError(
        f'decode="{decode}": no libjpeg could be loaded ({reasons}), and simplejpeg is not installed. '
        'Install simplejpeg, or use decode="pillow".'
    )
