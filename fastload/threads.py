"""Python threads of fastload's own, and what ends before the interpreter does.

In: functions to run, and iterations that are under way. Out: futures. Promised: threads are daemons, so that
a function that hangs on does not keep the process from ending; what a finalizer may call says so, takes no
lock and waits for nothing; at the end of the program everything is given up first, and waited for a little,
so that no thread of ours runs Python while it is taken apart.
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

BEGIN_SECONDS = 10.0  # after which a thread that has not begun will not begin
END_SECONDS = 2.0  # that the end of the program waits for what was given up
SLEEP_SECONDS = 0.25  # after that, for threads of the user's to come to native code, where they sleep
_LOOK_SECONDS = 0.01
_NO_MEMORY = "it had no memory to begin"
_AT_THE_END = "Python is about to end: load batches before the program is over."
_ending_thread: int | None = None  # which ends the program, once it does


# What is given up when the program ends (`give_up`), and what is then waited for (`is_busy`).
_under_way: weakref.WeakSet = weakref.WeakSet()
_waited_for: weakref.WeakSet = weakref.WeakSet()


class WorkerThreads:
    """Daemon threads that run functions in the order in which they were submitted.

    name: what the names of the threads begin with. at_end: called without arguments by the last of them. They
    begin with the first `submit`, and end after `stop`, or when nobody holds this object any more.
    """

    def __init__(self, threads: int, name: str, at_end: Callable[[], None] | None = None):
        self._count, self._name, self._at_end = threads, name, at_end
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.RLock()  # reentrant: a signal's handler may submit, too
        self._stopped = False
        _under_way.add(self)
        _waited_for.add(self)

    def submit(self, function: Callable, *arguments: Any) -> futures.Future:
        """Raises CancelledError after `stop`, ResourceError where the system gives no thread."""
        task = _Task(function, arguments)
        with self._lock:
            if self._stopped:
                raise futures.CancelledError(f"{self._name}: the threads were stopped")
            self.start()
            self._tasks.put(task)
        return task.future

    def map(self, function: Callable, *columns: Iterable) -> list:
        """The results for all rows, in order. Raises what the first of them that failed has raised."""
        return [one.result() for one in [self.submit(function, *row) for row in zip(*columns, strict=True)]]

    def stop(self) -> None:
        """The threads end after what was submitted before. May be called by a finalizer."""
        self._stopped = True
        self._tasks.put(None)

    def join(self, deadline: float) -> bool:
        """Whether all threads but the calling one have ended; waits until `deadline` of time.monotonic.

        Where they have not, they are left behind: the end of the program does not wait for them, either.
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
        """Makes the threads, where `submit` has not done so. Raises ResourceError where one cannot be had:
        then those that began end, and the next call tries again."""
        if self._threads:
            return
        left = itertools.count(self._count - 1, -1)  # how many are left after each that ends
        begun = []
        try:
            for number in range(self._count):
                thread = _Thread(self._tasks, left, self._at_end, f"{self._name}-{number}")
                thread.begin()
                begun.append(thread)
        except BaseException as error:
            self._begin_anew()
            if not isinstance(error, (RuntimeError, MemoryError)):
                raise
            raise no_thread(self._name, error) from error
        self._threads = begun

    def _begin_anew(self) -> None:
        """Ends the threads that began, of a number that did not come together; they have no tasks yet."""
        theirs, self._tasks = self._tasks, queue.SimpleQueue()
        theirs.put(None)
        if self._stopped:  # meanwhile, by a thread that may have told the other queue
            self._tasks.put(None)


class _Thread(threading.Thread):
    """Serves tasks; see WorkerThreads."""

    def __init__(
        self,
        tasks: queue.SimpleQueue,
        left: itertools.count,
        at_end: Callable[[], None] | None,
        name: str,
    ):
        super().__init__(name=name, daemon=True)
        self._served = tasks, left, at_end
        self._started, self._runs, self.runs = _Begun(), _Begun(), False

    def begin(self) -> None:
        """Starts it, and returns when it runs. Raises RuntimeError where it does not."""
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
        served = self._served
        del self._served  # the threads are held for longer than they serve
        _native.prepare_thread()
        self.runs = True
        _insist(self._runs.set)
        _serve(*served)

    def _bootstrap(self) -> None:
        try:
            super()._bootstrap()
        except BaseException:  # before `run`, which lets nothing out
            for one in (self._runs, self._started):
                _insist(one.set)


class _Begun(threading.Event):
    """That a thread has begun. CPython waits for it without end, also where the thread had no memory to."""

    def wait(self, timeout: float | None = None) -> bool:
        for _ in range(int(BEGIN_SECONDS / _LOOK_SECONDS)):  # a stopped process is not asked to be quick
            if super().wait(_LOOK_SECONDS):
                return True
        raise RuntimeError(_NO_MEMORY)


def for_all(
    items: Sequence, function: Callable, done: Callable[[Any, Any], None], threads: int, name: str
) -> None:
    """Calls `function(item)` on threads of its own, and here `done(item, result)`, in order.

    Raises what the first that failed has raised; what has not begun by then does not begin, and what has
    is waited for, END_SECONDS at most. After Ctrl-C nothing is waited for.
    """
    pool, given = WorkerThreads(max(1, min(threads, len(items))), name), []
    patience = 0.0
    try:
        given += [pool.submit(function, item) for item in items]
        for item, future in zip(items, given, strict=True):
            done(item, future.result())
        patience = END_SECONDS
    except Exception:
        patience = END_SECONDS
        raise
    finally:
        for future in given:
            future.cancel()
        pool.stop()
        pool.join(time.monotonic() + patience)


class _Task:
    """A function that waits for a thread."""

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
            # The traceback holds this frame, and `self` the error: a cycle that only gc would end.
            self = None
        else:
            _insist(self._settle, self.future.set_result, result)

    def _settle(self, tell: Callable, what: Any) -> None:
        if not self.future.done():
            tell(what)


def _serve(tasks: queue.SimpleQueue, left: itertools.count, at_end: Callable[[], None] | None) -> None:
    while (task := tasks.get()) is not None:
        task.run()
        del task  # or what it holds would live until the next one
    if next(left):
        _insist(tasks.put, None)
    elif at_end is not None:
        at_end()


def _insist(function: Callable, *arguments: Any) -> Any:
    """Calls it until there is memory for it: what somebody waits for must come."""
    while True:
        try:
            return function(*arguments)
        except MemoryError:
            time.sleep(_LOOK_SECONDS)


def native_threads(name: str, threads: int, make: Callable[[int], Any]) -> Any:
    """`make(threads)`, made once a process for each number. Raises ResourceError where it gets no thread."""
    try:
        return once_per_process((name, threads), lambda: make(threads))
    except (RuntimeError, MemoryError) as error:
        raise no_thread(name, error) from error


def no_thread(name: str, error: BaseException) -> FastloadError:
    """What to raise where the system gives no thread."""
    if "interpreter shutdown" in str(error):  # Python 3.12 and later refuses it at the end
        return ConfigError(_AT_THE_END)
    return shortage.no_thread(f"for {name}", error)


class Turn:
    """A block that one thread at a time is in, and that the end of the program waits for.

    At the end a thread of the user's sleeps where it comes in, or where an exception would take it out.
    """

    def __init__(self):
        self.is_taken = False
        self._lock = threading.RLock()
        self._process = process()
        _waited_for.add(self)

    def __enter__(self) -> "Turn":
        check_not_ending()  # before the lock, which a thread that sleeps may keep
        self._lock.acquire()
        self.is_taken = True
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is not None:
            self.sleep_at_the_end()
        self.is_taken = False
        self._lock.release()

    def sleep_at_the_end(self) -> None:
        """A thread that is in, and is not the one that ends the program, goes no further at its end."""
        if _ending_thread not in (None, threading.get_ident()):
            self.is_taken = False
            _native.sleep_for_ever()

    def is_busy(self) -> bool:
        """Whether a thread of this process is in."""
        return self.is_taken and self._process == process()


def end_with_the_program(one: Any) -> None:
    """Its `give_up`, which takes no lock and waits for nothing, is called when the program ends, unless
    nobody holds it by then."""
    _under_way.add(one)


def check_not_ending() -> None:
    """To be called by what begins, or goes on with, something that is under way.

    At the end of the program it raises ConfigError on the thread that ends it, and lets any other thread
    sleep until the process is gone: there is nobody left to tell.
    """
    if _ending_thread is None:
        return
    if threading.get_ident() != _ending_thread:
        _native.sleep_for_ever()
    raise ConfigError(_AT_THE_END)


def end_everything() -> None:
    """Gives up everything, and waits until no thread runs Python for it, for at most END_SECONDS.

    Called when the program ends. Where a library has a handler of its own that must come after this one, it
    is to be registered once more: handlers run in reverse order.
    """
    global _ending_thread
    if _ending_thread is not None:
        return
    _ending_thread = threading.get_ident()
    for one in list(_under_way):
        one.give_up()
    waited_for = list(_waited_for)
    stop = time.monotonic() + END_SECONDS
    with contextlib.suppress(KeyboardInterrupt):  # which ends the wait: the program ends in any case
        while any(one.is_busy() for one in waited_for) and time.monotonic() < stop:
            time.sleep(_LOOK_SECONDS)
        _native.begin_end(SLEEP_SECONDS)


def _begin_in_child() -> None:
    """A forked child has none of the parent's threads, and nothing of what they worked for."""
    global _ending_thread
    _ending_thread = None
    _under_way.clear()
    _waited_for.clear()


atexit.register(end_everything)
os.register_at_fork(after_in_child=_begin_in_child)
