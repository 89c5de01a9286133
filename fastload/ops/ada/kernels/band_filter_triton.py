"""The Triton twin of `band_filter` and its adjoint: one kernel, once along rows and once along columns.

In: images [N, C, H, W] floats of any strides, rows [N, 40] float32 of `AdaParams`. Out: the same shape. The
adjoint filters with zeros around the image and adds up what comes out beyond its borders, reflected.
band_filter.py says what the taps are; they are made of the gains in the kernel.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from fastload.ops.ada import ada_params as columns
from fastload.ops.ada.kernels.warp_points_triton import folded
from fastload.ops.ada.stages.wavelets import BAND_MARGIN, BAND_TAPS, BANDS

BLOCK, NUM_WARPS = 512, 4  # pixels of a program; not measured yet
MOST_PLANES = 65535  # CUDA's limit on the second axis of a grid

_COLUMNS, _GAINS = tl.constexpr(columns.COLUMNS), tl.constexpr(columns.GAINS)
_TAPS, _MARGIN = tl.constexpr(BAND_TAPS), tl.constexpr(BAND_MARGIN)
_bands_on: dict = {}


def launch(images: Any, rows: Any, out: Any, *, adjoint: bool) -> Any:
    """Writes the filtered images, or the gradients that come back through it, to `out`; returns it."""
    n, channels, height, width = images.shape
    between = torch.empty(n, channels, height, width, dtype=torch.float32, device=images.device)
    bands = _bands(images.device)
    group = max(1, MOST_PLANES // channels)
    axes = (False, True) if not adjoint else (True, False)  # along rows first, and backwards
    with torch.cuda.device(images.device if images.is_cuda else -1):  # -1 leaves the current device alone
        for start in range(0, n, group):
            part = slice(start, min(start + group, n))
            planes = (part.stop - start) * channels
            for source, target, along_y in zip(
                (images[part], between[part]), (between[part], out[part]), axes, strict=True
            ):
                _kernel[(triton.cdiv(height * width, BLOCK), planes)](
                    source, *source.stride(), rows[part], bands, target, *target.stride(), height, width,
                    channels, ALONG_Y=along_y, ADJOINT=adjoint, BLOCK=BLOCK, num_warps=NUM_WARPS,
                    enable_fp_fusion=True,
                )  # fmt: skip
    return out


def _bands(device: Any) -> Any:
    """BANDS on the device, copied there once."""
    if device not in _bands_on:
        _bands_on[device] = torch.tensor(BANDS, dtype=torch.float32, device=device)
    return _bands_on[device]


@triton.jit
def _kernel(
    images_ptr,  # [N, C, H, W] floats, the strides below
    images_n,
    images_c,
    images_y,
    images_x,
    rows_ptr,  # [N, 40] float32, contiguous
    bands_ptr,  # [4, 43] float32
    out_ptr,  # [N, C, H, W] floats, the strides below
    out_n,
    out_c,
    out_y,
    out_x,
    height,
    width,
    channels,
    ALONG_Y: tl.constexpr,
    ADJOINT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    plane = tl.program_id(1)
    sample, channel = (plane // channels).to(tl.int64), plane % channels
    pixel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    y, x = pixel // width, pixel % width
    there = y < height
    at = images_ptr + sample * images_n + channel.to(tl.int64) * images_c
    if ALONG_Y:
        place, side, step = y, height, images_y
        at = at + x * images_x
    else:
        place, side, step = x, width, images_x
        at = at + y * images_y
    gains_ptr = rows_ptr + sample * _COLUMNS + _GAINS
    g0, g1, g2, g3 = (
        tl.load(gains_ptr),
        tl.load(gains_ptr + 1),
        tl.load(gains_ptr + 2),
        tl.load(gains_ptr + 3),
    )
    value = tl.zeros([BLOCK], tl.float32)
    for tap in range(_TAPS):
        weight = g0 * tl.load(bands_ptr + tap) + g1 * tl.load(bands_ptr + _TAPS + tap)
        weight += g2 * tl.load(bands_ptr + 2 * _TAPS + tap) + g3 * tl.load(bands_ptr + 3 * _TAPS + tap)
        off = tap - _MARGIN
        if ADJOINT:
            value += weight * _inside(at, place + off, side, step, there)
            value += weight * _inside(at, off - place, side, step, there & (place > 0) & (place <= _MARGIN))
            beyond = 2 * (side - 1) - place
            value += weight * _inside(
                at, beyond + off, side, step, there & (place < side - 1) & (beyond < side + _MARGIN)
            )
        else:
            pixel, _reached = folded(place + off, side)
            value += weight * tl.load(at + pixel * step, mask=there, other=0.0).to(tl.float32)
    at = out_ptr + sample * out_n + channel.to(tl.int64) * out_c + y * out_y + x * out_x
    tl.store(at, value.to(out_ptr.dtype.element_ty), mask=there)


@triton.jit
def _inside(at, place, side, step, wanted):
    """The line at these places, 0 outside of it."""
    return tl.load(at + place * step, mask=wanted & (place >= 0) & (place < side), other=0.0).to(tl.float32)
