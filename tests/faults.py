"""Faults on demand, and what a process leaves behind.

`run` starts a Python program in a process whose calls of the C library can be made to fail: by the rules that
it is given, or by `set_rules` within it. A rule holds for the files whose path ends in a text.

    with rules(Rule("read", "001.tar", errno.EIO, times=2)) as hits: ...

`Belongings` is what a process has: its threads, open files, children, shared memory, temporary files and
what lies in the cache of indexes. `left_behind` is what it has more than before, by name; empty is good. The
reader and decoder threads of fastload are the process's: they are shared by all loaders that ask for the
same number, stay as long as the process does, and are known by their names.

Needs Linux and a C compiler (`needs_faults` skips a test without them). The calls are those of faults.c.
"""

import atexit
import contextlib
import ctypes
import functools
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import preloaded

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path(__file__).with_suffix(".c")
VARIABLE = "FASTLOAD_TEST_FAULTS"
POOL_THREADS = ("fastload-read", "fastload-decode", "fastload-ops", "fastload-close")
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Rule:
    """What happens to calls of one kind.

    call: "open", "read", "write", "rename", "pthread_create" (`path` is "*"), or "malloc" (on other threads
    than the first; `path` is then the fewest bytes that are refused, as text). path: how the file's path
    ends, or "*". errno: what the call fails with; 0: it does not. With ENOSPC, most_bytes is how much may be
    written in all; with EAGAIN, how many threads that began since may be there at once. after: calls that
    pass before it. times: calls that it hits; -1: all.
    """

    call: str
    path: str
    errno: int = 0
    delay_seconds: float = 0.0
    most_bytes: int = 0
    after: int = 0
    times: int = -1

    def __str__(self) -> str:
        delay_ms = round(self.delay_seconds * 1000)
        words = (self.call, self.path, int(self.errno), delay_ms, self.most_bytes, self.after, self.times)
        return " ".join(str(word) for word in words)


@functools.cache
def library() -> Path | None:
    """faults.c as a shared library, compiled once a process; None where that cannot be."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    compiler = shutil.which(compiler) or shutil.which("cc")
    if not sys.platform.startswith("linux") or compiler is None:
        return None
    folder = tempfile.mkdtemp(prefix="fastload-faults-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "faults.so"
    command = [compiler, "-O1", "-shared", "-fPIC", str(SOURCE), "-o", str(path), "-ldl", "-lpthread"]
    return path if subprocess.run(command, capture_output=True).returncode == 0 else None


def needs_faults() -> None:
    """Skips a test where faults cannot be made."""
    if library() is None:
        pytest.skip("faults need Linux and a C compiler")


def environment(folder: Path, *given: Rule) -> dict[str, str]:
    """For a process with these faults: temporary files and indexes go below `folder`, math has one thread."""
    for name in ("tmp", "cache"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    places = {"TMPDIR": str(folder / "tmp"), "FASTLOAD_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    faults = {"LD_PRELOAD": str(library()), VARIABLE: _text(given)}
    return {**os.environ, **threads, **places, **faults}


def start(program: str, folder: Path, *arguments: str, given: tuple[Rule, ...] = ()) -> subprocess.Popen:
    """A Python program under way, with these faults."""
    command = [sys.executable, "-c", program, *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=environment(folder, *given), cwd=ROOT, stdout=pipe, stderr=pipe, text=True
    )


def run(
    program: str, folder: Path, *arguments: str, given: tuple[Rule, ...] = (), limit_seconds: float = 60
) -> preloaded.Ended:
    """Runs a Python program with these faults to its end; torch and fastload are imported already."""
    return preloaded.run(
        with_rules(program, *given),
        *arguments,
        environment=environment(folder, *given),
        limit_seconds=limit_seconds,
    )


def with_rules(program: str, *given: Rule) -> str:
    """The program for a process that is forked with faults.c under it; one that is started has the rules."""
    head = f"import ctypes; ctypes.CDLL(None).faults_set({_text(given).encode()!r})\n" if given else ""
    return head + program


def set_rules(*given: Rule) -> None:
    """Makes these the faults of this process, which `run` or `start` began."""
    text = _text(given)
    assert ctypes.CDLL(None).faults_set(text.encode()) == len(given), f"not understood: {text}"


def _text(given: tuple[Rule, ...]) -> str:
    return "\n".join(map(str, given))


@contextlib.contextmanager
def rules(*given: Rule) -> Iterator["Hits"]:
    """Within it this process has these faults."""
    set_rules(*given)
    hits = Hits(len(given))
    try:
        yield hits
    finally:
        hits.keep()
        set_rules()


class Hits:
    """How often each rule was asked (`calls`) and came true (`hits`); stays after the rules are gone."""

    def __init__(self, number: int):
        self._number = number
        self._kept: tuple[list[int], list[int]] | None = None

    def keep(self) -> None:
        self._kept = self._now()

    @property
    def hits(self) -> list[int]:
        return (self._kept or self._now())[0]

    @property
    def calls(self) -> list[int]:
        return (self._kept or self._now())[1]

    def _now(self) -> tuple[list[int], list[int]]:
        loaded = ctypes.CDLL(None)
        numbers = range(self._number)
        return [loaded.faults_hits(i) for i in numbers], [loaded.faults_calls(i) for i in numbers]


@dataclass
class Belongings:
    """What a process has at a moment: kind -> names, counted."""

    of_kind: dict[str, Counter] = field(default_factory=dict)

    @classmethod
    def now(cls) -> "Belongings":
        kinds = {
            "threads": [f"{one.name} (Python's)" for one in threading.enumerate()] + _native_threads(),
            "files": _open_files(),
            "processes": _children(),
            "shared memory": os.listdir(SHARED_MEMORY) if SHARED_MEMORY.exists() else [],
            "temporary files": files_below(Path(tempfile.gettempdir())) if "TMPDIR" in os.environ else [],
            "unfinished indexes": unfinished(Path(os.environ["FASTLOAD_CACHE"])),
        }
        return cls({kind: Counter(names) for kind, names in kinds.items()})

    def more_than(self, before: "Belongings") -> dict[str, list[str]]:
        """kind -> what is here and was not there."""
        more = {kind: names - before.of_kind[kind] for kind, names in self.of_kind.items()}
        return {kind: sorted(names.elements()) for kind, names in more.items() if names}


def left_behind(before: Belongings, limit_seconds: float = 2.0) -> dict[str, list[str]]:
    """What this process has more than before, once what is about to go has gone."""
    stop = time.monotonic() + limit_seconds
    while True:
        left = Belongings.now().more_than(before)
        if not left or time.monotonic() > stop:
            return left
        time.sleep(0.01)


def unfinished(cache: Path) -> list[str]:
    """What lies in a cache and is no finished index: locks, and files that are being written."""
    return [name for name in files_below(cache) if not name.endswith(".flidx")]


def _native_threads() -> list[str]:
    """Names of the system's threads, but for those of the process: the first, Python's (told by Python) and
    the pools."""
    names, pythons = [], {one.native_id for one in threading.enumerate()}
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            name = Path(f"/proc/self/task/{task}/comm").read_text().strip()
            if int(task) not in pythons and name not in POOL_THREADS:
                names.append(name)
    return names


def _open_files() -> list[str]:
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one of listdir itself
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [path for path in found if not path.startswith("/proc/")]


def _children() -> list[str]:
    found = []
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += Path(f"/proc/self/task/{task}/children").read_text().split()
    return found


def files_below(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
