"""What keeps a thread that hangs from keeping the process, after a batch has timed out.

In: the batches that were given up. Out: a watch over the end of the program. Promised: it does nothing before
the program ends, and nothing where what hung has returned GRACE_SECONDS after that; else it says so and ends
the process with status 1, so that a launcher sees the rank end. Python and the C++ runtime both wait for
their threads at exit, and a function or a read that hangs never returns.
"""

import os
import sys
import threading
import time
from collections.abc import Iterable

from fastload import backends
from fastload.loader.trip import Trip

GRACE_SECONDS = 5.0
_given_up: list = []  # (process, what native threads work on, or a future of Python's)


def end_with_the_program(trips: Iterable[Trip]) -> None:
    """These batches will not keep the process from ending."""
    _given_up[:] = [one for one in _given_up if _hangs(*one)]
    for trip in trips:
        for one in (trip.bytes, trip.images, trip.delivered, *trip.work):
            if one is not None:
                _given_up.append((os.getpid(), one))
    backends.once_per_process("hanging", _watch)


def _watch() -> threading.Thread:
    ending = threading.Event()
    # The one hook that comes before concurrent.futures waits for its threads, which uses it as well.
    threading._register_atexit(ending.set)
    watch = threading.Thread(target=_end, args=(ending,), name="end-after-timeout", daemon=True)
    watch.start()
    return watch


def _end(ending: threading.Event) -> None:
    ending.wait()
    time.sleep(GRACE_SECONDS)
    if not any(_hangs(*one) for one in _given_up):
        return
    message = "fastload: a thread still hangs since a batch timed out; the process is ended with status 1.\n"
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.write(2, message.encode())
    os._exit(1)


def _hangs(process: int, one) -> bool:
    return process == os.getpid() and not (one.done() if hasattr(one, "done") else one.wait(0))
