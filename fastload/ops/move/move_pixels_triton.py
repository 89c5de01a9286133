"""The Triton twin of `move_pixels`: each pixel of the result looks up where it comes from.

LINEAR copies bits of any dtype. ADJOINT gathers too: a pixel of the gradient is the sum of the at most four
that showed it, in a fixed order, so that equal input gives equal bits.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from fastload.ops.move.move_columns import ROTATE, SHIFT_X, SHIFT_Y, XFLIP, YFLIP
from fastload.ops.tiles_triton import index_type, parts_of, pixels_of_tile, reach, strided
from fastload.ops.twins import ADJOINT

# Squares of 32 x 32 pixels: also where rows become columns a program uses all of the memory lines it reads.
# Not measured yet.
BLOCK, TILE_WIDTH, NUM_WARPS = 1024, 32, 4

_XFLIP, _YFLIP, _ROTATE = tl.constexpr(XFLIP), tl.constexpr(YFLIP), tl.constexpr(ROTATE)
_SHIFT_X, _SHIFT_Y = tl.constexpr(SHIFT_X), tl.constexpr(SHIFT_Y)
_SAME_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def launch(images: Any, rows: Any, mode: int) -> Any:
    """A contiguous tensor like the images; nothing is checked. rows: [N, 5] int32, contiguous along a row."""
    out = torch.empty(images.shape, dtype=images.dtype, device=images.device)
    source, to = images, out
    if mode != ADJOINT:
        source, to = (tensor.view(_SAME_SIZE[images.element_size()]) for tensor in (images, out))
    if images.numel():
        for part in parts_of(len(images)):
            _launch(source[part], rows[part], mode, to[part])
    return out


def _launch(images: Any, rows: Any, mode: int, out: Any) -> None:
    n, channels, height, width = images.shape
    tiles_x = triton.cdiv(width, TILE_WIDTH)
    tiles = tiles_x * triton.cdiv(height, BLOCK // TILE_WIDTH)
    with torch.cuda.device_of(images):
        _kernel[(tiles, n)](
            strided(images), strided(rows), height, width, channels, strided(out),
            IS_ADJOINT=mode == ADJOINT, INDEX=index_type(reach(images), reach(out)),
            BLOCK=BLOCK, TILE_WIDTH=TILE_WIDTH, TILES_X=tiles_x, num_warps=NUM_WARPS, enable_fp_fusion=True,
        )  # fmt: skip


@triton.jit
def _kernel(
    images,  # [N, C, H, W]
    rows,  # [N, 5] int32
    height,
    width,
    channels,
    out,  # [N, C, H, W], contiguous along rows
    IS_ADJOINT: tl.constexpr,
    INDEX: tl.constexpr,  # the integers that offsets within an image need
    BLOCK: tl.constexpr,
    TILE_WIDTH: tl.constexpr,
    TILES_X: tl.constexpr,
):
    images_ptr, images_n, images_c, images_y, images_x = images
    rows_ptr, rows_n, rows_column = rows
    out_ptr, out_n, out_c, out_y, _ = out
    image = tl.program_id(1).to(tl.int64)
    row_ptr = rows_ptr + image * rows_n
    turns = tl.load(row_ptr + _ROTATE * rows_column) & 3
    flips_x = (tl.load(row_ptr + _XFLIP * rows_column) != 0) ^ ((turns == 1) | (turns == 2))
    flips_y = (tl.load(row_ptr + _YFLIP * rows_column) != 0) ^ (turns >= 2)
    transposes = turns % 2 == 1
    period_y, period_x = tl.maximum(2 * height - 2, 1), tl.maximum(2 * width - 2, 1)
    # The image goes on with its period: a shift within it cannot overflow.
    shift_y = _modulo(tl.load(row_ptr + _SHIFT_Y * rows_column), period_y)
    shift_x = period_x - _modulo(tl.load(row_ptr + _SHIFT_X * rows_column), period_x)

    y, x = pixels_of_tile(tl.program_id(0), BLOCK, TILE_WIDTH, TILES_X)
    inside = (y < height) & (x < width)
    image_ptr = images_ptr + image * images_n
    to_ptr = out_ptr + image * out_n + (y.to(INDEX) * out_y + x)
    if IS_ADJOINT:
        # Where the pixel went before the shift, then what the shift made of it: itself and its mirror image.
        y, x = tl.where(flips_y, height - 1 - y, y), tl.where(flips_x, width - 1 - x, x)
        y, x = tl.where(transposes, x, y), tl.where(transposes, y, x)
        y0, x0 = _modulo(y - shift_y, period_y), _modulo(x - shift_x, period_x)
        y1, x1 = _modulo(-y - shift_y, period_y), _modulo(-x - shift_x, period_x)
        shows_y0, shows_x0 = inside & (y0 < height), x0 < width
        shows_y1, shows_x1 = inside & (y1 < height) & (y1 != y0), (x1 < width) & (x1 != x0)
        line0_ptr, line1_ptr = image_ptr + y0.to(INDEX) * images_y, image_ptr + y1.to(INDEX) * images_y
        step0, step1 = x0.to(INDEX) * images_x, x1.to(INDEX) * images_x
        for _ in range(channels):
            total = _read(line0_ptr + step0, shows_y0 & shows_x0)
            total += _read(line0_ptr + step1, shows_y0 & shows_x1)
            total += _read(line1_ptr + step0, shows_y1 & shows_x0)
            total += _read(line1_ptr + step1, shows_y1 & shows_x1)
            tl.store(to_ptr, total.to(out_ptr.dtype.element_ty), mask=inside)
            # Step by step, for the product might not fit 32 bits.
            line0_ptr += images_c
            line1_ptr += images_c
            to_ptr += out_c
    else:
        y, x = _modulo(y + shift_y, period_y), _modulo(x + shift_x, period_x)
        y, x = tl.where(y < height, y, period_y - y), tl.where(x < width, x, period_x - x)
        y, x = tl.where(transposes, x, y), tl.where(transposes, y, x)
        y, x = tl.where(flips_y, height - 1 - y, y), tl.where(flips_x, width - 1 - x, x)
        source_ptr = image_ptr + (y.to(INDEX) * images_y + x.to(INDEX) * images_x)
        for _ in range(channels):
            tl.store(to_ptr, tl.load(source_ptr, mask=inside), mask=inside)
            source_ptr += images_c
            to_ptr += out_c


@triton.jit
def _modulo(value, period):
    """In [0, period), also for negative values."""
    return (value % period + period) % period


@triton.jit
def _read(at, mask):
    """The value in the type of the sums: float64 for float64, else float32."""
    value = tl.load(at, mask=mask, other=0.0)
    return value if at.dtype.element_ty == tl.float64 else value.to(tl.float32)
