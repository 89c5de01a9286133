"""What the system refuses, memory and threads, told from exceptions of any class.

In: an exception of Python, NumPy, torch, Pillow or the C library. Out: a ResourceError that names the limit
and says how to need less. Promised: want of memory is told from damage, and from a fault of a program; what
is about a GPU's memory stays what it is.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from fastload.errors import FastloadError, OutOfMemoryError, ResourceError

MEMORY_LIMITS = "ulimit -v, or memory.max of the cgroup"
THREAD_LIMITS = "ulimit -u, or pids.max of the cgroup"
_NO_MEMORY = re.compile(
    r"out of memory|(can't|cannot|could not|unable to) allocate|not enough memory|bad_alloc"
    r"|failed to map segment",
    re.I,
)
_NO_THREAD = re.compile(r"can't start new thread|resource temporarily unavailable", re.I)


def is_of_memory(error: BaseException) -> bool:
    """Whether the machine had no memory for it."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, BufferError):  # which pybind11 raises from what it was
        return error.__cause__ is not None and is_of_memory(error.__cause__)
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    if not isinstance(error, (RuntimeError, OSError, ImportError)) or isinstance(error, FastloadError):
        return False
    said = str(error)
    return _NO_MEMORY.search(said) is not None and "cuda" not in said.lower()


def is_of_threads(error: BaseException) -> bool:
    """Whether the machine gave no thread for it."""
    return isinstance(error, RuntimeError) and _NO_THREAD.search(str(error)) is not None


def in_native_code() -> OutOfMemoryError:
    """What std::bad_alloc becomes (csrc/shortage.cpp), for who calls native code to say more."""
    error = no_memory("in native code", "")
    error.is_native = True
    return error


def no_memory(what: str, error: BaseException | str) -> OutOfMemoryError:
    """The error to raise where there was no memory. what: "for a batch", "to decode an image"."""
    return OutOfMemoryError(
        f"no memory {what}{_reason(error)}: raise the limit on it ({MEMORY_LIMITS}), or need less: a smaller "
        "batch_size, size or dtype, less prefetch or max_bytes, fewer threads."
    )


def no_thread(what: str, error: BaseException) -> ResourceError:
    """The error to raise where there was no thread. what: "for the reader"."""
    return ResourceError(
        f"the system gives no thread {what}{_reason(error)}: raise the limit on processes ({THREAD_LIMITS}) "
        f"or on memory ({MEMORY_LIMITS}), or use fewer threads and loaders."
    )


def shortage(what: str, error: BaseException) -> ResourceError | None:
    """What to raise in place of an exception that is no one's fault; None for any other, and for ours."""
    if getattr(error, "is_native", False):
        return no_memory(what, "")
    if isinstance(error, FastloadError):
        return None
    if is_of_memory(error):
        return no_memory(what, error)
    return no_thread(what, error) if is_of_threads(error) else None


@contextmanager
def told(what: str) -> Iterator[None]:
    """Within it, want of memory or of threads is raised as a ResourceError. what: as for `no_memory`."""
    try:
        yield
    except Exception as error:
        short = shortage(what, error)
        if short is None:
            raise
        try:
            raise short from error
        finally:
            del short  # whose traceback holds this frame


def _reason(error: BaseException | str) -> str:
    said = " ".join(str(error).split())
    return f" ({said})" if said else ""
