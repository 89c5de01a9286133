"""`Augment`: every random change of an image, in one fixed order, drawn from (seed, position) alone.

In: strengths, a plain dataclass. Out: the `DrawPlan` that a loader draws from, or changed images for a user's
own tensors. Promised: a sample at a position gets the same draws on any device, rank, batch or backend; all
matrices are multiplied into one, and the pixels are touched once (see `fastload.ops.fused_augment`, which
says exactly what each stage does). The order:

xflip, yflip, rotate, scale, translate, registered geometry (one warp, reflected at the borders);
color_jitter; brightness, registered colour; hsv; then the image is normalized; cutout; mixup or cutmix.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from fastload.augment.linear import Brightness, Linear, Rotate, Scale, Translate, XFlip, YFlip
from fastload.augment.mixing import MAX_ALPHA, Mix, draw_mix
from fastload.errors import ConfigError
from fastload.ops.fused.augment_params import AugmentParams
from fastload.ops.fused.draw_params import draw_params
from fastload.ops.fused.draw_plan import DrawPlan
from fastload.registry import Registry
from fastload.rng import purpose_of


class Mixed(NamedTuple):
    """What mixup and CutMix make of a batch."""

    images: Any  # [N, C, H, W]
    labels: Any  # [N, ...], of the images themselves
    other_labels: Any  # [N, ...], of the images that were mixed in
    share: Any  # [N] float32: how much of each image is its own; loss = share * own + (1 - share) * other


@dataclass(frozen=True, repr=False)
class Augment:
    """Random changes of the images of a batch. The defaults change nothing.

    xflip, yflip: probability of mirroring left and right, top and bottom.
    rotate: the largest angle in degrees; the angle is uniform in [-rotate, rotate].
    scale: (low, high) of a factor by which the image is enlarged about its centre.
    translate: the largest shift as a share of width and height, a number or (x, y).
    color_jitter: (brightness, contrast, saturation, hue) as torchvision's ColorJitter: factors uniform in
        [max(0, 1 - b), 1 + b], hue shift in [-hue, hue] turns, or (low, high) pairs; in random order.
    brightness: the largest value added to all channels, as a share of the full range, uniform in [-b, b].
    hsv: (hue shift, saturation range): a shift in turns, at most this, and a factor of HSV's saturation
        uniform in [max(0, 1 - r), 1 + r], or in (low, high).
    cutout: (probability, side): a square of that share of the image's sides becomes 0 in the result, anywhere
        with its centre in the image.
    mixup, cutmix: alpha of Beta(alpha, alpha), 0 for never; with both, each image gets one of them, evenly.
    registered: (name, augmentation) of the arguments that `fastload.augment.register_linear` has added; give
        them by their own names.
    """

    xflip: float = 0.0
    yflip: float = 0.0
    rotate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    translate: float | tuple[float, float] = 0.0
    color_jitter: tuple | None = None
    brightness: float = 0.0
    hsv: tuple | None = None
    cutout: tuple[float, float] | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    registered: tuple[tuple[str, Linear], ...] = ()

    def __post_init__(self) -> None:
        for name in ("xflip", "yflip"):
            self._number(name, 0.0, 1.0, "a probability, 0 to 1")
        self._number("rotate", 0.0, 180.0, "the largest angle in degrees, 0 to 180")
        self._number("brightness", 0.0, 1.0, "a share of the full range, 0 to 1")
        alpha = f"alpha of a Beta distribution, such as 0.2; 0 to {MAX_ALPHA:g}"
        for name in ("mixup", "cutmix"):
            self._number(name, 0.0, MAX_ALPHA, alpha)
        scale = _numbers(self.scale, 2)
        if scale is None or not 0.0 < scale[0] <= scale[1]:
            raise ConfigError(f"Augment(scale={self.scale!r}): give (low, high), such as (0.9, 1.1).")
        self._keep("scale", scale)
        self._check_translate()
        if self.color_jitter is not None:
            self._keep("color_jitter", self._jitter_ranges())
        if self.hsv is not None:
            self._keep("hsv", self._hsv_ranges())
        if self.cutout is not None:
            cutout = _numbers(self.cutout, 2)
            if cutout is None or not (0.0 <= cutout[0] <= 1.0 and 0.0 <= cutout[1] <= 2.0):
                raise ConfigError(f"Augment(cutout={self.cutout!r}): give (probability, side).")
            self._keep("cutout", cutout)
        pairs = self.registered if isinstance(self.registered, tuple) else (None,)
        if not all(isinstance(pair, tuple) and callable(getattr(pair[-1], "draw", None)) for pair in pairs):
            raise ConfigError(
                f"Augment(registered={self.registered!r}): give what was registered by its own name."
            )

    def __repr__(self) -> str:
        """Only what differs from the defaults: a field that a later version adds changes no fingerprint."""
        values = ((field, getattr(self, field.name)) for field in fields(self))
        given = {field.name: value for field, value in values if value != field.default}
        given |= dict(given.pop("registered", ()))
        return f"Augment({', '.join(f'{name}={value!r}' for name, value in given.items())})"

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed with each other."""
        return bool(self.mixup or self.cutmix)

    def plan(self, height: int, width: int, *, xflip: bool = True, colors: bool = True) -> DrawPlan:
        """What is random in images of this size, mixing aside.

        xflip: False where the decoder has flipped already. colors: False for masks, which keep their values:
        no colour and no cutout.
        """
        return _plan(self, height, width, xflip, colors)

    def draw(self, positions: Any, seed: int, height: int, width: int, *, device: Any = "cpu"):
        """The parameters that samples at `positions` [N] get, for images of height x width pixels."""
        plan = self.plan(height, width)
        return AugmentParams.from_rows(draw_params(plan, positions, seed, device=device), plan.stages)

    def draw_mix(self, positions: Any, seed: int, height: int, width: int) -> Mix:
        """The shares and boxes of mixup and CutMix for the samples at `positions` [N]; see mixing.py."""
        return draw_mix(self.mixup, self.cutmix, positions, seed, height, width)

    def __call__(
        self,
        images: Any,
        positions: Any,
        seed: int,
        *,
        normalize: Any = None,
        dtype: Any = None,
        impl: str = "auto",
    ) -> Any:
        """The images changed as a loader would change them, mixing aside (`mix` does that).

        images: [N, C, H, W], or [N, H, W, C] where the second axis is neither 1 nor 3 long; uint8 pixels or
        floats in [0, 1]. positions: [N] integers. normalize, dtype, impl: as `fl.ops.fused_augment` has them.
        The result has the shape and memory layout of the images, and without normalize their dtype.
        """
        from fastload.ops.fused.fused_augment import fused_augment, pixels_last

        pixels, layout, restore = pixels_last(images)
        params = self.draw(positions, seed, *pixels.shape[1:3], device=pixels.device)
        settings = {"normalize": normalize, "dtype": dtype, "layout": layout, "impl": impl}
        return restore(fused_augment(pixels, params, **settings))

    def mix(self, images: Any, labels: Any, positions: Any, seed: int) -> Mixed:
        """Mixup or CutMix of a batch: image n with image n - 1, image 0 with the last.

        images: [N, C, H, W] floats. labels: a tensor [N, ...]. positions: [N] integers.
        """
        from fastload.ops.fused.mix import mix
        from fastload.ops.transfer import to_device

        drawn = self.draw_mix(positions, seed, *images.shape[2:])
        share, blend, boxes = (to_device(array, images.device) for array in drawn)
        return Mixed(mix(images, blend, boxes), labels, labels.roll(1, 0), share)

    def _keep(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _number(self, name: str, lowest: float, highest: float, what: str) -> None:
        number = _number(getattr(self, name))
        if number is None or not lowest <= number <= highest:
            raise ConfigError(f"Augment({name}={getattr(self, name)!r}): give {what}.")
        self._keep(name, number)

    def _check_translate(self) -> None:
        given = _as_given(self.translate)
        both = given if isinstance(given, tuple) else (given, given)
        if given is None or not all(0.0 <= share <= 1.0 for share in both):
            raise ConfigError(f"Augment(translate={self.translate!r}): give a share of the sides or (x, y).")
        self._keep("translate", given)

    def _jitter_ranges(self) -> tuple:
        """(low, high) of the four, or the numbers as they were given."""
        strengths = tuple(self.color_jitter) if isinstance(self.color_jitter, Sequence) else ()
        ranges = [_around(1.0, strength, 0.0, math.inf) for strength in strengths[:3]]
        ranges += [_around(0.0, strength, -0.5, 0.5) for strength in strengths[3:]]
        if len(strengths) != 4 or None in ranges:
            raise ConfigError(
                f"Augment(color_jitter={self.color_jitter!r}): give (brightness, contrast, saturation, "
                "hue), such as (0.4, 0.4, 0.4, 0.1); the hue is at most 0.5."
            )
        return tuple(_as_given(strength) for strength in strengths)

    def _hsv_ranges(self) -> tuple:
        pair = tuple(self.hsv) if isinstance(self.hsv, Sequence) and len(self.hsv) == 2 else (None, None)
        if _around(0.0, pair[0], -0.5, 0.5) is None or _around(1.0, pair[1], 0.0, math.inf) is None:
            raise ConfigError(
                f"Augment(hsv={self.hsv!r}): give (hue shift, saturation range), such as (0.05, 0.3); the "
                "hue is at most 0.5."
            )
        return tuple(_as_given(strength) for strength in pair)


_registered: Registry[str, Callable[..., Linear]] = Registry("linear augmentation")


def register_linear(name: str, cls: Callable[..., Linear]) -> None:
    """Makes `name` an argument of fl.Augment: fl.Augment(name=0.5) draws from cls(0.5), and name=(1, 2) from
    cls(1, 2).

    Geometry comes after `translate`, colour after `brightness`, in the order of the arguments. The draw's
    purpose is replaced by that of the name (fastload.rng.purpose_of). Call it in the module that defines the
    class, so that processes that unpickle an Augment have it, too.

    Raises ConfigError for a name that cannot be an argument, and for one that means something else already.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigError(f"register_linear(name={name!r}): give a name that an argument can have.")
    if not callable(getattr(cls, "draw", None)):
        raise ConfigError(f"register_linear({name!r}, cls={cls!r}): the class has no draw(height, width).")
    if name in Augment.__dataclass_fields__:
        raise ConfigError(f"register_linear(name={name!r}): Augment has {name} already. Give another name.")
    purpose_of(f"augment {name}")
    _registered.add(name, cls)


_init_of_dataclass = Augment.__init__


@functools.wraps(_init_of_dataclass)
def _init(self: Augment, *arguments: Any, **given: Any) -> None:
    """Arguments by name may also be registered ones."""
    named = {name: _linear(name, given.pop(name)) for name in [*given] if name in _registered}
    if named:  # as dataclasses.replace gives them, they replace those of the same name
        given["registered"] = tuple((dict(given.get("registered", ())) | named).items())
    _init_of_dataclass(self, *arguments, **given)


Augment.__init__ = _init  # type: ignore[method-assign]


def _linear(name: str, strength: Any) -> Linear:
    """The augmentation that Augment(name=strength) means."""
    cls = _registered[name]
    if isinstance(cls, type) and isinstance(strength, cls):
        return strength
    try:
        return cls(*strength) if isinstance(strength, tuple) else cls(strength)
    except (TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"Augment({name}={strength!r}): {cls.__qualname__} takes other arguments: {error}."
        ) from error


@functools.lru_cache(maxsize=256)
def _plan(augment: Augment, height: int, width: int, xflip: bool, colors: bool) -> DrawPlan:
    x, y = augment.translate if isinstance(augment.translate, tuple) else (augment.translate,) * 2
    linear: list[Any] = []
    if augment.xflip and xflip:
        linear.append(XFlip(augment.xflip))
    if augment.yflip:
        linear.append(YFlip(augment.yflip))
    if augment.rotate:
        linear.append(Rotate(augment.rotate))
    if augment.scale != (1.0, 1.0):
        linear.append(Scale(*augment.scale))
    if x or y:
        linear.append(Translate(x, y))
    if augment.brightness:
        linear.append(Brightness(augment.brightness))
    draws = [augmentation.draw(height, width) for augmentation in linear]
    draws += [
        replace(augmentation.draw(height, width), purpose=purpose_of(f"augment {name}"))
        for name, augmentation in augment.registered
    ]
    if not colors:
        return DrawPlan(tuple(draw for draw in draws if not draw.color))
    return DrawPlan(tuple(draws), _jitter(augment.color_jitter), _hsv(augment.hsv), augment.cutout)


def _jitter(strengths: tuple | None) -> tuple | None:
    if strengths is None:
        return None
    factors = (_around(1.0, strength, 0.0, math.inf) for strength in strengths[:3])
    ranges = (*factors, _around(0.0, strengths[3], -0.5, 0.5))
    return None if ranges == ((1.0, 1.0),) * 3 + ((0.0, 0.0),) else ranges


def _hsv(strengths: tuple | None) -> tuple | None:
    if strengths is None:
        return None
    return _around(0.0, strengths[0], -0.5, 0.5), _around(1.0, strengths[1], 0.0, math.inf)


def _around(centre: float, strength: Any, lowest: float, highest: float) -> tuple[float, float] | None:
    """(low, high) within [lowest, highest]: `strength` on either side of the centre, or a pair as it is.

    None where it is neither; only a lower end below 0 is cut off, as torchvision does.
    """
    number = _number(strength)
    if number is not None and number >= 0.0:
        low, high = max(centre - number, lowest) if centre else -number, centre + number
    elif number is None and _numbers(strength, 2) is not None:
        low, high = _numbers(strength, 2)
    else:
        return None
    return (low, high) if lowest <= low <= high <= highest and high < math.inf else None


def _as_given(strength: Any) -> float | tuple[float, ...] | None:
    number = _number(strength)
    return _numbers(strength, 2) if number is None else number


def _number(value: Any) -> float | None:
    """`value` as a finite float where it is a number, else None."""
    if isinstance(value, (bool, str)):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != count:
        return None
    numbers = tuple(_number(item) for item in value)
    return None if None in numbers else numbers
