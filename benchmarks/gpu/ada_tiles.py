"""The kernels of the warp taken apart: each launched by itself, what it must move, and other tiles.

A call of affine_warp_triton runs several kernels, for groups of samples that share scratch. They are recorded
in one call and launched again, kernel by kernel. The planes between them then hold what the last group left
there, which costs the same time.
"""

import importlib
import time
from collections.abc import Callable
from typing import Any

from benchmarks.gpu import timing
from benchmarks.gpu.ada_draws import JUDGED, batches_of, drawn
from benchmarks.gpu.ada_twins import TOLERANCE
from benchmarks.gpu.cases import Case, Context, Outcome
from benchmarks.gpu.rates import exposed

# Where a call of the warp finds its kernels: the attributes that end so.
MODULES = ("affine_warp_triton", "affine_tile_triton", "affine_axes_triton", "affine_adjoint_triton")
ENDING = "_kernel"
# Direction -> FORM of affine_warp_triton. Of the forms of the forward direction one is the module's own.
DIRECTIONS = {"forward": "streaming", "forward in tiles": "tiles", "backward": "streaming"}
# Constants of affine_warp_triton and what each is set to, alone; the most telling first.
SWEPT: dict[str, tuple] = {
    "FORM": ("tiles",),
    "NUM_WARPS": (2, 8),
    "SAMPLE_BLOCK": (64, 256),
    "SPREAD_BLOCK": (64, 256),
    "SCRATCH_BYTES": (64 << 20, 2 << 30),
    "PIXEL_BLOCK": (128, 512),
    "SAMPLE_ROWS": (16, 64),
    "UP_BLOCK": (64, 256),
    "UP_ROWS": (16, 64),
}
SWEPT_DIRECTIONS = ("forward", "backward")
SWEEP_SECONDS = 60.0  # for compiling: what is not compiled by then is not timed, and the page says so
LANE_BYTES = 16  # of a point of a plane: four floats


def cases() -> list[Case]:
    return [Case("sweep of the warp's tiles", _sweep, 150)]


class _Recorder:
    """Stands in for a kernel: launches it, and notes how it was launched."""

    def __init__(self, title: str, kernel: Any, log: list):
        self.title, self.kernel, self.log = title, kernel, log

    def __getitem__(self, grid: tuple) -> Callable:
        def launch(*arguments: Any, **options: Any) -> None:
            self.log.append((self.title, self.kernel, grid, arguments, options))
            self.kernel[grid](*arguments, **options)

        return launch


def launched_alone(direction: str, images: Any, rows: Any) -> dict[str, Callable[[int], None]]:
    """Name, as plane_bytes has it -> a program that launches this kernel for the batch, as bgc does."""
    import torch

    from fastload.ops.ada.kernels import affine_warp_triton as warp

    log, kernels, own = [], _kernels(), warp.FORM
    try:
        warp.FORM = DIRECTIONS[direction]
        for (module, name), kernel in kernels.items():
            title = f"{direction}: {name.removesuffix(ENDING).strip('_').replace('_', ' ')}"
            setattr(module, name, _Recorder(title, kernel, log))
        _warp(direction)(images, rows, torch.empty_like(images))
    finally:
        warp.FORM = own
        for (module, name), kernel in kernels.items():
            setattr(module, name, kernel)
    titles = dict.fromkeys(title for title, *_ in log)
    return {title: _again([launch for one, *launch in log if one == title]) for title in titles}


def _kernels() -> dict[tuple[Any, str], Any]:
    """(module, name) -> the kernel that stands there."""
    modules = [importlib.import_module(f"fastload.ops.ada.kernels.{name}") for name in MODULES]
    return {
        (module, name): one
        for module in modules
        for name, one in vars(module).items()
        if name.endswith(ENDING)
    }


def _warp(direction: str) -> Callable[[Any, Any, Any], Any]:
    """The warp with colour after it, or the adjoint of both."""
    from fastload.ops.ada.kernels import affine_warp_triton as module

    adjoint = direction == "backward"
    return lambda images, rows, out: module.launch(
        images, rows, out, adjoint=adjoint, color=True, offset=not adjoint
    )


def _again(launches: list) -> Callable[[int], None]:
    def program(_: int) -> None:
        for kernel, grid, arguments, options in launches:
            kernel[grid](*arguments, **options)

    return program


def plane_bytes(G_inv: Any, channels: int, height: int, width: int) -> dict[str, int]:
    """Direction and kernel ("forward: up") -> bytes that it reads and writes, each once.

    G_inv: [N, 3, 3] on the CPU. Samples whose axes are not mixed (`straight`) go through contract and expand,
    the others through planes. What the tables of taps hold is not counted."""
    general = [matrix for matrix in G_inv.double() if not _is_straight(matrix)]
    straight = len(G_inv) - len(general)
    boxes = [_box_of(matrix, height, width) for matrix in general]
    image = 4 * channels * height * width
    box = sum(columns * rows for columns, rows in boxes) * LANE_BYTES
    box_rows = sum(rows for _, rows in boxes) * width * LANE_BYTES
    halved = len(general) * height * (2 * width + 10) * LANE_BYTES
    lattice = len(general) * (2 * height + 12) * (2 * width + 12) * LANE_BYTES
    contracted = straight * height * width * LANE_BYTES
    of_general, of_straight, of_all = (count * image for count in (len(general), straight, len(G_inv)))
    found = {
        "forward: up": of_general + box,
        "forward: sample": box + halved,
        "forward: contract": of_straight + contracted,
        "forward: down": halved + contracted + of_all,
        "forward in tiles: tile": box + of_general,
        "forward in tiles: down": contracted + of_straight,
        "backward: up": of_general + lattice,
        "backward: spread": lattice + box,
        "backward: fold rows": box + box_rows,
        "backward: expand": of_straight + contracted,
        "backward: fold columns": box_rows + contracted + of_all,
    }
    return found | {f"forward in tiles: {name}": found[f"forward: {name}"] for name in ("up", "contract")}


def _is_straight(matrix: Any) -> bool:
    """Whether columns stay columns, or become rows; a sample that is copied is one of them."""
    mixed, turned = matrix[[0, 1], [1, 0]], matrix[[0, 1], [0, 1]]
    return bool((mixed == 0).all() or (turned == 0).all())


def _box_of(matrix: Any, height: int, width: int) -> tuple[int, int]:
    """Columns and rows of the doubled plane that the sample looks at."""
    import torch

    from fastload.ops.ada.stages.affine_warp import box_of

    ex = torch.tensor([-5.0, 2 * width + 4], dtype=torch.float64)
    ey = torch.tensor([[-5.0], [2 * height + 4]], dtype=torch.float64)
    center = torch.tensor([(width - 1) / 2, (height - 1) / 2], dtype=torch.float64)
    A = matrix[:2, :2]
    tau = 2 * (matrix[:2, 2] + center - A @ center)
    places = [A[axis, 0] * ex + A[axis, 1] * ey + tau[axis] for axis in (0, 1)]
    (left, right), (top, bottom) = (
        box_of(some, side) for some, side in zip(places, (width, height), strict=True)
    )
    return right - left, bottom - top


def _sweep(context: Context) -> Outcome:
    """Forward and backward of the warp with one constant changed; as many settings as there is time to
    compile."""
    from fastload.ops.ada.kernels import affine_warp_triton as module

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


def _with_constant(module: Any, own: dict, name: str, value: Any, images: Any, rows: Any) -> dict:
    """What is set and the direction ("UP_ROWS 16: forward") -> a program that sets it and runs the warp."""
    import torch

    constants, out = own | ({name: value} if name in own else {}), torch.empty_like(images)

    def of(direction: str) -> Callable[[int], Any]:
        warp = _warp(direction)

        def program(_: int) -> Any:
            for one, set_to in constants.items():
                setattr(module, one, set_to)
            return warp(images, rows, out)

        return program

    return {f"{name} {value}: {direction}": of(direction) for direction in SWEPT_DIRECTIONS}


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
        for direction in SWEPT_DIRECTIONS:
            took, as_it_is = (times.get(f"{one}: {direction}") for one in (name, "as it is 0"))
            if took is not None:
                cells |= {f"{direction} us": took["median_us"]}
                if as_it_is is not None:
                    cells |= {f"{direction} / as it is": took["median_us"] / as_it_is["median_us"]}
        outcome.table.append(cells)
