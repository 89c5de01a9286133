"""The dice of DiffAugment: (seed, call, row) in, the rows of `diff_augment` out, on the device of a counter.

Which call of a training this is stands in `calls`, [1] int64, on the device; a draw reads it and adds 1, in
the same launch, so that a CUDA graph which is replayed draws anew each time. Philox's counter (rng.py) is at
position calls * 2^32 + row, row = first_row + i for image i of the batch: a rank starts where the one before
it stops. Word by word (block 0; u is a word's uniform in [0, 1), and "below k" is (word >> 8) * k >> 24):

- DIFF_COLOR: brightness u - 1/2, saturation 2 u, contrast u + 1/2.
- DIFF_TRANSLATION: shift of rows and of columns, below (2 s + 1) less s, s = int(side * translation_ratio +
  1/2).
- DIFF_CUTOUT: row and column of the middle of the box, below (side + 1 - size % 2), size = int(side *
  cutout_ratio + 1/2).

Always all of them, whatever the policy uses. Promised: twins are equal bit for bit. `reference` is NumPy;
`triton` is one launch for the whole batch, and does not wait for the device.
"""

from typing import Any, NamedTuple

import numpy as np

from fastload.errors import ConfigError
from fastload.ops.diff.diff_augment import (
    BRIGHTNESS,
    COLUMNS,
    CONTRAST,
    CUT,
    CUTOUT_RATIO,
    SATURATION,
    SHIFT,
    TRANSLATION_RATIO,
    check_ratio,
    pixels_of,
)
from fastload.ops.transfer import to_device
from fastload.rng import Purpose, as_uniforms, bits, check_seed


class DrawRanges(NamedTuple):
    """How many integers there are to choose from, and what is then taken off."""

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


def draw_diff_augment(
    calls: Any,
    ticket: Any,
    n: int,
    height: int,
    width: int,
    *,
    seed: int = 0,
    first_row: int = 0,
    translation_ratio: float = TRANSLATION_RATIO,
    cutout_ratio: float = CUTOUT_RATIO,
    impl: str = "auto",
) -> Any:
    """The rows [n, 8] float32 of `diff_augment` (`DiffAugmentParams.from_rows`), on the device of `calls`.

    calls: [1] int64, which is 1 more afterwards. ticket: [1] int32, 0 before and after; what the programs of
        the launch number themselves with. No two draws from one counter may be under way at the same time.
    height, width: of the images. first_row: of all images of this call on all ranks, which one is the first
        here.
    impl: "reference" (waits for the device), "triton", or "auto": triton on CUDA, reference on the CPU.
    Raises ConfigError for what does not fit, BackendError where `impl` cannot run here.
    """
    import torch

    from fastload.ops.ada import registered
    from fastload.ops.fused.fused_augment import require_triton

    check_seed(seed)
    check_ratio("translation_ratio", translation_ratio)
    check_ratio("cutout_ratio", cutout_ratio)
    for name, tensor, dtype in (("calls", calls, torch.int64), ("ticket", ticket, torch.int32)):
        if not isinstance(tensor, torch.Tensor) or tensor.dtype != dtype or list(tensor.shape) != [1]:
            raise ConfigError(f"{name}={tensor!r}: give a tensor [1] of {dtype}.")
    if calls.device != ticket.device:
        raise ConfigError(f"calls lies on {calls.device} and ticket on {ticket.device}: use one device.")
    if not 0 <= first_row <= first_row + n <= 2**32:
        raise ConfigError(f"first_row={first_row} and n={n}: rows are numbers from 0 to 2**32 - 1.")
    if impl not in ("auto", "reference", "triton"):
        raise ConfigError(f'impl={impl!r}: give "auto", "reference" or "triton".')
    if impl == "auto":
        impl = "triton" if calls.device.type == "cuda" else "reference"
    if impl == "triton":
        require_triton(calls.device)
    signed = seed - (seed >> 63 << 64)  # the operator's integers are int64
    ratios = float(translation_ratio), float(cutout_ratio)
    return registered.draw_diff_augment(
        calls, ticket, n, height, width, int(signed), first_row, *ratios, impl
    )


def _reference(calls: Any, n: int, ranges: DrawRanges, seed: int, first_row: int) -> Any:
    call = np.uint64(calls.item() % 2**32)
    calls.add_(1)
    rows = np.arange(first_row, first_row + n, dtype=np.uint64)
    positions = ((call << np.uint64(32)) | rows).view(np.int64)
    u = as_uniforms(bits(seed, positions, Purpose.DIFF_COLOR)[:, :3])
    drawn = np.zeros((n, COLUMNS), np.float32)
    drawn[:, BRIGHTNESS] = u[:, 0] - np.float32(0.5)
    drawn[:, SATURATION] = u[:, 1] * np.float32(2)
    drawn[:, CONTRAST] = u[:, 2] + np.float32(0.5)
    integers = drawn.view(np.int32)
    shift = _below(bits(seed, positions, Purpose.DIFF_TRANSLATION), ranges[:2])
    integers[:, SHIFT : SHIFT + 2] = shift - np.array(ranges[:2]) // 2
    integers[:, CUT : CUT + 2] = _below(bits(seed, positions, Purpose.DIFF_CUTOUT), ranges[2:])
    return to_device(drawn, calls.device)


def _below(words: np.ndarray, counts: tuple[int, int]) -> np.ndarray:
    """[n, 2] int64 in [0, count), from the first two words."""
    return ((words[:, :2] >> np.uint32(8)).astype(np.int64) * np.array(counts, np.int64)) >> 24
