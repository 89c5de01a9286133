"""One iteration of a loader: keeps batches in flight and delivers them in order.

In: where it begins, once the first batch is asked for, and a callback for what was delivered. Out: batches.
Promised: no work before the first `next`; batches come in order, an error in the place of its batch, and
nothing after it; at most `prefetch` batches are ahead of the requested one, and fewer if together with the
batch in use they would hold more than `max_bytes` (one is always in flight, however large); threads that ask
at the same time are served one after the other, and each batch is delivered once; closing leaves no thread
that works for it, except that a read or function that hangs is left behind after CLOSE_SECONDS; dropping it
does the same without waiting.
"""

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from fastload.backends import process
from fastload.errors import BatchTimeoutError, ConfigError
from fastload.loader.in_flight import CLOSE_SECONDS, InFlight
from fastload.loader.pending_batch import PendingBatch
from fastload.loader.pipeline import Pipeline
from fastload.loader.stats import Stats
from fastload.order.sample_order import OrderState
from fastload.order.step_source import PlannedStepSource, StepSource
from fastload.shortage import raising_shortage
from fastload.threads import Turn, end_with_the_program
from fastload.world import World

INTERRUPTED_SECONDS = 1.0  # instead of CLOSE_SECONDS after Ctrl-C, which must act at once
OF_ANOTHER_PROCESS = "this iteration began in another process: begin a new one, iter(loader), after the fork."
CLOSED = "the loader was closed while this batch was made: close it between two batches."


class RunSpec(NamedTuple):
    """The steps that an iteration delivers: those that start in [start, stop) of the endless order."""

    pipeline: Pipeline
    step_source: StepSource
    start: OrderState
    stop: float  # infinity if it never ends
    world: World
    prefetch: int  # batches ahead of need
    max_bytes: int  # for them


class BatchIterator:
    """An iterator over batches.

    begin(): makes the RunSpec; called by the first `next`, and by the one after `plan_anew`. arrive(start,
    state): the step that starts at `start` was delivered, or there are no more before `state`. world():
    the current world. images: image fields per sample, for the statistics.
    """

    def __init__(
        self,
        begin: Callable[[], RunSpec],
        arrive: Callable[[int, OrderState], None],
        world: Callable[[], World],
        images: int,
        stats: Stats,
    ):
        self._begin, self._arrive, self._stats = begin, arrive, stats
        self._current_world, self._images = world, images
        self.in_flight = InFlight()
        self._next: OrderState | None = None  # where to look for the step after the planned ones
        self._world: World | None = None  # in which it began
        self._stop = 0.0  # of the run with which it began
        self._run: RunSpec | None = None  # of the pipeline in flight
        self._planned: PendingBatch | None = None  # not launched yet: it waits for memory
        self._failed: Exception | None = None  # raised after the batches in flight
        self._ended = False
        self._why: str | None = None  # it ended, if the user may not have meant it
        self.is_making = False  # a `next` has not returned yet
        self._turn = Turn()  # of threads that call `next`
        # No __del__: Python may collect garbage, and with it a dropped iteration, at any line of any thread,
        # whatever locks that thread holds.
        weakref.finalize(self, InFlight.give_up, self.in_flight).atexit = False
        end_with_the_program(self.in_flight)

    def __iter__(self) -> "BatchIterator":
        return self

    def __next__(self) -> dict[str, Any]:
        in_flight = self.in_flight
        if in_flight.process != process():
            raise ConfigError(OF_ANOTHER_PROCESS)
        with self._turn:
            if self.is_making:
                raise ConfigError("map_batch called next() on the iteration that calls map_batch.")
            if self._why is not None:
                raise ConfigError(self._why)
            if self._ended:
                raise StopIteration
            self._stats.asked()
            self.is_making = True
            try:
                batch, pending = self._next_batch()
            except BaseException as error:
                self._end_with(error)
                raise
            finally:
                self.is_making = False
            self._arrive(pending.step.start, pending.rank_batch.after)
            samples = len(pending.positions)
            self._stats.handed_over(samples, samples * self._images)
            return batch

    @property
    def begun(self) -> bool:
        """True between the first `next` and the end."""
        return self._world is not None and not self._ended

    def plan_anew(self) -> None:
        """Drops the batches in flight; the next batch is planned from the position of the loader."""
        self.in_flight.end(CLOSE_SECONDS)
        self._run = self._planned = None

    def close(self, why: str | None = None, seconds: float = CLOSE_SECONDS) -> None:
        """Stops what is in flight and waits until no thread works for it, or leaves behind what hangs.

        why: raised as a ConfigError by the next `next`; without it the iteration simply ends.
        """
        if not self._ended:
            self._ended, self._why = True, why
            self._stats.paused()
        self.in_flight.end(seconds)  # again, if Ctrl-C came while it waited
        self._run = self._planned = None

    def _end_with(self, error: BaseException) -> None:
        """Ends the iteration after an error of `next`, or raises a better one."""
        # A batch that was cancelled by closing may raise anything; closing is the reason.
        was_closed = self._ended and isinstance(error, Exception)
        self._turn.sleep_at_the_end()
        if isinstance(error, BatchTimeoutError):
            seconds = 0.0  # what hangs would hang the training loop too
        else:
            seconds = CLOSE_SECONDS if isinstance(error, Exception) else INTERRUPTED_SECONDS
        self.close(seconds=seconds)
        if was_closed:
            raise ConfigError(CLOSED) from error

    def _next_batch(self) -> tuple[dict, PendingBatch]:
        in_flight = self.in_flight
        if in_flight.pipeline is None:
            with raising_shortage("to begin an iteration"):
                self._run = self._begin()
            in_flight.pipeline = self._run.pipeline
            self._next = self._run.start
            if self._world is None:
                self._world, self._stop = self._run.world, self._run.stop
        self._check_world()
        self._launch_ahead()
        if not in_flight.batches and self._failed is not None:
            failed, self._failed = self._failed, None
            try:
                raise failed
            finally:
                del failed  # or its traceback would hold this frame, and so itself and the loader
        if not in_flight.batches:
            self._arrive(self._stop - 1, self._next)
            raise StopIteration
        pending = in_flight.batches[0]
        batch = self._run.pipeline.finish(pending)
        if self._ended:
            raise ConfigError(CLOSED)
        in_flight.batches.popleft()
        return batch, pending

    def _launch_ahead(self) -> None:
        in_flight = self.in_flight
        while len(in_flight.batches) <= self._run.prefetch:
            if self._planned is None and self._failed is None:
                self._planned = self._plan_next()
            if self._planned is None or not self._fits(self._planned):
                return
            # Before the launch: Ctrl-C may come at any line, and another thread may close at any time.
            in_flight.batches.append(self._planned)
            self._run.pipeline.launch(self._planned)
            self._planned = None

    def _plan_next(self) -> PendingBatch | None:
        run = self._run
        try:
            taken = run.step_source.take(self._next, self._stop)
        except Exception as error:  # of a sampler: the batches that it drew before come first
            if isinstance(run.step_source, PlannedStepSource):
                raise  # a planned order raises nothing, so this is from a signal handler
            self._failed = error
            return None
        if taken is None:
            self._next = run.step_source.end(self._next, self._stop)
            return None
        self._next = taken[1].after
        return run.pipeline.plan(*taken)

    def _check_world(self) -> None:
        try:
            began, now = self._world, self._current_world()
        except ConfigError:  # an incomplete environment says nothing about an iteration that has begun
            return
        if (now.rank, now.world_size) != (began.rank, began.world_size):
            raise ConfigError(
                f"the world changed under a running iteration: it began as rank {began.rank} of "
                f"{began.world_size}, and this is rank {now.rank} of {now.world_size} now. Keep "
                "torch.distributed as it is from the first batch to the last, give rank= and world_size=, or "
                "begin a new iteration, iter(loader)."
            )

    def _fits(self, pending: PendingBatch) -> bool:
        """Whether memory allows one more; the batch in use is assumed to be as large."""
        batches = self.in_flight.batches
        if len(batches) < 2:
            return True
        held_bytes = sum(batch.held_bytes for batch in batches)
        return held_bytes + 2 * pending.held_bytes <= self._run.max_bytes
