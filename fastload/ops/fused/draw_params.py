"""The random draws of the augmentations: (seed, position) in, the rows of `fused_augment` out, on any device.

A `DrawPlan` says what is random. Its linear part is a list of `LinearDraw`, each a random matrix: with
probability p the sum over `terms` of a number times a constant matrix, else the identity; the numbers are
made of two uniforms v0 and v1, so that a rotation is cos v0 * M1 + sin v0 * M2 + M3. They are multiplied in
the order of the list, so that a new linear augmentation is a new list entry, not a new kernel. What is not
a matrix (ColorJitter, HSV, cutout) has its own columns.

Where each number comes from, word by word of Philox (see rng.py; u is a word's uniform in [0, 1)):
- linear: purpose of the draw, block 0: word 0 is the gate (drawn where u < p, exactly), words 1 and 2 are v0
  and v1: low + u (high - low).
- jitter: COLOR_JITTER, block 0: the factors of brightness, contrast, saturation and hue; block 1, word 0:
  which of the 24 orders, in lexicographic order.
- hsv: HSV, block 0: words 0 and 1, hue shift and saturation factor.
- cutout: CUTOUT, block 0: word 0 the gate, words 1 and 2 the centre as shares of width and height.

Promised: gates and orders are equal on all twins, the numbers within 4 units in the last place, matrices
within 2e-6 of their largest entry. `reference` is NumPy, float32; `triton` is one launch for the whole batch,
and writes the rows on the device.
"""

from typing import Any

import numpy as np

from fastload.errors import ConfigError
from fastload.ops.fused import draw_plan as layout
from fastload.ops.fused.augment_params import COLUMNS, COLUMNS_OF, CUT_SIZE
from fastload.ops.fused.draw_plan import LINEAR_HEADER, ORDERS, TERM_ENTRIES, TERMS, DrawPlan
from fastload.ops.transfer import as_positions, to_device
from fastload.ops.twins import choose
from fastload.rng import Purpose, as_uniforms, bits, check_seed


def draw_params(plan: DrawPlan, positions: Any, seed: int, *, device: Any = "cpu", impl: str = "auto") -> Any:
    """The rows [N, 32] float32 of `fused_augment` on `device`, for positions [N] int64 (NumPy or tensor).

    impl: "reference", "triton", or "auto": triton on CUDA, reference on the CPU.
    Raises ConfigError for a seed outside [0, 2^64), BackendError where `impl` cannot run here.
    """
    import torch

    check_seed(seed)
    device = torch.device(device)
    if choose(impl, device) == "reference":
        return to_device(_reference(plan, as_positions(positions), seed), device)
    from fastload.ops.fused import draw_params_triton

    if not isinstance(positions, torch.Tensor) or positions.device != device:
        positions = to_device(as_positions(positions), device)
    elif positions.dtype != torch.int64 or positions.dim() != 1:
        raise ConfigError(f"positions of {positions.dtype} {list(positions.shape)}: give int64 [N].")
    return draw_params_triton.launch(plan, positions, seed)


def _scaled(uniforms: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """low + u span, for uniforms [N, k] and ranges [2 k]: low, span, low, span ..."""
    return ranges[0::2] + uniforms * ranges[1::2]


def _reference(plan: DrawPlan, positions: np.ndarray, seed: int) -> np.ndarray:
    rows = np.zeros((len(positions), COLUMNS), np.float32)
    rows[:, COLUMNS_OF["G_inv"]] = np.eye(3, dtype=np.float32)[:2].ravel()
    rows[:, COLUMNS_OF["C"]] = np.eye(4, dtype=np.float32)[:3].ravel()
    for row in plan.table:
        _multiply(rows, row, bits(seed, positions, int(row[7]) << 16 | int(row[1])))
    constants = plan.constants
    if plan.jitter is not None:
        words = bits(seed, positions, Purpose.COLOR_JITTER)
        ranges = constants[layout.JITTER_RANGES : layout.JITTER_RANGES + 8]
        rows[:, COLUMNS_OF["jitter"]] = _scaled(as_uniforms(words), ranges)
        picks = bits(seed, positions, Purpose.COLOR_JITTER, block=1)[:, 0]
        which = ((picks >> np.uint32(8)) * np.uint32(len(ORDERS))) >> np.uint32(24)
        rows[:, COLUMNS_OF["order"]] = constants[layout.ORDER_TABLE :].reshape(-1, 4)[which]
    if plan.hsv is not None:
        words = bits(seed, positions, Purpose.HSV)
        ranges = constants[layout.HSV_RANGES : layout.HSV_RANGES + 4]
        rows[:, COLUMNS_OF["hsv"]] = _scaled(as_uniforms(words[:, :2]), ranges)
    if plan.cutout is not None:
        words = bits(seed, positions, Purpose.CUTOUT)
        cut = (words[:, 0] >> np.uint32(8)).astype(np.float32) < constants[layout.CUTOUT_GATE]
        rows[:, CUT_SIZE] = np.where(cut, constants[layout.CUTOUT_SIZE], np.float32(0))
        rows[:, COLUMNS_OF["cut_center"]] = as_uniforms(words[:, 1:3])
    return rows


def _multiply(rows: np.ndarray, row: np.ndarray, words: np.ndarray) -> None:
    """One random matrix into the product that `rows` hold: G_inv from the right, C from the left."""
    drawn = (words[:, 0] >> np.uint32(8)).astype(np.float32) < row[2]
    v0, v1 = _scaled(as_uniforms(words[:, 1:3]), row[3:7]).T
    with np.errstate(divide="ignore"):
        numbers = (np.ones_like(v0), v0, v1, np.float32(1) / v0, np.cos(v0), np.sin(v0))
    terms = row[LINEAR_HEADER:].reshape(len(TERMS), TERM_ENTRIES)
    used = [k for k in range(len(TERMS)) if terms[k].any()]  # an unused 1/v0 may be infinite
    zeros = np.zeros((len(words), TERM_ENTRIES), np.float32)
    matrices = sum((numbers[k][:, None] * terms[k] for k in used), zeros)
    part, shape = (COLUMNS_OF["C"], (3, 4)) if row[0] else (COLUMNS_OF["G_inv"], (2, 3))
    size = shape[0] * shape[1]
    product = _square(rows[:, part].reshape(-1, *shape))
    matrix = _square(matrices[:, :size].reshape(-1, *shape))
    composed = matrix @ product if row[0] else product @ matrix
    rows[drawn, part] = composed[drawn, : shape[0]].reshape(-1, size)


def _square(matrices: np.ndarray) -> np.ndarray:
    """[N, k, k + 1] with (0 ... 0, 1) below: [N, k + 1, k + 1]."""
    last = np.zeros((len(matrices), 1, matrices.shape[2]), np.float32)
    last[:, 0, -1] = 1
    return np.concatenate([matrices, last], axis=1)
