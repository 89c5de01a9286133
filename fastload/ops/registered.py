"""The augmentations' operators as torch.library knows them, with what torch.compile and autograd need.

Each operator is affine in the tensor that comes first and has a `mode`: AFFINE (L x + b), LINEAR (L x) and ADJOINT
(L^T g). One of a family is differentiated into another of the same family, so that gradients of any order exist and
nothing but the parameters is kept. The kernels are called here and nowhere else.
"""

from collections.abc import Callable

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
