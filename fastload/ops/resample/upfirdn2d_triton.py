"""The Triton twin of `upfirdn2d`: one pass over the pixels for taps [h, w], two for taps [k].

In: images [N, C, H, W] of any strides and float type but float64, taps, and for each axis (y, x) `up`,
`down`, `start` and the size of the result: out[o] = sum_i x[i] f[o down - i up + start], over the pixels i of
the image for which there is such a tap. With start = K - 1 - p0 that is the contract of upfirdn2d.py; in this
form its adjoint exchanges up and down, mirrors the taps, and has K - 1 - start. Out: a contiguous tensor of
the images' dtype. Inserted zeros are never met: a pixel of the result takes at most cdiv(K, up) taps.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from fastload.ops.tiles_triton import index_type, reach, strided

# Pixels of a tile, and the warps that share them: four for each lane. A tile takes several planes where they
# are small, so that 4 x 4 pixels of 512 channels are not one program each. Not measured yet.
BLOCK, NUM_WARPS = 512, 4
MAX_ROW = 128  # the longest row of a tile


def launch(
    images: Any,
    taps: Any,
    up: Sequence[int],
    down: Sequence[int],
    start: Sequence[int],
    size: Sequence[int],
    flip: bool,
    gain: float,
) -> Any:
    """What the paragraph above says, times gain; nothing is checked. flip: whether taps are mirrored."""
    n, channels, height, _ = images.shape
    taps = taps.to(torch.float32).contiguous()
    out = torch.empty((n, channels, *size), dtype=images.dtype, device=images.device)
    if taps.dim() == 2:
        return _launch(images, taps, up, down, start, flip, gain, out)
    along_x = torch.empty((n, channels, height, size[1]), dtype=torch.float32, device=images.device)
    _launch(images, taps[None], (1, up[1]), (1, down[1]), (0, start[1]), flip, 1.0, along_x)
    return _launch(along_x, taps[:, None], (up[0], 1), (down[0], 1), (start[0], 0), flip, gain, out)


def _launch(
    images: Any,
    taps: Any,
    up: Sequence[int],
    down: Sequence[int],
    start: Sequence[int],
    flip: bool,
    gain: float,
    out: Any,
) -> Any:
    if not out.numel():
        return out
    n, channels, height, width = images.shape
    out_height, out_width = out.shape[2:]
    tile_x = min(triton.next_power_of_2(out_width), MAX_ROW)
    tile_y = min(triton.next_power_of_2(out_height), BLOCK // tile_x)
    planes = BLOCK // (tile_x * tile_y)
    tiles = triton.cdiv(out_width, tile_x) * triton.cdiv(out_height, tile_y)
    # For the first pixel of the result: the last pixel of the image that it takes, and the tap for that.
    (first_y, phase_y), (first_x, phase_x) = (divmod(s, u) for s, u in zip(start, up, strict=True))
    with torch.cuda.device_of(images):
        _kernel[(tiles * triton.cdiv(n * channels, planes),)](
            strided(images), taps, out,
            n * channels, channels, height, width, out_height, out_width,
            first_y, first_x, phase_y, phase_x, gain,
            UP_Y=up[0], UP_X=up[1], DOWN_Y=down[0], DOWN_X=down[1],
            TAPS_Y=taps.shape[0], TAPS_X=taps.shape[1], FLIP=flip,
            INDEX=index_type(reach(images, (2, 3)), out_height * out_width),
            PLANES=planes, TILE_Y=tile_y, TILE_X=tile_x, num_warps=NUM_WARPS, enable_fp_fusion=True,
        )  # fmt: skip
    return out


@triton.jit
def _kernel(
    images,  # [N, C, H, W] floats
    taps_ptr,  # [TAPS_Y, TAPS_X] float32, contiguous
    out_ptr,  # [N, C, out_height, out_width] floats, contiguous
    all_planes,  # N * C
    channels,
    height,
    width,
    out_height,
    out_width,
    first_y,
    first_x,
    phase_y,
    phase_x,
    gain,
    UP_Y: tl.constexpr,
    UP_X: tl.constexpr,
    DOWN_Y: tl.constexpr,
    DOWN_X: tl.constexpr,
    TAPS_Y: tl.constexpr,
    TAPS_X: tl.constexpr,
    FLIP: tl.constexpr,
    INDEX: tl.constexpr,  # the integers that offsets within a plane need
    PLANES: tl.constexpr,  # of a tile, powers of two
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
):
    images_ptr, images_n, images_c, images_y, images_x = images
    tiles_x = tl.cdiv(out_width, TILE_X)
    tiles = tiles_x * tl.cdiv(out_height, TILE_Y)
    tile, plane = tl.program_id(0) % tiles, tl.program_id(0) // tiles
    number = tl.arange(0, PLANES * TILE_Y * TILE_X)
    if PLANES > 1:  # otherwise it is one number for all lanes
        plane = plane * PLANES + number // (TILE_Y * TILE_X)
    y = (tile // tiles_x) * TILE_Y + number // TILE_X % TILE_Y
    x = (tile % tiles_x) * TILE_X + number % TILE_X

    from_plane = tl.minimum(plane, all_planes - 1)
    image_ptr = images_ptr + (from_plane // channels).to(tl.int64) * images_n
    image_ptr += (from_plane % channels).to(tl.int64) * images_c
    last_y, lowest_y = _last_met(y, first_y, phase_y, UP_Y, DOWN_Y)
    last_x, lowest_x = _last_met(x, first_x, phase_x, UP_X, DOWN_X)
    total = tl.zeros([PLANES * TILE_Y * TILE_X], tl.float32)
    for step_y in range((TAPS_Y + UP_Y - 1) // UP_Y):
        from_y, tap_y = last_y - step_y, lowest_y + step_y * UP_Y
        is_met_y = _is_met(from_y, tap_y, height, UP_Y, TAPS_Y)
        for step_x in range((TAPS_X + UP_X - 1) // UP_X):
            from_x, tap_x = last_x - step_x, lowest_x + step_x * UP_X
            is_met = is_met_y & _is_met(from_x, tap_x, width, UP_X, TAPS_X)
            number_of_tap = tl.minimum(tap_y, TAPS_Y - 1) * TAPS_X + tl.minimum(tap_x, TAPS_X - 1)
            if FLIP:
                number_of_tap = TAPS_Y * TAPS_X - 1 - number_of_tap
            tap = tl.load(taps_ptr + number_of_tap)
            at = image_ptr + (from_y.to(INDEX) * images_y + from_x.to(INDEX) * images_x)
            total += tl.load(at, mask=is_met, other=0.0).to(tl.float32) * tap

    inside = (y < out_height) & (x < out_width)
    if PLANES > 1:
        inside = inside & (plane < all_planes)
    at = out_ptr + plane.to(tl.int64) * out_height * out_width + (y.to(INDEX) * out_width + x)
    tl.store(at, (total * gain).to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _last_met(coordinate, first, phase, UP: tl.constexpr, DOWN: tl.constexpr):
    """The last pixel along an axis that a result takes, and its tap; the pixel before it has that tap + UP.

    first, phase: start = first UP + phase with 0 <= phase < UP, so that what is divided is never negative.
    """
    at = coordinate * DOWN + phase
    if UP == 1:
        lowest = tl.zeros([], tl.int32)  # one number for all lanes, so that a tap is loaded once
    else:
        lowest = at % UP
    return first + at // UP, lowest


@triton.jit
def _is_met(pixel, tap, side, UP: tl.constexpr, TAPS: tl.constexpr):
    is_met = (pixel >= 0) & (pixel < side)
    if TAPS % UP != 0:
        is_met = is_met & (tap < TAPS)
    return is_met
