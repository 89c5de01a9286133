"""Every competitor on every corpus, interleaved over rounds, each window in a process of its own.

In: settings. Out: one dictionary, the result as it is kept in benchmarks/results: where it was measured,
every window raw, what failed or is not installed and why, and the summary that the tables show. Promised:
the competitors of a corpus take turns (A B C ... A B C ...), so that a slow minute of the machine hits all
of them; a window that fails or hangs is in the result with its reason, and its competitor sits out the
later rounds of that corpus and mode.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.end_to_end import corpora, machine
from benchmarks.end_to_end.competitors import COMPETITORS, Competitor
from benchmarks.end_to_end.targets import verdicts


@dataclass(frozen=True)
class Settings:
    """`only` are beginnings of names, none for all; `step_ms=None`: no such mode; `count` is a corpus's."""

    photos: Path
    cache: Path
    corpora: tuple[str, ...] = tuple(corpora.KINDS)
    rounds: int = 3
    only: tuple[str, ...] = ()
    batch_size: int = 64
    threads: int = 2
    warm_seconds: float = 2.0
    measure_seconds: float = 4.0
    spinner: bool = False
    step_ms: float | None = None
    seed: int = 0
    count: int = 512
    timeout_seconds: float = 120.0


@dataclass(frozen=True)
class Turn:
    """One window to run. `mode` is "quiet", "spinner" or "step"."""

    corpus: corpora.Corpus
    competitor: Competitor
    mode: str
    round: int


def run(settings: Settings, report: Callable[[str], None] = lambda line: None) -> dict:
    """Measure, and tell `report` of each window; an interrupt ends early and keeps what there is."""
    chosen = [c for c in COMPETITORS if not settings.only or c.name.startswith(settings.only)]
    absent = {c.name: reason for c in chosen if (reason := c.missing())}
    for name, reason in absent.items():
        report(f"{name}: {reason}")
    made = [_corpus(name, settings, report) for name in settings.corpora]
    result = {
        "what": "JPEG shards to float32 batches of 256x256, end to end",
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **machine.commit(),
        "machine": machine.machine(),
        "settings": {k: v for k, v in asdict(settings).items() if k not in ("photos", "cache")},
        "corpora": [{k: v for k, v in asdict(corpus).items() if k != "folder"} for corpus in made],
        "competitors": [asdict(c) for c in chosen],
        "absent": absent,
        "windows": [],
        "failures": [],
        "interrupted": False,
    }
    present = [c for c in chosen if c.name not in absent]
    try:
        for turn in turns(made, present, settings):
            _take(turn, settings, result, report)
    except KeyboardInterrupt:
        result["interrupted"] = True
    result["summary"] = summarise(result["windows"])
    result["verdicts"] = verdicts(result)
    return result


def turns(made: list[corpora.Corpus], present: list[Competitor], settings: Settings) -> Iterator[Turn]:
    """The windows in their order: corpus by corpus, round by round, the modes and competitors in turn."""
    modes = ["quiet"] + ["spinner"] * settings.spinner + ["step"] * (settings.step_ms is not None)
    for corpus in made:
        for number in range(settings.rounds):
            for competitor in present:
                for mode in modes:
                    if competitor.runs_on(corpus.name) and (mode == "quiet" or competitor.beside):
                        yield Turn(corpus, competitor, mode, number)


def summarise(windows: list[dict]) -> list[dict]:
    """Median, least and greatest rate of each competitor on each corpus in each mode, and CPU seconds."""
    groups: dict[tuple, list[dict]] = {}
    for window in windows:
        groups.setdefault((window["corpus"], window["competitor"], window["mode"]), []).append(window)
    rows = []
    for (corpus, competitor, mode), group in groups.items():
        rates = [window["images_per_second"] for window in group]
        row = {"corpus": corpus, "competitor": competitor, "mode": mode, "windows": len(group)}
        row |= {"median": round(statistics.median(rates), 1), "min": min(rates), "max": max(rates)}
        for key in ("cpu_seconds_per_1000", "first_batch_seconds"):
            row[key] = round(statistics.median(window[key] for window in group), 3)
        row["check"] = next((window["check"] for window in group if "check" in window), None)
        row["described"] = group[0]["described"]
        rows.append(row)
    return rows


def _corpus(name: str, settings: Settings, report: Callable[[str], None]) -> corpora.Corpus:
    kind = corpora.KINDS[name]
    kind = corpora.Kind(kind.name, kind.width, kind.height, settings.count)
    corpus = corpora.make(kind, settings.photos, settings.cache, settings.seed)
    corpus.warm()
    report(
        f"{name}: {corpus.count} images of {corpus.width}x{corpus.height} from {corpus.photos} photos, "
        f"{corpus.jpeg_bytes / corpus.count / 1e3:.1f} kB each, {corpus.enlarged} of them enlarged"
    )
    return corpus


def _take(turn: Turn, settings: Settings, result: dict, report: Callable[[str], None]) -> None:
    """Run one window and put it into `result`: under "windows", or under "failures" with its reason."""
    label = {"corpus": turn.corpus.name, "competitor": turn.competitor.name, "mode": turn.mode}
    place = f"{turn.corpus.name} {turn.mode} round {turn.round + 1}/{settings.rounds} {turn.competitor.name}"
    if any(label.items() <= failed.items() for failed in result["failures"]):
        return
    label["round"] = turn.round
    window = _in_own_process(turn, settings)
    if "failure" in window:
        result["failures"].append(label | {"reason": machine.without_paths(window["failure"])})
        report(f"{place}: FAILED: {window['failure']}")
        return
    result["windows"].append(label | window)
    faults = window.get("check", {}).get("faults", [])
    result["failures"] += [label | {"reason": f"wrong output: {fault}"} for fault in faults]
    line = f"{place}: {window['images_per_second']:.0f} images/s"
    line += f", CPU {window['cpu_seconds_per_1000']:.2f} s/1000"
    if "mean_difference_levels" in window.get("check", {}):
        check = window["check"]
        line += f", {check['mean_difference_levels']} levels off (bound {check['bound_levels']})"
    report(line + "".join(f"; WRONG OUTPUT: {fault}" for fault in faults))


def _in_own_process(turn: Turn, settings: Settings) -> dict:
    """The window's figures, or {"failure": reason}; nothing that it started is left running."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "window.json"
        command = [sys.executable, "-m", "benchmarks.end_to_end.window", "--competitor", turn.competitor.name]
        command += ["--corpus", str(turn.corpus.folder), "--out", str(out)]
        command += ["--batch-size", str(settings.batch_size), "--threads", str(settings.threads)]
        command += ["--seed", str(settings.seed + turn.round)]
        command += ["--warm", str(settings.warm_seconds), "--measure", str(settings.measure_seconds)]
        command += ["--spinner"] * (turn.mode == "spinner")
        command += ["--step-ms", str(settings.step_ms)] if turn.mode == "step" else []
        command += ["--check"] * (turn.mode == "quiet" and turn.round == 0)
        with open(Path(folder) / "messages", "w+") as messages:
            child = subprocess.Popen(
                command, cwd=machine.ROOT, stdout=messages, stderr=messages, start_new_session=True
            )
            try:
                code = child.wait(timeout=settings.timeout_seconds)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _end_group(child)
            messages.seek(0)
            last = ([line.strip() for line in messages if line.strip()] or ["no message"])[-1]
        if code == 0 and out.exists():
            return json.loads(out.read_text())
        if code is None:
            return {"failure": f"no result after {settings.timeout_seconds:.0f} s; last message: {last}"}
        return {"failure": f"exit code {code}: {last}"}


def _end_group(child: subprocess.Popen) -> None:
    """End the child and its workers: a DataLoader's outlive it by seconds, and would slow the next window."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    child.wait()
