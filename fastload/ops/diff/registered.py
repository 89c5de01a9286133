"""DiffAugment's operators as torch.library knows them."""

import torch

from fastload.ops.registering import begin_draw, differentiable


@torch.library.custom_op("fastload::diff_augment", mutates_args=())
def diff_augment(
    images: torch.Tensor, rows: torch.Tensor, policy: str, cutout_ratio: float, mode: int
) -> torch.Tensor:
    """`diff_augment` for rows [N, 8]: nothing is checked. Returns a contiguous tensor of the same dtype."""
    from fastload.ops.diff import diff_augment_triton

    return diff_augment_triton.launch(images, rows, policy, cutout_ratio, mode)


differentiable(diff_augment, mode_at=4)


@torch.library.custom_op("fastload::draw_diff_augment", mutates_args=("calls", "ticket"))
def draw_diff_augment(
    calls: torch.Tensor,
    ticket: torch.Tensor,
    n: int,
    height: int,
    width: int,
    seed: int,
    first_row: int,
    translation_ratio: float,
    cutout_ratio: float,
    impl: str,
) -> torch.Tensor:
    """`draw_diff_augment`, its seed as an int64 of the same bits: nothing is checked."""
    begin_draw()
    from fastload.ops.diff.draw_reference import DrawRanges, draw_reference

    seed, ranges = seed % 2**64, DrawRanges.of(height, width, translation_ratio, cutout_ratio)
    if impl == "reference":
        return draw_reference(calls, n, ranges, seed, first_row)
    from fastload.ops.diff import draw_diff_augment_triton

    return draw_diff_augment_triton.launch(calls, ticket, n, ranges, seed, first_row)


draw_diff_augment.register_fake(
    lambda calls, ticket, n, *rest: torch.empty(n, 8, dtype=torch.float32, device=calls.device)
)
