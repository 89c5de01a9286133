"""Many faults in one process, since starting one costs more than most faults do.

A scenario is a function that is given the folder of the shards, and raises where something is wrong. `main`
runs a module's scenarios one after the other; for each it tells what was wrong, what it left behind, and how
long a new loader then took from `iter` to its first batch.
"""

import contextlib
import faulthandler
import gc
import importlib
import json
import os
import signal
import threading
import time
import traceback
from pathlib import Path

import fastload as fl
from fastload import _native
from fastload.backends import once_per_process
from tests import faults

THREADS = 2
READERS = 4  # what a loader of two threads has
# Text on Python's worker threads, too.
FIELDS = {"image": fl.Image(size=8), "label": fl.Int("cls"), "text": fl.Custom("txt", len)}
MOST_SECONDS = 100  # of all scenarios: a hang says where, and ends


def loader(shards: str, batch_size: int = 2, **arguments) -> fl.Loader:
    """Images, labels and texts in the order of the shards: sample i has label i. The source is open."""
    arguments = {"shuffle": False, "threads": THREADS, "device": "cpu", "prefetch": 3, **arguments}
    new = fl.Loader(shards, batch_size, arguments.pop("fields", FIELDS), **arguments)
    assert new.dataset.n > 0
    return new


def labels_of(batches) -> list[int]:
    return [label for batch in batches for label in batch["label"].tolist()]


def readers() -> "_native.ShardReader":
    """The reader threads of these loaders."""
    return once_per_process(("reader", READERS), lambda: _native.ShardReader(READERS))


class Pauses:
    """Within it reads are tried again after these pauses."""

    def __init__(self, *seconds: float):
        self._seconds = list(seconds)

    def __enter__(self) -> None:
        self._before = readers().backoff_seconds
        readers().backoff_seconds = self._seconds

    def __exit__(self, *_) -> None:
        readers().backoff_seconds = self._before


@contextlib.contextmanager
def pressed_after(seconds: float):
    """Within it somebody presses Ctrl-C so much later, unless it is over by then."""
    timer = threading.Timer(seconds, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


class SlowReads:
    """Within it every read takes so much longer."""

    def __init__(self, seconds: float):
        self._seconds = seconds

    def __enter__(self) -> None:
        readers().set_delay_seconds(self._seconds)

    def __exit__(self, *_) -> None:
        readers().set_delay_seconds(0.0)


def equal(found, expected) -> None:
    assert found == expected, f"\nfound    {found}\nexpected {expected}"


def raised(kind: type[BaseException], work) -> BaseException:
    """The exception of this kind that `work()` raises, without the frames that it holds on to."""
    try:
        got = work()
    except kind as error:
        traceback.clear_frames(error.__traceback__)
        return error
    raise AssertionError(f"no {kind.__name__}, but {got!r}")


def first_batch_seconds(shards: str, **arguments) -> float:
    """From iter to the first batch of a new loader."""
    with loader(shards, **arguments) as new:
        begun = time.perf_counter()
        next(iter(new))
        return time.perf_counter() - begun


def hear_ctrl_c() -> None:
    """A shell that starts the tests in the background has its children ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def main(shards: str, out: str, *modules: str) -> None:
    """Runs what is in SCENARIOS of the modules: name -> (function, arguments of its loaders)."""
    faulthandler.dump_traceback_later(MOST_SECONDS, exit=True)
    hear_ctrl_c()
    scenarios = {}
    for module in modules:
        scenarios.update(importlib.import_module(module).SCENARIOS)
    report = {}
    for arguments in {json.dumps(each): each for _, each in scenarios.values()}.values():
        first_batch_seconds(shards, **arguments)  # what is made once a process is made now
    gc.collect()
    gc.freeze()  # or each collection would look at all of torch
    for name, (work, arguments) in scenarios.items():
        gc.collect()
        before, error = faults.Belongings.now(), None
        begun = time.perf_counter()
        try:
            work(shards, **arguments)
        except BaseException:
            error = traceback.format_exc()
        finally:
            faults.set_rules()
        seconds = time.perf_counter() - begun
        gc.collect()
        left = faults.left_behind(before)
        try:
            next_seconds = first_batch_seconds(shards, **arguments)
        except Exception:
            next_seconds, error = -1.0, (error or "") + traceback.format_exc()
        report[name] = {"error": error, "left": left, "next_seconds": next_seconds, "seconds": seconds}
        Path(out).write_text(json.dumps(report))


def run_all(modules: list[str], shards: str, folder: Path) -> dict[str, dict]:
    """The report of `main` in a new process."""
    faults.needs_faults()
    out = folder / "report.json"
    program = "import sys; from tests.faults_under_way import scenarios; scenarios.main(*sys.argv[1:])"
    ended = faults.run(program, folder, shards, str(out), *modules, limit_seconds=MOST_SECONDS + 10)
    assert ended.status == 0, ended.err
    return json.loads(out.read_text())


def check(report: dict) -> None:
    """One scenario's part of the report."""
    assert report["error"] is None, report["error"]
    assert report["left"] == {}
    assert report["next_seconds"] < 2.0
