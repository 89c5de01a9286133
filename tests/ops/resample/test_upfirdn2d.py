"""upfirdn2d against its definition in NumPy float64, its gradients, and Triton against the reference.

Covers upfirdn2d_triton.py.
"""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastload.errors import ConfigError
from fastload.ops.resample import registered
from fastload.ops.resample.upfirdn2d import downsample2d, filter2d, upfirdn2d, upsample2d
from tests.quick import slow_but

try:
    import triton  # noqa: F401
except ImportError:
    TWINS = ["reference"]
else:
    TWINS = ["reference", "triton"]
each_twin = pytest.mark.parametrize("impl", TWINS)
needs_triton = pytest.mark.skipif("triton" not in TWINS, reason="Triton is not installed")
ASYMMETRIC = torch.tensor([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]])  # [h, w] = [2, 3]


def along_one_axis(line, taps, up, down, before, behind):
    """The definition, step by step, for one line of pixels."""
    spread = []
    for pixel in line:
        spread += [pixel] + [0.0] * (up - 1)
    padded = [0.0] * max(before, 0) + spread + [0.0] * max(behind, 0)
    padded = padded[max(-before, 0) : len(padded) - max(-behind, 0)]
    filtered = []
    for first in range(len(padded) - len(taps) + 1):
        window = padded[first : first + len(taps)]
        filtered.append(sum(tap * pixel for tap, pixel in zip(reversed(taps), window, strict=True)))
    return filtered[::down]


def by_definition(images, taps, up, down, padding, flip_filter, gain):
    """[h, w] taps are a sum of filters along y, one for each tap along x that stands alone in its row."""
    images, taps = images.double().numpy(), taps.double().numpy()
    if taps.ndim == 1:
        taps = np.outer(taps, taps)
    if flip_filter:
        taps = taps[::-1, ::-1]
    x0, x1, y0, y1 = padding
    total = 0.0
    for column in range(taps.shape[1]):
        alone = [float(number == column) for number in range(taps.shape[1])]
        rows = np.apply_along_axis(
            lambda line, f=alone: along_one_axis(line, f, up[0], down[0], x0, x1), 3, images
        )
        of_column = list(taps[:, column])
        total = total + np.apply_along_axis(
            lambda line, f=of_column: along_one_axis(line, f, up[1], down[1], y0, y1), 2, rows
        )
    return torch.from_numpy(total * gain)


def random_case(seed):
    """Images, taps and arguments of any kind for which something is left of the images."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)

    def pair(low, high):
        return tuple(int(number) for number in rng.integers(low, high + 1, 2))

    while True:
        (width, height), up, down = pair(1, 9), pair(1, 3), pair(1, 3)
        padding = tuple(int(number) for number in rng.integers(-4, 8, 4))
        k, (w, h) = int(rng.integers(1, 8)), pair(1, 5)
        shape = (h, w) if seed % 2 else (k,)
        left = width * up[0] + sum(padding[:2]), height * up[1] + sum(padding[2:])
        if left[0] >= shape[-1] and left[1] >= shape[0]:
            break
    images = torch.randn(*pair(1, 2)[:1], int(rng.integers(1, 5)), height, width, generator=generator)
    options = {
        "up": up,
        "down": down,
        "padding": padding,
        "flip_filter": bool(rng.integers(2)),
        "gain": float(rng.choice([1.0, -0.3, 4.0])),
    }
    return images, torch.randn(*shape, generator=generator), options


def tolerance(images, taps, gain=1.0):
    """The contract's, for float32."""
    count = taps.numel() * (2 if taps.dim() == 1 else 1)
    weight = taps.abs().sum().item() ** (2 if taps.dim() == 1 else 1)
    return count * 2.0**-23 * abs(gain) * weight * images.abs().max().item()


def applied(images, taps, device, **options):
    return upfirdn2d(images.to(device), taps.to(device), **options).cpu()


BLOCKS = list(itertools.product(range(5), TWINS))
QUICK_BLOCKS = [(block, impl) for block, impl in BLOCKS if impl == "reference" or block < 2]


@pytest.mark.parametrize("block, impl", slow_but(QUICK_BLOCKS, BLOCKS))
def test_resampling_is_the_definition(block, impl, device):
    for seed in range(block * 15, block * 15 + 15):
        images, taps, options = random_case(seed)
        expected = by_definition(images, taps, **options)
        result = applied(images, taps, device, impl=impl, **options)
        assert result.dtype == torch.float32 and result.is_contiguous()
        atol = tolerance(images, taps, options["gain"])
        torch.testing.assert_close(result.double(), expected, rtol=0, atol=atol)
        if impl == "reference":
            exact = upfirdn2d(images.double(), taps.double(), **options)
            torch.testing.assert_close(exact, expected, rtol=0, atol=atol * 2.0**-29)


@each_twin
def test_one_number_two_and_four_are_the_sides_they_are_said_to_be(impl, device):
    images = torch.randn(1, 2, 5, 6)
    for short, full in ((3, (3, 3, 3, 3)), ((1, 2), (1, 1, 2, 2)), ([2, 0], (2, 2, 0, 0))):
        result = applied(images, ASYMMETRIC, device, padding=short, impl=impl)
        assert torch.equal(result, applied(images, ASYMMETRIC, device, padding=full, impl=impl))
    assert applied(images, ASYMMETRIC, device, up=(3, 2), impl=impl).shape == (1, 2, 10 - 1, 18 - 2)
    assert applied(images, ASYMMETRIC, device, down=(3, 2), impl=impl).shape == (1, 2, 2, 2)


@each_twin
def test_separable_taps_are_their_outer_product(impl, device):
    images, taps = torch.randn(2, 3, 8, 7), torch.tensor([0.5, -1.0, 2.0, 0.25])
    for options in (
        {"up": (2, 3), "padding": 4},
        {"down": (3, 2), "padding": 1},
        {"flip_filter": True, "gain": 3},
    ):
        one_by_one = applied(images, taps, device, impl=impl, **options)
        at_once = applied(images, taps.outer(taps), device, impl=impl, **options)
        torch.testing.assert_close(one_by_one, at_once, rtol=0, atol=tolerance(images, taps, 3))


@each_twin
def test_without_taps_pixels_are_moved_and_multiplied(impl, device):
    images = torch.randn(2, 3, 5, 6, device=device)
    assert torch.equal(upfirdn2d(images, None, impl=impl), images)
    assert torch.equal(upfirdn2d(images, None, down=(2, 3), gain=2, impl=impl), images[:, :, ::3, ::2] * 2)
    assert torch.equal(upfirdn2d(images, None, padding=(-1, 2), impl=impl), F.pad(images, (-1, -1, 2, 2)))
    spread = upfirdn2d(images, None, up=(1, 2), impl=impl)
    assert torch.equal(spread[:, :, ::2], images) and not spread[:, :, 1::2].any()


@each_twin
def test_a_side_may_take_away_what_the_other_one_adds(impl, device):
    images = torch.ones(1, 1, 4, 4, device=device)
    result = upfirdn2d(images, None, padding=(-6, 9, 2, -5), impl=impl)
    assert result.shape == (1, 1, 1, 7) and not result.any()


@each_twin
@pytest.mark.parametrize("factor, taps", [(2, [1.0, 3.0, 3.0, 1.0]), (3, [1.0, 2.0, 3.0, 2.0, 1.0])])
def test_a_tent_resamples_as_bilinear_interpolation_does(factor, taps, impl, device):
    images, taps = torch.rand(2, 3, 4 * factor, 5 * factor, device=device), torch.tensor(taps, device=device)
    larger = upsample2d(images, taps / taps.sum(), factor, impl=impl)
    expected = F.interpolate(images, scale_factor=factor, mode="bilinear")
    inner = slice(factor, -factor)  # beyond the border there are zeros here, and repeated pixels there
    assert larger.shape == expected.shape
    torch.testing.assert_close(larger[:, :, inner, inner], expected[:, :, inner, inner])
    smaller = downsample2d(images, taps / taps.sum(), factor, impl=impl)
    expected = F.interpolate(images, scale_factor=1 / factor, mode="bilinear", antialias=True)
    assert smaller.shape == expected.shape
    torch.testing.assert_close(smaller[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1])


@each_twin
def test_a_box_repeats_and_averages(impl, device):
    images, box = torch.rand(2, 3, 6, 8, device=device), torch.tensor([0.5, 0.5], device=device)
    repeated = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(upsample2d(images, box, impl=impl), repeated)
    torch.testing.assert_close(downsample2d(images, box, impl=impl), F.avg_pool2d(images, 2))


@each_twin
def test_sizes_are_multiplied_and_divided(impl, device):
    images = torch.rand(1, 1, 7, 9, device=device)
    for count in range(1, 5):
        taps = torch.ones(count, 2, device=device)
        assert filter2d(images, taps, impl=impl).shape == images.shape
        assert filter2d(images, taps, padding=(1, 2), impl=impl).shape == (1, 1, 11, 11)
        for factor in (1, 2, 3, 4):
            assert upsample2d(images, taps, (factor, 2), impl=impl).shape == (1, 1, 14, 9 * factor)
            assert downsample2d(images, taps, (2, factor), impl=impl).shape == (1, 1, 7 // factor, 4)
    assert upsample2d(images, None, impl=impl).shape == (1, 1, 14, 18)
    assert torch.equal(filter2d(images, None, impl=impl), images)


def test_filtering_moves_by_whole_pixels_only_with_an_even_count_of_taps():
    images = torch.zeros(1, 1, 5, 5)
    images[0, 0, 2, 2] = 1
    assert torch.equal(filter2d(images, torch.tensor([0.0, 1.0, 0.0])), images)
    assert torch.equal(filter2d(images, torch.tensor([1.0, 0.0])), images)
    assert torch.equal(filter2d(images, torch.tensor([0.0, 1.0])), images.roll((1, 1), (2, 3)))


GRADIENT_CASES = {
    "up": {"up": (2, 3), "padding": (2, 1, 0, 3)},
    "down": {"down": (3, 2), "padding": (1, -1, 2, 2), "flip_filter": True},
    "both": {"up": (3, 2), "down": 2, "padding": (-2, 3, 4, -1), "gain": -1.5},
}


@pytest.mark.parametrize("case", GRADIENT_CASES)
@pytest.mark.parametrize("taps", [ASYMMETRIC.double(), ASYMMETRIC[0].double()], ids=["[h, w]", "[k]"])
def test_gradients_of_the_reference_are_those_of_differences(taps, case):
    images = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)

    def resampled(images):
        return upfirdn2d(images, taps, **GRADIENT_CASES[case])

    assert torch.autograd.gradcheck(resampled, images)
    assert torch.autograd.gradgradcheck(resampled, images)


@each_twin
@pytest.mark.parametrize("case", GRADIENT_CASES)
@pytest.mark.parametrize("taps", [ASYMMETRIC, ASYMMETRIC[0]], ids=["[h, w]", "[k]"])
def test_the_gradient_is_the_adjoint_that_the_contract_names(taps, case, impl, device):
    options = {"up": (1, 1), "down": (1, 1), "flip_filter": False, "gain": 1.0} | GRADIENT_CASES[case]
    images = torch.randn(2, 2, 5, 7, device=device, requires_grad=True)
    taps = taps.to(device)
    result = upfirdn2d(images, taps, impl=impl, **options)
    weights = torch.randn_like(result)
    (gradient,) = torch.autograd.grad((result * weights).sum(), images)
    assert gradient.shape == images.shape and gradient.dtype == images.dtype
    # <A x, w> = <x, A^T w>
    torch.testing.assert_close((result * weights).sum(), (images * gradient).sum(), rtol=1e-5, atol=1e-4)

    (up_x, up_y), (down_x, down_y) = (
        (one, one) if isinstance(one, int) else one for one in (options["up"], options["down"])
    )
    x0, _, y0, _ = options["padding"]
    padding = []
    for p0, count, side, out_side, u, d in (
        (x0, taps.shape[-1], 7, result.shape[3], up_x, down_x),
        (y0, taps.shape[0], 5, result.shape[2], up_y, down_y),
    ):
        before = count - 1 - p0
        padding += [before, (side - 1) * u + count - out_side * d - before]
    expected = upfirdn2d(
        weights.double(), taps.double(), (down_x, down_y), (up_x, up_y), padding,
        not options["flip_filter"], options["gain"], "reference",
    )  # fmt: skip
    torch.testing.assert_close(
        gradient.double(), expected, rtol=0, atol=tolerance(weights, taps, options["gain"])
    )


@needs_triton
@pytest.mark.parametrize("taps", [ASYMMETRIC, ASYMMETRIC[0]], ids=["[h, w]", "[k]"])
def test_gradients_of_gradients_of_triton_are_the_references(taps, device):
    images = torch.randn(2, 2, 5, 4)

    def gradients(impl, images):
        images = images.to(device, taps.dtype if impl == "triton" else torch.float64).requires_grad_()
        result = upfirdn2d(images, taps.to(images), up=2, down=(1, 3), padding=2, impl=impl)
        (first,) = torch.autograd.grad(result.pow(3).sum(), images, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), images, create_graph=True)
        (third,) = torch.autograd.grad(second.sum(), images)
        return first, second, third

    for result, expected in zip(gradients("triton", images), gradients("reference", images), strict=True):
        largest = expected.abs().max().item()
        torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-6 * largest)


VIEWS = {
    "channels last": lambda images: images.contiguous(memory_format=torch.channels_last),
    "transposed": lambda images: images.transpose(2, 3),
    "every second row and third column": lambda images: images[:, :, ::2, 1::3],
    "channels of a crop": lambda images: images[1:, 1:, 2:, 3:],
    "one image expanded": lambda images: images[:1].expand(3, -1, -1, -1),
    "one image": lambda images: images[:1],
    "batch innermost": lambda images: images.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
    "nothing of a batch": lambda images: images[:0],
}


QUICK_VIEWS = (
    "every second row and third column",
    "one image expanded",
    "batch innermost",
    "nothing of a batch",
)


@needs_triton
@pytest.mark.parametrize("view", slow_but(QUICK_VIEWS, VIEWS))
def test_views_are_the_reference(view, device):
    images = VIEWS[view](torch.randn(3, 4, 11, 13, device=device))
    exact = images.cpu().double()
    for taps in (ASYMMETRIC, ASYMMETRIC[0]):
        result = upfirdn2d(images, taps.to(device), up=2, down=3, padding=3, impl="triton")
        expected = upfirdn2d(exact, taps.double(), up=2, down=3, padding=3, impl="reference")
        atol = tolerance(images, taps) if images.numel() else 0
        torch.testing.assert_close(result.cpu().double(), expected, rtol=0, atol=atol)


@needs_triton
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (67, 3, 1, 1), (5, 7, 2, 3), (1, 2, 9, 131), (1, 1, 1, 300), (3, 1, 140, 1)]
)
def test_planes_smaller_and_larger_than_a_tile_are_the_reference(shape, device):
    images, taps = torch.randn(shape), torch.tensor([1.0, 2.0, -0.5])
    for options in ({"padding": 1}, {"up": (1, 2), "padding": 2, "down": (2, 1)}):
        result = applied(images, taps, device, impl="triton", **options)
        expected = upfirdn2d(images.double(), taps.double(), impl="reference", **options)
        torch.testing.assert_close(result.double(), expected, rtol=0, atol=tolerance(images, taps))


@each_twin
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_floats_are_rounded_once(dtype, impl, device):
    images = torch.randn(2, 3, 9, 8).to(dtype)
    for taps in (ASYMMETRIC, ASYMMETRIC[0]):
        result = applied(images, taps, device, up=2, padding=3, impl=impl)
        exact = upfirdn2d(images.double(), taps.double(), up=2, padding=3)
        # Half a unit in the last place; Triton's interpreter cuts bfloat16 off instead.
        cuts_off = impl == "triton" and dtype == torch.bfloat16 and device.type == "cpu"
        rounding = torch.finfo(dtype).eps / (1 if cuts_off else 2)
        assert result.dtype == dtype
        # What is below the smallest normal number of float16 is rounded to 2^-24.
        atol = tolerance(images, taps) + 2.0**-25
        torch.testing.assert_close(result.double(), exact, rtol=rounding, atol=atol)


@pytest.mark.parametrize(
    "impl, dtype",
    [
        ("reference", torch.float16),
        pytest.param("reference", torch.bfloat16, marks=pytest.mark.slow),
        pytest.param("triton", torch.float16, marks=[needs_triton, pytest.mark.slow]),
        pytest.param("triton", torch.bfloat16, marks=needs_triton),
    ],
)
def test_autocast_changes_no_bit_forward_and_backward(dtype, impl, device):
    images = torch.randn(2, 3, 9, 8, device=device, requires_grad=True)
    for taps in (ASYMMETRIC.to(device), ASYMMETRIC[0].to(device)):
        expected = upfirdn2d(images, taps, up=2, padding=3, impl=impl)
        with torch.autocast(device.type, dtype):
            result = upfirdn2d(images, taps, up=2, padding=3, impl=impl)
            (gradient,) = torch.autograd.grad(result.square().sum(), images)
        assert result.dtype == torch.float32 and torch.equal(result, expected)
        assert torch.equal(gradient, torch.autograd.grad(expected.square().sum(), images)[0])


@each_twin
def test_a_pixel_that_is_no_number_spreads_no_further_than_its_taps(impl, device):
    images = torch.zeros(1, 1, 5, 5, device=device)
    images[0, 0, 2, 2] = float("inf")
    result = upfirdn2d(images, torch.ones(2, 3, device=device), up=2, padding=2, impl=impl)
    expected = torch.zeros(1, 1, 13, 12)
    expected[0, 0, 2 + 4 - 1 : 2 + 4 + 1, 2 + 4 - 2 : 2 + 4 + 1] = float("inf")
    assert torch.equal(result.cpu(), expected)


@needs_triton
@pytest.mark.parametrize("axis", range(4))
def test_offsets_beyond_31_bits_are_right(axis, device):
    small = torch.randn(3, 3, 3, 3).half()
    strides = [27, 9, 3, 1]
    strides[axis] = 2**30  # itself a number of 31 bits
    # On the CPU only what is written exists.
    memory = torch.empty(2**31 + 128, dtype=torch.float16, device=device)
    images = memory.as_strided(small.shape, strides)
    images.copy_(small)
    result = upfirdn2d(images, ASYMMETRIC.to(device), padding=2, impl="triton").cpu()
    expected = upfirdn2d(small, ASYMMETRIC, padding=2, impl="reference")
    torch.testing.assert_close(result, expected, rtol=2.0**-10, atol=1e-6)


@each_twin
def test_torch_compile_sees_one_graph_forward_and_backward(impl, device):
    taps = ASYMMETRIC[0].to(device)

    def resampled(images):
        return upfirdn2d(images, taps, up=2, down=(1, 2), padding=2, impl=impl).square()

    compiled = torch.compile(resampled, fullgraph=True, backend="aot_eager")
    images = torch.randn(1, 2, 5, 4, device=device, requires_grad=True)
    results = [compiled(images), resampled(images)]
    assert torch.equal(*results)
    gradients = [torch.autograd.grad(result.sum(), images)[0] for result in results]
    torch.testing.assert_close(*gradients)


@needs_triton
@pytest.mark.parametrize("taps", [ASYMMETRIC, ASYMMETRIC[0]], ids=["[h, w]", "[k]"])
def test_the_operator_is_registered_as_torch_asks(taps, device):
    images = torch.randn(1, 2, 4, 3, device=device, requires_grad=True)
    arguments = (images, taps.to(device), [2, 1], [1, 3], [1, 2], [5, 3], True, 1.5)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(registered.upfirdn2d, arguments, test_utils=checks)


@each_twin
def test_taps_of_any_strides_and_dtype_are_those_of_float32(impl, device):
    images, taps = torch.randn(1, 2, 6, 7, device=device), torch.rand(3, 8, device=device)
    expected = upfirdn2d(images, taps[:, ::2].contiguous(), padding=2, impl=impl)
    assert torch.equal(upfirdn2d(images, taps[:, ::2], padding=2, impl=impl), expected)
    tenths = torch.tensor([0.1, 0.3, 0.7], dtype=torch.float64, device=device)
    for taps in (tenths, tenths.outer(tenths)):
        expected = upfirdn2d(images, taps.float(), padding=2, impl=impl)
        assert torch.equal(upfirdn2d(images, taps, padding=2, impl=impl), expected)


@each_twin
def test_images_without_rows_are_padded_and_have_gradients_without_rows(impl, device):
    images = torch.zeros(2, 1, 0, 3, device=device, requires_grad=True)
    for taps in (ASYMMETRIC.to(device), ASYMMETRIC[0].to(device)):
        result = upfirdn2d(images, taps, up=2, padding=2, impl=impl)
        assert not result.any() and result.shape == (2, 1, 5 - len(taps) if taps.dim() == 2 else 2, 8)
        assert torch.autograd.grad(result.sum(), images)[0].shape == images.shape


IMAGES, TAPS = torch.zeros(1, 3, 4, 4), torch.ones(3)
WRONG = {
    r"images are torch.uint8 \[1, 3, 4, 4\]: give floats": {"images": IMAGES.byte()},
    r"images are torch.float32 \[3, 4, 4\]": {"images": IMAGES[0]},
    r"taps are list: give a tensor of floats \[h, w\] or \[k\]": {"taps": [1, 3, 3, 1]},
    r"taps are torch.float32 \[1, 1, 3\]": {"taps": TAPS[None, None]},
    r"taps are torch.int64 \[3\]": {"taps": TAPS.long()},
    r"taps are torch.float32 \[0\]": {"taps": TAPS[:0]},
    r"taps are on meta and images on cpu: move the taps": {"taps": TAPS.to("meta")},
    r"taps require gradients, and upfirdn2d gives them none": {"taps": TAPS.clone().requires_grad_()},
    r"up=0: give an integer from 1": {"up": 0},
    r"up=\(2, -1\)": {"up": (2, -1)},
    r"down=1.5: give an integer from 1": {"down": 1.5},
    r"down=\(1, 2, 3\)": {"down": (1, 2, 3)},
    r"down=\[\]": {"down": []},
    r"padding=\(1, 2, 3\): give an integer, \(x, y\) or": {"padding": (1, 2, 3)},
    r"padding=0.5": {"padding": 0.5},
    r"gain='2': give a number": {"gain": "2"},
    r"images of \[4, 4\] are \[2, 2\] upsampled and padded: taps of \[3, 3\] do not fit": {"padding": -1},
    r"are \[8, 1\] upsampled and padded": {"up": 2, "padding": (-3, -4, 0, 0)},
    r"impl='native': give one of 'auto', 'reference', 'triton'": {"impl": "native"},
    r'float64 needs impl="reference"': {"images": IMAGES.double(), "impl": "triton"},
}


@pytest.mark.parametrize("message", WRONG)
def test_what_does_not_fit_is_refused(message):
    with pytest.raises(ConfigError, match=message):
        upfirdn2d(**{"images": IMAGES, "taps": TAPS} | WRONG[message])


@pytest.mark.parametrize("resample", [upsample2d, downsample2d, filter2d])
def test_the_named_ones_refuse_what_does_not_fit_as_well(resample):
    with pytest.raises(ConfigError, match="taps are list: give a tensor"):
        resample(IMAGES, [1, 2, 1])
    with pytest.raises(ConfigError, match="images are list"):
        resample([1], TAPS)
    with pytest.raises(ConfigError, match="the result would be empty"):
        resample(IMAGES, TAPS, padding=-6)
    if resample is not filter2d:
        with pytest.raises(ConfigError, match="=0: give an integer from 1"):
            resample(IMAGES, TAPS, 0)


def test_taps_that_could_be_trained_may_be_used_where_nothing_is():
    with torch.no_grad():
        assert upfirdn2d(IMAGES, torch.nn.Parameter(TAPS)).shape == (1, 3, 2, 2)
