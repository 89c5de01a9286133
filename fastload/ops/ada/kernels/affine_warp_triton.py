"""The Triton twin of `affine_warp` and its adjoint: streaming kernels over packed planes, no atomics.

The pixel-wise stages of ada_pointwise_triton.py are compiled into the last kernel. affine_warp.py says what a
warp is and names its steps; a general one is here

    forward   up_kernel (extend, upsample) -> doubled plane;  sample_kernel (sample, halve columns) -> rows;
              down_kernel (halve rows, finish);  or FORM "tiles": up_kernel, then tile_kernel
    adjoint   up_kernel (of the gradient) -> lattice;  spread_kernel (sample's transpose, as a gather) ->
              doubled plane;  fold_rows_kernel, fold_columns_kernel (upsample's transpose, reflections,
              finish)

Where nothing is warped (A = 1, whole pixels) the last kernel copies, exactly; where the axes are not mixed,
affine_axes_triton.py does one after the other. Each kernel passes over the samples that are not its own, so
that the host need not know which is which.

Planes are [rows, columns, LANES] float32, so that all channels of a point are one load of 16 bytes. A doubled
plane is as large as reflection reaches, 576 bytes for each pixel of an image, and of it only the box is
touched that a sample looks at. Samples go through SCRATCH_BYTES of planes in groups, in order, one sample at
least: 0.6 GB for one of 1024 x 1024.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from fastload.ops.ada import ada_params as columns
from fastload.ops.ada.kernels import affine_adjoint_triton as back
from fastload.ops.ada.kernels import affine_axes_triton as axes
from fastload.ops.ada.kernels import affine_tile_triton as tiles
from fastload.ops.ada.kernels.ada_pointwise_triton import Noise, finished, lanes_of
from fastload.ops.ada.kernels.affine_axes_triton import along_y
from fastload.ops.ada.kernels.warp_points_triton import (
    COPIED,
    GENERAL,
    TURNED,
    folded,
    kind_of,
    lattice_map,
    moved_by,
    step,
    whole,
)
from fastload.ops.ada.kernels.warp_up_triton import up_kernel
from fastload.ops.ada.stages.wavelets import SYM6
from fastload.ops.tiles_triton import MAX_IMAGES, index_type, parts_of, reach, strided

# None of these sizes has been measured yet: lanes of 128 threads, strips that overlap by a sixth and less.
UP_BLOCK, UP_ROWS = 128, 32  # pairs of columns and of rows of a tile of the doubled plane
SAMPLE_BLOCK, SAMPLE_ROWS = 128, 32  # columns of the lattice, rows of the result
SPREAD_BLOCK, PIXEL_BLOCK = 128, 256  # points and pixels of a program
NUM_WARPS = 4
FORM = "streaming"  # of a general warp: sample_kernel and down_kernel; "tiles": affine_tile_triton.py
SCRATCH_BYTES = 512 * 2**20
# Programs of a sample share out its tiles; so many that a box of twice the image leaves each with one.
TILES_OF_A_BOX = 2

_COLUMNS, _TAPS = tl.constexpr(columns.COLUMNS), tl.constexpr(SYM6)
_S0, _S1, _S2, _S3, _S4, _S5, _S6, _S7, _S8, _S9, _S10, _S11 = (tl.constexpr(tap) for tap in SYM6)


def launch(
    images: Any, rows: Any, out: Any, *, adjoint: bool, color: bool, offset: bool = False,
    noise: Noise | None = None, cutout: bool = False, first_channel: int = 0,
) -> Any:  # fmt: skip
    """Writes the warped images, or with `adjoint` their gradients, to `out` and returns it.

    images: [N, C, H, W] floats of any strides, C up to 4; out: the same shape. rows: [N, 40] float32. color:
    the colours' matrix follows, transposed for the adjoint; offset, noise: as ada_pointwise_triton.py has
    them, not for the adjoint. cutout: pixels are cut, of the result, or for the adjoint of the gradient that
    comes in.
    """
    n, channels, height, width = images.shape
    noise = noise or Noise()
    lanes = lanes_of(channels)
    doubled, lattice = (6 * height - 4) * (6 * width - 4), (2 * height + 12) * (2 * width + 12)
    between = (6 * height - 4) * width if adjoint else height * (2 * width + 10)
    floats = (doubled + between + (lattice if adjoint else 0)) * lanes
    group = max(1, min(SCRATCH_BYTES // (4 * floats), n, MAX_IMAGES))
    scratch = torch.empty(group * floats, dtype=torch.float32, device=images.device)
    options = {
        "CHANNELS": channels,
        "LANES": lanes,
        "INDEX": index_type(doubled * lanes, reach(images), reach(out)),
        "num_warps": NUM_WARPS,
        "enable_fp_fusion": True,
    }
    with torch.cuda.device_of(images):
        for part in parts_of(n, group):
            count = (part.stop - part.start) * lanes
            sizes = [count * points for points in (doubled, between, *[lattice] * adjoint)]
            planes = scratch[: sum(sizes)].split(sizes)
            tables = axes.tables_of(rows[part], height, width)
            some = (images[part], rows[part], out[part], *planes, tables)
            if adjoint:
                _adjoint(*some, color, cutout, options)
            else:
                finish = {"COLOR": color, "OFFSET": offset, "NOISE": noise.kind, "CUTOUT": cutout}
                _forward(*some, noise.part(part), first_channel // 4, finish, options)
    return out


def _forward(images, rows, out, doubled, between, tables, noise, noise_block, finish, options) -> None:
    n, _, height, width = images.shape
    size = (height, width)
    strips = triton.cdiv(width, UP_BLOCK) * triton.cdiv(height, UP_ROWS) * TILES_OF_A_BOX
    up_kernel[(strips, n)](
        strided(images), rows, doubled, *size,
        ADJOINT=False, CUTOUT=False, BLOCK=UP_BLOCK, ROWS=UP_ROWS, **options,
    )  # fmt: skip
    if FORM == "tiles":
        grid = (triton.cdiv(width, tiles.RESULTS) * triton.cdiv(height, tiles.RESULTS), n)
        tiles.tile_kernel[grid](
            doubled, axes.sym6_on(rows.device), rows, *noise.arguments(images), strided(out), *size,
            noise_block, SIDE=tiles.SIDE, PRECISION=tiles.PRECISION, **finish,
            **(options | {"num_warps": tiles.NUM_WARPS}),
        )  # fmt: skip
    else:
        grid = (triton.cdiv(2 * width + 10, SAMPLE_BLOCK) * triton.cdiv(height, SAMPLE_ROWS), n)
        sample_kernel[grid](doubled, rows, between, *size, BLOCK=SAMPLE_BLOCK, ROWS=SAMPLE_ROWS, **options)
    axes.contract_kernel[(triton.cdiv(height * max(size), PIXEL_BLOCK), n)](
        strided(images), rows, tables, between, between.numel() // n, *size,
        BLOCK=PIXEL_BLOCK, **options,
    )  # fmt: skip
    down_kernel[(triton.cdiv(height * width, PIXEL_BLOCK), n)](
        between, strided(images), rows, tables, *noise.arguments(images), strided(out), *size, noise_block,
        TILED=FORM == "tiles", BLOCK=PIXEL_BLOCK, **finish, **options,
    )  # fmt: skip


def _adjoint(gradients, rows, out, doubled, between, lattice, tables, color, cutout, options) -> None:
    n, _, height, width = gradients.shape
    size = (height, width)
    strips = triton.cdiv(width + 6, UP_BLOCK) * triton.cdiv(height + 6, UP_ROWS)
    up_kernel[(strips, n)](
        strided(gradients), rows, lattice, *size,
        ADJOINT=True, CUTOUT=cutout, BLOCK=UP_BLOCK, ROWS=UP_ROWS, **options,
    )  # fmt: skip
    points = triton.cdiv(4 * height * width, SPREAD_BLOCK) * TILES_OF_A_BOX
    back.spread_kernel[(points, n)](lattice, rows, doubled, *size, BLOCK=SPREAD_BLOCK, **options)
    points = triton.cdiv(2 * height * width, PIXEL_BLOCK) * TILES_OF_A_BOX
    back.fold_rows_kernel[(points, n)](doubled, rows, between, *size, BLOCK=PIXEL_BLOCK, **options)
    axes.expand_kernel[(triton.cdiv(height * max(size), PIXEL_BLOCK), n)](
        strided(gradients), rows, tables, between, between.numel() // n, *size,
        CUTOUT=cutout, BLOCK=PIXEL_BLOCK, **options,
    )  # fmt: skip
    back.fold_columns_kernel[(triton.cdiv(height * width, PIXEL_BLOCK), n)](
        between, strided(gradients), rows, tables, strided(out), *size,
        COLOR=color, CUTOUT=cutout, BLOCK=PIXEL_BLOCK, **options,
    )  # fmt: skip


@triton.jit
def sample_kernel(
    plane_ptr,  # [N, 6 H - 4, 6 W - 4, LANES] float32, doubled
    rows_ptr,  # [N, 40] float32, contiguous
    out_ptr,  # [N, H, 2 W + 10, LANES] float32
    height,
    width,
    CHANNELS: tl.constexpr,
    LANES: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Samples the lattice and halves its rows: a program runs down BLOCK columns, ten rows in registers."""
    sample = tl.program_id(1).to(tl.int64)
    params_ptr = rows_ptr + sample * _COLUMNS
    plane_ptr += sample * (6 * height - 4) * (6 * width - 4) * LANES
    columns_x = 2 * width + 10
    tiles_x = tl.cdiv(columns_x, BLOCK)
    first, y0 = (tl.program_id(0) % tiles_x) * BLOCK, (tl.program_id(0) // tiles_x) * ROWS
    column = first + tl.arange(0, BLOCK)
    lane, there, ex0 = tl.arange(0, BLOCK).to(tl.float32), column < columns_x, first - 5
    a, b, c, d, tau_x, tau_y = lattice_map(params_ptr, height, width)
    is_general = kind_of(params_ptr, height, width) == GENERAL
    channel = tl.arange(0, LANES)[None, :]
    at = out_ptr + sample * height * columns_x * LANES + (column * LANES)[:, None] + channel
    zero = tl.zeros([BLOCK, LANES], tl.float32)
    w0, w1, w2, w3, w4 = zero, zero, zero, zero, zero
    w5, w6, w7, w8, w9 = zero, zero, zero, zero, zero
    of_row = (ex0, lane, there, a, b, c, d, tau_x, tau_y, height, width, channel)
    for turn in range(tl.where(is_general, tl.minimum(ROWS, height - y0) + 5, 0)):
        ey = 2 * (y0 + turn) - 5
        w10 = _sampled(plane_ptr, ey, *of_row, INDEX, LANES)
        w11 = _sampled(plane_ptr, ey + 1, *of_row, INDEX, LANES)
        row = y0 + turn - 5 + tl.zeros([BLOCK], tl.int32)
        value = _halved(w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11)
        kept = (there & (row >= y0))[:, None] & (channel < LANES)
        tl.store(at + (row.to(INDEX) * (columns_x * LANES))[:, None], value, mask=kept)
        w0, w1, w2, w3, w4 = w2, w3, w4, w5, w6
        w5, w6, w7, w8, w9 = w7, w8, w9, w10, w11


@triton.jit
def _sampled(plane_ptr, ey, ex0, lane, there, a, b, c, d, tau_x, tau_y, height, width, channel,
             INDEX: tl.constexpr, LANES: tl.constexpr):  # fmt: skip
    """A row of the lattice: [BLOCK, LANES] at the points (ex0 + lane, ey)."""
    base_x, part_x = whole(a * ex0 + b * ey + tau_x)
    base_y, part_y = whole(c * ex0 + d * ey + tau_y)
    jx, fx = step(part_x + a.to(tl.float32) * lane)
    jy, fy = step(part_y + c.to(tl.float32) * lane)
    jx, jy = jx + base_x, jy + base_y
    first_x, first_y, pitch = -2 * (width - 1), -2 * (height - 1), 6 * width - 4
    stop_x, stop_y = 4 * width - 2, 4 * height - 2
    limits = (first_x, first_y, stop_x, stop_y, pitch, channel, there)
    value = _tap(plane_ptr, jx, jy, (1 - fx) * (1 - fy), *limits, INDEX, LANES)
    value += _tap(plane_ptr, jx + 1, jy, fx * (1 - fy), *limits, INDEX, LANES)
    value += _tap(plane_ptr, jx, jy + 1, (1 - fx) * fy, *limits, INDEX, LANES)
    return value + _tap(plane_ptr, jx + 1, jy + 1, fx * fy, *limits, INDEX, LANES)


@triton.jit
def _tap(plane_ptr, jx, jy, weight, first_x, first_y, stop_x, stop_y, pitch, channel, there,
         INDEX: tl.constexpr, LANES: tl.constexpr):  # fmt: skip
    there &= (jx >= first_x) & (jx < stop_x) & (jy >= first_y) & (jy < stop_y)
    at = ((jy - first_y).to(INDEX) * pitch + (jx - first_x)) * LANES
    mask = there[:, None] & (channel < LANES)
    return weight[:, None] * tl.load(plane_ptr + at[:, None] + channel, mask=mask, other=0.0)


@triton.jit
def _halved(w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11):
    value = w0 * _S0 + w1 * _S1 + w2 * _S2 + w3 * _S3 + w4 * _S4 + w5 * _S5
    return value + (w6 * _S6 + w7 * _S7 + w8 * _S8 + w9 * _S9 + w10 * _S10 + w11 * _S11)


@triton.jit(do_not_specialize=["noise_block"])
def down_kernel(
    plane_ptr,  # [N, H, 2 W + 10, LANES] float32: rows halved, columns not; of axes what contract_kernel made
    images,  # [N, C, H, W] floats: what is copied where nothing is warped
    rows_ptr,  # [N, 40] float32, contiguous
    tables,  # as tables_of makes them
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
    TILED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Halves the columns, or copies, or goes along y, and finishes pixels. TILED: not of general warps."""
    images_ptr, images_n, images_c, images_y, images_x = images
    out_ptr, out_n, out_c, out_y, out_x = out
    sample = tl.program_id(1).to(tl.int64)
    params_ptr = rows_ptr + sample * _COLUMNS
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    y, x = pixel // width, pixel % width
    channel = tl.arange(0, LANES)[None, :]
    kind = kind_of(params_ptr, height, width)
    rows = height
    if TILED:
        rows = tl.where(kind == GENERAL, 0, height)
    there = (y < rows)[:, None] & (channel < CHANNELS)
    columns_x = 2 * width + 10
    plane_ptr += sample * height * columns_x * LANES
    _copied, move_x, move_y = moved_by(params_ptr, height, width)
    if kind == COPIED:
        from_x, _reached_x = folded(x + move_x, width)
        from_y, _reached_y = folded(y + move_y, height)
        image_ptr = images_ptr + sample * images_n + channel.to(INDEX) * images_c
        from_ptr = image_ptr + (from_y.to(INDEX) * images_y + from_x.to(INDEX) * images_x)[:, None]
        value = tl.load(from_ptr, mask=there, other=0.0).to(tl.float32)
    elif kind == GENERAL:
        line_ptr = plane_ptr + ((y.to(INDEX) * columns_x + 2 * x) * LANES)[:, None] + channel
        whole_lanes = (y < height)[:, None] & (channel < LANES)  # all alike, so that they are one load
        value = tl.zeros([BLOCK, LANES], tl.float32)
        for k in tl.static_range(12):
            value += tl.load(line_ptr + k * LANES, mask=whole_lanes, other=0.0) * _TAPS[k]
    else:
        value = along_y(
            plane_ptr, params_ptr, tables, sample, kind == TURNED, y, x, y < height, height, width,
            LANES, INDEX, BLOCK,
        )  # fmt: skip
    value = finished(
        value, params_ptr, key, eps, sample, y, x, height, width, noise_block,
        CHANNELS, LANES, COLOR, False, OFFSET, NOISE, CUTOUT, BLOCK,
    )  # fmt: skip
    at = (
        out_ptr
        + sample * out_n
        + (y.to(INDEX) * out_y + x.to(INDEX) * out_x)[:, None]
        + channel.to(INDEX) * out_c
    )
    tl.store(at, value.to(out_ptr.dtype.element_ty), mask=there)
