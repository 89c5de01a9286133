"""What keeps a thread that hangs from keeping the process, after a batch has timed out.

In: nothing. Out: a watch over the end of the program. Promised: it does nothing until the main thread has
ended, and nothing where the process ends by itself within GRACE_SECONDS; else it says so and ends it with
status 1, so that a launcher sees the rank end. Python and the C++ runtime both wait for their threads at
exit, and a function or a read that hangs never returns.
"""

import os
import sys
import threading
import time

from fastload import backends

GRACE_SECONDS = 5.0


def end_with_the_program() -> None:
    """Begins the watch, once in a process."""
    backends.once_per_process("hanging", _watch)


def _watch() -> threading.Thread:
    ending = threading.Event()
    # The one hook that comes before concurrent.futures waits for its threads, which uses it as well.
    threading._register_atexit(ending.set)
    watch = threading.Thread(target=_end, args=(ending,), name="fastload-end", daemon=True)
    watch.start()
    return watch


def _end(ending: threading.Event) -> None:
    ending.wait()
    time.sleep(GRACE_SECONDS)
    message = "fastload: a thread still hangs since a batch timed out; the process is ended with status 1.\n"
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.write(2, message.encode())
    os._exit(1)
