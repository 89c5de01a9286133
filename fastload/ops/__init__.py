"""Pixels, one op per file: public functions on tensors, each with a reference that says what it means.

`fl.ops` is loaded on first use. Triton is imported where a kernel is launched, torch where a tensor comes in.
"""

from fastload.ops.ada.ada_augment import ada_augment
from fastload.ops.ada.ada_params import AdaParams, AdaStage, EdmParams
from fastload.ops.ada.single_stages import add_noise, affine_warp, band_filter, color_matrix, cutout
from fastload.ops.diff.diff_augment import diff_augment
from fastload.ops.diff.diff_params import DiffAugmentParams
from fastload.ops.diff.draw_diff_augment import draw_diff_augment
from fastload.ops.fused.augment_params import AugmentParams, Stage
from fastload.ops.fused.color_jitter import color_jitter
from fastload.ops.fused.draw_params import draw_params
from fastload.ops.fused.fused_augment import fused_augment
from fastload.ops.fused.mix import cutmix, mixup
from fastload.ops.move.move_pixels import move_pixels
from fastload.ops.resample.upfirdn2d import downsample2d, filter2d, upfirdn2d, upsample2d

__all__ = [
    "AdaParams",
    "AdaStage",
    "AugmentParams",
    "DiffAugmentParams",
    "EdmParams",
    "Stage",
    "ada_augment",
    "add_noise",
    "affine_warp",
    "band_filter",
    "color_jitter",
    "color_matrix",
    "cutmix",
    "cutout",
    "diff_augment",
    "downsample2d",
    "draw_diff_augment",
    "draw_params",
    "filter2d",
    "fused_augment",
    "mixup",
    "move_pixels",
    "upfirdn2d",
    "upsample2d",
]
