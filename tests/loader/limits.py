"""What becomes of programs that the system gives no more memory or threads at some moment.

`sweep` forks one child for each limit. The child sets the limit at one of the MOMENTS, and goes through an
epoch; where that fails, it lifts the limit, and goes through an epoch of the same loader. What is good: the
limit suffices, or the error is fastload's and names what to raise; the loader works again then, and no thread
of it stays. Everything else is told by its kind, with where it came from.

    python -m tests.loader.limits FOLDER [CASE ...]
"""

import errno
import faulthandler
import io
import json
import os
import re
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

import fastload as fl
from fastload.augment import AdaPipe
from tests import corpus, faults
from tests.loader.samples import sample, write

N, BATCH = 48, 4
MOMENTS = ("before the loader", "before the first batch", "in an iteration")
MOST_SECONDS = 30
NAMED = re.compile(r"ulimit -[vu]|pids\.max|cgroup")
IMAGE, LABEL = fl.Image(size=64), fl.Int("cls")
FIELDS = {
    "images": {"image": IMAGE, "label": LABEL},
    "functions": {"own": fl.Custom("txt", len), "label": LABEL},
    "npy": {"array": fl.Tensor("npy"), "label": LABEL},
    "pth": {"array": fl.Tensor("pth"), "label": LABEL},
    "pngs": {"image": fl.Image(size=64, ext="png"), "label": LABEL},
}
ARGUMENTS = {
    "images": {},
    "pillow": {"decode": "pillow"},
    "dali": {"decode": "dali"},
    "functions": {},
    "npy": {},
    "pth": {},
    "pngs": {},
    "mixup": {"augment": fl.Augment(mixup=0.5)},
    "augmented": {"augment": fl.Augment(brightness=0.2)},
}


def make_source(folder: Path) -> str:
    """A shard whose samples have all that FIELDS asks for; its index is made, too."""
    samples = []
    for i in range(N):
        pth, npy, npz = io.BytesIO(), io.BytesIO(), io.BytesIO()
        array = np.full((64, 64), i, np.float32)
        torch.save(torch.from_numpy(array), pth)
        np.save(npy, array)
        np.savez_compressed(npz, array=array)
        png = corpus.encode(corpus.picture(40, 40, i), "PNG")
        content = {"npy": npy.getvalue(), "npz": npz.getvalue(), "pth": pth.getvalue(), "png": png}
        samples.append(sample(i, **content))
    (path,) = write(folder, samples)
    len(fl.Loader(path, BATCH, {"label": LABEL}, ledger=None))
    return path


class Epochs:
    """What a child goes through, epoch after epoch: batches are counted by their labels."""

    def __init__(self, case: str, source: str):
        self._case, self._source, self._loader = case, source, None

    def make(self) -> None:
        case, source = self._case, self._source
        torch.set_num_threads(2)
        more = {"device": "cpu", "threads": 2, "prefetch": 3, "ledger": None, "shuffle": False}
        if case == "AdaPipe":
            self._loader = AdaPipe.named("bgc")
            self._loader.p.fill_(0.8)
        elif case == "DataLoader":
            dataset = fl.Dataset(source, FIELDS["images"], ledger=None)
            self._loader = fl.DataLoader(dataset, BATCH, num_workers=2)
        else:
            fields = FIELDS.get(case, FIELDS["images"])
            self._loader = fl.Loader(source, BATCH, fields, **more, **ARGUMENTS[case])

    def batches(self) -> Iterable:
        if self._case == "AdaPipe":
            images = torch.rand(BATCH, 3, 32, 32) * 2 - 1
            return (self._loader(images) for _ in range(N // BATCH))
        return iter(self._loader)

    def check(self, batches: list) -> None:
        if self._case == "AdaPipe":
            assert len(batches) == N // BATCH
        else:
            assert [n for batch in batches for n in batch["label"].tolist()] == list(range(N))

    def close(self) -> None:
        if hasattr(self._loader, "close"):
            self._loader.close()


class Limit:
    """Of address space, so many bytes above what is used; or of threads that may still begin."""

    def __init__(self, kind: str, room: int):
        self.kind, self.room = kind, room

    def set(self) -> None:
        if self.kind == "threads":
            faults.set_rules(faults.Rule("pthread_create", "*", errno.EAGAIN, most_bytes=self.room))
            return
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + self.room, resource.RLIM_INFINITY))

    def lift(self) -> None:
        if self.kind == "threads":
            faults.set_rules()
        else:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)


def kind_of(error: BaseException) -> str:
    if isinstance(error, fl.FastloadError):
        named = NAMED.search(str(error)) is not None
        return f"ours: {type(error).__name__}" if named else f"NO LIMIT NAMED: {type(error).__name__}"
    return f"RAW: {type(error).__name__}"


def go_through(case: str, source: str, moment: str, limit: Limit) -> tuple[str, str]:
    """How it went, and where what is wrong came from."""
    before = set(threading.enumerate())
    epochs, got, where = Epochs(case, source), [], ""
    how = "ok"
    try:
        if moment == MOMENTS[0]:
            limit.set()
        epochs.make()
        if moment == MOMENTS[1]:
            limit.set()
        for batch in epochs.batches():
            got.append(batch)
            if moment == MOMENTS[2] and len(got) == 2:
                limit.set()
        limit.lift()
        epochs.check(got)
    except BaseException as error:
        limit.lift()
        how = kind_of(error)
        where = "".join(traceback.format_exception(error))
        del error
    got.clear()
    if how.startswith("ours"):
        try:
            if epochs._loader is None:
                epochs.make()
            epochs.close()
            epochs = again(epochs)
        except BaseException:
            return "NOT USABLE AGAIN", where + traceback.format_exc()
    epochs.close()
    deadline = time.monotonic() + 5
    while (left := [one.name for one in threading.enumerate() if one not in before]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.01)
    return (f"THREADS LEFT {left}", where) if left else (how, where)


def again(epochs: Epochs) -> Epochs:
    if hasattr(epochs._loader, "set_epoch"):
        epochs._loader.set_epoch(1)
    epochs.check(list(epochs.batches()))
    return epochs


def in_a_child(case: str, source: str, moment: str, limit: Limit) -> tuple[str, str]:
    """`go_through` in a forked child; also tells how it ended where it did not end well."""
    with tempfile.TemporaryFile("w+") as out:
        return _in_a_child(out, case, source, moment, limit)


def _in_a_child(out, case: str, source: str, moment: str, limit: Limit) -> tuple[str, str]:
    child = os.fork()
    if child == 0:
        os.dup2(out.fileno(), 2)
        faulthandler.enable()
        faulthandler.dump_traceback_later(MOST_SECONDS - 5)
        try:
            how = go_through(case, source, moment, limit)
            limit.lift()
            out.seek(0)
            out.truncate()
            out.write(json.dumps(how))
            out.flush()
        finally:
            os._exit(0)
    deadline, status = time.monotonic() + MOST_SECONDS, None
    while status is None and time.monotonic() < deadline:
        pid, ended = os.waitpid(child, os.WNOHANG)
        if pid:
            status = ended
        else:
            time.sleep(0.005)
    hung = status is None
    if hung:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    out.seek(0)
    said = out.read()
    if hung:
        return "HANG", said
    if os.WIFSIGNALED(status):
        return f"ABORT by {signal.Signals(os.WTERMSIG(status)).name}", said
    try:
        how, where = json.loads(said)
        return how, where
    except ValueError:
        return f"EXIT {os.waitstatus_to_exitcode(status)}", said


def sweep(case: str, source: str, moment: str, limits: Iterable[Limit]) -> tuple[Counter, dict[str, str]]:
    """How often each outcome came, and one example of where each was from."""
    counts, examples = Counter(), {}
    for limit in limits:
        how, where = in_a_child(case, source, moment, limit)
        counts[how] += 1
        examples.setdefault(how, f"{case}, {moment}, {limit.kind} {limit.room}\n{where}")
    return counts, examples


def memory_limits(case: str) -> list[Limit]:
    """From none to 130 MB upwards, in small steps first."""
    return [Limit("memory", int(2**14 * 1.12**i) - 2**14) for i in range(80)]


def some_limits(case: str) -> list[Limit]:
    return [Limit("memory", bytes) for bytes in (0, 5 << 20, 1 << 27)]


def some_thread_limits(case: str) -> list[Limit]:
    return [Limit("threads", number) for number in (0, 5)]


def prepare() -> None:
    """What each child would else import by itself, with threads of torch's that no fork survives."""
    torch.set_num_threads(1)
    AdaPipe.named("bgc")(torch.zeros(BATCH, 3, 32, 32))


def thread_limits(case: str) -> list[Limit]:
    return [Limit("threads", number) for number in range(32 if case == "dali" else 14)]


CASES = (*ARGUMENTS, "DataLoader", "AdaPipe")


def main(folder: str, *cases: str) -> None:
    source = make_source(Path(folder))
    total = Counter()
    prepare()
    for case in cases or CASES:
        for moment in MOMENTS:
            for limits in (memory_limits(case), thread_limits(case)):
                counts, examples = sweep(case, source, moment, limits)
                print(f"{case}, {moment}, {limits[0].kind}: {dict(counts)}", flush=True)
                for how, where in examples.items():
                    if not how.startswith(("ok", "ours")):
                        print(f"--- {how}\n{where}", flush=True)
                total += counts
    print(dict(total))


if __name__ == "__main__":
    main(*sys.argv[1:])
