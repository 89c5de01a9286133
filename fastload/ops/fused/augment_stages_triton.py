"""The stages of fused_augment as Triton functions of three channels [BLOCK] float32, for
fused_augment_triton.py.

In: channels with values in [0, 1] (unless a function says otherwise), and the image's row of parameters. Out:
the channels after the stage. Of a gray image (CHANNELS 1) only red is looked at.
"""

import triton
import triton.language as tl

from fastload.ops.fused import augment_params as columns
from fastload.ops.fused.augment_params import GRAY

_C, _JITTER, _ORDER = tl.constexpr(columns.C), tl.constexpr(columns.JITTER), tl.constexpr(columns.ORDER)
_CUT_SIZE, _CUT_CENTER = tl.constexpr(columns.CUT_SIZE), tl.constexpr(columns.CUT_CENTER)
_BRIGHTNESS, _CONTRAST, _SATURATION = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
_GRAY_RED, _GRAY_GREEN, _GRAY_BLUE = (tl.constexpr(weight) for weight in GRAY)


@triton.jit
def jittered(red, green, blue, row_ptr, mean, stop, CHANNELS: tl.constexpr):
    """The first `stop` steps of ColorJitter, clamped after each; mean: of gray when the contrast comes."""
    for i in range(stop):
        step = tl.load(row_ptr + _ORDER + i).to(tl.int32) & 3  # & 3: an index within the row for any content
        factor = tl.load(row_ptr + _JITTER + step)
        if step == _BRIGHTNESS:
            red, green, blue = red * factor, green * factor, blue * factor
        elif step == _CONTRAST:
            offset = mean * (1 - factor)
            red, green, blue = red * factor + offset, green * factor + offset, blue * factor + offset
        elif step == _SATURATION:
            if CHANNELS == 3 and factor != 1:  # 0 times infinity would be NaN
                offset = gray(red, green, blue, CHANNELS) * (1 - factor)
                red, green, blue = red * factor + offset, green * factor + offset, blue * factor + offset
        elif factor != 0:
            red, green, blue = hue_shifted(red, green, blue, factor, CHANNELS)
        red, green, blue = clamped(red), clamped(green), clamped(blue)
    return red, green, blue


@triton.jit
def gray(red, green, blue, CHANNELS: tl.constexpr):
    gray = red
    if CHANNELS == 3:
        gray = red * _GRAY_RED + green * _GRAY_GREEN + blue * _GRAY_BLUE
    return gray


@triton.jit
def hue_shifted(red, green, blue, turns, CHANNELS: tl.constexpr):
    """The contract's channels in their other form: smallest + span clamp(|h - 3| - 1, 0, 1) for red, and with
    2 - |h - 2| and 2 - |h - 4| for green and blue, h in [0, 6): one remainder for three."""
    if CHANNELS == 3:
        red, green, blue = spread(red, green, blue)
        largest = tl.maximum(red, tl.maximum(green, blue))
        smallest = tl.minimum(red, tl.minimum(green, blue))
        span = largest - smallest
        safe = tl.where(span > 0, span, 1.0)
        of_green = tl.where(largest == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
        # Whole turns are subtracted first, so that rounding errors stay small.
        hue = tl.where(largest == red, (green - blue) / safe, of_green) + 6 * (turns - tl.floor(turns))
        hue -= 6 * tl.floor(hue * (1 / 6))
        red = smallest + span * clamped(tl.abs(hue - 3) - 1)
        green = smallest + span * clamped(2 - tl.abs(hue - 2))
        blue = smallest + span * clamped(2 - tl.abs(hue - 4))
    return red, green, blue


@triton.jit
def recoloured(red, green, blue, row_ptr, unit, CHANNELS: tl.constexpr):
    """C applied to channels stored in units of `unit`, clamped to [0, 1]."""
    at = row_ptr + _C
    c00, c03 = tl.load(at) * unit, tl.load(at + 3)
    if CHANNELS == 1:
        red = clamped(c00 * red + c03)
        green, blue = red, red
    else:
        c01, c02 = tl.load(at + 1) * unit, tl.load(at + 2) * unit
        c10, c11, c12 = tl.load(at + 4) * unit, tl.load(at + 5) * unit, tl.load(at + 6) * unit
        c20, c21, c22 = tl.load(at + 8) * unit, tl.load(at + 9) * unit, tl.load(at + 10) * unit
        new_red = c00 * red + (c01 * green + (c02 * blue + c03))
        new_green = c10 * red + (c11 * green + (c12 * blue + tl.load(at + 7)))
        new_blue = c20 * red + (c21 * green + (c22 * blue + tl.load(at + 11)))
        red, green, blue = clamped(new_red), clamped(new_green), clamped(new_blue)
    return red, green, blue


@triton.jit
def saturated(red, green, blue, factor):
    """HSV's saturation times a factor, at most 1; greys stay."""
    red, green, blue = spread(red, green, blue)
    largest = tl.maximum(red, tl.maximum(green, blue))
    span = largest - tl.minimum(red, tl.minimum(green, blue))
    factor = tl.minimum(factor, largest / tl.where(span > 0, span, 1.0))
    red = at_least_0(largest - factor * (largest - red))
    green = at_least_0(largest - factor * (largest - green))
    blue = at_least_0(largest - factor * (largest - blue))
    return red, green, blue


@triton.jit
def spread(red, green, blue):
    """NaN in all channels of a pixel with a value that is not finite."""
    total = red + green + blue
    nothing = total - total
    return red + nothing, green + nothing, blue + nothing


@triton.jit
def is_kept(row_ptr, y, x, height, width):
    """Where a pixel is not cut out."""
    size = tl.load(row_ptr + _CUT_SIZE)
    off_x = x.to(tl.float32) + 0.5 - width * tl.load(row_ptr + _CUT_CENTER)
    off_y = y.to(tl.float32) + 0.5 - height * tl.load(row_ptr + _CUT_CENTER + 1)
    return (tl.abs(off_x) >= size * width * 0.5) | (tl.abs(off_y) >= size * height * 0.5)


@triton.jit
def at_least_0(value):
    return tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def at_most(value, highest):
    return tl.minimum(value, highest, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def clamped(value):
    return at_most(at_least_0(value), 1.0)


@triton.jit
def as_uint8(value):
    """255 v + 1/2 rounded down to a uint8 pixel, still a float; NaN becomes 0."""
    return tl.floor(tl.minimum(tl.maximum(value, 0.0), 255.0))
