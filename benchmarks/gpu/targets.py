"""What fastload is meant to reach on a GPU, and what a run says of it.

A target is judged on a GPU only. One that was not measured says why; one that was missed is shown like the
others. The keys are what the cases enter in `Outcome.targets`.
"""

from dataclasses import dataclass

from benchmarks.gpu import shapes


@dataclass(frozen=True)
class Target:
    """`bound` is the least that must be measured, or the most; None: shown for comparison."""

    key: str
    part: str
    case: str  # the one that measures it
    says: str
    bound: float | None
    is_least: bool = True


def all_targets() -> list[Target]:
    """Every target, in the order of the page."""
    return [*_correctness(), *_kernels(), *_loader()]


def _correctness() -> list[Target]:
    corrupted = [
        Target(
            f"corrupted {load}",
            "correctness",
            f"stress, hw_decoder_load={load}",
            f"corrupted iterations of all, hw_decoder_load={load}",
            0,
            is_least=False,
        )
        for load in shapes.DETERMINISTIC_LOADS
    ]
    says = "time of a batch with two bad samples among 64 / a good one"
    return [
        *corrupted,
        Target("bad batch", "correctness", "two bad samples of 64", says, 2.2, is_least=False),
    ]


def _kernels() -> list[Target]:
    targets = []
    for shape in shapes.KERNELS:
        case = f"kernels {shape.name}"
        for program in ("normalize", "linear", "jitter", "rotation"):
            bound = 0.80 if program in ("normalize", "linear") else None
            says = f"{shape.name}: bytes of {program} / copy bandwidth"
            targets.append(Target(f"share {shape.name} {program}", "kernels", case, says, bound))
        says = f"{shape.name}: time with jitter / without"
        targets.append(Target(f"jitter {shape.name}", "kernels", case, says, 1.35, is_least=False))
    return [*targets, *_discriminators()]


def _discriminators() -> list[Target]:
    """Of 64x3x256x256 float32; the milliseconds are of an H200."""
    rows = (
        ("ada bgc 0.6 forward, ms", "ada bgc, p = 0.6", "AdaPipe bgc, p = 0.6: forward, ms", 0.30),
        (
            "ada bgc 0.6 forward + backward, ms",
            "ada bgc, p = 0.6",
            "AdaPipe bgc, p = 0.6: forward + backward, ms",
            0.75,
        ),
        ("ada bgc 0.6 R1 step, ms", "ada bgc, p = 0.6", "AdaPipe bgc, p = 0.6: R1 step, ms", None),
        (
            "DiffAugment forward / floor",
            "DiffAugment",
            "DiffAugment: forward / time of 3 batches copied",
            2.0,
        ),
    )
    return [Target(key, "kernels", case, says, bound, is_least=False) for key, case, says, bound in rows]


def _loader() -> list[Target]:
    targets = []
    for corpus in shapes.CORPORA:
        rows = (
            ("fastload / engines, loads 0 and 1", 0.97),
            ("fastload deterministic=False / engines, any load", 0.97),
            ("fastload / engines, any load", None),
            ("fastload / DALI by hand", 1.0),
            ("fastload deterministic=False / DALI by hand", 1.0),
            ("fastload / torchvision", None),
        )
        for says, bound in rows:
            key = f"{corpus}: {says}"
            targets.append(Target(key, "loader", f"loaders {corpus}", key, bound))
    for corpus in shapes.TRAINED:
        says = f"{corpus}: stall of a training step, %"
        targets.append(Target(says, "loader", f"training {corpus}", says, 1.0, is_least=False))
    return targets


def verdicts(results: dict[str, dict]) -> list[dict]:
    """One row for each target: its words, what was measured (None: nothing, and why), met or not."""
    rows = []
    for target in all_targets():
        result = results.get(target.part)
        measured, why = _measured(target, result)
        met = None
        if measured is not None and target.bound is not None:
            met = measured >= target.bound if target.is_least else measured <= target.bound
        sign = "" if target.bound is None else (">= " if target.is_least else "<= ") + f"{target.bound:g}"
        rows.append(
            {
                "part": target.part,
                "says": target.says,
                "bound": sign,
                "measured": measured,
                "met": met,
                "why": why,
            }
        )
    return rows


def _measured(target: Target, result: dict | None) -> tuple[float | None, str]:
    if result is None:
        return None, "this part was not run"
    if result["device"] != "cuda":
        return None, "a run on the CPU"
    case = next((one for one in result["cases"] if one["name"] == target.case), None)
    if case is None:
        return None, "the run ended before it"
    if case["state"] == "wrong":
        return case["targets"].get(target.key), "but the case is wrong, see below"
    if target.key in case["targets"]:
        return case["targets"][target.key], ""
    return None, case.get("reason", "the case did not measure it")
