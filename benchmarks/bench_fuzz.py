"""The fuzz targets of tests/fuzz for long: the tar, zip and image header parsers, and the JPEG path.

    python -m benchmarks.bench_fuzz --seconds 600 --out DIR [--targets tar zip] [--corpus DIR]

Each target is built with what tests/fuzz/build.py finds (libFuzzer under AddressSanitizer and
UndefinedBehaviorSanitizer where clang is there, with a look for leaks at the end) and runs for --seconds, one
after the other, from the corpus that the tests begin with. --corpus is a folder that keeps what was found to
reach new code, a folder for each target, for the next run; only libFuzzer writes there.

Prints a page and writes fuzz-DATE-COMMIT.json and .md into --out: inputs that ran, places of the code that
they reached, and what broke; such an input is written beside them (tests/fuzz/regressions/TARGET is its
place). Exits with 1 if there is one.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.end_to_end.machine import commit, keep, machine, without_paths
from fastload.backends import find_libjpeg
from tests.fuzz import build
from tests.fuzz.seeds import write_seeds


def fuzz(target: str, program: Path, seconds: int, seed: int, folder: Path, corpus: Path | None) -> dict:
    """What a run of one target came to; inputs that broke it lie in folder/found."""
    seeds = write_seeds(target, folder / f"seeds-{target}")
    kept = (corpus or folder / "corpus") / target
    kept.mkdir(parents=True, exist_ok=True)
    found = folder / "found"
    found.mkdir(exist_ok=True)
    begun = time.perf_counter()
    libjpeg = next((path for path in find_libjpeg() if path.exists()), find_libjpeg()[-1])
    run = build.run(
        program,
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-max_len={build.MAX_LEN[target]}",
        f"-artifact_prefix={found}/{target}-",
        str(kept),
        str(seeds),
        libjpeg=libjpeg if target == "jpeg" else None,
        leaks=True,
    )
    return {
        "executions": run.executions,
        "seconds": round(time.perf_counter() - begun, 1),
        "covered": run.covered,
        "seeds": len(list(seeds.iterdir())),
        "corpus": len(list(kept.iterdir())),
        "exit_status": run.exit_status,
        "found": sorted(path.name for path in found.glob(f"{target}-*")),
        "report": "" if run.exit_status == 0 else without_paths(run.output[-4000:]),
    }


def page(result: dict) -> str:
    checkout = result["commit"]
    lines = [
        f"The fuzz targets for {result['seconds_each']} s each, {result['toolchain']}.",
        "",
        f"Commit {checkout['commit']}{' with changes' if checkout['dirty'] else ''}, "
        f"{result['machine']['cpu']}. What the columns mean: benchmarks/bench_fuzz.py.",
        "",
        "| target | inputs run | seconds | places reached | corpus | broke it |",
        "|---|---|---|---|---|---|",
    ]
    for target, one in result["targets"].items():
        executions = "none" if one["executions"] is None else f"{one['executions']:,}"
        sizes = f"{one['seeds']} given, {one['corpus']} kept"
        broke = ", ".join(one["found"]) or ("nothing" if one["exit_status"] == 0 else "see the report")
        lines.append(f"| {target} | {executions} | {one['seconds']} | {one['covered']} | {sizes} | {broke} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("--targets", nargs="+", default=list(build.SOURCES), choices=list(build.SOURCES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, help="what earlier runs found, and where this one adds to it")
    parser.add_argument("--out", type=Path, help="folder for the result; nothing is written without it")
    given = parser.parse_args()
    chain = build.toolchain()
    if chain is None:
        parser.error("there is no C++ compiler")
    result = {
        "commit": commit(),
        "machine": machine(),
        "toolchain": chain.name,
        "seconds_each": given.seconds,
        "targets": {},
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        programs = build.build(tuple(given.targets), folder, chain)
        for target, program in programs.items():
            result["targets"][target] = fuzz(
                target, program, given.seconds, given.seed, folder, given.corpus and given.corpus.resolve()
            )
        if given.out is not None:
            given.out.mkdir(parents=True, exist_ok=True)
            for path in (folder / "found").iterdir():
                shutil.copy2(path, given.out)
    text = page(result)
    print(text)
    if given.out is not None:
        keep("fuzz", result, text, given.out, checkout=result["commit"])
    sys.exit(1 if any(one["exit_status"] for one in result["targets"].values()) else 0)


if __name__ == "__main__":
    main()
