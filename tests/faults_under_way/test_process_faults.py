"""How processes end, by signals and by themselves, in the middle of everything: at once, nothing is left."""

import errno
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from fastload.shards.dataset import open_dataset
from tests import faults, preloaded
from tests.distributed.launch import Ranks
from tests.faults import Rule

MOST_START_SECONDS = 60
MOST_END_SECONDS = 5.0  # Python and torch take one or two; reads would be tried again for seven


class End(NamedTuple):
    """how: what training.py does. signal: what it gets then, if any. status, said: how it must end."""

    how: str
    signal: int | None
    status: int
    said: str
    given: tuple[Rule, ...] = ()


ENDS = {
    "SIGTERM": End("trains", signal.SIGTERM, -signal.SIGTERM, ""),
    "SIGTERM that is handled": End("handles SIGTERM", signal.SIGTERM, 0, ""),
    "SIGKILL": End("trains", signal.SIGKILL, -signal.SIGKILL, ""),
    "Ctrl-C": End("trains", signal.SIGINT, -signal.SIGINT, "KeyboardInterrupt"),
    "an exception": End("raises", None, 1, "ZeroDivisionError"),
    "its end while reads wait for their next try": End(
        "ends",
        None,
        0,
        "",
        (Rule("read", "002.tar", errno.EIO, after=1),),  # the first is when it is opened
    ),
}


class Ended(NamedTuple):
    status: int
    first_batch_seconds: float
    end_seconds: float
    err: str
    left: list[str]


def start(shards: str, folder: Path, how: str, *given: Rule) -> preloaded.Running:
    for name in ("out", "err"):
        (folder / name).unlink(missing_ok=True)
    program = faults.with_rules(preloaded.module("tests.faults_under_way.training"), *given)
    places = {"out": folder / "out", "err": folder / "err"}
    return preloaded.start(program, shards, how, **places, environment=faults.environment(folder, *given))


def end(process: preloaded.Running, by: int | None, folder: Path) -> Ended:
    stop = time.monotonic() + MOST_START_SECONDS
    while not (said := (folder / "out").read_text()).endswith("\n") and process.poll() is None:
        assert time.monotonic() < stop, "no first batch"
        time.sleep(0.005)
    first_batch_seconds = float(said or "nan")
    begun = time.perf_counter()
    if by is not None:
        time.sleep(0.1)  # so that it trains
        begun = time.perf_counter()
        process.send_signal(by)
    status = process.wait(MOST_START_SECONDS)
    seconds = time.perf_counter() - begun
    left = [*faults.files_below(folder / "tmp"), *faults.unfinished(folder / "cache")]
    try:
        os.killpg(process.pid, 0)
        left.append("a process")
    except ProcessLookupError:
        pass
    return Ended(status, first_batch_seconds, seconds, (folder / "err").read_text(), left)


SLOW = ("SIGTERM", "SIGTERM that is handled", "an exception")


@pytest.fixture(scope="module")
def ended(request, shards, tmp_path_factory):
    """name -> how it ended; those of this run are started at once, since that takes longest."""
    faults.needs_faults()
    shared_memory = set(os.listdir(faults.SHARED_MEMORY))
    asked = {one.callspec.params.get("name") for one in request.session.items if hasattr(one, "callspec")}
    names = [name for name in ENDS if name in asked or name == "SIGKILL"]
    folders = {name: tmp_path_factory.mktemp("ended") for name in names}
    for folder in folders.values():
        open_dataset(shards, cache_dir=folder / "cache" / "index")
    running = {name: start(shards, folders[name], ENDS[name].how, *ENDS[name].given) for name in names}
    try:
        found = {name: end(process, ENDS[name].signal, folders[name]) for name, process in running.items()}
        found["again"] = end(start(shards, folders["SIGKILL"], "ends"), None, folders["SIGKILL"])
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    assert set(os.listdir(faults.SHARED_MEMORY)) <= shared_memory
    return found


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in ENDS]
)
def test_a_training_ends_at_once_and_leaves_nothing(ended, name):
    expected, one = ENDS[name], ended[name]
    assert one.status == expected.status, one.err
    assert expected.said in one.err and bool(one.err) == bool(expected.said), one.err
    assert one.left == []
    assert one.end_seconds < MOST_END_SECONDS


def test_the_next_run_after_a_kill_begins_at_once(ended):
    assert ended["again"].status == 0, ended["again"].err
    assert ended["again"].first_batch_seconds < 2.0


WRITER = """
import sys
from fastload.shards.dataset import open_dataset
open_dataset(sys.argv[1], cache_dir=sys.argv[2])
"""


def test_a_process_that_is_killed_as_it_writes_an_index_leaves_nothing_after_the_next_run(shards, tmp_path):
    faults.needs_faults()
    cache = tmp_path / "cache"
    slow = Rule("write", ".partial", delay_seconds=60)
    writer = faults.start(WRITER, tmp_path, shards, str(cache), given=(slow,))
    try:
        for _ in range(MOST_START_SECONDS * 100):
            if any(name.endswith(".partial") for name in faults.unfinished(cache)):
                break
            time.sleep(0.01)
    finally:
        writer.kill()
        writer.communicate()
    assert faults.unfinished(cache) != []
    begun = time.perf_counter()
    dataset = open_dataset(shards, cache_dir=cache)
    assert time.perf_counter() - begun < 2.0
    assert dataset.keys(np.arange(1)) == ["00000"]
    assert faults.unfinished(cache) == []


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_others_by_the_launcher(shards, tmp_path, monkeypatch):
    faults.needs_faults()
    pids = tmp_path / "pids"
    for folder in (pids, tmp_path / "tmp"):
        folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    shared_memory = set(os.listdir(faults.SHARED_MEMORY))
    module = "tests.faults_under_way.training"
    with Ranks(module, 2, tmp_path, [shards, "trains", str(pids)], "torchrun") as training:
        stop = time.monotonic() + MOST_START_SECONDS
        while len(list(pids.iterdir())) < 2:
            training.check_all_alive()
            assert time.monotonic() < stop, training.story("no first batch")
            time.sleep(0.02)
        ranks = {path.name: int(path.read_text()) for path in pids.iterdir()}
        os.kill(ranks["1"], signal.SIGKILL)
        begun = time.monotonic()
        assert training.processes[0].wait(MOST_START_SECONDS) != 0
        assert time.monotonic() - begun < 20  # torchrun looks now and then, and asks before it kills
    for pid in ranks.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert set(os.listdir(faults.SHARED_MEMORY)) <= shared_memory
    left = [name for name in faults.files_below(tmp_path / "tmp") if "torchelastic" not in name]
    assert left == []
