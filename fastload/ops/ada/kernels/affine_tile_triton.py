"""Steps 3 and 4 of a warp in one kernel, in Triton: a tile of the lattice is sampled and halved along both
axes before it leaves the registers. With warp_up_triton.py that makes two kernels of a general warp.

In: the doubled plane. Out: finished pixels. A program samples SIDE x SIDE points of the lattice for RESULTS x
RESULTS pixels; halving is a product with the banded matrix of sym6, twice. Against the streaming
form this saves a plane of rows, written and read, and samples a third more points. Compiled for sm_90 it
needs more registers than there are and spills some, so that the streaming form is the default (FORM of
affine_warp_triton.py); which is faster where has not been measured yet.
"""

import triton
import triton.language as tl

from fastload.ops.ada import ada_params as columns
from fastload.ops.ada.kernels.ada_pointwise_triton import finished
from fastload.ops.ada.kernels.warp_points_triton import GENERAL, kind_of, lattice_map, step, whole

SIDE = 64  # points of the lattice along a side of a tile: 64 * 64 * 4 floats are 64 registers of 256 threads
RESULTS = (SIDE - 10) // 2  # pixels along a side
NUM_WARPS = 8
PRECISION = "tf32x3"  # of the products, on tensor cores; "ieee" spills more

_COLUMNS, _RESULTS = tl.constexpr(columns.COLUMNS), tl.constexpr(RESULTS)


@triton.jit(do_not_specialize=["noise_block"])
def tile_kernel(
    plane_ptr,  # [N, 6 H - 4, 6 W - 4, LANES] float32, doubled
    sym6_ptr,  # [12] float32
    rows_ptr,  # [N, 40] float32, contiguous
    key,  # [N, 2] int32
    eps,  # [N, C, H, W] floats
    out,  # [N, C, H, W] floats
    height,
    width,
    noise_block,
    COLOR: tl.constexpr,
    OFFSET: tl.constexpr,
    NOISE: tl.constexpr,
    CUTOUT: tl.constexpr,
    CHANNELS: tl.constexpr,
    LANES: tl.constexpr,
    INDEX: tl.constexpr,
    SIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """General warps alone; other kinds of samples are left to down_kernel."""
    out_ptr, out_n, out_c, out_y, out_x = out
    sample = tl.program_id(1).to(tl.int64)
    params_ptr = rows_ptr + sample * _COLUMNS
    if kind_of(params_ptr, height, width) == GENERAL:
        tiles_x = tl.cdiv(width, _RESULTS)
        first_y = (tl.program_id(0) // tiles_x) * _RESULTS
        first_x = (tl.program_id(0) % tiles_x) * _RESULTS
        plane_ptr += sample * (6 * height - 4) * (6 * width - 4) * LANES
        lattice = _sampled(
            plane_ptr, params_ptr, 2 * first_x - 5, 2 * first_y - 5, height, width, LANES, INDEX, SIDE
        )
        # [results, points]: row o has sym6 from point 2 o on.
        result, point = tl.arange(0, SIDE // 2)[:, None], tl.arange(0, SIDE)[None, :]
        tap = point - 2 * result
        halving = tl.load(sym6_ptr + tap, mask=(tap >= 0) & (tap < 12), other=0.0)
        rows = tl.dot(halving, tl.reshape(lattice, [SIDE, SIDE * LANES]), input_precision=PRECISION)
        rows = tl.permute(tl.reshape(rows, [SIDE // 2, SIDE, LANES]), [1, 0, 2])
        pixels = tl.dot(halving, tl.reshape(rows, [SIDE, SIDE // 2 * LANES]), input_precision=PRECISION)
        pixels = tl.permute(tl.reshape(pixels, [SIDE // 2, SIDE // 2, LANES]), [1, 0, 2])
        number = tl.arange(0, SIDE * SIDE // 4)
        in_y, in_x = number // (SIDE // 2), number % (SIDE // 2)
        y, x, channel = first_y + in_y, first_x + in_x, tl.arange(0, LANES)[None, :]
        value = finished(
            tl.reshape(pixels, [SIDE * SIDE // 4, LANES]), params_ptr, key, eps, sample, y, x, height, width,
            noise_block, CHANNELS, LANES, COLOR, False, OFFSET, NOISE, CUTOUT, SIDE * SIDE // 4,
        )  # fmt: skip
        inside = (in_y < _RESULTS) & (in_x < _RESULTS) & (y < height) & (x < width)
        at = (y.to(INDEX) * out_y + x.to(INDEX) * out_x)[:, None] + channel.to(INDEX) * out_c
        mask = inside[:, None] & (channel < CHANNELS)
        tl.store(out_ptr + sample * out_n + at, value.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _sampled(
    plane_ptr,
    params_ptr,
    ex0,
    ey0,
    height,
    width,
    LANES: tl.constexpr,
    INDEX: tl.constexpr,
    SIDE: tl.constexpr,
):
    """[SIDE * SIDE, LANES] points of the lattice from (ex0, ey0) on, row by row; what lies beyond the lattice
    is only used for pixels beyond the image."""
    number = tl.arange(0, SIDE * SIDE)
    ey, ex = (number // SIDE).to(tl.float32), (number % SIDE).to(tl.float32)
    a, b, c, d, tau_x, tau_y = lattice_map(params_ptr, height, width)
    origin_x, part_x = whole(a * ex0 + b * ey0 + tau_x)
    origin_y, part_y = whole(c * ex0 + d * ey0 + tau_y)
    jx, share_x = step(part_x + a.to(tl.float32) * ex + b.to(tl.float32) * ey)
    jy, share_y = step(part_y + c.to(tl.float32) * ex + d.to(tl.float32) * ey)
    jx, jy = jx + origin_x, jy + origin_y
    pitch, channel = 6 * width - 4, tl.arange(0, LANES)[None, :]
    value = tl.zeros([SIDE * SIDE, LANES], tl.float32)
    for step_y in tl.static_range(2):
        for step_x in tl.static_range(2):
            x, y = jx + step_x, jy + step_y
            own_x = share_x if step_x == 1 else 1 - share_x
            own_y = share_y if step_y == 1 else 1 - share_y
            there = (x >= -2 * (width - 1)) & (x < 4 * width - 2)
            there = there & (y >= -2 * (height - 1)) & (y < 4 * height - 2)
            # Points beyond the lattice lie outside the box, in memory that was not written.
            there &= (ex + ex0 < 2 * width + 5) & (ey + ey0 < 2 * height + 5)
            at = ((y + 2 * (height - 1)).to(INDEX) * pitch + (x + 2 * (width - 1))) * LANES
            mask = there[:, None] & (channel < LANES)
            point = tl.load(plane_ptr + at[:, None] + channel, mask=mask, other=0.0)
            value += (own_x * own_y)[:, None] * point
    return value
