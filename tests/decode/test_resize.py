"""The native resize equals Pillow's bit for bit, on every instruction set that this machine has."""

import io

import numpy as np
import PIL
import pytest
from PIL import Image

from fastload import _native
from tests.corpus import photos

FILTERS = {0: Image.Resampling.NEAREST, 1: Image.Resampling.BILINEAR, 2: Image.Resampling.BICUBIC}
FILTERS[3] = Image.Resampling.LANCZOS
SIZES = [(1, 1), (1, 2), (2, 1), (3, 5), (15, 16), (16, 17), (17, 31), (31, 33), (64, 65), (127, 128)]
SIZES += [(257, 256), (900, 64), (64, 900), (2, 1500), (1500, 2), (333, 101)]
INSTRUCTION_SETS = ["portable", "sse2", "avx2", "avx512", "vnni"]
# Pillow 13 takes the vertical pass first for tall images; before, it never did.
PILLOW_TURNS_TALL_IMAGES = int(PIL.__version__.split(".")[0]) >= 13


@pytest.fixture(params=INSTRUCTION_SETS)
def kernels(request):
    try:
        _native.use_pixel_kernels(request.param)
    except ValueError:
        pytest.skip(f"this machine does not run {request.param}")
    yield request.param
    _native.use_pixel_kernels("")


def native(rgb, box, resized, crop, flip, filter):
    out = np.full((crop[3], crop[2], 3), 77, np.uint8)
    writer = _native.PixelWriter(_native.Dtype.uint8, True, crop[3], crop[2], 1.0, [0.0] * 3, [1.0] * 3)
    _native.write_image(rgb, box, resized, crop, flip, filter, writer, out, 0)
    return out


def pillow(rgb, box, resized, crop, flip, filter):
    left, top, width, height = crop
    image = Image.fromarray(rgb).resize(resized, FILTERS[filter], box=box)
    pixels = np.asarray(image)[top : top + height, left : left + width]
    return pixels[:, ::-1] if flip else pixels


def whole(rgb):
    return (0.0, 0.0, float(rgb.shape[1]), float(rgb.shape[0]))


def noise(rng, height, width):
    # Full-scale noise is where an accumulator would overflow and a clamp would be missed.
    kind = rng.integers(3)
    if kind == 0:
        return rng.integers(0, 2, (height, width, 3), np.uint8) * np.uint8(255)
    return rng.integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_size_equals_pillow(kernels, filter, size):
    rng = np.random.default_rng(size[0] * 10_000 + size[1])
    rgb = noise(rng, *size)
    for resized in [
        (1, 1),
        (2, 3),
        (16, 16),
        (17, 15),
        (100, 64),
        (size[1], size[0]),
        (size[1], 40),
        (40, size[0]),
    ]:
        if not PILLOW_TURNS_TALL_IMAGES and size[0] - resized[1] > 2 * (size[1] - resized[0]):
            continue
        crop = (0, 0, *resized)
        expected = pillow(rgb, whole(rgb), resized, crop, False, filter)
        assert np.array_equal(native(rgb, whole(rgb), resized, crop, False, filter), expected), resized


@pytest.mark.parametrize("filter", FILTERS)
def test_boxes_crops_and_flips_equal_pillow(kernels, filter):
    rng = np.random.default_rng(filter)
    for _ in range(25):
        rgb = noise(rng, int(rng.integers(1, 200)), int(rng.integers(1, 200)))
        height, width = rgb.shape[:2]
        x0, y0 = rng.random(2) * (width * 0.5, height * 0.5)
        x1, y1 = x0 + 0.1 + rng.random() * (width - x0 - 0.1), y0 + 0.1 + rng.random() * (height - y0 - 0.1)
        # Pillow takes float32 edges; what is rounded up past the border is brought back.
        x0, y0, x1, y1 = (float(np.float32(edge)) for edge in (x0, y0, x1, y1))
        box = (x0, y0, min(x1, width), min(y1, height))
        resized = tuple(int(side) for side in rng.integers(1, 120, 2))
        if not PILLOW_TURNS_TALL_IMAGES and height - resized[1] > 2 * (width - resized[0]):
            continue
        left, top = int(rng.integers(resized[0])), int(rng.integers(resized[1]))
        crop = (
            left,
            top,
            int(rng.integers(1, resized[0] - left + 1)),
            int(rng.integers(1, resized[1] - top + 1)),
        )
        flip = bool(rng.integers(2))
        expected = pillow(rgb, box, resized, crop, flip, filter)
        assert np.array_equal(native(rgb, box, resized, crop, flip, filter), expected), (
            rgb.shape,
            box,
            resized,
            crop,
        )


@pytest.mark.parametrize("filter", [1, 2, 3])
def test_real_photos_equal_pillow(kernels, filter):
    for name, content in list(photos().items())[:4]:
        rgb = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        short = min(rgb.shape[:2])
        resized = tuple(max(256, round(side * 256 / short)) for side in rgb.shape[1::-1])
        crop = ((resized[0] - 256) // 2, (resized[1] - 256) // 2, 256, 256)
        expected = pillow(rgb, whole(rgb), resized, crop, True, filter)
        assert np.array_equal(native(rgb, whole(rgb), resized, crop, True, filter), expected), name


def test_a_source_that_is_not_contiguous_is_read_as_it_looks():
    rng = np.random.default_rng(5)
    rgb = noise(rng, 60, 90)[::2, ::-3]
    crop = (0, 0, 16, 16)
    expected = pillow(np.ascontiguousarray(rgb), whole(rgb), (16, 16), crop, False, 2)
    assert np.array_equal(native(rgb, whole(rgb), (16, 16), crop, False, 2), expected)


@pytest.mark.parametrize(
    "wrong",
    [
        {"box": (0.0, 0.0, 9.0, 8.0)},
        {"box": (3.0, 0.0, 3.0, 8.0)},
        {"box": (-1.0, 0.0, 8.0, 8.0)},
        {"crop": (1, 0, 4, 4)},
        {"crop": (0, 0, 0, 4)},
        {"filter": 4},
        {"sample": 1},
    ],
)
def test_arguments_that_would_leave_the_memory_are_refused(wrong):
    rgb = np.zeros((8, 8, 3), np.uint8)
    writer = _native.PixelWriter(_native.Dtype.uint8, True, 4, 4, 1.0, [0.0] * 3, [1.0] * 3)
    arguments = {
        "box": whole(rgb),
        "resized": (4, 4),
        "crop": (0, 0, 4, 4),
        "filter": 2,
        "sample": 0,
        **wrong,
    }
    with pytest.raises(ValueError):
        _native.write_image(rgb, **arguments, flip=False, writer=writer, out=np.zeros((4, 4, 3), np.uint8))
