"""How threads, ranks and other processes share the work of indexing."""

import multiprocessing
import os
import threading
import time

import pytest
from shard_corpus import END, header_block, padded, tar_bytes, write

from fastload import _native
from fastload.errors import ConfigError
from fastload.shards import index
from fastload.shards.dataset import open_dataset
from fastload.shards.source import find_containers
from fastload.shards.tar import index_tar


def make_shards(folder, count):
    for i in range(count):
        write(folder / f"{i:02d}.tar", tar_bytes([f"{i:02d}{j:03d}.jpg" for j in range(20)]))


def open_as_rank(source, cache, log, rank, world_size):
    real = index.index_container

    def logging(container):
        with open(log, "a") as file:
            file.write(container.name + "\n")
        time.sleep(0.01)
        return real(container)

    index.index_container = logging
    dataset = open_dataset(source, cache_dir=cache, local_rank=rank, local_world_size=world_size)
    with open(log, "a") as file:
        file.write(f"fingerprint {dataset.fingerprint}\n")


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_the_indexing_and_see_the_same_dataset(tmp_path, cache, world_size):
    make_shards(tmp_path / "s", 7)
    log = tmp_path / "log"
    fork = multiprocessing.get_context("fork")
    ranks = [
        fork.Process(target=open_as_rank, args=(tmp_path / "s", cache, log, rank, world_size))
        for rank in range(world_size)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(30)
        assert rank.exitcode == 0
    lines = log.read_text().splitlines()
    assert sorted(line for line in lines if line.endswith(".tar")) == [f"{i:02d}.tar" for i in range(7)]
    prints = [line for line in lines if line.startswith("fingerprint")]
    assert len(prints) == world_size and len(set(prints)) == 1


def die_at_work(source, cache, ready):
    (container,) = find_containers(source)

    def hang(_):
        ready.set()
        time.sleep(60)

    index.index_container = hang
    index.build(container, cache)


def test_if_a_rank_dies_at_work_another_takes_over(shard, cache):
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    victim = fork.Process(target=die_at_work, args=(shard, cache, ready))
    victim.start()
    assert ready.wait(20)
    (container,) = find_containers(shard)
    assert index.build(container, cache, wait=False) is None  # the victim is at it
    victim.kill()
    victim.join()
    start = time.monotonic()
    assert open_dataset(shard, cache_dir=cache, local_rank=1, local_world_size=2).n > 0
    assert time.monotonic() - start < 5


def test_a_rank_outside_its_world_is_refused(shard, cache):
    with pytest.raises(ConfigError, match=r"local_rank must be in .* got 2"):
        open_dataset(shard, cache_dir=cache, local_rank=2, local_world_size=2)
    with pytest.raises(ConfigError, match="threads must be at least 1, got 0"):
        open_dataset(shard, cache_dir=cache, threads=0)


def test_indexing_does_not_hold_the_gil(tmp_path):
    """A Python thread counts on while a shard is indexed; with the GIL held it would stand still."""
    path = tmp_path / "big.tar"
    with open(path, "wb") as file:
        for i in range(60_000):
            file.write(header_block(b"%06d.txt" % i, 1) + padded(b"x"))
        file.write(END)
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.wait(0.001):
            ticks.append(time.monotonic())

    ticker = threading.Thread(target=tick)
    ticker.start()
    start = time.monotonic()
    _native.index_tar(os.fsencode(path), b"big.tar")
    end = time.monotonic()
    stop.set()
    ticker.join()
    inside = [tick for tick in ticks if start < tick < end]
    assert len(inside) > (end - start) / 0.001 / 20
    assert index_tar(str(path), "big.tar").n == 60_000
