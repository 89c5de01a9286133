"""Shards that we write: read back by webdataset, tarfile and ourselves, the same bytes every time."""

import os
import tarfile

import numpy as np
import pytest
import webdataset

from fastload.errors import ConfigError
from fastload.shards.dataset import open_dataset
from fastload.shards.writer import ShardWriter


def samples(count):
    for i in range(count):
        yield {
            "__key__": f"folder/{i:05d}",
            "jpg": bytes([i % 256]) * (100 * i),
            "cls": i,
            "txt": f"naïve {i} 東京",
            "json": {"i": i, "list": [1, None]},
            "latent.npy": np.full((2, 3), i, np.float32),
        }


@pytest.mark.parametrize("count", [1, 6, 7, 8, 15])
def test_webdataset_reads_back_the_same_samples(tmp_path, count):
    with ShardWriter(tmp_path / "out/t-%05d.tar", max_samples=7) as writer:
        for sample in samples(count):
            writer.write(sample)
    assert writer.paths == [str(tmp_path / f"out/t-{i:05d}.tar") for i in range(-(-count // 7))]
    assert sorted(os.listdir(tmp_path / "out")) == [os.path.basename(path) for path in writer.paths]
    got = list(webdataset.WebDataset(writer.paths, shardshuffle=False).decode())
    assert len(got) == count == writer.samples_total
    for sample, back in zip(samples(count), got, strict=True):
        assert back["__key__"] == sample["__key__"]
        assert (
            back["cls"] == sample["cls"] and back["txt"] == sample["txt"] and back["json"] == sample["json"]
        )
        assert np.array_equal(back["latent.npy"], sample["latent.npy"])
    dataset = open_dataset(writer.paths, cache_dir=tmp_path / "cache")
    assert dataset.keys(np.arange(count)) == [sample["__key__"] for sample in samples(count)]


def test_the_same_samples_give_the_same_bytes(tmp_path):
    blobs = []
    for folder in ("a", "b"):
        with ShardWriter(tmp_path / folder / "%d.tar") as writer:
            for sample in samples(5):
                writer.write(sample)
        blobs.append((tmp_path / folder / "0.tar").read_bytes())
    assert blobs[0] == blobs[1]
    with tarfile.open(tmp_path / "a/0.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar} == {(0, 0, 0, "", "", 0o644)}


def test_a_shard_is_closed_before_it_grows_over_max_bytes(tmp_path):
    with ShardWriter(tmp_path / "%d.tar", max_bytes=4095) as writer:
        for i, size in enumerate([1000, 1000, 100, 9000, 1]):
            writer.write({"__key__": str(i), "bin": bytes(size)})
    assert open_dataset(writer.paths, cache_dir=tmp_path / "c").shard_counts.tolist() == [2, 1, 1, 1]


def test_an_exception_leaves_whole_shards_only(tmp_path):
    with pytest.raises(RuntimeError), ShardWriter(tmp_path / "out/%d.tar", max_samples=2) as writer:
        for i, sample in enumerate(samples(4)):
            if i == 3:
                raise RuntimeError
            writer.write(sample)
    assert os.listdir(tmp_path / "out") == ["0.tar"]


def test_nothing_written_makes_no_file(tmp_path):
    with ShardWriter(tmp_path / "%d.tar") as writer:
        pass
    assert writer.paths == [] and os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "sample, message",
    [
        ({"jpg": b""}, "'__key__' of a sample must be a non-empty str"),
        ({"__key__": "", "jpg": b""}, "'__key__' of a sample must be a non-empty str"),
        ({"__key__": "a.b", "jpg": b""}, "'a.b.jpg' would not read back"),
        ({"__key__": "/a", "jpg": b""}, "would not read back"),
        ({"__key__": "__a__/b", "jpg": b""}, "would not read back"),
        ({"__key__": "a", "JPG": b""}, "would not read back"),
        ({"__key__": "a", "x/y": b""}, "would not read back"),
        ({"__key__": "a"}, "'a' has no content"),
        ({"__key__": "a", "cls": 1.5}, "a float cannot be written as 'cls'"),
        ({"__key__": "taken", "jpg": b""}, "'taken' is already in this shard"),
    ],
)
def test_samples_that_would_not_read_back_are_refused(tmp_path, sample, message):
    with ShardWriter(tmp_path / "%d.tar") as writer:
        writer.write({"__key__": "taken", "jpg": b"1"})
        with pytest.raises(ConfigError, match=message):
            writer.write(sample)
    assert open_dataset(writer.paths, cache_dir=tmp_path / "c").n == 1


@pytest.mark.parametrize("pattern", ["plain.tar", "%d-%d.tar", "{:05d}.tar"])
def test_a_pattern_has_one_number(tmp_path, pattern):
    with pytest.raises(ConfigError, match="one number"):
        ShardWriter(tmp_path / pattern)


def test_sizes_have_a_lower_limit(tmp_path):
    with pytest.raises(ConfigError, match="at least 1"):
        ShardWriter(tmp_path / "%d.tar", max_samples=0)
