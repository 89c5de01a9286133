"""How long the augmentation of a batch takes on the CPU: the native kernels, the reference and torchvision.

    python -m benchmarks.bench_augment --out DIR [--threads 2] [--rounds 9]

64 images of 256x256x3 uint8 become float32 [64, 3, 256, 256], ImageNet-normalized, with a flip (1/2),
ColorJitter(0.4, 0.4, 0.4, 0.1) and a cutout (1/2). The rows: `native` for each instruction set of this CPU,
`reference` (fused_augment in plain torch), `torchvision.v2` (one image after the other, its own functions
with the same factors in the same order, where torchvision is installed), `normalize only` (the native kernels
without a stage: what it costs to read the pixels and write the floats). All are given the same parameters,
write to fresh or reused memory as they would in use, and are checked for equal output first. They take turns.
Prints a line of Markdown for each, and writes augment-DATE-COMMIT.json and .md into DIR.
"""

import argparse
import math
import statistics
import time
from pathlib import Path

import torch

from benchmarks.end_to_end.machine import commit, keep, machine
from fastload import _native
from fastload.ops.fused.augment_params import AugmentParams
from fastload.ops.fused.fused_augment import fused_augment

BATCH, SIDE = 64, 256
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Of values in about [-2, 3]: float32 with steps in another order of operations.
TOLERANCE = 2e-5


def parameters(generator: torch.Generator) -> AugmentParams:
    """What flip, ColorJitter(0.4, 0.4, 0.4, 0.1) and a cutout of half the side draw."""
    G_inv = torch.eye(3).repeat(BATCH, 1, 1)
    G_inv[torch.rand(BATCH, generator=generator) < 0.5, 0, 0] = -1
    jitter = torch.rand((BATCH, 4), generator=generator) * torch.tensor([0.8, 0.8, 0.8, 0.2])
    jitter += torch.tensor([0.6, 0.6, 0.6, -0.1])
    order = torch.stack([torch.randperm(4, generator=generator) for _ in range(BATCH)])
    cut_size = (torch.rand(BATCH, generator=generator) < 0.5) * 0.5
    # Centres on whole pixels and sizes that are even, so that torchvision's erase can cut the same pixels.
    cut_center = torch.randint(0, SIDE + 1, (BATCH, 2), generator=generator) / SIDE
    return AugmentParams(G_inv=G_inv, jitter=jitter, order=order, cut_size=cut_size, cut_center=cut_center)


def with_torchvision(images: torch.Tensor, params: AugmentParams):
    """A function that does the same with torchvision.transforms.v2, or None where it is not installed."""
    try:
        from torchvision.transforms.v2 import functional
    except ImportError:
        return None
    steps = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    flips, sizes = (params.G_inv[:, 0, 0] < 0).tolist(), (params.cut_size * SIDE).int().tolist()
    factors, orders = params.jitter.tolist(), params.order.tolist()
    centers = (params.cut_center * SIDE).int().tolist()

    def one(image, i):
        if flips[i]:
            image = functional.horizontal_flip(image)
        image = functional.to_dtype(image, torch.float32, scale=True)
        for step in orders[i]:
            image = steps[step](image, factors[i][step])
        image = functional.normalize(image, MEAN, STD)
        if sizes[i]:
            left, top = (max(0, at - sizes[i] // 2) for at in centers[i])
            right, bottom = (min(SIDE, at + sizes[i] // 2) for at in centers[i])
            zero = torch.zeros(1)
            image = functional.erase(image, top, left, bottom - top, right - left, zero)
        return image

    planes = images.permute(0, 3, 1, 2).contiguous()  # as torchvision's decoders give them
    return lambda: torch.stack([one(image, i) for i, image in enumerate(planes)])


def contestants() -> dict:
    """name -> a function that makes the batch."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (BATCH, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)
    params, out = parameters(generator), torch.empty(BATCH, 3, SIDE, SIDE)
    settings = {"normalize": "imagenet", "dtype": "float32"}

    def native(kernels: str, params: AugmentParams):
        def batch():
            _native.use_augment_kernels(kernels)
            return fused_augment(images, params, out=out, impl="native", **settings)

        return batch

    found = {}
    for kernels in ("avx512", "avx2", "baseline"):
        try:
            _native.use_augment_kernels(kernels)
        except ValueError:
            continue
        found[f"native {kernels}"] = native(kernels, params)
    found["normalize only"] = native("", AugmentParams())
    found["reference"] = lambda: fused_augment(images, params, impl="reference", **settings)
    peer = with_torchvision(images, params)
    if peer is not None:
        found["torchvision.v2"] = peer
    return found


def check(found: dict) -> dict[str, float]:
    """The largest difference of each from the reference. Raises AssertionError where it is too large."""
    expected = found["reference"]()
    off = {}
    for name, batch in found.items():
        if name != "normalize only":
            off[name] = (batch() - expected).abs().max().item()
            assert off[name] <= TOLERANCE, f"{name} differs from the reference by {off[name]}"
    return off


def measure(found: dict, rounds: int) -> dict[str, list[float]]:
    """Microseconds per image, a number for each round; those that are quick are repeated in a round."""
    repeats = {}
    for name, batch in found.items():
        start = time.perf_counter()
        batch()
        repeats[name] = max(1, math.ceil(0.1 / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, batch in found.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                batch()
            times[name].append((time.perf_counter() - start) / repeats[name] / BATCH * 1e6)
    return times


def table(result: dict) -> str:
    lines = [
        f"{BATCH} images of {SIDE}x{SIDE}x3 uint8 to float32: flip, ColorJitter(0.4, 0.4, 0.4, 0.1), cutout, "
        "normalize.",
        "",
        f"{result['threads']} threads, commit {result['commit']['commit']}, {result['machine']['cpu']}; "
        f"{result['rounds']} rounds; microseconds of wall time per image.",
        "",
        "| | median | min - max | native is | largest difference |",
        "|---|---|---|---|---|",
    ]
    best = next(iter(result["rows"].values()))["median"]
    for name, row in result["rows"].items():
        off = "" if row["off"] is None else f"{row['off']:.1e}"
        lines.append(
            f"| {name} | {row['median']:.1f} | {row['min']:.1f} - {row['max']:.1f} "
            f"| {row['median'] / best:.2f} x | {off} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for the result; nothing is written without it")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = {"commit": commit(), "machine": machine(), "batch": BATCH, "side": SIDE}
    result |= {"threads": arguments.threads, "rounds": arguments.rounds, "rows": {}}
    found = contestants()
    off = check(found)
    for name, times in measure(found, arguments.rounds).items():
        result["rows"][name] = {
            "median": statistics.median(times),
            "min": min(times),
            "max": max(times),
            "off": off.get(name),
            "times": times,
        }
    text = table(result)
    print(text)
    if arguments.out is not None:
        keep("augment", result, text, arguments.out, checkout=result["commit"])


if __name__ == "__main__":
    main()
