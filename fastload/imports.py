"""Imports that a fork waits for.

A child that is forked while another thread imports a module finds that module half made, and its lock held
for ever by a thread that it does not have: it hangs as soon as it imports the same. Promised: what is
imported through here on any thread is whole before a fork goes on.
"""

# Before the registration below. Both take a lock of their own for a fork: it must come here before it takes
# logging's, which imports want, too; and where they were imported while a fork waits here, the lock would be
# given back that nobody has taken.
import concurrent.futures.thread  # noqa: F401
import logging  # noqa: F401
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from fastload.shortage import room_for

# More than most imports take. A thread that forks may hold what the importing thread waits for.
FORK_WAITS_SECONDS = 30.0
_lock = threading.RLock()  # reentrant: an import may fork, for a subprocess
_held_for_fork: list[bool] = []  # innermost fork last


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
        return import_module(name)


def _before_fork() -> None:
    _held_for_fork.append(_lock.acquire(timeout=FORK_WAITS_SECONDS))


def _after_fork() -> None:
    if _held_for_fork.pop():
        _lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
