"""The default pipeline of the verbs: its fields are those that the data has; its samples can be looked up."""

import pytest

from fastload.errors import FieldError
from fastload.prepare.common import pipeline
from fastload.shards.dataset import open_dataset
from fastload.shards.writer import ShardWriter
from tests.prepare.pictures import jpeg


def test_a_field_that_some_samples_lack_gets_a_default(tmp_path):
    with ShardWriter(tmp_path / "some-%d.tar") as writer:
        writer.write({"__key__": "a", "jpg": jpeg(0), "txt": "first", "cls": 4})
        writer.write({"__key__": "b", "jpg": jpeg(1)})
    chosen = pipeline.choose_fields(open_dataset(tmp_path / "some-0.tar"), size=32)
    assert (chosen["label"].default, chosen["caption"].default) == (-1, "")
    assert chosen["image"].required


def test_an_image_under_an_unusual_name_is_found(tmp_path):
    with ShardWriter(tmp_path / "named-%d.tar") as writer:
        writer.write({"__key__": "a", "left.jpg": jpeg(0), "right.jpg": jpeg(1)})
        writer.write({"__key__": "b", "right.jpg": jpeg(1)})
    assert pipeline.image_extensions(open_dataset(tmp_path / "named-0.tar")) == ("right.jpg",)


def test_without_any_image_the_extensions_are_named(tmp_path):
    with ShardWriter(tmp_path / "text-%d.tar") as writer:
        writer.write({"__key__": "a", "txt": "words", "json": {}})
    with pytest.raises(FieldError, match=r"no sample has an image; the extensions are: json, txt\."):
        pipeline.image_extensions(open_dataset(tmp_path / "text-0.tar"))


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_samples_of_a_batch_are_found_by_their_positions(shards, shuffle):
    dataset = open_dataset(shards)
    with pipeline.open_loader(shards, dataset, size=8, batch_size=7, shuffle=shuffle, seed=3) as loader:
        batch = next(iter(loader))
        sample_ids = pipeline.samples_at(dataset, batch["__position__"], shuffle=shuffle, seed=3)
        pixels = pipeline.as_pixels(batch["image"])
    assert dataset.keys(sample_ids) == batch["__key__"]
    assert (sample_ids.tolist() == list(range(7))) != shuffle
    assert (pixels.shape, str(pixels.dtype)) == ((7, 8, 8, 3), "uint8")
