"""The Triton twins on the device against their references: every stage alone, all together, all forms.

`fused_augment` is held against the float64 reference on the CPU, `draw_params` against NumPy. The tolerances
are those of the contracts; what a float32 coordinate adds after a warp is taken times 8 where stages follow
that make differences larger (a hue shift makes up to six times as much of one).
"""

import itertools
from typing import Any

import numpy as np

from benchmarks.gpu.cases import Case, Context, Outcome

SIZES = ((256, 256), (375, 500), (7, 1), (1024, 1024))  # height, width
TINY = ((9, 12), (7, 1))  # for the interpreter, which takes 0.1 s for a tile
DTYPES, LAYOUTS = ("float32", "bfloat16", "float16", "uint8"), ("nchw", "channels_last")
# Half a last place, relative; Triton's interpreter cuts bfloat16 off, where a GPU rounds.
ROUNDING = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}
CUT_OFF = {"bfloat16": 2.0**-7}
STAGES: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "mirror": ("G_inv",),
    "warp": ("G_inv",),
    "nearest": ("G_inv",),
    "jitter": ("jitter", "order"),
    "matrix": ("C",),
    "hsv": ("hsv",),
    "cutout": ("cut_size", "cut_center"),
}
EVERYTHING = ("warp", "jitter", "matrix", "hsv", "cutout")
MAX_OFF_NEAREST = 0.005  # share of values: a place that is rounded can choose the other one of two pixels


def cases() -> list[Case]:
    """The stages and forms first, random combinations in `late_cases`: each of them has to be compiled."""
    alone = [Case(f"twin of fused_augment: {stage}", _alone(stage)) for stage in STAGES]
    forms = Case("twin of fused_augment: dtypes, layouts, channels", _forms, 150)
    inputs = Case("twin of fused_augment: float and strided inputs", _inputs)
    return [*alone, forms, inputs, Case("twin of draw_params", _draws)]


def late_cases() -> list[Case]:
    return [Case("twin of fused_augment: random combinations", _combinations, 150)]


def _alone(stage: str):
    def run(context: Context) -> Outcome:
        outcome = Outcome()
        forms = itertools.cycle(itertools.product(DTYPES, LAYOUTS))
        for size, channels in itertools.product(context.of(SIZES, TINY), (3, 1)):
            if channels == 1 and size not in (SIZES[1], SIZES[2], TINY[0]):
                continue
            dtype, layout = next(forms)
            _compare(context, outcome, (stage,), size, channels, dtype, layout)
        _compare(context, outcome, (stage,), context.of(SIZES, TINY)[0], 3, "float32", "nchw")
        return outcome

    return run


def _forms(context: Context) -> Outcome:
    outcome = Outcome()
    size = context.of(SIZES[1], TINY[0])
    for dtype, layout, channels in itertools.product(DTYPES, LAYOUTS, (3, 1)):
        if context.on_gpu or (layout == "nchw") == (channels == 3):
            _compare(context, outcome, EVERYTHING, size, channels, dtype, layout)
    return outcome


def _inputs(context: Context) -> Outcome:
    """Floats as input, [N, C, H, W] permuted, and a window of a larger image, which is not read in words."""
    import torch

    outcome = Outcome()
    height, width = context.of(SIZES[0], TINY[0])
    pixels = random_pixels(2, height, width, 3, context.seed)
    inputs = {
        "float32": pixels.float() / 255,
        "float16": (pixels.float() / 255).half(),
        "planar": pixels.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
        "window": random_pixels(2, height + 3, width + 5, 3, context.seed)[:, 2:-1, 1:-4],
    }
    for name, images in inputs.items():
        for stages in (("nothing",), EVERYTHING):
            given = images.to(context.device)
            if name == "planar":  # the copy to the device has to keep the strides
                given = torch.empty_like(images, device=context.device).copy_(images)
            _compare(context, outcome, stages, (height, width), 3, "float32", "nchw", given=given, form=name)
    return outcome


def _combinations(context: Context) -> Outcome:
    outcome = Outcome()
    rng = np.random.default_rng([context.seed, 7])
    single = [stage for stage in STAGES if stage not in ("nothing", "mirror", "nearest")]
    for number in range(context.of(12, 2)):
        chosen = tuple(stage for stage in single if rng.random() < 0.5)
        sizes = context.of(SIZES, TINY)
        size, dtype = sizes[number % len(sizes)], DTYPES[number % len(DTYPES)]
        layout = LAYOUTS[number // 2 % 2]
        _compare(context, outcome, chosen, size, 3, dtype, layout, seed=number)
    return outcome


def _compare(
    context: Context, outcome: Outcome, stages: tuple, size: tuple, channels: int, dtype: str, layout: str,
    *, given: Any = None, form: str = "uint8", seed: int = 0,
) -> None:  # fmt: skip
    """One launch against the reference: a row of the table, and a fault where it is off by too much."""
    from fastload.ops.fused.fused_augment import fused_augment

    height, width = size
    if given is None:
        given = random_pixels(2, height, width, channels, seed).to(context.device)
    params = random_params(2, stages, seed)
    options = {"filter": "nearest" if "nearest" in stages else "bilinear", "layout": layout}
    rule = None if dtype == "uint8" else "gan" if channels == 1 else "imagenet"
    result = fused_augment(
        given, params.to(context.device), normalize=rule, dtype=dtype, impl="triton", **options
    )
    exact = fused_augment(given.cpu(), params, normalize=rule, dtype="float64", impl="reference", **options)
    error, allowed = compared(result, exact, dtype, rule, stages, max(size), context.on_gpu)
    off = float((error > allowed).double().mean())
    name = "+".join(stages) or "nothing"
    row = {
        "stages": name,
        "size": f"{width}x{height}x{channels}",
        "input": form,
        "output": f"{dtype} {layout}",
    }
    row |= {
        "largest error": float(error.max()),
        "of the tolerance": float((error / allowed).max()),
        "off": off,
    }
    outcome.table.append(row)
    most = MAX_OFF_NEAREST if "nearest" in stages else 0.0
    if not off <= most:  # also where it is no number
        outcome.faults.append(f"{name} {row['size']} {form} to {row['output']}: a share of {off:.2g} is off, "
                              f"by up to {row['largest error']:.3g}")  # fmt: skip


def compared(
    result: Any,
    exact: Any,
    dtype: str,
    rule: str | None,
    stages: tuple,
    side: int,
    device_rounds: bool = True,
) -> tuple:
    """(errors, what is allowed) of the values of a result, float64, in units of the result.

    exact: the reference in float64; for uint8 in [0, 1].
    """
    import torch

    result, exact = result.cpu().double(), exact.cpu()
    moved = {"warp", "rotation"} & set(stages)
    unit = 2e-6
    if moved:
        unit += 2 * 2.0**-22 * side * (8 if len(stages) > 1 else 1)
    if dtype == "uint8":
        error = (result - (exact * 255 + 0.5).floor().clamp(0, 255)).abs()
        error = torch.where(result.isfinite(), error, torch.inf)
        return error, torch.full_like(error, 1.0)
    from fastload.normalize import normalization

    scale = 1.0
    if rule is not None:
        of = normalization(rule)
        scale = max(255 / of.divisor / std for std in of.std)
    rounding = ROUNDING if device_rounds else ROUNDING | CUT_OFF
    allowed = unit * scale + exact.abs() * rounding[dtype]
    error = (result - exact).abs()
    return torch.where(result.isfinite(), error, torch.inf), allowed


def random_pixels(n: int, height: int, width: int, channels: int, seed: int):
    """Noise, in which every wrong pixel shows: [n, height, width, channels] uint8."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, height, width, channels), dtype=torch.uint8, generator=generator)


def random_params(n: int, stages: tuple, seed: int):
    """Parameters of a strong augmentation on the CPU, of these stages."""
    import torch

    from fastload.ops.fused.augment_params import AugmentParams

    generator = torch.Generator().manual_seed(1000 + seed)

    def within(low: float, high: float, *shape: int):
        return low + torch.rand(*shape, generator=generator) * (high - low)

    G_inv = torch.eye(3).repeat(n, 1, 1)
    if "mirror" in stages:
        G_inv[::2, 0, 0] = -1
        G_inv[1::2, 1, 1] = -1
    else:
        G_inv[:, :2] += within(-1, 1, n, 2, 3) * torch.tensor([0.4, 0.4, 9.0])
    orders = torch.tensor(list(itertools.permutations(range(4))))
    every = {
        "G_inv": G_inv,
        "jitter": torch.cat([within(0.6, 1.4, n, 3), within(-0.1, 0.1, n, 1)], 1),
        "order": orders[torch.randint(0, 24, (n,), generator=generator)],
        "C": torch.eye(4) + within(-0.2, 0.2, n, 4, 4),
        "hsv": torch.stack([within(-0.1, 0.1, n), within(0.5, 1.5, n)], 1),
        "cut_size": within(0.1, 0.8, n),
        "cut_center": within(0, 1, n, 2),
    }
    wanted = {name for stage in stages for name in STAGES[stage]}
    return AugmentParams(**{name: one for name, one in every.items() if name in wanted})


def everything_plan(height: int, width: int):
    """A `DrawPlan` with every kind of draw."""
    from fastload.augment.pipe import Augment

    return Augment(
        xflip=0.5, yflip=0.3, rotate=20, scale=(0.8, 1.25), translate=(0.1, 0.2), brightness=0.2,
        color_jitter=(0.4, 0.4, 0.4, 0.1), hsv=(0.05, 0.3), cutout=(0.5, 0.25),
    ).plan(height, width)  # fmt: skip


def _draws(context: Context) -> Outcome:
    """Gates and orders equal, numbers to 4 units in the last place, matrices to 2e-6 of the largest entry."""
    from fastload.ops.fused.augment_params import COLUMNS, CUT_CENTER, CUT_SIZE, HSV, JITTER, ORDER
    from fastload.ops.fused.draw_params import draw_params

    outcome = Outcome()
    plan = everything_plan(375, 500)
    edges = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40 + 12345, 2**62]
    positions = np.array([*edges, *range(1000, 1000 + context.of(4096, 16))], np.int64)
    for seed in context.of((0, 1234567890123, 2**64 - 1), (2**64 - 1,)):
        exact = draw_params(plan, positions, seed, impl="reference").numpy()
        drawn = draw_params(plan, positions, seed, device=context.device, impl="triton").cpu().numpy()
        matrices = np.abs(drawn[:, :JITTER] - exact[:, :JITTER]).max() / np.abs(exact[:, :JITTER]).max()
        numbers = [*range(JITTER, ORDER), HSV, HSV + 1, CUT_CENTER, CUT_CENTER + 1]
        places = np.abs(drawn[:, numbers] - exact[:, numbers]) / np.spacing(np.abs(exact[:, numbers]))
        # The rest holds gates, orders and columns that nothing uses.
        same = [*range(ORDER, HSV), CUT_SIZE, *range(CUT_CENTER + 2, COLUMNS)]
        unequal = int((drawn[:, same] != exact[:, same]).sum())
        # cos and sin of the device may differ by as much as the contract allows, and the product doubles it.
        row = {"seed": seed, "samples": len(positions), "unequal gates and orders": unequal}
        row |= {"largest difference, places": float(places.max()), "of matrices": float(matrices)}
        outcome.table.append(row)
        if unequal or not places.max() <= 4 or not matrices <= 2e-6:
            outcome.faults.append(f"seed {seed}: {row}")
    return outcome
