"""fastload's own Python threads, and what must end before the interpreter does.

In: functions to run, and running iterations. Out: futures. Promised: threads are daemons, so a function that
hangs does not keep the process from ending; functions that a finalizer may call say so, take no lock and do
not wait; at the end of the program everything is stopped and waited for briefly, so that no thread of ours
runs Python while the interpreter is finalized.
"""

import atexit
import contextlib
import itertools
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent import futures
from typing import Any

from fastload import _native, shortage
from fastload.backends import once_per_process, process
from fastload.errors import ConfigError, FastloadError

BEGIN_SECONDS = 10.0  # a thread that has not begun after this time will not begin
END_SECONDS = 2.0  # that the end of the program waits for everything that was stopped
SLEEP_SECONDS = 0.25  # and then for the user's threads to reach native code, where they sleep
_LOOK_SECONDS = 0.01
_NO_MEMORY = "it had no memory to begin"
_AT_THE_END = "Python is about to end: load batches before the program is over."
_ending_thread: int | None = None  # the thread that ends the program, once it does


# What is stopped when the program ends (`give_up`), and what is then waited for (`is_busy`).
_to_stop: weakref.WeakSet = weakref.WeakSet()
_waited_for: weakref.WeakSet = weakref.WeakSet()


class WorkerThreads:
    """Daemon threads that run functions in the order of submission.

    threads: how many, `count` says it. name: prefix of their names. at_end: called without arguments by the
    last of them. They begin with the first `submit`, and end after `stop`, or when this object is
    garbage-collected.
    """

    def __init__(self, threads: int, name: str, at_end: Callable[[], None] | None = None):
        self.count, self._name, self._at_end = threads, name, at_end
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.RLock()  # reentrant: a signal handler may submit, too
        self._stopped = False
        _to_stop.add(self)
        _waited_for.add(self)

    def submit(self, function: Callable, *arguments: Any) -> futures.Future:
        """Raises CancelledError after `stop`, ResourceError if no thread can be created."""
        task = _Task(function, arguments)
        with self._lock:
            if self._stopped:
                raise futures.CancelledError(f"{self._name}: the threads were stopped")
            self.start()
            self._tasks.put(task)
        return task.future

    def map(self, function: Callable, *columns: Iterable) -> list:
        """The results for all rows, in order. Raises the exception of the first row that failed."""
        submitted = [self.submit(function, *row) for row in zip(*columns, strict=True)]
        return [future.result() for future in submitted]

    def stop(self) -> None:
        """The threads end after everything that was submitted before. A finalizer may call it."""
        self._stopped = True
        self._tasks.put(None)

    def join(self, deadline: float) -> bool:
        """Whether all threads but the calling one have ended; waits until `deadline` of time.monotonic.

        If not, the end of the program does not wait for them either.
        """
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        if self.is_busy():
            _waited_for.discard(self)
            return False
        return True

    give_up = stop

    def is_busy(self) -> bool:
        """Whether a thread but the calling one is alive."""
        own = threading.current_thread()
        return any(thread is not own and thread.is_alive() for thread in self._threads)

    def __del__(self):
        self._tasks.put(None)

    def start(self) -> None:
        """Starts the threads, if `submit` has not done so. If one cannot be created, the others end, and it
        raises ResourceError; the next call tries again."""
        if self._threads:
            return
        left = itertools.count(self.count - 1, -1)  # how many are left when the next one ends
        begun = []
        try:
            for number in range(self.count):
                thread = _Thread(f"{self._name}-{number}", self._tasks, left, self._at_end)
                thread.begin()
                begun.append(thread)
        except BaseException as error:
            self._begin_anew()
            if not isinstance(error, (RuntimeError, MemoryError)):
                raise
            raise no_thread(self._name, error) from error
        self._threads = begun

    def _begin_anew(self) -> None:
        """Ends the threads that began, after another could not be created; they have no tasks yet."""
        theirs, self._tasks = self._tasks, queue.SimpleQueue()
        theirs.put(None)
        if self._stopped:  # meanwhile; `stop` may have used the other queue
            self._tasks.put(None)


class _Thread(threading.Thread):
    """Serves tasks; see WorkerThreads. served: the arguments of `_serve`."""

    def __init__(self, name: str, *served: Any):
        super().__init__(name=name, daemon=True, target=_serve, args=served)
        self._started, self._runs, self.runs = _Begun(), _Begun(), False

    def begin(self) -> None:
        """Starts it, and returns when it runs. Raises RuntimeError if it does not."""
        _native.check_room_for_thread()
        try:
            self.start()
            self._runs.wait()
            if not self.runs:
                raise RuntimeError(_NO_MEMORY)
        except BaseException:
            threading._limbo.pop(self, None)
            raise

    def run(self) -> None:
        _native.prepare_thread()
        self.runs = True
        _insist(self._runs.set)
        super().run()

    def _bootstrap(self) -> None:
        try:
            super()._bootstrap()
        except BaseException:  # before `run`, which raises nothing
            for event in (self._runs, self._started):
                _insist(event.set)


class _Begun(threading.Event):
    """Says that a thread has begun. CPython would wait for ever, even if it had no memory to begin."""

    def wait(self, timeout: float | None = None) -> bool:
        for _ in range(int(BEGIN_SECONDS / _LOOK_SECONDS)):  # counted, so that a stopped process may be slow
            if super().wait(_LOOK_SECONDS):
                return True
        raise RuntimeError(_NO_MEMORY)


def for_all(
    items: Sequence, function: Callable, done: Callable[[Any, Any], None], threads: int, name: str
) -> None:
    """Calls `function(item)` on threads of its own, and `done(item, result)` in this thread, in order.

    Raises the exception of the first item that failed. Then no more items begin, and running ones are waited
    for, at most END_SECONDS. After Ctrl-C nothing is waited for.
    """
    pool, submitted = WorkerThreads(max(1, min(threads, len(items))), name), []
    wait_seconds = END_SECONDS
    try:
        submitted += [pool.submit(function, item) for item in items]
        for item, future in zip(items, submitted, strict=True):
            done(item, future.result())
    except (KeyboardInterrupt, SystemExit):
        wait_seconds = 0.0
        raise
    finally:
        for future in submitted:
            future.cancel()
        pool.stop()
        pool.join(time.monotonic() + wait_seconds)


class _Task:
    def __init__(self, function: Callable, arguments: tuple):
        self.future: futures.Future = futures.Future()
        self._function, self._arguments = function, arguments

    def run(self) -> None:
        if not _insist(self.future.set_running_or_notify_cancel):
            return
        try:
            result = self._function(*self._arguments)
        except BaseException as error:
            _insist(self._settle, self.future.set_exception, error)
            # The traceback holds this frame, and `self` the error: a reference cycle.
            self = None
        else:
            _insist(self._settle, self.future.set_result, result)

    def _settle(self, setter: Callable, outcome: Any) -> None:
        if not self.future.done():
            setter(outcome)


def _serve(tasks: queue.SimpleQueue, left: itertools.count, at_end: Callable[[], None] | None) -> None:
    while (task := tasks.get()) is not None:
        task.run()
        del task  # otherwise what it holds would live until the next task
    if next(left):
        _insist(tasks.put, None)
    elif at_end is not None:
        at_end()


def _insist(function: Callable, *arguments: Any) -> Any:
    """Calls it until there is memory for it, because another thread waits for it."""
    while True:
        try:
            return function(*arguments)
        except MemoryError:
            time.sleep(_LOOK_SECONDS)


def native_threads(name: str, threads: int, make: Callable[[int], Any]) -> Any:
    """`make(threads)`, once in a process for each number. Raises ResourceError without a thread."""
    try:
        return once_per_process((name, threads), lambda: make(threads))
    except (RuntimeError, MemoryError) as error:
        raise no_thread(name, error) from error


def no_thread(name: str, error: BaseException) -> FastloadError:
    """The error to raise if no thread can be created."""
    if "interpreter shutdown" in str(error):  # Python 3.12 and later refuses threads at the end
        return ConfigError(_AT_THE_END)
    return shortage.no_thread(f"for {name}", error)


class Turn:
    """A block for one thread at a time, for which the end of the program waits.

    At the end, a thread of the user sleeps when it enters, or when an exception would make it leave.
    """

    def __init__(self) -> None:
        self.is_taken = False
        self._lock = threading.RLock()
        self._process = process()
        _waited_for.add(self)

    def __enter__(self) -> "Turn":
        check_not_ending()  # before the lock, which a sleeping thread may hold
        self._lock.acquire()
        self.is_taken = True
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is not None:
            self.sleep_at_the_end()
        self.is_taken = False
        self._lock.release()

    def sleep_at_the_end(self) -> None:
        """At the end of the program the thread in the block sleeps for ever, unless it ends the program."""
        if _ending_thread not in (None, threading.get_ident()):
            self.is_taken = False
            _native.sleep_for_ever()

    def is_busy(self) -> bool:
        """Whether a thread of this process is in the block."""
        return self.is_taken and self._process == process()


def end_with_the_program(stoppable: Any) -> None:
    """At the end of the program calls its `give_up`, which must take no lock and not wait; unless it was
    garbage-collected before."""
    _to_stop.add(stoppable)


def check_not_ending() -> None:
    """To be called before starting or continuing work that `end_everything` stops.

    At the end of the program it raises ConfigError on the thread that ends it; any other thread sleeps until
    the process is gone, because an exception would have no receiver.
    """
    if _ending_thread is None:
        return
    if threading.get_ident() != _ending_thread:
        _native.sleep_for_ever()
    raise ConfigError(_AT_THE_END)


def end_everything() -> None:
    """Stops everything, and waits until no thread runs Python for it, at most END_SECONDS.

    Called when the program ends. If a library has a handler of its own that must run after this one, register
    this function again: handlers run in reverse order.
    """
    global _ending_thread
    if _ending_thread is not None:
        return
    _ending_thread = threading.get_ident()
    for stoppable in list(_to_stop):
        stoppable.give_up()
    waited_for = list(_waited_for)
    stop = time.monotonic() + END_SECONDS
    with contextlib.suppress(KeyboardInterrupt):  # it ends the wait; the program ends in any case
        while any(waited.is_busy() for waited in waited_for) and time.monotonic() < stop:
            time.sleep(_LOOK_SECONDS)
        _native.begin_end(SLEEP_SECONDS)


def _begin_in_child() -> None:
    """A forked child has none of the parent's threads, so there is nothing to stop."""
    global _ending_thread
    _ending_thread = None
    _to_stop.clear()
    _waited_for.clear()


atexit.register(end_everything)
os.register_at_fork(after_in_child=_begin_in_child)
