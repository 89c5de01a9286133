"""Part 2, augmentation for discriminators: whole pipes, single kernels, other tiles, and what is published.

In: 64 images of 256x256x3 float32 noise in HBM, parameters drawn before. Out: microseconds, beside the time
that a copy takes for the bytes that must move at least. I is one batch: forward reads and writes 2 I, its
adjoint 2 I, so that forward + backward is 4 I and an R1 step, which goes forward once more, 6 I. DiffAugment
reads the images once more for their mean: 3 I, and 6 I. Before anything is timed, samples of result and
gradient are held against the float64 reference.
"""

from collections.abc import Callable
from typing import Any

from benchmarks.gpu import timing
from benchmarks.gpu.ada_draws import JUDGED, SHAPE, TINY, Batches, batches_of, drawn
from benchmarks.gpu.ada_tiles import DIRECTIONS, launched_alone, plane_bytes
from benchmarks.gpu.ada_twins import TOLERANCE
from benchmarks.gpu.cases import Case, Context, Outcome
from benchmarks.gpu.rates import copy_rate, exposed, row

STRENGTHS = (0.1, 0.6, 1.0)
STEPS = {"forward": 2, "forward + backward": 4, "R1 step": 6}  # batches that must be read and written
DIFF_STEPS = {"forward": 3, "forward + backward": 6}
PEER_TOLERANCE = (
    1e-3  # of the largest value: the peer's grid is float32, and its margins are those of a batch
)


def cases(context: Context) -> list[Case]:
    strengths = context.of(STRENGTHS, (JUDGED,))
    return [
        *(Case(f"ada bgc, p = {p:g}", _pipe(p)) for p in strengths),
        Case("DiffAugment", _diff_augment),
        Case("draws of AdaPipe, AugmentPipe and DiffAugment", _draws),
        Case("ada bgc, kernel by kernel", _alone),
        Case("ada bgc, sequence of torch operations", _op_sequence),
    ]


def programs_of(change: Callable, batches: Batches) -> dict[str, Callable[[int], Any]]:
    """The steps of a training with `change`, autograd included."""
    import torch

    def forward(launch: int) -> Any:
        with torch.no_grad():
            return change(batches.of(launch)[0])

    def backward(launch: int, again: bool = False) -> Any:
        images, weight = (one.detach().requires_grad_() for one in batches.of(launch))
        (gradient,) = torch.autograd.grad(change(images), images, weight, create_graph=again)
        if again:  # what the penalty's gradient asks for
            (gradient,) = torch.autograd.grad(gradient, weight, batches.of(launch + 1)[1])
        return gradient

    return {
        "forward": forward,
        "forward + backward": backward,
        "R1 step": lambda launch: backward(launch, again=True),
    }


def some_of(params: Any, chosen: list[int]) -> Any:
    """The parameters of some of the samples, on the CPU."""
    return type(params)(**{name: tensor[chosen].cpu() for name, tensor in params.given().items()})


def check(outcome: Outcome, programs: dict, batches: Batches, params: Any, reference: Callable) -> None:
    """Samples from start, middle and end of result and gradient against the float64 reference."""
    import torch

    images, weight = batches.of(0)
    chosen = sorted({0, len(images) // 2, len(images) - 1})
    few = some_of(params, chosen)
    exact_images = images[chosen].cpu().double().requires_grad_()
    result = reference(exact_images, few)
    (gradient,) = torch.autograd.grad(result, exact_images, weight[chosen].cpu().double())
    exact = {"forward": result.detach(), "forward + backward": gradient}
    for name, right in exact.items():
        off = float((programs[name](0)[chosen].cpu().double() - right).abs().max())
        outcome.raw[f"largest error of {name}"] = off
        if not off <= TOLERANCE:
            outcome.faults.append(f"{name}: off by {off:.3g}, allowed is {TOLERANCE:g}")


def _timed(context: Context, outcome: Outcome, programs: dict, least: dict[str, int], target: str) -> dict:
    """Rows of programs beside the least bytes; their milliseconds as figures for targets."""
    rate = copy_rate(context)["bytes_per_second"]
    times = timing.interleaved(programs, context.on_gpu, *context.of((24, 8), (1, 1)))
    for name, took in times.items():
        floor_us = least[name] / rate * 1e6
        cells = {"MB at least": least[name] / 1e6, "floor us": floor_us}
        outcome.table.append(row(name, took) | cells | {"share of copy": floor_us / took["median_us"]})
        outcome.targets[f"{target} {name}, ms"] = took["median_us"] / 1e3
        outcome.targets[f"{target} {name} / floor"] = took["median_us"] / floor_us
    outcome.notes += exposed(times)
    outcome.raw |= {"times": times, "copy_bytes_per_second": rate}
    return times


def _pipe(p: float):
    def run(context: Context) -> Outcome:
        from fastload.ops.ada.ada_augment import ada_augment

        outcome, batches, params = Outcome(), batches_of(context), drawn(context, p)
        programs = programs_of(lambda images: ada_augment(images, params, "triton"), batches)
        check(outcome, programs, batches, params, lambda *given: ada_augment(*given, impl="reference"))
        least = {name: count * batches.bytes for name, count in STEPS.items()}
        timed = programs if context.on_gpu else {"R1 step": programs["R1 step"]}
        _timed(context, outcome, timed, least, f"ada bgc {p:g}")
        return outcome

    return run


def _diff_augment(context: Context) -> Outcome:
    from fastload.augment.diff_augment import DiffAugment
    from fastload.ops.diff.diff_augment import diff_augment

    outcome, batches = Outcome(), batches_of(context)
    n, _, height, width = batches.images[0].shape
    params = DiffAugment(seed=context.seed, rank=0).draw(n, height, width).to(context.device)
    programs = programs_of(lambda images: diff_augment(images, params, impl="triton"), batches)
    programs = {name: programs[name] for name in DIFF_STEPS}
    check(outcome, programs, batches, params, lambda *given: diff_augment(*given, impl="reference"))
    least = {name: count * batches.bytes for name, count in DIFF_STEPS.items()}
    _timed(context, outcome, programs, least, "DiffAugment")
    return outcome


def _draws(context: Context) -> Outcome:
    """One launch each, for the batch; the bytes are nothing."""
    from fastload.augment.ada import AdaPipe
    from fastload.augment.diff_augment import DiffAugment
    from fastload.augment.edm import AugmentPipe
    from fastload.ops.ada.draw.draw_edm import LABELS

    n, channels, height, width = context.of(SHAPE, TINY)
    edm = AugmentPipe(0.12, **dict.fromkeys(LABELS, 1.0), rank=0, impl="triton").to(context.device)
    ada = AdaPipe.named("bgcfnc", JUDGED, rank=0, impl="triton").to(context.device)
    diff = DiffAugment(rank=0, impl="triton").to(context.device)
    programs = {
        "AdaPipe bgcfnc": lambda _: ada.draw(n, channels, height, width),
        "AugmentPipe": lambda _: edm.draw(n, channels, height, width),
        "DiffAugment": lambda _: diff.draw(n, height, width),
    }
    times = timing.interleaved(programs, context.on_gpu, *context.of((24, 8), (1, 1)))
    return Outcome([row(*one) for one in times.items()], notes=exposed(times), raw={"times": times})


def _alone(context: Context) -> Outcome:
    """Every kernel of the warp by itself: which one is slow, and whether memory is what it waits for."""
    outcome, batches, params = Outcome(), batches_of(context), drawn(context, JUDGED)
    rate = copy_rate(context)["bytes_per_second"]
    images, programs = batches.images[0], {}
    for direction in DIRECTIONS:
        try:
            programs |= launched_alone(direction, images, params.rows(images))
        except Exception as error:  # of a form that is not the module's own, perhaps
            outcome.notes.append(f"{direction}: does not run: {type(error).__name__}: {str(error)[:200]}")
    times = timing.interleaved(programs, context.on_gpu, *context.of((12, 2), (1, 1)))
    least = plane_bytes(params.G_inv.cpu(), *images.shape[1:])
    total: dict[str, float] = {}
    for name, took in times.items():
        direction = name.split(":")[0]
        total[direction] = total.get(direction, 0.0) + took["median_us"]
    for name, took in times.items():
        cells = {"of its direction": took["median_us"] / total[name.split(":")[0]]}
        if name in least:
            cells |= {"MB of planes": least[name] / 1e6}
            cells["share of copy"] = least[name] / rate / (took["median_us"] * 1e-6)
        outcome.table.append(row(name, took) | cells)
    outcome.notes.append(
        "MB of planes: what a kernel reads and writes of planes and images, each byte once. A sample's whole "
        "box is counted, of which sampling reads a part. Where the share of copy is small, memory is not the "
        "limit."
    )
    outcome.notes += exposed(times)
    outcome.raw = {"times": times}
    return outcome


def _op_sequence(context: Context) -> Outcome:
    """The published pipeline's torch operations on the same device, as plain as they are."""
    import torch

    from benchmarks.ada.op_sequence import op_sequence
    from benchmarks.gpu.rates import drop_failing
    from fastload.ops.ada.ada_augment import ada_augment

    outcome, batches, params = Outcome(), batches_of(context), drawn(context, JUDGED)
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False  # ten bits would be neither equal nor a comparison
    try:
        changes = {
            "triton": lambda images: ada_augment(images, params, "triton"),
            "op sequence": lambda images: op_sequence(images, params),
        }
        results = {name: change(batches.images[0]) for name, change in changes.items()}
        off = (results["op sequence"] - results["triton"]).abs().max() / results["triton"].abs().max()
        if not off <= PEER_TOLERANCE:
            outcome.faults.append(f"op sequence and triton differ by {float(off):.3g} of the largest value")
        del results
        steps = {name: programs_of(change, batches) for name, change in changes.items()}
        programs = {f"{name}: {step}": run for name, of in steps.items() for step, run in of.items()}
        if not context.on_gpu:
            programs = {name: run for name, run in programs.items() if name.endswith(": forward")}
        drop_failing(programs, outcome)  # torch may not differentiate its sampling twice
        mib = {name: _peak_mib(context, run) for name, run in programs.items()}
        times = timing.interleaved(programs, context.on_gpu, *context.of((5, 1), (1, 1)))
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
    for name, took in times.items():
        own = times[f"triton: {name.split(': ')[1]}"]["median_us"]
        cells = {"times triton": took["median_us"] / own, "MiB at most": mib[name]}
        outcome.table.append(row(name, took) | cells)
    outcome.notes.append(
        "The sequence waits for the device once a call, for its margins, and its resampling is plain torch: "
        "the published one brings a CUDA kernel for that, and waits four times."
    )
    outcome.raw = {"times": times, "largest difference, share": float(off)}
    return outcome


def _peak_mib(context: Context, program: Callable[[int], Any]) -> float | str:
    """What a call holds on the device at most, beyond what lies there already."""
    import torch

    if not context.on_gpu:
        return "-"
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    program(0)
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20
