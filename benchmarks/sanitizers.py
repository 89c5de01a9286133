"""The tests of everything native, with the extension built under sanitizers.

    python -m benchmarks.sanitizers address --out DIR  # AddressSanitizer and UndefinedBehaviorSanitizer
    python -m benchmarks.sanitizers thread --out DIR  # ThreadSanitizer, over reader and decoder threads

A copy of the checkout is built with g++ in a folder of its own (--folder, kept; else a temporary one), so
that the extension in use is left alone, and its tests run there under the preloaded runtime. Python, torch
and libjpeg are not instrumented: what is looked at is csrc/, and what it hands to others. Leaks are not
looked for, since CPython has its own. Python takes its memory from malloc, so that its objects' ends are
guarded.

Writes sanitizer-KIND-DATE-COMMIT.json and .md into --out; exits with 1 where a test fails or a report names
fastload. A run takes half an hour on two cores, most of it the build.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.end_to_end.machine import ROOT, commit, keep, machine, without_paths


class Kind(NamedTuple):
    sanitizers: str
    runtimes: tuple[str, ...]  # of libstdc++ because ASan looks for __cxa_throw before Python has loaded it
    options: dict[str, str]
    tests: tuple[str, ...]


KINDS = {
    "address": Kind(
        "address,undefined",
        ("libasan.so", "libstdc++.so.6"),
        {
            "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:abort_on_error=1:allocator_may_return_null=1",
            "UBSAN_OPTIONS": "halt_on_error=1:abort_on_error=1:print_stacktrace=1",
            "PYTHONMALLOC": "malloc",
        },
        (
            *("tests/decode", "tests/read", "tests/shards", "tests/order", "tests/test_rng.py"),
            *("tests/ops/fused/test_fused_augment_native.py", "tests/ops/ada/test_ada_native.py"),
            "tests/loader/test_delivery.py",
            *("tests/loader/test_buffers.py", "tests/loader/test_pixels.py", "tests/loader/test_augment.py"),
        ),
    ),
    "thread": Kind(
        "thread",
        ("libtsan.so",),
        {"TSAN_OPTIONS": "halt_on_error=0:second_deadlock_stack=1:history_size=4:suppressions=known_races"},
        (
            *("tests/read", "tests/decode/test_images.py", "tests/decode/test_jpeg_damage.py"),
            *("tests/loader/test_delivery.py", "tests/loader/test_buffers.py"),
            *("tests/loader/test_pixels.py", "tests/loader/test_life.py"),
            # Under TSan forked children end with its own status, signals come late, scripts take long.
            *("-k", "not fork and not ctrl_c and not script and not dali"),
        ),
    ),
}
# The loader of libc frees the thread-local memory of a thread that has ended; what keeps it from doing so too
# early is not instrumented.
# DALI's threads hand over what they wrote by means that are not instrumented either.
KNOWN_RACES = "race:_dl_deallocate_tls\nrace:libdali\nrace:libnvimgcodec\n"
# DALI brings threads, forks and allocators of its own; nothing native of ours runs under it.
NOT_THESE = ("--ignore=tests/decode/dali", "-p", "no:cacheprovider")
REPORT = re.compile(r"(?:ERROR|WARNING): (?:Address|Thread)Sanitizer|runtime error:|SUMMARY: \w+Sanitizer")


def copied(folder: Path) -> Path:
    """The files of this checkout, tracked or new, without anything built."""
    listed = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def build(kind: Kind, folder: Path) -> float:
    """Seconds that the build took."""
    begun = time.perf_counter()
    environment = {**os.environ, "FASTLOAD_SANITIZE": kind.sanitizers}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=folder, env=environment, check=True)
    return time.perf_counter() - begun


def runtime(name: str) -> str:
    found = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def run_tests(kind: Kind, folder: Path, tests: tuple[str, ...]) -> dict:
    """Outcomes of the tests, and what the sanitizers said."""
    begun = time.perf_counter()
    environment = {
        **os.environ,
        **kind.options,
        "LD_PRELOAD": " ".join(runtime(name) for name in kind.runtimes),
        "PYTHONPATH": str(folder),
        "FASTLOAD_SANITIZE": kind.sanitizers,
    }
    (folder / "known_races").write_text(KNOWN_RACES)
    options = ["-q", "-s", "-rfE", "-n", "0", *NOT_THESE]
    command = [sys.executable, "-X", "faulthandler", "-m", "pytest", *options, *tests]
    # setarch: the runtimes of GCC 12 lose their shadow memory where addresses are spread over 32 bits.
    command = [*(["setarch", "-R"] if shutil.which("setarch") else []), *command]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace"
    )
    output = done.stdout + done.stderr
    (folder / "sanitizers.log").write_text(output)
    counts = {
        name: int(number) for number, name in re.findall(r"(\d+) (passed|failed|skipped|errors?)\b", output)
    }
    reports = [line for line in output.splitlines() if REPORT.search(line)]
    return {
        "exit_status": done.returncode,
        "seconds": round(time.perf_counter() - begun),
        "tests": counts,
        "failed": [
            without_paths(line) for line in output.splitlines() if line.startswith(("FAILED", "ERROR "))
        ],
        "reports": [without_paths(line) for line in reports],
    }


def page(name: str, result: dict) -> str:
    ran, checkout = result["run"], result["commit"]
    changes = " with changes" if checkout["dirty"] else ""
    counts = ", ".join(f"{number} {outcome}" for outcome, number in ran["tests"].items())
    lines = [
        f"The native tests with the extension under -fsanitize={result['sanitizers']}.",
        "",
        f"Commit {checkout['commit']}{changes}, {result['machine']['cpu']}, {result['compiler']}. Which "
        "tests, and with which options: benchmarks/sanitizers.py.",
        "",
        f"{counts} in {ran['seconds']} s; {len(ran['reports'])} lines of reports.",
        *(f"- {line}" for line in [*ran["failed"], *ran["reports"]]),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--out", type=Path, help="folder for the result; nothing is written without it")
    parser.add_argument("--folder", type=Path, help="where the copy is built, and stays")
    parser.add_argument("--tests", nargs="+", help="instead of this file's selection")
    given = parser.parse_args()
    kind = KINDS[given.kind]
    compiler = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout
    result = {
        "commit": commit(),
        "machine": machine(),
        "compiler": compiler.splitlines()[0],
        "sanitizers": kind.sanitizers,
        "chosen": list(given.tests or kind.tests),
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = copied(given.folder or Path(temporary))
        result["build_seconds"] = round(build(kind, folder))
        result["run"] = run_tests(kind, folder, tuple(given.tests or kind.tests))
    text = page(given.kind, result)
    print(text)
    if given.out is not None:
        keep(f"sanitizer-{given.kind}", result, text, given.out, checkout=result["commit"])
    sys.exit(1 if result["run"]["exit_status"] or result["run"]["reports"] else 0)


if __name__ == "__main__":
    main()
