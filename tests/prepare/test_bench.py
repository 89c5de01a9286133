"""The bench: both sides do the same work, take turns, and are counted alike."""

import itertools
import json

import numpy as np
import pytest

from fastload import cli
from fastload.errors import ConfigError, SampleError
from fastload.prepare import bench as module
from fastload.prepare.bench import SIDES, bench, compare
from fastload.prepare.common.pillow_peer import PillowImages
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
    lowest, largest = compare(shards, open_dataset(shards), **SMALL)
    assert (lowest is None) == (largest == 0)
    assert largest <= 1  # another libjpeg may round differently


def test_a_visible_difference_stops_the_bench(shards, monkeypatch):
    real = PillowImages.__getitem__
    monkeypatch.setattr(PillowImages, "__getitem__", lambda self, i: real(self, i).roll(1, dims=2))
    with pytest.raises(SampleError, match=r"00000.tar.*different pictures \(\d+\.\d dB\)"):
        bench(shards, rounds=1, seconds=0.1, **SMALL)


def test_the_sides_alternate_in_starting_a_round(monkeypatch):
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


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"seconds": 0.0}, {"seconds": float("nan")}])
def test_rounds_and_seconds_must_be_positive(shards, wrong):
    with pytest.raises(ConfigError, match="rounds must be at least 1 and seconds above 0, got rounds="):
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
