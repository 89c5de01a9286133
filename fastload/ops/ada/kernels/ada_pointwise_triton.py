"""What `ada_augment` does pixel by pixel, as Triton functions and as a kernel of its own: colour, noise and
cutout.

In: pixels as [BLOCK, LANES] float32, a lane for each channel (LANES is 1, 2 or 4; lanes beyond the channels
hold arbitrary values), and the image's row of parameters. Out: the same after the stages that are compiled
in. The end of a warp calls `finished` on its results, so that they are written once; the kernel is for
batches without a warp, and for what comes before or after a band filter.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from fastload.ops.ada import ada_params as columns
from fastload.ops.philox_triton import box_muller, philox
from fastload.ops.tiles_triton import parts_of, strided
from fastload.rng import Purpose

BLOCK, NUM_WARPS = 512, 4  # pixels of a program; not measured yet

_COLUMNS, _C = tl.constexpr(columns.COLUMNS), tl.constexpr(columns.C)
_SIGMA, _CUT_SIZE = tl.constexpr(columns.SIGMA), tl.constexpr(columns.CUT_SIZE)
_CUT_CENTER = tl.constexpr(columns.CUT_CENTER)
_NOISE = tl.constexpr(int(Purpose.NOISE))

NO_NOISE, FROM_KEY, FROM_EPS = 0, 1, 2
_FROM_KEY, _FROM_EPS = tl.constexpr(FROM_KEY), tl.constexpr(FROM_EPS)


def lanes_of(channels: int) -> int:
    """Lanes that hold up to four channels: a power of two."""
    return 4 if channels > 2 else channels


def launch(
    images: Any, rows: Any, out: Any, *, color: bool, transposed: bool = False, offset: bool = False,
    noise: "Noise | None" = None, cutout: bool = False, first_channel: int = 0,
) -> Any:  # fmt: skip
    """Writes images [N, C, H, W], C up to 4, after these stages to `out` of the same shape; returns it.

    rows: [N, 40] float32. transposed: the colours' matrix is. offset: its last column is added.
    first_channel: of the whole image, the number of these images' first one.
    """
    n, channels, height, width = images.shape
    noise = noise or Noise()
    with torch.cuda.device_of(images):
        for part in parts_of(n):
            some, of_some = images[part], noise.part(part)
            _kernel[(triton.cdiv(height * width, BLOCK), len(some))](
                strided(some), rows[part], *of_some.arguments(some), strided(out[part]), height, width,
                CHANNELS=channels, LANES=lanes_of(channels), COLOR=color, TRANSPOSED=transposed,
                OFFSET=offset, NOISE=noise.kind, CUTOUT=cutout, BLOCK=BLOCK, num_warps=NUM_WARPS,
                enable_fp_fusion=True, noise_block=first_channel // 4,
            )  # fmt: skip
    return out


class Noise:
    """Where a kernel's noise comes from: a key [N, 2] int32, eps [N, C, H, W], or nowhere."""

    def __init__(self, key: Any = None, eps: Any = None):
        self.key, self.eps = key, eps
        self.kind = FROM_EPS if eps is not None else FROM_KEY if key is not None else NO_NOISE

    def part(self, samples: slice) -> "Noise":
        return Noise(*(tensor if tensor is None else tensor[samples] for tensor in (self.key, self.eps)))

    def arguments(self, images: Any) -> tuple:
        """key and eps as kernels take them; in place of an absent one `images`, which is not read."""
        key = (images, 0, 0) if self.key is None else strided(self.key)
        return key, (images, 0, 0, 0, 0) if self.eps is None else strided(self.eps)


# A value of 1 would otherwise be compiled in as a Python number.
@triton.jit(do_not_specialize=["height", "width", "noise_block"])
def _kernel(
    images,  # [N, C, H, W] floats
    rows_ptr,  # [N, 40] float32, contiguous
    key,  # [N, 2] int32
    eps,  # [N, C, H, W] floats
    out,  # [N, C, H, W] floats
    height,
    width,
    noise_block,
    CHANNELS: tl.constexpr,
    LANES: tl.constexpr,
    COLOR: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    OFFSET: tl.constexpr,
    NOISE: tl.constexpr,
    CUTOUT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    images_ptr, images_n, images_c, images_y, images_x = images
    out_ptr, out_n, out_c, out_y, out_x = out
    sample = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    y, x = pixel // width, pixel % width
    channel = tl.arange(0, LANES).to(tl.int64)
    there = (y < height)[:, None] & (channel < CHANNELS)[None, :]
    at = images_ptr + sample * images_n + (y * images_y + x * images_x)[:, None] + channel[None, :] * images_c
    value = tl.load(at, mask=there, other=0.0).to(tl.float32)
    value = finished(
        value, rows_ptr + sample * _COLUMNS, key, eps, sample, y, x, height, width, noise_block,
        CHANNELS, LANES, COLOR, TRANSPOSED, OFFSET, NOISE, CUTOUT, BLOCK,
    )  # fmt: skip
    at = out_ptr + sample * out_n + (y * out_y + x * out_x)[:, None] + channel[None, :] * out_c
    tl.store(at, value.to(out_ptr.dtype.element_ty), mask=there)


@triton.jit
def finished(
    value, row_ptr, key, eps, sample, y, x, height, width, noise_block,
    CHANNELS: tl.constexpr, LANES: tl.constexpr, COLOR: tl.constexpr, TRANSPOSED: tl.constexpr,
    OFFSET: tl.constexpr, NOISE: tl.constexpr, CUTOUT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Pixels [BLOCK, LANES] at rows y and columns x [BLOCK] after colour, noise and cutout."""
    if COLOR:
        value = recoloured(value, row_ptr, CHANNELS, LANES, TRANSPOSED, OFFSET, BLOCK)
    if NOISE == _FROM_KEY:
        key_ptr, key_n, key_word = key
        key_ptr += sample * key_n
        sigma = tl.load(row_ptr + _SIGMA)
        value += sigma * _normals(key_ptr, key_word, y * width + x, noise_block, LANES, BLOCK)
    if NOISE == _FROM_EPS:
        eps_ptr, eps_n, eps_c, eps_y, eps_x = eps
        channel = tl.arange(0, LANES).to(tl.int64)
        there = (y < height)[:, None] & (channel < CHANNELS)[None, :]
        at = eps_ptr + sample * eps_n + (y * eps_y + x * eps_x)[:, None] + channel[None, :] * eps_c
        value += tl.load(row_ptr + _SIGMA) * tl.load(at, mask=there, other=0.0).to(tl.float32)
    if CUTOUT:
        cut_x = is_cut(row_ptr + _CUT_CENTER, row_ptr, x, width)
        cut = cut_x & is_cut(row_ptr + _CUT_CENTER + 1, row_ptr, y, height)
        value = tl.where(cut[:, None], 0.0, value)
    return value


@triton.jit
def is_cut(center_ptr, row_ptr, coordinate, side):
    """Where pixels at these coordinates of an axis lie in the strip that is cut out along it."""
    share = tl.div_rn(coordinate.to(tl.float32) + 0.5, side.to(tl.float32))
    return tl.abs(share - tl.load(center_ptr)) < tl.load(row_ptr + _CUT_SIZE) * 0.5


@triton.jit
def recoloured(
    value, row_ptr, CHANNELS: tl.constexpr, LANES: tl.constexpr, TRANSPOSED: tl.constexpr,
    OFFSET: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The colours' matrix, or its transpose, times pixels [BLOCK, LANES]; with OFFSET its offset."""
    at = row_ptr + _C
    if CHANNELS == 1:
        factor, offset = 0.0, 0.0
        for row in tl.static_range(3):
            for column in tl.static_range(3):
                factor += tl.load(at + row * 4 + column)
            offset += tl.load(at + row * 4 + 3)
        value = value * (factor * (1 / 3))
        if OFFSET:
            value += offset * (1 / 3)
    else:
        red, green, blue = _channels(value, BLOCK)
        across, down = (4, 1) if TRANSPOSED else (1, 4)
        value = _lanes(
            _row(red, green, blue, at, across),
            _row(red, green, blue, at + down, across),
            _row(red, green, blue, at + 2 * down, across),
            BLOCK,
        )
        if OFFSET:
            lane = tl.arange(0, LANES)
            value += tl.load(at + lane * 4 + 3, mask=lane < 3, other=0.0)[None, :]
    return value


@triton.jit
def _row(red, green, blue, at, step: tl.constexpr):
    return red * tl.load(at) + green * tl.load(at + step) + blue * tl.load(at + 2 * step)


@triton.jit
def _channels(value, BLOCK: tl.constexpr):
    """The first three lanes of [BLOCK, 4]; a sum over lanes would shuffle them between threads."""
    even, odd = tl.split(tl.reshape(value, [BLOCK, 2, 2]))
    red, blue = tl.split(even)
    green, _ = tl.split(odd)
    return red, green, blue


@triton.jit
def _lanes(red, green, blue, BLOCK: tl.constexpr):
    """[BLOCK, 4] of three channels; the last lane is 0."""
    return tl.reshape(tl.join(tl.join(red, blue), tl.join(green, tl.zeros_like(green))), [BLOCK, 4])


@triton.jit
def _normals(key_ptr, key_word, pixel, noise_block, LANES: tl.constexpr, BLOCK: tl.constexpr):
    """[BLOCK, LANES] standard normals of the pixels, as noise.py says."""
    key0, key1 = tl.load(key_ptr).to(tl.uint32), tl.load(key_ptr + key_word).to(tl.uint32)
    c0, c1 = pixel.to(tl.uint32), tl.zeros([BLOCK], tl.uint32)
    c2, c3 = c1 + _NOISE, c1 + noise_block.to(tl.uint32)
    w0, w1, w2, w3 = philox(c0, c1, c2, c3, key0, key1)
    z0, z1 = box_muller(w0, w1)
    if LANES == 1:
        return z0[:, None]
    elif LANES == 2:
        return tl.join(z0, z1)
    else:
        z2, z3 = box_muller(w2, w3)
        return tl.reshape(tl.join(tl.join(z0, z2), tl.join(z1, z3)), [BLOCK, LANES])
