"""The augmentations' operators as torch.library knows them, with what torch.compile and autograd need.

Those that change images are affine in the tensor that comes first and have a `mode`: AFFINE (L x + b), LINEAR
(L x) and ADJOINT (L^T g); one is differentiated into another of the same name, so that gradients of any order
exist and nothing but the parameters is kept. upfirdn2d's adjoint is upfirdn2d. Those that draw change their
counter, have no gradient, and refuse to run within a backward pass, as count_signs does. The kernels are
called here and nowhere else.
"""

import atexit
from collections.abc import Callable, Sequence

import torch

from fastload import _native
from fastload.errors import ConfigError
from fastload.ops.ada.ada_augment import ADJOINT, LINEAR
from fastload.ops.ada.ada_params import COLUMNS
from fastload.threads import end_everything

# Before the handlers of torch, which take operators away that a daemon thread may be about to call.
atexit.register(end_everything)


def refuse_in_backward(what: str, way_out: str) -> None:
    """Raises ConfigError within a backward pass, where only what is computed again would draw or count.

    It stands in the operators' implementations, for torch.compile cannot trace the question."""
    if torch._C._current_graph_task_id() >= 0:
        raise ConfigError(
            f"{what} within a backward pass, where torch.utils.checkpoint runs a function again: {way_out}"
        )


def _begin_draw() -> None:
    """Where a draw may not be; and where a daemon thread sleeps at the end of the program."""
    _native.sleep_at_the_end()
    refuse_in_backward(
        "an augmentation was drawn",
        "the gradient would be of another augmentation than the loss. Draw before the checkpointed "
        "function, params = pipe.draw(...), and call pipe.apply_params(images, params) in it; or leave the "
        "pipe out of it.",
    )


def _differentiable(operator: Callable, mode_at: int, of_offset: tuple[int, ...] = ()) -> Callable:
    """Registers the gradient of an operator whose argument number `mode_at` is its mode.

    of_offset: numbers of the arguments that only AFFINE reads, which are not kept for the gradient."""

    def keep(ctx, inputs, output):
        inputs = [None if number in of_offset else one for number, one in enumerate(inputs)]
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
    """`ada_augment` for rows [N, 40]; nothing is checked. Contiguous, of the images' shape and dtype."""
    if impl == "triton":
        from fastload.ops.ada import ada_triton

        return ada_triton.launch(images, rows, noise_key, eps, stages, mode)
    from fastload.ops.ada import ada_native

    return ada_native.launch(images, rows, noise_key, eps, stages, mode)


_differentiable(ada, mode_at=5, of_offset=(2, 3))


@torch.library.custom_op("fastload::draw_ada", mutates_args=("calls", "ticket"))
def draw_ada(
    settings: list[float],
    p: torch.Tensor,
    calls: torch.Tensor,
    ticket: torch.Tensor,
    seed: int,
    first_row: int,
    n: int,
    channels: int,
    height: int,
    width: int,
    percentile: float | None,
    impl: str,
) -> torch.Tensor:
    """The rows [n, 40] float32 of one draw (draw_ada.py), on the device of p; `calls` goes up by one."""
    _begin_draw()
    if impl == "triton":
        from fastload.ops.ada.draw import draw_ada_triton

        return draw_ada_triton.launch(
            settings, p, calls, ticket, seed, first_row, n, channels, height, width, percentile
        )
    from fastload.ops.ada.draw.draw_ada import SETTINGS, draw_reference, named

    dice = _dice(seed, calls, first_row, n, percentile)
    rows = draw_reference(named(SETTINGS, settings), p.item(), dice, channels, height, width)
    return torch.from_numpy(rows).to(p.device)


@draw_ada.register_fake
def _(settings, p, calls, ticket, seed, first_row, n, channels, height, width, percentile, impl):
    return torch.empty(n, COLUMNS, dtype=torch.float32, device=p.device)


@torch.library.custom_op("fastload::draw_edm", mutates_args=("calls", "ticket"))
def draw_edm(
    settings: list[float],
    p: torch.Tensor,
    calls: torch.Tensor,
    ticket: torch.Tensor,
    seed: int,
    first_row: int,
    n: int,
    height: int,
    width: int,
    label_count: int,
    impl: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [n, 40] and labels [n, label_count] float32 of one draw (draw_edm.py); `calls` goes up by one."""
    _begin_draw()
    if impl == "triton":
        from fastload.ops.ada.draw import draw_ada_triton

        return draw_ada_triton.launch_edm(
            settings, p, calls, ticket, seed, first_row, n, height, width, label_count
        )
    from fastload.ops.ada.draw.draw_ada import named
    from fastload.ops.ada.draw.draw_edm import EDM_SETTINGS, draw_edm_reference

    dice = _dice(seed, calls, first_row, n, None)
    drawn = draw_edm_reference(named(EDM_SETTINGS, settings), p.item(), dice, height, width)
    rows, labels = (torch.from_numpy(one).to(p.device) for one in drawn)
    return rows, labels


@draw_edm.register_fake
def _(settings, p, calls, ticket, seed, first_row, n, height, width, label_count, impl):
    options = {"dtype": torch.float32, "device": p.device}
    return torch.empty(n, COLUMNS, **options), torch.empty(n, label_count, **options)


def _dice(seed: int, calls: torch.Tensor, first_row: int, n: int, percentile: float | None):
    """The dice of the call that `calls` counts next; counts it."""
    from fastload.ops.ada.draw.random_draws import Dice

    dice = Dice(seed % 2**64, int(calls.item()), first_row, n, percentile)
    calls.add_(1)
    return dice


@torch.library.custom_op("fastload::diff_augment", mutates_args=())
def diff_augment(
    images: torch.Tensor, rows: torch.Tensor, policy: str, cutout_ratio: float, mode: int
) -> torch.Tensor:
    """`diff_augment` for rows [N, 8]: nothing is checked. Returns a contiguous tensor of the same dtype."""
    from fastload.ops.diff import diff_augment_triton

    return diff_augment_triton.launch(images, rows, policy, cutout_ratio, mode)


_differentiable(diff_augment, mode_at=4)


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
    _begin_draw()
    from fastload.ops.diff.draw_diff_augment import DrawRanges, _reference

    seed, ranges = seed % 2**64, DrawRanges.of(height, width, translation_ratio, cutout_ratio)
    if impl == "reference":
        return _reference(calls, n, ranges, seed, first_row)
    from fastload.ops.diff import draw_diff_augment_triton

    return draw_diff_augment_triton.launch(calls, ticket, n, ranges, seed, first_row)


draw_diff_augment.register_fake(
    lambda calls, ticket, n, *rest: torch.empty(n, 8, dtype=torch.float32, device=calls.device)
)


@torch.library.custom_op("fastload::count_signs", mutates_args=("sums",))
def count_signs(sums: torch.Tensor, logits: torch.Tensor) -> None:
    """`count_signs_now` within a compiled graph."""
    count_signs_now(sums, logits)


count_signs.register_fake(lambda sums, logits: None)


def count_signs_now(sums: torch.Tensor, logits: torch.Tensor) -> None:
    """Adds the sum of the logits' signs to sums[0], and how many there are to sums[1]; sums: [2] float32."""
    refuse_in_backward(
        "logits were reported to AdaController",
        "they would count twice. Report what the checkpointed function returns.",
    )
    signs = logits.sign().sum(dtype=torch.float32)  # the sign of what is no number is 0: it must not become p
    sums += torch.stack([signs, torch.full_like(signs, logits.numel())])


@torch.library.custom_op("fastload::move_pixels", mutates_args=())
def move_pixels(images: torch.Tensor, rows: torch.Tensor, mode: int) -> torch.Tensor:
    """`move_pixels` for rows [N, 5]: nothing is checked. Returns a contiguous tensor of the same dtype."""
    from fastload.ops.move import move_pixels_triton

    return move_pixels_triton.launch(images, rows, mode)


_differentiable(move_pixels, mode_at=2)


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
    start = [count - 1 - one for count, one in zip((taps.shape[0], taps.shape[-1]), start, strict=True)]
    images = upfirdn2d(gradient, taps, down, up, start, ctx.size, not flip, gain)
    return images, *(None for _ in range(7))


upfirdn2d.register_autograd(_adjoint, setup_context=_keep_taps)
