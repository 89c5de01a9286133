"""One batch in flight: its samples, what the stages make of them, and their faults.

In: a step and its samples; where their bytes are. Out: settled fields, and the faults of the samples.
Promised: cancelling stops what has not begun, replacement samples included; after `wait` no native thread
works on it; a finalizer may give it up.
"""

import math
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fastload import _native
from fastload.errors import FastloadError, FieldError, FunctionError, SampleError
from fastload.loader.device import Delivered
from fastload.loader.field_stage import WAIT_SECONDS, FieldBatch, FieldStage, StoredBytes, result_of, wait_for
from fastload.order.sample_order import RankBatch
from fastload.order.steps import Step
from fastload.read.ledger import MAX_REASON, BadSample
from fastload.read.shard_reader import ShardReader
from fastload.shortage import raising_shortage
from fastload.threads import WorkerThreads


class Fault(NamedTuple):
    """A fault of one field of a sample. reason: without the name of the sample, which is in `error`."""

    reason: str
    error: FastloadError

    @classmethod
    def of(cls, where: str, name: str, error: FastloadError) -> "Fault":
        """The fault that an error of the field `name` makes. where: names the sample."""
        reason = str(error)
        # Not the error's own class: a user's may be a subclass.
        kind = FunctionError if isinstance(error, FunctionError) else SampleError
        full = kind(f"{where}: field {name!r}: {reason}")
        # The cause is the exception of the user's own function, or of the parser, with its traceback.
        full.__cause__ = error.__cause__ or error
        return cls(reason[:MAX_REASON], full)

    @property
    def is_of_the_content(self) -> bool:
        """Whether a replacement sample helps; otherwise the program is at fault."""
        return isinstance(self.error, (SampleError, FieldError))


@dataclass
class PendingBatch:
    """One batch in flight.

    step: None for replacement samples, which belong to another batch. where(sample_id): names a sample.
    held_bytes: what it holds from its launch on; the bytes of its fields come on top.
    """

    step: Step | None
    rank_batch: RankBatch
    where: Callable[[int], str]
    held_bytes: int
    located: list = field(default_factory=list, init=False)  # one Located for each stored field
    missing: dict[str, np.ndarray] = field(default_factory=dict, init=False)  # as StoredBytes has them
    first_blob: dict[str, int] = field(default_factory=dict, init=False)
    wrong: dict[tuple[int, str], Fault] = field(default_factory=dict, init=False)  # (sample, field)
    error: Exception | None = field(default=None, init=False)  # of the whole batch; it is never launched
    content: "_native.ByteBatch | None" = field(default=None, init=False)
    parts: list[FieldBatch] = field(default_factory=list, init=False)  # one for each stage
    delivered: "futures.Future[Delivered] | None" = field(default=None, init=False)
    replacement: "PendingBatch | None" = field(default=None, init=False)  # for its bad samples, being made
    bad: list[BadSample] = field(default_factory=list, init=False)  # what the ledger will have of it
    cancelled: bool = field(default=False, init=False)
    deadline: float = field(default=math.inf, init=False)  # of time.monotonic, once it is asked for

    @property
    def positions(self) -> np.ndarray:
        return self.rank_batch.positions

    @property
    def sample_ids(self) -> np.ndarray:
        return self.rank_batch.sample_ids

    def where_of(self, i: int) -> str:
        """Names sample i, for errors."""
        return self.where(int(self.sample_ids[i]))

    def add_field(self, name: str, located, missing: np.ndarray) -> None:
        """Where the bytes of one more field lie. missing: [N] bool, samples without it."""
        self.first_blob[name] = len(self.located) * len(self.positions)
        self.located.append(located)
        self.missing[name] = missing
        self.held_bytes += int(located.size_bytes.clip(min=0).sum())

    def note(self, i: int, name: str, fault: Fault) -> None:
        """Adds a fault of sample i; of several for one field, the first counts."""
        self.wrong.setdefault((i, name), fault)

    def submit(
        self,
        reader: ShardReader,
        memory: "_native.BufferPool",
        stages: Sequence[FieldStage],
        urgent: bool = False,
        retry: bool = True,
    ) -> None:
        """Hands it to the native threads. urgent: before all that waits there. Raises ResourceError."""
        with raising_shortage(f"for a batch of {self.held_bytes:,} bytes ({len(self.positions)} samples)"):
            self.content = reader.submit(self.located, memory, urgent, retry)
            stored = StoredBytes(self.content, self.first_blob, self.missing, self.positions)
            for stage in stages:
                self.parts.append(stage.submit(stored, urgent))
        if self.cancelled:  # while it was submitted
            self.cancel()

    def deliver_on(self, thread: WorkerThreads, deliver: Callable[["PendingBatch"], Delivered]) -> None:
        """Has a thread make it ahead of need."""
        self.delivered = thread.submit(deliver, self)

    def fail(self, error: Exception) -> None:
        """It cannot be made; batches before it come first."""
        self.error = error

    def wanted_within(self, seconds: float | None) -> None:
        """Sets the deadline; None: wait for ever."""
        self.deadline = math.inf if seconds is None else time.monotonic() + seconds

    def result(self) -> Delivered:
        """What was made ahead of need. Raises BatchTimeoutError."""
        return result_of(self.delivered, self.deadline)

    def settle(self, reader: ShardReader) -> None:
        """Waits until everything is made that can be, and notes the faults of its samples.

        Raises errors that no sample is at fault for.
        """
        wait_for(self.content, lambda: self.cancelled, self.deadline)
        reader.raise_error(self.content, self.sample_ids)
        for part in self.parts:
            self._note_all(part.settle(self.deadline))
        if self.cancelled:
            raise futures.CancelledError

    def _note_all(self, errors: dict[tuple[int, str], FastloadError]) -> None:
        for (i, name), error in errors.items():
            self.note(i, name, Fault.of(self.where_of(i), name, error))

    def replace_by(self, made: "PendingBatch") -> None:
        """`made` holds samples for its bad ones: from here on, cancelling this batch cancels both."""
        made.deadline, self.replacement = self.deadline, made
        if self.cancelled:
            raise futures.CancelledError

    def adopt(self, to: np.ndarray, made: "PendingBatch", samples: np.ndarray) -> None:
        """Samples of another batch take the places `to` in this one."""
        if len(to):
            self.sample_ids[to] = made.sample_ids[samples]
            for part, other in zip(self.parts, made.parts, strict=True):
                part.adopt(to, other, samples)
        made.release(None)

    def release(self, done: Any) -> None:
        """What was handed out has been used once `done`, an event (None: now), has passed."""
        for part in self.parts:
            part.release(done)

    def cancel(self) -> None:
        """Stops what has not begun, and lets whoever waits for it know."""
        delivered, self.cancelled = self.delivered, True
        for batch in (self, self.replacement):
            for part in [] if batch is None else list(batch.parts):
                part.cancel()
        self.give_up()
        if delivered is not None:
            delivered.cancel()

    def give_up(self) -> None:
        """Marks it as no longer wanted, for whoever works on it. A finalizer may call it."""
        self.cancelled = True
        self.delivered = None  # its exception holds frames, and these the stages with their open files
        if self.content is not None:
            self.content.cancel()
        for part in list(self.parts):
            part.give_up()
        if self.replacement is not None:
            self.replacement.give_up()

    def wait(self, deadline: float = math.inf) -> bool:
        """Waits until no native thread works on it, once it is cancelled; False at the deadline."""
        for native in (self.content, *self.parts):
            while native is not None and not native.wait(min(deadline - time.monotonic(), WAIT_SECONDS)):
                if time.monotonic() >= deadline:
                    return False
        return self.replacement is None or self.replacement.wait(deadline)
