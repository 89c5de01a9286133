"""A part of the benchmark is a list of cases: one after the other, each with a record of its own.

In: cases, a `Context`, a `Record`. Out: for every case what it found, or why there is nothing. Promised: the
record is on disk before and after each case, so that a killed run leaves what it had; a case that raises is
"failed" and the others go on; one that cannot run here is "skipped" with the reason; one whose turn came too
late is "late", which counts as a failure. After an error that a CUDA context does not survive the process
ends with RESTART, and the next one goes on with the next case.
"""

import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.end_to_end.machine import without_paths

PARTS = ("correctness", "kernels", "loader")
BAD = ("wrong", "failed", "late")  # states that make the run fail
RESTART = 75  # the exit code of a process whose CUDA context is lost


class Skipped(Exception):
    """Why a case cannot run here."""


@dataclass
class Outcome:
    """What a case found.

    table: rows, column -> cell. faults: sentences, empty where all is right. targets: key of targets.py ->
    what was measured. notes: sentences that a reader of the table needs. raw: figures that no table shows.
    """

    table: list[dict] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    targets: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    raw: dict = field(default_factory=dict)


@dataclass
class Context:
    """Where a part runs. scratch: a folder for corpora, which goes away after the run."""

    device: str  # "cuda" or "cpu"
    photos: Path
    scratch: Path
    seed: int = 0
    _kept: dict = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def of(self, on_gpu: Any, on_cpu: Any) -> Any:
        """The first on a GPU; the second, tiny, where only the code is tried."""
        return on_gpu if self.on_gpu else on_cpu

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """What several cases of a part use, made by the first that asks."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def synchronize(self) -> None:
        if self.on_gpu:
            import torch

            torch.cuda.synchronize()


@dataclass(frozen=True)
class Case:
    """One case. most_seconds: after which it counts as hanging."""

    name: str
    run: Callable[[Context], Outcome]
    most_seconds: float = 90.0


class Record:
    """One part's result as a JSON file, rewritten whole at every change."""

    def __init__(self, path: Path, head: dict | None = None):
        self.path = path
        if head is None:
            self.result = json.loads(path.read_text())
        else:
            self.result = head | {"cases": [], "running": None, "finished": False}

    @property
    def done(self) -> set[str]:
        return {case["name"] for case in self.result["cases"]}

    def begin(self, case: Case) -> None:
        limits = {"since": time.time(), "most_seconds": case.most_seconds}
        self.result["running"] = {"name": case.name, **limits}
        self.write()

    def end(self, name: str, state: str, seconds: float, **found: Any) -> None:
        """state: "right", "wrong", "failed", "skipped" or "late"."""
        one = {"name": name, "state": state, "seconds": round(seconds, 2)}
        self.result["cases"].append(one | asdict(Outcome()) | found)
        self.result["running"] = None
        self.write()

    def write(self) -> None:
        draft = self.path.with_suffix(".tmp")
        draft.write_text(json.dumps(_as_json(self.result), indent=1, allow_nan=False) + "\n")
        draft.replace(self.path)


def run_cases(cases: list[Case], context: Context, record: Record, deadline: float, say=print) -> bool:
    """Runs the cases that the record lacks. False: the process cannot go on, and another one has to.

    deadline: as time.time() has it; what has not begun by then is late.
    """
    for case in cases:
        if case.name in record.done:
            continue
        if time.time() > deadline:
            record.end(case.name, "late", 0.0, reason="the part's time was over before its turn")
            continue
        record.begin(case)
        begun = time.monotonic()
        state, found = _run(case, context)
        seconds = time.monotonic() - begun
        record.end(case.name, state, seconds, **found)
        say(f"{case.name}: {state}, {seconds:.1f} s{_why(found)}")
        if state == "failed" and not _lives(context):
            return False
    record.result["finished"] = True
    record.write()
    return True


def _as_json(value: Any) -> Any:
    """With numbers of NumPy as Python's, and words for infinity and what is no number, which JSON lacks."""
    if isinstance(value, dict):
        return {str(name): _as_json(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(one) for one in value]
    value = value.item() if hasattr(value, "item") else value
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _run(case: Case, context: Context) -> tuple[str, dict]:
    try:
        outcome = case.run(context)
        context.synchronize()  # an error of a kernel belongs to the case that launched it
        return "wrong" if outcome.faults else "right", asdict(outcome)
    except Skipped as why:
        return "skipped", {"reason": without_paths(str(why))}
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return "failed", {"reason": without_paths(f"{type(error).__name__}: {error}")[:2000]}


def _why(found: dict) -> str:
    reasons = [found["reason"]] if "reason" in found else found["faults"]
    return "".join(f"\n    {reason}" for reason in reasons)


def _lives(context: Context) -> bool:
    """Whether the device still works: an illegal access leaves every later call with its error."""
    try:
        context.synchronize()
    except RuntimeError:
        return False
    return True


def cpus() -> int:
    return len(os.sched_getaffinity(0))
