"""Another try where the system refuses what it may grant a moment later.

In: a function that opens, lists, reads or writes something. Out: what it returns. Promised: errors that say
something about the file come at once, those that may pass after two seconds of tries; where there are no
descriptors left, the shards that fastload keeps open for later reads are given up for the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fastload import _native
from fastload.errors import SourceError, raise_if_foreign
from fastload.shortage import lacks_descriptors, way_out

# Not for as long as a training's own reads (csrc/read/shard_reader): here somebody waits for the first batch.
PAUSES_SECONDS = (0.01, 0.05, 0.25, 1.25)
_CLOSING_SECONDS = 1.0  # a server that is gone may hold what is closed


def patiently(call: Callable[[], Any], may_pass: Callable[[int], bool] = _native.is_transient) -> Any:
    """What `call()` returns; where it raises an OSError whose errno `may_pass`, it is called again.

    The last error is raised as it is.
    """
    for pause_seconds in PAUSES_SECONDS:
        try:
            return call()
        except OSError as error:
            if error.errno is None or not may_pass(error.errno):
                raise
            if lacks_descriptors(error.errno):
                _native.give_up_open_files(_CLOSING_SECONDS)
        time.sleep(pause_seconds)
    return call()


def unreadable(path: str, error: OSError, what: str = "cannot be read") -> SourceError:
    """What is raised where the system refuses to read part of a source."""
    raise_if_foreign(error)
    return SourceError(
        f"{path}: {what} ({error.strerror}). {way_out(error.errno, 'Check its disk or mount.')}"
    )
