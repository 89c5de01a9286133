"""The native kernels of fused_augment equal the float64 reference on every instruction set that runs here."""

import functools
import itertools
import math
import os

import numpy as np
import pytest
import torch

from fastload import _native
from fastload.normalize import Normalization, normalization
from fastload.ops.fused import augment_params
from fastload.ops.fused.augment_params import AugmentParams, Stage
from fastload.ops.fused.fused_augment import fused_augment

# The contract's; most of it is for a jitter, which multiplies the rounding of a step by the factors to come.
COLOUR_TOLERANCE = 2e-6
SIZES = [(1, 1), (1, 7), (7, 1), (2, 2), (33, 47), (64, 64), (97, 101), (257, 255)]
ORDERS = list(itertools.permutations(range(4)))


def instruction_sets() -> list[str]:
    found = []
    for name in ("baseline", "avx2", "avx512"):
        try:
            _native.use_augment_kernels(name)
            found.append(name)
        except ValueError:
            continue
    _native.use_augment_kernels("")
    return found


@pytest.fixture(params=instruction_sets(), autouse=True)
def kernels(request):
    _native.use_augment_kernels(request.param)
    yield request.param
    _native.use_augment_kernels("")


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def uniform(rng, shape, low, high):
    return torch.rand(shape, generator=rng) * (high - low) + low


def pictures(rng, n, size, channels=3, floats=False):
    pixels = torch.randint(0, 256, (n, *size, channels), dtype=torch.uint8, generator=rng)
    return pixels.float() / 255 if floats else pixels


def warps(rng, n, side):
    """Rotations by any angle, scaled by 1/2 to 2 and sheared, shifted by up to half the side."""
    angle, scale = uniform(rng, n, 0, 2 * math.pi), torch.exp2(uniform(rng, n, -1, 1))
    G_inv = torch.eye(3).repeat(n, 1, 1)
    G_inv[:, 0, 0], G_inv[:, 0, 1] = angle.cos() * scale, angle.sin()
    G_inv[:, 1, 0], G_inv[:, 1, 1] = -angle.sin(), angle.cos() * scale
    G_inv[:, :2, 2] = uniform(rng, (n, 2), -side / 2, side / 2)
    return G_inv


def flips(n):
    signs = torch.tensor(list(itertools.product((1.0, -1.0), repeat=2)))[torch.arange(n) % 4]
    return torch.diag_embed(torch.cat([signs, torch.ones(n, 1)], 1))


def jitters(rng, n):
    """Factors from far below 1 to far above, any hue; the first image keeps its colours."""
    factors = torch.cat([uniform(rng, (n, 3), 0, 2.5), uniform(rng, (n, 1), -1, 1)], 1)
    factors[0] = torch.tensor([1.0, 1.0, 1.0, 0.0])
    return factors


def orders(rng, n):
    return torch.stack([torch.randperm(4, generator=rng) for _ in range(n)])


STAGES = {
    "G_inv": lambda rng, n, side: {"G_inv": warps(rng, n, side)},
    "flip": lambda rng, n, side: {"G_inv": flips(n)},
    "jitter": lambda rng, n, side: {"jitter": jitters(rng, n), "order": orders(rng, n)},
    "C": lambda rng, n, side: {"C": torch.eye(4) + uniform(rng, (n, 4, 4), -0.4, 0.4)},
    "hsv": lambda rng, n, side: {"hsv": torch.stack([uniform(rng, n, -1, 1), uniform(rng, n, 0, 2)], 1)},
    "cut": lambda rng, n, side: {
        "cut_size": uniform(rng, n, 0, 1),
        "cut_center": uniform(rng, (n, 2), 0, 1),
    },
}


def drawn(names, rng, n, size):
    given = {}
    for name in names:
        given |= STAGES[name](rng, n, max(size))
    return AugmentParams(**given)


def tolerance(params, size):
    if params.G_inv is None:
        return COLOUR_TOLERANCE
    # Noise changes by 1 from pixel to pixel, along both axes; the colours that follow may double that.
    return COLOUR_TOLERANCE + 4 * max(size) * 2.0**-22


def assert_equals_reference(images, params, **settings):
    expected = fused_augment(images, params, dtype="float64", impl="reference", **settings)
    assert_equals_expected(images, params, expected, **settings)


def assert_equals_expected(images, params, expected, **settings):
    result = fused_augment(images, params, dtype="float32", impl="native", **settings)
    assert result.dtype == torch.float32 and result.shape == expected.shape
    off = (result - expected).abs().max().item()
    assert off <= tolerance(params, images.shape[1:3]), off


def test_columns_and_bits_are_those_of_python():
    layout = _native.augment_layout()
    columns = ("COLUMNS", "G_INV", "C", "JITTER", "ORDER", "HSV", "CUT_SIZE", "CUT_CENTER")
    assert {name: layout.pop(name) for name in columns} == {
        name: getattr(augment_params, name) for name in columns
    }
    bits = {name.removeprefix("STAGE_"): bit for name, bit in layout.items()}
    assert bits == {stage.name: int(stage) for stage in Stage}


@functools.cache
def alone(stage, size, channels, floats):
    """Images, parameters of one stage, and the reference's result, computed once for all kernels."""
    rng = torch.Generator().manual_seed(0)
    images = pictures(rng, 2 if max(size) > 200 else 5, size, channels, floats)
    params = drawn([stage], rng, len(images), size)
    return images, params, fused_augment(images, params, dtype="float64", impl="reference")


@pytest.mark.parametrize("floats", [False, True], ids=["uint8", "float32"])
@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_alone_equals_the_reference(stage, size, channels, floats):
    assert_equals_expected(*alone(stage, size, channels, floats))


@pytest.mark.parametrize("round", range(24))
def test_combinations_of_stages_equal_the_reference(rng, round):
    rng.manual_seed(round)
    size = SIZES[round % len(SIZES)]
    names = [name for name in STAGES if torch.rand(1, generator=rng) < 0.6]
    n = 1 if round % 5 == 0 or max(size) > 200 else 5
    images = pictures(rng, n, size, 1 if round % 7 == 0 else 3, bool(round % 2))
    assert_equals_reference(images, drawn(names, rng, n, size))


@pytest.mark.parametrize("floats", [False, True], ids=["uint8", "float32"])
@pytest.mark.parametrize("channels", [3, 1])
def test_every_order_of_the_jitter_equals_the_reference(rng, channels, floats):
    images = pictures(rng, 24, (19, 70), channels, floats)
    params = AugmentParams(jitter=jitters(rng, 24), order=torch.tensor(ORDERS))
    assert_equals_reference(images, params)


@pytest.mark.parametrize("hue", [k / 12 for k in range(-14, 15)])
def test_every_sixth_of_a_turn_and_what_lies_between_equals_the_reference(rng, hue):
    images = pictures(rng, 1, (40, 40))
    images[0, :8] = images[0, :8, :, :1]  # greys
    images[0, 8:16, :, 1] = images[0, 8:16, :, 0]  # two channels alike
    images[0, 16:24, :, 2] = images[0, 16:24, :, 0]
    images[0, 24:32, :, 2] = images[0, 24:32, :, 1]
    jitter = torch.tensor([[1.0, 1.0, 1.0, hue]])
    assert_equals_reference(images, AugmentParams(jitter=jitter))
    assert_equals_reference(images, AugmentParams(hsv=torch.tensor([[hue, 1.5]])))


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.9899, 0.995, 1.0, 1.0001, 1.7, -0.3])
@pytest.mark.parametrize("step", range(3))
def test_factors_on_both_sides_of_one_equal_the_reference(rng, step, factor):
    images = pictures(rng, 6, (16, 33))
    images[0], images[1] = 0, 255
    jitter = torch.tensor([[1.0, 1.0, 1.0, 0.0]]).repeat(6, 1)
    jitter[:, step] = factor
    params = AugmentParams(jitter=jitter)
    assert_equals_reference(images, params)
    result = fused_augment(images, params, dtype="float32", impl="native")
    assert result.min() >= 0 and result.max() <= 1


def test_floats_outside_their_range_are_clamped_where_the_reference_does(rng):
    images = uniform(rng, (24, 11, 13, 3), -0.5, 1.5)
    params = AugmentParams(jitter=jitters(rng, 24), order=torch.tensor(ORDERS))
    # Values, and with them the rounding, are up to three times those of the contract.
    expected = fused_augment(images, params, dtype="float64", impl="reference")
    result = fused_augment(images, params, impl="native")
    assert (result - expected).abs().max() <= 3 * COLOUR_TOLERANCE


@pytest.mark.parametrize("preset", ["gan", "imagenet", (0.3, (0.1, 0.2, 0.7))], ids=str)
def test_normalization_equals_the_reference(rng, preset):
    images, params = (
        pictures(rng, 3, (33, 48)),
        drawn(["flip", "jitter", "cut"], rng, 3, (33, 48)),
    )
    expected = fused_augment(images, params, normalize=preset, dtype="float64", impl="reference")
    result = fused_augment(images, params, normalize=preset, impl="native")
    rule = normalization(preset)
    assert (result - expected).abs().max() <= COLOUR_TOLERANCE * 255 / (rule.divisor * min(rule.std))


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("width", [31, 64])
def test_short_floats_are_the_long_ones_rounded_to_nearest_even(rng, dtype, layout, width):
    images, params = pictures(rng, 4, (33, width)), drawn(["jitter", "cut"], rng, 4, (33, width))
    # Subnormal, large, infinite.
    for preset in (None, "imagenet", Normalization(255.0, 0.0, 7e4), (0.0, 1e-3), (0.5, 1e-6)):
        settings = {"normalize": preset, "layout": layout, "impl": "native"}
        long = fused_augment(images, params, dtype="float32", **settings)
        short = fused_augment(images, params, dtype=dtype, **settings)
        assert torch.equal(short, long.to(short.dtype))


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("width", [31, 64])
def test_uint8_is_off_by_1_at_most_and_seldom(rng, layout, width):
    images, params = (
        pictures(rng, 5, (33, width)),
        drawn(["jitter", "hsv", "cut"], rng, 5, (33, width)),
    )
    settings = {"dtype": "uint8", "layout": layout}
    result = fused_augment(images, params, impl="native", **settings).int()
    expected = fused_augment(images.double() / 255, params, impl="reference", **settings).int()
    assert (result - expected).abs().max() <= 1
    assert (result != expected).float().mean() < 1e-3


@pytest.mark.parametrize("channels", [3, 1])
def test_pixels_without_stages_come_out_as_they_are(rng, channels):
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).repeat(1, 1, 1, channels)
    for pixels in (images, images.float() / 255):
        result = fused_augment(pixels, dtype="uint8", impl="native")
        assert torch.equal(result, images.permute(0, 3, 1, 2))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8"])
def test_layouts_hold_the_same_values(rng, dtype, layout, size):
    images, params = pictures(rng, 2, size), drawn(["jitter", "cut"], rng, 2, size)
    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    result = fused_augment(images, params, dtype=dtype, layout=layout, impl="native")
    assert result.is_contiguous(memory_format=form)
    assert torch.equal(result, fused_augment(images, params, dtype=dtype, impl="native"))


@pytest.mark.parametrize("floats", [False, True], ids=["uint8", "float32"])
@pytest.mark.parametrize("names", [["flip", "jitter"], ["G_inv", "jitter"]], ids=["flip", "warp"])
def test_any_strides_give_the_same_values(rng, names, floats):
    large = pictures(rng, 6, (50, 66), 3, floats)
    views = {
        "rows and columns left out": large[::2, 1:49:2, 3:66:3],
        "a window": large[:3, 5:40, 7:50],
        "planes": large[:3].permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
        "four channels": torch.nn.functional.pad(large[:3], (0, 1))[..., :3],
        "transposed": large[:3].transpose(1, 2),
        "one image three times": large[:1].expand(3, -1, -1, -1),
    }
    for name, view in views.items():
        params = drawn(names, rng, 3, view.shape[1:3])
        result = fused_augment(view, params, dtype="float32", impl="native")
        same = fused_augment(view.contiguous(), params, dtype="float32", impl="native")
        assert torch.equal(result, same), name


def native(images, params, out, threads=1, nearest=False, dtype="float32", rows=None, stages=None):
    rows = params.rows(images.shape[0], "cpu").numpy() if rows is None else rows
    stages = int(params.stages) if stages is None else stages
    pool = _native.AugmentThreads(threads)
    dtype = getattr(_native.Dtype, dtype)
    _native.augment(images, rows, stages, 255.0, (0.0,) * 3, (1.0,) * 3, nearest, out, dtype, False, pool)
    return out


def test_strides_may_be_negative(rng):
    images = pictures(rng, 2, (9, 37)).numpy()
    params = drawn(["jitter"], rng, 2, (9, 37))
    out = np.empty((2, 3, 9, 37), np.float32)
    reversed_view = images[::-1, ::-1, ::-1, ::-1]
    same = native(np.ascontiguousarray(reversed_view), params, out.copy())
    assert np.array_equal(native(reversed_view, params, out), same)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (12, 12), (31, 64)], ids=str)
def test_nearest_takes_pixels_as_they_are(rng, size):
    images = pictures(rng, 8, size)
    quarter = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    shifts = torch.tensor([0.0, 1.0, -5.0, 400.0])
    G_inv = torch.stack(
        [
            base @ torch.tensor([[1.0, 0.0, s], [0.0, 1.0, -s], [0.0, 0.0, 1.0]])
            for base in (torch.eye(3), quarter)
            for s in shifts
        ]
    )
    G_inv[1::2, :2, :2] *= 0.75  # places at exact quarters
    params = AugmentParams(G_inv=G_inv)
    settings = {"dtype": "uint8", "filter": "nearest"}
    expected = fused_augment(images, params, impl="reference", **settings)
    assert torch.equal(fused_augment(images, params, impl="native", **settings), expected)
    # Elsewhere places in float32 may lie on the other side of a border between pixels, which is rare.
    params = drawn(["G_inv"], rng, 8, size)
    expected = fused_augment(images, params, impl="reference", **settings)
    result = fused_augment(images, params, impl="native", **settings)
    assert (result != expected).float().mean() <= 1e-3


def test_a_warp_by_whole_pixels_is_exact(rng):
    images = pictures(rng, 3, (20, 41))
    G_inv = torch.eye(3).repeat(3, 1, 1)
    G_inv[:, 0, 2], G_inv[:, 1, 2] = torch.tensor([1.0, -7.0, 300.0]), torch.tensor([-2.0, 19.0, 1000.0])
    params = AugmentParams(G_inv=G_inv)
    expected = fused_augment(images, params, dtype="uint8", impl="reference")
    assert torch.equal(fused_augment(images, params, dtype="uint8", impl="native"), expected)


def test_absurd_matrices_stay_inside_the_image(rng):
    images = pictures(rng, 4, (31, 33))
    G_inv = torch.eye(3).repeat(4, 1, 1)
    G_inv[0, 0] = torch.tensor([3e38, -3e38, 3e38])
    G_inv[1, 1] = torch.tensor([1e20, 1.0, 0.0])
    G_inv[2, 0, 2] = 2.0**31
    G_inv[3, :2] = 0
    for filter in ("bilinear", "nearest"):
        result = fused_augment(images, AugmentParams(G_inv=G_inv), filter=filter, impl="native")
        assert result.shape == (4, 3, 31, 33)


@pytest.mark.parametrize("names", [["G_inv"], ["G_inv", "jitter"], ["jitter"]], ids=str)
def test_nothing_is_left_over_from_the_image_before(rng, names):
    """A thread keeps its memory; what lies past an image's last row and column counts for nothing."""
    params = drawn(names, rng, 1, (41, 47))
    if params.G_inv is not None:  # by whole pixels, so that the last row and column are met exactly
        params.G_inv[0] = torch.tensor([[1.0, 0.0, 3.0], [0.0, 1.0, 2.0], [0.0, 0.0, 1.0]])
    before = torch.full((1, 41, 47, 3), math.nan)
    for size in ((41, 46), (40, 47), (13, 33), (41, 1)):
        fused_augment(before, params, dtype="float32", impl="native")
        assert_equals_reference(pictures(rng, 1, size, floats=True), params)


def test_cuts_end_at_the_same_pixels_at_all_sizes_and_places(rng):
    for side in (1, 2, 3, 31, 64, 100):
        n = 40
        images = torch.full((n, side, side + 1, 3), 255, dtype=torch.uint8)
        size, center = uniform(rng, n, 0, 1.5), uniform(rng, (n, 2), -0.2, 1.2)
        size[:4], center[:4] = torch.tensor([0.0, 0.5, 0.25, 1.0]), 0.5
        params = AugmentParams(cut_size=size, cut_center=center)
        expected = fused_augment(images, params, dtype="float64", impl="reference")
        assert torch.equal(fused_augment(images, params, dtype="float32", impl="native"), expected.float())


def test_what_is_written_past_the_cache_is_the_same(rng):
    n, size = 12, (256, 256)  # 9 MiB, more than the binding calls cached
    images, params = pictures(rng, n, size), drawn(["flip", "jitter", "cut"], rng, n, size)
    together = fused_augment(images, params, dtype="float32", impl="native")
    for i in range(n):
        one = AugmentParams.from_rows(params.rows(n, "cpu")[i : i + 1], params.stages)
        alone = fused_augment(images[i : i + 1], one, dtype="float32", impl="native")
        assert torch.equal(together[i : i + 1], alone)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_any_number_of_threads_gives_the_same_bits(rng, n):
    images, params = pictures(rng, n, (65, 63)), drawn(STAGES, rng, n, (65, 63))
    out = np.empty((n, 3, 65, 63), np.float32)
    alone = native(images.numpy(), params, out.copy(), threads=1)
    for threads in (2, 3, 7):
        assert np.array_equal(native(images.numpy(), params, out, threads=threads), alone)


def test_a_forked_child_makes_threads_of_its_own(rng):
    images, params = pictures(rng, 4, (40, 40)), drawn(["jitter"], rng, 4, (40, 40))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = fused_augment(images, params, dtype="float32", impl="native")
        child = os.fork()
        if not child:
            same = False
            try:
                same = torch.equal(fused_augment(images, params, dtype="float32", impl="native"), expected)
            finally:
                os._exit(0 if same else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        torch.set_num_threads(threads)


def test_float64_images_are_taken_as_float32(rng):
    images, params = pictures(rng, 2, (9, 11), floats=True), drawn(["jitter"], rng, 2, (9, 11))
    result = fused_augment(images.double(), params, dtype="float32", impl="native")
    assert torch.equal(result, fused_augment(images, params, dtype="float32", impl="native"))


def test_an_empty_batch_is_nothing_to_do():
    assert fused_augment(torch.empty(0, 4, 4, 3, dtype=torch.uint8), impl="native").shape == (0, 3, 4, 4)


class TestRefusals:
    images = np.zeros((2, 4, 5, 3), np.uint8)
    out = np.zeros((2, 3, 4, 5), np.float32)
    rows = AugmentParams().rows(2, "cpu").numpy()

    def refused(self, match, **changed):
        given = {"images": self.images, "params": None, "out": self.out, "rows": self.rows, "stages": 0}
        with pytest.raises((ValueError, TypeError), match=match):
            native(**{**given, **changed})

    def test_images(self):
        self.refused("images must be", images=self.images[0])
        self.refused("1 or 3", images=np.zeros((2, 4, 5, 2), np.uint8))
        self.refused("uint8 or float32", images=self.images.astype(np.float64))
        self.refused("uint8 or float32", images=self.images.astype(np.int8))

    def test_rows(self):
        self.refused(r"rows \[N, 32\]", rows=self.rows[:1])
        self.refused(r"\[N, 32\]", rows=np.zeros((2, 31), np.float32))
        self.refused("incompatible", rows=self.rows.astype(np.float64))
        self.refused("Stage", stages=64)
        for value, column, stage, match in [
            (np.nan, augment_params.G_INV + 5, Stage.WARP, "row 1: G_inv"),
            (np.inf, augment_params.G_INV, Stage.WARP, "row 1: G_inv"),
            (2.0, augment_params.ORDER, Stage.JITTER, "row 1: the order"),
            (0.5, augment_params.ORDER, Stage.JITTER, "row 1: the order"),
            (np.nan, augment_params.JITTER + 3, Stage.JITTER, "row 1: the hue shift"),
            (np.inf, augment_params.HSV, Stage.HSV, "row 1: the hue shift"),
        ]:
            rows = self.rows.copy()
            rows[:, augment_params.ORDER : augment_params.ORDER + 4] = range(4)
            rows[1, column] = value
            self.refused(match, rows=rows, stages=int(stage))

    def test_out(self):
        self.refused(r"out must be \[N", out=np.zeros((2, 3, 5, 4), np.float32))
        self.refused(r"out must be \[N", out=np.zeros((3, 3, 4, 5), np.float32))
        self.refused(r"out must be \[N", out=np.zeros(120, np.float32))
        self.refused("dtype", out=np.zeros((2, 3, 4, 5), np.float16))
        self.refused("contiguous", out=np.zeros((2, 3, 4, 10), np.float32)[..., ::2])
        self.refused("aligned", out=np.zeros(481, np.uint8)[1:].view(np.float32).reshape(2, 3, 4, 5))
        frozen = self.out.copy()
        frozen.flags.writeable = False
        self.refused("writeable", out=frozen)

    def test_out_over_the_images(self):
        memory = np.zeros(240, np.uint8)
        images, out = memory[:120].reshape(2, 4, 5, 3), memory[119:239].reshape(2, 3, 4, 5)
        self.refused("overlap", images=images, out=out, dtype="uint8")
        native(images, None, memory[120:].reshape(2, 3, 4, 5), rows=self.rows, stages=0, dtype="uint8")

    def test_threads_and_instruction_sets(self):
        with pytest.raises(ValueError, match="at least"):
            _native.AugmentThreads(0)
        with pytest.raises(ValueError, match="no such instruction set"):
            _native.use_augment_kernels("mmx")
