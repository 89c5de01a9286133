"""The exceptions of fastload. Each message says in one line what is wrong, where, and how to solve it.

Every error that fastload raises on purpose is a FastloadError, so `except fastload.FastloadError` catches
them all. If Python has a class for the error, ours is also a subclass of it.
"""


class FastloadError(Exception):
    """The base of all errors that fastload raises on purpose."""


class ConfigError(FastloadError, ValueError):
    """An argument is wrong, or two arguments contradict each other."""


class SourceError(FastloadError, FileNotFoundError):
    """A source cannot be read: no such path, an empty folder, a pattern without a match."""


class ShardError(FastloadError):
    """A container is damaged or violates its format; the message has its name and the byte offset."""


class FieldError(FastloadError, KeyError):
    """A field is in no sample, or only in some samples and has no default."""

    __str__ = Exception.__str__  # KeyError would print the message in quotation marks


class SampleError(FastloadError):
    """The content of a sample cannot be decoded; the message has shard, key, byte offset and the reason."""


class BackendError(FastloadError, RuntimeError):
    """A backend cannot run on this machine; the message says what is missing and how to install it."""


class ResourceError(FastloadError, RuntimeError):
    """Threads, memory or open files ran out; the message says which limit to raise, and how to need less."""


class OutOfMemoryError(ResourceError, MemoryError):
    """Memory ran out; the message says which limit to raise, and how to need less."""


class CursorError(FastloadError, ValueError):
    """A checkpoint does not match this loader; the message says what differs."""


class BadSamplesError(FastloadError):
    """More samples are bad than max_bad_fraction allows; the message has the worst shards and the ledger."""


class FunctionError(FastloadError):
    """Your function (fl.Custom, select=) raised an exception that does not indicate bad content; see
    `__cause__`."""


class BatchTimeoutError(FastloadError, RuntimeError):
    """A batch took longer than timeout_seconds."""


def raise_if_foreign(error: OSError) -> None:
    """Raises an OSError that did not come from the system again, so that no file is blamed for it.

    Such as a TimeoutError that a signal handler raises at any point: it is an OSError, but has no errno.
    fastload's own errors have none either.
    """
    if error.errno is None:
        raise error
