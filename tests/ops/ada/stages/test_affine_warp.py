"""The reference of affine_warp is the published operator, and its gradients are right."""

import math

import numpy as np
import pytest
import torch

from fastload.errors import ConfigError
from fastload.ops import affine_warp
from fastload.ops.ada.stages.wavelets import SYM6
from tests.ops.ada import oracles
from tests.ops.ada.ada_cases import images, warps

SIZES = [(2, 2), (2, 5), (3, 4), (7, 6), (16, 24), (33, 31)]


def expected(batch, G_inv, **mistake):
    pairs = zip(batch.numpy(), G_inv.numpy(), strict=True)
    return torch.from_numpy(np.stack([oracles.warped(image, one, **mistake) for image, one in pairs]))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_reference_is_the_published_operator(size, channels):
    batch, G_inv = images(4, channels, *size), warps(4, *size)
    result = affine_warp(batch, G_inv, "reference")
    torch.testing.assert_close(result, expected(batch, G_inv), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "mistake",
    [
        {"shift": 0.001},
        {"taps": SYM6[::-1]},
        {"interpolation": "bilinear"},
        {"padding": "constant"},
        {"padding": "edge"},
    ],
    ids=lambda mistake: "-".join(map(str, mistake)),
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mistake_in_the_operator_is_noticed(mistake, dtype):
    batch, G_inv = images(4, 3, 32, 32), warps(4, 32, 32)
    result = affine_warp(batch.to(dtype), G_inv, "reference").double()
    tolerance = 3e-5 if dtype == torch.float32 else 1e-12
    assert (result - expected(batch, G_inv)).abs().max() <= tolerance
    assert (result - expected(batch, G_inv, **mistake)).abs().max() > 10 * tolerance


def test_smooth_images_are_sampled_where_they_should_be():
    """A plane wave that is warped is the wave at the places that G_inv names."""
    side = 64
    y, x = torch.meshgrid(*[torch.arange(side, dtype=torch.float64) - (side - 1) / 2] * 2, indexing="ij")

    def wave(x, y):
        return torch.cos(0.11 * x + 0.05 * y + 0.3)

    angle = 0.4
    G_inv = torch.tensor(
        [[math.cos(angle), -math.sin(angle), 1.3], [math.sin(angle), math.cos(angle), -0.7], [0, 0, 1]],
        dtype=torch.float64,
    )
    result = affine_warp(wave(x, y)[None, None], G_inv[None], "reference")[0, 0]
    from_x = G_inv[0, 0] * x + G_inv[0, 1] * y + G_inv[0, 2]
    from_y = G_inv[1, 0] * x + G_inv[1, 1] * y + G_inv[1, 2]
    inner = (from_x.abs() < 20) & (from_y.abs() < 20)
    off = (result - wave(from_x, from_y))[inner].abs().max()
    assert off < 2e-3  # of linear interpolation between half pixels: 0.12^2 / 4 / 8 and a little


@pytest.mark.parametrize("size", [(4, 4), (9, 16), (64, 40)])
def test_nothing_to_warp_is_a_copy(size):
    batch = images(2, 3, *size)
    G_inv = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    torch.testing.assert_close(affine_warp(batch, G_inv, "reference"), batch, rtol=0, atol=1e-10)


def test_whole_pixels_move_the_image_and_reflect_it():
    batch = images(1, 1, 9, 11)
    G_inv = torch.eye(3, dtype=torch.float64)[None].clone()
    G_inv[0, 0, 2], G_inv[0, 1, 2] = 3, -2
    padded = torch.nn.functional.pad(batch, (3, 3, 3, 3), mode="reflect")
    expected = padded[:, :, 1:10, 6:17]
    torch.testing.assert_close(affine_warp(batch, G_inv, "reference"), expected, rtol=0, atol=1e-10)


def test_a_mirror_image_is_not_a_permutation_of_pixels():
    batch = images(1, 1, 32, 32)
    G_inv = torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))[None]
    off = (affine_warp(batch, G_inv, "reference") - batch.flip(3)).abs()
    assert 0.05 < off.square().mean().sqrt() < 0.15, "sym6 is not symmetric: 0.09 on white noise"


def test_far_beyond_the_reflection_there_is_nothing():
    batch, G_inv = images(1, 1, 8, 8) + 5, torch.eye(3)[None].clone()
    G_inv[0, 0, 2] = 40
    assert (affine_warp(batch, G_inv, "reference") == 0).all()


@pytest.mark.parametrize("size", [(2, 3), (3, 4), pytest.param((6, 5), marks=pytest.mark.slow)])
def test_gradients_and_their_gradients_are_right(size):
    batch, G_inv = images(2, 1, *size).requires_grad_(), warps(2, *size)
    assert torch.autograd.gradcheck(lambda x: affine_warp(x, G_inv, "reference"), batch)
    assert torch.autograd.gradgradcheck(lambda x: affine_warp(x, G_inv, "reference"), batch)


def test_float32_keeps_to_the_tolerance_on_white_noise():
    batch, G_inv = images(4, 3, 64, 64), warps(4, 64, 64)
    off = (affine_warp(batch.float(), G_inv, "reference").double() - expected(batch, G_inv)).abs().max()
    assert off < 3e-5


@pytest.mark.parametrize(
    "batch, G_inv, message",
    [
        (torch.zeros(1, 3, 1, 8), torch.eye(3)[None], "sides of 2"),
        (torch.zeros(1, 3, 8, 8), torch.eye(3), "G_inv is"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.eye(3)[None], "floats"),
        (torch.zeros(3, 8, 8), torch.eye(3)[None], "floats"),
        (torch.zeros(1, 3, 8, 8), torch.full((1, 3, 3), float("nan")), "not finite"),
        (torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 3, dtype=torch.int64), "give floats"),
    ],
)
def test_what_does_not_fit_is_an_error_that_says_so(batch, G_inv, message):
    with pytest.raises(ConfigError, match=message):
        affine_warp(batch, G_inv)
