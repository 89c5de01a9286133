"""The demo's sample set: varied like collected data, the same for a seed, whole or not there at all."""

import io
import os
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageOps

from fastload.prepare.common import demo_set as module
from fastload.prepare.common import pipeline
from fastload.prepare.common.demo_set import CLASSES, PHOTOS, PHOTOS_FOLDER, demo_set, make_samples
from fastload.prepare.common.stored import EXIF_ORIENTATION
from fastload.shards.dataset import open_dataset


@pytest.fixture(scope="module")
def samples():
    return make_samples(0)


@pytest.fixture
def few(monkeypatch):
    """A set of two photos and a crop of each."""
    monkeypatch.setattr(module, "PHOTOS", PHOTOS[:2])
    monkeypatch.setattr(module, "CROPS_PER_PHOTO", 1)
    monkeypatch.setattr(module, "CROPS_PER_GRAY_PHOTO", 1)


def opened(samples):
    return [Image.open(io.BytesIO(sample.jpg)) for sample in samples]


def test_the_photos_are_small_have_their_licence_and_are_all_in_the_table():
    files = {path.name for path in PHOTOS_FOLDER.iterdir()}
    assert files == {"LICENSE", *(f"{photo.name}.jpg" for photo in PHOTOS)}
    assert sum(path.stat().st_size for path in PHOTOS_FOLDER.iterdir()) <= 600_000
    assert "MIT License" in (PHOTOS_FOLDER / "LICENSE").read_text()


def test_every_class_has_samples_and_captions_belong_to_one_class(samples):
    assert {sample.label for sample in samples} == set(range(len(CLASSES)))
    assert len({(sample.label, sample.caption) for sample in samples}) == len(PHOTOS)


def test_the_first_sample_of_a_photo_is_its_file(samples):
    stored = {sample.jpg for sample in samples}
    assert all((PHOTOS_FOLDER / f"{photo.name}.jpg").read_bytes() in stored for photo in PHOTOS)


def test_sizes_and_kinds_of_jpeg_vary_as_in_collected_data(samples):
    images = opened(samples)
    sizes = [ImageOps.exif_transpose(image).size for image in images]
    shapes = Counter("wide" if w > h else "tall" if w < h else "square" for w, h in sizes)
    assert min(shapes[shape] for shape in ("wide", "tall", "square")) >= 0.15 * len(samples)
    assert len(set(sizes)) > 0.8 * len(samples) and any(width % 8 for width, _ in sizes)
    assert min(min(size) for size in sizes) > 100 and max(max(size) for size in sizes) < 800
    orientations = Counter(image.getexif().get(EXIF_ORIENTATION, 1) for image in images)
    assert set(orientations) == {1, 3, 6, 8} and orientations[1] > 0.8 * len(samples)
    assert 0.1 < sum(image.mode == "L" for image in images) / len(samples) < 0.3
    assert 0.05 < sum("progressive" in image.info for image in images) / len(samples) < 0.2


def test_captions_name_black_and_white_where_it_is(samples):
    for sample, image in zip(samples, opened(samples), strict=True):
        assert (image.mode == "L") == sample.caption.endswith("black and white")


def test_a_turned_file_is_upright_after_its_orientation():
    image = Image.fromarray(np.repeat(np.arange(40, dtype=np.uint8)[:, None] * 6, 30, 1))
    rng, seen = np.random.default_rng(1), set()
    for _ in range(100):
        stored = Image.open(io.BytesIO(module._encode(image, rng)))
        upright = np.asarray(ImageOps.exif_transpose(stored), np.int16)
        assert np.abs(upright - np.asarray(image)).max() < 25
        seen.add(stored.getexif().get(EXIF_ORIENTATION, 1))
    assert seen == {1, 3, 6, 8}


def test_the_same_seed_makes_the_same_bytes_and_another_seed_others(few):
    first, again, other = (make_samples(seed) for seed in (0, 0, 1))
    assert first == again
    assert [a.jpg == b.jpg for a, b in zip(first, other, strict=True)] == [True, False] * 2


def test_progress_names_each_photo_and_ends_at_100_percent(few):
    calls = []
    make_samples(0, progress=lambda *call: calls.append(call))
    assert calls == [(0.5, PHOTOS[0].name), (1.0, PHOTOS[1].name)]


def test_the_set_is_made_once_and_opens_as_shards(samples, monkeypatch):
    monkeypatch.setattr(module, "make_samples", lambda *_: samples)
    folder = demo_set()
    dataset = open_dataset(folder)
    assert dataset.n == len(samples) == 200 and len(dataset.names) == module.SHARDS
    assert dataset.extensions == dict.fromkeys(("jpg", "cls", "txt"), 200)
    monkeypatch.setattr(module, "make_samples", lambda *_: pytest.fail("made again"))
    assert demo_set() == folder


def test_all_photos_are_on_the_demos_sheet(samples, monkeypatch):
    monkeypatch.setattr(module, "make_samples", lambda *_: samples)
    folder = demo_set()
    with pipeline.open_loader(folder, open_dataset(folder), size=8, batch_size=24) as loader:
        assert len(set(next(iter(loader))["caption"])) == len(PHOTOS)


def test_an_interruption_leaves_nothing_behind(few, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.ShardWriter, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo_set()
    assert os.listdir(module.cache_dir() / "demo") == []


def test_a_percent_sign_in_the_cache_folder_is_kept(few, monkeypatch, tmp_path):
    monkeypatch.setenv("FASTLOAD_CACHE", str(tmp_path / "100%d"))
    assert open_dataset(demo_set()).n == 4


def test_another_process_may_have_been_faster(few, monkeypatch):
    write = module._write_shards

    def overtaken(samples, folder):
        write(samples, folder)
        monkeypatch.setattr(module, "_write_shards", write)
        demo_set()

    monkeypatch.setattr(module, "_write_shards", overtaken)
    folder = demo_set()
    assert open_dataset(folder).n == 4
    assert os.listdir(module.cache_dir() / "demo") == [os.path.basename(folder)]
