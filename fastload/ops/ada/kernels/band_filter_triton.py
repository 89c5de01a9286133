"""The Triton twin of `band_filter` and its adjoint: one kernel, once along rows and once along columns.

The adjoint filters with zeros around the image and adds up what comes out beyond its borders, reflected. The
taps are made of the gains in the kernel.
"""

import functools
from typing import Any

import torch
import triton
import triton.language as tl

from fastload.ops.ada import ada_params as columns
from fastload.ops.ada.kernels.warp_points_triton import folded
from fastload.ops.ada.stages.wavelets import BAND_MARGIN, BAND_TAPS, BANDS
from fastload.ops.tiles_triton import MAX_IMAGES, parts_of, strided

BLOCK, NUM_WARPS = 512, 4  # pixels of a program; not measured yet

_COLUMNS, _GAINS = tl.constexpr(columns.COLUMNS), tl.constexpr(columns.GAINS)
_TAPS, _MARGIN = tl.constexpr(BAND_TAPS), tl.constexpr(BAND_MARGIN)


def launch(images: Any, rows: Any, out: Any, *, adjoint: bool) -> Any:
    """Writes the filtered images, or the gradients that come back through it, to `out`; returns it."""
    n, channels, height, width = images.shape
    between = torch.empty(n, channels, height, width, dtype=torch.float32, device=images.device)
    bands = _bands_on(images.device)
    axes = (False, True) if not adjoint else (True, False)  # along rows first, and backwards
    with torch.cuda.device_of(images):
        for part in parts_of(n, max(1, MAX_IMAGES // channels)):
            planes = (part.stop - part.start) * channels
            for source, target, along_y in zip(
                (images[part], between[part]), (between[part], out[part]), axes, strict=True
            ):
                _kernel[(triton.cdiv(height * width, BLOCK), planes)](
                    strided(source), rows[part], bands, strided(target), height, width, channels,
                    ALONG_Y=along_y, ADJOINT=adjoint, BLOCK=BLOCK, num_warps=NUM_WARPS, enable_fp_fusion=True,
                )  # fmt: skip
    return out


@functools.cache
def _bands_on(device: Any) -> Any:
    return torch.tensor(BANDS, dtype=torch.float32, device=device)


@triton.jit
def _kernel(
    images,  # [N, C, H, W] floats
    rows_ptr,  # [N, 40] float32, contiguous
    bands_ptr,  # [4, 43] float32
    out,  # [N, C, H, W] floats
    height,
    width,
    channels,
    ALONG_Y: tl.constexpr,
    ADJOINT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    images_ptr, images_n, images_c, images_y, images_x = images
    out_ptr, out_n, out_c, out_y, out_x = out
    plane = tl.program_id(1)
    sample, channel = (plane // channels).to(tl.int64), plane % channels
    pixel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    y, x = pixel // width, pixel % width
    there = y < height
    at = images_ptr + sample * images_n + channel.to(tl.int64) * images_c
    if ALONG_Y:
        i, side, step = y, height, images_y
        at = at + x * images_x
    else:
        i, side, step = x, width, images_x
        at = at + y * images_y
    gains_ptr = rows_ptr + sample * _COLUMNS + _GAINS
    g0, g1 = tl.load(gains_ptr), tl.load(gains_ptr + 1)
    g2, g3 = tl.load(gains_ptr + 2), tl.load(gains_ptr + 3)
    value = tl.zeros([BLOCK], tl.float32)
    for tap in range(_TAPS):
        weight = g0 * tl.load(bands_ptr + tap) + g1 * tl.load(bands_ptr + _TAPS + tap)
        weight += g2 * tl.load(bands_ptr + 2 * _TAPS + tap) + g3 * tl.load(bands_ptr + 3 * _TAPS + tap)
        off = tap - _MARGIN
        if ADJOINT:
            value += weight * _inside(at, i + off, side, step, there)
            value += weight * _inside(at, off - i, side, step, there & (i > 0) & (i <= _MARGIN))
            beyond = 2 * (side - 1) - i
            value += weight * _inside(
                at, beyond + off, side, step, there & (i < side - 1) & (beyond < side + _MARGIN)
            )
        else:
            pixel, _reached = folded(i + off, side)
            value += weight * tl.load(at + pixel * step, mask=there, other=0.0).to(tl.float32)
    at = out_ptr + sample * out_n + channel.to(tl.int64) * out_c + y * out_y + x * out_x
    tl.store(at, value.to(out_ptr.dtype.element_ty), mask=there)


@triton.jit
def _inside(at, i, side, step, wanted):
    """The line at pixels i, 0 outside of it."""
    return tl.load(at + i * step, mask=wanted & (i >= 0) & (i < side), other=0.0).to(tl.float32)
