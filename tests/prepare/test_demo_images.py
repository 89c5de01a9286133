"""The drawn sample set: every kind draws, the same seed gives the same bytes, the folder appears whole."""

import io
import os

import numpy as np
import pytest
from PIL import Image, ImageOps

from fastload.prepare import demo_images as module
from fastload.prepare.demo_images import KINDS, cut_out, draw_pictures, encode, sample_set
from fastload.prepare.scenes.canvas import Canvas, noise_tile, sample, sample_grid
from fastload.shards.dataset import open_dataset


@pytest.fixture
def few(monkeypatch):
    """A set of one small picture per kind."""
    monkeypatch.setattr(module, "DRAWN_SIZES", ((120, 80),))
    monkeypatch.setattr(module, "DRAWINGS_PER_KIND", 1)
    monkeypatch.setattr(module, "CUTS_PER_DRAWING", 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width, height", [(97, 64), (61, 101)])
def test_every_kind_draws_a_picture_with_contrast(kind, width, height):
    picture, caption = KINDS[kind](Canvas(width, height, np.random.default_rng(3)))
    assert picture.shape == (height, width, 3) and picture.dtype == np.float32
    assert picture.min() >= 0 and picture.max() <= 1
    assert picture.std() > 0.02 and caption


def test_the_same_seed_draws_the_same_bytes_and_another_seed_others(few):
    first, again, other = (list(draw_pictures(seed)) for seed in (0, 0, 1))
    assert first == again
    assert all(a.jpg != b.jpg for a, b in zip(first, other, strict=True))


def test_the_set_is_drawn_once_and_opens_as_shards(few, monkeypatch):
    folder = sample_set()
    dataset = open_dataset(folder)
    assert dataset.n == len(KINDS) and len(dataset.names) == module.SHARDS
    assert dataset.extensions == {"jpg": dataset.n, "cls": dataset.n, "txt": dataset.n}
    monkeypatch.setattr(module, "draw_pictures", lambda *_: pytest.fail("drawn again"))
    assert sample_set() == folder


def test_an_interrupted_drawing_leaves_nothing_behind(few, monkeypatch):
    def broken(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "pack", broken)
    with pytest.raises(KeyboardInterrupt):
        sample_set()
    assert os.listdir(module.cache_dir() / "demo") == []


def test_a_percent_sign_in_the_cache_folder_is_kept(few, monkeypatch, tmp_path):
    monkeypatch.setenv("FASTLOAD_CACHE", str(tmp_path / "100%d"))
    assert open_dataset(sample_set()).n == len(KINDS)


def test_another_process_may_have_been_faster(few, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "shard").touch()
    module._publish(tmp_path / "mine", tmp_path / "done")
    assert (tmp_path / "done" / "shard").exists()


def test_cuts_have_the_sizes_and_proportions_of_collected_data():
    image = Image.new("RGB", (408, 272))
    rng = np.random.default_rng(0)
    sizes = [cut_out(image, rng, whole=False).size for _ in range(150)]
    long_sides = [max(size) for size in sizes]
    assert min(long_sides) >= 317 and 1500 < max(long_sides) <= 1600
    assert any(w > h for w, h in sizes) and any(w < h for w, h in sizes)
    assert any(w % 8 for w, _ in sizes)


def test_turned_files_are_upright_after_their_orientation():
    image = Image.fromarray(np.arange(40 * 30 * 3).reshape(40, 30, 3).astype(np.uint8) // 2)
    rng, seen = np.random.default_rng(1), set()
    for _ in range(200):
        jpg, remark = encode(image, rng)
        stored = Image.open(io.BytesIO(jpg))
        orientation = stored.getexif().get(module.EXIF_ORIENTATION, 1)
        assert ImageOps.exif_transpose(stored).size == image.size
        assert (stored.mode == "L") == (remark != "")
        seen.add((orientation, stored.mode, bool(stored.info.get("progressive"))))
    assert {one[0] for one in seen} == {1, 3, 6, 8}
    assert {one[1] for one in seen} == {"RGB", "L"} and {one[2] for one in seen} == {False, True}


def test_noise_tiles_wrap_and_both_ways_to_sample_them_agree():
    tile = noise_tile(1.5, 0)
    u, v = np.float32([-3.25, 0, 511.5, 512, 700.75]), np.float32([0.5, -0.5, 1023.25])
    grid = sample_grid(tile, u, v)
    assert grid.shape == (3, 5)
    np.testing.assert_allclose(grid, sample(tile, *np.broadcast_arrays(u[None, :], v[:, None])), atol=1e-5)
    np.testing.assert_allclose(sample_grid(tile, u + 512, v - 512), grid, atol=2e-3)  # float32 places
