"""What fastload is meant to reach, checked against a result: ratios of medians of one interleaved run.

A target that could not be checked, because one of its sides was not measured, says so; one that was missed
is in the table like the others. "best peer" is the fastest that decodes in full, whatever its filter;
beside it stands the best of those with a bicubic filter, which do the same work.
"""

from collections.abc import Callable
from dataclasses import dataclass

Rates = dict[str, float]  # images/s, medians, by competitor


@dataclass(frozen=True)
class Target:
    """`ratio` of the quiet rates on a corpus is at least `least`; `least=None`: shown, not judged."""

    corpus: str
    says: str
    least: float | None
    ratio: Callable[[Rates], float]


def verdicts(result: dict) -> list[dict]:
    """One row for each target on a measured corpus: its words, the ratio (None: not measured), met or not."""
    rates: dict[tuple[str, str], Rates] = {}
    for row in result["summary"]:
        rates.setdefault((row["corpus"], row["mode"]), {})[row["competitor"]] = row["median"]
    targets = _quiet(result)
    for corpus in result["settings"]["corpora"]:
        targets += _beside_training(corpus, rates, result["settings"])
    measured = result["settings"]["corpora"]
    return [_verdict(t, rates.get((t.corpus, "quiet"), {})) for t in targets if t.corpus in measured]


def _quiet(result: dict) -> list[Target]:
    peers = [c for c in result["competitors"] if c["role"] == "peer" and not c["scaled_decode"]]
    best = _over_best("fastload", {c["name"] for c in peers})
    best_bicubic = _over_best("fastload", {c["name"] for c in peers if c["full_bicubic"]})
    none, scaled = "fastload scaled=None", "fastload scaled=full"
    first = []
    if "avx512bw" in result["machine"]["isa"]:
        first = [_over("in500", "fastload", "decode_limit", 0.80)]
    return [
        *first,
        _over("in500", "fastload avx2", "decode_limit", 0.75),
        _over("in500", "fastload jitter", "fastload", 0.75),
        _over("in500", "fastload jitter avx2", "fastload avx2", 0.75),
        Target("in500", "fastload / best peer", 2.5, best),
        Target("in500", "fastload / best bicubic peer", None, best_bicubic),
        _over("sq1024", none, "decode_limit", 0.90),
        _over("sq1024", "fastload", "decode_limit 1/2", 0.90),
        _over("sq1024", scaled, "decode_limit 1/4", 0.90),
        Target("sq1024", "fastload / best peer", 1.8, best),
        Target("sq1024", "fastload / best bicubic peer", None, best_bicubic),
        _over("sq1024", scaled, "pillow_draft", 1.4),
        _over("sq256", "fastload", "decode_limit", 0.80),
        Target("sq256", "fastload / best peer", 3.5, best),
        Target("sq256", "fastload / best bicubic peer", None, best_bicubic),
    ]


def _beside_training(corpus: str, rates: dict, settings: dict) -> list[Target]:
    """The targets of the harder modes, where these were run."""
    spinner, step = rates.get((corpus, "spinner"), {}), rates.get((corpus, "step"), {})
    targets = []
    if settings["spinner"]:
        says = "fastload beside a spinning Python thread / quiet"
        targets.append(Target(corpus, says, 0.60, lambda quiet: spinner["fastload"] / quiet["fastload"]))
    if settings["step_ms"] is not None:
        steps = settings["batch_size"] / (settings["step_ms"] / 1000)
        says = f"fastload with a step of {settings['step_ms']:g} ms / min(step, loader)"
        ratio = lambda quiet: step["fastload"] / min(steps, quiet["fastload"])  # noqa: E731
        targets.append(Target(corpus, says, 0.95, ratio))
    return targets


def _over(corpus: str, ours: str, other: str, least: float) -> Target:
    return Target(corpus, f"{ours} / {other}", least, lambda rates: rates[ours] / rates[other])


def _over_best(ours: str, others: set[str]) -> Callable[[Rates], float]:
    return lambda rates: rates[ours] / max(rate for name, rate in rates.items() if name in others)


def _verdict(target: Target, rates: Rates) -> dict:
    try:
        ratio = round(target.ratio(rates), 3)
    except (KeyError, ValueError):  # a side is missing; `max` of no peers
        ratio = None
    met = None if ratio is None or target.least is None else ratio >= target.least
    return {"corpus": target.corpus, "says": target.says, "least": target.least, "ratio": ratio, "met": met}
