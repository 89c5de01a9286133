"""Starts the processes of a training, as users do, and ends them whatever happens.

In: a module with a command line, and how many ranks. Out: processes that run, and what they said. Promised:
when the block of `Ranks` ends, none of them is left; a rank that fails or hangs is an AssertionError that
holds the last lines of every rank.

"own": one process for each rank, which is told --rank, --world-size and --meet (a file:// address). They are
forked from one that has torch imported.
"torchrun": `python -m torch.distributed.run`, which tells its workers through the environment.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests import preloaded

ROOT = Path(__file__).resolve().parents[2]
TAIL_CHARACTERS = 4000
POLL_SECONDS = 0.02
# One thread each: the ranks share the cores. Nothing here needs the network.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


class Ranks:
    """The processes of one launch; `folder` gets what they print.

    processes: one for each rank, in order; with torchrun its own process alone.
    """

    def __init__(
        self, module: str, world_size: int, folder: Path, arguments: list[str], launcher: str = "own"
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self._said: list[Path] = []
        self.processes: list[subprocess.Popen | preloaded.Running] = []
        self._torchrun = launcher == "torchrun"
        try:
            if self._torchrun:
                run = ["torch.distributed.run", "--standalone", f"--nproc-per-node={world_size}"]
                command = [sys.executable, "-m", *run, "-m", module, *arguments]
                with open(self._said_by(0, folder), "w") as out:
                    self.processes.append(
                        subprocess.Popen(command, cwd=ROOT, env=_environment(), stdout=out, stderr=out)
                    )
            else:
                meet = ["--world-size", str(world_size), "--meet", f"file://{folder}/meet"]
                for rank in range(world_size):
                    given, said = [*arguments, *meet, "--rank", str(rank)], self._said_by(rank, folder)
                    program, places = preloaded.module(module), {"out": said, "err": said}
                    self.processes.append(
                        preloaded.start(program, *given, **places, environment=_environment())
                    )
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def finish(self, seconds: float) -> None:
        """Waits until all have ended well. Raises AssertionError where one did not, or not in time."""
        stop = time.monotonic() + seconds
        while self.alive():
            # The others would wait for it until their own limit.
            assert not self._failed(), self.story("a rank failed")
            assert time.monotonic() < stop, self.story(f"still running after {seconds} s")
            time.sleep(POLL_SECONDS)
        assert not self._failed(), self.story("a rank failed")

    def alive(self) -> bool:
        return any(process.poll() is None for process in self.processes)

    def check_all_alive(self) -> None:
        """Raises AssertionError where one has ended."""
        ended = [rank for rank, process in enumerate(self.processes) if process.poll() is not None]
        assert not ended, self.story(f"ranks {ended} ended by themselves")

    def story(self, what: str) -> str:
        """`what`, and the last lines of every rank."""
        parts = [
            f"--- process {number}, exit status {process.poll()}:\n{said.read_text()[-TAIL_CHARACTERS:]}"
            for number, (process, said) in enumerate(zip(self.processes, self._said, strict=True))
        ]
        return "\n".join([what, *parts])

    def kill(self, rank: int) -> None:
        """SIGKILL: nothing in the process runs any more."""
        self.processes[rank].kill()

    def close(self) -> None:
        """Ends all that are left and waits for them."""
        if self._torchrun:
            # Its workers are in sessions of their own: it ends them itself, where it may.
            for process in self.processes:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    # Else they end at their own limit of time.
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(10)
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()

    def _said_by(self, number: int, folder: Path) -> Path:
        self._said.append(folder / f"said-{number}.txt")
        return self._said[-1]

    def _failed(self) -> bool:
        return any(process.poll() not in (None, 0) for process in self.processes)


def _environment() -> dict[str, str]:
    return {**os.environ, **ENVIRONMENT}
