"""`draw_diff_augment` in NumPy: the reference of the kernel."""

from typing import Any, NamedTuple

import numpy as np

from fastload.ops.diff.diff_params import COLUMNS, COLUMNS_OF, pixels_of
from fastload.ops.transfer import to_device
from fastload.rng import Purpose, as_uniforms, bits


class DrawRanges(NamedTuple):
    """How many integers there are to choose from along each axis."""

    shift_rows: int  # 2 s + 1
    shift_columns: int
    cut_rows: int
    cut_columns: int

    @classmethod
    def of(cls, height: int, width: int, translation_ratio: float, cutout_ratio: float) -> "DrawRanges":
        """Those of images of height x width pixels."""
        shifts = (2 * pixels_of(side, translation_ratio) + 1 for side in (height, width))
        cuts = (side + 1 - pixels_of(side, cutout_ratio) % 2 for side in (height, width))
        return cls(*shifts, *cuts)


def draw_reference(calls: Any, n: int, ranges: DrawRanges, seed: int, first_row: int) -> Any:
    call = np.uint64(calls.item() % 2**32)
    calls.add_(1)
    rows = np.arange(first_row, first_row + n, dtype=np.uint64)
    positions = ((call << np.uint64(32)) | rows).view(np.int64)
    u = as_uniforms(bits(seed, positions, Purpose.DIFF_COLOR)[:, :3])
    drawn = np.zeros((n, COLUMNS), np.float32)
    drawn[:, COLUMNS_OF["brightness"]] = u[:, 0] - np.float32(0.5)
    drawn[:, COLUMNS_OF["saturation"]] = u[:, 1] * np.float32(2)
    drawn[:, COLUMNS_OF["contrast"]] = u[:, 2] + np.float32(0.5)
    integers = drawn.view(np.int32)
    shift = _below(bits(seed, positions, Purpose.DIFF_TRANSLATION), ranges[:2])
    integers[:, COLUMNS_OF["shift"]] = shift - np.array(ranges[:2]) // 2
    integers[:, COLUMNS_OF["cut_offset"]] = _below(bits(seed, positions, Purpose.DIFF_CUTOUT), ranges[2:])
    return to_device(drawn, calls.device)


def _below(words: np.ndarray, counts: tuple[int, int]) -> np.ndarray:
    """[n, 2] int64 in [0, count), from the first two words."""
    return ((words[:, :2] >> np.uint32(8)).astype(np.int64) * np.array(counts, np.int64)) >> 24
