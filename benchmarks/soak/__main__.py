"""Does a long training leak? Resident memory, threads and descriptors over 200,000 samples, as a plot.

    python -m benchmarks.soak --out DIR [--photos DIR] [--samples 200000] [--decode native pillow dali]

A few thousand odd samples (corpus.py: JPEGs from 64x48 to 12 megapixels, progressive ones, PNG and WebP,
arrays, captions, and one in fifty of them broken) go round and round through a loader with every kind of
field and augmentation, each decoder in a process of its own. Every epoch is an iteration of its own, every
fifth is broken off, and every tenth loader is closed and made anew. `growth` is the slope of a line through
the second half of the readings, by least squares, in MiB for 100,000 samples; `spread` is the greatest
reading of that half minus the least.

Prints a page, and writes soak-DATE-COMMIT.json, .md and .png into --out.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks import options
from benchmarks.end_to_end.machine import commit, keep, machine
from benchmarks.soak.corpus import make_corpus
from benchmarks.soak.plot import draw


def run(decode: str, shards: Path, samples: int) -> list[dict]:
    """The readings of one decoder, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.soak.run", decode, str(shards), str(samples)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    readings = []
    for line in child.stdout:
        readings.append(json.loads(line))
        one = readings[-1]
        print(f"{decode}: {one['samples']:,} samples, {one['rss_mib']:.0f} MiB", file=sys.stderr, flush=True)
    if child.wait():
        raise SystemExit(f"{decode}: ended with status {child.returncode}")
    return readings


def summary(readings: list[dict]) -> dict:
    half = readings[len(readings) // 2 :]
    samples, memory = (np.array([one[name] for one in half]) for name in ("samples", "rss_mib"))
    return {
        "samples": readings[-1]["samples"],
        "bad_samples": readings[-1]["bad_samples"],
        "seconds": readings[-1]["seconds"],
        "growth_mib_per_100k": float(np.polyfit(samples, memory, 1)[0] * 1e5),
        "spread_mib": float(memory.max() - memory.min()),
        "median_mib": float(np.median(memory)),
        "peak_mib": max(one["rss_mib"] for one in readings),
        "threads": sorted({one["threads"] for one in half}),
        "descriptors": sorted({one["descriptors"] for one in half}),
    }


def page(result: dict) -> str:
    lines = [
        "Memory of a loader over a long training, by decoder; what the columns mean: benchmarks/soak.",
        "",
        f"Commit {result['commit']['commit']}{' with changes' if result['commit']['dirty'] else ''}, "
        f"{result['machine']['cpu']}, {result['machine']['usable_cpus']} CPUs; MALLOC_ARENA_MAX "
        f"{result['malloc_arena_max'] or 'as it is by default'}. The plot lies beside it.",
        "",
        "| decoder | samples | bad | median | growth per 100,000 | spread | peak | threads | descriptors |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for decode, one in result["summary"].items():
        counts = (f"{one[name][0]} - {one[name][-1]}" for name in ("threads", "descriptors"))
        lines.append(
            f"| {decode} | {one['samples']:,} | {one['bad_samples']:,} | {one['median_mib']:.0f} MiB | "
            f"{one['growth_mib_per_100k']:+.1f} MiB | {one['spread_mib']:.0f} MiB | "
            f"{one['peak_mib']:.0f} MiB | {' | '.join(counts)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--decode", nargs="+", default=["native", "pillow", "dali"])
    given = parser.parse_args()
    result = {"commit": commit(), "machine": machine(), "summary": {}, "readings": {}}
    # glibc keeps what ended threads have freed in arenas of their own, which DALI's many threads fill.
    result["malloc_arena_max"] = os.environ.get("MALLOC_ARENA_MAX")
    shards = make_corpus(given.photos, given.cache / "soak")
    for decode in given.decode:
        result["readings"][decode] = run(decode, shards, given.samples)
        result["summary"][decode] = summary(result["readings"][decode])
    text = page(result)
    print(text)
    if given.out is not None:
        path, _ = keep("soak", result, text, given.out, checkout=result["commit"])
        draw(result["readings"], path.with_suffix(".png"))


if __name__ == "__main__":
    main()
