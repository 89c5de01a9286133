"""The bench: both sides do the same work, take turns, and are counted alike."""

import itertools
import json

import numpy as np
import pytest

from fastload import cli
from fastload.errors import ConfigError, SampleError
from fastload.prepare import bench as module
from fastload.prepare.bench import SIDES, bench, compare
from fastload.prepare.common import pipeline
from fastload.prepare.common.pillow_peer import EndlessOrder, PillowImages, open_peer
from fastload.shards.dataset import open_dataset

SMALL = {"size": 32, "batch_size": 4, "threads": 1}


def test_bench_measures_both_sides_in_every_round(shards):
    report = bench(shards, rounds=2, seconds=0.2, **SMALL)
    assert {side: len(turns) for side, turns in report.turns.items()} == dict.fromkeys(SIDES, 2)
    assert all(turn.images >= 8 and turn.cpu_seconds > 0 for turns in report.turns.values() for turn in turns)
    ours, theirs = (np.median([t.images_per_second for t in report.turns[side]]) for side in SIDES)
    assert report.ratio == pytest.approx(ours / theirs)
    printed = json.loads(json.dumps(report.to_dict()))
    assert printed["ratio"] == report.ratio and set(printed["medians"]) == set(SIDES)
    text = report.render()
    assert all(word in text for word in (*SIDES, "same output", "CPU s per 1000", "ratio"))


def test_the_two_sides_give_the_same_pictures(shards):
    least, largest = compare(shards, open_dataset(shards), **SMALL)
    assert (least is None) == (largest == 0)
    assert largest <= 1  # another libjpeg may round a level differently


def test_a_visible_difference_stops_the_bench(shards, monkeypatch):
    real = PillowImages.__getitem__
    monkeypatch.setattr(PillowImages, "__getitem__", lambda self, i: real(self, i).roll(1, dims=2))
    with pytest.raises(SampleError, match=r"00000.tar.*different pictures \(\d+\.\d dB\)"):
        bench(shards, rounds=1, seconds=0.1, **SMALL)


def test_who_begins_alternates(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(ticks)))
    taken = []

    class Side:
        def __init__(self, name):
            self.name = name

        def take(self):
            taken.append(self.name)
            return 1

        def cpu_seconds(self):
            return 0.0

    module._take_turns({"a": Side("a"), "b": Side("b")}, rounds=3, seconds=1.0, progress=None)
    assert [name for name, _ in itertools.groupby(taken)] == ["a", "b", "a", "b"]


def test_both_sides_read_the_same_samples(shards):
    dataset = open_dataset(shards)
    theirs = list(itertools.islice(EndlessOrder(dataset, seed=5), 60))
    assert [sorted(theirs[start : start + 20]) for start in (0, 20, 40)] == [list(range(20))] * 3
    loader = pipeline.open_loader(shards, dataset, size=32, batch_size=20, seed=5, only_images=True)
    with loader:
        for step, batch in enumerate(itertools.islice(loader, 3)):
            assert batch["__key__"] == [f"{number:04d}" for number in theirs[20 * step : 20 * step + 20]]


def test_the_peers_order_goes_on_without_a_seam(shards):
    dataset = open_dataset(shards)
    theirs = list(itertools.islice(EndlessOrder(dataset, seed=5), 2500))
    assert theirs == pipeline.samples_at(dataset, np.arange(2500), seed=5).tolist()


def test_the_peer_tells_the_cpu_time_of_its_workers(shards):
    peer = iter(open_peer(open_dataset(shards), size=32, batch_size=4, workers=2, seed=0))
    batches = [next(peer) for _ in range(6)]
    assert len({worker for _, worker, _ in batches}) == 2
    assert all(images.shape == (4, 3, 32, 32) and seconds > 0 for images, _, seconds in batches)
    assert all(abs(float(images.abs().max())) <= 1 for images, _, _ in batches)


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"seconds": 0.0}, {"seconds": float("nan")}])
def test_a_bench_of_nothing_is_refused(shards, wrong):
    with pytest.raises(ConfigError, match="at least 1 round"):
        bench(shards, **wrong)


def test_bench_from_the_command_line(shards, capsys):
    words = [
        "bench",
        str(shards),
        "--json",
        "--size",
        "32",
        "--threads",
        "1",
        "--rounds",
        "1",
        "--seconds",
        "0.1",
    ]
    assert cli.main(words) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["batch_size"] == 20 and "bench: 0%" in captured.err
