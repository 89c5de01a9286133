"""The Triton twin of `diff_augment`: one pass over the pixels, all channels and all stages in one program.

L^T g is L with the stages reversed and the shift negated. Colour needs the mean of the image as it comes to
that stage: a pass before the other, partial sums which are added up in a fixed order, so that equal input
gives equal bits.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from fastload.ops.diff import diff_params as columns
from fastload.ops.diff.diff_params import pixels_of, stages_of
from fastload.ops.tiles_triton import (
    SPLITS,
    index_type,
    parts_of,
    pixels_of_tile,
    reach,
    strided,
    tiles_of,
    total_of,
)
from fastload.ops.twins import ADJOINT, AFFINE

# Pixels of a tile and the warps that share them, as fused_augment_triton.py has them. Not measured yet.
BLOCK, NUM_WARPS = 1024, 8

_COLUMNS, _CONTRAST = tl.constexpr(columns.COLUMNS), tl.constexpr(columns.CONTRAST)
_BRIGHTNESS, _SATURATION = tl.constexpr(columns.BRIGHTNESS), tl.constexpr(columns.SATURATION)
_SHIFT, _CUT = tl.constexpr(columns.SHIFT), tl.constexpr(columns.CUT)
TRANSLATION, CUTOUT = 1, 2
_TRANSLATION, _CUTOUT = tl.constexpr(TRANSLATION), tl.constexpr(CUTOUT)
_NUMBER_OF = {"translation": TRANSLATION, "cutout": CUTOUT}


def launch(images: Any, rows: Any, policy: str, cutout_ratio: float, mode: int) -> Any:
    """A contiguous tensor like the images; nothing is checked.

    images: [N, C, H, W] float32, float16 or bfloat16. rows: [N, 8] float32. All on one device.
    """
    out = torch.empty(images.shape, dtype=images.dtype, device=images.device)
    stages = stages_of(policy)
    stages = stages[::-1] if mode == ADJOINT else stages
    if images.numel():
        rows = rows.contiguous()
        for part in parts_of(len(images)):
            _launch(images[part], rows[part], stages, cutout_ratio, mode, out[part])
    return out


def _launch(images: Any, rows: Any, stages: tuple, cutout_ratio: float, mode: int, out: Any) -> None:
    n, channels, height, width = images.shape
    tile_width, tiles_x, tiles = tiles_of(height, width, BLOCK)
    color = "color" in stages
    at = stages.index("color") if color else len(stages)
    splits = min(SPLITS, tiles)
    partial_sums = torch.empty(n, splits if color else 0, dtype=torch.float32, device=images.device)
    box = (pixels_of(height, cutout_ratio), pixels_of(width, cutout_ratio))
    compiled_in = {
        "BEFORE": _code(stages[:at]),
        "SIGN": -1 if mode == ADJOINT else 1,
        "CHANNELS": channels,
        "INDEX": index_type(reach(images), reach(out)),
        "BLOCK": BLOCK,
        "TILE_WIDTH": tile_width,
        "TILES_X": tiles_x,
        "num_warps": NUM_WARPS,
        "enable_fp_fusion": True,
    }
    with torch.cuda.device_of(images):
        if color:
            _sums_kernel[(splits, n)](
                strided(images), rows.view(torch.int32), partial_sums, splits, height, width, *box,
                tiles, **compiled_in,
            )  # fmt: skip
        _kernel[(tiles, n)](
            strided(images), rows, rows.view(torch.int32), partial_sums, splits, height, width, *box,
            strided(out), AFTER=_code(stages[at + 1 :]), COLOR=color, BRIGHT=mode == AFFINE,
            **compiled_in,
        )  # fmt: skip


def _code(stages: tuple) -> int:
    """Stages that move or cut as a number, two bits each; the last one lowest, where a walk begins."""
    return sum(_NUMBER_OF[stage] << 2 * i for i, stage in enumerate(reversed(stages)))


@triton.jit
def _kernel(
    images,  # [N, C, H, W]
    rows_ptr,  # [N, 8] float32, contiguous
    integers_ptr,  # the same as int32
    partial_sums_ptr,  # [N, splits] float32, contiguous; read where there is COLOR
    splits,
    height,
    width,
    box_height,
    box_width,
    out,  # [N, C, H, W], contiguous along rows
    AFTER: tl.constexpr,  # the stages after colour, as `_code` has them
    BEFORE: tl.constexpr,  # those before colour; all, where there is no colour
    COLOR: tl.constexpr,
    BRIGHT: tl.constexpr,
    SIGN: tl.constexpr,  # of the shift
    CHANNELS: tl.constexpr,
    INDEX: tl.constexpr,  # the integers that offsets within an image need
    BLOCK: tl.constexpr,
    TILE_WIDTH: tl.constexpr,
    TILES_X: tl.constexpr,
):
    images_ptr, images_n, images_c, images_y, images_x = images
    out_ptr, out_n, out_c, out_y, _ = out
    tile = tl.program_id(0)
    # From the last image to the first: those that the sums were taken of last are still in the L2 cache.
    image = (tl.num_programs(1) - 1 - tl.program_id(1)).to(tl.int64)
    row_ptr, integer_ptr = rows_ptr + image * _COLUMNS, integers_ptr + image * _COLUMNS
    y, x = pixels_of_tile(tile, BLOCK, TILE_WIDTH, TILES_X)
    inside = (y < height) & (x < width)
    from_y, from_x, kept = _walked(
        y, x, inside, integer_ptr, height, width, box_height, box_width, AFTER, SIGN
    )
    from_y, from_x, there = _walked(
        from_y, from_x, kept, integer_ptr, height, width, box_height, box_width, BEFORE, SIGN
    )
    source_ptr = images_ptr + image * images_n + (from_y.to(INDEX) * images_y + from_x.to(INDEX) * images_x)
    to_ptr = out_ptr + image * out_n + (y.to(INDEX) * out_y + x)

    # A result is own * value + shared * the mean of the pixel's channels + offset.
    own, shared, offset = 1.0, 0.0, 0.0
    if COLOR:
        mean = total_of(partial_sums_ptr, image, splits) / (height * 1.0 * width * CHANNELS)
        contrast = tl.load(row_ptr + _CONTRAST)
        own = contrast
        if CHANNELS > 1:
            own = contrast * tl.load(row_ptr + _SATURATION)
            shared = contrast - own
        offset = (1.0 - contrast) * mean
        if BRIGHT:
            offset += tl.load(row_ptr + _BRIGHTNESS)

    if CHANNELS == 3:
        red = tl.load(source_ptr, mask=there, other=0.0).to(tl.float32)
        green = tl.load(source_ptr + images_c, mask=there, other=0.0).to(tl.float32)
        blue = tl.load(source_ptr + images_c + images_c, mask=there, other=0.0).to(tl.float32)
        if COLOR:
            added = shared * ((red + green + blue) * (1.0 / 3.0)) + offset
            red = tl.where(kept, own * red + added, 0.0)
            green = tl.where(kept, own * green + added, 0.0)
            blue = tl.where(kept, own * blue + added, 0.0)
        tl.store(to_ptr, red.to(out_ptr.dtype.element_ty), mask=inside)
        tl.store(to_ptr + out_c, green.to(out_ptr.dtype.element_ty), mask=inside)
        tl.store(to_ptr + out_c + out_c, blue.to(out_ptr.dtype.element_ty), mask=inside)
    else:
        added = tl.zeros([BLOCK], tl.float32)
        if COLOR and CHANNELS > 1:
            at = source_ptr
            for _ in range(CHANNELS):
                added += tl.load(at, mask=there, other=0.0).to(tl.float32)
                at += images_c  # step by step, for the product might not fit 32 bits
        added = shared * (added * (1.0 / CHANNELS)) + offset
        for _ in range(CHANNELS):
            value = tl.load(source_ptr, mask=there, other=0.0).to(tl.float32)
            if COLOR:
                value = tl.where(kept, own * value + added, 0.0)
            tl.store(to_ptr, value.to(out_ptr.dtype.element_ty), mask=inside)
            source_ptr += images_c
            to_ptr += out_c


@triton.jit
def _sums_kernel(
    images,  # [N, C, H, W]
    integers_ptr,  # [N, 8] int32, contiguous
    partial_sums_ptr,  # [N, splits] float32, contiguous
    splits,
    height,
    width,
    box_height,
    box_width,
    tiles,  # in an image
    BEFORE: tl.constexpr,
    SIGN: tl.constexpr,
    CHANNELS: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE_WIDTH: tl.constexpr,
    TILES_X: tl.constexpr,
):
    """Sums over every splits-th tile of an image, as it comes to its colour."""
    images_ptr, images_n, images_c, images_y, images_x = images
    split, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    integer_ptr, image_ptr = integers_ptr + image * _COLUMNS, images_ptr + image * images_n
    total = tl.zeros([BLOCK], tl.float32)
    for tile in range(split, tiles, splits):
        y, x = pixels_of_tile(tile, BLOCK, TILE_WIDTH, TILES_X)
        inside = (y < height) & (x < width)
        from_y, from_x, there = _walked(
            y, x, inside, integer_ptr, height, width, box_height, box_width, BEFORE, SIGN
        )
        source_ptr = image_ptr + (from_y.to(INDEX) * images_y + from_x.to(INDEX) * images_x)
        for _ in range(CHANNELS):
            total += tl.load(source_ptr, mask=there, other=0.0).to(tl.float32)
            source_ptr += images_c
    tl.store(partial_sums_ptr + image * splits + split, tl.sum(total))


@triton.jit
def _walked(
    y, x, there, integer_ptr, height, width, box_height, box_width, STAGES: tl.constexpr, SIGN: tl.constexpr
):
    """Where pixels after STAGES come from, and whether they come from anywhere at all."""
    for i in tl.static_range(2):
        if (STAGES >> (2 * i)) % 4 == _TRANSLATION:
            y += SIGN * tl.load(integer_ptr + _SHIFT)
            x += SIGN * tl.load(integer_ptr + _SHIFT + 1)
            there &= (y >= 0) & (y < height) & (x >= 0) & (x < width)
        if (STAGES >> (2 * i)) % 4 == _CUTOUT:
            down = y - (tl.load(integer_ptr + _CUT) - box_height // 2)
            right = x - (tl.load(integer_ptr + _CUT + 1) - box_width // 2)
            there &= (down < 0) | (down >= box_height) | (right < 0) | (right >= box_width)
    return y, x, there
