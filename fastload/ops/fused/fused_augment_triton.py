"""The Triton twin of `fused_augment`: one pass over the pixels, all channels and all stages in one program.

In: images [N, H, W, C] uint8 or float32 of any strides, rows [N, 32] float32 (augment_params.py says which
column is what), and which stages there are: those are compiled in, the others cost nothing. Out: `out`
[N, C, H, W], float32, float16, bfloat16 or uint8, of any strides. Only a jitter with a contrast costs a
second pass, before the other: each image's mean of gray as partial sums, which are added up in a fixed order,
so that equal input gives equal bits.

A program makes a tile of one image. What differs between images (mirrored or warped, the order of the jitter)
is a branch that all lanes of a program take together.
"""

import math
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

from fastload.normalize import Normalization
from fastload.ops.fused import augment_params as columns
from fastload.ops.fused.augment_params import Stage
from fastload.ops.fused.augment_stages_triton import (
    as_uint8,
    at_most,
    gray,
    hue_shifted,
    is_kept,
    jittered,
    recoloured,
    saturated,
)
from fastload.ops.tiles_triton import (
    BLOCK,
    NUM_WARPS,
    SPLITS,
    index_type,
    parts_of,
    pixels_of_tile,
    reach,
    strided,
    tiles_of,
    total_of,
)

# What a lane that gathers bilinear pixels would take more would leave room for fewer warps, also where images
# are only mirrored. Not measured yet.
MAX_REGISTERS = 40

_G_INV, _JITTER = tl.constexpr(columns.G_INV), tl.constexpr(columns.JITTER)
_ORDER, _HSV = tl.constexpr(columns.ORDER), tl.constexpr(columns.HSV)
_COLUMNS, _CONTRAST = tl.constexpr(columns.COLUMNS), tl.constexpr(1)


def launch(images: Any, rows: Any, stages: int, rule: Normalization, out: Any, nearest: bool) -> Any:
    """Writes the changed images to `out` and returns it; nothing is checked.

    images: [N, H, W, C] uint8 or float32, C 1 or 3. rows: [N, 32] float32. stages: a `Stage`. rule: of a
        result in floats. out: [N, C, H, W] float32, float16, bfloat16 or uint8. All on one device.
    """
    n, height, width, channels = images.shape
    if not images.numel():
        return out
    parts = parts_of(n)
    if len(parts) > 1:
        for part in parts:
            launch(images[part], rows[part], stages, rule, out[part], nearest)
        return out
    rows = rows.contiguous()
    tile_width, tiles_x, tiles = tiles_of(height, width, BLOCK)
    splits = min(SPLITS, tiles)
    has = {stage.name: bool(stages & stage) for stage in Stage}
    has["MEAN"] &= has["JITTER"]
    partial_sums = torch.empty(n, splits if has["MEAN"] else 0, dtype=torch.float32, device=images.device)
    compiled_in = {
        "CHANNELS": channels,
        "UNIT": 1 / 255 if images.dtype == torch.uint8 else 1.0,
        "WORDS": _is_read_in_words(images),
        "NEAREST": nearest,
        "INDEX": index_type(reach(images), reach(out)),
        "BLOCK": BLOCK,
        "TILE_WIDTH": tile_width,
        "TILES_X": tiles_x,
        "num_warps": NUM_WARPS,
        "maxnreg": MAX_REGISTERS,
        "enable_fp_fusion": True,
    }
    with torch.cuda.device_of(images):
        if has["MEAN"]:
            _gray_sums_kernel[(splits, n)](
                strided(images), rows, partial_sums, splits, height, width, tiles,
                WARP=has["WARP"], **compiled_in,
            )  # fmt: skip
        _kernel[(tiles, n)](
            strided(images), rows, partial_sums, splits, height, width, strided(out),
            *_range(rule, channels, images.dtype, out.dtype), **has, **compiled_in,
        )  # fmt: skip
    return out


def _is_read_in_words(images: Any) -> bool:
    """Whether four pixels of three bytes can be read as three aligned words of four bytes."""
    n_stride, row_stride, pixel_stride, channel_stride = images.stride()
    packed = images.dtype == torch.uint8 and images.shape[3] == 3 and (pixel_stride, channel_stride) == (3, 1)
    return packed and not (images.shape[2] | n_stride | row_stride | images.data_ptr()) % 4


def _range(rule: Normalization, channels: int, source: torch.dtype, dtype: torch.dtype) -> list[tuple]:
    """What makes a result of a value in [0, 1]: scales, shifts and the largest results of three channels.

    The ends are those of the reference to the last bit. Floats beyond [0, 1] are not cut off."""
    if dtype == torch.uint8:
        return [(255.0,) * 3, (0.5,) * 3, (math.inf,) * 3]
    low, high = rule.ends()
    three = range(3) if channels == 3 else (0, 0, 0)
    scale = [np.float32(255 / rule.divisor / rule.std[channel]) for channel in range(3)]
    if source != torch.uint8:
        for channel in range(3):
            while scale[channel] + low[channel] > high[channel]:
                scale[channel] = np.nextafter(scale[channel], np.float32(0))
        high = [math.inf] * 3
    return [tuple(float(numbers[channel]) for channel in three) for numbers in (scale, low, high)]


@triton.jit
def _kernel(
    images,  # [N, H, W, C] uint8 or float32
    rows_ptr,  # [N, 32] float32, contiguous
    partial_sums_ptr,  # [N, splits] float32, contiguous; read where there is MEAN
    splits,
    height,
    width,
    out,  # [N, C, H, W]
    scale,  # of red, green and blue, as the two below
    shift,
    highest,
    WARP: tl.constexpr,  # which stages there are
    JITTER: tl.constexpr,
    MEAN: tl.constexpr,
    COLOR: tl.constexpr,
    HSV: tl.constexpr,
    CUTOUT: tl.constexpr,
    CHANNELS: tl.constexpr,
    UNIT: tl.constexpr,  # factor from stored values to [0, 1]: 1 / 255 for uint8
    WORDS: tl.constexpr,
    NEAREST: tl.constexpr,
    INDEX: tl.constexpr,  # the integers that offsets within an image need
    BLOCK: tl.constexpr,
    TILE_WIDTH: tl.constexpr,
    TILES_X: tl.constexpr,  # in a row of tiles; not a variable, because every lane divides by it
):
    images_ptr, images_n, images_y, images_x, images_c = images
    out_ptr, out_n, out_c, out_y, out_x = out
    tile, image = tl.program_id(0), tl.program_id(1)
    if MEAN:
        # From the last image to the first: those that the sums were taken of last are still in the L2 cache.
        image = tl.num_programs(1) - 1 - image
    row_ptr = rows_ptr + image.to(tl.int64) * _COLUMNS
    pixels = (images_ptr + image.to(tl.int64) * images_n, images_y, images_x, images_c)
    red, green, blue = _read(
        pixels, row_ptr, tile, height, width,
        WARP, CHANNELS, WORDS, NEAREST, INDEX, BLOCK, TILE_WIDTH, TILES_X,
    )  # fmt: skip
    y, x = pixels_of_tile(tile, BLOCK, TILE_WIDTH, TILES_X)

    # Values are as they were stored until a stage needs them in [0, 1]: a matrix and the normalization take
    # UNIT into their own factors, where it costs nothing per pixel.
    unit = UNIT
    if JITTER:
        red, green, blue = red * UNIT, green * UNIT, blue * UNIT
        unit = 1.0
        mean = 0.0
        if MEAN:
            mean = total_of(partial_sums_ptr, image, splits) / (height * 1.0 * width)
        red, green, blue = jittered(red, green, blue, row_ptr, mean, 4, CHANNELS)
    if COLOR:
        red, green, blue = recoloured(red, green, blue, row_ptr, unit, CHANNELS)
        unit = 1.0
    if HSV and CHANNELS == 3:
        red, green, blue = red * unit, green * unit, blue * unit
        unit = 1.0
        hue = tl.load(row_ptr + _HSV)
        if hue != 0:
            red, green, blue = hue_shifted(red, green, blue, hue, CHANNELS)
        factor = tl.load(row_ptr + _HSV + 1)
        if factor != 1:
            red, green, blue = saturated(red, green, blue, factor)
    red = at_most(red * (scale[0] * unit) + shift[0], highest[0])
    green = at_most(green * (scale[1] * unit) + shift[1], highest[1])
    blue = at_most(blue * (scale[2] * unit) + shift[2], highest[2])
    if out_ptr.dtype.element_ty == tl.uint8:
        red, green, blue = as_uint8(red), as_uint8(green), as_uint8(blue)
    if CUTOUT:
        kept = is_kept(row_ptr, y, x, height, width)
        red, green, blue = tl.where(kept, red, 0.0), tl.where(kept, green, 0.0), tl.where(kept, blue, 0.0)

    inside = (y < height) & (x < width)
    at = out_ptr + image.to(tl.int64) * out_n + (y.to(INDEX) * out_y + x.to(INDEX) * out_x)
    tl.store(at, red.to(out_ptr.dtype.element_ty), mask=inside)
    if CHANNELS == 3:
        tl.store(at + out_c, green.to(out_ptr.dtype.element_ty), mask=inside)
        tl.store(at + out_c + out_c, blue.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _gray_sums_kernel(
    images,  # [N, H, W, C] uint8 or float32
    rows_ptr,  # [N, 32] float32, contiguous
    partial_sums_ptr,  # [N, splits] float32, contiguous
    splits,
    height,
    width,
    tiles,  # in an image
    WARP: tl.constexpr,
    CHANNELS: tl.constexpr,
    UNIT: tl.constexpr,
    WORDS: tl.constexpr,
    NEAREST: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE_WIDTH: tl.constexpr,
    TILES_X: tl.constexpr,
):
    """Sums of gray over every splits-th tile of an image, as it is when its jitter comes to the contrast."""
    images_ptr, images_n, images_y, images_x, images_c = images
    split, image = tl.program_id(0), tl.program_id(1)
    row_ptr = rows_ptr + image.to(tl.int64) * _COLUMNS
    pixels = (images_ptr + image.to(tl.int64) * images_n, images_y, images_x, images_c)
    contrast_at = 0  # how many steps come before the contrast
    for step in tl.static_range(1, 4):
        contrast_at += tl.where(tl.load(row_ptr + _ORDER + step) == _CONTRAST, step, 0)
    # A contrast of 1 takes nothing of the mean.
    stop = tl.where(tl.load(row_ptr + _JITTER + _CONTRAST) == 1, 0, tiles)
    total = tl.zeros([BLOCK], tl.float32)
    for tile in range(split, stop, splits):
        red, green, blue = _read(
            pixels, row_ptr, tile, height, width,
            WARP, CHANNELS, WORDS, NEAREST, INDEX, BLOCK, TILE_WIDTH, TILES_X,
        )  # fmt: skip
        red, green, blue = red * UNIT, green * UNIT, blue * UNIT
        red, green, blue = jittered(red, green, blue, row_ptr, 0.0, contrast_at, CHANNELS)
        y, x = pixels_of_tile(tile, BLOCK, TILE_WIDTH, TILES_X)
        inside = (y < height) & (x < width)
        total += tl.where(inside, gray(red, green, blue, CHANNELS), 0.0)
    tl.store(partial_sums_ptr + image.to(tl.int64) * splits + split, tl.sum(total))


@triton.jit
def _read(
    pixels, row_ptr, tile, height, width,
    WARP: tl.constexpr, CHANNELS: tl.constexpr, WORDS: tl.constexpr, NEAREST: tl.constexpr,
    INDEX: tl.constexpr, BLOCK: tl.constexpr, TILE_WIDTH: tl.constexpr, TILES_X: tl.constexpr,
):  # fmt: skip
    """The tile after the warp, as three float32 channels [BLOCK]; arbitrary numbers outside the image."""
    if WARP:
        a, b, tx = tl.load(row_ptr + _G_INV), tl.load(row_ptr + _G_INV + 1), tl.load(row_ptr + _G_INV + 2)
        c, d, ty = tl.load(row_ptr + _G_INV + 3), tl.load(row_ptr + _G_INV + 4), tl.load(row_ptr + _G_INV + 5)
        mirrored = (tl.abs(a) == 1) & (tl.abs(d) == 1) & (b == 0) & (c == 0) & (tx == 0) & (ty == 0)
        if mirrored:
            red, green, blue = _mirrored(
                pixels, tile, d < 0, a < 0, height, width,
                CHANNELS, WORDS, INDEX, BLOCK, TILE_WIDTH, TILES_X,
            )  # fmt: skip
        else:
            y, x = pixels_of_tile(tile, BLOCK, TILE_WIDTH, TILES_X)
            from_x = x.to(tl.float32) - 0.5 * (width - 1)
            from_y = y.to(tl.float32) - 0.5 * (height - 1)
            red, green, blue = _warped(
                pixels,
                c * from_x + (d * from_y + (ty + 0.5 * (height - 1))),
                a * from_x + (b * from_y + (tx + 0.5 * (width - 1))),
                height, width, CHANNELS, NEAREST, INDEX,
            )  # fmt: skip
    else:
        red, green, blue = _mirrored(
            pixels, tile, False, False, height, width,
            CHANNELS, WORDS, INDEX, BLOCK, TILE_WIDTH, TILES_X,
        )  # fmt: skip
    return red, green, blue


@triton.jit
def _mirrored(
    image, tile, upside_down, reversed_x, height, width,
    CHANNELS: tl.constexpr, WORDS: tl.constexpr, INDEX: tl.constexpr,
    BLOCK: tl.constexpr, TILE_WIDTH: tl.constexpr, TILES_X: tl.constexpr,
):  # fmt: skip
    """The pixels as they lie, rows or columns from the far end where a flag says so."""
    image_ptr, images_y, images_x, images_c = image
    if WORDS:
        # Three words are four pixels, already in the lane that stores them, reversed or not: 3 loads instead
        # of the 12 of single bytes, which lie 12 bytes apart from lane to lane.
        y, group = pixels_of_tile(tile, BLOCK // 4, TILE_WIDTH // 4, TILES_X)
        inside = (y < height) & (group < width // 4)
        from_y = tl.where(upside_down, height - 1 - y, y).to(INDEX)
        from_group = tl.where(reversed_x, width // 4 - 1 - group, group).to(INDEX)
        at = image_ptr.to(tl.pointer_type(tl.uint32)) + (from_y * (images_y // 4) + from_group * 3)
        word0 = tl.load(at, mask=inside, other=0)  # r0 g0 b0 r1
        word1 = tl.load(at + 1, mask=inside, other=0)  # g1 b1 r2 g2
        word2 = tl.load(at + 2, mask=inside, other=0)  # b2 r3 g3 b3
        # A pixel in the low three bytes of each; the fourth is not looked at.
        pixel0, pixel1 = word0, (word0 >> 24) | (word1 << 8)
        pixel2, pixel3 = (word1 >> 16) | (word2 << 16), word2 >> 8
        even = tl.join(tl.where(reversed_x, pixel3, pixel0), tl.where(reversed_x, pixel1, pixel2))
        odd = tl.join(tl.where(reversed_x, pixel2, pixel1), tl.where(reversed_x, pixel0, pixel3))
        pixels = tl.reshape(tl.join(even, odd), [BLOCK])
        red = (pixels & 255).to(tl.float32)
        green = ((pixels >> 8) & 255).to(tl.float32)
        blue = ((pixels >> 16) & 255).to(tl.float32)
    else:
        y, x = pixels_of_tile(tile, BLOCK, TILE_WIDTH, TILES_X)
        inside = (y < height) & (x < width)
        from_y = tl.where(upside_down, height - 1 - y, y).to(INDEX)
        from_x = tl.where(reversed_x, width - 1 - x, x).to(INDEX)
        at = image_ptr + (from_y * images_y + from_x * images_x)
        red = tl.load(at, mask=inside, other=0).to(tl.float32)
        green, blue = red, red
        if CHANNELS == 3:
            green = tl.load(at + images_c, mask=inside, other=0).to(tl.float32)
            blue = tl.load(at + images_c + images_c, mask=inside, other=0).to(tl.float32)
    return red, green, blue


@triton.jit
def _warped(
    image, coordinate_y, coordinate_x, height, width,
    CHANNELS: tl.constexpr, NEAREST: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """The image at coordinates [BLOCK] in pixels; no load needs a mask, all taps lie in the image."""
    image_ptr, images_y, images_x, images_c = image
    y0, y1, part_y = _taps(coordinate_y, height, NEAREST, INDEX)
    x0, x1, part_x = _taps(coordinate_x, width, NEAREST, INDEX)
    at = image_ptr + (y0 * images_y + x0 * images_x)
    if NEAREST:
        red = tl.load(at).to(tl.float32)
        green, blue = red, red
        if CHANNELS == 3:
            green = tl.load(at + images_c).to(tl.float32)
            blue = tl.load(at + images_c + images_c).to(tl.float32)
    else:
        right, below = (x1 - x0) * images_x, (y1 - y0) * images_y
        red = _between(at, right, below, part_y, part_x)
        green, blue = red, red
        if CHANNELS == 3:
            green = _between(at + images_c, right, below, part_y, part_x)
            blue = _between(at + images_c + images_c, right, below, part_y, part_x)
    return red, green, blue


@triton.jit
def _taps(coordinate, side, NEAREST: tl.constexpr, INDEX: tl.constexpr):
    """The two pixels of a row that a coordinate lies between, and how far it is from the first: [0, 1)."""
    if side == 1:
        coordinate = tl.zeros_like(coordinate)
    else:
        period = 2.0 * (side - 1)
        coordinate = coordinate - period * tl.floor(coordinate / period)
        coordinate = tl.where(coordinate > side - 1, period - coordinate, coordinate)
    if NEAREST:
        coordinate = tl.floor(coordinate + 0.5)
    # Clamped before it is an integer: NaN and infinity become a pixel of the image as well.
    first = tl.minimum(tl.maximum(tl.floor(coordinate), 0.0), (side - 1) * 1.0)
    index = first.to(INDEX)
    return index, tl.minimum(index + 1, side - 1), coordinate - first


@triton.jit
def _between(at, right, below, part_y, part_x):
    """Bilinear between the four pixels at, at + right, at + below and at + right + below."""
    above = _mixed(tl.load(at).to(tl.float32), tl.load(at + right).to(tl.float32), part_x)
    at += below
    under = _mixed(tl.load(at).to(tl.float32), tl.load(at + right).to(tl.float32), part_x)
    return _mixed(above, under, part_y)


@triton.jit
def _mixed(first, second, share):
    """A share of 0 takes nothing of `second`, even NaN."""
    return first * (1 - share) + tl.where(share == 0, 0.0, second * share)
