"""The random draws of DiffAugment: (seed, call, row) in, rows of `diff_augment` out, on the counter's device.

`calls`, [1] int64 on the device, counts the calls of a training run; a draw reads it and adds 1, in the same
launch, so that a CUDA graph draws anew in each replay. Philox's counter (rng.py) is at
position calls * 2^32 + row, row = first_row + i for image i of the batch: a rank starts where the one before
it stops. Word by word (block 0; u is a word's uniform in [0, 1), and "below k" is (word >> 8) * k >> 24):

- DIFF_COLOR: brightness u - 1/2, saturation 2 u, contrast u + 1/2.
- DIFF_TRANSLATION: shift of rows and of columns, below (2 s + 1) less s, s = int(side * translation_ratio +
  1/2).
- DIFF_CUTOUT: row and column of the middle of the box, below (side + 1 - size % 2), size = int(side *
  cutout_ratio + 1/2).

All of them are drawn for every policy. Promised: twins are equal bit for bit. `reference` is NumPy;
`triton` is one launch for the whole batch, and does not wait for the device.
"""

from typing import Any

from fastload.errors import ConfigError
from fastload.ops.diff.diff_params import CUTOUT_RATIO, TRANSLATION_RATIO, check_ratio
from fastload.ops.twins import choose
from fastload.rng import check_seed


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
        the launch number themselves with. Draws from one counter must not overlap.
    height, width: of the images. first_row: of all images of this call on all ranks, which one is the first
        here.
    impl: "reference" (waits for the device), "triton", or "auto": triton on CUDA, reference on the CPU.
    Raises ConfigError for invalid arguments, BackendError where `impl` cannot run here.
    """
    import torch

    from fastload.ops.diff import registered

    check_seed(seed)
    check_ratio("translation_ratio", translation_ratio)
    check_ratio("cutout_ratio", cutout_ratio)
    for name, tensor, dtype in (("calls", calls, torch.int64), ("ticket", ticket, torch.int32)):
        if not isinstance(tensor, torch.Tensor) or tensor.dtype != dtype or list(tensor.shape) != [1]:
            raise ConfigError(f"{name}={tensor!r}: give a tensor [1] of {dtype}.")
    if calls.device != ticket.device:
        raise ConfigError(f"calls is on {calls.device} and ticket on {ticket.device}: use one device.")
    if not 0 <= first_row <= first_row + n <= 2**32:
        raise ConfigError(f"first_row={first_row}, n={n}: rows must be in [0, 2**32).")
    impl = choose(impl, calls.device)
    signed = int(seed - (seed >> 63 << 64))  # the operator's integers are int64
    ratios = float(translation_ratio), float(cutout_ratio)
    return registered.draw_diff_augment(calls, ticket, n, height, width, signed, first_row, *ratios, impl)
