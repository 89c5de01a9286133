"""The operator `upfirdn2d` as torch.library knows it. Its adjoint is itself, for other arguments."""

from collections.abc import Sequence

import torch


@torch.library.custom_op("fastload::upfirdn2d", mutates_args=())
def upfirdn2d(
    images: torch.Tensor,
    taps: torch.Tensor,
    up: Sequence[int],
    down: Sequence[int],
    start: Sequence[int],
    size: Sequence[int],
    flip: bool,
    gain: float,
) -> torch.Tensor:
    """The Triton twin of `upfirdn2d`, whose arguments its own file explains: nothing is checked."""
    from fastload.ops.resample import upfirdn2d_triton

    return upfirdn2d_triton.launch(images, taps, up, down, start, size, flip, gain)


@upfirdn2d.register_fake
def _(images, taps, up, down, start, size, flip, gain):
    return torch.empty((*images.shape[:2], *size), dtype=images.dtype, device=images.device)


def _keep_taps(ctx, inputs, output):
    images, taps, *ctx.rest = inputs
    ctx.size = images.shape[2:]
    ctx.save_for_backward(taps)


def _adjoint(ctx, gradient):
    """Linear, and its adjoint is the same operator for other arguments: no mode is needed."""
    (taps,), (up, down, start, _, flip, gain) = ctx.saved_tensors, ctx.rest
    start = [count - 1 - first for count, first in zip((taps.shape[0], taps.shape[-1]), start, strict=True)]
    images = upfirdn2d(gradient, taps, down, up, start, ctx.size, not flip, gain)
    return images, *(None for _ in range(7))


upfirdn2d.register_autograd(_adjoint, setup_context=_keep_taps)
