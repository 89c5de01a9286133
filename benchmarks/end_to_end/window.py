"""One competitor in one process: warm up, time a window of batches, check the output; JSON to a file.

Started by the harness (`python -m benchmarks.end_to_end.window`), so that no competitor sees another's
threads, memory or caches. CPU seconds are those of the whole process tree, from /proc: worker processes
count. A window starts and ends with the arrival of a batch; it lasts `--measure` seconds, and longer (at
most 2.5 times) until MIN_BATCHES have come, because worker processes deliver in bursts.
"""

import argparse
import importlib
import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path

from benchmarks.end_to_end import corpora
from benchmarks.end_to_end.competitors import COMPETITORS
from benchmarks.end_to_end.peers import Decoded

MIN_BATCHES = 24
CHECKED_BATCHES = 2
CHECKED_DECODES = 16  # of a peer that only decodes: each batch brings one image
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def main() -> None:
    begun = time.perf_counter()
    parser = argparse.ArgumentParser(prog="benchmarks.end_to_end.window")
    parser.add_argument("--competitor", required=True, choices=[c.name for c in COMPETITORS])
    parser.add_argument("--corpus", required=True, type=Path, help="folder of the corpus")
    parser.add_argument("--out", required=True, type=Path, help="JSON file to write")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--warm", type=float, default=2.0, help="seconds")
    parser.add_argument("--measure", type=float, default=4.0, help="seconds")
    parser.add_argument("--step-ms", type=float, default=0.0, help="a training step that sleeps")
    parser.add_argument("--spinner", action="store_true", help="a Python thread spins beside the consumer")
    parser.add_argument("--check", action="store_true", help="compare the output with the reference")
    args = parser.parse_args()
    corpus = corpora.load(args.corpus)
    competitor = next(c for c in COMPETITORS if c.name == args.competitor)
    peer = importlib.import_module(f"benchmarks.end_to_end.peers.{competitor.peer}")
    stream = peer.make(corpus, args.batch_size, args.threads, args.seed, **competitor.options)
    window = measure(stream, args, begun)
    if args.check:
        from benchmarks.end_to_end.agreement import compare

        count = CHECKED_DECODES if competitor.role == "limit" else CHECKED_BATCHES
        kept = [_kept(next(stream)) for _ in range(count)]
        window["check"] = compare(kept, corpus, competitor.bound_on(corpus.name), args.batch_size)
    args.out.write_text(json.dumps(window))
    # No destructors: some peers wait seconds for their workers, and the harness ends the process group.
    os._exit(0)


def measure(stream, args: argparse.Namespace, begun: float) -> dict:
    """The figures of one window, as they go into the results."""
    next(stream)
    first = time.perf_counter() - begun
    spin = _start_spinner() if args.spinner else None
    _consume(stream, args.warm, 4, args.step_ms / 1000)
    cpu, machine, spun = tree_cpu_seconds(os.getpid()), machine_cpu_seconds(), _thread_cpu_seconds(spin)
    images, seconds = _consume(stream, args.measure, MIN_BATCHES, args.step_ms / 1000)
    spun = _thread_cpu_seconds(spin) - spun
    cpu, machine = tree_cpu_seconds(os.getpid()) - cpu, machine_cpu_seconds() - machine
    return {
        "images": images,
        "seconds": round(seconds, 4),
        "images_per_second": round(images / seconds, 2),
        "cpu_seconds": round(cpu - spun, 2),
        "cpu_seconds_per_1000": round((cpu - spun) / images * 1000, 3),
        "others_cpu_seconds": round(max(0.0, machine - cpu), 2),
        "first_batch_seconds": round(first, 2),
        "described": getattr(stream, "described", None),
    }


def _consume(stream, least_seconds: float, least_batches: int, step_seconds: float) -> tuple[int, float]:
    """Take batches until both are reached, or 2.5 times the seconds have passed; images and seconds."""
    images = batches = 0
    start = time.perf_counter()
    while True:
        if step_seconds:
            time.sleep(step_seconds)
        batch = next(stream)
        batches += 1
        images += batch.count if isinstance(batch, Decoded) else len(batch)
        seconds = time.perf_counter() - start
        if (seconds >= least_seconds and batches >= least_batches) or seconds >= 2.5 * least_seconds:
            return images, seconds


def _kept(batch):
    """A batch that survives the next: some peers rewrite theirs."""
    return batch if isinstance(batch, Decoded) else batch.clone()


def _start_spinner() -> threading.Thread:
    def spin():
        x = 0
        while True:
            x += 1

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    return thread


def _thread_cpu_seconds(thread: threading.Thread | None) -> float:
    if thread is None:
        return 0.0
    return _cpu_seconds_of_stat(f"/proc/self/task/{thread.native_id}/stat")


def tree_cpu_seconds(root: int) -> float:
    """CPU seconds used so far by process `root` and all living processes below it (Linux: reads /proc)."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := _stat_fields(f"/proc/{entry}/stat")):
            children.setdefault(int(stat[1]), []).append(int(entry))
    seconds, tree = 0.0, [root]
    while tree:
        process = tree.pop()
        seconds += _cpu_seconds_of_stat(f"/proc/{process}/stat")
        tree += children.get(process, [])
    return seconds


def machine_cpu_seconds() -> float:
    """CPU seconds used so far by everything on this machine, and taken from it by its host."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND


def _stat_fields(path: str) -> list[str]:
    """The fields after the command's name, which may hold blanks: state, parent, ...; none if it is gone."""
    try:
        with open(path) as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _cpu_seconds_of_stat(path: str) -> float:
    stat = _stat_fields(path)
    return (int(stat[11]) + int(stat[12])) / TICKS_PER_SECOND if stat else 0.0


if __name__ == "__main__":
    try:
        main()
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # threads of a broken peer must not keep its process alive
