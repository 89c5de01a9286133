"""`python -m benchmarks.gpu --out DIR`: run the parts, show progress on stderr, print one page of tables.

Each part runs in a process of its own, which this one watches: where it dies, hangs or loses the GPU, the
case that it was at is recorded as failed, and a new process goes on with the next one. Nothing heavy is
imported here.
"""

import argparse
import contextlib
import faulthandler
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.end_to_end import machine
from benchmarks.gpu import report
from benchmarks.gpu.cases import PARTS, RESTART, Context, Record, run_cases

PHOTOS = machine.ROOT / "tests" / "data" / "photos"
START_SECONDS = 120  # of a process, until it begins its first case: imports, a driver that wakes up
POLL_SECONDS = 0.2
MAX_STARTS = 8


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.split("\n")[0])
    made.add_argument("--out", required=True, type=Path, help="folder of the results")
    made.add_argument("--only", choices=PARTS, help="one part; the page shows all whose results are in DIR")
    made.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: tries the code, tiny")
    made.add_argument("--photos", type=Path, default=PHOTOS, help="folder of real photos")
    made.add_argument("--minutes", type=float, default=4.7, help="of a part; later cases are not begun")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--commit", help="what is measured, where the checkout has no .git")
    for internal in ("--part", "--scratch", "--deadline"):
        made.add_argument(internal, help=argparse.SUPPRESS)
    return made


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    if args.part:
        return _run_part(args)
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fastload-gpu-") as scratch:
        for part in [args.only] if args.only else PARTS:
            _watch(part, args, scratch)
    print(report.write(args.out))
    results = report.read(args.out)
    found = report.failures({args.only: results[args.only]} if args.only else results)
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


def _watch(part: str, args: argparse.Namespace, scratch: str) -> None:
    """Runs a part to its end, in as many processes as it takes."""
    path = report.path_of(args.out, part)
    head = {"what": "fastload on a GPU", "part": part, "device": args.device, "minutes": args.minutes}
    head |= {"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **machine.commit()}
    if args.commit:
        head["commit"] = args.commit
    head |= {"machine": machine.machine(), "gpu": {"name": None, "packages": {}}}
    Record(path, head).write()
    deadline = time.time() + 60 * args.minutes
    command = [sys.executable, "-m", "benchmarks.gpu", *_repeated(args), "--part", part]
    command += ["--scratch", scratch, "--deadline", str(deadline)]
    # Triton reads it when it is imported; without it kernels do not run on a CPU.
    supervise(command, path, {"TRITON_INTERPRET": "1"} if args.device == "cpu" else {})
    report.write(args.out)


def supervise(command: list[str], path: Path, environment: dict[str, str]) -> None:
    """Starts the command until the record in `path` is finished; where a process ends early, the case that it
    was at has failed."""
    for _ in range(MAX_STARTS):
        process = subprocess.Popen(command, env=os.environ | environment, start_new_session=True)
        code, why = _wait(process, path)
        record = Record(path)
        if record.result["finished"]:
            return
        running = record.result["running"]
        if running is not None:
            record.end(running["name"], "failed", time.time() - running["since"], reason=why)
            print(f"{running['name']}: failed: {why}", file=sys.stderr)
        elif code != RESTART:
            record.end("start of the process", "failed", 0.0, reason=why)
            return


def _repeated(args: argparse.Namespace) -> list[str]:
    kept = ("out", "device", "photos", "minutes", "seed")
    return [text for name in kept for text in (f"--{name}", str(getattr(args, name)))]


def _wait(process: subprocess.Popen, path: Path) -> tuple[int | None, str]:
    """The exit code, and what it means; a process that hangs in a case, or before the first, is killed."""
    begun, moved = time.time(), path.stat().st_mtime_ns
    try:
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            running = Record(path).result["running"]
            if path.stat().st_mtime_ns != moved:
                begun, moved = time.time(), path.stat().st_mtime_ns
            limit = running["most_seconds"] if running else START_SECONDS
            if time.time() - begun > limit:
                return None, f"no end after {limit:.0f} s: killed"
    finally:
        _kill_group(process)
    code = process.returncode
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return code, f"the process ended with {name}"


def _kill_group(process: subprocess.Popen) -> None:
    """The process and its workers, which are in a session of their own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _run_part(args: argparse.Namespace) -> int:
    """In the process of a part."""
    faulthandler.enable()
    record = Record(report.path_of(args.out, args.part))
    context = Context(args.device, args.photos, Path(args.scratch), args.seed)
    os.environ["FASTLOAD_CACHE"] = str(context.scratch / "cache")  # no index of an earlier run
    record.result["gpu"] = gpu(args.device)
    if args.device == "cuda" and record.result["gpu"]["name"] is None:
        record.end(
            "start", "failed", 0.0, reason="torch sees no CUDA device; --device cpu only tries the code"
        )
        record.result["finished"] = True
        record.write()
        return 0
    cases = importlib.import_module(f"benchmarks.gpu.{args.part}").cases(context)
    begun = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - begun:5.0f} s] {line}", file=sys.stderr, flush=True)

    lives = run_cases(cases, context, record, float(args.deadline), say)
    sys.stderr.flush()
    os._exit(0 if lives else RESTART)  # no destructors: the driver may not answer any more, workers linger


def gpu(device: str) -> dict:
    """The GPU that torch sees, and versions that no package metadata tells."""
    import torch

    packages = {"torch": torch.__version__}
    for name, module in (("triton", "triton"), ("DALI", "nvidia.dali"), ("torchvision", "torchvision")):
        try:
            packages[name] = importlib.import_module(module).__version__
        except Exception as error:  # whatever keeps it from loading; its cases say so in full
            packages[name] = f"not there ({type(error).__name__})"
    if device == "cpu" or not torch.cuda.is_available():
        return {"name": None, "packages": packages}
    found = torch.cuda.get_device_properties(0)
    return {
        "name": found.name,
        "memory_gib": round(found.total_memory / 2**30, 1),
        "multiprocessors": found.multi_processor_count,
        "capability": f"{found.major}.{found.minor}",
        "l2_bytes": getattr(found, "L2_cache_size", None),
        "cuda": torch.version.cuda,
        "packages": packages,
    }


if __name__ == "__main__":
    sys.exit(main())
