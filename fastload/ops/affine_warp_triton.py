"""The Triton twin of `affine_warp` and its adjoint: streaming kernels over packed planes, no atomics.

In: images [N, C, H, W], C up to 4, and rows [N, 40] float32 of `AdaParams`. Out: the warped images, or with
the adjoint the gradients, after the pixel-wise stages that ada_pointwise_triton.py compiles into the last
kernel. affine_warp.py says what a warp is and names its steps; here they are

    forward   _up (extend, upsample) -> doubled plane;  _sample (sample, then downsample columns) -> rows;
              _down (downsample rows, finish)
    adjoint   _up (of the gradient, along both axes) -> lattice;  _spread (sample's transpose, as a gather) ->
              doubled plane;  _fold_rows, _fold_columns (upsample's transpose, reflections added up, finish)

Planes are [rows, columns, LANES] float32, so that all channels of a point are one load of 16 bytes. A doubled
plane is as large as reflection reaches, and of it only the box is touched that a sample looks at; samples go
through SCRATCH_BYTES of planes in groups, in order. Where nothing is warped (A = 1, whole pixels) the last
kernel copies instead, exactly, and the others leave the sample out.

Places are integers and a fraction: the origin of each row of a program in float64, the rest in float32, so
that they are right to 1e-5 half pixels at any size.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from fastload.ops import ada_params as columns
from fastload.ops.ada_pointwise_triton import Noise, finished, is_cut, lanes_of, recoloured
from fastload.ops.wavelets import SYM6

# None of these sizes has been measured yet: lanes of 128 threads, strips that overlap by a sixth and less.
UP_BLOCK, UP_ROWS = 128, 32  # pairs of columns and of rows of a tile of the doubled plane
SAMPLE_BLOCK, SAMPLE_ROWS = 128, 32  # columns of the lattice, rows of the result
SPREAD_BLOCK, PIXEL_BLOCK = 128, 256  # points and pixels of a program
NUM_WARPS = 4
SCRATCH_BYTES = 512 * 2**20
MOST_SAMPLES = 65535  # CUDA's limit on the second axis of a grid
# Programs of a sample share out its tiles; so many that a box of twice the image leaves each with one.
TILES_OF_A_BOX = 2

_COLUMNS, _CUT_CENTER = tl.constexpr(columns.COLUMNS), tl.constexpr(columns.CUT_CENTER)
_S0, _S1, _S2, _S3, _S4, _S5, _S6, _S7, _S8, _S9, _S10, _S11 = (tl.constexpr(tap) for tap in SYM6)
_TAPS = tl.constexpr(SYM6)


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
    lanes = lanes_of(channels)
    doubled, lattice = (6 * height - 4) * (6 * width - 4), (2 * height + 12) * (2 * width + 12)
    between = (6 * height - 4) * width if adjoint else height * (2 * width + 10)
    floats = (doubled + between + (lattice if adjoint else 0)) * lanes
    group = max(1, min(SCRATCH_BYTES // (4 * floats), n, MOST_SAMPLES))
    scratch = torch.empty(group * floats, dtype=torch.float32, device=images.device)
    wide = max(doubled * lanes, _reach(images), _reach(out)) >= 2**31
    options = {
        "CHANNELS": channels,
        "LANES": lanes,
        "INDEX": tl.int64 if wide else tl.int32,
        "num_warps": NUM_WARPS,
    }
    noise = noise or Noise()
    with torch.cuda.device(images.device if images.is_cuda else -1):  # -1 leaves the current device alone
        for start in range(0, n, group):
            part = slice(start, min(start + group, n))
            count = part.stop - part.start
            planes = scratch[: count * floats].split(
                [count * doubled * lanes, count * between * lanes, *[count * lattice * lanes] * adjoint]
            )
            if adjoint:
                _adjoint(images[part], rows[part], out[part], *planes, color, cutout, options)
            else:
                some = Noise(*(one if one is None else one[part] for one in (noise.key, noise.eps)))
                _forward(
                    images[part],
                    rows[part],
                    out[part],
                    *planes,
                    color,
                    offset,
                    some,
                    cutout,
                    first_channel // 4,
                    options,
                )
    return out


def _forward(images, rows, out, doubled, between, color, offset, noise, cutout, noise_block, options) -> None:
    n, _, height, width = images.shape
    tiles = triton.cdiv(width, UP_BLOCK) * triton.cdiv(height, UP_ROWS) * TILES_OF_A_BOX
    _up_kernel[(tiles, n)](
        images, *images.stride(), rows, doubled, height, width,
        ADJOINT=False, CUTOUT=False, BLOCK=UP_BLOCK, ROWS=UP_ROWS, **options,
    )  # fmt: skip
    grid = (triton.cdiv(2 * width + 10, SAMPLE_BLOCK) * triton.cdiv(height, SAMPLE_ROWS), n)
    _sample_kernel[grid](
        doubled, rows, between, height, width, BLOCK=SAMPLE_BLOCK, ROWS=SAMPLE_ROWS, **options
    )
    _down_kernel[(triton.cdiv(height * width, PIXEL_BLOCK), n)](
        between, images, *images.stride(), rows, *noise.arguments(images), out, *out.stride(), height, width,
        noise_block,
        COLOR=color, OFFSET=offset, NOISE=noise.kind, CUTOUT=cutout, BLOCK=PIXEL_BLOCK, **options,
    )  # fmt: skip


def _adjoint(gradients, rows, out, doubled, between, lattice, color, cutout, options) -> None:
    n, _, height, width = gradients.shape
    tiles = triton.cdiv(width + 6, UP_BLOCK) * triton.cdiv(height + 6, UP_ROWS)
    _up_kernel[(tiles, n)](
        gradients, *gradients.stride(), rows, lattice, height, width,
        ADJOINT=True, CUTOUT=cutout, BLOCK=UP_BLOCK, ROWS=UP_ROWS, **options,
    )  # fmt: skip
    points = triton.cdiv(4 * height * width, SPREAD_BLOCK) * TILES_OF_A_BOX
    _spread_kernel[(points, n)](lattice, rows, doubled, height, width, BLOCK=SPREAD_BLOCK, **options)
    points = triton.cdiv(2 * height * width, PIXEL_BLOCK) * TILES_OF_A_BOX
    _fold_rows_kernel[(points, n)](doubled, rows, between, height, width, BLOCK=PIXEL_BLOCK, **options)
    _fold_columns_kernel[(triton.cdiv(height * width, PIXEL_BLOCK), n)](
        between, gradients, *gradients.stride(), rows, out, *out.stride(), height, width,
        COLOR=color, CUTOUT=cutout, BLOCK=PIXEL_BLOCK, **options,
    )  # fmt: skip


def _reach(tensor: Any) -> int:
    """How many elements the last one of an image lies from its first."""
    return sum(
        (size - 1) * stride for size, stride in zip(tensor.shape[1:], tensor.stride()[1:], strict=True)
    )


@triton.jit
def _lattice_map(row_ptr, height, width):
    """A and tau, scalars in float64: point e of the lattice shows place A e + tau of the doubled plane."""
    a, b = tl.load(row_ptr).to(tl.float64), tl.load(row_ptr + 1).to(tl.float64)
    c, d = tl.load(row_ptr + 3).to(tl.float64), tl.load(row_ptr + 4).to(tl.float64)
    center_x, center_y = (width - 1) * 0.5, (height - 1) * 0.5
    tau_x = 2 * (tl.load(row_ptr + 2).to(tl.float64) + center_x - (a * center_x + b * center_y))
    tau_y = 2 * (tl.load(row_ptr + 5).to(tl.float64) + center_y - (c * center_x + d * center_y))
    return a, b, c, d, tau_x, tau_y


@triton.jit
def _copied(row_ptr, height, width):
    """Whether a sample is only moved by whole pixels, not so far that the end of the reflection is seen; and
    by how many pixels, right and down."""
    x, y = tl.load(row_ptr + 2), tl.load(row_ptr + 5)
    same = (tl.load(row_ptr) == 1) & (tl.load(row_ptr + 1) == 0) & (tl.load(row_ptr + 3) == 0)
    same &= (tl.load(row_ptr + 4) == 1) & (tl.floor(x) == x) & (tl.floor(y) == y)
    same &= (x >= 4 - width) & (x <= width - 4) & (y >= 4 - height) & (y <= height - 4)
    return same, tl.where(same, x, 0.0).to(tl.int32), tl.where(same, y, 0.0).to(tl.int32)


@triton.jit
def _box(of_x, of_y, tau, width, height, side):
    """[start, stop) along an axis of the doubled plane: the points beside some place of the lattice."""
    first_x, last_x = -5 * of_x, (2 * width + 4) * of_x
    first_y, last_y = -5 * of_y, (2 * height + 4) * of_y
    low = tl.minimum(first_x, last_x) + tl.minimum(first_y, last_y) + tau
    high = tl.maximum(first_x, last_x) + tl.maximum(first_y, last_y) + tau
    first, stop = -2.0 * (side - 1), 4.0 * side - 2
    # Clamped before they are integers, whatever a user's matrix makes of them.
    start = tl.minimum(tl.maximum(tl.floor(low), first), stop)
    end = tl.minimum(tl.maximum(tl.floor(high) + 2, first), stop)
    return start.to(tl.int32), end.to(tl.int32)


@triton.jit
def _boxes(row_ptr, height, width):
    """start and stop along x, then along y; of a sample that is copied nothing."""
    a, b, c, d, tau_x, tau_y = _lattice_map(row_ptr, height, width)
    x_start, x_stop = _box(a, b, tau_x, width, height, width)
    y_start, y_stop = _box(c, d, tau_y, width, height, height)
    copied, _, _ = _copied(row_ptr, height, width)
    return x_start, tl.where(copied, x_start, x_stop), y_start, tl.where(copied, y_start, y_stop)


@triton.jit
def _folded(place, side):
    """A place of the extended image as a pixel of it, and whether reflection reaches it."""
    there = (place > -side) & (place < 2 * side - 1)
    return side - 1 - tl.abs(side - 1 - tl.abs(place)), there


@triton.jit
def _even(x0, x1, x2, x3, x4, x5):
    """An even point of an upsampled row, from the pixels i - 3 to i + 2 where the point is 2 i."""
    return x0 * _S11 + x1 * _S9 + x2 * _S7 + x3 * _S5 + x4 * _S3 + x5 * _S1


@triton.jit
def _odd(x0, x1, x2, x3, x4, x5):
    """An odd point, from the pixels i - 2 to i + 3 where the point is 2 i + 1."""
    return x0 * _S10 + x1 * _S8 + x2 * _S6 + x3 * _S4 + x4 * _S2 + x5 * _S0


@triton.jit
def _pixel(row_ptr, there_y, place, images_x, channel_at, channel_there, params_ptr, width, cut_y,
           ADJOINT: tl.constexpr, CUTOUT: tl.constexpr):  # fmt: skip
    """[BLOCK, LANES] of a row of the image: extended, or for the adjoint with zeros around it."""
    if ADJOINT:
        there, pixel = (place >= 0) & (place < width), place
        if CUTOUT:
            there &= ~(cut_y & is_cut(params_ptr + _CUT_CENTER, params_ptr, place, width))
    else:
        pixel, there = _folded(place, width)
    there = (there & there_y)[:, None] & channel_there
    return tl.load(row_ptr + (pixel * images_x)[:, None] + channel_at, mask=there, other=0.0).to(tl.float32)


@triton.jit
def _up_kernel(
    images_ptr,  # [N, C, H, W] floats, the strides below
    images_n,
    images_c,
    images_y,
    images_x,
    rows_ptr,  # [N, 40] float32, contiguous
    # [N, 6 H - 4, 6 W - 4, LANES] from -2 (side - 1) on; ADJOINT: [N, 2 H + 12, 2 W + 12, LANES] from -6 on
    plane_ptr,
    height,
    width,
    ADJOINT: tl.constexpr,
    CUTOUT: tl.constexpr,
    CHANNELS: tl.constexpr,
    LANES: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Twice the points along both axes. A program runs down a strip of BLOCK pairs of columns, with the last
    rows, upsampled along x, in registers: 7 loads for 4 points."""
    sample = tl.program_id(1).to(tl.int64)
    params_ptr = rows_ptr + sample * _COLUMNS
    if ADJOINT:
        copied, _, _ = _copied(params_ptr, height, width)
        first_x, first_y, pitch = -6, -6, 2 * width + 12
        x_start, x_stop, y_start, y_stop = -3, width + 3, -3, height + 3
        x_stop = tl.where(copied, x_start, x_stop)
        size, gain = (2 * height + 12).to(tl.int64) * pitch, 1.0
    else:
        first_x, first_y, pitch = -2 * (width - 1), -2 * (height - 1), 6 * width - 4
        x_start, x_stop, y_start, y_stop = _boxes(params_ptr, height, width)
        # In pairs; >> rounds down where / would round to 0.
        x_start, x_stop, y_start, y_stop = x_start >> 1, (x_stop + 1) >> 1, y_start >> 1, (y_stop + 1) >> 1
        size, gain = (6 * height - 4).to(tl.int64) * pitch, 4.0
    image_ptr = images_ptr + sample * images_n
    plane_ptr += sample * size * LANES
    channel = tl.arange(0, LANES)[None, :]
    channel_there, channel_at = channel < CHANNELS, channel * images_c
    tiles_x = tl.cdiv(tl.maximum(x_stop - x_start, 0), BLOCK)
    tiles = tiles_x * tl.cdiv(tl.maximum(y_stop - y_start, 0), ROWS)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        x = x_start + (tile % tiles_x) * BLOCK + tl.arange(0, BLOCK)
        y0 = y_start + (tile // tiles_x) * ROWS
        at = plane_ptr + ((2 * x - first_x) * LANES).to(INDEX)[:, None] + channel
        zero = tl.zeros([BLOCK, LANES], tl.float32)
        e0, e1, e2, e3, e4, e5 = zero, zero, zero, zero, zero, zero
        o0, o1, o2, o3, o4, o5 = zero, zero, zero, zero, zero, zero
        for step in range(tl.minimum(ROWS, y_stop - y0) + 6):
            y = y0 + step - 3 + tl.zeros([BLOCK], tl.int32)  # for masks of a program's own lanes
            if ADJOINT:
                row, there_y = y, (y >= 0) & (y < height)
                cut_y = is_cut(params_ptr + _CUT_CENTER + 1, params_ptr, y, height)
            else:
                row, there_y = _folded(y, height)
                cut_y = there_y
            row_ptr = image_ptr + (row.to(INDEX) * images_y)[:, None]
            of_row = (images_x, channel_at, channel_there, params_ptr, width, cut_y, ADJOINT, CUTOUT)
            p0 = _pixel(row_ptr, there_y, x - 3, *of_row)
            p1 = _pixel(row_ptr, there_y, x - 2, *of_row)
            p2 = _pixel(row_ptr, there_y, x - 1, *of_row)
            p3 = _pixel(row_ptr, there_y, x, *of_row)
            p4 = _pixel(row_ptr, there_y, x + 1, *of_row)
            p5 = _pixel(row_ptr, there_y, x + 2, *of_row)
            p6 = _pixel(row_ptr, there_y, x + 3, *of_row)
            e6, o6 = _even(p0, p1, p2, p3, p4, p5), _odd(p1, p2, p3, p4, p5, p6)
            pair = y - 3  # of rows, whose last pixels have just come
            there = ((pair >= y0) & (pair < y_stop) & (x < x_stop))[:, None] & (channel < LANES)
            upper = at + ((2 * pair - first_y).to(INDEX) * (pitch * LANES))[:, None]
            lower = upper + pitch * LANES
            tl.store(upper, gain * _even(e0, e1, e2, e3, e4, e5), mask=there)
            tl.store(upper + LANES, gain * _even(o0, o1, o2, o3, o4, o5), mask=there)
            tl.store(lower, gain * _odd(e1, e2, e3, e4, e5, e6), mask=there)
            tl.store(lower + LANES, gain * _odd(o1, o2, o3, o4, o5, o6), mask=there)
            e0, e1, e2, e3, e4, e5 = e1, e2, e3, e4, e5, e6
            o0, o1, o2, o3, o4, o5 = o1, o2, o3, o4, o5, o6


@triton.jit
def _whole(place):
    """A float64 place as the integer below it, and what is left as float32."""
    place = tl.minimum(tl.maximum(place, -1073741824.0), 1073741823.0)
    below = tl.floor(place)
    return below.to(tl.int32), (place - below).to(tl.float32)


@triton.jit
def _step(place):
    """A float32 place as the integer below it and the rest; far beyond any plane it stays there."""
    below = tl.floor(tl.minimum(tl.maximum(place, -16777216.0), 16777216.0))
    return below.to(tl.int32), place - below


@triton.jit
def _tap(plane_ptr, jx, jy, weight, first_x, first_y, stop_x, stop_y, pitch, channel, there,
         INDEX: tl.constexpr, LANES: tl.constexpr):  # fmt: skip
    there &= (jx >= first_x) & (jx < stop_x) & (jy >= first_y) & (jy < stop_y)
    at = ((jy - first_y).to(INDEX) * pitch + (jx - first_x)) * LANES
    return weight[:, None] * tl.load(
        plane_ptr + at[:, None] + channel, mask=there[:, None] & (channel < LANES), other=0.0
    )


@triton.jit
def _sampled(plane_ptr, ey, ex0, lane, there, a, b, c, d, tau_x, tau_y, height, width, channel,
             INDEX: tl.constexpr, LANES: tl.constexpr):  # fmt: skip
    """A row of the lattice: [BLOCK, LANES] at the points (ex0 + lane, ey)."""
    base_x, part_x = _whole(a * ex0 + b * ey + tau_x)
    base_y, part_y = _whole(c * ex0 + d * ey + tau_y)
    jx, fx = _step(part_x + a.to(tl.float32) * lane)
    jy, fy = _step(part_y + c.to(tl.float32) * lane)
    jx, jy = jx + base_x, jy + base_y
    first_x, first_y, pitch = -2 * (width - 1), -2 * (height - 1), 6 * width - 4
    stop_x, stop_y = 4 * width - 2, 4 * height - 2
    limits = (first_x, first_y, stop_x, stop_y, pitch, channel, there)
    value = _tap(plane_ptr, jx, jy, (1 - fx) * (1 - fy), *limits, INDEX, LANES)
    value += _tap(plane_ptr, jx + 1, jy, fx * (1 - fy), *limits, INDEX, LANES)
    value += _tap(plane_ptr, jx, jy + 1, (1 - fx) * fy, *limits, INDEX, LANES)
    return value + _tap(plane_ptr, jx + 1, jy + 1, fx * fy, *limits, INDEX, LANES)


@triton.jit
def _sample_kernel(
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
    """Samples the lattice and halves its rows: a program runs down BLOCK columns, the last ten rows in
    registers."""
    sample = tl.program_id(1).to(tl.int64)
    params_ptr = rows_ptr + sample * _COLUMNS
    plane_ptr += sample * (6 * height - 4) * (6 * width - 4) * LANES
    columns_x = 2 * width + 10
    tiles_x = tl.cdiv(columns_x, BLOCK)
    first, y0 = (tl.program_id(0) % tiles_x) * BLOCK, (tl.program_id(0) // tiles_x) * ROWS
    column = first + tl.arange(0, BLOCK)
    lane, there, ex0 = tl.arange(0, BLOCK).to(tl.float32), column < columns_x, first - 5
    a, b, c, d, tau_x, tau_y = _lattice_map(params_ptr, height, width)
    copied, _, _ = _copied(params_ptr, height, width)
    channel = tl.arange(0, LANES)[None, :]
    at = out_ptr + sample * height * columns_x * LANES + (column * LANES)[:, None] + channel
    zero = tl.zeros([BLOCK, LANES], tl.float32)
    w0, w1, w2, w3, w4 = zero, zero, zero, zero, zero
    w5, w6, w7, w8, w9 = zero, zero, zero, zero, zero
    of_row = (ex0, lane, there, a, b, c, d, tau_x, tau_y, height, width, channel)
    for step in range(tl.where(copied, 0, tl.minimum(ROWS, height - y0) + 5)):
        ey = 2 * (y0 + step) - 5
        w10 = _sampled(plane_ptr, ey, *of_row, INDEX, LANES)
        w11 = _sampled(plane_ptr, ey + 1, *of_row, INDEX, LANES)
        row = y0 + step - 5 + tl.zeros([BLOCK], tl.int32)
        value = _halved(w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11)
        kept = (there & (row >= y0))[:, None] & (channel < LANES)
        tl.store(at + (row.to(INDEX) * (columns_x * LANES))[:, None], value, mask=kept)
        w0, w1, w2, w3, w4 = w2, w3, w4, w5, w6
        w5, w6, w7, w8, w9 = w7, w8, w9, w10, w11


@triton.jit
def _halved(w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11):
    value = w0 * _S0 + w1 * _S1 + w2 * _S2 + w3 * _S3 + w4 * _S4 + w5 * _S5
    return value + (w6 * _S6 + w7 * _S7 + w8 * _S8 + w9 * _S9 + w10 * _S10 + w11 * _S11)


@triton.jit
def _down_kernel(
    plane_ptr,  # [N, H, 2 W + 10, LANES] float32: rows halved, columns not
    images_ptr,  # [N, C, H, W] floats, the strides below: what is copied where nothing is warped
    images_n,
    images_c,
    images_y,
    images_x,
    rows_ptr,  # [N, 40] float32, contiguous
    key_ptr,  # [N, 2] int32, the strides below
    key_n,
    key_word,
    eps_ptr,  # [N, C, H, W] floats, the strides below
    eps_n,
    eps_c,
    eps_y,
    eps_x,
    out_ptr,  # [N, C, H, W] floats, the strides below
    out_n,
    out_c,
    out_y,
    out_x,
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
    BLOCK: tl.constexpr,
):
    """Halves the columns, or copies, and finishes the pixels."""
    sample = tl.program_id(1).to(tl.int64)
    params_ptr = rows_ptr + sample * _COLUMNS
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    y, x = pixel // width, pixel % width
    channel = tl.arange(0, LANES)[None, :]
    there = (y < height)[:, None] & (channel < CHANNELS)
    copied, move_x, move_y = _copied(params_ptr, height, width)
    if copied:
        from_x, _ = _folded(x + move_x, width)
        from_y, _ = _folded(y + move_y, height)
        image_ptr = images_ptr + sample * images_n + channel * images_c
        from_ptr = image_ptr + (from_y.to(INDEX) * images_y + from_x.to(INDEX) * images_x)[:, None]
        value = tl.load(from_ptr, mask=there, other=0.0).to(tl.float32)
    else:
        columns_x = 2 * width + 10
        line_ptr = plane_ptr + sample * height * columns_x * LANES
        line_ptr += ((y.to(INDEX) * columns_x + 2 * x) * LANES)[:, None] + channel
        whole = (y < height)[:, None] & (channel < LANES)  # all lanes alike, so that they are one load
        value = tl.zeros([BLOCK, LANES], tl.float32)
        for k in tl.static_range(12):
            value += tl.load(line_ptr + k * LANES, mask=whole, other=0.0) * _TAPS[k]
    value = finished(
        value, params_ptr, key_ptr + sample * key_n, key_word, eps_ptr + sample * eps_n, eps_c, eps_y, eps_x,
        y, x, height, width, noise_block, CHANNELS, LANES, COLOR, False, OFFSET, NOISE, CUTOUT, BLOCK,
    )  # fmt: skip
    at = out_ptr + sample * out_n + (y.to(INDEX) * out_y + x.to(INDEX) * out_x)[:, None] + channel * out_c
    tl.store(at, value.to(out_ptr.dtype.element_ty), mask=there)


@triton.jit
def _inverse(a, b, c, d, height, width):
    """The inverse of [a b; c d], and how far, along x and y of the lattice, the points lie that show a point
    of the doubled plane or its neighbours. Of a matrix without inverse, or nearly so, 0 and as far as the
    lattice goes."""
    determinant = a * d - b * c
    inverse_a, inverse_b, inverse_c, inverse_d = (
        d / determinant,
        -b / determinant,
        -c / determinant,
        a / determinant,
    )
    reach_x, reach_y = tl.abs(inverse_a) + tl.abs(inverse_b), tl.abs(inverse_c) + tl.abs(inverse_d)
    usable = (reach_x < 2 * width) & (reach_y < 2 * height)  # not so for what is no number
    inverse_a, inverse_b = tl.where(usable, inverse_a, 0.0), tl.where(usable, inverse_b, 0.0)
    inverse_c, inverse_d = tl.where(usable, inverse_c, 0.0), tl.where(usable, inverse_d, 0.0)
    reach_x = tl.where(usable, reach_x, 2.0 * width + 5).to(tl.float32)
    reach_y = tl.where(usable, reach_y, 2.0 * height + 5).to(tl.float32)
    return inverse_a, inverse_b, inverse_c, inverse_d, reach_x, reach_y


@triton.jit
def _spread_kernel(
    lattice_ptr,  # [N, 2 H + 12, 2 W + 12, LANES] float32, from -6 on: gradients of the lattice's points
    rows_ptr,  # [N, 40] float32, contiguous
    plane_ptr,  # [N, 6 H - 4, 6 W - 4, LANES] float32: gradients of the doubled plane, in its box
    height,
    width,
    CHANNELS: tl.constexpr,
    LANES: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The transpose of the sampling, as a gather: each point of the doubled plane looks for the places of the
    lattice that are less than 1 away from it, and takes of them what they took of it."""
    sample = tl.program_id(1).to(tl.int64)
    params_ptr = rows_ptr + sample * _COLUMNS
    pitch, lattice_pitch = 6 * width - 4, 2 * width + 12
    plane_ptr += sample * (6 * height - 4) * pitch * LANES
    lattice_ptr += sample * (2 * height + 12) * lattice_pitch * LANES
    channel = tl.arange(0, LANES)[None, :]
    x_start, x_stop, y_start, y_stop = _boxes(params_ptr, height, width)
    a, b, c, d, tau_x, tau_y = _lattice_map(params_ptr, height, width)
    inverse_a, inverse_b, inverse_c, inverse_d, reach_x, reach_y = _inverse(a, b, c, d, height, width)
    # A slack for rounding: a candidate that is too far away takes nothing.
    tries_x, tries_y = (2 * reach_x + 0.02).to(tl.int32) + 1, (2 * reach_y + 0.02).to(tl.int32) + 1
    a32, b32, c32, d32 = a.to(tl.float32), b.to(tl.float32), c.to(tl.float32), d.to(tl.float32)
    tiles_x = tl.cdiv(tl.maximum(x_stop - x_start, 0), BLOCK)
    tiles = tiles_x * tl.maximum(y_stop - y_start, 0)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        jx0, jy = x_start + (tile % tiles_x) * BLOCK, y_start + tile // tiles_x
        lane = tl.arange(0, BLOCK)
        there = jx0 + lane < x_stop
        # Where the first point of the tile comes from; the others are close to it.
        from_x, part_x = _whole(inverse_a * (jx0 - tau_x) + inverse_b * (jy - tau_y))
        from_y, part_y = _whole(inverse_c * (jx0 - tau_x) + inverse_d * (jy - tau_y))
        first_x, _ = _step(part_x + inverse_a.to(tl.float32) * lane - reach_x - 0.01)
        first_y, _ = _step(part_y + inverse_c.to(tl.float32) * lane - reach_y - 0.01)
        first_x, first_y = first_x + 1, first_y + 1  # the first integer above
        first_x = tl.maximum(first_x + from_x, -5) - from_x
        first_y = tl.maximum(first_y + from_y, -5) - from_y
        # What the place of (from_x, from_y) is away from the tile's first point.
        away_x = (a * from_x + b * from_y + tau_x - jx0).to(tl.float32)
        away_y = (c * from_x + d * from_y + tau_y - jy).to(tl.float32)
        value = tl.zeros([BLOCK, LANES], tl.float32)
        for try_y in range(tries_y):
            ey = first_y + try_y
            for try_x in range(tries_x):
                ex = first_x + try_x
                off_x = away_x - lane + (a32 * ex + b32 * ey)
                off_y = away_y + (c32 * ex + d32 * ey)
                weight = tl.maximum(1 - tl.abs(off_x), 0.0) * tl.maximum(1 - tl.abs(off_y), 0.0)
                x, y = ex + from_x, ey + from_y
                taken = (
                    there & (weight > 0) & (x >= -5) & (x < 2 * width + 5) & (y >= -5) & (y < 2 * height + 5)
                )
                at = ((y + 6).to(INDEX) * lattice_pitch + (x + 6)) * LANES
                some = tl.load(
                    lattice_ptr + at[:, None] + channel, mask=taken[:, None] & (channel < LANES), other=0.0
                )
                value += weight[:, None] * some
        at = ((jy + 2 * (height - 1)).to(INDEX) * pitch + (jx0 + lane + 2 * (width - 1))) * LANES
        tl.store(plane_ptr + at[:, None] + channel, value, mask=there[:, None] & (channel < LANES))


@triton.jit
def _gathered(line_ptr, place, start, stop, first, step, there):
    """2 sum_k f[k] line[2 place + k - 5], of what lies in [start, stop); line_ptr is where `first` lies."""
    value = tl.zeros_like(there * 1.0)
    for k in tl.static_range(12):
        j = 2 * place + (k - 5)
        inside = there & ((j >= start) & (j < stop))[:, None]
        value += tl.load(line_ptr + ((j - first) * step)[:, None], mask=inside, other=0.0) * (2 * _TAPS[k])
    return value


@triton.jit
def _unfolded(line_ptr, place, side, start, stop, step, there):
    """The transpose of extending and upsampling along an axis: a pixel and its two reflections."""
    first = -2 * (side - 1)
    value = _gathered(line_ptr, place, start, stop, first, step, there)
    if start < 5:  # the reflection of the first pixels is looked at
        value += _gathered(line_ptr, -place, start, stop, first, step, there & (place > 0)[:, None])
    if stop > 2 * side - 5:
        there &= (place < side - 1)[:, None]
        value += _gathered(line_ptr, 2 * (side - 1) - place, start, stop, first, step, there)
    return value


@triton.jit
def _fold_rows_kernel(
    plane_ptr,  # [N, 6 H - 4, 6 W - 4, LANES] float32, in its box
    rows_ptr,  # [N, 40] float32, contiguous
    out_ptr,  # [N, 6 H - 4, W, LANES] float32, in the box's rows
    height,
    width,
    CHANNELS: tl.constexpr,
    LANES: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    sample = tl.program_id(1).to(tl.int64)
    pitch = 6 * width - 4
    plane_ptr += sample * (6 * height - 4) * pitch * LANES
    out_ptr += sample * (6 * height - 4) * width * LANES
    channel = tl.arange(0, LANES)[None, :]
    x_start, x_stop, y_start, y_stop = _boxes(rows_ptr + sample * _COLUMNS, height, width)
    points = tl.where(x_stop > x_start, tl.maximum(y_stop - y_start, 0), 0) * width
    for tile in range(tl.program_id(0), tl.cdiv(points, BLOCK), tl.num_programs(0)):
        point = tile * BLOCK + tl.arange(0, BLOCK)
        jy, x = (y_start + point // width + 2 * (height - 1)).to(INDEX), point % width
        there = (point < points)[:, None] & (channel < LANES)
        line_ptr = plane_ptr + (jy * pitch * LANES)[:, None] + channel
        value = _unfolded(line_ptr, x, width, x_start, x_stop, LANES, there)
        tl.store(out_ptr + ((jy * width + x) * LANES)[:, None] + channel, value, mask=there)


@triton.jit
def _fold_columns_kernel(
    plane_ptr,  # [N, 6 H - 4, W, LANES] float32, in the box's rows
    gradients_ptr,  # [N, C, H, W] floats, the strides below: for samples that were copied
    gradients_n,
    gradients_c,
    gradients_y,
    gradients_x,
    rows_ptr,  # [N, 40] float32, contiguous
    out_ptr,  # [N, C, H, W] floats, the strides below
    out_n,
    out_c,
    out_y,
    out_x,
    height,
    width,
    COLOR: tl.constexpr,
    CUTOUT: tl.constexpr,
    CHANNELS: tl.constexpr,
    LANES: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    sample = tl.program_id(1).to(tl.int64)
    params_ptr = rows_ptr + sample * _COLUMNS
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    y, x = pixel // width, pixel % width
    channel = tl.arange(0, LANES)[None, :]
    there = (y < height)[:, None] & (channel < CHANNELS)
    copied, move_x, move_y = _copied(params_ptr, height, width)
    if copied:
        value = tl.zeros([BLOCK, LANES], tl.float32)
        gradient_ptr = gradients_ptr + sample * gradients_n + channel * gradients_c
        for copy_y in tl.static_range(3):
            from_y, is_y = _reflection(y, copy_y, height)
            for copy_x in tl.static_range(3):
                from_x, is_x = _reflection(x, copy_x, width)
                value += _gradient(
                    gradient_ptr, from_y - move_y, from_x - move_x, gradients_y, gradients_x, is_y & is_x,
                    there, params_ptr, height, width, CUTOUT, INDEX,
                )  # fmt: skip
    else:
        x_start, x_stop, y_start, y_stop = _boxes(params_ptr, height, width)
        y_stop = tl.where(x_stop > x_start, y_stop, y_start)
        line_ptr = plane_ptr + sample * (6 * height - 4) * width * LANES + (x * LANES)[:, None] + channel
        whole = (y < height)[:, None] & (channel < LANES)  # all lanes alike, so that they are one load
        value = _unfolded(line_ptr, y.to(INDEX), height, y_start, y_stop, width * LANES, whole)
    if COLOR:
        value = recoloured(value, params_ptr, CHANNELS, LANES, True, False, BLOCK)
    at = out_ptr + sample * out_n + (y.to(INDEX) * out_y + x.to(INDEX) * out_x)[:, None] + channel * out_c
    tl.store(at, value.to(out_ptr.dtype.element_ty), mask=there)


@triton.jit
def _reflection(place, number: tl.constexpr, side):
    """The place itself, or its image beyond the first or the last pixel, and whether that is another one."""
    if number == 0:
        return place, place >= 0
    elif number == 1:
        return -place, place > 0
    else:
        return 2 * (side - 1) - place, place < side - 1


@triton.jit
def _gradient(at, y, x, gradients_y, gradients_x, wanted, there, params_ptr, height, width,
              CUTOUT: tl.constexpr, INDEX: tl.constexpr):  # fmt: skip
    wanted &= (y >= 0) & (y < height) & (x >= 0) & (x < width)
    if CUTOUT:
        cut_x = is_cut(params_ptr + _CUT_CENTER, params_ptr, x, width)
        wanted &= ~(cut_x & is_cut(params_ptr + _CUT_CENTER + 1, params_ptr, y, height))
    at += (y.to(INDEX) * gradients_y + x.to(INDEX) * gradients_x)[:, None]
    return tl.load(at, mask=there & wanted[:, None], other=0.0).to(tl.float32)
