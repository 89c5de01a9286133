"""What operators need for torch.library: gradients, and the refusal of draws in a backward pass."""

import atexit
from collections.abc import Callable

import torch

from fastload import _native
from fastload.errors import ConfigError
from fastload.ops.twins import ADJOINT, LINEAR
from fastload.threads import end_everything

# Before the handlers of torch, which take operators away that a daemon thread may be about to call.
atexit.register(end_everything)


def refuse_in_backward(what: str, way_out: str) -> None:
    """Raises ConfigError within a backward pass, where only recomputation would draw or count.

    Called in the operators' implementations, because torch.compile cannot trace it."""
    if torch._C._current_graph_task_id() >= 0:
        raise ConfigError(
            f"{what} within a backward pass, where torch.utils.checkpoint runs a function again: {way_out}"
        )


def begin_draw() -> None:
    """Raises ConfigError within a backward pass; a daemon thread sleeps here at the end of the program."""
    _native.sleep_at_the_end()
    refuse_in_backward(
        "an augmentation was drawn",
        "the gradient would be of another augmentation than the loss. Draw before the checkpointed "
        "function, params = pipe.draw(...), and call pipe.apply_params(images, params) in it; or leave the "
        "pipe out of it.",
    )


def differentiable(operator: Callable, mode_at: int, of_offset: tuple[int, ...] = ()) -> Callable:
    """Registers the gradient of an operator whose argument number `mode_at` is its mode.

    of_offset: numbers of the arguments that only AFFINE reads, which are not kept for the gradient."""

    def keep(ctx, inputs, output):
        inputs = [None if number in of_offset else given for number, given in enumerate(inputs)]
        ctx.rest = tuple(given for given in inputs[1:] if not isinstance(given, torch.Tensor))
        ctx.is_tensor = [isinstance(given, torch.Tensor) for given in inputs[1:]]
        ctx.save_for_backward(*(given for given in inputs[1:] if isinstance(given, torch.Tensor)))

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
