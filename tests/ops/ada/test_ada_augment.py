"""The reference of ada_augment against NumPy and SciPy, its gradients, and what all twins share.

Covers ada_params.py, single_stages.py, band_filter.py, color_matrix.py, cutout.py, params.py and twins.py.
"""

import numpy as np
import pytest
import scipy
import torch

from fastload.errors import BackendError, ConfigError
from fastload.ops import AdaParams, ada_augment, add_noise, band_filter, color_matrix, cutout
from fastload.ops.ada.stages.noise import normals_of
from fastload.ops.ada.stages.wavelets import BAND_MARGIN, BANDS, SYM6
from fastload.rng import Purpose, bits
from tests.ops.ada import oracles
from tests.ops.ada.ada_cases import STAGES, images, params

IMPLS = ["reference", "native"]


def test_sym6_is_orthonormal_and_smooth():
    taps = np.array(SYM6) * np.sqrt(2)
    for shift in range(6):
        product = (taps[: 12 - 2 * shift] * taps[2 * shift :]).sum()
        assert product == pytest.approx(float(shift == 0), abs=1e-11)
    alternating = taps * (-1.0) ** np.arange(12)
    for moment in range(6):  # six vanishing moments are what defines the family
        assert (alternating * np.arange(12.0) ** moment).sum() == pytest.approx(0, abs=1e-5)
    assert taps.sum() == pytest.approx(np.sqrt(2), abs=1e-12)


def test_the_bands_are_octaves_and_sum_to_an_impulse():
    impulse = np.zeros(43)
    impulse[BAND_MARGIN] = 1
    np.testing.assert_allclose(BANDS.sum(0), impulse, atol=1e-12)
    np.testing.assert_allclose(BANDS, BANDS[:, ::-1], atol=1e-12)
    spectrum = np.abs(np.fft.rfft(BANDS, 512))
    assert (spectrum[:, [0, 48, 96, 256]].argmax(0) == [0, 1, 2, 3]).all(), "lowest octave first"


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_are_the_published_matrix(channels):
    batch, C = images(3, channels, 5, 4), torch.eye(4).double() + images(1, 3, 4, 4)[0] * 0.3
    expected = np.stack([oracles.recoloured(*pair) for pair in zip(batch.numpy(), C.numpy(), strict=True)])
    result = color_matrix(batch, C, "reference")
    torch.testing.assert_close(result, torch.from_numpy(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(22, 22), (22, 31), (64, 40)])
def test_the_band_filter_is_a_convolution_with_reflection(size):
    batch, gains = images(2, 3, *size), torch.tensor([[1.0, 2, 0.5, 3], [0.2, 1, 1, 0.7]]).double()
    taps = gains.numpy() @ BANDS
    expected = np.stack([oracles.filtered(*pair) for pair in zip(batch.numpy(), taps, strict=True)])
    result = band_filter(batch, gains, "reference")
    torch.testing.assert_close(result, torch.from_numpy(expected), rtol=0, atol=1e-11)


def test_gains_of_one_copy():
    batch = images(1, 2, 30, 30)
    result = band_filter(batch, torch.ones(1, 4).double(), "reference")
    torch.testing.assert_close(result, batch, rtol=0, atol=1e-11)


def test_noise_of_a_key_is_philox_and_box_muller_as_they_are_stated():
    key = torch.tensor([[7, -3]], dtype=torch.int32)
    seed = 7 + ((-3 & 0xFFFFFFFF) << 32)
    pixels = np.arange(6 * 5)
    for block in (0, 1):
        words = bits(seed, pixels, Purpose.NOISE, block)
        for channel in range(4 * block, min(4 * block + 4, 6)):
            a, b = words[:, channel % 4 // 2 * 2].astype(np.float64), words[:, channel % 4 // 2 * 2 + 1]
            radius = np.sqrt(-2 * np.log((a // 256 + 1) / 2**24))
            angle = 2 * np.pi * (b // 256) / 2**24
            expected = radius * (np.sin(angle) if channel % 2 else np.cos(angle))
            result = normals_of(key, 6, 6, 5, torch.float64)[0, channel].flatten().numpy()
            np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)


def test_noise_is_standard_normal_and_independent():
    key = torch.tensor([[1, 2], [3, 4]], dtype=torch.int32)
    noise = normals_of(key, 3, 128, 128).double().numpy()
    assert scipy.stats.kstest(noise.ravel(), "norm").pvalue > 1e-4
    flat = noise.reshape(6, -1)
    correlation = np.corrcoef(flat) - np.eye(6)
    assert np.abs(correlation).max() < 5 / 128


@pytest.mark.parametrize("impl", IMPLS)
def test_noise_is_added_with_each_images_strength(impl):
    batch, eps = images(2, 3, 4, 5), images(2, 3, 4, 5, seed=1)
    sigma = torch.tensor([0.5, 0.0]).double()
    result = add_noise(batch, sigma, eps=eps, impl=impl)
    torch.testing.assert_close(result[0], batch[0] + 0.5 * eps[0], rtol=0, atol=1e-12)
    assert torch.equal(result[1], batch[1])


@pytest.mark.parametrize("impl", IMPLS)
def test_cutout_cuts_the_pixels_whose_centres_lie_in_the_box(impl):
    batch = torch.ones(3, 2, 4, 8)
    size, center = torch.tensor([0.5, 0.0, 1.0]), torch.tensor([[0.3, 0.9], [0.5, 0.5], [1.2, 0.5]])
    expected = torch.ones(3, 2, 4, 8)
    expected[0, :, 3, :4] = 0  # x in (0.05, 0.55), y in (0.65, 1.15)
    expected[2, :, :, 6:] = 0  # x in (0.7, 1.7), all of y
    assert torch.equal(cutout(batch, size, center, impl), expected)


SUBSETS = [(one,) for one in STAGES] + [("warp", "color", "filter", "noise", "cutout")]


@pytest.mark.parametrize("stages", SUBSETS, ids="+".join)
def test_gradients_of_first_and_second_order_are_right(stages):
    size = (22, 23) if "filter" in stages else (5, 4)
    given = params(1, 3, *size, stages)
    batch = images(1, 3, *size)
    if "filter" in stages:  # few inputs, so that all pairs are tried: the rest of the image is fixed
        window = torch.zeros_like(batch)
        window[:, :, :2, :2] = 1
        free = images(1, 3, 2, 2, seed=3).requires_grad_()

        def function(patch):
            padded = torch.nn.functional.pad(patch, (0, 21, 0, 20))
            return ada_augment(batch + padded, given, "reference")[:, :, ::11, ::11]
    else:
        free = batch.clone().requires_grad_()

        def function(x):
            return ada_augment(x, given, "reference")

    assert torch.autograd.gradcheck(function, free)
    assert torch.autograd.gradgradcheck(function, free)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("stages", SUBSETS, ids="+".join)
def test_the_backward_pass_is_the_adjoint(stages, impl):
    given = params(3, 3, 26, 23, stages)
    x, w = images(3, 3, 26, 23), images(3, 3, 26, 23, seed=5)
    x.requires_grad_()
    (adjoint,) = torch.autograd.grad(ada_augment(x, given, impl), x, w)
    zero = ada_augment(torch.zeros_like(x), given, impl)
    linear = ada_augment(x, given, impl) - zero
    left, right = (w * linear).sum(), (adjoint * x).sum()
    scale = adjoint.norm() * x.norm()
    assert (left - right).abs() / scale < 1e-13


@pytest.mark.parametrize("impl", IMPLS)
def test_the_second_backward_pass_has_no_offset(impl):
    """R1: the gradient of |d D(T(x)) / dx|^2 goes through L, not through L x + b."""
    given = params(2, 3, 24, 22)
    x = images(2, 3, 24, 22).requires_grad_()
    weight = images(2, 3, 24, 22, seed=9).requires_grad_()
    score = (ada_augment(x, given, impl) * weight).sum()
    (first,) = torch.autograd.grad(score, x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum() / 2, weight)
    # For D(y) = <weight, y> the penalty is |L^T weight|^2 / 2, whose gradient is L L^T weight.
    zero = ada_augment(torch.zeros_like(x), given, impl)
    expected = ada_augment(first.detach(), given, impl) - zero
    torch.testing.assert_close(second, expected.detach(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("impl", IMPLS)
def test_r1_of_a_small_network_is_right_to_the_second_order(impl):
    given = params(2, 3, 6, 5, ("warp", "color", "cutout"))
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(1, 3, 2, 2, dtype=torch.float64, generator=generator).requires_grad_()
    x = images(2, 3, 6, 5)

    def penalty(kernel):
        real = x.clone().requires_grad_()
        logits = torch.nn.functional.conv2d(ada_augment(real, given, impl), kernel).tanh().sum()
        (gradient,) = torch.autograd.grad(logits, real, create_graph=True)
        return gradient.square().sum()

    assert torch.autograd.gradcheck(penalty, kernel)


@pytest.mark.parametrize("impl", IMPLS)
def test_autocast_changes_nothing(impl):
    given = params(2, 3, 24, 24)
    x, w = images(2, 3, 24, 24, torch.float32), images(2, 3, 24, 24, torch.float32, seed=1)

    def both():
        real = x.clone().requires_grad_()
        out = ada_augment(real, given, impl)
        return out, *torch.autograd.grad(out, real, w)

    plain = both()
    with torch.autocast("cpu", torch.bfloat16):
        cast = both()
    assert all(torch.equal(*pair) for pair in zip(plain, cast, strict=True))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_and_rounded_once(dtype, impl):
    given = params(2, 3, 24, 24)
    x = images(2, 3, 24, 24, dtype).requires_grad_()
    result = ada_augment(x, given, impl)
    expected = ada_augment(x.detach().float(), given, impl)
    assert result.dtype == dtype and torch.equal(result, expected.to(dtype))
    (gradient,) = torch.autograd.grad(result.sum(), x)
    assert gradient.dtype == dtype


@pytest.mark.parametrize("impl", IMPLS)
def test_an_image_does_not_depend_on_its_batch(impl):
    given, x = params(4, 3, 24, 24), images(4, 3, 24, 24, torch.float32)
    whole_batch = ada_augment(x, given, impl)
    for n in range(4):
        one = AdaParams(
            **{name: value[n : n + 1] for name, value in vars(given).items() if value is not None}
        )
        assert torch.equal(ada_augment(x[n : n + 1], one, impl), whole_batch[n : n + 1])


def test_without_stages_the_result_is_a_copy():
    x = images(2, 3, 4, 4)
    result = ada_augment(x, AdaParams())
    assert torch.equal(result, x) and result.data_ptr() != x.data_ptr()


def test_an_empty_batch_stays_empty():
    x = images(2, 3, 24, 24)[:0]
    given = params(2, 3, 24, 24)
    none = AdaParams(**{name: value[:0] for name, value in vars(given).items() if value is not None})
    assert ada_augment(x, none).shape == (0, 3, 24, 24)


ONE = torch.ones(1)
IMAGE = torch.zeros(1, 3, 8, 8)


@pytest.mark.parametrize(
    "batch, given, message",
    [
        (torch.zeros(1, 2, 8, 8), {"C": torch.eye(4)[None]}, "2 channels"),
        (IMAGE, {"gains": torch.ones(1, 4)}, "22 or more"),
        (IMAGE, {"sigma": ONE}, "eps or noise_key"),
        (IMAGE, {"eps": IMAGE}, "sigma goes with"),
        (IMAGE, {"sigma": ONE, "eps": IMAGE, "noise_key": torch.zeros(1, 2).int()}, "not both"),
        (IMAGE, {"cut_size": ONE}, "together"),
        (IMAGE, {"sigma": ONE, "noise_key": torch.zeros(1, 2)}, "noise_key is of torch.float32: give int32"),
        (IMAGE, {"C": torch.eye(4)}, "C is"),
        (IMAGE, {"C": 3.0}, "C is 3.0"),
    ],
)
def test_parameters_that_do_not_fit_are_named(batch, given, message):
    with pytest.raises(ConfigError, match=message):
        ada_augment(batch, AdaParams(**given))


def test_twins_that_cannot_run_say_why(monkeypatch):
    from fastload import backends

    with pytest.raises(ConfigError, match="give one of"):
        ada_augment(IMAGE, AdaParams(C=torch.eye(4)[None]), "fast")
    with pytest.raises(ConfigError, match=r"float64.*reference"):
        ada_augment(IMAGE.double(), AdaParams(C=torch.eye(4)[None]), "triton")
    monkeypatch.setattr(backends, "triton_interprets", lambda: False)
    with pytest.raises(BackendError, match="TRITON_INTERPRET"):
        ada_augment(IMAGE, AdaParams(C=torch.eye(4)[None]), "triton")
    with pytest.raises(ConfigError, match="AdaParams"):
        ada_augment(IMAGE, {"C": torch.eye(4)[None]})


def test_parameters_move_and_cast_with_their_integers_kept():
    given = params(1, 3, 24, 24)
    for dtype in (torch.float64, torch.float32, torch.float16):
        cast = given.to(dtype)
        assert cast.G_inv.dtype == dtype and cast.noise_key.dtype == torch.int32
        assert torch.equal(cast.noise_key, given.noise_key), "bit for bit: float32 holds 24 of them"
