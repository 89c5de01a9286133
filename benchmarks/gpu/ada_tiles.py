"""The kernels of the warp taken apart: each launched by itself, what it must move, and other tiles.

A call of affine_warp_triton runs three kernels forward and four backward, for groups of samples that share
scratch. They are recorded in one call and launched again, kernel by kernel. The planes between them then hold
what the last group left there, which costs the same time.
"""

import time
from collections.abc import Callable
from typing import Any

from benchmarks.gpu import timing
from benchmarks.gpu.ada_twins import TOLERANCE
from benchmarks.gpu.cases import Case, Context, Outcome
from benchmarks.gpu.rates import exposed

NAMES = {
    "forward": ("_up_kernel", "_sample_kernel", "_down_kernel"),
    "backward": ("_up_kernel", "_spread_kernel", "_fold_rows_kernel", "_fold_columns_kernel"),
}
# Constants of affine_warp_triton and what each is set to, alone; the most telling first.
SWEPT = {
    "NUM_WARPS": (2, 8),
    "SAMPLE_BLOCK": (64, 256),
    "SPREAD_BLOCK": (64, 256),
    "SCRATCH_BYTES": (64 << 20, 2 << 30),
    "PIXEL_BLOCK": (128, 512),
    "SAMPLE_ROWS": (16, 64),
    "UP_BLOCK": (64, 256),
    "UP_ROWS": (16, 64),
}
SWEEP_SECONDS = 60.0  # for compiling: what is not compiled by then is not timed, and the page says so
LANE_BYTES = 16  # of a point of a plane: four floats


def cases() -> list[Case]:
    return [Case("sweep of the warp's tiles", _sweep, 150)]


class _Recorder:
    """Stands in for a kernel: launches it, and keeps how it was launched."""

    def __init__(self, kernel: Any, launches: list):
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid: tuple) -> Callable:
        def launch(*arguments: Any, **options: Any) -> None:
            self.launches.append((grid, arguments, options))
            self.kernel[grid](*arguments, **options)

        return launch


def launched_alone(images: Any, rows: Any) -> dict[str, Callable[[int], None]]:
    """ "DIRECTION: KERNEL" -> a program that launches it for the whole batch, as the pipe bgc does."""
    import torch

    from fastload.ops import affine_warp_triton as module

    programs, out = {}, torch.empty_like(images)
    for direction, names in NAMES.items():
        kernels = {name: getattr(module, name) for name in names}
        launches: dict[str, list] = {name: [] for name in names}
        try:
            for name, kernel in kernels.items():
                setattr(module, name, _Recorder(kernel, launches[name]))
            _warp(direction)(images, rows, out)
        finally:
            for name, kernel in kernels.items():
                setattr(module, name, kernel)
        for name, kernel in kernels.items():
            title = f"{direction}: {name.strip('_').removesuffix('_kernel').replace('_', ' ')}"
            programs[title] = _again(kernel, launches[name])
    return programs


def _warp(direction: str) -> Callable[[Any, Any, Any], Any]:
    """The warp with colour after it, and the adjoint of both."""
    from fastload.ops import affine_warp_triton as module

    adjoint = direction == "backward"
    return lambda images, rows, out: module.launch(
        images, rows, out, adjoint=adjoint, color=True, offset=not adjoint
    )


def _again(kernel: Any, launches: list) -> Callable[[int], None]:
    def program(_: int) -> None:
        for grid, arguments, options in launches:
            kernel[grid](*arguments, **options)

    return program


def plane_bytes(G_inv: Any, channels: int, height: int, width: int) -> dict[str, int]:
    """ "DIRECTION: KERNEL" -> bytes read and written, each once, for warps by G_inv [N, 3, 3] on the CPU."""
    import torch

    from fastload.ops.affine_warp import _box

    ex = torch.tensor([-5.0, 2 * width + 4], dtype=torch.float64)
    ey = torch.tensor([[-5.0], [2 * height + 4]], dtype=torch.float64)
    center = torch.tensor([(width - 1) / 2, (height - 1) / 2], dtype=torch.float64)
    box = box_rows = 0
    for one in G_inv.double():
        A = one[:2, :2]
        tau = 2 * (one[:2, 2] + center - A @ center)
        (left, right), (top, bottom) = (
            _box(A[axis, 0] * ex + A[axis, 1] * ey + tau[axis], side)
            for axis, side in enumerate((width, height))
        )
        box += (right - left) * (bottom - top) * LANE_BYTES
        box_rows += (bottom - top) * width * LANE_BYTES
    n = len(G_inv)
    images = 4 * n * channels * height * width
    halved = n * height * (2 * width + 10) * LANE_BYTES
    lattice = n * (2 * height + 12) * (2 * width + 12) * LANE_BYTES
    return {
        "forward: up": images + box,
        "forward: sample": box + halved,
        "forward: down": halved + images,
        "backward: up": images + lattice,
        "backward: spread": lattice + box,
        "backward: fold rows": box + box_rows,
        "backward: fold columns": box_rows + images,
    }


def _sweep(context: Context) -> Outcome:
    """Forward and backward of the warp with one constant changed; as many settings as there is time to
    compile."""
    from benchmarks.gpu.ada_kernels import JUDGED, batches_of, drawn
    from fastload.ops import affine_warp_triton as module

    outcome, batches, params = Outcome(), batches_of(context), drawn(context, JUDGED)
    images = batches.images[0]
    settings = [("as it is", 0), *((name, value) for name, values in SWEPT.items() for value in values)]
    if not context.on_gpu:
        settings = [settings[0], ("SAMPLE_ROWS", 16)]
    own = {name: getattr(module, name) for name in SWEPT}
    begun, programs, results, late = time.monotonic(), {}, {}, []
    try:
        for name, value in settings:
            if time.monotonic() - begun > SWEEP_SECONDS:
                late.append(f"{name} {value}")
                continue
            some = _with_constant(module, own, name, value, images, params.rows(images))
            if not context.on_gpu:
                some = {title: run for title, run in some.items() if title.endswith("forward")}
            _keep_running(programs, some, results, outcome)
        times = timing.interleaved(programs, context.on_gpu, *context.of((12, 4), (1, 1)))
    finally:
        for name, value in own.items():
            setattr(module, name, value)
    _table(outcome, times, own)
    if late:
        outcome.notes.append(f"Not compiled in {SWEEP_SECONDS:g} s, so not timed: {', '.join(late)}.")
    outcome.notes += exposed(times)
    outcome.raw = {"times": times}
    return outcome


def _with_constant(module: Any, own: dict, name: str, value: int, images: Any, rows: Any) -> dict:
    """ "NAME VALUE: DIRECTION" -> a program that sets the constants and runs the warp."""
    import torch

    constants, out = own | ({name: value} if name in own else {}), torch.empty_like(images)

    def of(direction: str) -> Callable[[int], Any]:
        warp = _warp(direction)

        def program(_: int) -> Any:
            for one, set_to in constants.items():
                setattr(module, one, set_to)
            return warp(images, rows, out)

        return program

    return {f"{name} {value}: {direction}": of(direction) for direction in NAMES}


def _keep_running(programs: dict, some: dict, results: dict, outcome: Outcome) -> None:
    """Adds what runs, and asks for the result that the first one gave, up to rounding."""
    import torch

    for name, program in some.items():
        try:
            result = program(0)
        except Exception as error:
            outcome.notes.append(f"{name}: does not run: {type(error).__name__}: {str(error)[:200]}")
            continue
        direction = name.split(": ")[1]
        expected = results.setdefault(direction, result.clone())
        if not torch.allclose(result, expected, rtol=0, atol=TOLERANCE):
            outcome.faults.append(f"{name}: another result than with the module's own tiles")
        programs[name] = program


def _table(outcome: Outcome, times: dict, own: dict) -> None:
    """A row for each setting, with its time over that of the module as it is."""
    for name in dict.fromkeys(title.split(": ")[0] for title in times):
        constant, _, value = name.rpartition(" ")
        cells = {
            "constant": constant,
            "set to": value if constant in own else "-",
            "its own": own.get(constant, "-"),
        }
        for direction in NAMES:
            took, as_it_is = (times.get(f"{one}: {direction}") for one in (name, "as it is 0"))
            if took is not None:
                cells |= {f"{direction} us": took["median_us"]}
                if as_it_is is not None:
                    cells |= {f"{direction} / as it is": took["median_us"] / as_it_is["median_us"]}
        outcome.table.append(cells)
