"""The system is out of descriptors or memory: told from other errors, and named with the way out.

In: an errno, an exception, or a block of code. Out: the sentence that says what to do, or an error of ours.
Promised: a shortage says nothing about the file that was to be opened, and may pass.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator

from fastload.errors import BackendError, FastloadError

_FILES = "Raise the limit on open files (ulimit -n), or keep fewer open."
_PERMISSIONS = "Check its permissions."
_WAYS_OUT = {
    errno.EMFILE: _FILES,
    errno.ENFILE: "All programs of this machine together have too many files open: close some, limit each "
    "(ulimit -n), or raise fs.file-max.",
    errno.ENOMEM: "Give the machine more memory, or the loader less (prefetch, max_bytes, threads); with "
    "tens of thousands of shards, raise vm.max_map_count.",
    errno.EACCES: _PERMISSIONS,
    errno.EPERM: _PERMISSIONS,
}
_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_SHORTAGES = (*_DESCRIPTORS, errno.ENOMEM)
_NEEDED_BY_AN_IMPORT = 4  # files that are open at once: of a module, of what it imports and links to


def way_out(code: int | None, otherwise: str) -> str:
    """What to do where the system refuses with this errno: a sentence; `otherwise` where it depends."""
    return _WAYS_OUT.get(code, otherwise)


def is_shortage(code: int | None) -> bool:
    """Whether this errno says that the process or the machine is out of descriptors or memory."""
    return code in _SHORTAGES


def lacks_descriptors(code: int | None) -> bool:
    """Whether this errno says that no file descriptors are left; closing files helps."""
    return code in _DESCRIPTORS


def shortage_told_by(text: str) -> int | None:
    """The errno of the shortage that this message of the dynamic linker tells of; else None."""
    if "failed to map segment" in text:  # where it has no memory for a library, it does not say so
        return errno.ENOMEM
    return next((code for code in _SHORTAGES if os.strerror(code) in text), None)


@contextlib.contextmanager
def naming_shortage(what: str, kind: type[FastloadError] = BackendError) -> Iterator[None]:
    """Raises `kind`, with the way out, where the block ends for want of descriptors or memory.

    what: the start of its message, such as "no image can be decoded". All other errors pass.
    """
    try:
        yield
    except FastloadError:
        raise
    except (OSError, ImportError) as error:
        code = shortage_told_by(str(error)) if isinstance(error, ImportError) else error.errno
        if not is_shortage(code):
            raise
        raise kind(f"{what} ({os.strerror(code)}). {way_out(code, '')}") from error


@contextlib.contextmanager
def room_for(what: str, module: str) -> Iterator[None]:
    """`naming_shortage` for what imports a module; without descriptors for that the import is not begun.

    Modules that were imported by half cannot all be imported again; NumPy and torch are two.
    """
    with naming_shortage(what):
        if module not in sys.modules:
            _try_descriptors(_NEEDED_BY_AN_IMPORT)
        yield


def _try_descriptors(number: int) -> None:
    """Raises OSError where so many files cannot be opened now."""
    found: list[int] = []
    try:
        for _ in range(number):
            found.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    finally:
        for descriptor in found:
            os.close(descriptor)
