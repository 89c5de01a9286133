"""What an iteration has under way, and how it ends.

In: stages, and the batches that they are at. Promised: ending waits until no thread works for them, but for
reads and functions that hang: these are left behind when the time is over; giving up takes no lock and waits
for nothing, so that a finalizer may do it. Garbage, and with it a forgotten iteration, is collected amid any
line of any thread, whatever locks that thread holds: what waits there may wait for ever.
"""

import time
from collections import deque

from fastload.backends import process
from fastload.loader.pending_batch import PendingBatch
from fastload.loader.pipeline import Pipeline

CLOSE_SECONDS = 5.0  # that closing waits for what is at work


class InFlight:
    """The stages of an iteration, and its batches that are on their way; nothing that holds the iteration."""

    def __init__(self, stages: Pipeline | None = None):
        self.process = process()
        self.stages = stages
        self.trips: deque[PendingBatch] = deque()

    def give_up(self) -> None:
        """Cancels everything. For finalizers: it takes no lock and waits for nothing."""
        stages = self.stages
        if stages is None or self.process != process():
            return
        for trip in list(self.trips):
            trip.give_up()
        stages.give_up()

    def end(self, seconds: float) -> None:
        """Cancels everything and waits until no thread works for it; leaves behind what takes longer."""
        stages, trips = self.stages, deque(self.trips)
        if stages is None or self.process != process():
            return
        for trip in trips:
            trip.cancel()
        deadline = time.monotonic() + seconds
        stages.close(deadline)
        for trip in trips:
            if not trip.wait(deadline):
                stages.leave_behind(trip)
        stages.close_files(deadline)
        # Not before: after an interrupt, and on another thread, closing has to wait as well.
        if self.stages is stages:
            self.stages, self.trips = None, deque()
