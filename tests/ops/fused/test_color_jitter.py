"""ColorJitter means what torchvision means by it, in every order, on floats and on pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch

import fastload as fl
from fastload.errors import ConfigError

GOLDEN = np.load(Path(__file__).parents[2] / "data" / "color_jitter" / "golden.npz")
PIXELS = torch.from_numpy(GOLDEN["levels"])
JITTERED = torch.from_numpy(GOLDEN["jittered"])
FACTORS = dict(
    zip(("brightness", "contrast", "saturation", "hue"), torch.from_numpy(GOLDEN["factors"]).T, strict=True)
)
ORDERS = [str(order) for order in GOLDEN["orders"]]
IMPLS = ("auto", "reference")
# float32 on either side: a hue of a nearly gray pixel is a quotient of small differences.
TOLERANCE = 2e-5


@pytest.mark.parametrize("impl", IMPLS)
def test_all_24_orders_are_torchvisions(impl):
    jittered = fl.ops.color_jitter(PIXELS / 255, **FACTORS, order=ORDERS, impl=impl)
    assert (jittered.shape, jittered.dtype) == (JITTERED.shape, torch.float32)
    assert (jittered - JITTERED).abs().max() < TOLERANCE


@pytest.mark.parametrize("impl", IMPLS)
def test_pixels_are_rounded_once_at_the_end(impl):
    jittered = fl.ops.color_jitter(PIXELS, **FACTORS, order=ORDERS, impl=impl)
    assert jittered.dtype == torch.uint8
    assert (jittered / 255 - JITTERED).abs().max() <= 0.5 / 255 + TOLERANCE


@pytest.mark.parametrize("order", ["bcsh", "hscb", "cbhs"])
@pytest.mark.parametrize("images", [PIXELS, PIXELS / 255], ids=["uint8", "float32"])
def test_torchvision_itself_agrees_where_it_is_installed(images, order):
    F = pytest.importorskip("torchvision.transforms.v2.functional")
    steps = {"b": F.adjust_brightness, "c": F.adjust_contrast, "s": F.adjust_saturation, "h": F.adjust_hue}
    numbers = {"b": 1.3, "c": 0.6, "s": 1.7, "h": -0.2}
    expected = PIXELS / 255
    for letter in order:
        expected = steps[letter](expected, numbers[letter])
    jittered = fl.ops.color_jitter(images, 1.3, 0.6, 1.7, -0.2, order=order)
    scale = 255 if jittered.dtype == torch.uint8 else 1
    assert (jittered / scale - expected).abs().max() < 1 / 255


def test_one_factor_is_meant_for_all_images():
    alone = fl.ops.color_jitter(PIXELS, brightness=0.5)
    each = fl.ops.color_jitter(PIXELS, brightness=torch.full((24,), 0.5))
    assert torch.equal(alone, each)
    assert not torch.equal(alone, PIXELS)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_the_defaults_change_nothing(dtype):
    images = PIXELS if dtype == torch.uint8 else (PIXELS / 255).to(dtype)
    impl = "reference" if dtype == torch.float64 else "auto"
    assert torch.equal(fl.ops.color_jitter(images, impl=impl), images)


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_shape_and_layout_stay(form):
    images = PIXELS.contiguous(memory_format=form)
    jittered = fl.ops.color_jitter(images, 1.2, 0.8, 1.1, 0.1)
    assert jittered.shape == images.shape
    assert jittered.is_contiguous(memory_format=form)
    last = PIXELS.permute(0, 2, 3, 1).contiguous()
    by_pixels = fl.ops.color_jitter(last, 1.2, 0.8, 1.1, 0.1)
    assert by_pixels.is_contiguous()
    assert torch.equal(by_pixels.permute(0, 3, 1, 2), jittered)


def test_a_gray_image_has_brightness_and_contrast_only():
    gray = PIXELS[:, :1].contiguous()
    jittered = fl.ops.color_jitter(gray / 255, 1.2, 0.5, 3.0, 0.4)
    bright = (gray / 255 * 1.2).clamp(0, 1)
    assert torch.allclose(jittered, bright * 0.5 + bright.mean((1, 2, 3), keepdim=True) * 0.5, atol=1e-6)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"brightness": torch.ones(3)}, r"brightness is \[3\]: give a number, or one for each of the 24"),
        ({"order": "bcs"}, "order='bcs': give a permutation of \"bcsh\""),
        ({"order": ["bcsh"]}, "one for each of the 24 images"),
        ({"impl": "magic"}, "impl='magic'"),
        ({"hue": 3}, "hue=3: give -0.5 to 0.5"),
        ({"brightness": -1}, "brightness=-1: give 0 to inf"),
        ({"saturation": float("nan")}, "saturation=nan"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        fl.ops.color_jitter(PIXELS, **arguments)


def test_images_of_another_shape_are_refused():
    with pytest.raises(ConfigError, match=r"images are \[3, 5, 6\]"):
        fl.ops.color_jitter(PIXELS[0])
