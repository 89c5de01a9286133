"""Python programs in processes of their own, without the two seconds that each import of torch takes.

In: a program, its arguments and environment. Out: how it ended (`run`), or the program under way (`start`).
A parent process has imported torch, fastload and nothing else, and started no thread; for each program it
forks a child, in which the program is __main__ and goes through Python's own end, as under `python -c`. Where
a cold start matters (the order of imports, a variable that a library reads when it is loaded), start a
process of its own instead.
"""

import atexit
import contextlib
import functools
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
# As -W has it: programs fork beside threads to see that it works, and Python 3.12 warns them of it.
FORK_MAY_HANG = "ignore:This process:DeprecationWarning"
# The program runs at the parent's top level, so that what it keeps is kept by __main__ when Python ends.
PARENT = """
import contextlib, gc, json, os, signal, sys, tempfile
import torch, numpy, PIL.Image, fastload, fastload.augment, fastload.loader.loader
fastload.Loader, fastload.Image, fastload.Mixture, fastload.DataLoader, fastload.Dataset

def asked_of_child():
    for line in sys.stdin:
        asked = json.loads(line)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # those that have waited for a program
                pass
        waits = asked["status"] is None or os.fork() == 0
        if not waits:
            continue
        child = os.fork()
        if child == 0:
            return asked
        print(child, flush=True)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if asked["status"] is None:
            print(status, flush=True)
            continue
        with open(asked["status"] + ".new", "w") as file:
            file.write(str(status))
        os.rename(asked["status"] + ".new", asked["status"])
        os._exit(0)
    os._exit(0)

def become(asked):
    if asked["status"] is not None:
        os.setsid()
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    tempfile.tempdir = None  # or it stays the parent's
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores Ctrl-C
    sys.argv[:] = ["-c", *asked["arguments"]]
    for number, path in enumerate((os.devnull, asked["out"], asked["err"])):
        descriptor = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    return compile(asked["program"], "<string>", "exec")

gc.freeze()  # or each end would walk through all of torch, and copy its pages
_program = become(asked_of_child())
del contextlib, gc, json, os, signal, sys, tempfile, torch, numpy, PIL, fastload, asked_of_child, become
exec(_program)
"""


class Ended(NamedTuple):
    """How a program ended: its exit status (minus the signal that ended it), and what it said."""

    status: int
    out: str
    err: str
    seconds: float


def run(
    program: str, *arguments: str, environment: dict[str, str] | None = None, limit_seconds: float = 30
) -> Ended:
    """Runs the program to its end. Raises subprocess.TimeoutExpired where it takes longer."""
    with tempfile.TemporaryDirectory() as folder:
        said = {name: os.path.join(folder, name) for name in ("out", "err")}
        for path in said.values():
            open(path, "w").close()
        begun = time.perf_counter()
        parent, child = _ask(program, arguments, environment, **said, status=None)
        in_time = bool(select.select([parent.stdout], [], [], limit_seconds)[0])
        if not in_time:
            os.kill(child, signal.SIGKILL)
        status, seconds = int(parent.stdout.readline()), time.perf_counter() - begun
        out, err = (Path(path).read_text() for path in said.values())
    if not in_time:
        raise subprocess.TimeoutExpired(program, limit_seconds, out, err)
    return Ended(status, out, err, seconds)


class Running:
    """A program under way, in a session of its own; much like a subprocess.Popen."""

    def __init__(self, pid: int, status: Path):
        self.pid, self._status = pid, status
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and self._status.exists():
            self.returncode = int(self._status.read_text())
        return self.returncode

    def wait(self, limit_seconds: float | None = None) -> int:
        """How it ended. Raises subprocess.TimeoutExpired where it goes on longer."""
        stop = time.monotonic() + (math.inf if limit_seconds is None else limit_seconds)
        while self.poll() is None:
            if time.monotonic() > stop:
                raise subprocess.TimeoutExpired(f"process {self.pid}", limit_seconds)
            time.sleep(0.005)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(
    program: str, *arguments: str, out: Path, err: Path, environment: dict[str, str] | None = None
) -> Running:
    """Starts a program; what it says goes to the end of these files, which may be the same."""
    for path in (out, err):
        path.touch()
    status = out.with_name(f"{out.name}.status")
    status.unlink(missing_ok=True)
    said = {"out": str(out), "err": str(err), "status": str(status)}
    return Running(_ask(program, arguments, environment, **said)[1], status)


def module(name: str) -> str:
    """The program that `python -m name` runs."""
    return f"import runpy; runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"


def _ask(program: str, arguments, environment, **places) -> tuple[subprocess.Popen, int]:
    """(the process that forks, the id of its child): the program is under way."""
    environment = dict(os.environ if environment is None else environment)
    parent = _parent(environment.get("LD_PRELOAD", ""))
    asked = {"program": program, "arguments": arguments, "environment": environment, "folder": os.getcwd()}
    parent.stdin.write(json.dumps(asked | places).encode() + b"\n")
    return parent, int(parent.stdout.readline())


@functools.cache
def _parent(preloaded_library: str) -> subprocess.Popen:
    """The process that forks; one for each library that is put under its calls."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    own = {"PYTHONPATH": str(ROOT), "LD_PRELOAD": preloaded_library, "PYTHONWARNINGS": FORK_MAY_HANG}
    command = [sys.executable, "-c", PARENT]
    pipe = subprocess.PIPE
    # Without buffers, so that `select` sees all that is there.
    parent = subprocess.Popen(
        command, env={**os.environ, **threads, **own}, cwd=ROOT, stdin=pipe, stdout=pipe, bufsize=0
    )
    atexit.register(parent.kill)
    return parent
