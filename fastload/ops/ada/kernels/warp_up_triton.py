"""Twice the points along both axes, in Triton: an image extended by reflection, or a gradient with zeros
around it.

In: images [N, C, H, W], C up to 4. Out: packed planes [rows, columns, LANES] float32, the points of
affine_warp.py's steps 1 and 2 in the box that a sample looks at, or for the adjoint of its last step the
lattice's. Rows and columns of a plane begin at -2 (side - 1), for the adjoint at -6.
"""

import triton
import triton.language as tl

from fastload.ops.ada import ada_params as columns
from fastload.ops.ada.kernels.ada_pointwise_triton import is_cut
from fastload.ops.ada.kernels.warp_points_triton import GENERAL, boxes, folded, kind_of
from fastload.ops.ada.stages.wavelets import SYM6

_COLUMNS, _CUT_CENTER = tl.constexpr(columns.COLUMNS), tl.constexpr(columns.CUT_CENTER)
_S0, _S1, _S2, _S3, _S4, _S5, _S6, _S7, _S8, _S9, _S10, _S11 = (tl.constexpr(tap) for tap in SYM6)


@triton.jit
def up_kernel(
    images,  # [N, C, H, W] floats
    rows_ptr,  # [N, 40] float32, contiguous
    # [N, 6 H - 4, 6 W - 4, LANES] from -2 (side - 1) on; ADJOINT: [N, 2 H + 12, 2 W + 12, LANES] from -6 on
    plane_ptr,
    height,
    width,
    ADJOINT: tl.constexpr,
    CUTOUT: tl.constexpr,
    CHANNELS: tl.constexpr,
    LANES: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Twice the points along both axes. A program runs down a strip of BLOCK pairs of columns, with the last
    rows, upsampled along x, in registers: 7 loads for 4 points."""
    images_ptr, images_n, images_c, images_y, images_x = images
    sample = tl.program_id(1).to(tl.int64)
    params_ptr = rows_ptr + sample * _COLUMNS
    if ADJOINT:
        is_general = kind_of(params_ptr, height, width) == GENERAL
        first_x, first_y, pitch = -6, -6, 2 * width + 12
        x_start, x_stop, y_start, y_stop = -3, width + 3, -3, height + 3
        x_stop = tl.where(is_general, x_stop, x_start)
        size, gain = (2 * height + 12).to(tl.int64) * pitch, 1.0
    else:
        first_x, first_y, pitch = -2 * (width - 1), -2 * (height - 1), 6 * width - 4
        x_start, x_stop, y_start, y_stop = boxes(params_ptr, height, width)
        # In pairs; >> rounds down where / would round to 0.
        x_start, x_stop, y_start, y_stop = x_start >> 1, (x_stop + 1) >> 1, y_start >> 1, (y_stop + 1) >> 1
        size, gain = (6 * height - 4).to(tl.int64) * pitch, 4.0
    image_ptr = images_ptr + sample * images_n
    plane_ptr += sample * size * LANES
    channel = tl.arange(0, LANES)[None, :]
    channel_there, channel_at = channel < CHANNELS, channel.to(INDEX) * images_c
    tiles_x = tl.cdiv(tl.maximum(x_stop - x_start, 0), BLOCK)
    tiles = tiles_x * tl.cdiv(tl.maximum(y_stop - y_start, 0), ROWS)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        x = x_start + (tile % tiles_x) * BLOCK + tl.arange(0, BLOCK)
        y0 = y_start + (tile // tiles_x) * ROWS
        at = plane_ptr + ((2 * x - first_x) * LANES).to(INDEX)[:, None] + channel
        zero = tl.zeros([BLOCK, LANES], tl.float32)
        e0, e1, e2, e3, e4, e5 = zero, zero, zero, zero, zero, zero
        o0, o1, o2, o3, o4, o5 = zero, zero, zero, zero, zero, zero
        for step in range(tl.minimum(ROWS, y_stop - y0) + 6):
            y = y0 + step - 3 + tl.zeros([BLOCK], tl.int32)  # for masks of a program's own lanes
            if ADJOINT:
                row, there_y = y, (y >= 0) & (y < height)
                cut_y = is_cut(params_ptr + _CUT_CENTER + 1, params_ptr, y, height)
            else:
                row, there_y = folded(y, height)
                cut_y = there_y
            row_ptr = image_ptr + (row.to(INDEX) * images_y)[:, None]
            of_row = (images_x, channel_at, channel_there, params_ptr, width, cut_y, ADJOINT, CUTOUT)
            p0 = _pixel(row_ptr, there_y, x - 3, *of_row)
            p1 = _pixel(row_ptr, there_y, x - 2, *of_row)
            p2 = _pixel(row_ptr, there_y, x - 1, *of_row)
            p3 = _pixel(row_ptr, there_y, x, *of_row)
            p4 = _pixel(row_ptr, there_y, x + 1, *of_row)
            p5 = _pixel(row_ptr, there_y, x + 2, *of_row)
            p6 = _pixel(row_ptr, there_y, x + 3, *of_row)
            e6, o6 = _even(p0, p1, p2, p3, p4, p5), _odd(p1, p2, p3, p4, p5, p6)
            pair = y - 3  # of rows, whose last pixels have just come
            there = ((pair >= y0) & (pair < y_stop) & (x < x_stop))[:, None] & (channel < LANES)
            upper = at + ((2 * pair - first_y).to(INDEX) * (pitch * LANES))[:, None]
            lower = upper + pitch * LANES
            tl.store(upper, gain * _even(e0, e1, e2, e3, e4, e5), mask=there)
            tl.store(upper + LANES, gain * _even(o0, o1, o2, o3, o4, o5), mask=there)
            tl.store(lower, gain * _odd(e1, e2, e3, e4, e5, e6), mask=there)
            tl.store(lower + LANES, gain * _odd(o1, o2, o3, o4, o5, o6), mask=there)
            e0, e1, e2, e3, e4, e5 = e1, e2, e3, e4, e5, e6
            o0, o1, o2, o3, o4, o5 = o1, o2, o3, o4, o5, o6


@triton.jit
def _pixel(row_ptr, there_y, coordinate, images_x, channel_at, channel_there, params_ptr, width, cut_y,
           ADJOINT: tl.constexpr, CUTOUT: tl.constexpr):  # fmt: skip
    """[BLOCK, LANES] of a row of the image: extended, or for the adjoint with zeros around it."""
    if ADJOINT:
        there, pixel = (coordinate >= 0) & (coordinate < width), coordinate
        if CUTOUT:
            there &= ~(cut_y & is_cut(params_ptr + _CUT_CENTER, params_ptr, coordinate, width))
    else:
        pixel, there = folded(coordinate, width)
    there = (there & there_y)[:, None] & channel_there
    return tl.load(row_ptr + (pixel * images_x)[:, None] + channel_at, mask=there, other=0.0).to(tl.float32)


@triton.jit
def _even(x0, x1, x2, x3, x4, x5):
    """An even point of an upsampled row, from the pixels i - 3 to i + 2 where the point is 2 i."""
    return x0 * _S11 + x1 * _S9 + x2 * _S7 + x3 * _S5 + x4 * _S3 + x5 * _S1


@triton.jit
def _odd(x0, x1, x2, x3, x4, x5):
    """An odd point, from the pixels i - 2 to i + 3 where the point is 2 i + 1."""
    return x0 * _S10 + x1 * _S8 + x2 * _S6 + x3 * _S4 + x4 * _S2 + x5 * _S0
