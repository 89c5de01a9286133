"""What normalize makes of [0, 1] is where every result lies, to the last bit, on every twin and dtype."""

import itertools

import numpy as np
import pytest
import torch

from fastload import _native
from fastload.augment import Augment
from fastload.normalize import PRESETS, normalization, normalize
from fastload.ops import fused_augment
from fastload.ops.fused.mix import mix
from tests.ops.test_not_finite import impl, twins  # noqa: F401
from tests.quick import slow_but

AUGMENTS = {
    "nothing": Augment(),
    "flip": Augment(xflip=0.5),
    "jitter": Augment(color_jitter=(0.4, 0.4, 0.4, 0.1)),
    "rotation": Augment(rotate=30, scale=(0.8, 1.2)),
    "cutout": Augment(cutout=(1, 0.5)),
    "hsv": Augment(hsv=(0.1, 0.9)),
    "brightness": Augment(brightness=0.3),
    "all": Augment(rotate=20, color_jitter=(0.4, 0.4, 0.4, 0.1), brightness=0.2, hsv=(0.2, 0.5)),
}
RULES = [*PRESETS, (0.5, 0.5), None]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def pixels():
    """White, black, full colours, and noise."""
    images = torch.randint(
        0, 256, (4, 3, 24, 67), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    images[0], images[1] = 255, 0
    images[2] = (images[2] > 127) * 255
    return images


def ends(rule):
    """The least and the most that `normalize` makes of a level, [3, 1, 1] float32."""
    if rule is None:
        return torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    both = normalize(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1).repeat(3, 1), rule)
    return torch.from_numpy(both).unbind()


def lies_within(images, rule):
    low, high = (end.to(images.dtype) for end in ends(rule))
    return bool((images >= low).all() and (images <= high).all())


CASES = list(itertools.product(twins(), AUGMENTS, [False, True]))
QUICK = [case for case in CASES if case[0] != "triton" or case[1:] in (("all", False), ("cutout", True))]


@pytest.mark.parametrize("impl, name, floats", slow_but(QUICK, CASES), indirect=["impl"])
def test_no_result_lies_outside(impl, name, floats):  # noqa: F811
    images = pixels().float() / 255 if floats else pixels()
    rules, dtypes, seeds = RULES, DTYPES, (5, 6, 7)
    if impl == "triton":  # its interpreter takes its time
        images, rules, dtypes, seeds = images[:, :, :8], ("gan", "vae"), DTYPES[:1], (5,)
    for rule, dtype, seed in itertools.product(rules, dtypes, seeds):
        found = AUGMENTS[name](images, range(4), seed, normalize=rule, dtype=dtype, impl=impl)
        assert lies_within(found, rule), (rule, dtype)


@pytest.mark.parametrize("floats", [False, True])
@pytest.mark.parametrize("name", AUGMENTS)
def test_no_result_of_the_reference_lies_outside(name, floats):
    images = pixels().float() / 255 if floats else pixels()
    for rule, dtype in itertools.product(RULES, DTYPES):
        found = AUGMENTS[name](images, range(4), 5, normalize=rule, dtype=dtype, impl="reference")
        assert lies_within(found, rule), (rule, dtype)


@pytest.mark.parametrize("rule", RULES)
def test_black_and_white_are_the_ends_themselves(impl, rule):  # noqa: F811
    for images in (pixels()[:2], pixels()[:2].float() / 255):
        found = fused_augment(images.permute(0, 2, 3, 1), normalize=rule, dtype="float32", impl=impl)
        for image, end in zip(found, reversed(ends(rule)), strict=True):
            same = image == end
            # One unit in the last place within: for some of imagenet's numbers no float32 gives the end.
            assert same.all() if rule != "imagenet" else ((image - end).abs() <= 2.4e-7).all()


@pytest.mark.parametrize("rule", RULES)
def test_the_values_between_are_what_they_were(impl, rule):  # noqa: F811
    """Nothing is clipped but the last unit in the last place: against float64."""
    images = pixels().permute(0, 2, 3, 1)
    exact = fused_augment(images, normalize=rule, dtype="float64", impl="reference")
    found = fused_augment(images, normalize=rule, dtype="float32", impl=impl)
    scale = 1.0 if rule is None else 1 / min(normalization(rule).std)
    assert (found - exact).abs().max() < 2e-7 * max(scale, 2.0)


def test_floats_beyond_their_range_are_not_cut_off_where_no_stage_clamps(impl):  # noqa: F811
    images = torch.tensor([-0.5, 1.5]).repeat(3, 1)[None, None].permute(0, 1, 3, 2)
    found = fused_augment(images, normalize="gan", impl=impl)
    assert found[0, :, 0].tolist() == [[-2.0, 2.0]] * 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_mixed_images_stay_within_as_well(dtype):
    images = torch.from_numpy(normalize(pixels().numpy(), "gan")).to(dtype)
    shares, boxes = (
        torch.rand(4, generator=torch.Generator().manual_seed(0)),
        torch.zeros(4, 4, dtype=torch.int64),
    )
    assert lies_within(mix(images, shares, boxes), "gan")


@pytest.mark.parametrize("name", twins()[:-1])
def test_the_loaders_augmenter_stays_within_as_well(name):
    _native.use_augment_kernels(name.split()[1])
    try:
        rows = torch.zeros(1, 32)
        for rule in PRESETS:
            numbers, out = normalization(rule), np.zeros((1, 3, 24, 67), np.float32)
            augmenter = _native.Augmenter(
                rows.numpy(), 0, numbers.divisor, numbers.mean, numbers.std, False, _native.Dtype.float32,
                False, 24, 67,
            )  # fmt: skip
            for image in pixels().permute(0, 2, 3, 1).contiguous().numpy():
                augmenter.write(image, 0, out)
                assert lies_within(torch.from_numpy(out), rule)
    finally:
        _native.use_augment_kernels("")
