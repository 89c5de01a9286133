"""What the scripts beside this file share: steps, each a command with its outcome and time, kept as a result.

In: a name, a description and the arguments of the command line. Out: the output of each step in
build/ci/NAME/, a table on the terminal and, with --out DIR, DIR/NAME-DATE-COMMIT.json and .md. The exit
status is 1 if a step failed. Promised: a skipped step is reported loudly, and is part of the result.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.end_to_end import machine  # noqa: E402, as the checkout needs not be installed

SHOWN_LINES = 40  # of the output of a step that failed


@dataclass(frozen=True)
class Step:
    name: str
    outcome: str  # passed, failed or skipped
    seconds: float
    detail: str  # the last line of the output, or why it was skipped


class Steps:
    def __init__(self, name: str, description: str, *more: str):
        """more: names of further options, each with a value, which are then attributes of `arguments`."""
        parser = argparse.ArgumentParser(
            description=description, formatter_class=argparse.RawTextHelpFormatter
        )
        parser.add_argument("--out", type=Path, help="folder for the result, e.g. benchmarks/results")
        for option in more:
            parser.add_argument(option)
        self.name, self.arguments = name, parser.parse_args()
        self.folder = ROOT / "build" / "ci" / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.done: list[Step] = []
        self._checkout = machine.commit()
        # A shell's background job ignores Ctrl-C, and so would the tests that it is for.
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def run(self, name: str, command: list, folder: Path = ROOT, **environment: str) -> bool:
        """Whether the command succeeded."""
        print(f"+ {name}", flush=True)
        log, begun = self.folder / f"{re.sub(r'[^A-Za-z0-9.]+', '-', name)}.log", time.monotonic()
        settings = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"} | environment
        with log.open("w") as out:
            done = subprocess.run(
                [str(part) for part in command],
                cwd=folder,
                env=settings,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        lines = log.read_text(errors="replace").split("\n")
        outcome = "failed" if done.returncode else "passed"
        if done.returncode:
            print("\n".join(lines[-SHOWN_LINES:]))
        detail = next((line.strip("= ") for line in reversed(lines) if line.strip("= ")), "")
        seconds = round(time.monotonic() - begun, 1)
        self.done.append(Step(name, outcome, seconds, machine.without_paths(detail)[:200]))
        return not done.returncode

    def check(self, name: str, problems: list[str], detail: str) -> None:
        """A step that is no command: it passes where there are no problems."""
        print(f"+ {name}", *problems, sep="\n", flush=True)
        outcome = "failed" if problems else "passed"
        self.done.append(Step(name, outcome, 0.0, ", ".join(problems)[:200] or detail))

    def skip(self, name: str, why: str) -> None:
        print(f"!!! {name} SKIPPED: {why}", flush=True)
        self.done.append(Step(name, "skipped", 0.0, why))

    def venv(self, name: str, python: str = sys.executable) -> Path | None:
        """The interpreter of a new virtual environment with a pip that knows dependency groups."""
        folder = self.folder / f"venv-{name}"
        made = folder / "bin" / "python"
        if not self.run(f"{name}: venv", [python, "-m", "venv", folder]):
            return None
        upgrade = [made, "-m", "pip", "install", "-qq", "--upgrade", "pip>=25.1"]
        return made if self.run(f"{name}: pip", upgrade) else None

    def finish(self) -> int:
        """Prints and keeps the result; returns the exit status."""
        page = self._page()
        print(page)
        if self.arguments.out:
            result = {
                "commit": self._checkout,
                "machine": {
                    key: machine.machine()[key] for key in ("cpu", "usable_cpus", "system", "python")
                },
                "steps": [asdict(step) for step in self.done],
            }
            paths = machine.keep(self.name, result, page, self.arguments.out, checkout=self._checkout)
            print("kept:", *(path.name for path in paths))
        return int(any(step.outcome == "failed" for step in self.done))

    def _page(self) -> str:
        rows = [
            f"| {step.name} | {step.outcome} | {step.seconds:.0f} | {step.detail.replace('|', '/')} |"
            for step in self.done
        ]
        outcomes = [step.outcome for step in self.done]
        counts = ", ".join(f"{outcomes.count(kind)} {kind}" for kind in ("passed", "failed", "skipped"))
        commit = self._checkout["commit"] + (" with changes" if self._checkout["dirty"] else "")
        head = [
            f"`.ci/{self.name}`, commit {commit}: {counts}.",
            "",
            "| step | outcome | s | |",
            "|---|---|---|---|",
        ]
        return "\n".join([*head, *rows, ""])
