"""Samples as stored: their bytes exactly, their pictures upright, and errors that name the sample."""

import io

import pytest
from PIL import Image

from fastload.errors import SampleError
from fastload.prepare.common.stored import read_bytes, read_stored
from fastload.shards.dataset import open_dataset
from fastload.shards.writer import ShardWriter
from tests.prepare.pictures import jpeg


def test_a_turned_photo_is_shown_upright(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    with ShardWriter(tmp_path / "turned-%d.tar") as writer:
        writer.write({"__key__": "a", "jpg": jpeg(0, 96, 64, exif=turned)})
    stored = read_stored(open_dataset(tmp_path / "turned-0.tar"), 0, ("jpg",))
    assert (stored.width, stored.height) == stored.picture.size == (64, 96)


def test_stored_bytes_are_read_back_exactly(shards, class_folders):
    for source, sample_id, number in ((shards, 13, 13), (class_folders, 4, 1)):
        read = read_bytes(open_dataset(source), sample_id, ("png", "jpg"))
        with Image.open(io.BytesIO(read)) as image:
            image.load()
        assert read == (jpeg(number, 60 + 7 * number, 90) if source is shards else jpeg(number))


def test_an_image_that_is_missing_or_broken_is_an_error_that_names_its_shard(tmp_path):
    with ShardWriter(tmp_path / "odd-%d.tar") as writer:
        writer.write({"__key__": "a", "jpg": b"no jpeg"})
        writer.write({"__key__": "b", "txt": "words"})
    dataset = open_dataset(tmp_path / "odd-0.tar")
    with pytest.raises(SampleError, match=r"odd-0\.tar.*Pillow cannot decode this image"):
        read_stored(dataset, 0, ("jpg",))
    with pytest.raises(SampleError, match=r"odd-0\.tar.*no image"):
        read_bytes(dataset, 1, ("jpg",))
