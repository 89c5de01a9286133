"""One batch on its way: its samples, what native and Python threads make of them, and what is wrong with it.

In: a step and the samples that it takes. Out: a `PendingBatch`, which pipeline.py fills. Promised: cancelling
it stops what has not begun, its stand-ins too; after `wait` no native thread works on it; a finalizer may
give it up.
"""

import math
import time
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fastload import _native
from fastload.errors import BatchTimeoutError, FastloadError, FieldError, SampleError
from fastload.loader.device import Delivered
from fastload.order.sample_order import RankBatch
from fastload.order.steps import Step
from fastload.read.ledger import BadSample

# Ctrl-C is seen between two waits; a wait that ends in time costs nothing.
WAIT_SECONDS = 0.2


class Fault(NamedTuple):
    """What is wrong with one field of a sample. reason: without the sample's name, which is in `error`."""

    reason: str
    error: FastloadError

    @property
    def is_of_the_content(self) -> bool:
        """Another sample may stand in; else something is wrong with the program, and it must be raised."""
        return isinstance(self.error, (SampleError, FieldError))


@dataclass
class PendingBatch:
    """One batch on its way."""

    step: Step | None  # None for stand-ins, which belong to another trip
    taken: RankBatch
    located: list = field(default_factory=list)  # one Located for each stored field
    missing: dict[str, np.ndarray] = field(default_factory=dict)  # field -> [N] bool
    first_blob: dict[str, int] = field(default_factory=dict)  # field -> its first blob in `bytes`
    held_bytes: int = 0  # what it holds from its launch on
    bytes: "_native.ByteBatch | None" = None
    images: Any = None  # BatchImages or DaliImages
    delivered: "futures.Future[Delivered] | None" = None
    work: list[futures.Future] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)  # field -> [N], for all but images and labels
    wrong: dict[tuple[int, str], Fault] = field(default_factory=dict)  # (sample, field)
    stand_ins: "PendingBatch | None" = None  # for its bad samples, being made
    bad: list[BadSample] = field(default_factory=list)  # what the ledger will have of it
    error: Exception | None = None  # of the whole batch
    cancelled: bool = False
    deadline: float = math.inf  # seconds of time.monotonic, from when the training asks for it

    @property
    def positions(self) -> np.ndarray:
        return self.taken.positions

    @property
    def sample_ids(self) -> np.ndarray:
        return self.taken.sample_ids

    def cancel(self) -> None:
        """Stops what has not begun, and lets who waits for it know."""
        waiting = [*self.work, self.delivered]
        if self.stand_ins is not None:
            waiting += self.stand_ins.work
        self.give_up()
        for future in waiting:
            if future is not None:
                future.cancel()

    def give_up(self) -> None:
        """Says that nobody wants it any more, for whoever works on it to see. A finalizer may call it."""
        self.cancelled = True
        # What they raise holds frames, and these the stages with their open files.
        self.delivered, self.work = None, []
        for native in (self.bytes, self.images):
            if native is not None:
                native.cancel()
        if self.stand_ins is not None:
            self.stand_ins.give_up()

    def wait(self, deadline: float = math.inf) -> bool:
        """Until no native thread works on it any more, once it is cancelled; False at the deadline."""
        for native in (self.bytes, self.images):
            while native is not None and not native.wait(min(deadline - time.monotonic(), WAIT_SECONDS)):
                if time.monotonic() >= deadline:
                    return False
        return self.stand_ins is None or self.stand_ins.wait(deadline)

    def wait_for(self, native, deadline: float = math.inf) -> None:
        """Until something that native threads make of it is done; Ctrl-C is seen between two waits.

        deadline: seconds of time.monotonic, after which it raises BatchTimeoutError. Raises CancelledError
        where the batch was cancelled: a read that hangs is never done.
        """
        while not native.wait(wait_seconds(deadline)):
            if self.cancelled:
                raise futures.CancelledError


def wait_seconds(deadline: float) -> float:
    """How long to wait at once. Raises BatchTimeoutError where the deadline is over."""
    if deadline == math.inf:
        return WAIT_SECONDS
    left = deadline - time.monotonic()
    if left <= 0:
        raise BatchTimeoutError(
            "a batch took longer than timeout_seconds (timeout= of DataLoader): look at loader.stats() for "
            "the slow stage, and at the file system, or allow more time."
        )
    return min(left, WAIT_SECONDS)
