"""The random draws of AdaPipe and AugmentPipe: both twins draw the same, as the papers say.

Covers edm.py, draw_ada_triton.py, draw_edm.py and random_draws.py.
"""

import itertools
import math

import numpy as np
import pytest
import scipy
import torch

from fastload.augment import AdaPipe, AugmentPipe
from fastload.ops.ada import registered
from fastload.ops.ada.ada_params import GAINS, MOVES, NOISE_KEY
from fastload.ops.ada.draw.draw_ada import BLIT, COLOR, GEOM
from fastload.ops.ada.stages.wavelets import BAND_ENERGY
from fastload.rng import Purpose, uniforms
from tests.ops.ada import oracles
from tests.quick import slow_but

MANY = 20_000
SIZE = (48, 80)  # height and width, to tell them apart
EDM = dict.fromkeys(
    ("xflip", "yflip", "translate_int", "scale", "rotate_frac", "aniso", "translate_frac"), 1.0
) | dict.fromkeys(("brightness", "contrast", "lumaflip", "hue", "saturation"), 1.0)


def drawn(p=1.0, n=MANY, channels=3, percentile=None, seed=1, **settings):
    pipe = AdaPipe(**settings, p=p, seed=seed, rank=0)
    return pipe.draw(n, channels, *SIZE, percentile)


def edm_drawn(p=1.0, n=MANY, size=SIZE, seed=1, **settings):
    return AugmentPipe(p=p, **settings, seed=seed, rank=0).draw(n, 3, *size)


def assert_is_share(active, expected):
    """A frequency of MANY draws lies within 5 standard deviations of its probability."""
    bound = 5 * math.sqrt(max(expected * (1 - expected), 1e-9) / MANY)
    assert active.double().mean().item() == pytest.approx(expected, abs=bound)


def assert_is_normal(values, std):
    assert scipy.stats.kstest(values.double().numpy() / std, "norm").pvalue > 1e-4


def assert_is_uniform(values, most):
    assert values.abs().max() <= most * (1 + 1e-6)
    assert scipy.stats.kstest((values.double().numpy() / most + 1) / 2, "uniform").pvalue > 1e-4


# p above 1 saturates the gates.
each_p = pytest.mark.parametrize("p", [0.0, 0.1, 0.6, 1.0, 1.7])


@each_p
def test_xflip_mirrors_half_of_what_is_active(p):
    G_inv = drawn(p, xflip=1).G_inv
    assert_is_share(G_inv[:, 0, 0] == -1, min(p, 1) / 2)
    assert ((G_inv[:, 0, 0].abs() == 1) & (G_inv[:, 1, 1] == 1)).all()


@each_p
def test_rotate90_turns_by_all_four_quarters(p):
    G_inv = drawn(p, rotate90=1).G_inv
    for quarter in range(4):
        turned = torch.from_numpy(oracles.rotation(quarter * math.pi / 2)).round().float()
        is_it = (G_inv == turned).all(2).all(1)
        assert_is_share(is_it, min(p, 1) / 4 + (quarter == 0) * (1 - min(p, 1)))


@each_p
def test_xint_moves_by_whole_pixels_with_one_gate_for_both_axes(p):
    moves = drawn(p, xint=1, xint_max=0.25).G_inv[:, :2, 2]
    assert torch.equal(moves, moves.round())
    still = (moves == 0).all(1)
    x_still, y_still = (sum(round(u * side) == 0 for u in grid()) / 10_000 for side in SIZE[::-1])
    assert_is_share(still, 1 - min(p, 1) * (1 - x_still * y_still))
    if p >= 1:
        for axis, side in ((0, SIZE[1]), (1, SIZE[0])):
            counts = torch.bincount((moves[:, axis] + side // 4).long(), minlength=side // 2 + 1)
            assert counts.numel() == side // 2 + 1, "from -max to max"
            inner = counts[1:-1].double().numpy()
            assert scipy.stats.chisquare(inner).pvalue > 1e-4


def grid():
    """2 u - 1 times 0.25, evenly."""
    return (np.arange(10_000) + 0.5) / 10_000 * 0.5 - 0.25


@each_p
def test_scale_is_a_power_of_two_with_a_normal_exponent(p):
    G_inv = drawn(p, scale=1, scale_std=0.3).G_inv
    exponent = -G_inv[:, 0, 0].log2()
    assert_is_share(exponent != 0, min(p, 1))
    assert torch.equal(G_inv[:, 0, 0], G_inv[:, 1, 1]) and (G_inv[:, 0, 1] == 0).all()
    if p:
        assert_is_normal(exponent[exponent != 0], 0.3)


@each_p
def test_rotation_happens_at_least_once_with_the_chance_p(p):
    """Twice 1 - sqrt(1 - p): without the square root it would be 1 - (1 - p)^2."""
    G_inv = drawn(p, rotate=1, rotate_max=0.5).G_inv
    angle = torch.atan2(G_inv[:, 1, 0], G_inv[:, 0, 0])
    assert_is_share(angle != 0, min(p, 1))
    if 0 < p < 1:
        once = angle[(angle != 0) & (angle.abs() <= math.pi / 2)]
        assert len(once) > 0.7 * MANY * p


def test_before_and_after_the_stretch_other_angles_are_drawn():
    """With all gates open the two turns are apart: the matrix is no stretch along one of its axes."""
    G_inv = drawn(1.0, n=2000, rotate=1, aniso=1, aniso_std=1).G_inv[:, :2, :2].double()
    U, _, V = torch.linalg.svd(G_inv)
    first = torch.atan2(U[:, 1, 0], U[:, 0, 0]).remainder(math.pi).numpy()
    second = torch.atan2(V[:, 0, 1], V[:, 0, 0]).remainder(math.pi).numpy()
    assert abs(scipy.stats.spearmanr(first, second).statistic) < 0.12
    for angles in (first, second):
        assert scipy.stats.kstest(angles / math.pi, "uniform").pvalue > 1e-4


@each_p
def test_aniso_stretches_x_as_much_as_it_shrinks_y(p):
    G_inv = drawn(p, aniso=1, aniso_std=0.4).G_inv
    exponent = -G_inv[:, 0, 0].log2()
    torch.testing.assert_close(G_inv[:, 0, 0] * G_inv[:, 1, 1], torch.ones(MANY), rtol=0, atol=1e-6)
    assert_is_share(exponent != 0, min(p, 1))
    if p:
        assert_is_normal(exponent[exponent != 0], 0.4)


@each_p
def test_xfrac_moves_by_normal_shares_of_the_sides(p):
    moves = drawn(p, xfrac=1, xfrac_std=0.2).G_inv[:, :2, 2]
    active = (moves != 0).any(1)
    assert_is_share(active, min(p, 1))
    if p:
        assert_is_normal(moves[active, 0] / SIZE[1], 0.2)
        assert_is_normal(moves[active, 1] / SIZE[0], 0.2)
        assert abs(np.corrcoef(moves[active].T.numpy())[0, 1]) < 5 / math.sqrt(active.sum())


@each_p
def test_colours_are_drawn_from_their_distributions(p):
    chance = min(p, 1)
    brightness = drawn(p, brightness=1, brightness_std=0.3).C[:, 0, 3]
    contrast = drawn(p, contrast=1).C[:, 0, 0].log2()
    luma = drawn(p, lumaflip=1).C[:, 0, 0]
    hue = drawn(p, hue=1, hue_max=0.5).C
    saturation = drawn(p, saturation=1).C
    assert_is_share(brightness != 0, chance)
    assert_is_share(contrast != 0, chance)
    assert_is_share(luma < 0.5, chance / 2)
    angle = torch.atan2((hue[:, 1, 0] - hue[:, 0, 1]) * math.sqrt(3), 3 * hue[:, 0, 0] - 1)
    assert_is_share(angle.abs() > 1e-6, chance)
    exponent = ((3 * saturation[:, 0, 0] - 1) / 2).clamp(min=1e-9).log2()
    assert_is_share(exponent.abs() > 1e-5, chance)
    if p:
        assert_is_normal(brightness[brightness != 0], 0.3)
        assert_is_normal(contrast[contrast != 0], 0.5)
        assert_is_uniform(angle[angle.abs() > 1e-6], math.pi / 2)
        assert_is_normal(exponent[exponent.abs() > 1e-5], 1)


@each_p
def test_every_band_is_drawn_and_the_energy_is_kept(p):
    gains = drawn(p, imgfilter=1, imgfilter_std=0.5, imgfilter_bands=(1, 0, 0, 0)).gains
    assert_is_share(gains[:, 0] != gains[:, 1], min(p, 1))
    energy = (gains.double() ** 2 * torch.tensor(BAND_ENERGY)).sum(1)
    torch.testing.assert_close(energy, torch.ones(MANY).double(), rtol=0, atol=1e-6)
    if p:
        exponent = (gains[:, 0] / gains[:, 1]).log2()
        assert_is_normal(exponent[gains[:, 0] != gains[:, 1]], 0.5)
    bands = drawn(p, imgfilter=1).gains
    for one in range(4):
        for other in range(one):
            assert_is_share(bands[:, one] == bands[:, other], (1 - min(p, 1)) ** 2)


@each_p
def test_noise_has_the_absolute_value_of_a_normal_as_its_strength(p):
    params = drawn(p, noise=1, noise_std=0.3)
    assert_is_share(params.sigma != 0, min(p, 1))
    assert (params.sigma >= 0).all()
    if p:
        active = params.sigma[params.sigma != 0].double().numpy()
        assert scipy.stats.kstest(active / 0.3, "halfnorm").pvalue > 1e-4
    assert len(torch.unique(params.noise_key, dim=0)) == MANY


@each_p
def test_cutout_lies_anywhere_in_the_image(p):
    params = drawn(p, cutout=1, cutout_size=0.4)
    assert_is_share(params.cut_size > 0, min(p, 1))
    assert set(params.cut_size.unique().tolist()) <= {0.0, np.float32(0.4).item()}
    for axis in (0, 1):
        assert_is_uniform(2 * params.cut_center[:, axis] - 1, 1)


def test_multipliers_scale_the_chance_and_not_the_strength():
    exponent = -drawn(0.5, scale=0.4).G_inv[:, 0, 0].log2()
    assert_is_share(exponent != 0, 0.2)
    assert_is_normal(exponent[exponent != 0], 0.2)


def test_transforms_are_independent_of_each_other():
    pipe = {name: 1.0 for name in ("xflip", "scale", "brightness", "contrast", "lumaflip", "noise", "cutout")}
    params = drawn(0.5, **pipe)
    columns = torch.stack(
        [
            (params.G_inv[:, 0, 0] < 0).float(),
            params.G_inv[:, 1, 1].log2(),
            params.C[:, 0, 3],
            params.C[:, 0, 0].abs().log2().clamp(-9),
            params.sigma,
            params.cut_size,
            params.cut_center[:, 0],
        ]
    )
    correlation = np.corrcoef(columns.numpy()) - np.eye(len(columns))
    correlation[2, 3] = correlation[3, 2] = 0  # the offset is brightness times contrast
    assert np.abs(correlation).max() < 5 / math.sqrt(MANY)


@pytest.mark.parametrize("q", [0.1, 0.37, 0.5, 0.9])
def test_a_percentile_gives_the_published_matrices(q):
    """Composed here from matrices of their own, in float64, in the published order."""
    q32 = float(np.float32(q))
    z = torch.erfinv(torch.tensor(2 * q32 - 1)).item()
    settings = dict.fromkeys((*BLIT, *GEOM, *COLOR), 1.0)
    params = drawn(0.0, n=2, percentile=q, **settings)
    height, width = SIZE
    move = [round((2 * q32 - 1) * 0.125 * side) for side in (width, height)]
    s, sa = 2 ** (0.2 * z), 2 ** (0.2 * z)
    theta = (2 * q32 - 1) * math.pi
    expected = (
        oracles.scaling(1 - 2 * math.floor(2 * q32), 1)
        @ oracles.rotation(math.pi / 2 * math.floor(4 * q32))
        @ oracles.translation(-move[0], -move[1])
        @ oracles.scaling(1 / s, 1 / s)
        @ oracles.rotation(theta)
        @ oracles.scaling(1 / sa, sa)
        @ oracles.translation(-0.125 * z * width, -0.125 * z * height)
    )
    np.testing.assert_allclose(params.G_inv[0], expected, rtol=0, atol=2e-5)
    colors = oracles.color_product(0.2 * z, 2 ** (0.5 * z), math.floor(2 * q32), theta, 2**z)
    np.testing.assert_allclose(params.C[0, :3], colors[:3], rtol=0, atol=3e-6)
    assert torch.equal(params.G_inv[0], params.G_inv[1])


def test_four_quarter_turns_are_none():
    from fastload.ops.ada.draw.draw_ada import quarter

    cosine, sine = quarter(np.arange(5, dtype=np.float32))
    assert cosine.tolist() == [1, 0, -1, 0, 1] and sine.tolist() == [0, 1, 0, -1, 0]


def test_a_percentile_of_one_half_is_no_geometry():
    settings = {name: 1.0 for name in ("scale", "rotate", "aniso", "xfrac", "xint")}
    params = drawn(1.0, n=1, percentile=0.5, **settings)
    torch.testing.assert_close(params.G_inv[0], torch.eye(3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("q", [0.2, 0.8])
def test_a_percentile_reaches_filter_noise_and_cutout(q):
    params = drawn(0.0, n=1, percentile=q, imgfilter=1, imgfilter_bands=(1, 0, 1, 1), noise=1, cutout=1)
    q32 = torch.tensor(q)
    t = 2 ** torch.erfinv(2 * q32 - 1).double()
    gains = torch.ones(4).double()
    for band in (0, 2, 3):
        one = torch.ones(4).double()
        one[band] = t
        gains *= one / ((torch.tensor(BAND_ENERGY).double() * one**2).sum()).sqrt()
    torch.testing.assert_close(params.gains[0].double(), gains, rtol=1e-6, atol=0)
    assert params.sigma[0].item() == pytest.approx(0.1 * torch.erfinv(q32).item(), rel=1e-6)
    assert params.cut_size[0] == 0.5 and (params.cut_center[0] == q32).all()


def test_gray_images_draw_neither_hue_nor_saturation():
    settings = {"hue": 1.0, "saturation": 1.0, "contrast": 1.0}
    gray, color = drawn(1.0, n=50, channels=1, **settings), drawn(1.0, n=50, **settings)
    assert (gray.C[:, 0, 1] == 0).all() and (color.C[:, 0, 1] != 0).any()
    assert drawn(1.0, n=5, channels=1, hue=1).C is None
    torch.testing.assert_close(gray.C[:, 0, 0], color.C[:, :3, :3].sum((1, 2)) / 3)


@pytest.mark.parametrize(
    "name, expected", [("blit", {"G_inv"}), ("bgc", {"G_inv", "C"}), ("noise", {"sigma", "noise_key"})]
)
def test_stages_without_multipliers_are_absent(name, expected):
    params = AdaPipe.named(name, rank=0).draw(2, 3, 24, 24)
    assert {field for field, value in vars(params).items() if value is not None} - {"_drawn"} == expected


def test_words_of_the_dice_are_where_the_contract_says():
    """Gates, values, rows and calls, computed here from rng.py alone."""
    pipe = AdaPipe(scale=1, cutout=1, p=0.7, seed=2**63 + 5, rank=3)
    pipe.calls.fill_(2**31 + 11)
    params = pipe.draw(5, 3, *SIZE)
    positions = (np.int64(2**31 + 11) << 32) + np.arange(15, 20)
    u = uniforms(2**63 + 5, positions, Purpose.ADA_CUTOUT)
    assert np.array_equal(params.cut_size.numpy() > 0, u[:, 0] < np.float32(0.7))
    assert np.array_equal(params.cut_center.numpy(), u[:, 1:3])
    u = uniforms(2**63 + 5, positions, Purpose.ADA_SCALE).astype(np.float64)
    z = np.sqrt(-2 * np.log(u[:, 1] + 2**-24)) * np.cos(2 * np.pi * u[:, 2])
    expected = np.where(u[:, 0] < 0.7, 2 ** (-0.2 * z), 1)
    np.testing.assert_allclose(params.G_inv[:, 0, 0], expected, rtol=1e-6)
    assert pipe.calls.item() == 2**31 + 12


# The non-leaky pipe


@each_p
def test_labels_tell_what_was_done(p):
    params = edm_drawn(p, **EDM)
    labels, (height, width) = params.labels, SIZE
    assert labels.shape == (MANY, 17)  # all but the two of rotate_int, which needs square images
    assert torch.equal(labels[:, 0], params.xflip.float()) and torch.equal(labels[:, 1], params.yflip.float())
    moved = params.translate_int.float() / (torch.tensor([width, height]) * 0.125)
    torch.testing.assert_close(labels[:, 2:4], moved, rtol=1e-6, atol=0)
    scale, cosine, sine, along, across, x, y = labels[:, 4:11].double().numpy().T
    bright, contrast, luma, hue_cosine, hue_sine, saturation = labels[:, 11:17].double().numpy().T
    for n in range(50):
        s, turn = 2 ** (0.2 * scale[n]), math.atan2(sine[n], cosine[n] + 1)
        # (w, r) and (-w, r + pi) have the same labels, in the published pipe as well.
        w, r = math.hypot(along[n], across[n]), math.atan2(across[n], along[n])
        either = []
        for stretch in (2 ** (0.2 * w), 2 ** (-0.2 * w)):
            either.append(
                oracles.scaling(1 / s, 1 / s)
                @ oracles.rotation(turn)
                @ oracles.rotation(-r)
                @ oracles.scaling(1 / stretch, stretch)
                @ oracles.rotation(r)
                @ oracles.translation(-x[n] * width * 0.125, -y[n] * height * 0.125)
            )
        off = [np.abs(params.G_inv[n].numpy() - one).max() for one in either]
        assert min(off) <= 3e-5
        hue = math.atan2(hue_sine[n], hue_cosine[n] + 1)
        C = oracles.color_product(0.2 * bright[n], 2 ** (0.5 * contrast[n]), luma[n], hue, 2 ** saturation[n])
        np.testing.assert_allclose(params.C[n, :3], C[:3], rtol=2e-6, atol=3e-6)
    if p == 0:
        assert (labels == 0).all(), "nothing done is labels of 0"


@each_p
def test_frequencies_and_moments_of_the_non_leaky_pipe(p):
    chance = min(p, 1)
    labels = edm_drawn(p, **EDM).labels
    for column in (0, 1):
        assert_is_share(labels[:, column] == 1, chance / 2)
    assert_is_share(labels[:, 4] != 0, chance)
    assert_is_share(labels[:, 6] != 0, chance)
    length = labels[:, 7:9].double().norm(dim=1)
    assert_is_share(length != 0, chance)
    assert_is_share(labels[:, 8] != 0, chance / 2)  # with aniso_rotate_prob
    assert_is_share((labels[:, 9:11] != 0).any(1), chance)
    if p:
        for column in (4, 9, 10, 11, 12, 16):
            active = labels[labels[:, column] != 0, column]
            assert_is_normal(active, 1)
        assert scipy.stats.kstest(length[length != 0].numpy(), "halfnorm").pvalue > 1e-4


def test_quarter_turns_have_their_labels():
    params = edm_drawn(1.0, size=(32, 32), rotate_int=1)
    w = params.rotate_int
    assert scipy.stats.chisquare(torch.bincount(w, minlength=4).numpy()).pvalue > 1e-4
    expected = torch.stack([(w == 1) | (w == 2), w >= 2], 1).float()
    assert torch.equal(params.labels, expected)


def test_the_usual_setting_of_cifar_has_nine_labels():
    usual = dict.fromkeys(("xflip", "yflip", "scale", "rotate_frac", "aniso", "translate_frac"), 1.0)
    pipe = AugmentPipe(p=0.12, **usual, rank=0)
    assert pipe.label_count == 9 and pipe.draw(4, 3, 32, 32).labels.shape == (4, 9)


# The Triton twin


@pytest.fixture
def needs_triton():
    pytest.importorskip("triton", reason="Triton is not installed: its kernels cannot run")


def assert_rows_are_equal(first, second):
    """Bits of integers, 4 units of numbers, 2e-6 of matrices and what is made of them."""
    whole = (
        first[:, NOISE_KEY : MOVES + 5].view(torch.int32),
        second[:, NOISE_KEY : MOVES + 5].view(torch.int32),
    )
    assert torch.equal(*whole)
    scale = first[:, :NOISE_KEY].abs().amax(0).clamp(min=1)
    assert ((first[:, :NOISE_KEY] - second[:, :NOISE_KEY]).abs() <= 2e-6 * scale).all()
    assert torch.equal(first[:, :6] == 0, second[:, :6] == 0)
    assert torch.equal(first[:, GAINS : GAINS + 4] == 1, second[:, GAINS : GAINS + 4] == 1)


DRAWS = itertools.product([0.4, 1.0], [None, 0.3], [0, 2**64 - 1])
FEW_DRAWS = [(0.4, None, 2**64 - 1), (0.4, 0.3, 0)]


@pytest.mark.parametrize("p, percentile, seed", slow_but(FEW_DRAWS, DRAWS))
def test_the_twins_draw_the_same(p, percentile, seed, device, needs_triton):
    found = []
    for impl, place in (("reference", "cpu"), ("triton", device)):
        pipe = AdaPipe.named("bgcfnc", p=p, seed=seed, rank=2, impl=impl).to(place)
        pipe.calls.fill_(2**32 - 1)
        rows = [pipe.draw(45, 3, *SIZE, percentile)._drawn.cpu() for _ in range(2)]
        found.append(rows)
        assert pipe.calls.item() == 2**32 + 1 and pipe.ticket.item() == 0
    for pair in zip(*found, strict=True):
        assert_rows_are_equal(*pair)
    assert percentile is not None or not torch.equal(*found[0])


@pytest.mark.parametrize("p", slow_but([0.4], [0.4, 1.0]))
def test_the_twins_of_the_non_leaky_pipe_draw_the_same(p, device, needs_triton):
    found = []
    for impl, place in (("reference", "cpu"), ("triton", device)):
        pipe = AugmentPipe(p=p, rotate_int=1, **EDM, seed=9, rank=1, impl=impl).to(place)
        params = pipe.draw(45, 3, 32, 32)
        found.append((params._drawn.cpu(), params.labels.cpu()))
        assert pipe.calls.item() == 1 and pipe.ticket.item() == 0
    assert_rows_are_equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=5e-7, atol=2e-7)


def test_no_images_are_a_call_as_well(device, needs_triton):
    for impl, place in (("reference", "cpu"), ("triton", device)):
        pipe = AdaPipe.named("bgc", impl=impl, rank=0).to(place)
        assert pipe.draw(0, 3, 8, 8).G_inv.shape == (0, 3, 3)
        assert pipe.calls.item() == 1


def test_the_draw_is_one_operator_that_changes_its_counter():
    pipe = AdaPipe.named("bgc", rank=0)
    arguments = (pipe._numbers, pipe.p, pipe.calls, pipe.ticket, 0, 0, 3, 3, 8, 8, None, "reference")
    torch.library.opcheck(registered.draw_ada, arguments, test_utils=("test_schema", "test_faketensor"))
