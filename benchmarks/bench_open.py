"""Opening a million samples that are indexed: whole, and with what `select=` and `exclude=` may name.

    python -m benchmarks.bench_open --out DIR [--rounds 7] [--before CHECKOUT]

One shard of 10,000 samples (jpg + cls + txt) under 100 names (hard links), as in bench_index. Each round
starts a process for each side, which opens each row twice and keeps the second time. --before: another
checkout of fastload, built in place, to be measured in turns with this one; its `select=` may still leave
strings out.
Checked first: which samples every selection leaves. A function is called once a sample, in Python.

Prints a page, and writes open-DATE-COMMIT.json and .md into --out.
"""

import inspect
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import options
from benchmarks.bench_index import SAMPLES, SHARDS, make_shards
from benchmarks.end_to_end.machine import ROOT, commit, keep, machine

N = SAMPLES * SHARDS
HALF = np.sort(np.random.default_rng(0).permutation(N)[: N // 2])
EVEN = [f"{i:09d}" for i in range(0, SAMPLES, 2)]
SPREAD = [f"{shard:05d}.tar:{i:09d}" for shard in range(SHARDS) for i in range(0, SAMPLES, 200)]
ROWS = {
    "whole": ({}, N),
    "select=: 500,000 ids, an array": ({"select": HALF}, N // 2),
    "select=range(900_000)": ({"select": range(900_000)}, 900_000),
    "select=: all ids but ten": ({"select": np.delete(np.arange(N), range(0, N, N // 10))}, N - 10),
    "select=: 5,000 keys, of 500,000 samples": ({"select": EVEN}, N // 2),
    "exclude=: 5,000 keys, of 500,000 samples": ({"exclude": EVEN}, N // 2),
    "exclude=: 5,000 shard:key": ({"exclude": SPREAD}, N - len(SPREAD)),
    "select=: a function": ({"select": lambda row: row.extensions["jpg"][1] % 2 == 0}, N // 2),
}


def make(folder: Path) -> None:
    """The shards, indexed."""
    from fastload.shards.dataset import open_dataset

    make_shards(folder)
    open_dataset(folder / "s", cache_dir=folder / "cache", threads=2)


def measure(folder: str) -> dict[str, float | None]:
    """Seconds of each row in this process; None where this fastload has no such selection."""
    from fastload.shards.dataset import open_dataset

    keeps_strings = "exclude" in inspect.signature(open_dataset).parameters
    found: dict[str, float | None] = {}
    for name, (selection, left) in ROWS.items():
        if not keeps_strings and isinstance(next(iter(selection.values()), None), list):
            selection = {"select": selection["exclude"]} if selection.get("exclude") is EVEN else None
        if selection is None:
            found[name] = None
            continue
        for _ in range(2):
            begun = time.perf_counter()
            dataset = open_dataset(f"{folder}/s", cache_dir=f"{folder}/cache", **selection)
            found[name] = time.perf_counter() - begun
        assert dataset.n == left, (name, dataset.n)
    return found


def check(folder: str) -> None:
    """Raises AssertionError where a selection leaves other samples than those that it names."""
    from fastload.shards.dataset import open_dataset

    keys = np.arange(N) % SAMPLES
    expected = {
        "select=: 500,000 ids, an array": np.isin(np.arange(N), HALF),
        "select=range(900_000)": np.arange(N) < 900_000,
        "select=: all ids but ten": np.arange(N) % (N // 10) != 0,
        "select=: 5,000 keys, of 500,000 samples": keys % 2 == 0,
        "exclude=: 5,000 keys, of 500,000 samples": keys % 2 == 1,
        "exclude=: 5,000 shard:key": keys % 200 != 0,
        "select=: a function": keys % 2 == 0,
    }
    for name, stays in expected.items():
        dataset = open_dataset(f"{folder}/s", cache_dir=f"{folder}/cache", **ROWS[name][0])
        assert np.array_equal(dataset.rows_of(np.arange(dataset.n)), np.flatnonzero(stays)), name


def in_process(checkout: Path, folder: Path) -> dict:
    code = (
        f"import sys, json; sys.path.insert(0, {str(checkout)!r}); import fastload\n"
        f"sys.path.insert(0, {str(ROOT)!r}); from benchmarks.bench_open import measure\n"
        f"print(json.dumps(measure({str(folder)!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def page(result: dict) -> str:
    before = result["before"]
    lines = [
        f"Opening {N:,} indexed samples in {SHARDS} shards: seconds, median (min - max).",
        "",
        f"Commit {result['commit']['commit']}{' with changes' if result['commit']['dirty'] else ''}"
        f"{f', before: {before}' if before else ''}; {result['machine']['cpu']}, "
        f"{result['machine']['usable_cpus']} CPUs, load {result['machine']['load_average_at_start']}; "
        f"{result['rounds']} rounds in turns. What the rows are: benchmarks/bench_open.py.",
        "",
        f"| | now |{' before | now / before |' if before else ''}",
        f"|---|---|{'---|---|' if before else ''}",
    ]
    for name in ROWS:
        now, then = (result["seconds"][side][name] for side in ("now", "before"))
        line = f"| {name} | {_spread(now)} |"
        if before:
            ratio = f"{statistics.median(now) / statistics.median(then):.2f}" if then else ""
            line += f" {_spread(then)} | {ratio} |"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _spread(seconds: list[float]) -> str:
    if not seconds:
        return "-"
    return f"{statistics.median(seconds):.3f} ({min(seconds):.3f} - {max(seconds):.3f})"


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--before", type=Path, help="another checkout, built in place")
    given = parser.parse_args()
    before = None
    if given.before is not None:
        told = ["git", "-C", str(given.before), "rev-parse", "HEAD"]
        before = subprocess.run(told, capture_output=True, text=True, check=True).stdout.strip()[:10]
    sides = {"now": ROOT} | ({} if before is None else {"before": given.before})
    result = {"commit": commit(), "machine": machine(), "rounds": given.rounds, "before": before}
    result["seconds"] = {side: {name: [] for name in ROWS} for side in ("now", "before")}
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        check(folder)
        for _ in range(given.rounds):
            for side, checkout in sides.items():
                for name, seconds in in_process(checkout, Path(folder)).items():
                    result["seconds"][side][name] += [] if seconds is None else [seconds]
    text = page(result)
    print(text)
    if given.out is not None:
        keep("open", result, text, given.out, checkout=result["commit"])


if __name__ == "__main__":
    main()
