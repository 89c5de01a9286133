"""Warps whose axes are not mixed, in Triton: one axis after the other, from a table of taps, and back.

In: what affine_warp_triton.py gives all its kernels. Where A is a diagonal or an antidiagonal matrix
(nothing, or flips, scales and quarter turns alone, as for most images while p is low), all steps of
affine_warp.py together are one short filter for each row and one for each column of the result: at most 32
pixels of a line of the image, which the table holds with the number of the first one. `contracted` is the
image along x, [H, W] points of LANES, or of a turned one [results along x, H]; the kernels that finish the
warp do the other axis.

table: [N, 2, max(H, W), TAPS] float32, bases: [N, 2, max(H, W)] int32; the second axis is the image's, x and
    y.
"""

import functools
from typing import Any

import torch
import triton
import triton.language as tl

from fastload.ops.ada import ada_params as columns
from fastload.ops.ada.kernels.ada_pointwise_triton import is_cut
from fastload.ops.ada.kernels.warp_points_triton import (
    STRAIGHT,
    TURNED,
    folded,
    kind_of,
    lattice_map,
    reflection,
    step,
    whole,
)
from fastload.ops.ada.stages.wavelets import SYM6

TAPS = 32  # of a line of the table
TABLE_BLOCK = 32  # results whose taps a program makes

_COLUMNS, _CUT_CENTER = tl.constexpr(columns.COLUMNS), tl.constexpr(columns.CUT_CENTER)
_TAPS, _SYM6 = tl.constexpr(TAPS), tl.constexpr(SYM6)


def tables_of(rows: Any, height: int, width: int) -> tuple:
    """(table, bases, lines) of rows [N, 40], N up to 65535; of samples of other kinds nothing is written."""
    n, lines, device = rows.shape[0], max(height, width), rows.device
    table = torch.empty(n, 2, lines, TAPS, dtype=torch.float32, device=device)
    bases = torch.empty(n, 2, lines, dtype=torch.int32, device=device)
    _table_kernel[(triton.cdiv(lines, TABLE_BLOCK), n, 2)](
        rows, sym6_on(device), table, bases, lines, height, width,
        BLOCK=TABLE_BLOCK, num_warps=4, enable_fp_fusion=True,
    )  # fmt: skip
    return table, bases, lines


@functools.cache
def sym6_on(device: Any) -> Any:
    return torch.tensor(SYM6, dtype=torch.float32, device=device)


@triton.jit
def _axis(params_ptr, axis, turned, height, width):
    """Of an axis of the image: slope and tau in float64 (result q shows slope (2 q + k - 5) + tau), its side,
    and how many results there are along it."""
    a, b, c, d, tau_x, tau_y = lattice_map(params_ptr, height, width)
    slope = tl.where(axis == 0, tl.where(turned, b, a), tl.where(turned, c, d))
    slope = tl.where(slope == 0, 1.0, slope)  # of a kind that no kernel of this file works on
    side = tl.where(axis == 0, width, height)
    count = tl.where(turned, height + width - side, side)
    return slope, tl.where(axis == 0, tau_x, tau_y), side, count


@triton.jit
def _taps_of(slope):
    """How many pixels a result is made of, at most; a few more than needed, which weigh nothing."""
    return ((11 * tl.abs(slope) + 13) * 0.5).to(tl.int32) + 3


@triton.jit
def _table_kernel(
    rows_ptr,  # [N, 40] float32, contiguous
    sym6_ptr,  # [12] float32
    table_ptr,  # [N, 2, lines, TAPS] float32
    bases_ptr,  # [N, 2, lines] int32
    lines,
    height,
    width,
    BLOCK: tl.constexpr,
):
    sample, axis = tl.program_id(1).to(tl.int64), tl.program_id(2)
    params_ptr = rows_ptr + sample * _COLUMNS
    kind = kind_of(params_ptr, height, width)
    slope, tau, side, count = _axis(params_ptr, axis, kind == TURNED, height, width)
    count = tl.where((kind == STRAIGHT) | (kind == TURNED), count, 0)
    first = tl.program_id(0) * BLOCK
    lane = tl.arange(0, BLOCK)
    there = first + lane < count
    origin, part = whole(slope * (2 * first - 5) + tau)
    slope = slope.to(tl.float32)
    coordinate = part + (2 * slope) * lane
    lowest, _ = step(tl.minimum(coordinate, coordinate + 11 * slope))
    base = (lowest + origin - 6) >> 1
    pixel = base[:, None] + tl.arange(0, _TAPS)[None, :]
    weight = tl.zeros([BLOCK, _TAPS], tl.float32)
    for k in tl.static_range(12):
        j, share = step(coordinate + slope * k)
        j += origin
        for beside in tl.static_range(2):
            at = j + beside
            tap = at[:, None] + 5 - 2 * pixel
            inside = (at >= -2 * (side - 1)) & (at < 4 * side - 2)
            mask = (tap >= 0) & (tap < 12) & inside[:, None]
            own = share if beside == 1 else 1 - share
            weight += (own * (2 * _SYM6[k]))[:, None] * tl.load(sym6_ptr + tap, mask=mask, other=0.0)
    line = (sample * 2 + axis) * lines + first + lane
    tl.store(bases_ptr + line, base, mask=there)
    tl.store(table_ptr + line[:, None] * _TAPS + tl.arange(0, _TAPS)[None, :], weight, mask=there[:, None])


@triton.jit
def contract_kernel(
    images,  # [N, C, H, W] floats
    rows_ptr,  # [N, 40] float32, contiguous
    tables,  # as tables_of makes them
    out_ptr,  # [N, out_n] float32: contracted
    out_n,
    height,
    width,
    CHANNELS: tl.constexpr,
    LANES: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Straight and turned images along x."""
    images_ptr, images_n, images_c, images_y, images_x = images
    table_ptr, bases_ptr, lines = tables
    sample = tl.program_id(1).to(tl.int64)
    params_ptr = rows_ptr + sample * _COLUMNS
    kind = kind_of(params_ptr, height, width)
    turned = kind == TURNED
    slope, _, _, count = _axis(params_ptr, 0, turned, height, width)
    point = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    y, q = point // count, point % count
    runs = (kind == STRAIGHT) | (kind == TURNED)
    there = y < tl.where(runs, height, 0)
    line = sample * 2 * lines + q
    base = tl.load(bases_ptr + line, mask=there, other=0)
    channel = tl.arange(0, LANES)[None, :]
    image_ptr = (
        images_ptr + sample * images_n + (y.to(INDEX) * images_y)[:, None] + channel.to(INDEX) * images_c
    )
    value = tl.zeros([BLOCK, LANES], tl.float32)
    for tap in range(tl.where(runs, _taps_of(slope), 0)):
        weight = tl.load(table_ptr + line * _TAPS + tap, mask=there, other=0.0)
        x, reached = folded(base + tap, width)
        mask = (there & reached)[:, None] & (channel < CHANNELS)
        pixel = tl.load(image_ptr + (x.to(INDEX) * images_x)[:, None], mask=mask, other=0.0)
        value += weight[:, None] * pixel.to(tl.float32)
    at = tl.where(turned, q.to(INDEX) * height + y, y.to(INDEX) * width + q)
    at = out_ptr + sample * out_n + (at * LANES)[:, None] + channel
    tl.store(at, value, mask=there[:, None] & (channel < LANES))


@triton.jit
def along_y(
    plane_ptr, params_ptr, tables, sample, turned, y, x, there, height, width,
    LANES: tl.constexpr, INDEX: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The results [BLOCK, LANES] at rows y and columns x, from what `contract_kernel` made of the sample."""
    table_ptr, bases_ptr, lines = tables
    slope, _, _, _ = _axis(params_ptr, 1, turned, height, width)
    q = tl.where(turned, x, y)
    line = (sample * 2 + 1) * lines + q
    base = tl.load(bases_ptr + line, mask=there, other=0)
    channel = tl.arange(0, LANES)[None, :]
    value = tl.zeros([BLOCK, LANES], tl.float32)
    for tap in range(_taps_of(slope)):
        weight = tl.load(table_ptr + line * _TAPS + tap, mask=there, other=0.0)
        from_y, reached = folded(base + tap, height)
        at = tl.where(turned, y.to(INDEX) * height + from_y, from_y.to(INDEX) * width + x)
        mask = (there & reached)[:, None] & (channel < LANES)
        value += weight[:, None] * tl.load(plane_ptr + (at * LANES)[:, None] + channel, mask=mask, other=0.0)
    return value


@triton.jit
def _takers(pixel, slope, tau):
    """The first result that may be made of each pixel of a line, and how many follow that may be, too."""
    middle = ((2 * pixel - tau.to(tl.float32)) / slope.to(tl.float32) - 0.5) * 0.5
    reach = ((5.5 * tl.abs(slope) + 8) / (2 * tl.abs(slope))).to(tl.float32)
    first, _ = step(middle - reach)
    return first, (2 * reach).to(tl.int32) + 3


@triton.jit
def _taken(q, pixel, count, tables, line, wanted):
    """How much result q takes of a pixel, and whether it takes any."""
    table_ptr, bases_ptr, _ = tables
    takes = wanted & (q >= 0) & (q < count)
    tap = pixel - tl.load(bases_ptr + line + q, mask=takes, other=0)
    takes &= (tap >= 0) & (tap < _TAPS)
    return tl.load(table_ptr + (line + q) * _TAPS + tap, mask=takes, other=0.0), takes


@triton.jit
def expand_kernel(
    gradients,  # [N, C, H, W] floats
    rows_ptr,  # [N, 40] float32, contiguous
    tables,  # as tables_of makes them
    out_ptr,  # [N, out_n] float32: gradients of what is contracted
    out_n,
    height,
    width,
    CUTOUT: tl.constexpr,
    CHANNELS: tl.constexpr,
    LANES: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The transpose of `along_y`, with the reflections added up."""
    gradients_ptr, gradients_n, gradients_c, gradients_y, gradients_x = gradients
    sample = tl.program_id(1).to(tl.int64)
    params_ptr = rows_ptr + sample * _COLUMNS
    kind = kind_of(params_ptr, height, width)
    turned = kind == TURNED
    slope, tau, _, count = _axis(params_ptr, 1, turned, height, width)
    _, _, _, others = _axis(params_ptr, 0, turned, height, width)
    inner = tl.where(turned, height, width)
    point = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    outer, within = point // inner, point % inner
    y, other = tl.where(turned, within, outer), tl.where(turned, outer, within)
    runs = (kind == STRAIGHT) | (kind == TURNED)
    there = (y < tl.where(runs, height, 0)) & (other < others)
    line = (sample * 2 + 1) * tables[2]
    channel = tl.arange(0, LANES)[None, :]
    gradient_ptr = gradients_ptr + sample * gradients_n + channel.to(INDEX) * gradients_c
    value = tl.zeros([BLOCK, LANES], tl.float32)
    for number in tl.static_range(3):
        pixel, reflects = reflection(y, number, height)
        first, tries = _takers(pixel, slope, tau)
        for i in range(tl.where(runs, tries, 0)):
            q = first + i
            weight, takes = _taken(q, pixel, count, tables, line, there & reflects)
            from_y, from_x = tl.where(turned, other, q), tl.where(turned, q, other)
            some = gradient(
                gradient_ptr, from_y, from_x, gradients_y, gradients_x, takes, channel < CHANNELS, params_ptr,
                height, width, CUTOUT, INDEX,
            )  # fmt: skip
            value += weight[:, None] * some
    at = out_ptr + sample * out_n + (point.to(INDEX) * LANES)[:, None] + channel
    tl.store(at, value, mask=there[:, None] & (channel < LANES))


@triton.jit
def back_along_x(
    plane_ptr, params_ptr, tables, sample, turned, y, x, there, height, width,
    LANES: tl.constexpr, INDEX: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The transpose of `contract_kernel` at rows y and columns x, from what `expand_kernel` made."""
    slope, tau, _, count = _axis(params_ptr, 0, turned, height, width)
    line = sample * 2 * tables[2]
    channel = tl.arange(0, LANES)[None, :]
    value = tl.zeros([BLOCK, LANES], tl.float32)
    for number in tl.static_range(3):
        pixel, reflects = reflection(x, number, width)
        first, tries = _takers(pixel, slope, tau)
        for i in range(tries):
            q = first + i
            weight, takes = _taken(q, pixel, count, tables, line, there & reflects)
            at = tl.where(turned, q.to(INDEX) * height + y, y.to(INDEX) * width + q)
            mask = takes[:, None] & (channel < LANES)
            some = tl.load(plane_ptr + (at * LANES)[:, None] + channel, mask=mask, other=0.0)
            value += weight[:, None] * some
    return value


@triton.jit
def gradient(at, y, x, gradients_y, gradients_x, wanted, there, params_ptr, height, width,
              CUTOUT: tl.constexpr, INDEX: tl.constexpr):  # fmt: skip
    """[BLOCK, LANES] of the gradients at these rows and columns, 0 outside and where the image was cut."""
    wanted &= (y >= 0) & (y < height) & (x >= 0) & (x < width)
    if CUTOUT:
        cut_x = is_cut(params_ptr + _CUT_CENTER, params_ptr, x, width)
        wanted &= ~(cut_x & is_cut(params_ptr + _CUT_CENTER + 1, params_ptr, y, height))
    at += (y.to(INDEX) * gradients_y + x.to(INDEX) * gradients_x)[:, None]
    return tl.load(at, mask=there & wanted[:, None], other=0.0).to(tl.float32)
