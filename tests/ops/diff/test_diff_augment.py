"""Both twins of diff_augment against its stages one after the other, pixel by pixel, in float64."""

import itertools

import numpy as np
import pytest
import torch

from fastload.errors import ConfigError
from fastload.ops.diff.diff_augment import diff_augment
from fastload.ops.diff.diff_params import DiffAugmentParams
from fastload.ops.twins import ADJOINT, AFFINE, LINEAR
from tests.quick import slow_but

pytest.importorskip("triton", reason="Triton is not installed: its kernels cannot run")

STAGES = ("color", "translation", "cutout")
POLICIES = [",".join(words) for count in range(4) for words in itertools.permutations(STAGES, count)]
each_policy = pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy or "nothing")
TWINS = ["reference", "triton"]
each_twin = pytest.mark.parametrize("impl", TWINS)
# Each policy comes with some count of channels.
CHANNELS = dict(zip(POLICIES, itertools.cycle([3, 1, 5, 2])))


def random_images(n, channels, height, width, seed=0):
    return torch.randn(n, channels, height, width, generator=torch.Generator().manual_seed(seed))


def random_params(n, height, width, seed=0):
    """Wider than they are drawn: boxes over the edge, and shifts beyond it."""
    generator = torch.Generator().manual_seed(seed + 1)

    def within(low, high):
        return low + (high - low) * torch.rand(n, generator=generator)

    def integers(low, high):
        return torch.randint(low, high + 1, (n,), generator=generator, dtype=torch.int32)

    return DiffAugmentParams(
        within(-0.5, 0.5),
        within(0, 2),
        within(0.5, 1.5),
        torch.stack([integers(-height // 2, height // 2), integers(-width // 2, width // 2)], 1),
        torch.stack([integers(-1, height + 1), integers(-1, width + 1)], 1),
    )


def step_by_step(images, params, policy, box_share=0.5):
    """The stages as they are published, with a loop over pixels where pixels move or go."""
    images = np.asarray(images.double().cpu()).copy()
    numbers = {name: np.asarray(getattr(params, name).cpu()) for name in vars(params) if name[0] != "_"}
    for n, image in enumerate(images):
        for stage in policy.split(",") if policy else ():
            image[:] = _one_stage(image, stage, {name: one[n] for name, one in numbers.items()}, box_share)
    return torch.from_numpy(images)


def _one_stage(image, stage, numbers, box_share):
    channels, height, width = image.shape
    if stage == "color":
        image = image + float(numbers["brightness"])
        gray = sum(image[channel] for channel in range(channels)) / channels
        image = gray + (image - gray) * float(numbers["saturation"])
        return image.mean() + (image - image.mean()) * float(numbers["contrast"])
    result = np.zeros_like(image)
    for h in range(height):
        for w in range(width):
            if stage == "translation":
                from_h, from_w = h + int(numbers["shift"][0]), w + int(numbers["shift"][1])
                if 0 <= from_h < height and 0 <= from_w < width:
                    result[:, h, w] = image[:, from_h, from_w]
            elif not _is_cut(h, height, numbers["cut_offset"][0], box_share) or not _is_cut(
                w, width, numbers["cut_offset"][1], box_share
            ):
                result[:, h, w] = image[:, h, w]
    return result


def _is_cut(place, side, offset, share):
    size = int(side * share + 0.5)
    first = int(offset) - size // 2
    return place in range(first, first + size)


def close(result, exact, policy):
    """The contract's: 2e-6 of the largest value, and equal without colour."""
    atol = 2e-6 * float(exact.abs().max()) if "color" in policy else 0.0
    torch.testing.assert_close(result.detach().cpu().double(), exact, rtol=0, atol=atol)


ORDERS = list(itertools.product([1, 2, 3, 5], POLICIES, TWINS))
QUICK_ORDERS = [case for case in ORDERS if case[2] == "reference" or CHANNELS[case[1]] == case[0]]


@pytest.mark.parametrize("channels, policy, impl", slow_but(QUICK_ORDERS, ORDERS))
def test_every_order_is_its_stages_one_after_the_other(channels, policy, impl, device):
    images, params = random_images(3, channels, 5, 8), random_params(3, 5, 8)
    result = diff_augment(images.to(device), params.to(device), policy, impl)
    close(result, step_by_step(images, params, policy), policy)


@each_policy
def test_float64_is_as_exact_as_float64(policy):
    images, params = random_images(4, 3, 7, 5).double(), random_params(4, 7, 5, seed=2)
    exact = step_by_step(images, params, policy)
    torch.testing.assert_close(diff_augment(images, params, policy), exact, rtol=0, atol=1e-14)


@each_twin
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (7, 1), (2, 2), (17, 31), (33, 70)])
def test_odd_sizes_and_a_batch_of_one_are_the_stages(size, impl, device):
    images, params = random_images(1, 3, *size), random_params(1, *size, seed=3)
    for policy in ("color,translation,cutout", "cutout,translation,color"):
        close(
            diff_augment(images.to(device), params.to(device), policy, impl),
            step_by_step(images, params, policy),
            policy,
        )


@each_twin
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_the_box_has_the_share_that_is_asked_for(share, impl, device):
    images, params = random_images(3, 1, 9, 6), random_params(3, 9, 6)
    result = diff_augment(images.to(device), params.to(device), "cutout", impl, cutout_ratio=share)
    close(result, step_by_step(images, params, "cutout", share), "cutout")


@each_twin
@pytest.mark.parametrize("missing", ["brightness", "saturation", "contrast"])
def test_a_colour_that_is_not_given_changes_nothing(missing, impl, device):
    images, whole = random_images(2, 3, 4, 6), random_params(2, 4, 6)
    given = {name: getattr(whole, name) for name in ("brightness", "saturation", "contrast")}
    neutral = torch.zeros(2) if missing == "brightness" else torch.ones(2)
    params = DiffAugmentParams(**given | {missing: None})
    expected = diff_augment(images, DiffAugmentParams(**given | {missing: neutral}), "color")
    result = diff_augment(images.to(device), params.to(device), "color", impl)
    torch.testing.assert_close(result.cpu(), expected, rtol=0, atol=2e-6)


@each_twin
def test_saturation_changes_nothing_of_one_channel(impl, device):
    images, params = random_images(2, 1, 4, 6).to(device), random_params(2, 4, 6).to(device)
    other = DiffAugmentParams(params.brightness, params.saturation * 9, params.contrast)
    result = diff_augment(images, params, "color", impl)
    assert torch.equal(result, diff_augment(images, other, "color", impl))


VIEWS = {
    "every second row": lambda images: images[:, :, ::2],
    "every third column": lambda images: images[..., ::3],
    "a cropped batch": lambda images: images[1:, :, 3:, 2:],
    "channels last": lambda images: images.contiguous(memory_format=torch.channels_last),
    "transposed": lambda images: images.transpose(2, 3),
    "one image expanded": lambda images: images[:1].expand(3, -1, -1, -1),
    "one channel expanded": lambda images: images[:, :1].expand(-1, 3, -1, -1),
    "batch innermost": lambda images: images.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
}


QUICK_VIEWS = ["every third column", "channels last", "one channel expanded", "batch innermost"]


@each_twin
@pytest.mark.parametrize("view", slow_but(QUICK_VIEWS, VIEWS))
def test_views_are_as_their_copies(view, impl, device):
    images = VIEWS[view](random_images(4, 3, 12, 9).to(device))
    params = random_params(len(images), *images.shape[2:]).to(device)
    for policy in ("translation,color,cutout", "cutout,translation"):
        copied = images.clone(memory_format=torch.contiguous_format)
        result = diff_augment(images, params, policy, impl)
        torch.testing.assert_close(result, diff_augment(copied, params, policy, impl), rtol=0, atol=1e-6)


@each_twin
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_floats_are_rounded_once(dtype, impl, device):
    images, params = random_images(3, 3, 9, 14).to(dtype), random_params(3, 9, 14)
    result = diff_augment(images.to(device), params.to(device), impl=impl)
    exact = step_by_step(images, params, "color,translation,cutout")
    assert result.dtype == dtype
    # Half a unit in the last place; Triton's interpreter cuts bfloat16 off instead.
    cuts_off = dtype == torch.bfloat16 and impl == "triton" and device.type == "cpu"
    rounding = torch.finfo(dtype).eps / (1 if cuts_off else 2)
    torch.testing.assert_close(result.cpu().double(), exact, rtol=rounding, atol=1e-5)


@each_twin
def test_what_is_cut_or_comes_from_outside_is_zero_whatever_the_image_holds(impl, device):
    images = torch.full((1, 3, 4, 4), float("nan"), device=device)
    shift = torch.tensor([[4, 0]], dtype=torch.int32, device=device)
    middle = torch.full((1, 2), 2, dtype=torch.int32, device=device)
    params = DiffAugmentParams(shift=shift, cut_offset=middle)
    assert (diff_augment(images, params, "translation", impl) == 0).all()
    cut = diff_augment(images, params, "cutout", impl)
    assert (cut[:, :, 1:3, 1:3] == 0).all() and cut.isnan().sum() == 3 * 12


@each_twin
def test_no_images_and_no_policy_give_a_copy(impl, device):
    images = random_images(2, 3, 4, 6).to(device)
    copy = diff_augment(images, DiffAugmentParams(), "", impl)
    assert torch.equal(copy, images) and copy.data_ptr() != images.data_ptr()
    empty = diff_augment(images[:0], random_params(0, 4, 6).to(device), impl=impl)
    assert empty.shape == (0, 3, 4, 6)


@each_twin
def test_autocast_changes_nothing(impl, device):
    images, params = random_images(2, 3, 6, 6).to(device), random_params(2, 6, 6).to(device)
    expected = diff_augment(images, params, impl=impl)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        result = diff_augment(images, params, impl=impl)
    assert result.dtype == torch.float32 and torch.equal(result, expected)


THREE = [policy for policy in POLICIES if policy.count(",") == 2]


@pytest.mark.parametrize("policy", slow_but(["", "color", *THREE[::2]], POLICIES))
def test_the_references_gradients_are_those_of_differences(policy):
    images, params = random_images(2, 3, 3, 4).double().requires_grad_(), random_params(2, 3, 4)
    assert torch.autograd.gradcheck(lambda x: diff_augment(x, params, policy), images)
    assert torch.autograd.gradgradcheck(lambda x: diff_augment(x, params, policy), images)


ADJOINTS = list(itertools.product([1, 2, 3], POLICIES))
QUICK_ADJOINTS = [case for case in ADJOINTS if min(CHANNELS[case[1]], 3) == case[0]]


@pytest.mark.parametrize("channels, policy", slow_but(QUICK_ADJOINTS, ADJOINTS))
def test_the_adjoint_is_the_references(channels, policy, device):
    images, params = random_images(3, channels, 5, 8), random_params(3, 5, 8)
    weights = random_images(3, channels, 5, 8, seed=9)
    exact_images = images.double().requires_grad_()
    (exact,) = torch.autograd.grad(diff_augment(exact_images, params, policy), exact_images, weights.double())
    images = images.to(device).requires_grad_()
    result = diff_augment(images, params.to(device), policy, "triton")
    close(torch.autograd.grad(result, images, weights.to(device))[0], exact, policy)


@pytest.mark.parametrize("policy", ["color,translation,cutout", "cutout,color,translation", "color"])
def test_gradients_of_gradients_alternate_between_the_linear_part_and_its_adjoint(policy, device):
    params = random_params(2, 6, 7).to(device)
    images, weights, v, u = (random_images(2, 3, 6, 7, seed).to(device).requires_grad_() for seed in range(4))
    result = diff_augment(images, params, policy, "triton")
    (adjoint,) = torch.autograd.grad(result, images, weights, create_graph=True)
    (linear,) = torch.autograd.grad(adjoint, weights, v, create_graph=True)
    (third,) = torch.autograd.grad(linear, v, u)
    offset = diff_augment(torch.zeros_like(images), params, policy, "triton")
    expected = diff_augment(v, params, policy, "triton") - offset  # L v without the brightness
    torch.testing.assert_close(linear, expected, rtol=0, atol=1e-5)
    (adjoint_of_u,) = torch.autograd.grad(diff_augment(images, params, policy, "triton"), images, u)
    torch.testing.assert_close(third, adjoint_of_u, rtol=0, atol=1e-5)
    left, right = (weights.double() * linear).sum(), (adjoint.double() * v).sum()
    norms = linear.double().norm() * weights.double().norm()
    assert abs(left - right) < 1e-6 * norms  # <w, L v> = <L^T w, v>


def test_a_gradient_that_is_one_number_expanded_is_right(device):
    images = random_images(2, 3, 6, 7).to(device).requires_grad_()
    params = random_params(2, 6, 7).to(device)
    for impl in ("reference", "triton"):
        (gradient,) = torch.autograd.grad(diff_augment(images, params, impl=impl).sum(), images)
        whole = torch.ones(2, 3, 6, 7, device=device)
        (expected,) = torch.autograd.grad(diff_augment(images, params), images, whole)
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-5)


def test_the_operator_is_what_torch_compile_takes_it_for(device):
    from fastload.ops.diff import registered

    rows = random_params(2, 6, 7).to(device).rows(torch.empty(2, device=device))
    images = random_images(2, 3, 6, 7).to(device).requires_grad_()
    for mode in (AFFINE, LINEAR, ADJOINT):
        torch.library.opcheck(
            registered.diff_augment, (images, rows, "translation,color", 0.5, mode),
            test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
        )  # fmt: skip


def test_the_mean_over_more_tiles_than_partial_sums_has_equal_bits_each_time(device, monkeypatch):
    from fastload.ops.diff import diff_augment_triton

    monkeypatch.setattr(diff_augment_triton, "SPLITS", 3)
    images, params = random_images(2, 3, 40, 130), random_params(2, 40, 130)
    params = DiffAugmentParams(params.brightness, params.saturation, params.contrast)
    on_device = images.to(device), params.to(device), "color", "triton"
    result = diff_augment(*on_device)
    close(result, diff_augment(images.double(), params, "color"), "color")
    assert torch.equal(result, diff_augment(*on_device)), "sums in another order"


def test_a_batch_beyond_the_limit_of_a_grid_is_done_in_parts(device, monkeypatch):
    from fastload.ops import tiles_triton

    monkeypatch.setattr(tiles_triton, "MAX_IMAGES", 2)
    images, params = random_images(5, 3, 4, 6), random_params(5, 4, 6)
    close(diff_augment(images.to(device), params.to(device), impl="triton"),
          step_by_step(images, params, "color,translation,cutout"), "color")  # fmt: skip


def test_offsets_beyond_31_bits_within_an_image_are_right(device):
    row = 2**30 + 2**10
    memory = torch.empty(2 * row + 16, dtype=torch.float16, device=device)  # on the CPU only what is written
    small = random_images(1, 1, 3, 4).half().to(device)
    images = memory.as_strided((1, 1, 3, 4), (0, 0, row, 1)).copy_(small)
    params = random_params(1, 3, 4).to(device)
    for policy in ("translation", "color,translation"):
        assert torch.equal(
            diff_augment(images, params, policy, "triton"), diff_augment(small, params, policy, "triton")
        )


@pytest.mark.parametrize("policy", ["colour", "color,", ",", "color,color", "color;cutout", None, 3])
def test_a_policy_of_other_words_is_refused(policy):
    with pytest.raises(ConfigError, match=r"policy=.*(some of these words|each stage once)"):
        diff_augment(random_images(1, 3, 4, 4), random_params(1, 4, 4), policy)


def test_spaces_between_the_words_are_allowed():
    images, params = random_images(1, 3, 4, 4), random_params(1, 4, 4)
    result = diff_augment(images, params, "cutout, color")
    assert torch.equal(result, diff_augment(images, params, "cutout,color"))


FAULTS = {
    "no shift": ({"shift": None}, "translation and DiffAugmentParams no shift"),
    "no colour": (dict.fromkeys(("brightness", "saturation", "contrast")), "no brightness or saturation"),
    "a shape": ({"contrast": torch.ones(3)}, r"contrast is \[3\]: give a tensor \[2\]"),
    "a number": ({"brightness": 0.5}, r"brightness is 0.5"),
    "float shift": ({"shift": torch.zeros(2, 2)}, r"shift is of torch.float32: give int32"),
    "whole factor": ({"saturation": torch.ones(2, dtype=torch.int32)}, "give floats"),
    "elsewhere": (
        {"cut_offset": torch.zeros(2, 2, dtype=torch.int32, device="meta")},
        "is on meta, not on cpu",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_parameters_that_do_not_fit_are_refused(fault):
    changed, message = FAULTS[fault]
    given = {name: one for name, one in vars(random_params(2, 4, 4)).items() if name[0] != "_"}
    with pytest.raises(ConfigError, match=message):
        diff_augment(random_images(2, 3, 4, 4), DiffAugmentParams(**given | changed))


@pytest.mark.parametrize("images", [torch.zeros(2, 4, 4), torch.zeros(2, 3, 4, 4, dtype=torch.uint8), None])
def test_images_that_are_none_are_refused(images):
    with pytest.raises(ConfigError, match=r"give floats \[N, C, H, W\]"):
        diff_augment(images, random_params(2, 4, 4))


def test_other_arguments_that_do_not_fit_are_refused():
    images, params = random_images(2, 3, 4, 4), random_params(2, 4, 4)
    with pytest.raises(ConfigError, match="impl='native'"):
        diff_augment(images, params, impl="native")
    with pytest.raises(ConfigError, match="float64"):
        diff_augment(images.double(), params, impl="triton")
    with pytest.raises(ConfigError, match=r"cutout_ratio must be a share.*got 1.5"):
        diff_augment(images, params, cutout_ratio=1.5)
    with pytest.raises(ConfigError, match="DiffAugmentParams"):
        diff_augment(images, {"shift": params.shift})


def test_parameters_moved_or_cast_keep_their_integers(device):
    params = random_params(2, 4, 4).to(device, torch.float64)
    assert params.brightness.dtype == torch.float64 and params.shift.dtype == torch.int32
    rows = params.rows(torch.empty(2, device=device))
    again = DiffAugmentParams.from_rows(rows)
    assert torch.equal(again.shift, params.shift) and torch.equal(again.cut_offset, params.cut_offset)
    assert torch.equal(again.contrast, params.contrast.float()) and again.rows(rows) is rows
    assert DiffAugmentParams.from_rows(rows, "cutout").shift is None
