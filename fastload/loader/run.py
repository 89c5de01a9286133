"""One iteration of a loader: keeps batches on their way and hands them out in order.

In: where it begins, once the first batch is asked for, and whom to tell how far the training has got. Out:
batches. Promised: no work before the first `next`; batches come in order, an error at its own place, and then
nothing more; at most `prefetch` batches are ahead of the one that is asked for, and fewer where they would
hold more than `max_bytes` together with the batch that the training has (one is always on its way, however
large); closing it, or forgetting it, leaves no thread that works for it.
"""

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from fastload.errors import ConfigError
from fastload.loader.config import LoaderConfig
from fastload.loader.stages import WORKER_NAME, Stages, Trip
from fastload.loader.stats import Stats
from fastload.order.steps import Steps


class Course(NamedTuple):
    """What an iteration goes through: the steps that start in [start, stop) of the endless order."""

    stages: Stages
    steps: Steps
    start: int
    stop: float  # infinity where it never ends


class Run:
    """An iterator over batches.

    begin(): the Course; called by the first `next`. arrive(start, next_position): the training got the step
    that starts at `start`, or there are no more before `next_position`.
    """

    def __init__(self, begin: Callable[[], Course], arrive: Callable, config: LoaderConfig, stats: Stats):
        self._begin, self._arrive, self._config, self._stats = begin, arrive, config, stats
        self._process = os.getpid()
        self._course: Course | None = None
        self._next = 0  # where the step after the planned ones is to be looked for
        self._trips: deque[Trip] = deque()
        self._planned: Trip | None = None  # not launched: it has to wait for memory
        self._ended = False
        self._why: str | None = None  # it ended, where the user may not have meant it to

    def __iter__(self) -> "Run":
        return self

    def __next__(self) -> dict:
        if os.getpid() != self._process:
            raise ConfigError(
                "this iteration began in another process: begin a new one, iter(loader), after the fork."
            )
        if self._why is not None:
            raise ConfigError(self._why)
        if self._ended:
            raise StopIteration
        self._stats.asked()
        try:
            batch, trip = self._next_batch()
        except BaseException:
            self.close()
            raise
        self._arrive(trip.step.start, trip.step.next_position)
        self._stats.handed_over(len(trip.positions), len(trip.positions) * len(self._config.image_fields))
        return batch

    @property
    def begun(self) -> bool:
        """True between the first `next` and the end."""
        return self._course is not None

    def close(self, why: str | None = None) -> None:
        """Stops what is on its way and waits until no thread works for it.

        why: what the next `next` raises as a ConfigError; without it the iteration is simply over.
        """
        if self._ended:
            return
        self._ended, self._why = True, why
        self._stats.paused()
        trips, course = self._trips, self._course
        self._trips, self._course, self._planned = deque(), None, None
        if course is None or os.getpid() != self._process:
            return
        # Python may collect a forgotten iteration on any thread, also on one that would then wait for itself.
        if threading.current_thread().name.startswith(WORKER_NAME):
            course.stages.forget(trips)
            return
        for trip in trips:
            trip.cancel()
        course.stages.close(wait=True)
        for trip in trips:
            trip.wait()

    def __del__(self):
        self.close()

    def _next_batch(self) -> tuple[dict, Trip]:
        if self._course is None:
            self._course = self._begin()
            self._next = self._course.start
        self._launch_ahead()
        if not self._trips:
            self._arrive(self._course.stop - 1, max(self._next, self._course.stop))
            raise StopIteration
        batch = self._course.stages.finish(self._trips[0])
        return batch, self._trips.popleft()

    def _launch_ahead(self) -> None:
        while len(self._trips) <= self._config.prefetch:
            if self._planned is None:
                self._planned = self._plan_next()
            if self._planned is None or not self._fits(self._planned):
                return
            self._course.stages.launch(self._planned)
            self._trips.append(self._planned)
            self._planned = None

    def _plan_next(self) -> Trip | None:
        if self._next >= self._course.stop:
            return None
        step = self._course.steps.step_at(self._next)
        if step.start >= self._course.stop:
            self._next = self._course.stop
            return None
        self._next = step.next_position
        return self._course.stages.plan(step)

    def _fits(self, trip: Trip) -> bool:
        """Whether memory allows one more; the training still has a batch, which is taken to be as large."""
        if len(self._trips) < 2:
            return True
        held_bytes = sum(one.held_bytes for one in self._trips)
        return held_bytes + 2 * trip.held_bytes <= self._config.max_bytes
