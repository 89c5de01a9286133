"""Where things lie in a warp: the Triton functions that its kernels share.

Coordinates are an integer and a fraction: the origin of each row of a program in float64, the rest in
float32, so that they are right to 1e-5 half pixels at any size. Every sample is of one kind, on which all its
programs agree: copied (A = 1, whole pixels), straight or turned (A is a diagonal or an antidiagonal matrix:
affine_axes_triton.py does one axis after the other), or general.
"""

import triton
import triton.language as tl

COPIED, STRAIGHT, TURNED, GENERAL = (tl.constexpr(number) for number in range(4))
# Slopes of an axis that its table of taps has room for: 32 taps, and at most 39 results that take of a pixel.
_MIN_SLOPE, _MAX_SLOPE = tl.constexpr(0.25), tl.constexpr(4.0)


@triton.jit
def lattice_map(row_ptr, height, width):
    """A and tau, scalars in float64: point e of the lattice shows A e + tau of the doubled plane."""
    a, b = tl.load(row_ptr).to(tl.float64), tl.load(row_ptr + 1).to(tl.float64)
    c, d = tl.load(row_ptr + 3).to(tl.float64), tl.load(row_ptr + 4).to(tl.float64)
    center_x, center_y = (width - 1) * 0.5, (height - 1) * 0.5
    tau_x = 2 * (tl.load(row_ptr + 2).to(tl.float64) + center_x - (a * center_x + b * center_y))
    tau_y = 2 * (tl.load(row_ptr + 5).to(tl.float64) + center_y - (c * center_x + d * center_y))
    return a, b, c, d, tau_x, tau_y


@triton.jit
def kind_of(row_ptr, height, width):
    """Which kind of warp a sample has."""
    a, b, c, d = tl.load(row_ptr), tl.load(row_ptr + 1), tl.load(row_ptr + 3), tl.load(row_ptr + 4)
    copied, _, _ = moved_by(row_ptr, height, width)
    straight = (b == 0) & (c == 0) & _has_room(a) & _has_room(d)
    # Not where a plane of as many columns as there are rows would be too large for the memory between.
    turned = (a == 0) & (d == 0) & _has_room(b) & _has_room(c) & (height <= 2 * width)
    kind = tl.where(straight, STRAIGHT, tl.where(turned, TURNED, GENERAL))
    return tl.where(copied, COPIED, kind)


@triton.jit
def _has_room(slope):
    return (tl.abs(slope) >= _MIN_SLOPE) & (tl.abs(slope) <= _MAX_SLOPE)


@triton.jit
def moved_by(row_ptr, height, width):
    """Whether a sample is only moved by whole pixels, not so far that the end of the reflection is seen; and
    by how many pixels, right and down."""
    x, y = tl.load(row_ptr + 2), tl.load(row_ptr + 5)
    same = (tl.load(row_ptr) == 1) & (tl.load(row_ptr + 1) == 0) & (tl.load(row_ptr + 3) == 0)
    same &= (tl.load(row_ptr + 4) == 1) & (tl.floor(x) == x) & (tl.floor(y) == y)
    same &= (x >= 4 - width) & (x <= width - 4) & (y >= 4 - height) & (y <= height - 4)
    return same, tl.where(same, x, 0.0).to(tl.int32), tl.where(same, y, 0.0).to(tl.int32)


@triton.jit
def boxes(row_ptr, height, width):
    """start and stop along x, then along y; nothing of a sample that does not need the doubled plane."""
    a, b, c, d, tau_x, tau_y = lattice_map(row_ptr, height, width)
    x_start, x_stop = _box(a, b, tau_x, width, height, width)
    y_start, y_stop = _box(c, d, tau_y, width, height, height)
    is_general = kind_of(row_ptr, height, width) == GENERAL
    return x_start, tl.where(is_general, x_stop, x_start), y_start, tl.where(is_general, y_stop, y_start)


@triton.jit
def _box(of_x, of_y, tau, width, height, side):
    """[start, stop) along an axis of the doubled plane: the points beside some coordinate of the lattice."""
    first_x, last_x = -5 * of_x, (2 * width + 4) * of_x
    first_y, last_y = -5 * of_y, (2 * height + 4) * of_y
    low = tl.minimum(first_x, last_x) + tl.minimum(first_y, last_y) + tau
    high = tl.maximum(first_x, last_x) + tl.maximum(first_y, last_y) + tau
    first, stop = -2.0 * (side - 1), 4.0 * side - 2
    # One point more on either side: a coordinate that float32 rounds across an integer must not read memory
    # that nobody wrote, whatever its weight. Clamped before the conversion: a user's matrix may be anything.
    start = tl.minimum(tl.maximum(tl.floor(low) - 1, first), stop)
    end = tl.minimum(tl.maximum(tl.floor(high) + 3, first), stop)
    return start.to(tl.int32), end.to(tl.int32)


@triton.jit
def folded(coordinate, side):
    """A coordinate of the extended image as a pixel of it, and whether reflection reaches it."""
    there = (coordinate > -side) & (coordinate < 2 * side - 1)
    return side - 1 - tl.abs(side - 1 - tl.abs(coordinate)), there


@triton.jit
def reflection(coordinate, number: tl.constexpr, side):
    """The coordinate itself, or its reflection at the first or the last pixel, and whether that differs."""
    if number == 0:
        return coordinate, coordinate >= 0
    elif number == 1:
        return -coordinate, coordinate > 0
    else:
        return 2 * (side - 1) - coordinate, coordinate < side - 1


@triton.jit
def whole(coordinate):
    """A float64 coordinate as the integer below it, and what is left as float32."""
    coordinate = tl.minimum(tl.maximum(coordinate, -1073741824.0), 1073741823.0)
    below = tl.floor(coordinate)
    return below.to(tl.int32), (coordinate - below).to(tl.float32)


@triton.jit
def step(coordinate):
    """A float32 coordinate as the integer below it and the rest; far beyond any plane it stays there."""
    below = tl.floor(tl.minimum(tl.maximum(coordinate, -16777216.0), 16777216.0))
    return below.to(tl.int32), coordinate - below
