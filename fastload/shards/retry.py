"""Retries for calls that the system refuses with a transient error.

In: a function that opens, lists, reads or writes something. Out: what it returns. Promised: permanent errors
are raised at once, transient ones after two seconds of attempts; if there are no descriptors left, fastload
closes the shards that it keeps open for later reads before the next attempt.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from fastload import _native
from fastload.errors import SourceError, raise_if_foreign
from fastload.shortage import lacks_descriptors, way_out

# Shorter than a training run's own reads (csrc/read): here the user waits for the first batch.
NOT_LISTED = "the folder cannot be listed"
PAUSES_SECONDS = (0.01, 0.05, 0.25, 1.25)
_CLOSING_SECONDS = 1.0  # closing a file may hang if its server is gone


def with_retries(call: Callable[[], Any], is_transient: Callable[[int], bool] = _native.is_transient) -> Any:
    """What `call()` returns; an OSError whose errno `is_transient` makes it be called again.

    The last error is raised as it is.
    """
    for pause_seconds in PAUSES_SECONDS:
        try:
            return call()
        except OSError as error:
            if error.errno is None or not is_transient(error.errno):
                raise
            if lacks_descriptors(error.errno):
                _native.give_up_open_files(_CLOSING_SECONDS)
        time.sleep(pause_seconds)
    return call()


def reading(path: str | bytes, call: Callable[[], Any], what: str = "cannot be read") -> Any:
    """What `call()` returns, with retries. Raises SourceError for the path of the error, or else `path`."""
    try:
        return with_retries(call)
    except OSError as error:
        raise unreadable(os.fsdecode(error.filename or path), error, what) from error


def unreadable(path: str, error: OSError, what: str = "cannot be read") -> SourceError:
    """The error to raise if the system refuses to read part of a source."""
    raise_if_foreign(error)
    return SourceError(
        f"{path}: {what} ({error.strerror}). {way_out(error.errno, 'Check its disk or mount.')}"
    )
