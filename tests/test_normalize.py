"""Normalization is IEEE float32 in a fixed order, and every level comes back."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from fastload.errors import ConfigError
from fastload.normalize import PRESETS, Normalization, denormalize, normalization, normalize

ALL_PIXELS = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16), (2, 3, 16, 16))
RULES = [*PRESETS, (0.5, 0.25), ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]), Normalization(1.0, 128.0, 64.0)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


@pytest.mark.parametrize("preset, low, high", [("gan", -1, 1), ("diffusion", -1, 1), ("vae", 0, 1)])
def test_presets_have_their_ranges(preset, low, high):
    got = normalize(ALL_PIXELS, preset)
    assert got.min() == low and got.max() == high and got.dtype == np.float32


def test_imagenet_is_mean_and_std_of_pixels_in_0_to_1():
    got = normalize(ALL_PIXELS, "imagenet")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (ALL_PIXELS / 255 - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)
    np.testing.assert_allclose(got, expected, atol=1e-6)  # float32 against float64: 2^-24 of values up to 3
    assert normalization("imagenet") == normalization((tuple(mean), tuple(std)))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_each_value_is_the_float32_formula_in_its_order(rule):
    numbers, got = normalization(rule), normalize(ALL_PIXELS, rule)
    for channel in range(3):
        mean, std = np.float32(numbers.mean[channel]), np.float32(numbers.std[channel])
        for level in range(256):
            expected = (np.float32(level) / np.float32(numbers.divisor) - mean) / std
            assert got[1, channel].ravel()[level] == expected


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_torch_and_numpy_have_the_same_bits(rule):
    tensor = normalize(torch.from_numpy(ALL_PIXELS.copy()), rule)
    assert tensor.numpy().tobytes() == normalize(ALL_PIXELS, rule).tobytes()
    assert (denormalize(tensor, rule).numpy() == denormalize(tensor.numpy(), rule)).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_every_level_comes_back(rule, dtype):
    pixels = torch.from_numpy(ALL_PIXELS.copy())
    floats = normalize(pixels, rule, dtype=dtype)
    assert floats.dtype == dtype
    back = denormalize(floats, rule)
    if dtype == torch.bfloat16 and not isinstance(rule, str):
        # 8 bits of precision: half a step at a value of 2 to 4 is 2^-7, times std and 255 up to 1.2 pixels
        assert (back.int() - pixels.int()).abs().max() <= 2
    else:
        assert torch.equal(back, pixels)


@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
def test_the_layout_is_kept(format):
    pixels = torch.randint(0, 256, (4, 3, 5, 7), dtype=torch.uint8).to(memory_format=format)
    floats = normalize(pixels, "imagenet", dtype=torch.float16)
    assert floats.is_contiguous(memory_format=format)
    back = denormalize(floats, "imagenet")
    assert back.is_contiguous(memory_format=format) and torch.equal(back, pixels)


def test_one_image_and_no_image_and_a_view_will_do():
    pixels = torch.from_numpy(ALL_PIXELS.copy())
    assert torch.equal(normalize(pixels[0], "gan"), normalize(pixels, "gan")[0])
    assert normalize(pixels[:0], "gan").shape == (0, 3, 16, 16)
    assert torch.equal(normalize(pixels[..., ::3], "gan"), normalize(pixels, "gan")[..., ::3])


def test_what_lies_outside_is_clamped_and_halves_go_to_even():
    floats = torch.tensor([-1e9, -2.0, 3.0, float("inf"), float("-inf"), float("nan")]).repeat(1, 3, 1, 1)
    assert denormalize(floats, "gan")[0, 0, 0].tolist() == [0, 0, 255, 255, 0, 0]
    assert denormalize(floats.numpy(), "gan")[0, 0, 0].tolist() == [0, 0, 255, 255, 0, 0]
    halves = np.full((3, 1, 3), 1.0, np.float32) * np.array([0.5, 1.5, 2.5], np.float32)
    assert denormalize(halves, Normalization(1.0, 0.0, 1.0))[0, 0].tolist() == [0, 2, 2]


@pytest.mark.parametrize(
    "wrong",
    ["gann", 3, None, (0.5,), (0.5, 0.0), (0.5, -1.0), ([0.5] * 2, 0.5), (float("nan"), 1.0), ("a", "b")],
)
def test_a_wrong_normalization_is_one_line(wrong):
    with pytest.raises(ConfigError) as caught:
        normalization(wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [np.zeros((1, 4, 4, 3), np.uint8), np.zeros((3, 4, 4)), np.zeros(3, np.uint8), "x"]
)
def test_images_of_another_shape_or_type_are_refused(wrong):
    with pytest.raises(ConfigError, match="normalize takes uint8"):
        normalize(wrong, "gan")
    with pytest.raises(ConfigError, match="denormalize floats"):
        denormalize(np.zeros((2, 3, 4, 4), np.uint8), "gan")


def test_arrays_need_no_torch():
    code = (
        "import sys, numpy as np; from fastload.normalize import normalize, denormalize;"
        "denormalize(normalize(np.zeros((3, 1, 1), np.uint8), 'gan'), 'gan'); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize(
    "pair",
    [
        [-1, 1], (-1, 1), (-1.0, 1.0), (-0.5, 0.5), ([-1] * 3, [1] * 3), (0, 255), (127.5, 127.5),
        ([123.7, 116.3, 103.5], [58.4, 57.1, 57.4]), (0.5, [0.5, 0.5, 2.0]), np.array([-1.0, 1.0]),
    ],
)  # fmt: skip
def test_a_range_is_not_taken_as_mean_and_std(pair):
    with pytest.raises(
        ConfigError, match=r'values in \[0, 1\].*"gan" gives \[-1, 1\].*"vae" \[0, 1\]'
    ) as caught:
        normalization(pair)
    assert f"normalize={pair!r}" in str(caught.value)


@pytest.mark.parametrize("pair", [(0, 1), (0.5, 0.5), (1, 1), ([0.0, 0.5, 1.0], [0.1, 1.0, 0.004])])
def test_means_and_stds_of_values_in_0_to_1_are_taken(pair):
    assert normalization(pair).divisor == 255.0


def test_a_normalization_of_its_own_scale_may_have_any_mean():
    assert normalization(Normalization(127.5, -1.0, 3.0)).mean == (-1.0,) * 3
