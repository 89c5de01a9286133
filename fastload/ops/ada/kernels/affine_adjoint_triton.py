"""The adjoint of affine_warp.py's steps 3 and below, in Triton: gathers only, no atomics, so that equal input
gives equal bits.

In: the gradients of the lattice as warp_up_triton.py makes them (the transpose of step 4). Out: those of the
doubled plane, of its columns folded back onto the image's, and of the image. affine_warp_triton.py launches
the kernels.
"""

import triton
import triton.language as tl

from fastload.ops.ada import ada_params as columns
from fastload.ops.ada.kernels.ada_pointwise_triton import recoloured
from fastload.ops.ada.kernels.affine_axes_triton import back_along_x, gradient
from fastload.ops.ada.kernels.warp_points_triton import (
    COPIED,
    GENERAL,
    TURNED,
    boxes,
    kind_of,
    lattice_map,
    moved_by,
    reflection,
    step,
    whole,
)
from fastload.ops.ada.stages.wavelets import SYM6

_COLUMNS, _TAPS = tl.constexpr(columns.COLUMNS), tl.constexpr(SYM6)


@triton.jit
def spread_kernel(
    lattice_ptr,  # [N, 2 H + 12, 2 W + 12, LANES] float32, from -6 on: gradients of the lattice's points
    rows_ptr,  # [N, 40] float32, contiguous
    plane_ptr,  # [N, 6 H - 4, 6 W - 4, LANES] float32: gradients of the doubled plane, in its box
    height,
    width,
    CHANNELS: tl.constexpr,
    LANES: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The transpose of the sampling, as a gather: each point of the doubled plane looks for the points of the
    lattice that are sampled less than 1 away from it, and takes of them what they took of it."""
    sample = tl.program_id(1).to(tl.int64)
    params_ptr = rows_ptr + sample * _COLUMNS
    pitch, lattice_pitch = 6 * width - 4, 2 * width + 12
    plane_ptr += sample * (6 * height - 4) * pitch * LANES
    lattice_ptr += sample * (2 * height + 12) * lattice_pitch * LANES
    channel = tl.arange(0, LANES)[None, :]
    x_start, x_stop, y_start, y_stop = boxes(params_ptr, height, width)
    a, b, c, d, tau_x, tau_y = lattice_map(params_ptr, height, width)
    inverse_a, inverse_b, inverse_c, inverse_d, reach_x, reach_y = _inverse(a, b, c, d, height, width)
    # A slack for rounding: a candidate that is too far away takes nothing.
    tries_x, tries_y = (2 * reach_x + 0.02).to(tl.int32) + 1, (2 * reach_y + 0.02).to(tl.int32) + 1
    a32, b32, c32, d32 = a.to(tl.float32), b.to(tl.float32), c.to(tl.float32), d.to(tl.float32)
    tiles_x = tl.cdiv(tl.maximum(x_stop - x_start, 0), BLOCK)
    tiles = tiles_x * tl.maximum(y_stop - y_start, 0)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        jx0, jy = x_start + (tile % tiles_x) * BLOCK, y_start + tile // tiles_x
        lane = tl.arange(0, BLOCK)
        there = jx0 + lane < x_stop
        # Where the first point of the tile comes from; the others are close to it.
        from_x, part_x = whole(inverse_a * (jx0 - tau_x) + inverse_b * (jy - tau_y))
        from_y, part_y = whole(inverse_c * (jx0 - tau_x) + inverse_d * (jy - tau_y))
        first_x, _ = step(part_x + inverse_a.to(tl.float32) * lane - reach_x - 0.01)
        first_y, _ = step(part_y + inverse_c.to(tl.float32) * lane - reach_y - 0.01)
        first_x, first_y = first_x + 1, first_y + 1  # the first integer above
        first_x = tl.maximum(first_x + from_x, -5) - from_x
        first_y = tl.maximum(first_y + from_y, -5) - from_y
        # What the coordinate of (from_x, from_y) is away from the tile's first point.
        away_x = (a * from_x + b * from_y + tau_x - jx0).to(tl.float32)
        away_y = (c * from_x + d * from_y + tau_y - jy).to(tl.float32)
        value = tl.zeros([BLOCK, LANES], tl.float32)
        for try_y in range(tries_y):
            ey = first_y + try_y
            for try_x in range(tries_x):
                ex = first_x + try_x
                off_x = away_x - lane + (a32 * ex + b32 * ey)
                off_y = away_y + (c32 * ex + d32 * ey)
                weight = tl.maximum(1 - tl.abs(off_x), 0.0) * tl.maximum(1 - tl.abs(off_y), 0.0)
                x, y = ex + from_x, ey + from_y
                taken = there & (weight > 0) & (x >= -5) & (x < 2 * width + 5)
                taken = taken & (y >= -5) & (y < 2 * height + 5)
                at = ((y + 6).to(INDEX) * lattice_pitch + (x + 6)) * LANES
                mask = taken[:, None] & (channel < LANES)
                value += weight[:, None] * tl.load(lattice_ptr + at[:, None] + channel, mask=mask, other=0.0)
        at = ((jy + 2 * (height - 1)).to(INDEX) * pitch + (jx0 + lane + 2 * (width - 1))) * LANES
        tl.store(plane_ptr + at[:, None] + channel, value, mask=there[:, None] & (channel < LANES))


@triton.jit
def _inverse(a, b, c, d, height, width):
    """The inverse of [a b; c d], and how far, along x and y of the lattice, the points lie that show a point
    of the doubled plane or its neighbours. Of a matrix without inverse, or nearly so, 0 and as far as the
    lattice goes."""
    determinant = a * d - b * c
    inverse_a, inverse_b = d / determinant, -b / determinant
    inverse_c, inverse_d = -c / determinant, a / determinant
    reach_x, reach_y = tl.abs(inverse_a) + tl.abs(inverse_b), tl.abs(inverse_c) + tl.abs(inverse_d)
    usable = (reach_x < 2 * width) & (reach_y < 2 * height)  # false for NaN
    inverse_a, inverse_b = tl.where(usable, inverse_a, 0.0), tl.where(usable, inverse_b, 0.0)
    inverse_c, inverse_d = tl.where(usable, inverse_c, 0.0), tl.where(usable, inverse_d, 0.0)
    reach_x = tl.where(usable, reach_x, 2.0 * width + 5).to(tl.float32)
    reach_y = tl.where(usable, reach_y, 2.0 * height + 5).to(tl.float32)
    return inverse_a, inverse_b, inverse_c, inverse_d, reach_x, reach_y


@triton.jit
def fold_rows_kernel(
    plane_ptr,  # [N, 6 H - 4, 6 W - 4, LANES] float32, in its box
    rows_ptr,  # [N, 40] float32, contiguous
    out_ptr,  # [N, 6 H - 4, W, LANES] float32, in the box's rows
    height,
    width,
    CHANNELS: tl.constexpr,
    LANES: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    sample = tl.program_id(1).to(tl.int64)
    pitch = 6 * width - 4
    plane_ptr += sample * (6 * height - 4) * pitch * LANES
    out_ptr += sample * (6 * height - 4) * width * LANES
    channel = tl.arange(0, LANES)[None, :]
    x_start, x_stop, y_start, y_stop = boxes(rows_ptr + sample * _COLUMNS, height, width)
    points = tl.where(x_stop > x_start, tl.maximum(y_stop - y_start, 0), 0) * width
    for tile in range(tl.program_id(0), tl.cdiv(points, BLOCK), tl.num_programs(0)):
        point = tile * BLOCK + tl.arange(0, BLOCK)
        jy, x = (y_start + point // width + 2 * (height - 1)).to(INDEX), point % width
        there = (point < points)[:, None] & (channel < LANES)
        line_ptr = plane_ptr + (jy * pitch * LANES)[:, None] + channel
        value = _unfolded(line_ptr, x, width, x_start, x_stop, LANES, there)
        tl.store(out_ptr + ((jy * width + x) * LANES)[:, None] + channel, value, mask=there)


@triton.jit
def fold_columns_kernel(
    plane_ptr,  # [N, 6 H - 4, W, LANES] float32, in the box's rows; of axes what expand_kernel made
    gradients,  # [N, C, H, W] floats, for samples that were copied
    rows_ptr,  # [N, 40] float32, contiguous
    tables,  # as tables_of makes them
    out,  # [N, C, H, W] floats
    height,
    width,
    COLOR: tl.constexpr,
    CUTOUT: tl.constexpr,
    CHANNELS: tl.constexpr,
    LANES: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    gradients_ptr, gradients_n, gradients_c, gradients_y, gradients_x = gradients
    out_ptr, out_n, out_c, out_y, out_x = out
    sample = tl.program_id(1).to(tl.int64)
    params_ptr = rows_ptr + sample * _COLUMNS
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    y, x = pixel // width, pixel % width
    channel = tl.arange(0, LANES)[None, :]
    there = (y < height)[:, None] & (channel < CHANNELS)
    whole_lanes = (y < height)[:, None] & (channel < LANES)  # all alike, so that they are one load
    plane_ptr += sample * (6 * height - 4) * width * LANES
    kind = kind_of(params_ptr, height, width)
    _copied, move_x, move_y = moved_by(params_ptr, height, width)
    if kind == COPIED:
        value = tl.zeros([BLOCK, LANES], tl.float32)
        gradient_ptr = gradients_ptr + sample * gradients_n + channel.to(INDEX) * gradients_c
        for copy_y in tl.static_range(3):
            from_y, is_y = reflection(y, copy_y, height)
            for copy_x in tl.static_range(3):
                from_x, is_x = reflection(x, copy_x, width)
                value += gradient(
                    gradient_ptr, from_y - move_y, from_x - move_x, gradients_y, gradients_x, is_y & is_x,
                    there, params_ptr, height, width, CUTOUT, INDEX,
                )  # fmt: skip
    elif kind == GENERAL:
        x_start, x_stop, y_start, y_stop = boxes(params_ptr, height, width)
        y_stop = tl.where(x_stop > x_start, y_stop, y_start)
        line_ptr = plane_ptr + (x * LANES)[:, None] + channel
        value = _unfolded(line_ptr, y.to(INDEX), height, y_start, y_stop, width * LANES, whole_lanes)
    else:
        value = back_along_x(
            plane_ptr, params_ptr, tables, sample, kind == TURNED, y, x, y < height, height, width,
            LANES, INDEX, BLOCK,
        )  # fmt: skip
    if COLOR:
        value = recoloured(value, params_ptr, CHANNELS, LANES, True, False, BLOCK)
    at = (
        out_ptr
        + sample * out_n
        + (y.to(INDEX) * out_y + x.to(INDEX) * out_x)[:, None]
        + channel.to(INDEX) * out_c
    )
    tl.store(at, value.to(out_ptr.dtype.element_ty), mask=there)


@triton.jit
def _unfolded(line_ptr, coordinate, side, start, stop, step, there):
    """The transpose of extending and upsampling along an axis: a pixel and its two reflections."""
    first = -2 * (side - 1)
    value = _gathered(line_ptr, coordinate, start, stop, first, step, there)
    if start < 5:  # the reflection of the first pixels is looked at
        value += _gathered(line_ptr, -coordinate, start, stop, first, step, there & (coordinate > 0)[:, None])
    if stop > 2 * side - 5:
        there &= (coordinate < side - 1)[:, None]
        value += _gathered(line_ptr, 2 * (side - 1) - coordinate, start, stop, first, step, there)
    return value


@triton.jit
def _gathered(line_ptr, coordinate, start, stop, first, step, there):
    """2 sum_k f[k] line[2 coordinate + k - 5] within [start, stop); line_ptr points at `first`."""
    value = tl.zeros_like(there * 1.0)
    for k in tl.static_range(12):
        j = 2 * coordinate + (k - 5)
        inside = there & ((j >= start) & (j < stop))[:, None]
        value += tl.load(line_ptr + ((j - first) * step)[:, None], mask=inside, other=0.0) * (2 * _TAPS[k])
    return value
