"""The Triton twin of `draw_diff_augment`: one launch writes the rows of a batch, a lane for each sample.

Every program reads the counter before it takes its number from the ticket; the one with the last number knows
that all have read it, and counts.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from fastload.ops.diff.diff_params import BRIGHTNESS, COLUMNS, CONTRAST, CUT, SATURATION, SHIFT
from fastload.ops.philox_triton import halves, uniform, words_at
from fastload.rng import Purpose

# Samples of a program; one warp, so that what a program has read it has read before its number is taken.
BLOCK, NUM_WARPS = 32, 1

_COLUMNS, _SHIFT, _CUT = (tl.constexpr(column) for column in (COLUMNS, SHIFT, CUT))
_BRIGHTNESS, _SATURATION = tl.constexpr(BRIGHTNESS), tl.constexpr(SATURATION)
_CONTRAST = tl.constexpr(CONTRAST)
_PURPOSES = (Purpose.DIFF_COLOR, Purpose.DIFF_TRANSLATION, Purpose.DIFF_CUTOUT)
_PURPOSE_COLOR, _PURPOSE_TRANSLATION, _PURPOSE_CUTOUT = (tl.constexpr(int(purpose)) for purpose in _PURPOSES)

# What may differ from step to step: Triton would compile anew where one of these is 1 or a multiple of 16.
_FREE = ["n", "first_row", "shift_rows", "shift_columns", "cut_rows", "cut_columns", "seed_low", "seed_high"]


def launch(calls: Any, ticket: Any, n: int, ranges: Any, seed: int, first_row: int) -> Any:
    """rows [n, 8] float32; ranges: a `DrawRanges`; seed: in [0, 2^64). Counts also where n is 0."""
    rows = torch.empty(n, COLUMNS, dtype=torch.float32, device=calls.device)
    with torch.cuda.device_of(calls):
        _kernel[(max(triton.cdiv(n, BLOCK), 1),)](
            calls, ticket, rows, rows.view(torch.int32), n, first_row, *ranges, *halves(seed),
            BLOCK=BLOCK, num_warps=NUM_WARPS, enable_fp_fusion=False,
        )  # fmt: skip
    return rows


@triton.jit(do_not_specialize=_FREE)
def _kernel(
    calls_ptr,  # [1] int64
    ticket_ptr,  # [1] int32
    rows_ptr,  # [N, 8] float32, contiguous
    integers_ptr,  # the same as int32
    n,
    first_row,
    shift_rows,
    shift_columns,
    cut_rows,
    cut_columns,
    seed_low,
    seed_high,
    BLOCK: tl.constexpr,
):
    calls = tl.load(calls_ptr)
    sample = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = sample < n
    position = (calls << 32) + (sample + first_row)
    at, integers_at = rows_ptr + sample * _COLUMNS, integers_ptr + sample * _COLUMNS
    w0, w1, w2, _ = words_at(position, _PURPOSE_COLOR, 0, seed_low, seed_high)
    tl.store(at + _BRIGHTNESS, uniform(w0) - 0.5, mask=there)
    tl.store(at + _SATURATION, uniform(w1) * 2.0, mask=there)
    tl.store(at + _CONTRAST, uniform(w2) + 0.5, mask=there)
    w0, w1, _, _ = words_at(position, _PURPOSE_TRANSLATION, 0, seed_low, seed_high)
    tl.store(integers_at + _SHIFT, _below(w0, shift_rows) - shift_rows // 2, mask=there)
    tl.store(integers_at + _SHIFT + 1, _below(w1, shift_columns) - shift_columns // 2, mask=there)
    w0, w1, _, _ = words_at(position, _PURPOSE_CUTOUT, 0, seed_low, seed_high)
    tl.store(integers_at + _CUT, _below(w0, cut_rows), mask=there)
    tl.store(integers_at + _CUT + 1, _below(w1, cut_columns), mask=there)
    tl.store(at + _CUT + 2, tl.zeros([BLOCK], tl.float32), mask=there)
    if tl.atomic_add(ticket_ptr, 1) == tl.num_programs(0) - 1:
        tl.store(calls_ptr, calls + 1)
        tl.store(ticket_ptr, 0)


@triton.jit
def _below(word, count):
    """An integer in [0, count)."""
    return (((word >> 8).to(tl.int64) * count) >> 24).to(tl.int32)
