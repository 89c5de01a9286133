"""Part 2: how near the augmenting kernels come to the memory bandwidth of the device.

In: batches of uint8 pixels in HBM. Out: microseconds, and the bytes that must move (each pixel read once,
each result written once) as a share of what a copy within the device moves. A jitter reads the pixels twice,
for the mean of gray, and its share is still of those bytes. Before anything is timed, images from the start,
middle and end of the very output are held against the float64 reference. Augmentations for
discriminators, which are given floats, have their cases in ada_kernels.py and ada_tiles.py.
"""

from typing import Any, NamedTuple

from benchmarks.gpu import ada_kernels, ada_tiles, timing
from benchmarks.gpu.cases import Case, Context, Outcome, Skipped
from benchmarks.gpu.rates import copy_rate, drop_failing, exposed, row
from benchmarks.gpu.shapes import KERNELS, KernelShape
from benchmarks.gpu.twins import compared, everything_plan, random_pixels

# Name -> the arguments of fl.Augment. "linear" is a flip, one colour matrix and a cutout.
LINEAR = {"xflip": 0.5, "brightness": 0.2, "cutout": (0.5, 0.25)}
PROGRAMS: dict[str, dict] = {
    "normalize": {},
    "linear": LINEAR,
    "jitter": LINEAR | {"color_jitter": (0.4, 0.4, 0.4, 0.1)},
    "rotation": LINEAR | {"rotate": 15.0},
}
ROTATED_BYTES = 512 << 20  # of inputs and outputs together, at least: eight times the L2 cache of an H200
SWEPT = ((256, 2), (512, 4), (1024, 4), (1024, 8), (1024, 16), (2048, 8), (2048, 16), (4096, 16))
SAMPLES = (64, 256, 4096)  # of draw_params


def cases(context: Context) -> list[Case]:
    shapes = KERNELS if context.on_gpu else KERNELS[1:2]
    named = {f"kernels {shape.name}" if context.on_gpu else "kernels, tiny": shape for shape in shapes}
    layouts = context.of(("nchw", "channels_last"), ("nchw",))
    return [
        Case("copy bandwidth", _bandwidth),
        *(Case(name, _of(shape)) for name, shape in named.items()),
        Case("draw_params", _draws),
        Case("torch reference", _torch_reference),
        *ada_kernels.cases(context),
        *(Case(f"sweep {layout}", _sweep(layout), 150) for layout in layouts),
        *ada_tiles.cases(),
    ]


class Buffers(NamedTuple):
    """Inputs [n, side, side, 3] uint8 and outputs [n, 3, side, side], several of each to take in turn."""

    images: list
    outs: list

    def of(self, launch: int) -> tuple:
        return self.images[launch % len(self.images)], self.outs[launch % len(self.outs)]


def _bandwidth(context: Context) -> Outcome:
    copy = copy_rate(context)
    found = {"GiB": copy["size_bytes"] / 2**30, "median us": copy["median_us"]}
    return Outcome([found | {"GB/s, read + written": copy["bytes_per_second"] / 1e9}], raw=copy)


def _tiny(context: Context, shape: KernelShape) -> KernelShape:
    """What the interpreter can do in a second."""
    return shape if context.on_gpu else KernelShape(2, 12, shape.dtype, shape.layout)


def _of(shape: KernelShape):
    def run(context: Context) -> Outcome:
        small = _tiny(context, shape)
        outcome, rate = Outcome(), copy_rate(context)["bytes_per_second"]
        buffers = _buffers(context, small)
        programs = {name: _program(context, small, buffers, options) for name, options in PROGRAMS.items()}
        for name in list(programs):
            _check(context, outcome, small, name, programs[name], buffers)
        times = timing.interleaved(programs, context.on_gpu, *context.of((24, 8), (1, 1)))
        for name, took in times.items():
            share = small.bytes / (took["median_us"] * 1e-6) / rate
            outcome.table.append(row(name, took) | {"share of copy": share})
            outcome.targets[f"share {shape.name} {name}"] = share
        outcome.targets[f"jitter {shape.name}"] = times["jitter"]["median_us"] / times["linear"]["median_us"]
        outcome.notes += exposed(times)
        outcome.raw = {"times": times, "copy_bytes_per_second": rate, "bytes": small.bytes}
        return outcome

    return run


def _buffers(context: Context, shape: KernelShape) -> Buffers:
    import torch

    count = context.of(max(2, -(-ROTATED_BYTES // shape.bytes)), 1)
    form = torch.channels_last if shape.layout == "channels_last" else torch.contiguous_format
    size = (shape.n, 3, shape.side, shape.side)
    images = [_pixels(context, shape, seed) for seed in range(count)]
    dtype = getattr(torch, shape.dtype)
    outs = [torch.empty(size, dtype=dtype, device=context.device, memory_format=form) for _ in range(count)]
    return Buffers(images, outs)


def _pixels(context: Context, shape: KernelShape, seed: int) -> Any:
    """Noise made on the device."""
    import torch

    if not context.on_gpu:
        return random_pixels(shape.n, shape.side, shape.side, 3, seed)
    generator = torch.Generator("cuda").manual_seed(seed)
    size = (shape.n, shape.side, shape.side, 3)
    return torch.randint(0, 256, size, dtype=torch.uint8, device="cuda", generator=generator)


class _Program:
    """One launch of fused_augment, as the loader does it: rows drawn before, on the device."""

    def __init__(self, buffers: Buffers, rows: Any, stages: int, impl: str):
        from fastload.normalize import normalization

        self.buffers, self.rows, self.stages, self.impl = buffers, rows, stages, impl
        self.rule = normalization("gan")

    def __call__(self, launch: int) -> Any:
        from fastload.ops.fused.fused_augment import augment_rows

        images, out = self.buffers.of(launch)
        return augment_rows(images, self.rows, self.stages, self.rule, out, impl=self.impl)


def _program(
    context: Context, shape: KernelShape, buffers: Buffers, options: dict, impl: str = "triton"
) -> _Program:
    import numpy as np

    from fastload.augment.pipe import Augment
    from fastload.ops.fused.draw_params import draw_params

    plan = Augment(**options).plan(shape.side, shape.side)
    rows = draw_params(plan, np.arange(shape.n), 3, impl="reference").to(context.device)
    return _Program(buffers, rows, plan.stages, impl)


def _check(
    context: Context, outcome: Outcome, shape: KernelShape, name: str, program: _Program, buffers: Buffers
) -> None:
    """Some of the images of one launch against the float64 reference."""
    from fastload.ops.fused.augment_params import AugmentParams
    from fastload.ops.fused.fused_augment import fused_augment

    some = sorted({0, shape.n // 2, shape.n - 1})
    result = program(0)[some]
    images = buffers.of(0)[0][some].cpu()
    params = AugmentParams.from_rows(program.rows[some].cpu(), program.stages)
    exact = fused_augment(images, params, normalize="gan", dtype="float64", impl="reference")
    stages = (name, *(stage for stage in PROGRAMS[name] if stage != "xflip"))
    error, allowed = compared(result, exact, shape.dtype, "gan", stages, shape.side, context.on_gpu)
    off = int((error > allowed).sum())
    outcome.raw[f"largest error of {name}"] = float(error.max())
    if off:
        outcome.faults.append(f"{name}: {off} values are off, by up to {float(error.max()):.3g}")


def _draws(context: Context) -> Outcome:
    """The random draws of everything at once, positions on the device already."""
    import torch

    from fastload.ops.fused.draw_params import draw_params

    plan = everything_plan(256, 256)
    programs = {}
    for n in context.of(SAMPLES, (2,)):
        positions = torch.arange(n, device=context.device)
        programs[f"{n} samples"] = lambda _, positions=positions: draw_params(
            plan, positions, 3, device=context.device, impl="triton"
        )
    times = timing.interleaved(programs, context.on_gpu, *context.of((24, 8), (1, 1)))
    table = [row(name, took) for name, took in times.items()]
    return Outcome(table, notes=exposed(times), raw={"times": times})


def _torch_reference(context: Context) -> Outcome:
    """The plain torch of the contract on the same device, in float32: what fusing saves."""
    outcome = Outcome()
    chosen = [shape for shape in KERNELS if (shape.dtype, shape.layout) == ("bfloat16", "nchw")]
    for shape in chosen if context.on_gpu else chosen[:1]:
        small = _tiny(context, shape)
        buffers = _buffers(context, small)
        programs = {}
        for impl in ("reference", "triton"):
            for name in context.of(("normalize", "linear", "jitter"), ("normalize",)):
                programs[f"{impl} {name}"] = _program(context, small, buffers, PROGRAMS[name], impl)
        times = timing.interleaved(programs, context.on_gpu, *context.of((5, 1), (1, 1)))
        for name, took in times.items():
            impl, program = name.split()
            ratio = took["median_us"] / times[f"triton {program}"]["median_us"]
            found = {"shape": small.name, "impl": impl} | row(program, took)
            outcome.table.append(found | {"times triton": ratio})
    outcome.notes.append(
        "The reference waits for the host in places, as eager torch does: its time is no kernel's."
    )
    return outcome


def _sweep(layout: str):
    """Other tiles than the module's own, which it exposes as BLOCK and NUM_WARPS."""

    def run(context: Context) -> Outcome:
        from fastload.ops.fused import fused_augment_triton as module

        if not (hasattr(module, "BLOCK") and hasattr(module, "NUM_WARPS")):
            raise Skipped("fused_augment_triton has no BLOCK and NUM_WARPS to change")
        own = module.BLOCK, module.NUM_WARPS
        outcome, rate = Outcome(), copy_rate(context)["bytes_per_second"]
        shape = next(s for s in KERNELS if (s.dtype, s.layout) == ("bfloat16", layout))
        small = _tiny(context, shape)
        buffers = _buffers(context, small)
        programs = {}
        try:
            for block, warps in SWEPT if context.on_gpu else (own, (512, 4)):
                for name in context.of(("linear", "jitter"), ("linear",)):
                    plain = _program(context, small, buffers, PROGRAMS[name])
                    programs[f"{block} {warps} {name}"] = _with_tiles(module, block, warps, plain)
            drop_failing(programs, outcome)
            times = timing.interleaved(programs, context.on_gpu, *context.of((12, 8), (1, 1)))
        finally:
            module.BLOCK, module.NUM_WARPS = own
        for name, took in times.items():
            block, warps, program = name.split()
            found = {"BLOCK": block, "warps": warps} | row(program, took)
            found |= {"share of copy": small.bytes / (took["median_us"] * 1e-6) / rate}
            outcome.table.append(found | {"": "as it is" if (int(block), int(warps)) == own else ""})
        outcome.notes += exposed(times)
        return outcome

    return run


def _with_tiles(module: Any, block: int, warps: int, program: _Program):
    def launch(number: int) -> Any:
        module.BLOCK, module.NUM_WARPS = block, warps
        return program(number)

    return launch
