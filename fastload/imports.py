"""Imports that a fork waits for.

A child that is forked while another thread imports a module finds that module half made, and its lock held
for ever by a thread that it does not have: it hangs as soon as it imports the same. Promised: what is
imported through here on any thread is whole before a fork goes on.
"""

# Before the registration below. Both take a lock of their own for a fork: it must come here before it takes
# logging's, which imports want, too; and where they were imported while a fork waits here, the lock would be
# given back that nobody has taken.
import _thread
import concurrent.futures.thread  # noqa: F401
import logging  # noqa: F401
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from fastload.shortage import room_for

# More than most imports take. A thread that forks may hold what the importing thread waits for.
FORK_WAITS_SECONDS = 30.0
_lock = threading.RLock()  # reentrant: an import may fork, for a subprocess
_held_for_fork: list[bool] = []  # innermost fork last
_interrupted = False  # by Ctrl-C, while a fork waited
_LOOK_SECONDS = 0.2


@contextmanager
def whole_imports() -> Iterator[None]:
    """A fork of another thread waits until the block is left."""
    with _lock:
        yield


def import_whole(name: str, what: str | None = None) -> ModuleType:
    """The module of this name; `what` is how the error calls it.

    Raises BackendError where there are no descriptors or memory for the import.
    """
    with _lock, room_for(f"{what or name} cannot be imported", name):
        if name not in sys.modules:  # or `except fastload.FastloadError` would want descriptors
            _load_native()
        return import_module(name)


def _before_fork() -> None:
    """Waits; an exception would be printed and forgotten here, so that Ctrl-C is put off until the fork is
    over, and ends the wait."""
    global _interrupted
    _held_for_fork.append(False)
    until = time.monotonic() + FORK_WAITS_SECONDS
    try:
        while not _held_for_fork[-1] and time.monotonic() < until:
            _held_for_fork[-1] = _lock.acquire(timeout=min(_LOOK_SECONDS, FORK_WAITS_SECONDS))
    except KeyboardInterrupt:
        _interrupted = True


def _after_fork_in_parent() -> None:
    global _interrupted
    if _held_for_fork.pop():
        _lock.release()
    if _interrupted:
        _interrupted = False
        _thread.start_new_thread(_interrupt_soon, ())


def _interrupt_soon() -> None:
    time.sleep(_LOOK_SECONDS / 10)  # or the exception would come in what a fork calls, and be forgotten there
    _thread.interrupt_main()


def _after_fork_in_child() -> None:
    """The lock is free, also where a thread that does not exist here holds it."""
    global _lock, _interrupted
    _interrupted = False
    if _held_for_fork.pop():
        _lock.release()
    else:
        _lock = threading.RLock()


def _load_native() -> None:
    """Loads fastload._native while signals wait: one of them amid its initialization would leave it half
    made, and no second attempt succeeds."""
    if "fastload._native" in sys.modules:
        return
    blocks = hasattr(signal, "pthread_sigmask")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()) if blocks else ()
    try:
        import_module("fastload._native")
    finally:
        if blocks:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)
