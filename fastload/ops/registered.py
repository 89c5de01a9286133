"""The augmentations' operators as torch.library knows them, with what torch.compile and autograd need.

Each operator is affine in the tensor that comes first and has a `mode`: AFFINE (L x + b), LINEAR (L x) and ADJOINT
(L^T g). One of a family is differentiated into another of the same family, so that gradients of any order exist and
nothing but the parameters is kept. The kernels are called here and nowhere else.
"""

from collections.abc import Callable, Sequence

import torch

from fastload.ops.ada_augment import ADJOINT, LINEAR


def _differentiable(operator: Callable, mode_at: int) -> Callable:
    """Registers the gradient of an operator whose argument number `mode_at` is its mode."""

    def keep(ctx, inputs, output):
        ctx.rest = tuple(one for one in inputs[1:] if not isinstance(one, torch.Tensor))
        ctx.is_tensor = [isinstance(one, torch.Tensor) for one in inputs[1:]]
        ctx.save_for_backward(*(one for one in inputs[1:] if isinstance(one, torch.Tensor)))

    def backward(ctx, gradient):
        tensors, others = iter(ctx.saved_tensors), iter(ctx.rest)
        rest = [next(tensors) if is_tensor else next(others) for is_tensor in ctx.is_tensor]
        rest[mode_at - 1] = LINEAR if rest[mode_at - 1] == ADJOINT else ADJOINT
        return operator(gradient, *rest), *(None for _ in rest)

    operator.register_autograd(backward, setup_context=keep)
    operator.register_fake(
        lambda images, *rest: torch.empty(images.shape, dtype=images.dtype, device=images.device)
    )
    return operator


@torch.library.custom_op("fastload::ada", mutates_args=())
def ada(
    images: torch.Tensor,
    rows: torch.Tensor,
    noise_key: torch.Tensor | None,
    eps: torch.Tensor | None,
    stages: int,
    mode: int,
    impl: str,
) -> torch.Tensor:
    """`ada_augment` for rows [N, 40]: nothing is checked. Returns a contiguous tensor of the images' dtype."""
    if impl == "triton":
        from fastload.ops import ada_triton

        return ada_triton.launch(images, rows, noise_key, eps, stages, mode)
    from fastload.ops import ada_native

    return ada_native.launch(images, rows, noise_key, eps, stages, mode)


_differentiable(ada, mode_at=5)


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
    from fastload.ops import upfirdn2d_triton

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
    start = [count - 1 - one for count, one in zip((taps.shape[0], taps.shape[-1]), start, strict=True)]
    images = upfirdn2d(gradient, taps, down, up, start, ctx.size, not flip, gain)
    return images, *(None for _ in range(7))


upfirdn2d.register_autograd(_adjoint, setup_context=_keep_taps)
