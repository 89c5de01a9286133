"""The numbers of `stats()`: they add up, and name the stage that was slowed on purpose."""

import itertools
import time

import pytest

import fastload as fl
from fastload.backends import once_per_process
from fastload.loader.stats import STAGES, Stats
from tests import corpus
from tests.loader.samples import labels, pictures, write, write_shards


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """64 samples in 4 shards."""
    folder = tmp_path_factory.mktemp("many")
    write_shards(folder, 64, 16)
    return str(folder)


def test_what_was_delivered_is_counted(many):
    fields = {"image": fl.Image(size=8), "small": fl.Image(size=4), "raw": fl.Bytes("jpg")}
    loader = fl.Loader(many, 10, fields, last="partial")
    list(loader)
    stats = loader.stats()
    assert (stats["samples"], stats["images"], stats["batches"], stats["bad_samples"]) == (64, 128, 7, 0)
    payload = loader.dataset.bytes_total
    # Between samples that were drawn from nearby lie others, cheaper to read than to skip.
    assert payload / 2 < stats["bytes_read"] < 7 * payload


def test_the_seconds_are_the_first_batch_the_waiting_and_the_training(many):
    loader = pictures(many, 4)
    begun = time.perf_counter()
    for _ in loader:
        time.sleep(0.005)
    seconds = time.perf_counter() - begun
    stats = loader.stats()
    training = stats["stages"]["training"]
    parts = stats["first_batch_seconds"] + training["busy_seconds"] + training["waiting_seconds"]
    assert stats["seconds"] == pytest.approx(parts)
    assert stats["seconds"] <= seconds
    assert training["busy_seconds"] >= 16 * 0.005
    assert stats["images_per_second"] == pytest.approx(60 / (stats["seconds"] - stats["first_batch_seconds"]))
    assert 0 < stats["cpu_seconds"] < 10 * seconds


def test_every_stage_has_its_share_of_the_threads_time(many):
    loader = pictures(many, 4, threads=3)
    list(loader)
    stats = loader.stats()
    assert tuple(stats["stages"]) == STAGES
    threads = {name: stage["threads"] for name, stage in stats["stages"].items()}
    assert threads == {"read": 4, "decode": 3, "values": 3, "batch": 1, "training": 1}
    for name, stage in stats["stages"].items():
        assert stage["busy_seconds"] >= 0 and stage["waiting_seconds"] >= 0, name
        if name != "training":
            whole = stage["busy_seconds"] + stage["waiting_seconds"]
            assert whole == pytest.approx(stage["threads"] * stats["seconds"])


def test_time_between_two_iterations_is_nobodys(many):
    loader = pictures(many, 16)
    list(loader)
    time.sleep(0.5)
    list(loader)
    next(iter(loader))
    time.sleep(0.5)
    stats = loader.stats()
    assert stats["batches"] == 9
    assert stats["seconds"] - stats["first_batch_seconds"] < 0.4
    assert stats["stages"]["training"]["busy_seconds"] < 0.4


def test_a_single_batch_has_a_rate_but_no_stage_that_limits(many):
    loader = pictures(many, 8)
    next(iter(loader))
    stats = loader.stats()
    assert stats["limited_by"] is None
    assert stats["images_per_second"] == pytest.approx(8 / stats["first_batch_seconds"])


def test_a_slow_disk_is_named(many):
    reader = once_per_process(("reader", 4), lambda: pytest.fail("the reader threads are there"))
    reader.set_delay_seconds(0.01)
    try:
        loader = pictures(many, 8, threads=2)
        list(loader)
    finally:
        reader.set_delay_seconds(0.0)
    assert loader.stats()["limited_by"] == "read"


@pytest.mark.parametrize("decode", ["native", "pillow"])
def test_large_images_make_decoding_the_limit(tmp_path, decode):
    content = corpus.encode(corpus.picture(1200, 900), "JPEG")
    write(tmp_path, ({"__key__": f"{i}", "jpg": content} for i in range(16)))
    loader = fl.Loader(str(tmp_path), 2, {"image": fl.Image(size=64, scaled=None)}, decode=decode)
    list(loader)
    assert loader.stats()["limited_by"] == "decode"


def test_a_slow_function_of_yours_is_named(many):
    fields = {"image": fl.Image(size=8), "text": fl.Custom("txt", lambda content: time.sleep(0.003))}
    loader = fl.Loader(many, 8, fields, threads=2)
    list(loader)
    assert loader.stats()["limited_by"] == "values"


def test_a_slow_map_batch_is_named(many):
    def slow(batch):
        time.sleep(0.01)
        return batch

    loader = pictures(many, 8, map_batch=slow)
    list(loader)
    assert loader.stats()["limited_by"] == "batch"


def test_a_slow_training_is_named_and_hardly_waits(many):
    """A step of 150 ms, of which 5 % is more than a busy machine takes to wake a thread up."""
    loader = pictures(many, 4)
    for _ in itertools.islice(loader, 12):
        time.sleep(0.15)
    stats = loader.stats()
    assert stats["limited_by"] == "training"
    assert stats["stages"]["training"]["waiting_seconds"] < 0.05 * stats["stages"]["training"]["busy_seconds"]


def test_statistics_are_numbers_that_json_takes(many):
    import json

    loader = labels(many)
    list(loader)
    assert json.loads(json.dumps(loader.stats())) == loader.stats()


class Clock:
    """Stands in for `time`: moves only when it is told to."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now

    def process_time(self):
        return 2 * self.now


def test_every_second_goes_where_it_belongs(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("fastload.loader.stats.time", clock)
    stats = Stats()
    for run in range(2):
        for batch in range(3):
            stats.asked()
            clock.now += 7 if run == batch == 0 else 1  # waiting
            stats.handed_over(10, 20)
            clock.now += 4  # training
        stats.asked()
        stats.paused()
        clock.now += 1000
    numbers = stats.snapshot({}, {})
    assert numbers["first_batch_seconds"] == 7
    assert numbers["stages"]["training"] == {"busy_seconds": 24.0, "waiting_seconds": 5.0, "threads": 1}
    assert numbers["seconds"] == 36
    assert numbers["cpu_seconds"] == 72
    assert (numbers["samples"], numbers["images"], numbers["batches"]) == (60, 120, 6)
    assert numbers["images_per_second"] == pytest.approx(100 / 29)
    assert numbers["limited_by"] != "training"  # it waited 5 of 29 seconds


def test_a_stage_limits_by_the_share_of_its_threads_not_by_their_sum(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("fastload.loader.stats.time", clock)
    stats = Stats()
    stats.begin({"decode": 4, "values": 2}, dict)
    for _ in range(2):
        stats.asked()
        clock.now += 1
        stats.handed_over(1, 1)
    stats.add("decode", 1.2)
    stats.add("values", 0.9)
    stats.add("batch", 0.5)
    assert stats.snapshot({}, {})["limited_by"] == "batch"
    stats.add("decode", 1.0)
    assert stats.snapshot({}, {})["limited_by"] == "decode"
