"""The native twin of ada_augment equals the reference, and its adjoint is one."""

import itertools
import math
import os

import numpy as np
import pytest
import torch

from fastload import _native
from fastload.ops.ada import ada_params, registered
from fastload.ops.ada.ada_augment import ada_augment
from fastload.ops.ada.ada_params import AdaParams, AdaStage
from fastload.ops.ada.stages.noise import normals_of
from fastload.ops.ada.stages.wavelets import BANDS, SYM6
from fastload.ops.twins import ADJOINT, AFFINE, LINEAR
from fastload.rng import Purpose
from tests.quick import slow_but

SMALL = [(2, 2), (2, 3), (3, 5), (7, 4)]
SIZES = [*SMALL, (22, 23), (33, 47), (64, 64)]
TILES = (65, 139)  # of several tiles, the last of them 1 and 11 pixels wide
STAGES = ["warp", "color", "filter", "noise", "eps", "cutout"]
# Sums of up to 1300 products of doubles of size 1 or so.
EXACT = 1e-11
# The warp's contract is 3e-5 of the range of the values, which is 10 for normals, and the filter's 1e-5 per
# unit of gain, of which there are 2; colours that follow double both.
FLOAT32 = 3e-5


@pytest.fixture
def threads():
    """Sets how many threads torch uses, for this test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def one_thread(threads):
    """For the reference, whose tensors here are smaller than what a second thread costs."""
    threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def normal(generator, *shape):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def uniform(generator, shape, low, high):
    return torch.rand(shape, generator=generator, dtype=torch.float64) * (high - low) + low


def warps(generator, n, size, octaves=1.0):
    """Any rotation, every third along the axes, scaled by 2^-octaves to 2^octaves; moved by half a side."""
    angle = uniform(generator, (n,), -math.pi, math.pi)
    angle[::3] = 0
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).reshape(n, 2, 2)
    G_inv = torch.eye(3, dtype=torch.float64).repeat(n, 1, 1)
    G_inv[:, :2, :2] = turn * torch.exp2(uniform(generator, (n, 1, 2), -octaves, octaves))
    G_inv[:, :2, 2] = normal(generator, n, 2) * torch.tensor([size[1] / 2, size[0] / 2])
    G_inv[1::4, :2, :2] @= torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    return G_inv


def drawn(names, generator, n, channels, size):
    given = {}
    if "warp" in names:
        given["G_inv"] = warps(generator, n, size)
    if "color" in names and channels in (1, 3):
        given["C"] = uniform(generator, (n, 4, 4), -1, 1)
    if "filter" in names and min(size) >= 22:
        given["gains"] = uniform(generator, (n, 4), 0, 2)
    if "noise" in names:
        given["noise_key"] = torch.randint(-(2**31), 2**31, (n, 2), generator=generator).int()
    if "eps" in names:
        given["eps"] = normal(generator, n, channels, *size)
    if "noise" in names or "eps" in names:
        given["sigma"] = uniform(generator, (n,), 0, 1)
    if "cutout" in names:
        given |= {"cut_size": uniform(generator, (n,), 0, 1), "cut_center": uniform(generator, (n, 2), 0, 1)}
    return AdaParams(**given)


def everything(generator, n, channels, size):
    return drawn(["warp", "color", "filter", "noise", "cutout"], generator, n, channels, size)


def native(images, params, mode=AFFINE):
    return registered.ada(
        images, params.rows(images), params.noise_key, params.eps, int(params.stages), mode, "native"
    )


def from_rows(images, rows, stages, mode=AFFINE):
    return registered.ada(images, rows, None, None, int(stages), mode, "native")


def adjoint_of_reference(gradient, params):
    images = torch.zeros_like(gradient).requires_grad_()
    return torch.autograd.grad(ada_augment(images, params, "reference"), images, gradient)[0]


def assert_close(result, expected, tolerance=EXACT):
    """To the tolerance, of the largest value where that is above 1."""
    assert result.dtype == expected.dtype and result.shape == expected.shape and result.is_contiguous()
    off = (result - expected).abs().max().item()
    assert off <= tolerance * max(1, expected.abs().max().item()), off


def assert_equals_reference(images, params):
    assert_close(native(images, params), ada_augment(images, params, "reference"))
    assert_close(native(images, params, ADJOINT), adjoint_of_reference(images, params))


def test_numbers_that_both_sides_have_are_the_same():
    layout = _native.ada_layout()
    columns = ("COLUMNS", "G_INV", "C", "GAINS", "SIGMA", "CUT_SIZE", "CUT_CENTER")
    assert {name: layout.pop(name) for name in columns} == {
        name: getattr(ada_params, name) for name in columns
    }
    assert [layout.pop(name) for name in ("AFFINE", "LINEAR", "ADJOINT")] == [AFFINE, LINEAR, ADJOINT]
    assert layout.pop("PURPOSE_NOISE") == Purpose.NOISE
    assert layout == {stage.name: int(stage) for stage in AdaStage}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_the_warp_and_its_adjoint_equal_the_reference(generator, channels, size):
    images = normal(generator, 6, channels, *size)
    assert_equals_reference(images, drawn(["warp"], generator, 6, channels, size))


def test_images_of_several_tiles_equal_the_reference(generator):
    images = normal(generator, 3, 2, *TILES)
    assert_equals_reference(images, drawn(["warp"], generator, 3, 2, TILES))


@pytest.mark.parametrize("size", [(2, 3), (22, 23), (33, 47)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("stage", STAGES[1:])
def test_each_other_stage_and_its_adjoint_equals_the_reference(generator, stage, channels, size):
    images = normal(generator, 3, channels, *size)
    assert_equals_reference(images, drawn([stage], generator, 3, channels, size))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("n, channels", [(1, 3), (4, 1), (3, 3), (2, 5)])
def test_all_stages_together_equal_the_reference(generator, n, channels, size):
    images = normal(generator, n, channels, *size)
    assert_equals_reference(images, everything(generator, n, channels, size))


@pytest.mark.parametrize("size", [*SMALL, (22, 23), TILES], ids=str)
def test_float32_equals_float64_to_its_rounding(generator, size):
    images, params = normal(generator, 4, 3, *size).float(), everything(generator, 4, 3, size)
    params = params.to(torch.float32)
    expected = ada_augment(images.double(), params.to(torch.float64), "reference")
    assert_close(native(images, params).double(), expected, FLOAT32)
    gradient = adjoint_of_reference(images.double(), params.to(torch.float64))
    assert_close(native(images, params, ADJOINT).double(), gradient, FLOAT32)


def test_coordinates_of_large_images_are_better_than_a_millionth_of_a_pixel(generator):
    """On a ramp of slope 1 a place is a value; in float32 they would be off by 1e-4."""
    side = 1024
    ramp = (torch.arange(side, dtype=torch.float64) / side).expand(1, 1, 9, side)
    G_inv = torch.tensor([[[0.93, 0.31, 11.7], [0.003, 0.83, 0.3], [0.0, 0.0, 1.0]]], dtype=torch.float64)
    params = AdaParams(G_inv=G_inv)
    expected = ada_augment(ramp, params, "reference")
    assert (native(ramp, params) - expected).abs().max() * side < 1e-6
    # Places within float32's 24 bits of the value, which lies below 1.
    params = params.to(torch.float32)
    expected = ada_augment(ramp, params.to(torch.float64), "reference")
    assert (native(ramp.float(), params) - expected).abs().max() < 4e-7


STRONG = list(itertools.product([(2, 3), (16, 21), TILES], [2, 5]))


@pytest.mark.parametrize("size, octaves", slow_but([case for case in STRONG if case != (TILES, 2)], STRONG))
def test_strong_matrices_equal_the_reference(generator, size, octaves):
    """Up to where a tile looks at all of the doubled plane, too much to be kept, and images lie outside."""
    n = 8
    images, G_inv = normal(generator, n, 3, *size), warps(generator, n, size, octaves)
    G_inv[:, :2, 2] *= 4
    G_inv[0, :2, :2] = 0
    G_inv[1, 1, :2] = G_inv[1, 0, :2]
    G_inv[2, :2, :2] = torch.tensor([[2.0**octaves, 0.3], [0.2, 2.0**octaves]])
    G_inv[3, :2] = torch.tensor([[0.0, 0.5, 0.0], [0.0, 0.0, 1.0]])
    G_inv[2, :2, 2] = 0
    assert_equals_reference(images, AdaParams(G_inv=G_inv))


@pytest.mark.parametrize("size", [(7, 4), (33, 47)], ids=str)
def test_matrices_along_the_axes_equal_the_reference(generator, size):
    scales = [1.0, -1.0, 0.5, 1.0 + 1e-9, 0.0, 3.9, 4.1, -60.0]
    rows = [[x, 0.0, y, 0.0] for x in scales for y in (1.0, -0.7)]
    turned = [[0.0, x, 0.0, y] for x in scales for y in (1.0, -1.3)]
    diagonal = torch.tensor([[x, 0.0, 0.0, y] for x, _, y, _ in rows], dtype=torch.float64)
    antidiagonal = torch.tensor([[0.0, x, y, 0.0] for _, x, _, y in turned], dtype=torch.float64)
    A = torch.cat([diagonal, antidiagonal]).reshape(-1, 2, 2)
    G_inv = torch.eye(3, dtype=torch.float64).repeat(len(A), 1, 1)
    G_inv[:, :2, :2] = A
    G_inv[:, :2, 2] = uniform(generator, (len(A), 2), -9, 9)
    G_inv[::2, :2, 2] = G_inv[::2, :2, 2].round()
    assert_equals_reference(normal(generator, len(A), 2, *size), AdaParams(G_inv=G_inv))


def mirrored(images, x, y):
    """What whole pixels of translation show of the images, reflected without repeating the edge."""
    height, width = images.shape[2:]

    def fold(start, side):
        place = (torch.arange(side) + start).abs()
        return side - 1 - (side - 1 - place).abs()

    return images[:, :, fold(y, height)][..., fold(x, width)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("move", [(0, 0), (3, -2), (-9, 7), (9, -7), (0, 1)], ids=str)
def test_whole_pixels_are_copied_exactly(generator, move, dtype):
    size = (11, 13)  # the moves go to the last pixel from which all taps meet one mirror image
    images = normal(generator, 2, 3, *size).to(dtype)
    G_inv = torch.eye(3, dtype=dtype).repeat(2, 1, 1)
    G_inv[:, :2, 2] = torch.tensor(move, dtype=dtype)
    params = AdaParams(G_inv=G_inv)
    assert torch.equal(native(images, params), mirrored(images, *move))
    sources = images.clone().requires_grad_()
    expected = torch.autograd.grad(mirrored(sources, *move), sources, images)[0]
    assert_close(native(images, params, ADJOINT), expected, 1e-6 if dtype == torch.float32 else 1e-15)


@pytest.mark.parametrize("height, width", slow_but([(2, 2), (3, 9)], [(2, 2), (3, 9), (4, 4), (11, 13)]))
def test_whole_pixels_that_are_no_copy_equal_the_reference(generator, height, width):
    """Small sides, and moves to where mirror images end."""
    moves = [(x, y) for x in range(-14, 15, 2) for y in (-10, -8, -1, 0, 7, 8)]
    G_inv = torch.eye(3, dtype=torch.float64).repeat(len(moves), 1, 1)
    G_inv[:, :2, 2] = torch.tensor(moves, dtype=torch.float64)
    assert_equals_reference(normal(generator, len(moves), 1, height, width), AdaParams(G_inv=G_inv))


@pytest.mark.parametrize("size", [*SIZES, TILES], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_adjoint_is_one(generator, channels, size):
    params = everything(generator, 5, channels, size)
    v, w = normal(generator, 5, channels, *size), normal(generator, 5, channels, *size)
    forward, back = native(v, params, LINEAR), native(w, params, ADJOINT)
    one, other = (w * forward).sum((1, 2, 3)), (back * v).sum((1, 2, 3))
    size_of_terms = (w * forward).abs().sum((1, 2, 3)) + (back * v).abs().sum((1, 2, 3))
    assert ((one - other).abs() <= 1e-12 * size_of_terms).all()


@pytest.mark.parametrize("names", [STAGES[:4] + STAGES[5:], STAGES[:3] + STAGES[4:]], ids=["key", "eps"])
@pytest.mark.parametrize("channels", [1, 3])
def test_linear_is_what_remains_without_brightness_and_noise(generator, channels, names):
    images, params = normal(generator, 4, channels, 23, 25), drawn(names, generator, 4, channels, (23, 25))
    offset = native(torch.zeros_like(images), params)
    assert offset.abs().max() > 0.1
    assert_close(native(images, params, LINEAR), native(images, params) - offset)


@pytest.mark.parametrize(
    "names",
    [["warp", "color", "noise", "cutout"], pytest.param(["warp", "cutout"], marks=pytest.mark.slow)],
    ids=str,
)
def test_gradients_of_first_and_second_order_are_right(generator, names):
    images, params = normal(generator, 2, 3, 4, 5).requires_grad_(), drawn(names, generator, 2, 3, (4, 5))
    assert torch.autograd.gradcheck(lambda x: ada_augment(x, params, "native"), images)
    assert torch.autograd.gradgradcheck(lambda x: ada_augment(x, params, "native") ** 2, images)


def test_gradients_with_the_filter_are_right(generator):
    images, params = normal(generator, 2, 3, 22, 23).requires_grad_(), everything(generator, 2, 3, (22, 23))
    assert torch.autograd.gradcheck(lambda x: ada_augment(x, params, "native"), images, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: ada_augment(x, params, "native"), images, fast_mode=True)


@pytest.mark.parametrize("mode", [AFFINE, LINEAR, ADJOINT])
def test_any_strides_give_the_same_bits(generator, mode):
    large = normal(generator, 6, 4, 50, 66).float()
    views = {
        "rows and columns left out": large[::2, :3, 1:49:2, 3:66:2],
        "channels last": large[:3, :3].contiguous(memory_format=torch.channels_last),
        "transposed": large[:3, :3].transpose(2, 3),
        "one image three times": large[:1, :3].expand(3, -1, -1, -1),
        "one channel three times": large[:3, :1].expand(-1, 3, -1, -1),
    }
    for name, view in views.items():
        params = everything(generator, 3, 3, view.shape[2:]).to(torch.float32)
        keys = torch.stack([params.noise_key, params.noise_key], 2)[:, :, 0]
        strided = AdaParams(**{k: v for k, v in vars(params).items() if k[0] != "_"} | {"noise_key": keys})
        assert torch.equal(native(view, strided, mode), native(view.contiguous(), params, mode)), name


@pytest.mark.parametrize("stages", ["filter", "warp"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_floats_are_computed_in_float32(generator, dtype, stages):
    images = normal(generator, 3, 3, 24, 31).to(dtype)
    params = drawn([stages, "eps", "cutout"], generator, 3, 3, (24, 31))
    for mode in (AFFINE, LINEAR, ADJOINT):
        result = native(images, params, mode)
        assert result.dtype == dtype and torch.equal(result, native(images.float(), params, mode).to(dtype))


def test_the_noise_is_the_one_of_its_key(generator):
    for channels in (1, 2, 3, 4, 5, 8):
        key = torch.randint(-(2**31), 2**31, (2, 2), generator=generator).int()
        # The same arithmetic; logarithm, sine and cosine of two libraries differ in the last bit.
        for dtype, tolerance in ((torch.float32, 2e-6), (torch.float64, 1e-14)):
            params = AdaParams(sigma=torch.ones(2, dtype=dtype), noise_key=key)
            noise = native(torch.zeros(2, channels, 17, 33, dtype=dtype), params)
            assert_close(noise, normals_of(key, channels, 17, 33, dtype), tolerance)


def test_what_does_nothing_changes_no_bit(generator):
    images = normal(generator, 2, 3, 30, 31).float()
    images[..., :15] = 0  # next to which 1e-17 of a neighbour shows
    G_inv, ones = torch.eye(3).repeat(2, 1, 1), torch.ones(2, 4)
    key = torch.zeros(2, 2).int()
    neutral = {"sigma": torch.zeros(2), "cut_size": torch.zeros(2), "cut_center": ones[:, :2]}
    params = AdaParams(G_inv=G_inv, gains=ones, noise_key=key, **neutral)
    for mode in (AFFINE, LINEAR, ADJOINT):
        assert torch.equal(native(images, params, mode), images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cuts_end_at_the_reference_s_pixels_at_all_sizes_and_places(generator, dtype):
    for side in (1, 2, 3, 31, 64, 100):
        size, center = uniform(generator, (40,), 0, 1.5), uniform(generator, (40, 2), -0.2, 1.2)
        size[:5], center[:4] = torch.tensor([0.0, 0.5, 0.25, 1.0, -1.0], dtype=torch.float64), 0.5
        params = AdaParams(cut_size=size.to(dtype), cut_center=center.to(dtype))
        images = torch.ones(40, 2, side, side + 1, dtype=dtype)
        assert torch.equal(native(images, params), ada_augment(images, params, "reference"))


@pytest.mark.parametrize("mode", [AFFINE, ADJOINT])
def test_threads_and_places_in_a_batch_change_no_bit(generator, threads, mode):
    images, params = (
        normal(generator, 5, 3, 66, 70).float(),
        everything(generator, 5, 3, (66, 70)).to(torch.float32),
    )
    threads(1)
    alone = native(images, params, mode)
    for number in (2, 3, 7):
        threads(number)
        assert torch.equal(native(images, params, mode), alone)
    order = [3, 0, 4, 4, 2, 1]
    rows, keys, moved = params.rows(images)[order], params.noise_key[order], images[order]
    result = registered.ada(moved, rows, keys, None, int(params.stages), mode, "native")
    assert torch.equal(result, alone[order])
    for i in range(5):
        one = registered.ada(
            images[i : i + 1], params.rows(images)[i : i + 1], params.noise_key[i : i + 1], None,
            int(params.stages), mode, "native",
        )  # fmt: skip
        assert torch.equal(one, alone[i : i + 1])


def test_a_forked_child_makes_threads_of_its_own(generator, threads):
    images, params = (
        normal(generator, 4, 3, 40, 40).float(),
        everything(generator, 4, 3, (40, 40)).to(torch.float32),
    )
    threads(2)
    expected = native(images, params)
    child = os.fork()
    if not child:
        same = False
        try:
            same = torch.equal(native(images, params), expected)
        finally:
            os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_memory_of_the_image_before_counts_for_nothing(generator):
    """A thread keeps its memory, and goes from the larger image, full of NaN, to the next one."""
    images, params = normal(generator, 2, 3, 41, 47), everything(generator, 2, 3, (41, 47))
    images[0] = math.nan
    alone = native(images[1:], AdaParams(**{k: v[1:] for k, v in vars(params).items() if v is not None}))
    for mode in (AFFINE, ADJOINT):
        assert torch.isfinite(native(images, params, mode)[1]).all()
    assert torch.equal(native(images, params)[1:], alone)


HOSTILE = [math.nan, math.inf, -math.inf, 3e38, -3e38, 1e20, -(2.0**31), 2.0**32, 1e-42, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", [AFFINE, LINEAR, ADJOINT])
def test_hostile_rows_harm_nobody(generator, mode, dtype):
    n, size = 2 + 4 * len(HOSTILE), (40, 70)
    images, params = normal(generator, n, 3, *size).to(dtype), everything(generator, n, 3, size)
    rows = params.rows(images)
    before = registered.ada(images, rows, params.noise_key, None, 31, mode, "native")
    for k, number in enumerate(HOSTILE):
        rows[1 + 4 * k] = number
        rows[2 + 4 * k, 1] = number
        rows[3 + 4 * k, 5] = number
        rows[4 + 4 * k, torch.randint(0, 9, (2,), generator=generator)] = number
        rows[4 + 4 * k, 25:33] = number
    after = registered.ada(images, rows, params.noise_key, None, 31, mode, "native")
    assert torch.equal(after[[0, -1]], before[[0, -1]])


@pytest.mark.parametrize("shear", [0.0, 0.3])
@pytest.mark.parametrize("number", [math.nan, math.inf, -1e300])
def test_a_warp_to_nowhere_shows_nothing(generator, number, shear):
    images, rows = normal(generator, 1, 1, 9, 9), torch.zeros(1, ada_params.COLUMNS, dtype=torch.float64)
    rows[0, ada_params.G_INV : ada_params.G_INV + 3] = torch.tensor([0.5, shear, number])
    for mode in (LINEAR, ADJOINT):
        assert torch.equal(from_rows(images, rows, AdaStage.WARP, mode), torch.zeros_like(images))


class TestRefusals:
    images = np.zeros((2, 3, 24, 25), np.float32)
    rows = np.zeros((2, 40), np.float32)

    def refused(self, match, **changed):
        given = {
            "images": self.images, "rows": self.rows, "noise_key": None, "eps": None, "stages": 23, "mode": 0,
            "warp_taps": SYM6, "bands": BANDS, "out": np.zeros_like(self.images),
            "threads": _native.AugmentThreads(1),
        } | changed  # fmt: skip
        with pytest.raises((ValueError, TypeError), match=match):
            _native.ada(**given)

    def test_images(self):
        self.refused("images must be", images=self.images[0])
        self.refused("float32 or float64", images=self.images.astype(np.int32))
        memory = np.zeros(2 * 3 * 24 * 25 * 4 + 1, np.uint8)[1:]
        self.refused("float32 or float64", images=memory.view(np.float32).reshape(2, 3, 24, 25))
        for stages, shape, match in [(1, (2, 3, 1, 9), "2 or more"), (2, (2, 2, 9, 9), "1 or 3 channels")]:
            zeros = np.zeros(shape, np.float32)
            self.refused(match, images=zeros, out=zeros.copy(), stages=stages)
        zeros = np.zeros((2, 3, 30, 21), np.float32)
        self.refused("22 or more", images=zeros, out=zeros.copy(), stages=4)

    def test_parameters(self):
        self.refused(r"rows must be \[N, 40\]", rows=self.rows[:1])
        self.refused(r"rows must be \[N, 40\]", rows=self.rows.astype(np.float64))
        self.refused(r"rows must be \[N, 40\]", rows=None)
        self.refused("noise_key must be", noise_key=np.zeros((2, 2), np.int64))
        self.refused("eps must be", eps=self.images[:1])
        self.refused("needs a key or eps", stages=8)
        self.refused("AdaStage", stages=32)
        self.refused("mode must be", mode=3)
        self.refused("bands must be", bands=BANDS[:3])
        self.refused("incompatible", warp_taps=SYM6[:11])

    def test_out(self):
        self.refused("out must be as", out=np.zeros((2, 3, 25, 24), np.float32))
        self.refused("out must be as", out=np.zeros((2, 3, 24, 50), np.float32)[..., ::2])
        self.refused("out must be as", out=self.images.astype(np.float64))
        self.refused("out must not be", out=self.images)
        frozen = np.zeros_like(self.images)
        frozen.flags.writeable = False
        self.refused("writeable", out=frozen)
