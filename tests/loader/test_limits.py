"""Memory and threads that the system does not give: the error is ours, names the limit, and nothing hangs.

Programs run in processes of their own, whose calls of the C library fail by rules (tests/faults.py). What
becomes of whole loaders where little is left, tests/loader/limits.py tries out.
"""

import errno
import threading
import time

import numpy as np
import pytest
import torch

import fastload as fl
from fastload.backends import has
from fastload.shortage import MEMORY_LIMITS, THREAD_LIMITS, is_of_memory, raising_shortage, shortage
from fastload.threads import WorkerThreads
from tests import faults
from tests.loader import limits

HEAD = """
import errno, sys, threading, time
import fastload as fl
from fastload.threads import WorkerThreads
from tests.faults import Rule, rules, set_rules
source = sys.argv[1]
def make(fields, **more):
    more = {"device": "cpu", "ledger": None, "threads": 2, "shuffle": False, **more}
    return fl.Loader(source, 4, {name: fl.Int("cls") if name == "label" else one for name, one in
                                 {"label": None, **fields}.items()}, **more)
def labels(batches): return [n for batch in batches for n in batch["label"].tolist()]
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return limits.make_source(tmp_path_factory.mktemp("limits"))


def said(program: str, folder, source: str) -> str:
    """What a program prints that ends well; one that hangs fails the test."""
    faults.needs_faults()
    ended = faults.run(HEAD + program, folder, source, limit_seconds=40)
    assert ended.status == 0, (ended.status, ended.out, ended.err)
    return ended.out


# ---- telling them apart ----

OF_MEMORY = (
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    OSError("out of memory error when reading image file"),  # Pillow's
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    ImportError("libx.so: failed to map segment from shared object"),
)
OF_NEITHER = (
    ValueError("out of memory"),
    RuntimeError("CUDA out of memory. Tried to allocate 2 MiB"),
    RuntimeError("shapes do not fit"),
    OSError(errno.EIO, "Input/output error"),
    ImportError("no module named x"),
    fl.ConfigError("out of memory"),
)


@pytest.mark.parametrize("error", OF_MEMORY)
def test_want_of_memory_is_one_class_whoever_says_so(error):
    with (
        pytest.raises(fl.OutOfMemoryError, match=f"^no memory for it.*{MEMORY_LIMITS}") as caught,
        raising_shortage("for it"),
    ):
        raise error
    assert isinstance(caught.value, (fl.ResourceError, MemoryError)) and caught.value.__cause__ is error


@pytest.mark.parametrize("message", ["can't start new thread", "Resource temporarily unavailable"])
def test_want_of_threads_names_the_limit_on_processes(message):
    short = shortage("for it", RuntimeError(message))
    assert type(short) is fl.ResourceError and THREAD_LIMITS in str(short) and message in str(short)


@pytest.mark.parametrize("error", OF_NEITHER)
def test_what_says_nothing_about_memory_stays_what_it_is(error):
    with pytest.raises(type(error)) as caught, raising_shortage("for it"):
        raise error
    assert caught.value is error and not is_of_memory(error)


def test_native_code_without_memory_raises_ours_and_who_called_it_says_what_for():
    pool = fl._native.BufferPool(1)
    with pytest.raises(fl.OutOfMemoryError, match=r"no memory in native code: .*ulimit -v"):
        pool.acquire(2**64 - 1)
    with (
        pytest.raises(fl.OutOfMemoryError, match=r"no memory for it: raise.*ulimit -v"),
        raising_shortage("for it"),
    ):
        pool.acquire(2**64 - 1)


# ---- threads ----


def test_worker_threads_that_could_not_begin_begin_later(monkeypatch):
    """All of them, and those that had begun are gone."""
    before, real, starts = set(threading.enumerate()), threading.Thread.start, []

    def start(self):
        starts.append(self)
        if len(starts) == 2:
            raise RuntimeError("can't start new thread")
        real(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    ended = []
    workers = WorkerThreads(3, "test-limits", at_end=lambda: ended.append(True))
    with pytest.raises(
        fl.ResourceError, match=r"no thread for test-limits \(can't start new thread\).*ulimit -u"
    ):
        workers.submit(len, "abc")
    starts[0].join(10)
    assert not starts[0].is_alive() and not ended
    assert workers.map(len, ["a", "bc"]) == [1, 2]
    workers.stop()
    assert workers.join(time.monotonic() + 10) and ended == [True]
    assert set(threading.enumerate()) <= before


def test_a_thread_that_has_no_memory_to_begin_is_an_error_and_hangs_nothing(source, tmp_path):
    """CPython's Thread.start waits for ever for it."""
    program = """
workers = WorkerThreads(1, "fastload-test")
with rules(Rule("malloc", "0", errno.ENOMEM, times=1)):
    try: workers.submit(len, "abc")
    except fl.ResourceError as error: print(error)
print([thread.name for thread in threading.enumerate()], workers.submit(len, "abc").result(10))
"""
    out = said(program, tmp_path, source)
    assert "no thread for fastload-test (it had no memory to begin): raise the limit" in out
    assert out.endswith("['MainThread'] 3\n")


def test_threads_that_hang_and_cannot_be_made_up_for_keep_no_loader_for_ever(source, tmp_path):
    program = """
hangs = make({}, timeout_seconds=0.5, prefetch=8)
len(hangs)
list(make({"image": fl.Image(size=8)}))
set_rules(Rule("read", "000.tar", delay_seconds=15), Rule("pthread_create", "*", errno.EAGAIN))
try: list(hangs)
except fl.BatchTimeoutError: print("timed out")
try: list(hangs)
except (fl.ResourceError, fl.BatchTimeoutError) as error: print(type(error).__name__)
set_rules()
hangs.set_epoch(0)
print(labels(hangs) == list(range(48)))
"""
    assert said(program, tmp_path, source).splitlines() in (
        ["timed out", "ResourceError", "True"],
        ["timed out", "BatchTimeoutError", "True"],
    )


# ---- memory ----

REFUSED = {  # bytes that are refused on worker threads, and a field that needs them there
    "png": (30_000, 'fl.Image(size=8, ext="png")'),
    "pth": (16_000, 'fl.Tensor("pth")'),
    "npz": (16_000, 'fl.Tensor("npz")'),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_worker_without_memory_is_no_damage(source, tmp_path, kind):
    most_bytes, field = REFUSED[kind]
    program = f"""
import warnings
warnings.simplefilter("error")  # a bad sample is warned of
loader = make({{"one": {field}}})
next(iter(loader))
loader.close()
with rules(Rule("malloc", "{most_bytes}", errno.ENOMEM)) as hits:
    try: print(labels(loader))
    except fl.OutOfMemoryError as error: print("ulimit -v" in str(error), isinstance(error, MemoryError))
assert hits.hits[0] > 0
print(loader.stats()["bad_samples"])
loader.set_epoch(0)
print(labels(loader) == list(range(48)))
"""
    assert said(program, tmp_path, source) == "True True\n0\nTrue\n"


def test_memory_that_comes_back_where_there_is_none_for_its_entry_ends_nothing(source, tmp_path):
    program = """
pool = fl._native.BufferPool(1 << 30)
buffers, go = [pool.acquire(1) for _ in range(300)], threading.Event()
def work():
    go.wait()
    buffers.clear()
thread = threading.Thread(target=work)
thread.start()
with rules(Rule("malloc", "400", errno.ENOMEM)) as hits:
    go.set()
    thread.join()
print(hits.hits[0] > 0, pool.used_bytes, pool.idle_bytes < 300 * 4096)
"""
    assert said(program, tmp_path, source) == "True 0 True\n"


def test_a_pth_that_asks_for_more_than_any_machine_has_is_damage(monkeypatch):
    def load(*_, **__):
        raise RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 900000000 bytes."
        )

    monkeypatch.setattr(torch, "load", load)
    from fastload.decode.values import decode

    with pytest.raises(fl.SampleError, match="refuses"):
        decode(fl.Tensor("pth"), b"\x80" + bytes(100))
    with pytest.raises(RuntimeError, match="can't allocate"):
        decode(fl.Tensor("pth"), b"\x80" + bytes(1_000_000))


def test_workers_that_cannot_be_forked_name_the_limit(monkeypatch):
    def refuse(*_):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("os.fork", refuse)
    loader = fl.DataLoader(list(range(8)), 2, num_workers=2, multiprocessing_context="fork")
    with pytest.raises(fl.ResourceError, match=r"for num_workers=2.*ulimit -u"):
        iter(loader)
    monkeypatch.undo()
    assert np.concatenate([batch.numpy() for batch in loader]).tolist() == list(range(8))


# ---- whole loaders ----

SOME_CASES = {"some_limits": ("images", "pth"), "some_thread_limits": ("functions", "mixup")}
STACK_BYTES = 512 << 10  # of a thread: or it would be all that there is no memory for
SWEEP = """
import json, resource
resource.setrlimit(resource.RLIMIT_STACK, ({stack_bytes}, resource.RLIM_INFINITY))
from tests.loader import limits
limits.prepare()
print(json.dumps([limits.sweep(case, source, moment, limits.{which}(case))[1] for case in {cases}
                  for moment in limits.MOMENTS]))
"""


def sweep(folder, source: str, which: str, cases) -> dict[str, str]:
    """Outcome -> an example, of those that are not good."""
    import json

    faults.needs_faults()
    program = HEAD + SWEEP.format(stack_bytes=STACK_BYTES, which=which, cases=tuple(cases))
    ended = faults.run(program, folder, source, limit_seconds=1800)
    assert ended.status == 0, ended.err
    found = [one for examples in json.loads(ended.out) for one in examples.items()]
    assert {how.split(":")[0] for how, _ in found} >= {"ok", "ours"}
    return {how: example for how, example in found if not how.startswith(("ok", "ours:"))}


@pytest.mark.parametrize("which", SOME_CASES)
def test_a_loader_that_gets_too_little_says_which_limit_and_works_when_it_is_raised(source, tmp_path, which):
    wrong = sweep(tmp_path, source, which, SOME_CASES[which])
    assert not wrong, "\n".join(f"{how}: {example}" for how, example in wrong.items())


@pytest.mark.slow
@pytest.mark.parametrize("which", ["memory_limits", "thread_limits"])
def test_a_loader_that_gets_too_little_says_so_whatever_the_limit(source, tmp_path, which):
    cases = [case for case in limits.CASES if case != "dali" or has("nvidia.dali")]
    assert sweep(tmp_path, source, which, cases) == {}
