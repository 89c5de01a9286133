"""NaN and infinity: every twin has them where the reference has them, for a GradScaler looks for them."""

import functools
import itertools
import math
import os

import pytest
import torch

from fastload import _native
from fastload.augment import Augment
from fastload.ops import AdaParams, AugmentParams, ada_augment, color_jitter, fused_augment
from fastload.ops.fused.mix import mix, mixup
from tests.quick import slow_but

VALUES = [math.nan, math.inf, -math.inf]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and not torch.cuda.is_available()


def twins():
    """The twins that run here, and the native one on every instruction set."""
    found = []
    for name in ("baseline", "avx2", "avx512"):
        try:
            _native.use_augment_kernels(name)
        except ValueError:
            continue
        found.append(f"native {name}")
    _native.use_augment_kernels("")
    return [*found, "triton"]


@pytest.fixture(params=twins())
def impl(request):
    if request.param == "triton":
        if not INTERPRETED:
            pytest.skip("kernels are interpreted where there is no GPU")
        yield "triton"
        return
    _native.use_augment_kernels(request.param.split()[1])
    yield "native"
    _native.use_augment_kernels("")


def planted(value, channels=3, size=(9, 37), dtype=torch.float32):
    """Images [3, H, W, C], each with the value somewhere: at a corner, in the middle, in all channels."""
    images = torch.rand(3, *size, channels, generator=torch.Generator().manual_seed(0), dtype=dtype)
    images[0, 0, 0, 0] = value
    images[1, size[0] // 2, size[1] // 2, -1] = value
    images[2, -1, -1, :] = value
    return images


def pattern(images):
    return torch.stack([torch.isnan(images), torch.isinf(images)])


def every(row):
    return torch.tensor([row] * 3, dtype=torch.float32)


def matrix(rows):
    return torch.tensor([rows] * 3, dtype=torch.float32)


IDENTITY = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
MIXING = [[0.5, 0.25, -0.125, 0.1], [0, 1, 0.5, 0], [-1, 0.5, 2, -0.1], [0, 0, 0, 1]]
WARPS = {
    "identity": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "mirror": [[-1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "whole pixels": [[1, 0, 3], [0, 1, -2], [0, 0, 1]],
    "half pixels": [[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]],
    "doubled": [[0.5, 0, 0], [0, 0.5, 0], [0, 0, 1]],
}
FUSED = {name: AugmentParams(G_inv=matrix(rows)) for name, rows in WARPS.items()}
FUSED |= {
    f"jitter {factors} {order}": AugmentParams(jitter=every(factors), order=torch.tensor([order] * 3))
    for factors, order in itertools.product(
        ([1, 1, 1, 0], [1.5, 1, 1, 0], [1, 0.5, 1, 0], [1, 1, 2, 0], [1, 1, 1, 0.1], [0.5, 1.5, 0, -0.4]),
        ([0, 1, 2, 3], [3, 2, 1, 0]),
    )
}
FUSED |= {f"C {name}": AugmentParams(C=matrix(rows)) for name, rows in (("1", IDENTITY), ("any", MIXING))}
FUSED |= {f"hsv {pair}": AugmentParams(hsv=every(pair)) for pair in ([0, 1], [0.2, 1], [0, 0.5], [-0.3, 2])}
FUSED["cutout"] = AugmentParams(cut_size=every(0.5), cut_center=every([0.5, 0.5]))
FUSED["all"] = AugmentParams(
    G_inv=matrix(WARPS["half pixels"]),
    jitter=every([0.5, 1.5, 0.5, 0.1]),
    C=matrix(MIXING),
    hsv=every([0.1, 2]),
)
FUSED["nothing"] = AugmentParams()


@functools.cache
def of_the_reference(name, value, channels, dtype, normalize):
    images = planted(value, channels)
    return fused_augment(images, FUSED[name], impl="reference", dtype=dtype, normalize=normalize)


CASES = list(itertools.product(twins(), VALUES, [1, 3]))
QUICK = [case for case in CASES if case[0] != "triton" or case[1:] in ((math.nan, 3), (-math.inf, 1))]


@pytest.mark.parametrize("impl, value, channels", slow_but(QUICK, CASES), indirect=["impl"])
def test_of_the_fused_stages_what_is_not_finite_is_that_of_the_reference(impl, value, channels):
    images = planted(value, channels)
    for name, params in FUSED.items():
        if impl == "triton" and name.endswith("[0, 1, 2, 3]"):
            continue  # an interpreter is slow: one order of the jitter, one dtype, one normalization
        dtypes = ("float32",) if impl == "triton" else ("float32", "float16", "bfloat16")
        for dtype, normalize in itertools.product(dtypes, ("gan",) if impl == "triton" else (None, "gan")):
            settings = {"dtype": dtype, "normalize": normalize}
            expected = of_the_reference(name, value, channels, dtype, normalize)
            found = fused_augment(images, params, impl=impl, **settings)
            assert torch.equal(pattern(found), pattern(expected)), (name, dtype, normalize)
            if math.isnan(value) and name not in ("cutout", "doubled"):
                assert torch.isnan(expected).any(), name


@pytest.mark.parametrize("value", VALUES)
def test_the_nearest_pixel_is_a_copy_and_its_neighbours_do_not_matter(impl, value):
    images, params = planted(value), FUSED["whole pixels"]
    found = fused_augment(images, params, filter="nearest", impl=impl)
    expected = fused_augment(images, params, filter="nearest", impl="reference")
    assert torch.equal(pattern(found), pattern(expected)) and pattern(found).any()
    plain = fused_augment(images.nan_to_num(0.5, 0.5, 0.5), params, filter="nearest", impl=impl)
    assert torch.equal(found[found.isfinite()], plain[found.isfinite()])


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF, -1, 0x7F800001])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_nan_stays_one_in_every_dtype(impl, bits, dtype):
    nan = torch.tensor([bits], dtype=torch.int32).view(torch.float32)
    images = torch.full((1, 4, 33, 3), 0.5)
    images[0, 2, 5] = nan
    found = fused_augment(images, dtype=dtype, impl=impl)
    assert torch.isnan(found).sum() == 3 and torch.isnan(found[0, :, 2, 5]).all()


def test_pixels_are_0_of_nan_and_the_ends_of_infinity(impl):
    for value, level in ((math.nan, 0), (math.inf, 255), (-math.inf, 0), (7.0, 255), (-7.0, 0)):
        images = torch.full((1, 3, 33, 3), value)
        for twin in (impl, "reference"):
            assert (fused_augment(images, dtype="uint8", impl=twin) == level).all(), (value, twin)


JITTERED = list(itertools.product(twins(), ["brightness", "contrast", "saturation", "hue"], VALUES))
QUICK_JITTERED = [case for case in JITTERED if case[0] != "triton" or math.isnan(case[2])]


@pytest.mark.parametrize("impl, step, value", slow_but(QUICK_JITTERED, JITTERED), indirect=["impl"])
def test_color_jitter_keeps_what_a_gradscaler_looks_for(impl, step, value):
    images = planted(value).permute(0, 3, 1, 2)
    for factor in (0.25, 0.0) if step == "hue" else (0.5, 1.0, 1.5):
        found = color_jitter(images, **{step: factor}, impl=impl)
        assert torch.equal(pattern(found), pattern(color_jitter(images, **{step: factor}, impl="reference")))
        if math.isnan(value):
            assert torch.isnan(found).any((1, 2, 3)).all()


def test_pixels_have_nothing_that_is_not_finite(impl):
    augment = Augment(rotate=30, color_jitter=(0.4, 0.4, 0.4, 0.1), hsv=(0.1, 0.9))
    images = torch.randint(0, 256, (4, 3, 16, 33), dtype=torch.uint8)
    assert torch.isfinite(augment(images, range(4), 1, normalize="gan", impl=impl)).all()


# Adaptive augmentation


def batch(tensor):
    return tensor.repeat(3, *[1] * (tensor.dim() - 1))


def turned(angle, scale=1.0, x=0.0, y=0.0):
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    return [[cos, -sin, x], [sin, cos, y], [0, 0, 1]]


KEY = torch.tensor([[1, 2], [3, 4], [5, 6]], dtype=torch.int32)
POINTWISE = {
    "identity": AdaParams(G_inv=matrix(WARPS["identity"])),
    "whole pixels": AdaParams(G_inv=matrix(WARPS["whole pixels"])),
    "colour": AdaParams(C=matrix(MIXING)),
    "noise": AdaParams(sigma=every(0.1), noise_key=KEY),
    "no noise": AdaParams(sigma=every(0.0), noise_key=KEY),
    "cutout": AdaParams(cut_size=every(0.5), cut_center=every([0.5, 0.5])),
    "no filter": AdaParams(gains=every([1, 1, 1, 1])),
}
TAPS = {
    "fraction": AdaParams(G_inv=matrix([[1, 0, 0.3], [0, 1, 0.7], [0, 0, 1]])),
    "quarter turn": AdaParams(G_inv=matrix([[0, -1, 0], [1, 0, 0], [0, 0, 1]])),
    "turn": AdaParams(G_inv=matrix(turned(0.3, 1.1, 2, 1))),
    "enlarged": AdaParams(G_inv=matrix(turned(0, 0.5))),
    "shrunk": AdaParams(G_inv=matrix(turned(0, 2))),
    "shrunk by much": AdaParams(G_inv=matrix(turned(0, 8))),
    "shrunk by more": AdaParams(G_inv=matrix(turned(0.3, 30, 2, 1))),
    "far away": AdaParams(G_inv=matrix(turned(0.2, 1, 500))),
    "one place": AdaParams(G_inv=matrix([[0, 0, 0], [0, 0, 0], [0, 0, 1]])),
    "filter": AdaParams(gains=every([1, 0.5, 2, 1])),
}
ONE_AXIS = {
    "a row only moved": AdaParams(G_inv=matrix([[1, 0, 2], [0, 0.8, 0], [0, 0, 1]])),
    "mirrored": AdaParams(G_inv=matrix([[-1, 0, 0], [0, 1, 0], [0, 0, 1]])),
}


def cast(params, dtype):
    return params.to(dtype) if dtype == torch.float64 else params


def forward_and_back(value, params, impl, dtype, size=(26, 30)):
    """What comes of images with the value, and of gradients with it."""
    odd = planted(value, size=size, dtype=dtype).permute(0, 3, 1, 2)
    out = ada_augment(odd, params, impl)
    images = torch.zeros_like(odd).requires_grad_()
    (gradient,) = torch.autograd.grad(ada_augment(images, params, impl), images, odd)
    return out, gradient


def found_and_expected(value, params, impl, dtype, size=(26, 30)):
    """(of a twin, of the reference): results, then gradients."""
    twins = (forward_and_back(value, params, one, dtype, size) for one in (impl, "reference"))
    return zip(*twins, strict=True)


ada_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@ada_dtypes
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", POINTWISE)
def test_of_pixel_by_pixel_stages_it_is_that_of_the_reference(name, value, dtype):
    params = cast(POINTWISE[name], dtype)
    for found, expected in found_and_expected(value, params, "native", dtype):
        assert torch.equal(pattern(found), pattern(expected))
        assert pattern(found).any() and torch.isfinite(found).any()


@pytest.mark.skipif(not INTERPRETED, reason="kernels are interpreted where there is no GPU")
@pytest.mark.parametrize(
    "name", ["whole pixels", "colour", "no noise", "cutout", pytest.param("identity", marks=pytest.mark.slow)]
)
def test_of_pixel_by_pixel_stages_tritons_is_that_of_the_reference(name):
    case = (math.nan, POINTWISE[name], "triton", torch.float32, (8, 9))
    for found, expected in found_and_expected(*case):
        assert torch.equal(pattern(found), pattern(expected)) and pattern(found).any()


@ada_dtypes
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", TAPS)
def test_of_sums_of_taps_the_same_pixels_are_not_finite(name, value, dtype):
    case = (value, cast(TAPS[name], dtype), "native", dtype)
    size = (26, 30) if name == "filter" else (13, 15)
    for found, expected in found_and_expected(*case, size):
        assert torch.equal(torch.isfinite(found), torch.isfinite(expected))
        if math.isnan(value):
            assert torch.equal(torch.isnan(found), torch.isnan(expected))


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", ONE_AXIS)
def test_of_an_axis_that_is_only_moved_no_pixel_more_is_not_finite(name, value):
    for found, expected in zip(
        *(forward_and_back(value, ONE_AXIS[name], impl, torch.float32) for impl in ("native", "reference")),
        strict=True,
    ):
        assert not (torch.isfinite(expected) & ~torch.isfinite(found)).any()
        assert (~torch.isfinite(found)).any()


def test_a_cut_takes_away_what_is_not_finite():
    images = torch.full((1, 3, 8, 8), math.nan)
    whole = AdaParams(cut_size=torch.tensor([2.0]), cut_center=torch.tensor([[0.5, 0.5]]))
    for impl in ("reference", "native"):
        assert (ada_augment(images, whole, impl) == 0).all()


@pytest.mark.parametrize("value", VALUES)
def test_an_image_that_is_not_mixed_takes_nothing_of_its_neighbour(value):
    images = torch.rand(2, 3, 8, 8)
    images[1] = value
    share, boxes = torch.tensor([1.0, 1.0]), torch.zeros(2, 4, dtype=torch.int64)
    for found in (
        mixup(images, share),
        mix(images, share, boxes),
        mix(images.requires_grad_(), share, boxes),
    ):
        assert torch.equal(found[0], images[0]) and torch.equal(pattern(found), pattern(images))
