"""`python -m benchmarks.end_to_end`: measure, show progress on stderr, write the result, print its tables."""

import argparse
import sys
import time
from pathlib import Path

from benchmarks.end_to_end import corpora, report
from benchmarks.end_to_end.competitors import COMPETITORS
from benchmarks.end_to_end.harness import Settings, run
from benchmarks.end_to_end.machine import ROOT

PHOTOS = ROOT / "tests" / "data" / "photos"
CACHE = Path.home() / ".cache" / "fastload" / "benchmarks"
RESULTS = ROOT / "benchmarks" / "results"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.end_to_end",
        description="fastload and its peers from JPEG shards to training batches, in one interleaved run.",
        epilog="competitors: " + ", ".join(c.name for c in COMPETITORS),
    )
    made.add_argument("--corpora", nargs="+", default=list(corpora.KINDS), choices=list(corpora.KINDS))
    made.add_argument("--photos", type=Path, default=PHOTOS, help="folder of real photos")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--only", nargs="+", default=[], help="competitors, by the beginning of their names")
    made.add_argument("--spinner", action="store_true", help="also beside a Python thread that spins")
    made.add_argument("--step-ms", type=float, help="also with a training step that sleeps so long")
    made.add_argument("--batch-size", type=int, default=64)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--warm", type=float, default=2.0, help="seconds before a window")
    made.add_argument("--measure", type=float, default=4.0, help="seconds of a window")
    made.add_argument("--count", type=int, default=512, help="images in a corpus")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--cache", type=Path, default=CACHE, help="folder that keeps the corpora")
    made.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    return made


def main() -> int:
    args = parser().parse_args()
    settings = Settings(
        photos=args.photos,
        cache=args.cache,
        corpora=tuple(args.corpora),
        rounds=args.rounds,
        only=tuple(args.only),
        batch_size=args.batch_size,
        threads=args.threads,
        warm_seconds=args.warm,
        measure_seconds=args.measure,
        spinner=args.spinner,
        step_ms=args.step_ms,
        seed=args.seed,
        count=args.count,
    )
    start = time.monotonic()
    result = run(settings, lambda line: print(f"[{time.monotonic() - start:5.0f} s] {line}", file=sys.stderr))
    written = report.write(result, args.out)
    print(report.markdown(result))
    print(f"written: {', '.join(map(str, written))}", file=sys.stderr)
    return 1 if result["failures"] or result["interrupted"] else 0


if __name__ == "__main__":
    sys.exit(main())
