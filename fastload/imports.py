"""Imports that a fork waits for.

If a child is forked while another thread imports a module, the module is half initialized in the child, and
its import lock is held for ever by a thread that does not exist there: the child hangs when it imports the
same module. Promised: an import through this file, on any thread, is complete before a fork continues.
"""

# These imports must come before the registration below. Both modules take a lock of their own for a fork.
# Ours must be taken before logging's, which imports need too; and if the modules were imported while a fork
# waits here, a lock would be released that was not taken.
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

# Longer than most imports. A limit is needed, because the forking thread may hold what the import waits for.
FORK_WAITS_SECONDS = 30.0
_lock = threading.RLock()  # reentrant: an import may fork, for a subprocess
_held_for_fork: list[bool] = []  # innermost fork last
_interrupted = False  # by Ctrl-C, while a fork waited
_LOOK_SECONDS = 0.2


@contextmanager
def whole_imports() -> Iterator[None]:
    """A fork in another thread waits until the block is left."""
    with _lock:
        yield


def import_whole(name: str, what: str | None = None) -> ModuleType:
    """The module of this name. what: its name in errors.

    Raises BackendError if descriptors or memory run out.
    """
    with _lock, room_for(f"{what or name} cannot be imported", name):
        if name not in sys.modules:  # otherwise `except fastload.FastloadError` would need descriptors
            _load_native()
        return import_module(name)


def _before_fork() -> None:
    """Waits for imports. Python would print and ignore an exception here, so Ctrl-C ends the wait and is
    raised after the fork."""
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
    time.sleep(_LOOK_SECONDS / 10)  # otherwise it would be raised in a fork handler, and ignored there
    _thread.interrupt_main()


def _after_fork_in_child() -> None:
    """Frees the lock, even if it is held by a thread that does not exist here."""
    global _lock, _interrupted
    _interrupted = False
    if _held_for_fork.pop():
        _lock.release()
    else:
        _lock = threading.RLock()


def _load_native() -> None:
    """Loads fastload._native with signals blocked: a signal during its initialization would leave it half
    initialized, and a second attempt would fail."""
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
