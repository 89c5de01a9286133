"""Pixels, one op per file: public functions on tensors, each with a plain reference that says what it means.

`fl.ops` is loaded on first use. Triton is imported where a kernel is launched, torch where a tensor comes in.
"""

from fastload.ops.augment_params import AugmentParams, Stage
from fastload.ops.color_jitter import color_jitter
from fastload.ops.diff_augment import DiffAugmentParams, diff_augment
from fastload.ops.draw_diff_augment import draw_diff_augment
from fastload.ops.draw_params import draw_params
from fastload.ops.fused_augment import fused_augment
from fastload.ops.mix import cutmix, mixup
from fastload.ops.move_pixels import move_pixels

__all__ = [
    "AugmentParams",
    "DiffAugmentParams",
    "Stage",
    "color_jitter",
    "cutmix",
    "diff_augment",
    "draw_diff_augment",
    "draw_params",
    "fused_augment",
    "mixup",
    "move_pixels",
]
