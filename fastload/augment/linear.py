"""The augmentations that are matrices, one small class each; a new one needs nothing but its class.

In: a strength, and the size of the images. Out: a `LinearDraw`, a random matrix. Promised: strengths
are those of the class's docstring; `Augment` puts the classes in order and the kernels apply the product.
`pipe.register_linear` gives `Augment` a class of the user's as a further argument.

Geometry is in centred pixel coordinates, x to the right and y down, and each `draw` gives the inverse of what
the image does: the coordinate in the input that a pixel of the output shows.
"""

import math
from dataclasses import dataclass
from typing import Protocol

from fastload.ops.fused.draw_plan import LinearDraw
from fastload.rng import Purpose

_IDENTITY = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
_COLOR_IDENTITY = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))


class Linear(Protocol):
    """A random matrix for images of any size: what `register_linear` takes, and the classes below are.

    It must be frozen, with a `repr` that shows its strengths, as a frozen dataclass has it: loaders whose
    augmentations have equal reprs are taken to make equal pixels.
    """

    def draw(self, height: int, width: int) -> LinearDraw:
        """What is drawn for images of height x width pixels."""


@dataclass(frozen=True)
class XFlip:
    """Mirrors left and right with `probability`."""

    probability: float

    def draw(self, height: int, width: int) -> LinearDraw:
        mirrored = ((-1, 0, 0), (0, 1, 0), (0, 0, 1))
        return LinearDraw(Purpose.XFLIP, False, {"1": mirrored}, self.probability)


@dataclass(frozen=True)
class YFlip:
    """Mirrors top and bottom with `probability`."""

    probability: float

    def draw(self, height: int, width: int) -> LinearDraw:
        mirrored = ((1, 0, 0), (0, -1, 0), (0, 0, 1))
        return LinearDraw(Purpose.YFLIP, False, {"1": mirrored}, self.probability)


@dataclass(frozen=True)
class Rotate:
    """Turns about the centre by an angle uniform in [-degrees, degrees]; above 0 is counter-clockwise."""

    degrees: float

    def draw(self, height: int, width: int) -> LinearDraw:
        largest = math.radians(self.degrees)
        terms = {"cos v0": ((1, 0, 0), (0, 1, 0)), "sin v0": ((0, -1, 0), (1, 0, 0))}
        return LinearDraw(Purpose.ROTATE, False, terms, first=(-largest, largest))


@dataclass(frozen=True)
class Scale:
    """Enlarges about the centre by a factor uniform in [low, high]; below 1 the image shrinks."""

    low: float
    high: float

    def draw(self, height: int, width: int) -> LinearDraw:
        terms = {"1/v0": ((1, 0, 0), (0, 1, 0))}
        return LinearDraw(Purpose.SCALE, False, terms, first=(self.low, self.high))


@dataclass(frozen=True)
class Translate:
    """Moves right by [-x, x] of the width and down by [-y, y] of the height, both uniform."""

    x: float
    y: float

    def draw(self, height: int, width: int) -> LinearDraw:
        terms = {"1": _IDENTITY, "v0": ((0, 0, -width), (0, 0, 0)), "v1": ((0, 0, 0), (0, 0, -height))}
        return LinearDraw(Purpose.TRANSLATE, False, terms, first=(-self.x, self.x), second=(-self.y, self.y))


@dataclass(frozen=True)
class Brightness:
    """Adds a number uniform in [-most, most] to all channels, as a share of the full range."""

    most: float

    def draw(self, height: int, width: int) -> LinearDraw:
        terms = {"1": _COLOR_IDENTITY, "v0": ((0, 0, 0, 1),) * 3}
        return LinearDraw(Purpose.BRIGHTNESS, True, terms, first=(-self.most, self.most))
