"""Indexing and opening a million samples: the rates, the bytes read, the memory that the rows take.

    pytest benchmarks/bench_index.py -m slow -o addopts= -s

One shard of 10,000 samples (jpg + cls + txt) under 100 names (hard links): to the index these are 100 shards
with a million samples, and all of it stays in the page cache. Photos are 2 KiB here, so that the file is
small: the index reads headers only, and its time does not depend on what lies between them. Checked along the
way: every name gets the same content, the second opening builds nothing, and the lookups agree with the plain
indexer.
"""

import gc
import os
import time

import numpy as np
import pytest

from fastload.shards.dataset import open_dataset
from fastload.shards.tar import index_tar
from fastload.shards.writer import ShardWriter

SAMPLES, SHARDS = 10_000, 100

pytestmark = pytest.mark.slow


def make_shards(folder):
    """A million samples below `folder`, in s/; the path of the one file that they lie in."""
    with ShardWriter(folder / "one-%d.tar", max_samples=SAMPLES) as writer:
        for i in range(SAMPLES):
            content = {
                "jpg": b"j" * (1800 + i % 400),
                "cls": i % 1000,
                "txt": "a caption of usual length " * 3,
            }
            writer.write({"__key__": f"{i:09d}", **content})
    (folder / "s").mkdir()
    for i in range(SHARDS):
        os.link(writer.paths[0], folder / f"s/{i:05d}.tar")
    return writer.paths[0]


@pytest.fixture(scope="module")
def million(tmp_path_factory):
    folder = tmp_path_factory.mktemp("million")
    index_tar(make_shards(folder), "warm")
    return folder


def resident_bytes():
    """Private and file-backed pages of this process that are in memory."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_million_samples_are_indexed_and_opened_within_the_aims(million):
    cache = million / "cache"
    open_dataset(million / "one-0.tar", cache_dir=cache).locate(
        [0], ("jpg",)
    )  # code and tables are in memory now
    start = time.perf_counter()
    built = open_dataset(million / "s", cache_dir=cache, threads=1)
    index_seconds = time.perf_counter() - start
    assert built.n == SAMPLES * SHARDS
    fingerprint = built.fingerprint
    del built
    ids = np.random.default_rng(0).permutation(SAMPLES * SHARDS)
    before = resident_bytes()
    start = time.perf_counter()
    dataset = open_dataset(million / "s", cache_dir=cache)
    open_seconds = time.perf_counter() - start
    assert dataset.fingerprint == fingerprint
    for batch in np.array_split(ids, 250):
        for extension in ("jpg", "cls", "txt"):
            assert (dataset.locate(batch, (extension,)).size_bytes > 0).all()
        assert len(dataset.keys(batch)) == len(batch)
    bytes_a_sample = (resident_bytes() - before) / dataset.n
    start = time.perf_counter()
    for batch in np.array_split(ids[:64_000], 1000):
        dataset.locate(batch, ("jpg", "png"))
    locate_us = (time.perf_counter() - start) / 1000 * 1e6
    print(
        f"\n1,000,000 samples in {SHARDS} shards: indexed in {index_seconds:.2f} s on one thread, opened in "
        f"{open_seconds:.3f} s, {bytes_a_sample:.1f} bytes a sample, locate of 64: {locate_us:.1f} us"
    )
    assert index_seconds < 60 and open_seconds < 1 and bytes_a_sample < 40


@pytest.mark.parametrize("impl", ["native", "reference"])
def test_rate_of_each_twin(million, benchmark, impl):
    rows = benchmark.pedantic(index_tar, (str(million / "one-0.tar"), "one", impl), rounds=3, warmup_rounds=1)
    assert rows.content_hash() == index_tar(str(million / "one-0.tar"), "one").content_hash()
    benchmark.extra_info["samples_per_second"] = SAMPLES / benchmark.stats["median"]


def test_rate_of_locate(million, benchmark):
    dataset = open_dataset(million / "one-0.tar", cache_dir=million / "cache")
    ids = np.random.default_rng(1).permutation(dataset.n)[:64]
    benchmark(dataset.locate, ids, ("jpg", "jpeg", "png", "webp"))
