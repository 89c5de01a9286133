"""Python threads of our own: order, results, ends that wait and ends that do not, forks."""

import gc
import os
import threading
import time
import weakref
from concurrent import futures

import pytest

from fastload import threads
from fastload.errors import ConfigError, ResourceError
from fastload.threads import Turn, WorkerThreads


def soon() -> float:
    return time.monotonic() + 10


def alive(name: str) -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith(name)]


def test_one_thread_runs_functions_in_order_and_gives_their_results():
    worker, seen = WorkerThreads(1, "in-order"), []
    given = [worker.submit(seen.append, i) for i in range(100)]
    assert worker.submit(lambda a, b: a + b, 2, 3).result() == 5
    assert seen == list(range(100)) and all(one.result() is None for one in given)
    worker.stop()
    assert worker.join(soon()) and alive("in-order") == []


def test_what_a_function_raises_is_raised_where_its_result_is_asked_for():
    worker = WorkerThreads(2, "raises")
    with pytest.raises(ZeroDivisionError):
        worker.submit(lambda: 1 / 0).result()
    with pytest.raises(ZeroDivisionError):
        worker.map(lambda a, b: a // b, [1, 2], [1, 0])
    assert worker.map(lambda a, b: a // b, [4, 9], [2, 3]) == [2, 3]


def test_what_was_submitted_before_the_stop_is_done_and_nothing_after_it():
    worker, go = WorkerThreads(1, "stopped"), threading.Event()
    blocked, waiting = worker.submit(go.wait), worker.submit(lambda: "done")
    worker.stop()
    with pytest.raises(futures.CancelledError):
        worker.submit(print)
    assert not worker.join(time.monotonic() + 0.05)
    go.set()
    assert waiting.result() == "done" and blocked.result() is True
    assert worker.join(soon())


def test_a_function_that_was_cancelled_before_it_began_is_not_run():
    worker, go, ran = WorkerThreads(1, "cancelled"), threading.Event(), []
    worker.submit(go.wait)
    waiting = worker.submit(ran.append, 1)
    assert waiting.cancel()
    go.set()
    worker.submit(len, ()).result()
    assert ran == []


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("how", ["stopped", "forgotten"])
def test_the_last_thread_calls_at_end_once(count, how):
    ended = []
    worker = WorkerThreads(count, "at-end", at_end=lambda: ended.append(threading.current_thread().name))
    worker.map(len, [()] * 10)
    if how == "stopped":
        worker.stop()
        worker.stop()
        assert worker.join(soon())
    else:
        del worker
        gc.collect()
        while alive("at-end"):
            time.sleep(0.001)
    assert len(ended) == 1 and ended[0].startswith("at-end")


def test_no_thread_begins_before_the_first_function():
    worker = WorkerThreads(4, "lazy")
    assert alive("lazy") == []
    worker.stop()
    assert worker.join(soon())


def test_neither_a_result_nor_an_error_keeps_what_the_function_held():
    class Held:
        pass

    def fail(held):
        raise ValueError(held)

    worker, held = WorkerThreads(1, "holds"), Held()
    gone = weakref.ref(held)
    gc.disable()
    try:
        for function in (id, fail):
            future = worker.submit(function, held)
            futures.wait([future])
            del future
        worker.submit(len, ()).result()
        del held
        assert gone() is None
    finally:
        gc.enable()


def test_a_thread_that_cannot_begin_is_an_error_that_names_the_limits(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    worker = WorkerThreads(2, "refused")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ResourceError, match=r"no thread for refused .*ulimit -u.*ulimit -v"):
            worker.submit(len, ())
    assert alive("refused") == []


def test_native_threads_that_cannot_begin_are_the_same_error():
    def refuse(count):
        raise RuntimeError("Resource temporarily unavailable")

    with pytest.raises(ResourceError, match=r"no thread for some kind .*temporarily unavailable"):
        threads.native_threads("some kind", 3, refuse)


def test_a_turn_is_one_threads_at_a_time():
    turn, inside, most = Turn(), [0], [0]

    def work():
        for _ in range(200):
            with turn:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0)
                inside[0] -= 1

    all_threads = [threading.Thread(target=work) for _ in range(4)]
    for one in all_threads:
        one.start()
    for one in all_threads:
        one.join()
    assert most == [1] and not turn.is_busy()


def test_at_the_end_the_thread_that_ends_the_program_is_told_so(monkeypatch):
    monkeypatch.setattr(threads, "_ending_thread", threading.get_ident())
    with pytest.raises(ConfigError, match="Python is about to end"), Turn():
        pass


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_nothing_under_way():
    worker = WorkerThreads(1, "parent")
    worker.submit(len, ()).result()
    assert worker in threads._to_stop
    child = os.fork()
    if child == 0:
        os._exit(0 if len(threads._to_stop) == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert worker in threads._to_stop


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_no_lock_of_a_thread_that_a_forked_child_lacks_is_held_there():
    """Locks of the module, not of an object: a child makes its loaders anew, but not the modules."""
    from fastload.decode import values

    with values._literal_lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if values._literal_lock.acquire(timeout=1) else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_a_cached_property_is_computed_once_and_keeps_no_other_object_waiting():
    from fastload.caching import cached_property

    class Slow:
        def __init__(self, go):
            self.go, self.times = go, 0

        @cached_property
        def value(self):
            """Doc."""
            self.times += 1
            return self.go.wait(10)

    assert Slow.value.__doc__ == "Doc."
    blocked, free = Slow(threading.Event()), Slow(threading.Event())
    free.go.set()
    waiting = threading.Thread(target=lambda: blocked.value)
    waiting.start()
    assert free.value and free.value and free.times == 1
    blocked.go.set()
    waiting.join()
    assert blocked.times == 1
