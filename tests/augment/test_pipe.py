"""`Augment` refuses what has no meaning, draws by position alone, and keeps the order that it states."""

import dataclasses
import math
import pickle

import numpy as np
import pytest
import torch

import fastload as fl
from fastload.augment import pipe
from fastload.errors import ConfigError
from fastload.ops.fused.augment_params import Stage
from fastload.ops.fused.draw_plan import LinearDraw
from fastload.rng import purpose_of, uniforms

EVERYTHING = fl.Augment(
    xflip=0.5,
    yflip=0.25,
    rotate=20,
    scale=(0.8, 1.2),
    translate=(0.1, 0.05),
    color_jitter=(0.4, 0.3, 0.5, 0.1),
    brightness=0.2,
    hsv=(0.05, (0.5, 1.8)),
    cutout=(0.4, 0.5),
    mixup=0.2,
)
N, SEED = 20_000, 17


@pytest.fixture(scope="module")
def drawn() -> fl.ops.AugmentParams:
    return EVERYTHING.draw(np.arange(N), SEED, 32, 48)


def test_the_defaults_change_nothing():
    images = torch.randint(0, 256, (3, 3, 8, 9), dtype=torch.uint8)
    assert torch.equal(fl.Augment()(images, [0, 1, 2], 0, impl="reference"), images)
    assert fl.Augment().plan(8, 9).stages == Stage(0)
    assert fl.Augment(color_jitter=(0, 0, 0, 0)).plan(8, 9).stages == Stage(0)


def test_gates_open_as_often_as_they_should(drawn):
    def within(share, p):
        return abs(share - p) < 4 * math.sqrt(p * (1 - p) / N)

    assert within(float((drawn.cut_size > 0).float().mean()), 0.4)
    sign = torch.linalg.det(drawn.G_inv[:, :2, :2]) < 0  # one flip without the other
    assert within(float(sign.float().mean()), 0.5 * 0.75 + 0.5 * 0.25)


def test_factors_and_shifts_are_uniform_in_their_ranges(drawn):
    ranges = {0: (0.6, 1.4), 1: (0.7, 1.3), 2: (0.5, 1.5), 3: (-0.1, 0.1)}
    columns = {n: drawn.jitter[:, n] for n in ranges}
    columns |= {"hue": drawn.hsv[:, 0], "saturation": drawn.hsv[:, 1], "added": drawn.C[:, 0, 3]}
    ranges |= {"hue": (-0.05, 0.05), "saturation": (0.5, 1.8), "added": (-0.2, 0.2)}
    columns |= {"x": drawn.cut_center[:, 0], "y": drawn.cut_center[:, 1]}
    ranges |= {"x": (0.0, 1.0), "y": (0.0, 1.0)}
    for name, (low, high) in ranges.items():
        column = columns[name].double()
        assert low <= column.min() and column.max() <= high
        # A uniform's mean and deviation over N draws stray by their standard errors; 4 of them are allowed.
        assert abs(column.mean() - (low + high) / 2) < 4 * (high - low) / math.sqrt(12 * N)
        assert abs(column.std() / ((high - low) / math.sqrt(12)) - 1) < 0.02
    scale = torch.linalg.det(drawn.G_inv[:, :2, :2]).abs().rsqrt()
    assert scale.min() >= 0.8 - 1e-5 and scale.max() <= 1.2 + 1e-5
    assert abs(scale.mean() - 1) < 0.005


def test_a_strength_above_1_ends_at_factor_0():
    jitter = fl.Augment(color_jitter=(1.5, 0, (0.2, 0.3), 0)).draw(np.arange(4000), SEED, 8, 8).jitter
    assert 0 <= jitter[:, 0].min() < 0.01 and 2.49 < jitter[:, 0].max() <= 2.5
    assert (jitter[:, 1] == 1).all() and (jitter[:, 3] == 0).all()
    assert jitter[:, 2].min() >= 0.2 and jitter[:, 2].max() <= 0.3


def test_all_24_orders_come_equally_often(drawn):
    codes = (drawn.order * torch.tensor([64, 16, 4, 1])).sum(1)
    _, counts = codes.unique(return_counts=True)
    assert len(counts) == 24
    assert (drawn.order.sort(1).values == torch.arange(4)).all()
    expected = N / 24
    assert ((counts - expected) ** 2 / expected).sum() < 50  # chi-square, 23 degrees: 1 in 1000 above 49.7


def test_the_draws_of_different_purposes_are_independent(drawn):
    columns = [
        *drawn.jitter.T,
        *drawn.hsv.T,
        drawn.C[:, 0, 3],
        *drawn.cut_center.T,
        drawn.order[:, 0].float(),
    ]
    correlations = torch.corrcoef(torch.stack(columns)) - torch.eye(len(columns))
    assert correlations.abs().max() < 5 / math.sqrt(N)


def test_a_position_gets_the_same_draws_in_any_batch(drawn):
    some = [12_345, 3, 3, 19_999]
    again = EVERYTHING.draw(some, SEED, 32, 48)
    for name in ("G_inv", "jitter", "order", "C", "hsv", "cut_size", "cut_center"):
        assert torch.equal(getattr(again, name), getattr(drawn, name)[some])
    other = EVERYTHING.draw(some, SEED + 1, 32, 48)
    assert not torch.equal(other.jitter, again.jitter)


def test_the_stages_are_applied_in_the_order_it_states():
    images = torch.randint(0, 256, (6, 3, 20, 26), dtype=torch.uint8)
    positions = np.arange(6)
    whole = EVERYTHING(images / 255, positions, SEED, impl="reference")
    step = images / 255
    for alone in (
        fl.Augment(xflip=0.5, yflip=0.25, rotate=20, scale=(0.8, 1.2), translate=(0.1, 0.05)),
        fl.Augment(color_jitter=(0.4, 0.3, 0.5, 0.1)),
        fl.Augment(brightness=0.2),
        fl.Augment(hsv=(0.05, (0.5, 1.8))),
        fl.Augment(cutout=(0.4, 0.5)),
    ):
        step = alone(step, positions, SEED, impl="reference")
    assert torch.allclose(whole, step, atol=1e-5)


def test_geometry_goes_flip_rotate_scale_translate():
    each = [
        fl.Augment(xflip=0.5),
        fl.Augment(yflip=0.25),
        fl.Augment(rotate=20),
        fl.Augment(scale=(0.8, 1.2)),
        fl.Augment(translate=(0.1, 0.05)),
    ]
    product = torch.eye(3).expand(50, 3, 3)
    for one in each:
        product = product @ one.draw(np.arange(50), SEED, 32, 48).G_inv
    assert torch.allclose(EVERYTHING.draw(np.arange(50), SEED, 32, 48).G_inv, product, atol=1e-4)


def test_the_shape_and_layout_of_a_users_images_stay():
    pixels = torch.randint(0, 256, (2, 3, 8, 9), dtype=torch.uint8)
    changed = EVERYTHING(pixels, [5, 6], 1, impl="reference")
    assert (changed.shape, changed.dtype) == (pixels.shape, torch.uint8)
    last = pixels.permute(0, 2, 3, 1).contiguous()
    assert torch.equal(EVERYTHING(last, [5, 6], 1, impl="reference").permute(0, 3, 1, 2), changed)
    normalized = EVERYTHING(pixels, [5, 6], 1, normalize="gan", dtype="float16", impl="reference")
    assert (normalized.shape, normalized.dtype) == (pixels.shape, torch.float16)


def test_a_mask_keeps_its_values():
    plan = EVERYTHING.plan(32, 48, colors=False)
    assert plan.stages == Stage.WARP
    assert EVERYTHING.plan(32, 48, xflip=False).stages & Stage.WARP
    assert fl.Augment(xflip=0.5).plan(32, 48, xflip=False).stages == Stage(0)


def test_its_repr_says_what_differs_from_the_defaults():
    assert repr(fl.Augment()) == "Augment()"
    assert repr(fl.Augment(xflip=0.5, cutout=[1, 0.25])) == "Augment(xflip=0.5, cutout=(1.0, 0.25))"
    assert eval(repr(EVERYTHING), {"Augment": fl.Augment}) == EVERYTHING
    assert hash(fl.Augment(color_jitter=[0.4, (0.5, 1.5), 0.4, 0.1]))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"xflip": 1.5}, r"Augment\(xflip=1.5\): give a probability"),
        ({"yflip": "often"}, "yflip='often'"),
        ({"xflip": math.nan}, "xflip=nan"),
        ({"rotate": 200}, "rotate=200.*0 to 180"),
        ({"scale": (0.0, 1.0)}, r"scale=.*give \(low, high\)"),
        ({"scale": (1.2, 0.8)}, "scale="),
        ({"scale": 1.1}, "scale="),
        ({"translate": -0.1}, "translate=-0.1"),
        ({"translate": (0.1, 2)}, "translate="),
        ({"color_jitter": 0.4}, r"color_jitter=0.4\): give \(brightness, contrast, saturation, hue\)"),
        ({"color_jitter": (0.4, 0.4, 0.4, 0.6)}, "the hue is at most 0.5"),
        ({"color_jitter": (0.4, 0.4, (1.5, 0.5), 0.1)}, "color_jitter="),
        ({"color_jitter": (-0.4, 0.4, 0.4, 0.1)}, "color_jitter="),
        ({"brightness": 2}, "brightness=2"),
        ({"hsv": 0.1}, r"hsv=0.1\): give \(hue shift, saturation range\)"),
        ({"hsv": (0.7, 0.1)}, "hsv="),
        ({"cutout": 0.5}, r"cutout=0.5\): give \(probability, side\)"),
        ({"cutout": (0.5, -1)}, "cutout="),
        ({"mixup": -1}, "mixup=-1: give alpha|mixup=-1.*alpha"),
        ({"cutmix": math.inf}, "cutmix=inf"),
        ({"mixup": 2000}, "mixup=2000.*0 to 1000"),
    ],
)
def test_what_has_no_meaning_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message) as caught:
        fl.Augment(**arguments)
    assert "\n" not in str(caught.value)


# ---- registered augmentations ----


@dataclasses.dataclass(frozen=True)
class Shear:
    """A toy: x is shifted by up to `most` times y."""

    most: float

    def draw(self, height, width):
        terms = {"1": ((1, 0, 0), (0, 1, 0)), "v0": ((0, 1, 0), (0, 0, 0))}
        return LinearDraw(0, False, terms, first=(-self.most, self.most))


@dataclasses.dataclass(frozen=True)
class Tint:
    """A toy: adds up to (red, blue) to two channels."""

    red: float
    blue: float

    def draw(self, height, width):
        identity = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0))
        terms = {"1": identity, "v0": ((0, 0, 0, 1),), "v1": ((0,) * 4, (0,) * 4, (0, 0, 0, 1))}
        return LinearDraw(0, True, terms, first=(0, self.red), second=(0, self.blue))


@pytest.fixture
def registered():
    fl.augment.register_linear("shear", Shear)
    fl.augment.register_linear("tint", Tint)
    yield
    for name in ("shear", "tint"):
        pipe._registered.remove(name)


def test_a_registered_augmentation_is_an_argument_and_draws_from_its_own_purpose(registered):
    augment = fl.Augment(shear=0.2, tint=(0.5, 0.25))
    positions = np.arange(500)
    params = augment.draw(positions, 3, 20, 30)
    u = uniforms(3, positions, purpose_of("augment shear"))[:, 1]
    np.testing.assert_allclose(params.G_inv[:, 0, 1], 0.4 * u - 0.2, atol=1e-6)
    words = uniforms(3, positions, purpose_of("augment tint"))
    np.testing.assert_allclose(params.C[:, 0, 3], 0.5 * words[:, 1], atol=1e-6)
    np.testing.assert_allclose(params.C[:, 2, 3], 0.25 * words[:, 2], atol=1e-6)
    assert repr(augment) == "Augment(shear=Shear(most=0.2), tint=Tint(red=0.5, blue=0.25))"
    assert augment == fl.Augment(shear=Shear(0.2), tint=Tint(0.5, 0.25)) != fl.Augment(shear=0.2)
    assert pickle.loads(pickle.dumps(augment)) == augment
    assert dataclasses.replace(augment, shear=0.3) == fl.Augment(shear=0.3, tint=(0.5, 0.25))
    assert dataclasses.replace(augment, xflip=0.5) == fl.Augment(shear=0.2, tint=(0.5, 0.25), xflip=0.5)


def test_masks_get_registered_geometry_and_no_registered_colour(registered):
    plan = fl.Augment(shear=0.2, tint=(0.5, 0.25)).plan(20, 30, colors=False)
    assert [draw.color for draw in plan.linear] == [False]


def test_registering_again_is_fine_and_another_class_of_the_name_is_not(registered):
    fl.augment.register_linear("shear", Shear)
    with pytest.raises(fl.ConfigError, match=r"linear augmentation for 'shear' already: .*Shear"):
        fl.augment.register_linear("shear", Tint)
    for name, what in (("rotate", "has rotate already"), ("a b", "a name that an argument can have")):
        with pytest.raises(fl.ConfigError, match=what):
            fl.augment.register_linear(name, Shear)
    with pytest.raises(fl.ConfigError, match="no draw"):
        fl.augment.register_linear("less", int)
    with pytest.raises(fl.ConfigError, match=r"Augment\(shear=\(1, 2\)\): Shear takes other arguments"):
        fl.Augment(shear=(1, 2))
    with pytest.raises(TypeError, match="unexpected keyword argument 'less'"):
        fl.Augment(less=1)
