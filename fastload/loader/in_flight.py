"""What an iteration has in flight, and how it ends.

In: a pipeline, and its batches. Promised: ending waits until no thread works for them, except for reads and
functions that hang, which are left behind after a time; giving up takes no lock and does not wait, so that a
finalizer may do it. Garbage, and with it a dropped iteration, is collected at any line of any thread,
whatever locks that thread holds: what waits there may wait for ever.
"""

import time
from collections import deque

from fastload.backends import process
from fastload.loader.pending_batch import PendingBatch
from fastload.loader.pipeline import Pipeline

CLOSE_SECONDS = 5.0  # that closing waits for what is at work


class InFlight:
    """The pipeline of an iteration and its batches; neither holds the iteration."""

    def __init__(self, pipeline: Pipeline | None = None):
        self.process = process()
        self.pipeline = pipeline
        self.batches: deque[PendingBatch] = deque()

    def give_up(self) -> None:
        """Cancels everything. For finalizers: it takes no lock and waits for nothing."""
        pipeline = self.pipeline
        if pipeline is None or self.process != process():
            return
        for batch in list(self.batches):
            batch.give_up()
        pipeline.give_up()

    def end(self, seconds: float) -> None:
        """Cancels everything and waits until no thread works for it; leaves behind what takes longer."""
        pipeline, batches = self.pipeline, deque(self.batches)
        if pipeline is None or self.process != process():
            return
        for batch in batches:
            batch.cancel()
        deadline = time.monotonic() + seconds
        pipeline.close(deadline)
        for batch in batches:
            if not batch.wait(deadline):
                pipeline.leave_behind(batch)
        pipeline.close_files(deadline)
        # Not before: after an interrupt, and on another thread, closing has to wait as well.
        if self.pipeline is pipeline:
            self.pipeline, self.batches = None, deque()
