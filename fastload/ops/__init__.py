"""Pixels, one op per file: public functions on tensors, each with a plain reference that says what it means.

`fl.ops` is loaded on first use. Triton is imported where a kernel is launched, torch where a tensor comes in.
"""

from fastload.ops.augment_params import AugmentParams, Stage
from fastload.ops.color_jitter import color_jitter
from fastload.ops.draw_params import draw_params
from fastload.ops.fused_augment import fused_augment
from fastload.ops.mix import cutmix, mixup
from fastload.ops.upfirdn2d import downsample2d, filter2d, upfirdn2d, upsample2d

__all__ = [
    "AugmentParams",
    "Stage",
    "color_jitter",
    "cutmix",
    "downsample2d",
    "draw_params",
    "filter2d",
    "fused_augment",
    "mixup",
    "upfirdn2d",
    "upsample2d",
]
