"""How long adaptive augmentation takes on the CPU, and how much memory: native, reference, and as published.

    python -m benchmarks.bench_ada --out DIR [--threads 2] [--rounds 5]

16 images of 256x256x3 float32, pipe bgc at p = 0.1, 0.6 and 1, and bgcfnc at 0.6; for each the same
parameters for all, drawn by AdaPipe. The rows: `native` and `reference` (fastload's twins), `op sequence`
(the sequence of torch operations of the published pipeline, written anew: benchmarks/ada/op_sequence.py), and
the same with channels_last planes, which suit torch's convolutions on a CPU; for information the reference of
DiffAugment, which has no native twin. `forward` records no gradient; `forward + backward` gives the gradient
of the images. `MiB` is what forward + backward holds at most beyond its inputs, result and gradient included,
each in a process of its own. Results and gradients are held against the float64 reference first, or nothing
is timed. They take turns. Prints the page, and writes ada-DATE-COMMIT.json and .md into DIR.

The times are of a process whose malloc keeps what is freed: as glibc is by default, large blocks go back to
the system, and taking them anew can cost more than the computing. The memory is of malloc as it is.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import torch

from benchmarks.ada.contestants import (
    NATIVE,
    PEER,
    PEER_LAST,
    SETTINGS,
    Change,
    check,
    contestants,
    forward,
    forward_backward,
    noise,
)
from benchmarks.ada.memory import peak_mib
from benchmarks.end_to_end.machine import commit, keep, machine

BATCH, SIDE = 16, 256
KEPT_BY_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(8 * 2**30), "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30)}
LEAST_SECONDS = 0.2  # of a round: those that are quicker are repeated in it
TARGET = "bgc, p = 0.6"
FASTER, SHARE = 3.0, 0.1  # the target there: forward + backward, and memory, against the op sequence


def measure(changes: dict[str, Change], n: int, side: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """name -> "forward" and "forward + backward" -> milliseconds of a batch, a number for each round."""
    images, weight = noise(n, side, 2), noise(n, side, 3)
    calls = {}
    for name, change in changes.items():
        calls[name, "forward"] = lambda change=change: forward(change, images)
        calls[name, "forward + backward"] = lambda change=change: forward_backward(change, images, weight)
    repeats = {key: max(1, round(LEAST_SECONDS / _seconds(call, 1))) for key, call in calls.items()}
    times: dict = {name: {"forward": [], "forward + backward": []} for name in changes}
    for _ in range(rounds):
        for (name, what), call in calls.items():
            times[name][what].append(1e3 * _seconds(call, repeats[name, what]))
    return times


def _seconds(call, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def run(n: int, side: int, threads: int, rounds: int) -> dict:
    """The result of all settings. Raises AssertionError where a contestant is not right."""
    torch.set_num_threads(threads)
    result = {"commit": commit(), "machine": machine(), "batch": n, "side": side}
    result |= {"threads": threads, "rounds": rounds, "settings": {}}
    for setting in SETTINGS:
        changes, exact = contestants(setting, n, side)
        off = check(changes, exact, n, side)
        times = measure(changes, n, side, rounds)
        rows = result["settings"][setting.name] = {}
        for name in changes:
            mib = peak_mib(setting.name, name, n, side, threads)
            rows[name] = {"off": off[name], "mib": mib, "times_ms": times[name]}
            rows[name]["median_ms"] = {what: statistics.median(ms) for what, ms in times[name].items()}
    return result


def verdict(result: dict) -> str:
    """Ratio and share at TARGET, and whether they are what was asked for."""
    rows = result["settings"].get(TARGET, {})
    if not {NATIVE, PEER} <= set(rows):
        return f"{TARGET} was not measured."
    native, peers = rows[NATIVE], [rows[name] for name in (PEER, PEER_LAST) if name in rows]
    fastest_ms = min(peer["median_ms"]["forward + backward"] for peer in peers)
    ratio = fastest_ms / native["median_ms"]["forward + backward"]
    share = native["mib"] / min(peer["mib"] for peer in peers)
    return (
        f"{TARGET}, forward + backward: native is {ratio:.1f} times as fast as the faster layout of the op "
        f"sequence (target {FASTER:g}: {'met' if ratio >= FASTER else 'missed'}), with {share:.3f} of the "
        f"memory of the leaner one (target {SHARE:g}: {'met' if share <= SHARE else 'missed'})."
    )


def page(result: dict) -> str:
    n, side, where = result["batch"], result["side"], result["machine"]
    lines = [
        f"Adaptive augmentation of {n} images of {side}x{side}x3 float32 on the CPU.",
        "",
        f"{result['threads']} threads, commit {result['commit']['commit']}, {where['cpu']}, load average at "
        f"start {where['load_average_at_start']}; {result['rounds']} rounds; milliseconds of wall time for a "
        "batch: median (min - max); `native is`: times as fast, forward + backward.",
        "",
        verdict(result),
        "",
        "| pipe | | forward | forward + backward | native is | MiB | off, result | off, gradient |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for setting, rows in result["settings"].items():
        for name, row in rows.items():
            cells = [setting, name, *(_cell(row["times_ms"][what]) for what in row["times_ms"])]
            ratio = ""
            if NATIVE in rows:
                own = rows[NATIVE]["median_ms"]["forward + backward"]
                ratio = f"{row['median_ms']['forward + backward'] / own:.1f} x"
            cells += [ratio, f"{row['mib']:.0f}", *(f"{one:.1e}" for one in row["off"].values())]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "off: the largest difference from the float64 reference, as a share of the largest value."]
    return "\n".join(lines) + "\n"


def _cell(times: list[float]) -> str:
    return f"{statistics.median(times):.1f} ({min(times):.1f} - {max(times):.1f})"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for the result; nothing is written without it")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--side", type=int, default=SIDE)
    given = parser.parse_args(arguments)
    result = run(given.batch, given.side, given.threads, given.rounds)
    text = page(result)
    print(text)
    if given.out is not None:
        keep("ada", result, text, given.out, checkout=result["commit"])


if __name__ == "__main__":
    if not KEPT_BY_MALLOC.keys() <= os.environ.keys():  # malloc reads them when a process begins
        os.execve(sys.executable, sys.orig_argv, os.environ | KEPT_BY_MALLOC)
    main()
