"""Augmentation for discriminators on the device against its references: pixels, gradients, draws, CUDA
graphs.

In: noise in [-1, 1], parameters drawn as in training. Images, their gradients and the gradients of those (the
double backward of R1) of the Triton twins are held against the float64 reference on the CPU, draws against
NumPy. Tolerances are those of the contracts, but for warps 3e-4, ten times theirs: colours make more of a
difference.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.gpu.cases import Case, Context, Outcome, Skipped

TOLERANCE = 3e-4
PIPES = ("bgc", "bgcfnc")
STRENGTHS = (0.6, 1.0)
PLACES = 4  # units in the last place by which drawn numbers may differ


def cases() -> list[Case]:
    return [
        *(Case(f"twin of AdaPipe {pipe}", _pipe(pipe), 150) for pipe in PIPES),
        Case("dice of AdaPipe, AugmentPipe and DiffAugment", _draws),
        Case("replayed graphs of AdaPipe and DiffAugment", _graphs),
        Case("twin of DiffAugment", _diff_augment),
        Case("twin of move_pixels", _move_pixels),
        Case("twin of upfirdn2d", _upfirdn2d),
    ]


def noise(shape: tuple, seed: int, device: str = "cpu") -> Any:
    """float32 in [-1, 1), made on the device."""
    import torch

    generator = torch.Generator(device).manual_seed(seed)
    return torch.rand(shape, generator=generator, device=device) * 2 - 1


def derivatives(change: Callable, images: Any, weight: Any, direction: Any) -> dict[str, Any]:
    """The result, the gradient of its product with `weight`, and that one's product with `direction`
    differentiated with respect to weight."""
    import torch

    images, weight = images.detach().requires_grad_(), weight.detach().requires_grad_()
    result = change(images)
    (gradient,) = torch.autograd.grad(result, images, weight, create_graph=True)
    (second,) = torch.autograd.grad(gradient, weight, direction)
    return {"result": result.detach(), "gradient": gradient.detach(), "second": second}


def _compare(
    context: Context, outcome: Outcome, name: str, changes: tuple, shape: tuple, tolerance: float,
    size_out: tuple | None = None,
) -> None:  # fmt: skip
    """A row of the largest differences of the first change, on the device, from the second, in float64 on the
    CPU; a fault where one is above the tolerance, or NaN."""
    given = [noise(one, seed) for seed, one in enumerate((shape, size_out or shape, shape), context.seed)]
    found = derivatives(changes[0], *(one.to(context.device) for one in given))
    exact = derivatives(changes[1], *(one.double() for one in given))
    differences = {what: float((found[what].cpu().double() - exact[what]).abs().max()) for what in exact}
    outcome.table.append(
        {"what": name, "size": "x".join(map(str, shape))} | differences | {"allowed": tolerance}
    )
    for what, difference in differences.items():
        if not difference <= tolerance:
            outcome.faults.append(f"{name}: {what} is off by {difference:.3g}, allowed is {tolerance:.3g}")


def _pipe(pipe: str):
    def run(context: Context) -> Outcome:
        from fastload.augment.ada import AdaPipe
        from fastload.ops.ada.ada_augment import ada_augment

        outcome = Outcome()
        side = context.of(256, 4 if pipe == "bgc" else 22)
        shape = (context.of(4, 1), 3, side, side)
        for p in context.of(STRENGTHS, STRENGTHS[:1]):
            made = AdaPipe.named(pipe, p, seed=context.seed + 1, rank=0, impl="triton").to(context.device)
            drawn = made.draw(*shape)
            same = drawn.to("cpu")
            changes = (
                lambda images, drawn=drawn: ada_augment(images, drawn, "triton"),
                lambda images, same=same: ada_augment(images, same, "reference"),
            )
            _compare(context, outcome, f"{pipe}, p = {p:g}", changes, shape, TOLERANCE)
        return outcome

    return run


def _draws(context: Context) -> Outcome:
    """Three draws of each pipe, triton against NumPy: integers, gates and keys equal, numbers and matrices as
    close as draw_ada.py says, and the calls counted."""
    from fastload.augment.ada import AdaPipe
    from fastload.augment.diff_augment import DiffAugment
    from fastload.augment.edm import AugmentPipe
    from fastload.ops.ada.draw.draw_edm import LABELS

    outcome, n = Outcome(), context.of(4096, 16)
    edm = {"p": 0.6} | dict.fromkeys(LABELS, 1.0)
    makers = {
        "AdaPipe": lambda **options: AdaPipe.named("bgcfnc", 0.6, **options),
        "AugmentPipe": lambda **options: AugmentPipe(**edm, **options),
        "DiffAugment": lambda **options: DiffAugment(**options),
    }
    for name, make in makers.items():
        fast = make(seed=2**64 - 3, rank=1, impl="triton").to(context.device)
        plain = make(seed=2**64 - 3, rank=1, impl="reference")
        sizes = (n, 250, 250) if name == "DiffAugment" else (n, 3, 250, 250)
        worst: dict[str, float] = {}
        for _ in range(3):
            drawn, exact = fast.draw(*sizes).to("cpu"), plain.draw(*sizes)
            for field, off in differences_of(drawn, exact).items():
                worst[field] = max(worst.get(field, 0.0), off)
        outcome.table += [
            {"pipe": name, "field": field, "of the tolerance": off} for field, off in worst.items()
        ]
        outcome.faults += [f"{name}: {field} is off" for field, off in worst.items() if not off <= 1]
        if not fast.calls.item() == plain.calls.item() == 3 or fast.ticket.item():
            outcome.faults.append(
                f"{name}: counted {fast.calls.item()} of 3 calls, ticket {fast.ticket.item()}"
            )
    return outcome


def differences_of(drawn: Any, exact: Any) -> dict[str, float]:
    """Field -> the largest difference, in units of what is allowed; infinity where it must be equal and is
    not."""
    found = {}
    for name, tensor in exact.given().items():
        values, right = getattr(drawn, name).numpy(), tensor.numpy()
        if right.dtype == np.int32 or name == "cut_size":
            found[name] = 0.0 if np.array_equal(values, right) else np.inf
            continue
        if name in ("G_inv", "C"):
            allowed = 2e-6 * np.abs(right).max((1, 2), keepdims=True)
        else:  # a cosine near 0 has its error from the angle: units of numbers of 1/8 there
            allowed = PLACES * np.spacing(np.maximum(np.abs(right), np.float32(0.125)))
            allowed *= 4 if name == "labels" else 1  # sines and products of drawn numbers
        found[name] = float((np.abs(values.astype(np.float64) - right) / allowed).max())
    return found


def _graphs(context: Context) -> Outcome:
    """A captured call draws anew in each replay: what a pipe that was not captured draws."""
    import torch

    from fastload.augment.ada import AdaPipe
    from fastload.augment.diff_augment import DiffAugment

    if not context.on_gpu:
        raise Skipped("a CUDA graph needs a GPU")
    outcome, images = Outcome(), noise((8, 3, 64, 64), context.seed, context.device)
    makers = {
        "AdaPipe": lambda: AdaPipe.named("bgcfnc", 0.8, rank=0),
        "DiffAugment": lambda: DiffAugment(rank=0),
    }
    for name, make in makers.items():
        pipe, plain = make().to(context.device), make().to(context.device)
        pipe(images)  # compiles
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = pipe(images)
        pipe.calls.zero_()
        equal, results = 0, []
        for _ in range(4):
            graph.replay()
            equal += torch.equal(captured, plain(images))
            results.append(captured.clone())
        anew = all(not torch.equal(a, b) for a, b in itertools.pairwise(results))
        row = {"pipe": name, "replays": 4, "equal to calls": equal, "each anew": anew}
        outcome.table.append(row | {"counted": pipe.calls.item()})
        if equal != 4 or not anew or pipe.calls.item() != 4:
            outcome.faults.append(f"{name}: {outcome.table[-1]}")
    return outcome


def _diff_augment(context: Context) -> Outcome:
    """Policies in several orders; without colour the twins are equal."""
    from fastload.augment.diff_augment import DiffAugment
    from fastload.ops.diff.diff_augment import diff_augment

    outcome = Outcome()
    policies = ("color,translation,cutout", "cutout,color,translation", "translation,cutout")
    shape = (context.of(4, 2), 3, *context.of((256, 256), (9, 12)))
    for policy in policies:
        drawn = DiffAugment(policy, seed=context.seed, rank=0).draw(shape[0], *shape[2:])
        given = drawn.to(context.device)
        changes = (
            lambda images, given=given, policy=policy: diff_augment(images, given, policy, "triton"),
            lambda images, drawn=drawn, policy=policy: diff_augment(images, drawn, policy, "reference"),
        )
        # Of 4: noise in [-1, 1], saturation up to 2, contrast up to 3/2, and 1/2 added.
        _compare(context, outcome, policy, changes, shape, 8e-6 if "color" in policy else 0.0)
    return outcome


def _move_pixels(context: Context) -> Outcome:
    """Flips, turns and shifts, also beyond a side: exact; gradients to their rounding."""
    import torch

    from fastload.ops.move.move_pixels import move_pixels

    outcome, n, side = Outcome(), context.of(16, 3), context.of(256, 9)
    generator = torch.Generator().manual_seed(context.seed)

    def below(count: int, *shape: int):
        return torch.randint(0, count, shape, generator=generator, dtype=torch.int32)

    moves = (below(2, n), below(2, n), below(4, n), below(6 * side, n, 2) - 3 * side)
    given = tuple(one.to(context.device) for one in moves)
    for dtype in ("uint8", "float16", "float32"):
        images = torch.randint(0, 256, (n, 3, side, side), generator=generator).to(getattr(torch, dtype))
        result = move_pixels(images.to(context.device), *given, impl="triton").cpu()
        unequal = int((result != move_pixels(images, *moves, impl="reference")).sum())
        outcome.table.append(
            {"what": f"pixels of {dtype}", "size": f"{n}x3x{side}x{side}", "unequal": unequal}
        )
        if unequal:
            outcome.faults.append(f"{dtype}: {unequal} pixels are not where they should be")
    changes = (
        lambda images: move_pixels(images, *given, impl="triton"),
        lambda images: move_pixels(images, *moves, impl="reference"),
    )
    # A pixel's gradient is a sum of up to four.
    _compare(context, outcome, "gradients", changes, (n, 3, side, side), 4 * 2.0**-23)
    return outcome


def _upfirdn2d(context: Context) -> Outcome:
    """What StyleGAN asks for, and odd numbers, to the tolerance of the contract."""
    import torch

    from fastload.ops.ada.stages.wavelets import SYM6
    from fastload.ops.resample.upfirdn2d import upfirdn2d

    outcome = Outcome()
    shape = (context.of(4, 1), 3, *context.of((256, 250), (9, 8)))
    square = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 2, 1])) / 32
    asked: dict[str, tuple] = {
        "[12], up 2": (torch.tensor(SYM6), {"up": 2, "padding": (6, 5), "gain": 4.0}),
        "[12], down 2": (torch.tensor(SYM6), {"down": 2, "padding": 5}),
        "[4, 3], up 3 and 2, down 2 and 1, cropped": (
            square,
            {"up": (3, 2), "down": (2, 1), "padding": (2, -1, 3, 0)},
        ),
        "no taps, flipped": (None, {"up": 2, "flip_filter": True}),
    }
    for name, (taps, options) in asked.items():
        there = None if taps is None else taps.to(context.device)
        changes = (
            lambda images, there=there, options=options: upfirdn2d(images, there, **options, impl="triton"),
            lambda images, taps=taps, options=options: upfirdn2d(images, taps, **options, impl="reference"),
        )
        size = tuple(changes[1](torch.zeros(shape)).shape)
        count, total = (1, 1.0) if taps is None else (taps.numel(), float(taps.abs().sum()))
        if taps is not None and taps.dim() == 1:
            count, total = 2 * count, total**2
        tolerance = count * 2.0**-23 * options.get("gain", 1.0) * total
        _compare(context, outcome, name, changes, shape, tolerance, size)
    return outcome
