"""ADA's operators as torch.library knows them, with what torch.compile and autograd need.

`ada` is affine in the tensor that comes first and has a `mode`: AFFINE (L x + b), LINEAR (L x) and ADJOINT
(L^T g); it is differentiated into itself, so that gradients of any order exist and nothing but the parameters
is kept. Those that draw change their counter, have no gradient, and refuse to run within a backward pass, as
count_signs does.
"""

import torch

from fastload.ops.ada.ada_params import COLUMNS
from fastload.ops.registering import begin_draw, differentiable, refuse_in_backward


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


differentiable(ada, mode_at=5, of_offset=(2, 3))


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
    begin_draw()
    if impl == "triton":
        from fastload.ops.ada.draw import draw_ada_triton

        return draw_ada_triton.launch(
            settings, p, calls, ticket, seed, first_row, n, channels, height, width, percentile
        )
    from fastload.ops.ada.draw.draw_ada import SETTINGS, draw_reference, named

    draws = _draws(seed, calls, first_row, n, percentile)
    rows = draw_reference(named(SETTINGS, settings), p.item(), draws, channels, height, width)
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
    begin_draw()
    if impl == "triton":
        from fastload.ops.ada.draw import draw_ada_triton

        return draw_ada_triton.launch_edm(
            settings, p, calls, ticket, seed, first_row, n, height, width, label_count
        )
    from fastload.ops.ada.draw.draw_ada import named
    from fastload.ops.ada.draw.draw_edm import EDM_SETTINGS, draw_edm_reference

    draws = _draws(seed, calls, first_row, n, None)
    drawn = draw_edm_reference(named(EDM_SETTINGS, settings), p.item(), draws, height, width)
    rows, labels = (torch.from_numpy(array).to(p.device) for array in drawn)
    return rows, labels


@draw_edm.register_fake
def _(settings, p, calls, ticket, seed, first_row, n, height, width, label_count, impl):
    options = {"dtype": torch.float32, "device": p.device}
    return torch.empty(n, COLUMNS, **options), torch.empty(n, label_count, **options)


def _draws(seed: int, calls: torch.Tensor, first_row: int, n: int, percentile: float | None):
    """The random draws of the next call; adds 1 to `calls`."""
    from fastload.ops.ada.draw.random_draws import RandomDraws

    draws = RandomDraws(seed % 2**64, int(calls.item()), first_row, n, percentile)
    calls.add_(1)
    return draws


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
    signs = logits.sign().sum(dtype=torch.float32)  # NaN counts as 0: it must not become p
    sums += torch.stack([signs, torch.full_like(signs, logits.numel())])
