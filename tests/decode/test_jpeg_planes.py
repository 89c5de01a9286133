"""Luma and chroma that our kernels convert give the pixels that libjpeg's own conversion gives.

The SSE2 kernels leave the conversion to libjpeg, the wider ones do it themselves where most of an image is
needed: so the same images through both must be equal to the bit, whatever their size, sampling and scale.
"""

import io

import numpy as np
import PIL.Image
import pytest

from fastload import _native
from fastload.augment.pipe import Augment
from fastload.errors import SampleError
from fastload.fields import Image
from tests.decode.test_images import decoded

SUBSAMPLING = {"444": 0, "422": 1, "420": 2}


def runs_here(kernels: str) -> bool:
    try:
        _native.use_pixel_kernels(kernels)
    except ValueError:
        return False
    finally:
        _native.use_pixel_kernels("")
    return True


WIDE = [
    pytest.param(name, marks=pytest.mark.skipif(not runs_here(name), reason=f"this CPU has no {name}"))
    for name in ("avx2", "avx512", "vnni")
]


def jpeg(width: int, height: int, subsampling: str = "420", quality: int = 95, **options) -> bytes:
    """Squares of random colours, with noise: edges of luma and chroma that lie anywhere."""
    rng = np.random.default_rng(width * 10_007 + height)
    squares = rng.integers(0, 256, (height // 11 + 1, width // 11 + 1, 3))
    pixels = np.kron(squares, np.ones((11, 11, 1), int))[:height, :width] + rng.integers(
        -20, 21, (height, width, 3)
    )
    out = io.BytesIO()
    PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
        out, "JPEG", quality=quality, subsampling=SUBSAMPLING[subsampling], **options
    )
    return out.getvalue()


def through(kernels: str, tmp_path, blobs, field, **settings) -> np.ndarray:
    folder = tmp_path / kernels
    folder.mkdir()
    _native.use_pixel_kernels(kernels)
    try:
        _, tensors = decoded(folder, blobs, {"image": field}, dtype="uint8", **settings)
    finally:
        _native.use_pixel_kernels("")
    return np.asarray(tensors["image"])


def assert_equal_to_libjpeg(kernels, tmp_path, blobs, field, **settings):
    settings.setdefault("augment", Augment(xflip=0.5))
    expected = through("sse2", tmp_path, blobs, field, **settings)
    assert np.ptp(expected) > 100
    np.testing.assert_array_equal(through(kernels, tmp_path, blobs, field, **settings), expected)


needs_x86 = pytest.mark.skipif(not runs_here("sse2"), reason="the kernels compared here are those of x86-64")


@needs_x86
@pytest.mark.parametrize("subsampling", SUBSAMPLING)
@pytest.mark.parametrize("kernels", WIDE)
def test_small_images_of_every_size(tmp_path, kernels, subsampling):
    sizes = [
        (w, h) for w in (1, 2, 3, 4, 5, 6, 15, 16, 17, 31, 33, 47, 65) for h in (1, 2, 3, 15, 16, 17, 18, 33)
    ]
    blobs = [jpeg(w, h, subsampling) for w, h in sizes]
    assert_equal_to_libjpeg(kernels, tmp_path, blobs, Image("jpg", size=(24, 40), resize="exact"))


@needs_x86
@pytest.mark.parametrize("scaled", ["half", "full", None])
@pytest.mark.parametrize("subsampling", SUBSAMPLING)
@pytest.mark.parametrize("kernels", WIDE)
def test_scaled_decoding(tmp_path, kernels, subsampling, scaled):
    blobs = [jpeg(w, h, subsampling) for w, h in ((255, 257), (256, 256), (301, 199), (640, 480))]
    field = Image("jpg", size=32, resize="short", crop="center", filter="bicubic", scaled=scaled)
    assert_equal_to_libjpeg(kernels, tmp_path, blobs, field)


@needs_x86
@pytest.mark.parametrize("kernels", WIDE)
def test_crops_begin_at_any_row_and_column(tmp_path, kernels):
    blobs = [jpeg(w, h) for w in (64, 71, 99) for h in (64, 67, 90)] * 6
    field = Image("jpg", size=48, resize="random", scale=(0.5, 1.0), filter="lanczos")
    assert_equal_to_libjpeg(kernels, tmp_path, blobs, field)


@needs_x86
@pytest.mark.parametrize("kernels", WIDE)
def test_copies_without_a_resize(tmp_path, kernels):
    blobs = [jpeg(w, h) for w, h in ((64, 64), (65, 64), (64, 66), (79, 64))] * 4
    assert_equal_to_libjpeg(kernels, tmp_path, blobs, Image("jpg", size=64, resize="short", crop="random"))


@needs_x86
@pytest.mark.parametrize("kernels", WIDE)
def test_progressive_and_restart_intervals(tmp_path, kernels):
    blobs = [
        jpeg(200, 150, progressive=True),
        jpeg(201, 151, restart_marker_blocks=3),
        jpeg(202, 149, quality=100),
    ]
    assert_equal_to_libjpeg(kernels, tmp_path, blobs, Image("jpg", size=96, resize="short", crop="center"))


@needs_x86
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("kernels", WIDE)
def test_a_cut_file_is_damage(tmp_path, kernels, share):
    blob = jpeg(320, 240)
    with pytest.raises(SampleError, match="cut"):
        through(kernels, tmp_path, [blob[: int(len(blob) * share)]], Image("jpg", size=128))
