"""What can go wrong, as exceptions: each message says what, where, and the way out, in one line.

Every error that fastload raises on purpose is a FastloadError, so `except fastload.FastloadError` catches
them all. Where Python has a class of its own for the mistake, ours is a subclass of it too.
"""


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


class ResourceError(FastloadError, RuntimeError):
    """The system gives no thread, memory or open file: says which limit to raise, and how to need less."""


class OutOfMemoryError(ResourceError, MemoryError):
    """The system gives no memory: says which limit to raise, and how to need less."""


class CursorError(FastloadError, ValueError):
    """A checkpoint does not belong to this loader: says which part differs."""


class BadSamplesError(FastloadError):
    """More samples are bad than max_bad_fraction allows: names the worst shards and the ledger."""


class FunctionError(FastloadError):
    """A function of yours (fl.Custom, select=) raised what says nothing about the content; `__cause__` is
    that exception."""


class BatchTimeoutError(FastloadError, RuntimeError):
    """A batch took longer than timeout_seconds."""


def raise_if_foreign(error: OSError) -> None:
    """Raises an OSError again that the system has no part in, before it is taken for a file's.

    A TimeoutError that a signal's handler raises, wherever Python happens to be, is one by its class; it has
    no errno. Nor have errors of ours.
    """
    if error.errno is None:
        raise error
