"""Who waits for whom: where the time of a run went, stage by stage, and which stage limits it.

In: what the stages report with every batch. Out: `snapshot`, plain numbers. Promised: a stage's busy time is summed
over its threads; "training" is what happens between two batches, outside the loader; a run whose training hardly ever
waits for a batch is limited by the training, any other by the stage whose threads are busiest.
"""

import threading
import time
from dataclasses import dataclass, field

# Below this share of waiting the loader keeps up: a step that takes 50 ms and waits 2.5 ms is the step's own doing.
KEEPS_UP_SHARE = 0.05
STAGES = ("read", "decode", "values", "training")


@dataclass
class Stats:
    """Counters of one loader, since its first batch was asked for."""

    threads: dict[str, int] = field(default_factory=dict)
    busy_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    waiting_seconds: float = 0.0  # of the training, for batches
    images: int = 0
    samples: int = 0
    batches: int = 0
    bytes_read: int = 0
    first_batch_seconds: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _begun: float | None = None
    _left: float | None = None  # when the last batch was handed over
    _cpu_begun: float = 0.0
    _ended: float | None = None

    def add(self, stage: str, seconds: float) -> None:
        """A stage was busy; called by worker threads too, so that the sum is made under a lock."""
        with self._lock:
            self.busy_seconds[stage] += seconds

    def asked(self) -> None:
        """The training asks for a batch."""
        now = time.perf_counter()
        if self._begun is None:
            self._begun, self._cpu_begun = now, time.process_time()
        elif self._left is not None:
            self.busy_seconds["training"] += now - self._left
        self._asked_at = now

    def handed_over(self, samples: int, images: int) -> None:
        """The training gets the batch that it asked for."""
        self._left = time.perf_counter()
        if self.first_batch_seconds is None:
            self.first_batch_seconds = self._left - self._begun
        else:
            self.waiting_seconds += self._left - self._asked_at
        self.batches += 1
        self.samples += samples
        self.images += images

    def paused(self) -> None:
        """The run ended; what follows until the next batch is asked for is nobody's training."""
        self._left = None
        self._ended = time.perf_counter()

    def snapshot(self, pool: dict) -> dict:
        """The counters as plain numbers; see `Loader.stats`."""
        end = self._left or self._ended or self._begun or 0.0
        seconds = end - (self._begun or 0.0)
        stages = {}
        for name in STAGES:
            threads = self.threads.get(name, 1)
            idle = self.waiting_seconds if name == "training" else max(threads * seconds - self.busy_seconds[name], 0.0)
            stages[name] = {"busy_seconds": self.busy_seconds[name], "waiting_seconds": idle, "threads": threads}
        return {
            "images": self.images,
            "samples": self.samples,
            "batches": self.batches,
            "seconds": seconds,
            "images_per_second": self.images / seconds if seconds > 0 else 0.0,
            "first_batch_seconds": self.first_batch_seconds,
            "cpu_seconds": time.process_time() - self._cpu_begun if self._begun is not None else 0.0,
            "bytes_read": self.bytes_read,
            "stages": stages,
            "limited_by": self._limited_by(seconds),
            "pool": pool,
            "bad_samples": 0,
        }

    def _limited_by(self, seconds: float) -> str | None:
        if self.batches < 2:
            return None
        steady = max(seconds - self.first_batch_seconds, 1e-9)
        if self.waiting_seconds < KEEPS_UP_SHARE * steady:
            return "training"
        share = {name: self.busy_seconds[name] / self.threads.get(name, 1) for name in STAGES if name != "training"}
        return max(share, key=share.get)
