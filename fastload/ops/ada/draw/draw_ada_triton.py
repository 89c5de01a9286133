"""The Triton twins of `draw_ada` and `draw_edm`: one launch for the rows of a batch, a lane for each sample.

draw_ada.py and draw_edm.py say what is drawn; these are the same steps in the same order, rounded one by one
as in NumPy. Every program reads the counter; the last one to end, as the ticket tells, raises it. So one
launch is one call, also in a replayed CUDA graph.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from fastload.ops.ada import ada_params as columns
from fastload.ops.ada.draw.draw_ada import SETTINGS
from fastload.ops.ada.draw.draw_edm import EDM_SETTINGS
from fastload.ops.ada.draw.random_draws import Percentile
from fastload.ops.ada.stages.wavelets import BAND_ENERGY
from fastload.ops.philox_triton import box_muller, halves, philox, uniform
from fastload.rng import Purpose

# Samples of a program: a batch spreads over several multiprocessors, and one warp needs no barrier for the
# ticket.
BLOCK, NUM_WARPS = 32, 1

_COLUMNS, _G_INV, _C = tl.constexpr(columns.COLUMNS), tl.constexpr(columns.G_INV), tl.constexpr(columns.C)
_GAINS, _SIGMA = tl.constexpr(columns.GAINS), tl.constexpr(columns.SIGMA)
_NOISE_KEY = tl.constexpr(columns.NOISE_KEY)
_CUT_SIZE, _CUT_CENTER = tl.constexpr(columns.CUT_SIZE), tl.constexpr(columns.CUT_CENTER)
_MOVES = tl.constexpr(columns.MOVES)
_ENERGY = tl.constexpr(BAND_ENERGY)
_PI = tl.constexpr(3.141592653589793)
_PURPOSES = [tl.constexpr(number) for number in range(Purpose.ADA_XFLIP, Purpose.ADA_CUTOUT + 1)]
_XFLIP, _YFLIP, _ROTATE90, _XINT, _SCALE, _ROTATE, _ROTATE_AFTER, _ANISO, _XFRAC = _PURPOSES[:9]
_BRIGHTNESS, _CONTRAST, _LUMAFLIP, _HUE, _SATURATION, _IMGFILTER, _NOISE, _CUTOUT = _PURPOSES[9:]

# Numbers that differ from pipe to pipe and from call to call: Triton would compile anew for some of them.
_FREE = ["seed_low", "seed_high", "first_row", "n", "channels", "height", "width"]


def launch(
    settings: list[float], p: Any, calls: Any, ticket: Any, seed: int, first_row: int, n: int, channels: int,
    height: int, width: int, percentile: float | None,
) -> Any:  # fmt: skip
    """rows [n, 40] float32 of `draw_ada`, on the device of p; seed: as an int64."""
    rows = torch.empty(n, columns.COLUMNS, dtype=torch.float32, device=p.device)
    replaced = Percentile.of(percentile)
    with torch.cuda.device_of(p):
        _ada_kernel[(max(1, triton.cdiv(n, BLOCK)),)](
            **dict(zip(SETTINGS, settings, strict=True)),
            **dict(zip(("q", "normal", "positive"), replaced or (0.0, 0.0, 0.0), strict=True)),
            **_common(p, calls, ticket, seed, first_row, n, height, width), rows_ptr=rows, channels=channels,
            REPLACED=replaced is not None,
        )  # fmt: skip
    return rows


def launch_edm(
    settings: list[float], p: Any, calls: Any, ticket: Any, seed: int, first_row: int, n: int, height: int,
    width: int, label_count: int,
) -> Any:  # fmt: skip
    """rows [n, 40] and labels [n, label_count], float32, of `draw_edm`."""
    rows = torch.empty(n, columns.COLUMNS, dtype=torch.float32, device=p.device)
    labels = torch.empty(n, label_count, dtype=torch.float32, device=p.device)
    with torch.cuda.device_of(p):
        _edm_kernel[(max(1, triton.cdiv(n, BLOCK)),)](
            **dict(zip(EDM_SETTINGS, settings, strict=True)),
            **_common(p, calls, ticket, seed, first_row, n, height, width), rows_ptr=rows, labels_ptr=labels,
            label_count=label_count,
        )  # fmt: skip
    return rows, labels


def _common(p, calls, ticket, seed, first_row, n, height, width) -> dict[str, Any]:
    return {
        "p_ptr": p, "calls_ptr": calls, "ticket_ptr": ticket, "n": n, "first_row": first_row,
        "height": height, "width": width, "BLOCK": BLOCK, "num_warps": NUM_WARPS, "enable_fp_fusion": False,
        **dict(zip(("seed_low", "seed_high"), halves(seed), strict=True)),
    }  # fmt: skip


@triton.jit
def _counter(row, calls, seed_low, seed_high):
    return row.to(tl.uint32), calls.to(tl.uint32), seed_low.to(tl.uint32), seed_high.to(tl.uint32)


@triton.jit
def _words(counter, purpose: tl.constexpr, block: tl.constexpr):
    row, call, seed_low, seed_high = counter
    zero = tl.zeros_like(row)
    return philox(row, zero + call, zero + purpose, zero + block, seed_low, seed_high)


@triton.jit
def _uniforms(counter, chance, q, purpose: tl.constexpr, block: tl.constexpr, REPLACED: tl.constexpr):
    w0, w1, w2, _ = _words(counter, purpose, block)
    on, first, second = uniform(w0) < chance, uniform(w1), uniform(w2)
    if REPLACED:
        on, first, second = w0 == w0, tl.zeros_like(first) + q, tl.zeros_like(first) + q
    return on, first, second


@triton.jit
def _normals(counter, chance, normal, purpose: tl.constexpr, block: tl.constexpr, REPLACED: tl.constexpr):
    w0, w1, w2, _ = _words(counter, purpose, block)
    on = uniform(w0) < chance
    first, second = box_muller(w1, w2)
    if REPLACED:
        on, first, second = w0 == w0, tl.zeros_like(first) + normal, tl.zeros_like(first) + normal
    return on, first, second


@triton.jit
def _floored(counter, chance, q, values, purpose: tl.constexpr, REPLACED: tl.constexpr):
    """floor(values u) where the gate is open, else 0."""
    on, u, _ = _uniforms(counter, chance, q, purpose, 0, REPLACED)
    return tl.where(on, tl.floor(values * u), 0.0)


@triton.jit
def _angle(counter, chance, q, largest, purpose: tl.constexpr, REPLACED: tl.constexpr):
    """(2 u - 1) pi largest where the gate is open, else 0."""
    on, u, _ = _uniforms(counter, chance, q, purpose, 0, REPLACED)
    return tl.where(on, (2 * u - 1) * (largest * _PI), 0.0)


@triton.jit
def _normal(counter, chance, normal, purpose: tl.constexpr, block: tl.constexpr, REPLACED: tl.constexpr):
    """z where the gate is open, else 0."""
    on, z, _ = _normals(counter, chance, normal, purpose, block, REPLACED)
    return tl.where(on, z, 0.0)


@triton.jit
def _turned(a, b, c, d, cosine, sine):
    """[a b; c d] times [cos -sin; sin cos]"""
    return a * cosine + b * sine, b * cosine - a * sine, c * cosine + d * sine, d * cosine - c * sine


@triton.jit
def _rounded(value):
    """To whole numbers, ties to even, of less than 2^22."""
    return (value + 12582912.0) - 12582912.0


@triton.jit
def _counted(calls_ptr, ticket_ptr):
    """The last program of a launch raises the counter and leaves the ticket as it was."""
    done = tl.atomic_add(ticket_ptr, 1)
    if done == tl.num_programs(0) - 1:
        tl.store(calls_ptr, tl.load(calls_ptr) + 1)
        tl.store(ticket_ptr, 0)


@triton.jit
def _store_geometry(at, a, b, tx, c, d, ty, there):
    zero = tl.zeros_like(a)
    tl.store(at + _G_INV, a, mask=there)
    tl.store(at + _G_INV + 1, b, mask=there)
    tl.store(at + _G_INV + 2, tx, mask=there)
    tl.store(at + _G_INV + 3, c, mask=there)
    tl.store(at + _G_INV + 4, d, mask=there)
    tl.store(at + _G_INV + 5, ty, mask=there)
    tl.store(at + _G_INV + 6, zero, mask=there)
    tl.store(at + _G_INV + 7, zero, mask=there)
    tl.store(at + _G_INV + 8, zero + 1, mask=there)


@triton.jit
def _store_colour(at, brightness, contrast, luma, hue, saturation, there):
    third, of_sine = 0.3333333333333333, 0.5773502691896258
    gray = contrast * (1 - 2 * luma)
    chroma = contrast * saturation
    along, across = chroma * tl.cos(hue), chroma * tl.sin(hue) * of_sine
    own = gray * third + (2 * along) * third
    after, before = gray * third - along * third - across, gray * third - along * third + across
    offset, zero = brightness * gray, tl.zeros_like(gray)
    for row in tl.static_range(3):
        first = own if row == 0 else (before if row == 1 else after)
        second = after if row == 0 else (own if row == 1 else before)
        third_entry = before if row == 0 else (after if row == 1 else own)
        tl.store(at + _C + 4 * row, first, mask=there)
        tl.store(at + _C + 4 * row + 1, second, mask=there)
        tl.store(at + _C + 4 * row + 2, third_entry, mask=there)
        tl.store(at + _C + 4 * row + 3, offset, mask=there)
    for column in tl.static_range(3):
        tl.store(at + _C + 12 + column, zero, mask=there)
    tl.store(at + _C + 15, zero + 1, mask=there)


@triton.jit(do_not_specialize=_FREE)
def _ada_kernel(
    xflip, rotate90, xint, scale, rotate, aniso, xfrac, brightness, contrast, lumaflip, hue, saturation,
    imgfilter, noise, cutout, imgfilter_band0, imgfilter_band1, imgfilter_band2, imgfilter_band3,
    xint_max, scale_std, rotate_max, aniso_std, xfrac_std,
    brightness_std, contrast_std, hue_max, saturation_std, imgfilter_std, noise_std, cutout_size,
    q, normal, positive,  # what a percentile replaces random draws with
    p_ptr,  # [] float32
    calls_ptr,  # [1] int64
    ticket_ptr,  # [1] int32
    rows_ptr,  # [N, 40] float32, contiguous
    seed_low, seed_high, first_row, n, channels, height, width,
    REPLACED: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there, at = lane < n, rows_ptr + lane.to(tl.int64) * _COLUMNS
    p = tl.load(p_ptr)
    counter = _counter(lane + first_row, tl.load(calls_ptr), seed_low, seed_high)
    zero = tl.zeros([BLOCK], tl.float32)
    a, b, tx, c, d, ty = zero + 1, zero, zero, zero, zero + 1, zero
    wide, high = width.to(tl.float32), height.to(tl.float32)
    if xflip > 0:
        sign = 1 - 2 * _floored(counter, xflip * p, q, 2, _XFLIP, REPLACED)
        a, c = a * sign, c * sign
    if rotate90 > 0:
        turns = _floored(counter, rotate90 * p, q, 4, _ROTATE90, REPLACED)
        turns = turns - 4 * tl.floor(turns / 4)  # a percentile of 1 makes it 4
        odd, sign = turns - 2 * tl.floor(turns / 2), tl.where(turns >= 2, -1.0, 1.0)
        a, b, c, d = _turned(a, b, c, d, (1 - odd) * sign, odd * sign)
    if xint > 0:
        on, u, v = _uniforms(counter, xint * p, q, _XINT, 0, REPLACED)
        x = tl.where(on, -_rounded((2 * u - 1) * xint_max * wide), 0.0)
        y = tl.where(on, -_rounded((2 * v - 1) * xint_max * high), 0.0)
        tx, ty = tx + (a * x + b * y), ty + (c * x + d * y)
    if scale > 0:
        factor = tl.exp2(_normal(counter, scale * p, normal, _SCALE, 0, REPLACED) * scale_std)
        factor = tl.div_rn(zero + 1, factor)
        a, b, c, d = a * factor, b * factor, c * factor, d * factor
    chance = 1 - tl.sqrt_rn(tl.minimum(tl.maximum(1 - rotate * p, 0.0), 1.0))
    if rotate > 0:
        angle = _angle(counter, chance, q, rotate_max, _ROTATE, REPLACED)
        a, b, c, d = _turned(a, b, c, d, tl.cos(angle), tl.sin(angle))
    if aniso > 0:
        factor = tl.exp2(_normal(counter, aniso * p, normal, _ANISO, 0, REPLACED) * aniso_std)
        inverse = tl.div_rn(zero + 1, factor)
        a, b, c, d = a * inverse, b * factor, c * inverse, d * factor
    if (rotate > 0) & (not REPLACED):
        angle = _angle(counter, chance, q, rotate_max, _ROTATE_AFTER, REPLACED)
        a, b, c, d = _turned(a, b, c, d, tl.cos(angle), tl.sin(angle))
    if xfrac > 0:
        on, z, z2 = _normals(counter, xfrac * p, normal, _XFRAC, 0, REPLACED)
        x, y = tl.where(on, -(z * xfrac_std * wide), 0.0), tl.where(on, -(z2 * xfrac_std * high), 0.0)
        tx, ty = tx + (a * x + b * y), ty + (c * x + d * y)
    _store_geometry(at, a, b, tx, c, d, ty, there)

    bright, factor, luma, turned, vivid = zero, zero + 1, zero, zero, zero + 1
    if brightness > 0:
        bright = _normal(counter, brightness * p, normal, _BRIGHTNESS, 0, REPLACED) * brightness_std
    if contrast > 0:
        factor = tl.exp2(_normal(counter, contrast * p, normal, _CONTRAST, 0, REPLACED) * contrast_std)
    if lumaflip > 0:
        luma = _floored(counter, lumaflip * p, q, 2, _LUMAFLIP, REPLACED)
    if (hue > 0) & (channels > 1):
        turned = _angle(counter, hue * p, q, hue_max, _HUE, REPLACED)
    if (saturation > 0) & (channels > 1):
        vivid = tl.exp2(_normal(counter, saturation * p, normal, _SATURATION, 0, REPLACED) * saturation_std)
    _store_colour(at, bright, factor, luma, turned, vivid, there)

    t0 = _band(counter, imgfilter * imgfilter_band0, p, normal, imgfilter_std, 0, REPLACED)
    t1 = _band(counter, imgfilter * imgfilter_band1, p, normal, imgfilter_std, 1, REPLACED)
    t2 = _band(counter, imgfilter * imgfilter_band2, p, normal, imgfilter_std, 2, REPLACED)
    t3 = _band(counter, imgfilter * imgfilter_band3, p, normal, imgfilter_std, 3, REPLACED)
    even = _evened(_evened(_evened(_evened(zero + 1, t0, 0), t1, 1), t2, 2), t3, 3)
    tl.store(at + _GAINS, t0 * even, mask=there)
    tl.store(at + _GAINS + 1, t1 * even, mask=there)
    tl.store(at + _GAINS + 2, t2 * even, mask=there)
    tl.store(at + _GAINS + 3, t3 * even, mask=there)

    sigma = zero
    if noise > 0:
        if REPLACED:
            sigma = zero + positive * noise_std
        else:
            sigma = tl.abs(_normal(counter, noise * p, normal, _NOISE, 0, REPLACED)) * noise_std
    tl.store(at + _SIGMA, sigma, mask=there)
    key0, key1, _, _ = _words(counter, _NOISE, 1)
    tl.store(at + _NOISE_KEY, key0.to(tl.float32, bitcast=True), mask=there)
    tl.store(at + _NOISE_KEY + 1, key1.to(tl.float32, bitcast=True), mask=there)

    size, center_x, center_y = zero, zero, zero
    if cutout > 0:
        on, center_x, center_y = _uniforms(counter, cutout * p, q, _CUTOUT, 0, REPLACED)
        size = tl.where(on, zero + cutout_size, 0.0)
    tl.store(at + _CUT_SIZE, size, mask=there)
    tl.store(at + _CUT_CENTER, center_x, mask=there)
    tl.store(at + _CUT_CENTER + 1, center_y, mask=there)
    for column in tl.static_range(_MOVES, _COLUMNS):
        tl.store(at + column, zero, mask=there)
    _counted(calls_ptr, ticket_ptr)


@triton.jit
def _band(counter, strength, p, normal, std, band: tl.constexpr, REPLACED: tl.constexpr):
    factor = tl.zeros_like(counter[0].to(tl.float32)) + 1
    if strength > 0:
        factor = tl.exp2(_normal(counter, strength * p, normal, _IMGFILTER, band, REPLACED) * std)
    return factor


@triton.jit
def _evened(even, factor, band: tl.constexpr):
    return tl.div_rn(even, tl.sqrt_rn(1 + (factor * factor - 1) * _ENERGY[band]))


@triton.jit(do_not_specialize=[*_FREE, "label_count"])
def _edm_kernel(
    xflip, yflip, rotate_int, translate_int, scale, rotate_frac, aniso, translate_frac,
    brightness, contrast, lumaflip, hue, saturation,
    translate_int_max, scale_std, rotate_frac_max, aniso_std, aniso_rotate_prob, translate_frac_std,
    brightness_std, contrast_std, hue_max, saturation_std,
    p_ptr,  # [] float32
    calls_ptr,  # [1] int64
    ticket_ptr,  # [1] int32
    rows_ptr,  # [N, 40] float32, contiguous
    labels_ptr,  # [N, label_count] float32, contiguous
    seed_low, seed_high, first_row, n, height, width, label_count,
    BLOCK: tl.constexpr,
):  # fmt: skip
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there, at = lane < n, rows_ptr + lane.to(tl.int64) * _COLUMNS
    label = labels_ptr + lane.to(tl.int64) * label_count
    p = tl.load(p_ptr)
    counter = _counter(lane + first_row, tl.load(calls_ptr), seed_low, seed_high)
    zero = tl.zeros([BLOCK], tl.float32)
    wide, high = width.to(tl.float32), height.to(tl.float32)
    for column in tl.static_range(_COLUMNS):
        tl.store(at + column, zero, mask=there)
    move = at.to(tl.pointer_type(tl.int32)) + _MOVES
    if xflip > 0:
        w = _floored(counter, xflip * p, 0.0, 2, _XFLIP, False)
        tl.store(move, w.to(tl.int32), mask=there)
        label = _labelled(label, w, there)
    if yflip > 0:
        w = _floored(counter, yflip * p, 0.0, 2, _YFLIP, False)
        tl.store(move + 1, w.to(tl.int32), mask=there)
        label = _labelled(label, w, there)
    if rotate_int > 0:
        w = _floored(counter, rotate_int * p, 0.0, 4, _ROTATE90, False)
        tl.store(move + 2, w.to(tl.int32), mask=there)
        label = _labelled(label, ((w == 1) | (w == 2)).to(tl.float32), there)
        label = _labelled(label, (w >= 2).to(tl.float32), there)
    if translate_int > 0:
        on, u, v = _uniforms(counter, translate_int * p, 0.0, _XINT, 0, False)
        x = tl.where(on, _rounded((2 * u - 1) * translate_int_max * wide), 0.0)
        y = tl.where(on, _rounded((2 * v - 1) * translate_int_max * high), 0.0)
        tl.store(move + 3, x.to(tl.int32), mask=there)
        tl.store(move + 4, y.to(tl.int32), mask=there)
        label = _labelled(label, tl.div_rn(x, zero + wide * translate_int_max), there)
        label = _labelled(label, tl.div_rn(y, zero + high * translate_int_max), there)

    a, b, tx, c, d, ty = zero + 1, zero, zero, zero, zero + 1, zero
    if scale > 0:
        w = _normal(counter, scale * p, 0.0, _SCALE, 0, False)
        factor = tl.div_rn(zero + 1, tl.exp2(w * scale_std))
        a, b, c, d = a * factor, b * factor, c * factor, d * factor
        label = _labelled(label, w, there)
    if rotate_frac > 0:
        w = _angle(counter, rotate_frac * p, 0.0, rotate_frac_max, _ROTATE, False)
        cosine, sine = tl.cos(w), tl.sin(w)
        a, b, c, d = _turned(a, b, c, d, cosine, sine)
        label = _labelled(_labelled(label, cosine - 1, there), sine, there)
    if aniso > 0:
        w = _normal(counter, aniso * p, 0.0, _ANISO, 0, False)
        on, u, _ = _uniforms(counter, aniso_rotate_prob, 0.0, _ANISO, 1, False)
        r = tl.where(on & (w != 0), (2 * u - 1) * _PI, 0.0)
        factor, cosine, sine = tl.exp2(w * aniso_std), tl.cos(r), tl.sin(r)
        inverse = tl.div_rn(zero + 1, factor)
        a, b, c, d = _turned(a, b, c, d, cosine, -sine)
        a, b, c, d = a * inverse, b * factor, c * inverse, d * factor
        a, b, c, d = _turned(a, b, c, d, cosine, sine)
        label = _labelled(_labelled(label, w * cosine, there), w * sine, there)
    if translate_frac > 0:
        on, z, z2 = _normals(counter, translate_frac * p, 0.0, _XFRAC, 0, False)
        z, z2 = tl.where(on, z, 0.0), tl.where(on, z2, 0.0)
        x, y = -(z * wide * translate_frac_std), -(z2 * high * translate_frac_std)
        tx, ty = tx + (a * x + b * y), ty + (c * x + d * y)
        label = _labelled(_labelled(label, z, there), z2, there)
    _store_geometry(at, a, b, tx, c, d, ty, there)

    bright, factor, luma, turned, vivid = zero, zero + 1, zero, zero, zero + 1
    if brightness > 0:
        w = _normal(counter, brightness * p, 0.0, _BRIGHTNESS, 0, False)
        bright = w * brightness_std
        label = _labelled(label, w, there)
    if contrast > 0:
        w = _normal(counter, contrast * p, 0.0, _CONTRAST, 0, False)
        factor = tl.exp2(w * contrast_std)
        label = _labelled(label, w, there)
    if lumaflip > 0:
        luma = _floored(counter, lumaflip * p, 0.0, 2, _LUMAFLIP, False)
        label = _labelled(label, luma, there)
    if hue > 0:
        turned = _angle(counter, hue * p, 0.0, hue_max, _HUE, False)
        label = _labelled(_labelled(label, tl.cos(turned) - 1, there), tl.sin(turned), there)
    if saturation > 0:
        w = _normal(counter, saturation * p, 0.0, _SATURATION, 0, False)
        vivid = tl.exp2(w * saturation_std)
        label = _labelled(label, w, there)
    _store_colour(at, bright, factor, luma, turned, vivid, there)
    _counted(calls_ptr, ticket_ptr)


@triton.jit
def _labelled(label, value, there):
    """Stores a column of labels; where the next one goes."""
    tl.store(label, value, mask=there)
    return label + 1
