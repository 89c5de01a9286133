"""What Pillow raises, told apart: damage is a SampleError with a reason, want of memory a MemoryError.

In: calls of Pillow, and how many pixels they are about. Out: their result, or one of the two. Promised: what
the file is not to blame for is never a SampleError: want of memory, of descriptors, a plugin that is missing.
Pillow has one error for damage and for memory that its libraries did not get, so memory for such an image is
asked for where a call fails, and `twice` tries once more what fails, as another thread may have had it.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from fastload.errors import SampleError
from fastload.shortage import is_of_memory, no_memory

Result = TypeVar("Result")

# What decoders keep of a pixel at once, at most: coefficients of four components (8 bytes), levels of as many
# twice (8), or floats; and what they need besides.
_BYTES_OF_A_PIXEL = 16
_BYTES_BESIDES = 4 << 20
_PLAINLY = {  # how what Pillow says begins -> what it means
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
    """Turns what calls of Pillow raise into a SampleError; its plugins raise nearly any class that there is.

    pixels: of the image, as far as they are known. Nothing but Pillow belongs inside.
    """
    try:
        yield
    except (MemoryError, ImportError):
        raise
    except Exception as error:
        kind = "image" if format == "unknown" else f"{format.upper()} image"
        if is_of_memory(error) or not _has_memory(pixels * _BYTES_OF_A_PIXEL + _BYTES_BESIDES):
            raise no_memory(f"to decode the {kind} of {pixels} pixels", error) from error
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = next((plain for said, plain in _PLAINLY.items() if reason.startswith(said)), reason)
        raise SampleError(f"cannot decode the {kind}: {reason}") from error


def twice(call: Callable[[], Result]) -> Result:
    """What `call()` returns, or raises the second time where it was a call of Pillow that failed."""
    try:
        return call()
    except SampleError as error:
        if error.__cause__ is None:
            raise
    return call()


def _has_memory(size_bytes: int) -> bool:
    try:
        np.empty(size_bytes, np.uint8)  # asked for and not touched
    except MemoryError:
        return False
    return True
