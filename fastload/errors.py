"""What can go wrong, as exceptions: each message says what, where, and the way out, in one line.

Every error that fastload raises on purpose is a FastloadError, so `except fastload.FastloadError` catches
them all. Where Python has a class of its own for the mistake, ours is a subclass of it too.

What the system refuses has an errno, and `way_out` says what to do about it, wherever it was met. Want of
descriptors or memory says nothing about the file that was to be opened (`is_want`), and may pass.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator


class FastloadError(Exception):
    """The base of all errors that fastload raises on purpose."""


class ConfigError(FastloadError, ValueError):
    """An argument is wrong, or two arguments contradict each other."""


class SourceError(FastloadError, FileNotFoundError):
    """A source names nothing that can be read: no such path, an empty folder, a pattern without a match."""


class ShardError(FastloadError):
    """A container is damaged, or breaks a rule of its format: which one, at which byte, and how to go on."""


class FieldError(FastloadError, KeyError):
    """A field that was asked for is in no sample, or in some samples only and without a default."""

    __str__ = Exception.__str__  # KeyError would print the message in quotation marks


class SampleError(FastloadError):
    """The content of one sample cannot be decoded: names the shard, the key, the byte offset and the
    reason."""


class BackendError(FastloadError, RuntimeError):
    """What was asked for cannot run on this machine: says what is missing and how to install it."""


class CursorError(FastloadError, ValueError):
    """A checkpoint does not belong to this loader: says which part differs."""


class BadSamplesError(FastloadError):
    """More samples are bad than max_bad_fraction allows: names the worst shards and the ledger."""


class FunctionError(FastloadError):
    """A function of yours (fl.Custom) raised what says nothing about the content; `__cause__` is that
    exception."""


class BatchTimeoutError(FastloadError, RuntimeError):
    """A batch took longer than timeout_seconds."""


def raise_if_foreign(error: OSError) -> None:
    """Raises an OSError again that the system has no part in, before it is taken for a file's.

    A TimeoutError that a signal's handler raises, wherever Python happens to be, is one by its class; it has
    no errno. Nor have errors of ours.
    """
    if error.errno is None:
        raise error


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
_WANT = (*_DESCRIPTORS, errno.ENOMEM)
_NEEDED_BY_AN_IMPORT = 4  # files that are open at once: of a module, of what it imports and links to


def way_out(code: int | None, otherwise: str) -> str:
    """What to do where the system refuses with this errno: a sentence; `otherwise` where it depends."""
    return _WAYS_OUT.get(code, otherwise)


def is_want(code: int | None) -> bool:
    """Whether this errno tells of a process or machine without descriptors or memory, and not of a file."""
    return code in _WANT


def wants_descriptors(code: int | None) -> bool:
    """Whether this errno tells that there are no descriptors left; files that are closed are a help."""
    return code in _DESCRIPTORS


def want_told_by(text: str) -> int | None:
    """The errno of a want that this message of the dynamic linker tells; else None."""
    if "failed to map segment" in text:  # where it has no memory for a library, it does not say so
        return errno.ENOMEM
    return next((code for code in _WANT if os.strerror(code) in text), None)


@contextlib.contextmanager
def naming_want(what: str, kind: type[FastloadError] = BackendError) -> Iterator[None]:
    """Raises `kind`, with the way out, where want of descriptors or memory ends what is done within.

    what: the start of its message, such as "no image can be decoded". All other errors pass.
    """
    try:
        yield
    except FastloadError:
        raise
    except (OSError, ImportError) as error:
        code = want_told_by(str(error)) if isinstance(error, ImportError) else error.errno
        if not is_want(code):
            raise
        raise kind(f"{what} ({os.strerror(code)}). {way_out(code, '')}") from error


@contextlib.contextmanager
def room_for(what: str, module: str) -> Iterator[None]:
    """`naming_want` for what imports a module; without descriptors for that the import is not begun.

    Modules that were imported by half cannot all be imported again; NumPy and torch are two.
    """
    with naming_want(what):
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
