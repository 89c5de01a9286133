"""Python programs in processes of their own, without the two seconds that each import of torch takes.

In: a program, its arguments and environment. Out: how it ended. A parent process has imported torch, fastload
and nothing else, and started no thread; for each program it forks a child, in which the program is __main__
and goes through Python's own end, as under `python -c`. Where a cold start matters (the order of imports, a
variable that a library reads when it is loaded), start a process of its own instead.
"""

import atexit
import functools
import json
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
import json, os, signal, sys, tempfile
import torch, numpy, PIL.Image, fastload, fastload.augment, fastload.loader.loader
fastload.Loader, fastload.Image, fastload.Mixture, fastload.DataLoader, fastload.Dataset

def asked_of_child():
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            return json.loads(line)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    os._exit(0)

def become(asked):
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    tempfile.tempdir = None  # or it stays the parent's
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores Ctrl-C
    sys.argv[:] = ["-c", *asked["arguments"]]
    for number, path in enumerate((os.devnull, asked["out"], asked["err"])):
        descriptor = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY)
        os.dup2(descriptor, number)
        os.close(descriptor)
    return compile(asked["program"], "<string>", "exec")

_program = become(asked_of_child())
del json, os, signal, sys, tempfile, torch, numpy, PIL, fastload, asked_of_child, become
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
    environment = dict(os.environ if environment is None else environment)
    parent = _parent(environment.get("LD_PRELOAD", ""))
    with tempfile.TemporaryDirectory() as folder:
        said = {name: os.path.join(folder, name) for name in ("out", "err")}
        for path in said.values():
            open(path, "w").close()
        asked = {
            "program": program,
            "arguments": arguments,
            "environment": environment,
            "folder": os.getcwd(),
        }
        begun = time.perf_counter()
        parent.stdin.write(json.dumps(asked | said | {"folder": os.getcwd()}).encode() + b"\n")
        child = int(parent.stdout.readline())
        in_time = bool(select.select([parent.stdout], [], [], limit_seconds)[0])
        if not in_time:
            os.kill(child, signal.SIGKILL)
        status, seconds = int(parent.stdout.readline()), time.perf_counter() - begun
        out, err = (Path(path).read_text() for path in said.values())
    if not in_time:
        raise subprocess.TimeoutExpired(program, limit_seconds, out, err)
    return Ended(status, out, err, seconds)


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
