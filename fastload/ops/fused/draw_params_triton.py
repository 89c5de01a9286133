"""The Triton twin of `draw_params`: one launch writes the rows of a batch, a lane for each sample.

Products and sums are rounded one by one as NumPy does, so that numbers differ from the reference's only
where cos and sin do. The length of the table, the seed and the batch are ordinary arguments: only which of
jitter, HSV and cutout a plan has makes another kernel.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from fastload.ops.fused import augment_params as columns
from fastload.ops.fused import draw_plan as layout
from fastload.ops.fused.draw_plan import DrawPlan
from fastload.ops.philox_triton import halves, uniform, words_at
from fastload.rng import Purpose

# Samples of a program. A batch is a few hundred, so this spreads it over several multiprocessors.
BLOCK, NUM_WARPS = 32, 1

_G_INV, _C, _JITTER = tl.constexpr(columns.G_INV), tl.constexpr(columns.C), tl.constexpr(columns.JITTER)
_ORDER, _HSV = tl.constexpr(columns.ORDER), tl.constexpr(columns.HSV)
_CUT_SIZE, _CUT_CENTER = tl.constexpr(columns.CUT_SIZE), tl.constexpr(columns.CUT_CENTER)
_USED, _COLUMNS = tl.constexpr(columns.CUT_CENTER + 2), tl.constexpr(columns.COLUMNS)
_LINEAR_COLUMNS, _LINEAR_HEADER = tl.constexpr(layout.LINEAR_COLUMNS), tl.constexpr(layout.LINEAR_HEADER)
_TERM_ENTRIES = tl.constexpr(layout.TERM_ENTRIES)
_JITTER_RANGES, _HSV_RANGES = tl.constexpr(layout.JITTER_RANGES), tl.constexpr(layout.HSV_RANGES)
_CUTOUT_GATE, _CUTOUT_SIZE = tl.constexpr(layout.CUTOUT_GATE), tl.constexpr(layout.CUTOUT_SIZE)
_ORDER_TABLE, _ORDERS = tl.constexpr(layout.ORDER_TABLE), tl.constexpr(len(layout.ORDERS))
_PURPOSE_JITTER = tl.constexpr(int(Purpose.COLOR_JITTER))
_PURPOSE_HSV, _PURPOSE_CUTOUT = tl.constexpr(int(Purpose.HSV)), tl.constexpr(int(Purpose.CUTOUT))

# What may differ from step to step: Triton would compile anew where one of these is 1 or a multiple of 16.
_FREE = ["n", "positions_stride", "draws", "seed_low", "seed_high"]


def launch(plan: DrawPlan, positions: Any, seed: int) -> Any:
    """rows [N, 32] float32 for positions [N] int64, on their device; seed: in [0, 2^64)."""
    n = positions.shape[0]
    rows = torch.empty(n, columns.COLUMNS, dtype=torch.float32, device=positions.device)
    if not n:
        return rows
    table, constants = plan.on(positions.device)
    with torch.cuda.device_of(positions):
        _kernel[(triton.cdiv(n, BLOCK),)](
            positions, positions.stride(0), table, constants, rows, n, table.shape[0], *halves(seed),
            HAS_JITTER=plan.jitter is not None, HAS_HSV=plan.hsv is not None,
            HAS_CUTOUT=plan.cutout is not None, BLOCK=BLOCK, num_warps=NUM_WARPS, enable_fp_fusion=False,
        )  # fmt: skip
    return rows


@triton.jit(do_not_specialize=_FREE)
def _kernel(
    positions_ptr,  # [N] int64, the stride below
    positions_stride,
    table_ptr,  # [draws, LINEAR_COLUMNS] float32, contiguous
    constants_ptr,  # [CONSTANTS] float32
    rows_ptr,  # [N, 32] float32, contiguous
    n,
    draws,
    seed_low,
    seed_high,
    HAS_JITTER: tl.constexpr,
    HAS_HSV: tl.constexpr,
    HAS_CUTOUT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    sample = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = sample < n
    position = tl.load(positions_ptr + sample * positions_stride, mask=there, other=0)
    at = rows_ptr + sample * _COLUMNS
    _linear(position, table_ptr, draws, seed_low, seed_high, at, there, BLOCK)
    if HAS_JITTER:
        w0, w1, w2, w3 = words_at(position, _PURPOSE_JITTER, 0, seed_low, seed_high)
        ranges_ptr = constants_ptr + _JITTER_RANGES
        tl.store(at + _JITTER, _scaled(w0, ranges_ptr), mask=there)
        tl.store(at + _JITTER + 1, _scaled(w1, ranges_ptr + 2), mask=there)
        tl.store(at + _JITTER + 2, _scaled(w2, ranges_ptr + 4), mask=there)
        tl.store(at + _JITTER + 3, _scaled(w3, ranges_ptr + 6), mask=there)
        w0, w1, w2, w3 = words_at(position, _PURPOSE_JITTER, 1, seed_low, seed_high)
        order_ptr = constants_ptr + _ORDER_TABLE + (((w0 >> 8) * _ORDERS) >> 24).to(tl.int32) * 4
        for i in tl.static_range(4):
            tl.store(at + _ORDER + i, tl.load(order_ptr + i), mask=there)
    else:
        _store_zeros(at, there, _JITTER, _HSV, BLOCK)
    if HAS_HSV:
        w0, w1, w2, w3 = words_at(position, _PURPOSE_HSV, 0, seed_low, seed_high)
        tl.store(at + _HSV, _scaled(w0, constants_ptr + _HSV_RANGES), mask=there)
        tl.store(at + _HSV + 1, _scaled(w1, constants_ptr + _HSV_RANGES + 2), mask=there)
    else:
        _store_zeros(at, there, _HSV, _CUT_SIZE, BLOCK)
    if HAS_CUTOUT:
        w0, w1, w2, w3 = words_at(position, _PURPOSE_CUTOUT, 0, seed_low, seed_high)
        cut = (w0 >> 8).to(tl.float32) < tl.load(constants_ptr + _CUTOUT_GATE)
        tl.store(at + _CUT_SIZE, tl.where(cut, tl.load(constants_ptr + _CUTOUT_SIZE), 0.0), mask=there)
        tl.store(at + _CUT_CENTER, uniform(w1), mask=there)
        tl.store(at + _CUT_CENTER + 1, uniform(w2), mask=there)
    else:
        _store_zeros(at, there, _CUT_SIZE, _USED, BLOCK)
    _store_zeros(at, there, _USED, _COLUMNS, BLOCK)


@triton.jit
def _linear(position, table_ptr, draws, seed_low, seed_high, at, there, BLOCK: tl.constexpr):
    """The products of the table's random matrices: geometry grows to the right, colour to the left."""
    zero = tl.zeros([BLOCK], tl.float32)
    g0, g1, g2, g3, g4, g5 = zero + 1, zero, zero, zero, zero + 1, zero
    c0, c1, c2, c3 = zero + 1, zero, zero, zero
    c4, c5, c6, c7 = zero, zero + 1, zero, zero
    c8, c9, c10, c11 = zero, zero, zero + 1, zero
    for draw in range(draws):
        row_ptr = table_ptr + draw * _LINEAR_COLUMNS
        purpose = (tl.load(row_ptr + 7).to(tl.uint32) << 16) | tl.load(row_ptr + 1).to(tl.uint32)
        w0, w1, w2, _ = words_at(position, purpose, 0, seed_low, seed_high)
        drawn = (w0 >> 8).to(tl.float32) < tl.load(row_ptr + 2)
        v0, v1 = _scaled(w1, row_ptr + 3), _scaled(w2, row_ptr + 5)
        terms_ptr = row_ptr + _LINEAR_HEADER
        inverse, cosine, sine = tl.div_rn(zero + 1, v0), tl.cos(v0), tl.sin(v0)
        m0 = _entry(terms_ptr, v0, v1, inverse, cosine, sine)
        m1 = _entry(terms_ptr + 1, v0, v1, inverse, cosine, sine)
        m2 = _entry(terms_ptr + 2, v0, v1, inverse, cosine, sine)
        m3 = _entry(terms_ptr + 3, v0, v1, inverse, cosine, sine)
        m4 = _entry(terms_ptr + 4, v0, v1, inverse, cosine, sine)
        m5 = _entry(terms_ptr + 5, v0, v1, inverse, cosine, sine)
        if tl.load(row_ptr) != 0:
            m6 = _entry(terms_ptr + 6, v0, v1, inverse, cosine, sine)
            m7 = _entry(terms_ptr + 7, v0, v1, inverse, cosine, sine)
            m8 = _entry(terms_ptr + 8, v0, v1, inverse, cosine, sine)
            m9 = _entry(terms_ptr + 9, v0, v1, inverse, cosine, sine)
            m10 = _entry(terms_ptr + 10, v0, v1, inverse, cosine, sine)
            m11 = _entry(terms_ptr + 11, v0, v1, inverse, cosine, sine)
            # Column by column of the product so far: its numbers are used up where they are replaced.
            c0, c4, c8 = _times(drawn, m0, m1, m2, m4, m5, m6, m8, m9, m10, c0, c4, c8, 0.0, 0.0, 0.0)
            c1, c5, c9 = _times(drawn, m0, m1, m2, m4, m5, m6, m8, m9, m10, c1, c5, c9, 0.0, 0.0, 0.0)
            c2, c6, c10 = _times(drawn, m0, m1, m2, m4, m5, m6, m8, m9, m10, c2, c6, c10, 0.0, 0.0, 0.0)
            c3, c7, c11 = _times(drawn, m0, m1, m2, m4, m5, m6, m8, m9, m10, c3, c7, c11, m3, m7, m11)
        else:
            # Row by row, for the product is on the left.
            unit = zero + 1
            g0, g1, g2 = _times(drawn, m0, m3, zero, m1, m4, zero, m2, m5, unit, g0, g1, g2, 0.0, 0.0, 0.0)
            g3, g4, g5 = _times(drawn, m0, m3, zero, m1, m4, zero, m2, m5, unit, g3, g4, g5, 0.0, 0.0, 0.0)
    _store6(at + _G_INV, g0, g1, g2, g3, g4, g5, there)
    _store6(at + _C, c0, c1, c2, c3, c4, c5, there)
    _store6(at + _C + 6, c6, c7, c8, c9, c10, c11, there)


@triton.jit
def _entry(terms_ptr, v0, v1, inverse, cosine, sine):
    """One entry of a random matrix: its coefficient of each of TERMS times that term."""
    of_inverse = tl.load(terms_ptr + 3 * _TERM_ENTRIES)
    entry = tl.load(terms_ptr) + v0 * tl.load(terms_ptr + _TERM_ENTRIES)
    entry += v1 * tl.load(terms_ptr + 2 * _TERM_ENTRIES)
    # An unused 1 / v0 may be infinite, and infinity times 0 is NaN.
    entry += tl.where(of_inverse != 0, inverse, 0.0) * of_inverse
    entry += cosine * tl.load(terms_ptr + 4 * _TERM_ENTRIES)
    return entry + sine * tl.load(terms_ptr + 5 * _TERM_ENTRIES)


@triton.jit
def _times(drawn, m0, m1, m2, m3, m4, m5, m6, m7, m8, x, y, z, add_x, add_y, add_z):
    """The 3 x 3 matrix m times (x, y, z), plus `add`, where drawn; elsewhere (x, y, z) as they are."""
    new_x = m0 * x + m1 * y + m2 * z + add_x
    new_y = m3 * x + m4 * y + m5 * z + add_y
    new_z = m6 * x + m7 * y + m8 * z + add_z
    return tl.where(drawn, new_x, x), tl.where(drawn, new_y, y), tl.where(drawn, new_z, z)


@triton.jit
def _store6(at, a, b, c, d, e, f, there):
    tl.store(at, a, mask=there)
    tl.store(at + 1, b, mask=there)
    tl.store(at + 2, c, mask=there)
    tl.store(at + 3, d, mask=there)
    tl.store(at + 4, e, mask=there)
    tl.store(at + 5, f, mask=there)


@triton.jit
def _store_zeros(at, there, START: tl.constexpr, STOP: tl.constexpr, BLOCK: tl.constexpr):
    for column in tl.static_range(START, STOP):
        tl.store(at + column, tl.zeros([BLOCK], tl.float32), mask=there)


@triton.jit
def _scaled(word, range_ptr):
    """low + u span; range_ptr: of low and span."""
    return tl.load(range_ptr) + uniform(word) * tl.load(range_ptr + 1)
