"""What turns the bytes of a batch into its fields, and what each such stage has to answer.

A loader has a list of stages: images, values, and whatever else has a decoder of its own. In: the bytes of a
batch, on their way. Out: columns, the entries of the batch for each field. Promised by a stage: `submit`
waits for nothing; a bad sample is a fault of its own and costs no other sample; what `give_up` stops takes no
lock, so that a finalizer may call it.
"""

import math
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from fastload import _native
from fastload.errors import BatchTimeoutError, ConfigError, FastloadError
from fastload.fields import Field, Image
from fastload.registry import Registry
from fastload.threads import WorkerThreads

# Ctrl-C is seen between two waits; a wait that ends in time costs nothing.
WAIT_SECONDS = 0.2


class StoredBytes(NamedTuple):
    """The bytes of N samples. `content` is complete after its `wait`; nobody asks it before.

    first_blob: field -> number of the blob of its first sample. missing: field -> [N] bool, samples without
    it. positions: [N] int64, of the samples in the order.
    """

    content: "_native.ByteBatch"
    first_blob: Mapping[str, int]
    missing: Mapping[str, np.ndarray]
    positions: np.ndarray


class FieldBatch(Protocol):
    """The fields `names` of one batch, on their way or done. busy_seconds: of native threads that decoded."""

    names: list[str]
    busy_seconds: float = 0.0

    def settle(self, deadline: float) -> dict[tuple[int, str], FastloadError]:
        """Waits until everything is made that can be; (sample, field) -> its fault.

        deadline: of time.monotonic, after which it raises BatchTimeoutError. Raises CancelledError where the
        batch was cancelled, and errors that no sample is at fault for.
        """

    def adopt(self, to: np.ndarray, other: "FieldBatch", samples: np.ndarray) -> None:
        """Samples of another batch of the same stage take the places `to` in this one, after both settled."""

    def column(self, name: str, where: Callable[[int], str]) -> dict[str, Any]:
        """The entries of the batch for one field. where(i): names sample i, for errors."""

    def cancel(self) -> None:
        """Stops what has not begun, and lets whoever waits for it know."""

    def give_up(self) -> None:
        """As cancel, for finalizers."""

    def wait(self, timeout_seconds: float) -> bool:
        """Whether no native thread works on it any more; waits so long at most."""
        return True

    def release(self, done: Any) -> None:
        """What was handed out has been used once `done`, an event (None: now), has passed."""


@dataclass(frozen=True)
class StageContext:
    """What a loader has for its stages.

    threads: of the loader. workers: Python's threads, which all stages share. acquire(size_bytes): memory for
    results: an object with the buffer protocol, pinned where batches go to a GPU, which returns to its pool
    once nothing refers to it. busy(part, seconds): counts time for `loader.stats()`; part: "decode", "values"
    or "batch". seed: of the loader. device: torch.device of the batches. prefetch: batches made ahead.
    """

    threads: int
    workers: WorkerThreads
    acquire: Callable[[int], Any]
    busy: Callable[[str, float], None]
    seed: int
    device: Any
    prefetch: int


class FieldStage(Protocol):
    """Makes the fields `names` of a loader, batch after batch.

    sample_bytes: how much memory one sample takes on its way. by_batch: whether `finish` does work that
    should be done ahead of need. counters(): numbers for `loader.stats()["device"]`; it must not hold the
    stage, which holds the statistics.
    """

    names: list[str]
    sample_bytes: int = 0
    by_batch: bool = False
    counters: Callable[[], dict] = dict

    def submit(self, stored: StoredBytes, urgent: bool) -> FieldBatch:
        """Begins with a batch as soon as its bytes are read. urgent: before all that waits."""

    def finish(self, batch: dict, positions: np.ndarray) -> dict:
        """What is done with a whole batch where it lies, on its device."""
        return batch

    def give_up(self) -> None:
        """Lets threads of its own end when they have done what they are at. A finalizer may call it."""

    def join(self, deadline: float) -> bool:
        """Whether no thread of its own works any more; waits until `deadline` of time.monotonic."""
        return True


StageFactory = Callable[[Mapping[str, Field], StageContext], FieldStage]
_factories: Registry[type, StageFactory] = Registry("field stage")


def register_field_stage(field_class: type, factory: StageFactory) -> None:
    """Makes factory(fields, context) the stage of all fields of a class, subclasses included.

    field_class: a subclass of fastload.fields.Field. A loader calls the factory once an iteration, with its
    fields of that class by name, and a StageContext. Call it in the module that defines the class.

    Raises ConfigError for anything but such a class, and for a class that has a stage already.
    """
    is_field = isinstance(field_class, type) and issubclass(field_class, Field)
    if not is_field or issubclass(field_class, Image) or field_class.__module__ == Field.__module__:
        raise ConfigError(
            f"register_field_stage(field_class={field_class!r}): give a subclass of fastload.fields.Field "
            "of your own, and not of fl.Image."
        )
    if not callable(factory):
        raise ConfigError(
            f"register_field_stage(factory={factory!r}): give a function of the fields and a StageContext."
        )
    _factories.add(field_class, factory)


def registered_class(field: Field) -> type | None:
    """The class under which the stage of a field is registered; None where fastload makes it."""
    return next((kind for kind in type(field).__mro__ if kind in _factories), None)


def registered_stages(fields: Mapping[str, Field], context: StageContext) -> list[FieldStage]:
    """The stages of those fields that have a registered one."""
    kinds = {name: registered_class(field) for name, field in fields.items()}
    return [
        _factories[kind]({name: fields[name] for name in kinds if kinds[name] is kind}, context)
        for kind in dict.fromkeys(kinds.values())
        if kind is not None
    ]


def wait_seconds(deadline: float) -> float:
    """How long to wait in one go. Raises BatchTimeoutError after the deadline."""
    if deadline == math.inf:
        return WAIT_SECONDS
    left = deadline - time.monotonic()
    if left <= 0:
        raise BatchTimeoutError(
            "a batch took longer than timeout_seconds (timeout= of DataLoader): look at loader.stats() for "
            "the slow stage, and at the file system, or allow more time."
        )
    return min(left, WAIT_SECONDS)


def wait_for(native: Any, is_cancelled: Callable[[], bool], deadline: float = math.inf) -> None:
    """Waits until native threads have made something; Ctrl-C is seen between two waits.

    Raises BatchTimeoutError after the deadline, and CancelledError where the batch was cancelled: a read that
    hangs is never done.
    """
    while not native.wait(wait_seconds(deadline)):
        if is_cancelled():
            raise futures.CancelledError


def result_of(future: futures.Future, deadline: float) -> Any:
    """The future's result; Ctrl-C is seen between two waits. Raises BatchTimeoutError after the deadline."""
    # One that was cancelled before it ran is done, but no wait ever says so.
    while not (future.done() or futures.wait([future], wait_seconds(deadline)).done):
        pass
    return future.result()


class ThreadWork:
    """What Python's worker threads do for one batch. It holds no batch, which would hold it in turn."""

    def __init__(self, workers: WorkerThreads, stored: StoredBytes):
        self._workers, self._stored = workers, stored
        self._futures: list[futures.Future] = []
        self.cancelled = False

    def begin(self, work: Callable[[int, int], None]) -> None:
        """Has each worker thread do work(part, parts); if that was begun already, nothing."""
        if not self._futures and not self.cancelled:
            parts = min(self._workers.count, len(self._stored.positions))
            self._futures = [self._workers.submit(work, part, parts) for part in range(parts)]

    @property
    def begun(self) -> bool:
        return bool(self._futures)

    def has_bytes(self) -> bool:
        """Waits for the bytes; False if nothing may be made of them, which whoever settles them raises."""
        wait_for(self._stored.content, lambda: self.cancelled)
        return not self.cancelled and self._stored.content.first_error is None

    def settle(self, deadline: float) -> None:
        """Waits for all parts and raises what one of them raised."""
        for future in self._futures:
            result_of(future, deadline)
        if self.cancelled:
            raise futures.CancelledError

    def cancel(self) -> None:
        waiting = self._futures
        self.give_up()
        for future in waiting:
            future.cancel()

    def give_up(self) -> None:
        """A finalizer may call it."""
        # Exceptions of futures hold frames, and these the stages with their open files.
        self.cancelled, self._futures = True, []
