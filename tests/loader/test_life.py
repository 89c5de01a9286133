"""How iterations begin, end, and are forgotten: no thread, no file and no memory stays, and nothing hangs.

Covers iterator.py.
"""

import contextlib
import gc
import itertools
import os
import signal
import sys
import threading
import time
import weakref

import pytest

import fastload as fl
from fastload import _native
from fastload.backends import has, once_per_process
from fastload.errors import ConfigError
from fastload.order.step_source import PlannedStepSource
from tests import preloaded
from tests.contracts.stream import assert_equal_streams, positions
from tests.loader.samples import labels, pictures, write, write_shards
from tests.quick import slow_but

SLOW_FIELDS = {"image": fl.Image(size=8), "text": fl.Custom("txt", len)}

HAS_DALI = has("nvidia.dali")


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fastload")]


def until(holds) -> bool:
    """Whether it holds within five seconds."""
    for _ in range(500):
        if holds():
            return True
        time.sleep(0.01)
    return False


def workers_after_a_while() -> list[str]:
    """For ends that do not wait: a worker leaves when it has done what it is at."""
    until(lambda: not workers())
    return workers()


def files_open_in(folder) -> list[str]:
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError:  # the one of listdir itself
            continue
    return [path for path in found if path.startswith(str(folder))]


def with_workers(source, batch_size=2, **arguments) -> fl.Loader:
    """A loader that needs Python's worker threads."""
    return fl.Loader(source, batch_size, SLOW_FIELDS, **arguments)


def test_a_second_iteration_ends_the_first_and_says_so(shards):
    loader = labels(shards, 5)
    first = iter(loader)
    next(first)
    second = iter(loader)
    with pytest.raises(ConfigError, match="use two loaders"):
        next(first)
    assert positions([next(second)])[0] == 23
    with pytest.raises(ConfigError, match="another iter"):
        list(zip(loader, loader, strict=False))


def test_two_loaders_of_one_source_do_not_disturb_each_other(shards):
    expected = list(pictures(shards, 3))
    one, other = pictures(shards, 3), pictures(shards, 3)
    pairs = list(zip(one, other, strict=True))
    assert_equal_streams([pair[0] for pair in pairs], expected)
    assert_equal_streams([pair[1] for pair in pairs], expected)


@pytest.mark.parametrize("held", [True, False], ids=["iterator held", "iterator dropped"])
@pytest.mark.parametrize("end", ["exhausted", "closed", "with", "broken off"])
def test_no_thread_and_no_file_is_left_however_an_iteration_ends(shards, end, held):
    loader = with_workers(shards, prefetch=3)
    run = iter(loader)
    assert next(run) is not None
    assert workers() and files_open_in(shards)
    if end == "exhausted":
        list(run)
    elif end == "closed":
        loader.close()
    elif end == "with":
        with loader:
            next(run)
    elif held:
        iter(loader)
    if not held:
        del run
        gc.collect()
        assert workers_after_a_while() == []  # who forgets an iteration does not wait for its end
        assert until(lambda: not files_open_in(shards))
        return
    gc.collect()
    assert workers() == []
    assert files_open_in(shards) == []


def test_a_closed_loader_can_be_iterated_again(shards):
    loader = pictures(shards, 5)
    for batch in loader:
        assert len(batch["label"]) == 5
        loader.close()
    assert loader.state_dict()["position"] == 5
    assert positions([next(iter(loader))])[0] == 23
    loader.close()
    loader.close()


def test_a_loader_that_was_never_iterated_can_be_closed():
    with labels("/nowhere.tar") as loader:
        iter(loader)


def test_an_abandoned_loader_is_collected_with_all_it_holds(shards):
    run = iter(with_workers(shards, epochs=None))
    next(run)
    loader_stats = run._stats
    del run
    gc.collect()
    assert workers_after_a_while() == []
    gc.collect()
    assert not any(isinstance(each, fl.Loader) for each in gc.get_referrers(loader_stats))


def test_an_iteration_in_a_reference_cycle_may_be_collected_by_one_of_its_own_workers(shards):
    class Trainer:
        pass

    forgotten, collected = threading.Event(), threading.Event()

    def collect(content):
        if content == b"caption 9":
            forgotten.wait(10)
            gc.collect()
            collected.set()
        return 0

    gc.disable()
    try:
        fields = {"text": fl.Custom("txt", collect)}
        trainer = Trainer()
        trainer.me = trainer
        trainer.run = iter(fl.Loader(shards, 1, fields, shuffle=False, prefetch=20, threads=1))
        ended = weakref.ref(trainer.run)
        next(trainer.run)
        del trainer
        forgotten.set()
        assert collected.wait(10)
    finally:
        gc.enable()
    assert ended() is None
    assert workers_after_a_while() == []


@contextlib.contextmanager
def slow_reads(threads: int, seconds: float):
    """Reader threads of loaders with so many of them sleep before each read."""
    reader = once_per_process(("reader", threads), lambda: _native.ShardReader(threads))
    reader.set_delay_seconds(seconds)
    yield
    reader.set_delay_seconds(0.0)


def test_your_function_never_sees_bytes_of_a_batch_that_was_cancelled(tmp_path):
    """When the first 16 reads end and the next 16 begin, 40 workers wait for bytes: 8 of them in vain."""
    write(tmp_path, ({"__key__": f"{i}", "txt": f"caption {i}"} for i in range(60)))
    seen = []
    fields = {"text": fl.Custom("txt", seen.append)}
    loader = fl.Loader(str(tmp_path), 1, fields, prefetch=50, threads=40)
    with slow_reads(16, 0.05):
        next(iter(loader))
        loader.close()
    assert seen and set(seen) <= {f"caption {i}".encode() for i in range(60)}


def test_close_waits_for_one_call_of_your_function_not_for_its_whole_batch(shards):
    fields = {"text": fl.Custom("txt", lambda content: time.sleep(0.03))}
    loader = fl.Loader(shards, 11, fields, prefetch=1, threads=1)
    run = iter(loader)
    next(run)
    begun = time.perf_counter()
    loader.close()
    assert time.perf_counter() - begun < 5 * 0.03


def test_close_waits_for_the_reads_at_hand(shards):
    loader = labels(shards, 1, prefetch=9)
    run = iter(loader)
    with slow_reads(4, 0.05):
        next(run)
        loader.close()
        assert files_open_in(shards) == []


def in_a_child(work) -> int:
    """The exit status of a forked child that does `work` and then leaves as a script does."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        status = 1
        try:
            work()
            status = 0
        finally:
            # What a script's end does and pytest's must not: collect everything, then go.
            gc.collect()
            os._exit(status)
    for _ in range(1000):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1


def test_a_forked_child_begins_where_the_state_stood_while_the_parent_goes_on(shards):
    expected = list(with_workers(shards, 3))
    loader = with_workers(shards, 3)
    run = iter(loader)
    got = [next(run)]

    def work():
        with pytest.raises(ConfigError, match="began in another process"):
            next(run)
        assert_equal_streams(list(loader), expected[1:])
        after = with_workers(shards, 3)
        after.set_epoch(1)
        assert_equal_streams(list(loader), list(after))
        loader.close()

    assert in_a_child(work) == 0
    assert_equal_streams(got + list(run), expected)


FORKED = """
import os, sys
import fastload as fl
loader = fl.Loader(sys.argv[1], 3, {"image": fl.Image(size=8), "text": fl.Custom("txt", len)}, prefetch=5)
run = iter(loader)
next(run)
child = os.fork()
if child == 0:
    assert len(list(loader)) == 6
    sys.exit(0)
done, status = os.waitpid(child, 0)
assert len(list(run)) == 6
sys.exit(status)
"""

EXITS = {
    "in the middle": "next(run)",
    "by an error": "next(run); raise SystemExit(0)",
    "with a batch in hand": "batch = next(run)",
    "before the first batch": "pass",
    "after the end": "list(run)",
}
SCRIPT = """
import sys
import fastload as fl
fields = {"image": fl.Image(size=64), "text": fl.Custom("txt", len), "label": fl.Int()}
loader = fl.Loader(sys.argv[1], 3, fields, prefetch=9, epochs=3)
run = iter(loader)
"""


def run_script(script: str, source) -> tuple[int, str, float]:
    done = preloaded.run(script, source, limit_seconds=25)
    return done.status, done.err, done.seconds


def test_a_script_that_forks_in_the_middle_ends_cleanly_in_both_processes(shards):
    status, errors, _ = run_script(FORKED, shards)
    assert (status, errors) == (0, "")


@pytest.mark.parametrize("end", EXITS)
def test_a_script_may_end_at_any_time(shards, end):
    status, errors, seconds = run_script(SCRIPT + EXITS[end], shards)
    assert (status, errors) == (0, "")
    assert seconds < 10


def test_ctrl_c_ends_the_iteration_and_the_loader_goes_on(tmp_path):
    write_shards(tmp_path, 12, 6)
    hanging = threading.Event()

    def hang(content):
        hanging.set()
        time.sleep(0.5)
        return 0

    loader = fl.Loader(str(tmp_path), 4, {"text": fl.Custom("txt", hang)}, threads=2)

    def press():
        hanging.wait(10)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        next(iter(loader))
    presser.join()
    assert workers_after_a_while() == []  # the executor may be interrupted as it starts one
    assert loader.state_dict()["position"] == 0


def test_ctrl_c_while_native_threads_read_is_seen(shards):
    loader = labels(shards, 4)
    timer = threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT])
    begun = time.perf_counter()
    with slow_reads(4, 1.0):
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            next(iter(loader))
    timer.join()
    assert time.perf_counter() - begun < 4
    assert len(list(loader)) == 5


def test_a_loader_may_be_iterated_in_another_thread(shards):
    expected, got = list(pictures(shards, 3)), []
    thread = threading.Thread(target=lambda: got.extend(pictures(shards, 3)))
    thread.start()
    thread.join(20)
    assert_equal_streams(got, expected)


@pytest.mark.parametrize("augment", [None, fl.Augment(mixup=1.0)], ids=["in the training", "ahead"])
def test_a_timeout_of_the_users_own_ends_the_wait_for_a_batch(shards, augment):
    # Python raises what a signal's handler raises wherever the training waits, and TimeoutError is also what
    # a wait of the loader's own might raise.
    def too_late(*_):
        raise TimeoutError("the user's")

    hanging = threading.Event()

    def hang(_):
        hanging.set()
        time.sleep(0.5)

    def ring():
        hanging.wait(10)
        os.kill(os.getpid(), signal.SIGUSR1)

    fields = {"image": fl.Image(size=8), "slow": fl.Custom("txt", hang)}
    before, ringer = signal.signal(signal.SIGUSR1, too_late), threading.Thread(target=ring)
    try:
        ringer.start()
        with pytest.raises(TimeoutError, match="the user's"):
            next(iter(fl.Loader(shards, 4, fields, augment=augment, threads=2)))
    finally:
        ringer.join()
        signal.signal(signal.SIGUSR1, before)
    assert workers_after_a_while() == []


def test_what_a_signal_raises_while_batches_are_planned_is_heard_at_once(shards, monkeypatch):
    """And not after the batches that lie ahead, as what a sampler raises."""
    calls, take = [], PlannedStepSource.take

    def interrupted(turns, place, stop):
        calls.append(place)
        if len(calls) == 2:  # as Python runs a handler, wherever it is
            raise TimeoutError("the user's")
        return take(turns, place, stop)

    monkeypatch.setattr(PlannedStepSource, "take", interrupted)
    with pytest.raises(TimeoutError, match="the user's"):
        next(iter(fl.Loader(shards, 3, {"image": fl.Image(size=8)}, threads=1)))
    assert workers_after_a_while() == []


DECODERS = ["native", "pillow", *["dali"] * HAS_DALI]
ENDS = list(itertools.product(DECODERS, ["close", "forget", "load", "weights"]))
FEW_ENDS = [end for end in ENDS if "native" in end or end in (("pillow", "close"), ("dali", "forget"))]


@pytest.mark.parametrize(("decode", "end"), slow_but(FEW_ENDS, ENDS))
def test_an_iteration_whose_next_batches_wait_for_bytes_ends_at_once(shards, decode, end):
    # Of DALI's batches one waits for its bytes then, and the others for their turn to be fed.
    source = fl.Mixture({"one": (shards, 1), "other": (shards, 2)}, 23)
    loader = pictures(source, 3, decode=decode, device="cpu", threads=4)
    state = loader.state_dict()
    run = iter(loader)
    next(run)
    begun = time.perf_counter()
    with slow_reads(4, 0.3):
        next(run)
        next(run)
        if end == "forget":
            del run
        else:
            {
                "close": loader.close,
                "load": lambda: loader.load_state_dict(state),
                "weights": lambda: loader.set_weights({"one": 2, "other": 1}),
            }[end]()
    assert time.perf_counter() - begun < 5
    assert next(iter(loader))["image"].shape == (3, 3, 8, 8)
