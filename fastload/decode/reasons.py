"""Pillow's exceptions, classified: damage is a SampleError with a reason, lack of memory a MemoryError.

In: calls of Pillow, and the number of pixels of the image. Out: their result, or one of the two errors.
Promised: an error that the file did not cause is never a SampleError: lack of memory or descriptors, a
missing plugin. Pillow raises the same error for damage and if its libraries get no memory. So after a failed
call we try to allocate the memory for such an image, and `twice` repeats the call, because another thread may
have held the memory.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from fastload.errors import SampleError
from fastload.shortage import is_of_memory, no_memory

Result = TypeVar("Result")

# What decoders keep per pixel, at most: coefficients of four components (8 bytes) and two copies of their
# uint8 values (8), or floats. And what they need besides.
_BYTES_PER_PIXEL = 16
_BYTES_BESIDES = 4 << 20
_MEANINGS = {  # the beginning of a message of Pillow -> what it means
    "not identified by this driver": "its header is damaged or cut",
    "unpack": "its header is damaged or cut",
    "Truncated File Read": "its header is damaged or cut",
    "could not create decoder object": "its chunks are damaged or cut",
    "failed to read next frame": "its pixels are damaged or cut",
    "cannot load this image": "it holds no pixels",
    "decoder error -2": "its pixels are damaged or cut",
}


@contextlib.contextmanager
def reasons(format: str, pixels: int) -> Iterator[None]:
    """Turns exceptions of Pillow into a SampleError; its plugins raise nearly every class of exception.

    pixels: of the image, as far as known. The block must contain only calls of Pillow.
    """
    try:
        yield
    except (MemoryError, ImportError):
        raise
    except Exception as error:
        kind = "image" if format == "unknown" else f"{format.upper()} image"
        if is_of_memory(error) or not _has_memory(pixels * _BYTES_PER_PIXEL + _BYTES_BESIDES):
            raise no_memory(f"to decode the {kind} of {pixels} pixels", error) from error
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = next((means for start, means in _MEANINGS.items() if reason.startswith(start)), reason)
        raise SampleError(f"cannot decode the {kind}: {reason}") from error


def twice(call: Callable[[], Result]) -> Result:
    """What `call()` returns. If it fails in a call of Pillow, it is called once more."""
    try:
        return call()
    except SampleError as error:
        if error.__cause__ is None:
            raise
    return call()


def _has_memory(size_bytes: int) -> bool:
    try:
        np.empty(size_bytes, np.uint8)  # allocated but not touched
    except MemoryError:
        return False
    return True
