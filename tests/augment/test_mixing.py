"""Mixup and CutMix: shares follow Beta(alpha, alpha), boxes hold what they say, both labels come back."""

import numpy as np
import pytest
import torch

import fastload as fl
from fastload.augment.mixing import beta_quantile, draw_mix
from fastload.errors import ConfigError
from fastload.ops.fused.mix import mix
from fastload.rng import Purpose, uniforms

U = np.linspace(0, 1, 999)


def test_the_quantiles_of_the_known_distributions():
    np.testing.assert_allclose(beta_quantile(1.0, U), U, atol=1e-9)  # uniform
    np.testing.assert_allclose(beta_quantile(0.5, U), np.sin(np.pi * U / 2) ** 2, atol=1e-6)  # arcsine
    x = beta_quantile(2.0, U)
    np.testing.assert_allclose(3 * x**2 - 2 * x**3, U, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.7, 1.5, 3.0, 8.0, 20.0, 100.0, 1000.0])
def test_the_quantiles_are_those_of_scipy(alpha):
    beta = pytest.importorskip("scipy.stats").beta
    inner = U[1:-1]  # of a large alpha, the quantile of 0 itself is where float64 begins to count
    np.testing.assert_allclose(beta_quantile(alpha, inner), beta.ppf(inner, alpha, alpha), atol=2e-6)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.4, 1.0, 2.0, 8.0])
def test_the_shares_have_the_moments_of_beta(alpha):
    share = draw_mix(alpha, 0.0, np.arange(40_000), 3, 32, 32).share
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(share.mean() - 0.5) < 4 * (variance / 40_000) ** 0.5
    assert abs(share.var() - variance) < 0.03 * variance


def test_the_box_of_cutmix_holds_what_the_share_leaves():
    drawn = draw_mix(0.0, 1.0, np.arange(3000), 5, 30, 50)
    left, top, right, bottom = drawn.boxes.T
    assert (
        (left >= 0) & (top >= 0) & (right <= 50) & (bottom <= 30) & (left <= right) & (top <= bottom)
    ).all()
    np.testing.assert_allclose(drawn.share, 1 - (right - left) * (bottom - top) / 1500, atol=1e-6)
    assert (drawn.blend == 1).all()
    whole = (left > 0) & (right < 50) & (top > 0) & (bottom < 30)  # not cut off at an edge
    sides = np.stack([(right - left) / 50, (bottom - top) / 30], 1)[whole]
    assert np.abs(sides[:, 0] - sides[:, 1]).max() < 1 / 30
    u = uniforms(5, np.arange(3000), Purpose.MIX)[whole]
    centres = np.stack([(left + right) / 2, (top + bottom) / 2], 1)[whole]
    assert np.abs(centres - u[:, 2:] * [50, 30]).max() <= 1  # both are whole pixels


def test_with_both_each_image_gets_one_of_them_evenly():
    drawn = draw_mix(0.5, 0.5, np.arange(4000), 5, 64, 64)
    empty = (drawn.boxes[:, 0] == drawn.boxes[:, 2]) | (drawn.boxes[:, 1] == drawn.boxes[:, 3])
    assert ((drawn.blend == 1) | empty).all()
    assert abs((drawn.blend < 1).mean() - 0.5) < 0.04


def test_a_position_gets_the_same_share_in_any_batch():
    whole = draw_mix(0.3, 0.7, np.arange(10), 1, 16, 16)
    alone = draw_mix(0.3, 0.7, [7], 1, 16, 16)
    assert [one[7].tolist() for one in whole] == [one[0].tolist() for one in alone]
    assert draw_mix(0.3, 0.7, [7], 2, 16, 16).share != alone.share


def test_every_image_is_mixed_with_the_one_before_it():
    images = torch.rand(5, 3, 8, 12)
    labels = torch.arange(5)
    for augment in (fl.Augment(mixup=1.0), fl.Augment(cutmix=1.0), fl.Augment(mixup=1.0, cutmix=1.0)):
        mixed = augment.mix(images, labels, np.arange(5), 11)
        assert (mixed.labels.tolist(), mixed.other_labels.tolist()) == ([0, 1, 2, 3, 4], [4, 0, 1, 2, 3])
        drawn = augment.draw_mix(np.arange(5), 11, 8, 12)
        for n in range(5):
            expected = drawn.blend[n] * images[n] + (1 - drawn.blend[n]) * images[n - 1]
            left, top, right, bottom = drawn.boxes[n]
            expected[:, top:bottom, left:right] = images[n - 1][:, top:bottom, left:right]
            assert torch.allclose(mixed.images[n], expected, atol=1e-6)
        assert mixed.share.tolist() == drawn.share.tolist()


def test_image_by_image_is_the_same_as_all_at_once():
    images, drawn = torch.rand(7, 3, 9, 11), draw_mix(0.5, 0.5, range(7), 2, 9, 11)
    share, boxes = torch.from_numpy(drawn.blend), torch.from_numpy(drawn.boxes)
    assert len(set(drawn.blend.tolist())) > 2 and (drawn.boxes[:, 2] > drawn.boxes[:, 0]).any()
    whole = mix(images.clone().requires_grad_(), share, boxes)  # with a gradient, it is done all at once
    assert torch.allclose(mix(images, share, boxes), whole, atol=1e-6)
    whole.sum().backward()
    last = mix(images.contiguous(memory_format=torch.channels_last), share, boxes)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(last, whole, atol=1e-6)


def test_the_ops_alone_do_the_same():
    images, share = torch.rand(3, 1, 4, 4), torch.tensor([0.0, 0.25, 1.0])
    blended = fl.ops.mixup(images, share)
    assert torch.equal(blended[0], images[2])
    assert torch.allclose(blended[1], 0.25 * images[1] + 0.75 * images[0])
    assert torch.equal(blended[2], images[2])
    cut = fl.ops.cutmix(images, torch.tensor([[0, 0, 4, 4], [1, 0, 3, 2], [2, 2, 2, 2]]))
    assert torch.equal(cut[0], images[2])
    assert torch.equal(cut[1, :, :2, 1:3], images[0, :, :2, 1:3])
    assert torch.equal(cut[1, :, 2:], images[1, :, 2:])
    assert torch.equal(cut[2], images[2])


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, 4, 4)])
def test_what_is_no_batch_of_floats_is_refused(images):
    with pytest.raises(ConfigError, match=r"must be floats \[N, C, H, W\]"):
        fl.ops.mixup(images, torch.ones(2))


@pytest.mark.parametrize("positions", [[0.5, 1.5], np.zeros((2, 2), int), torch.tensor([1.0, 2.0])])
def test_positions_must_be_whole_numbers(positions):
    with pytest.raises(ConfigError, match=r"positions of float|positions of int64 \[2, 2\]"):
        fl.Augment(mixup=1).draw_mix(positions, 0, 8, 8)
    with pytest.raises(ConfigError, match="give whole numbers"):
        fl.Augment(rotate=5).draw(positions, 0, 8, 8)


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"mixing 2 images needs \[2, 4\], got \[2, 3\]"):
        fl.ops.cutmix(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, dtype=torch.int64))
