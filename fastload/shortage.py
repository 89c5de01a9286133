"""The system is out of descriptors, memory or threads: detected, and reported with the way out.

In: an errno, an exception of Python, NumPy, torch, Pillow or the C library, or a block of code. Out: a
sentence that says what to do, or an error of ours that names the limit. Promised: a shortage is distinguished
from damage and from bugs; it says nothing about the file that was to be opened, and is transient; errors
about a GPU's memory are left unchanged.
"""

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator

from fastload.errors import BackendError, FastloadError, OutOfMemoryError, ResourceError

MEMORY_LIMITS = "ulimit -v, or memory.max of the cgroup"
THREAD_LIMITS = "ulimit -u, or pids.max of the cgroup"
_NO_MEMORY = re.compile(
    r"out of memory|(can't|cannot|could not|unable to) allocate|not enough memory|bad_alloc"
    r"|failed to map segment",
    re.I,
)
_NO_THREAD = re.compile(r"can't start new thread|resource temporarily unavailable", re.I)
_FILES = "Raise the limit on open files (ulimit -n), or keep fewer open."
_PERMISSIONS = "Check its permissions."
_WAYS_OUT = {
    errno.EMFILE: _FILES,
    errno.ENFILE: "The programs of this machine have too many files open in total: close some, limit each "
    "(ulimit -n), or raise fs.file-max.",
    errno.ENOMEM: f"Raise the limit on memory ({MEMORY_LIMITS}), or use less: prefetch, max_bytes, threads; "
    "with tens of thousands of shards, raise vm.max_map_count.",
    errno.EACCES: _PERMISSIONS,
    errno.EPERM: _PERMISSIONS,
}
_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_SHORTAGES = (*_DESCRIPTORS, errno.ENOMEM)
_NEEDED_BY_AN_IMPORT = 4  # files that are open at once: the module, and what it imports and links to


def way_out(code: int | None, otherwise: str) -> str:
    """A sentence that says what to do about this errno of the system; `otherwise` for other errnos."""
    return otherwise if code is None else _WAYS_OUT.get(code, otherwise)


def is_shortage(code: int | None) -> bool:
    """Whether this errno says that the process or the machine is out of descriptors or memory."""
    return code in _SHORTAGES


def lacks_descriptors(code: int | None) -> bool:
    """Whether this errno says that no file descriptors are left; closing files helps."""
    return code in _DESCRIPTORS


def shortage_in(text: str) -> int | None:
    """The errno of the shortage in this message of the dynamic linker, or None."""
    if "failed to map segment" in text:  # it has no memory for a library, but does not say so
        return errno.ENOMEM
    return next((code for code in _SHORTAGES if os.strerror(code) in text), None)


@contextlib.contextmanager
def naming_shortage(what: str, kind: type[FastloadError] = BackendError) -> Iterator[None]:
    """Raises `kind`, with the way out, if descriptors or memory run out within the block.

    what: the start of its message, such as "no image can be decoded". All other errors pass through, as ours,
    which have no errno.
    """
    try:
        yield
    except (OSError, ImportError) as error:
        code = shortage_in(str(error)) if isinstance(error, ImportError) else error.errno
        if code is None or not is_shortage(code):
            raise
        raise kind(f"{what} ({os.strerror(code)}). {way_out(code, '')}") from error


@contextlib.contextmanager
def room_for(what: str, module: str) -> Iterator[None]:
    """`naming_shortage` for a block that imports a module; without enough descriptors it is not begun.

    Some modules cannot be imported again after a failed import; NumPy and torch are two.
    """
    with naming_shortage(what):
        if module not in sys.modules:
            _try_descriptors(_NEEDED_BY_AN_IMPORT)
        yield


def _try_descriptors(number: int) -> None:
    """Raises OSError if this many files cannot be opened now."""
    found: list[int] = []
    try:
        for _ in range(number):
            found.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    finally:
        for descriptor in found:
            os.close(descriptor)


def is_of_memory(error: BaseException) -> bool:
    """Whether the error means that memory ran out."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, BufferError):  # which pybind11 raises from the original error
        return error.__cause__ is not None and is_of_memory(error.__cause__)
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    if not isinstance(error, (RuntimeError, OSError, ImportError)) or isinstance(error, FastloadError):
        return False
    said = str(error)
    return _NO_MEMORY.search(said) is not None and "cuda" not in said.lower()


def is_of_threads(error: BaseException) -> bool:
    """Whether the error means that no thread could be created."""
    return isinstance(error, RuntimeError) and _NO_THREAD.search(str(error)) is not None


def in_native_code() -> OutOfMemoryError:
    """The error for std::bad_alloc (csrc/base/shortage_binding.cpp), to which callers add what failed."""
    error = no_memory("in native code", "")
    error.is_native = True  # type: ignore[attr-defined]  # csrc asks for it
    return error


def no_memory(what: str, error: BaseException | str) -> OutOfMemoryError:
    """The error to raise if memory ran out. what: "for a batch", "to decode an image"."""
    return OutOfMemoryError(
        f"no memory {what}{_reason(error)}: raise the limit on it ({MEMORY_LIMITS}), or use less: a smaller "
        "batch_size, size or dtype, less prefetch or max_bytes, fewer threads."
    )


def no_thread(what: str, error: BaseException) -> ResourceError:
    """The error to raise if no thread could be created. what: "for the reader"."""
    return ResourceError(
        f"the system gives no thread {what}{_reason(error)}: raise the limit on processes ({THREAD_LIMITS}) "
        f"or on memory ({MEMORY_LIMITS}), or use fewer threads and loaders."
    )


def shortage(what: str, error: BaseException) -> ResourceError | None:
    """What to raise in place of an exception that means a shortage; None for others, and for ours."""
    if getattr(error, "is_native", False):
        return no_memory(what, "")
    if isinstance(error, FastloadError):
        return None
    if is_of_memory(error):
        return no_memory(what, error)
    return no_thread(what, error) if is_of_threads(error) else None


@contextlib.contextmanager
def raising_shortage(what: str) -> Iterator[None]:
    """Raises a ResourceError if memory or threads run out within the block. what: as in `no_memory`."""
    try:
        yield
    except Exception as error:
        short = shortage(what, error)
        if short is None:
            raise
        try:
            raise short from error
        finally:
            del short  # its traceback holds this frame


def _reason(error: BaseException | str) -> str:
    said = " ".join(str(error).split())
    return f" ({said})" if said else ""
