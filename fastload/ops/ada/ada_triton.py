"""The Triton twin of `ada_augment`: which kernels run one after another for the stages of a batch.

In: images or gradients [N, C, H, W] of float32, float16 or bfloat16, any strides; rows [N, 40] float32. Out:
a contiguous tensor of the same shape and dtype; everything between is float32. With a warp, colour, noise and
cutout are part of its kernels; the band filter is two more, after which noise and cutout are one of their
own.
"""

from typing import Any

import torch

from fastload.ops.ada.ada_params import AdaStage
from fastload.ops.ada.kernels import ada_pointwise_triton as pointwise
from fastload.ops.ada.kernels import affine_warp_triton, band_filter_triton
from fastload.ops.ada.kernels.ada_pointwise_triton import Noise
from fastload.ops.twins import ADJOINT, AFFINE

LANES = 4  # channels that go through the kernels together


def launch(images: Any, rows: Any, noise_key: Any, eps: Any, stages: int, mode: int) -> Any:
    """L x + b, L x or L^T g of the stages, as `mode` says; nothing is checked."""
    out = torch.empty(images.shape, dtype=images.dtype, device=images.device)
    rows, channels = rows.contiguous(), images.shape[1]
    for first in range(0, channels, LANES):
        some = slice(first, first + LANES)
        if mode == ADJOINT:
            _adjoint(images[:, some], rows, AdaStage(stages), out[:, some])
            continue
        affine = mode == AFFINE
        noise = Noise(noise_key, None if eps is None else eps[:, some]) if affine else Noise()
        _forward(images[:, some], rows, noise, AdaStage(stages), affine, out[:, some], first)
    return out


def _forward(images: Any, rows: Any, noise: Noise, stages: AdaStage, affine: bool, out: Any, first: int):
    color, cutout = AdaStage.COLOR in stages, AdaStage.CUTOUT in stages
    noise = noise if AdaStage.NOISE in stages else Noise()
    early = {"color": color, "offset": color and affine, "first_channel": first}
    late = {"noise": noise, "cutout": cutout, "first_channel": first}
    if AdaStage.FILTER in stages:
        if AdaStage.WARP in stages:
            images = affine_warp_triton.launch(images, rows, _plane(images), adjoint=False, **early)
        elif color:
            images = pointwise.launch(images, rows, _plane(images), **early)
        is_last = not (noise.kind or cutout)
        images = band_filter_triton.launch(images, rows, out if is_last else _plane(images), adjoint=False)
        if not is_last:
            pointwise.launch(images, rows, out, color=False, **late)
    elif AdaStage.WARP in stages:
        affine_warp_triton.launch(images, rows, out, adjoint=False, **(early | late))
    else:
        pointwise.launch(images, rows, out, **(early | late))


def _adjoint(gradients: Any, rows: Any, stages: AdaStage, out: Any) -> None:
    color, cutout, warped = AdaStage.COLOR in stages, AdaStage.CUTOUT in stages, AdaStage.WARP in stages
    if AdaStage.FILTER in stages:
        if cutout:
            gradients = pointwise.launch(gradients, rows, _plane(gradients), color=False, cutout=True)
            cutout = False
        is_last = not (warped or color)
        filtered = out if is_last else _plane(gradients)
        gradients = band_filter_triton.launch(gradients, rows, filtered, adjoint=True)
        if is_last:
            return
    if warped:
        affine_warp_triton.launch(gradients, rows, out, adjoint=True, color=color, cutout=cutout)
    else:
        pointwise.launch(gradients, rows, out, color=color, transposed=True, cutout=cutout)


def _plane(images: Any) -> Any:
    return torch.empty(images.shape, dtype=torch.float32, device=images.device)
