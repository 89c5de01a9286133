"""Where the time of a run goes, stage by stage, and which stage limits it.

In: what the stages report with every batch. Out: `snapshot`, plain numbers. Promised: the busy time of a
stage is summed over its threads. "batch" is the work done once a batch, in one thread; "training" is the
time between two batches, outside the loader; time after the end of an iteration is not counted. So `seconds`
is exactly the first batch, the waiting for the others, and the training. A run that hardly ever waits for a
batch is limited by the training, any other by the stage whose threads are busiest.
"""

import threading
import time
from collections.abc import Callable

from fastload.loader.pending_batch import PendingBatch

# Training that waits for less than this share of the time is not limited by the loader: 2.5 ms in a step of
# 50 ms.
KEEPS_UP_SHARE = 0.05
STAGES = ("read", "decode", "values", "batch", "training")


class Stats:
    """Counters of one loader, since its first batch was requested."""

    def __init__(self) -> None:
        self._threads: dict[str, int] = {}
        self._device: Callable[[], dict] = dict
        self._bytes_read = self._read_retries = 0
        self._busy_seconds = dict.fromkeys(STAGES, 0.0)
        self._waiting_seconds = 0.0  # of the training loop, for all batches but the first
        self._first_batch_seconds: float | None = None
        self._first_images = 0
        self._cpu_seconds = 0.0
        self._images = self._samples = self._batches = 0
        self._requested_at = 0.0
        self._returned_at: float | None = None  # when the last batch was returned; None: outside an iteration
        self._cpu_mark: float | None = None
        self._lock = threading.RLock()  # a signal handler may close the loader at any line

    def begin(self, threads: dict[str, int], device: Callable[[], dict]) -> None:
        """An iteration begins. threads: of each stage. device(): counters of the work on a GPU."""
        self._threads, self._device = threads, device

    def add(self, stage: str, seconds: float) -> None:
        """A stage was busy; worker threads call this, too, hence the lock."""
        with self._lock:
            self._busy_seconds[stage] += seconds

    def count_native(self, pending: PendingBatch) -> None:
        """Adds what native threads did for a batch."""
        if pending.content is None:
            return
        with self._lock:
            self._bytes_read += pending.content.bytes_read
            self._read_retries += pending.content.retries
        self.add("read", pending.content.busy_seconds)
        self.add("decode", sum(part.busy_seconds for part in pending.parts))

    def asked(self) -> None:
        """The training loop requests a batch."""
        self._requested_at, returned_at = time.perf_counter(), self._returned_at
        if returned_at is not None:
            self.add("training", self._requested_at - returned_at)
            self._returned_at = None
        if self._cpu_mark is None:
            self._cpu_mark = time.process_time()

    def handed_over(self, samples: int, images: int) -> None:
        """The training loop gets the batch that it requested."""
        now = time.perf_counter()
        if self._first_batch_seconds is None:
            self._first_batch_seconds = now - self._requested_at
            self._first_images = images
        else:
            self._waiting_seconds += now - self._requested_at
        self._returned_at = now
        self._count_cpu()
        self._batches += 1
        self._samples += samples
        self._images += images

    def paused(self) -> None:
        """The iteration ended; the time until the next batch is requested does not count as training."""
        self._returned_at = None
        self._count_cpu()
        self._cpu_mark = None

    def snapshot(self, pool: dict, bad: dict) -> dict:
        """The counters as plain numbers; see `Loader.stats`."""
        with self._lock:
            busy = dict(self._busy_seconds)
        steady = self._waiting_seconds + busy["training"]
        seconds = steady + (self._first_batch_seconds or 0.0)
        stages = {}
        for name in STAGES:
            threads = self._threads.get(name, 1)
            idle = self._waiting_seconds if name == "training" else max(threads * seconds - busy[name], 0.0)
            stages[name] = {"busy_seconds": busy[name], "waiting_seconds": idle, "threads": threads}
        return {
            "images": self._images,
            "samples": self._samples,
            "batches": self._batches,
            "seconds": seconds,
            "images_per_second": self._rate(steady),
            "first_batch_seconds": self._first_batch_seconds,
            "cpu_seconds": self._cpu_seconds,
            "bytes_read": self._bytes_read,
            "stages": stages,
            "limited_by": self._limited_by(busy, steady),
            "pool": pool,
            "device": self._device(),
            **bad,
            "read_retries": self._read_retries,
        }

    def _count_cpu(self) -> None:
        now, mark = time.process_time(), self._cpu_mark
        if mark is not None:  # None: another thread has just closed the iteration
            self._cpu_seconds += now - mark
            self._cpu_mark = now

    def _rate(self, steady: float) -> float:
        """Images a second after the first batch, whose time is start-up and reported by itself."""
        if self._batches < 2:
            return self._images / self._first_batch_seconds if self._batches else 0.0
        return (self._images - self._first_images) / max(steady, 1e-9)

    def _limited_by(self, busy: dict[str, float], steady: float) -> str | None:
        if self._batches < 2:
            return None
        if self._waiting_seconds < KEEPS_UP_SHARE * steady:
            return "training"
        share = {name: busy[name] / self._threads.get(name, 1) for name in STAGES if name != "training"}
        return max(share, key=share.get)
