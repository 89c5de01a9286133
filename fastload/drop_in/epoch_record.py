"""The record of an iteration over a torch DataLoader: draws, returned batches, the states of workers.

In: a loader, and the state at which it begins. Out: torch's own iterator, made from a view of the loader in
which the sampler keeps its states and batches come with the states of their workers; a state at any time.
Promised: nothing of torch's iterator is read or written; where neither the sampler nor the dataset has a
state of its own, a batch costs no more than a count and a checksum of its draw. A state always has the same
shape (state_format.py).
"""

import copy
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, IterDataPipe, MapDataPipe

from fastload.drop_in.state_format import VERSION, encoded
from fastload.drop_in.worker_state import (
    BatchWithState,
    CollateWithState,
    IterableSource,
    MapSource,
    Placeholder,
    WorkerStart,
    stateless_error,
)
from fastload.loader.orders.generators import generator_state, restored, set_generator_state
from fastload.loader.orders.global_generator import GlobalGenerator
from fastload.loader.orders.sampler_state import (
    SamplerIterator,
    current_rank,
    epoch_of,
    is_stateful,
    restore_finished,
)


class EpochRecord:
    """The progress of one iteration, and the states of its dataset and sampler.

    saved: the state that it begins at. global_generator: the loader's. With persistent workers it is the
    record of all their epochs.
    """

    def __init__(self, loader: DataLoader, saved: dict | None, global_generator: GlobalGenerator):
        self._generator, self._global = loader.generator, global_generator
        self._iterable = isinstance(loader.dataset, IterableDataset)
        self._is_persistent, self._batch_size = loader.persistent_workers, loader.batch_size
        self.num_workers, self.delivered, self.finished = loader.num_workers, 0, False
        self.delivered_state: dict | None = None  # after the last delivered batch, where others are ahead
        self.placeholders_seen = self.to_discard = 0
        # States of loader.generator before torch drew the workers' seed, and after; None: as it is.
        self._start: str | None = None
        self._now: str | None = None
        self._workers: list = [None] * max(1, loader.num_workers)
        self._last_worker: int | None = None
        self._generators: dict | None = None
        sampler_state = self._restore(loader, saved) if saved is not None else None
        skips = 0 if self._last_worker is None else (self._last_worker + 1) % max(1, loader.num_workers)
        self._source = _source_of(loader)
        if any(self._workers) and self._source is None:
            raise stateless_error(loader.dataset)
        if self._iterable and self.delivered and not any(self._workers):
            self.to_discard, self.delivered, skips = self.delivered, 0, 0
        self._skips = skips if self.num_workers and self._source is not None else 0
        self._sampler = None
        if not self._iterable:
            context = global_generator.swapped_in
            self._sampler = RecordedSampler(loader, sampler_state, self._skips, context)
        self.has_batch_states = self._source is not None and self.num_workers > 0

    def _restore(self, loader: DataLoader, saved: dict) -> dict | None:
        """The sampler's state. A state at an epoch's end begins the next, as the saved run would have."""
        self._now = saved["generator"]["now"]
        self._start = saved["generator"]["start"]
        self._workers = list(saved["workers"])
        if not saved["finished"] and not _has_moved_on(loader, saved):
            self.delivered, self._last_worker = saved["delivered"], saved["last_worker"]
            self._generators = saved["dice"]
            return saved["sampler"]
        if saved["sampler"] is not None:
            restore_finished(loader._index_sampler, saved["sampler"])
        if self._is_persistent or not self.num_workers:
            self._workers = _mark_left(self._workers, "end")
        else:
            self._workers = [None] * self.num_workers
        if not self._is_persistent:
            self._start = None
        return None

    def torch_iterator(self, loader: DataLoader) -> Iterator:
        """torch's own iterator, of a view of `loader`; its workers have the seeds of the saved run."""
        view = self._view(loader)
        if self._source is not None and not self.num_workers:
            self._source.restore(self._workers[0])
            self._source.generators = self._generators
        self._global.begin()
        if self._start is None and self._now is not None:
            set_generator_state(loader.generator, self._now)
        with ExitStack() as swapped:  # while torch draws the workers' seed; closed before a dataset draws
            if self._iterable and not self.num_workers and self._source is not None:
                self._source.before_iter = swapped.close
                self._source.generator_context = self._global.swapped_in
            if self._start is None:
                swapped.enter_context(self._global.swapped_in())
                self._start = generator_state(loader.generator)
            else:
                swapped.enter_context(_restored_generator(loader.generator, self._start, self._now))
                if self._sampler is not None:
                    self._sampler.before_first = swapped.close
            return DataLoader._get_iterator(view)

    def reset(self, iterator: Iterator, loader: DataLoader) -> None:
        """Begins the next epoch of an iterator with persistent workers."""
        self._workers = _mark_left(self._workers, "end" if self.finished else "break")
        self._last_worker, self.delivered, self.finished = None, 0, False
        self.placeholders_seen, self.delivered_state = 0, None
        if self._sampler is not None:
            self._sampler.begin_next()
        self._global.begin()
        with self._global.swapped_in():
            iterator._reset(loader)

    def _view(self, loader: DataLoader) -> DataLoader:
        """A copy of the loader for torch's iterator alone."""
        view = object.__new__(
            type(loader)
        )  # copy.copy calls a subclass's __getattr__ before attributes exist
        changed = view.__dict__  # torch's __setattr__ refuses to change some of them
        changed.update(loader.__dict__, _recorded_sampler=self._sampler)
        if self.has_batch_states:
            changed["collate_fn"] = CollateWithState(loader.collate_fn, self._source)
            changed["worker_init_fn"] = WorkerStart(
                loader.worker_init_fn, self._source, self._workers, self._skips
            )
        if self._source is not None and (self._iterable or self._skips):
            changed["dataset"] = self._source
        return view

    def restored_generators(self) -> AbstractContextManager:
        """A context with the generators as before the first draw of a dataset that is read again."""
        if self._source is None or self._source.generators is None:
            return nullcontext()
        return restored(self._source.generators["first"] or {}, self._source.dataset)

    def begun(self) -> None:
        """Must be called when torch has made its draws ahead of the first batch."""
        if self._sampler is not None:
            self._sampler.ahead = self._sampler.requested

    def unpack(self, batch: BatchWithState) -> Any:
        self._workers[batch.worker], self._last_worker = batch.state, batch.worker
        return batch.batch

    def state(self) -> dict:
        """The state of the loader, a copy."""
        state = copy.deepcopy(self.delivered_state or self.snapshot())
        return encoded(state | {"global_generator": self._global.state(), "rank": current_rank()})

    def snapshot(self) -> dict:
        """The state after the batch that torch returned last; not a copy."""
        workers = list(self._workers)
        if not self.num_workers:
            workers = [None if self._source is None else self._source.state()]
        now = None if self._generator is None else generator_state(self._generator)
        sampler, seen = self._sampler, self.placeholders_seen
        return {
            "version": VERSION,
            "kind": "iterable" if self._iterable else "map",
            "num_workers": self.num_workers,
            "batch_size": self._batch_size,
            "delivered": self.delivered,
            "finished": self.finished,
            "sampler": None if sampler is None else sampler.state(seen, self.finished),
            "workers": workers,
            "last_worker": self._last_worker,
            "generator": {"start": self._start, "now": now},
            "dice": None if self._source is None else self._source.generators,
        }


def _has_moved_on(loader: DataLoader, saved: dict) -> bool:
    """Whether the epoch has no batches left, and set_epoch was called with another since the state was
    loaded.

    Programs that compute the epoch from the number of steps do so after a checkpoint of an epoch's last step;
    resuming that epoch would give an epoch without batches.
    """
    sampler, state = loader._index_sampler, saved["sampler"]
    if state is None or state["epoch"] is None or epoch_of(sampler) == state["epoch"]:
        return False
    if saved["batch_size"] != loader.batch_size:
        return False
    try:
        return saved["delivered"] == len(sampler)
    except TypeError:  # the sampler has no length
        return False


@contextmanager
def _restored_generator(generator: Any, state: str, now: str | None) -> Iterator[None]:
    """Restores a generator to `state` for a while; None is torch's global one.

    now: the state of the loader's own generator afterwards; the global one continues where it is.
    """
    after = generator_state(None) if generator is None else now
    set_generator_state(generator, state)
    try:
        yield
    finally:
        if after is not None:
            set_generator_state(generator, after)


class RecordedSampler:
    """What torch draws from in place of the sampler; keeps states, because torch draws ahead of need.

    torch requests one draw for each batch that it gets from a worker, even after the last, so the requests
    since the first batch are the number of batches that torch has returned.
    """

    def __init__(self, loader: DataLoader, saved: dict | None, placeholders: int, context: Callable):
        self._sampler = loader._index_sampler
        self._saved, self._placeholders = saved, placeholders
        self._placeholder = [Placeholder()] if loader._auto_collation else Placeholder()
        self.before_first: Callable | None = None
        self.requested = self._drawn = 0
        self.ahead: int | None = None  # requests before the first batch
        self._context = context
        self._draws = SamplerIterator(self._sampler, saved, context)
        self._has_own_state: bool | None = None  # None: not known before the first draw
        self._states: deque = deque()  # of the sampler, after each draw whose batch is not returned yet
        self._progress: deque = deque()  # of these draws

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> "RecordedSampler":
        self._draws = SamplerIterator(self._sampler, self._saved, self._context)
        if self._saved is None and self.before_first is None:
            self._draws.begin()
        self._has_own_state, self._states = None, deque([self._draws.state()])
        self._progress = deque([self._draws.progress])
        self.requested = self._drawn = 0
        self.ahead = None
        return self

    def begin_next(self) -> None:
        """Must be called before torch asks for another iterator."""
        self._saved, self._placeholders, self.before_first = None, 0, None

    def __next__(self) -> Any:
        self.requested += 1
        if self.requested <= self._placeholders:
            return self._placeholder
        if self.before_first is not None:
            self.before_first()
        draw = next(self._draws)
        self._drawn += 1
        if self._has_own_state is None:
            self._has_own_state = self._draws.has_own_state()
        self._keep(self._progress, self._draws.progress)
        if self._has_own_state:
            self._keep(self._states, self._draws.state())
        return draw

    def _keep(self, kept: deque, after: Any) -> None:
        kept.append(after)
        while self.ahead is not None and len(kept) > self.ahead + 1:
            kept.popleft()

    def state(self, placeholders_seen: int, finished: bool) -> dict | None:
        """The sampler's state after the batches that torch has returned, placeholders among them."""
        returned = min(self._drawn, max(0, self.requested - (self.ahead or 0) - placeholders_seen))
        in_flight = 0 if finished else self._drawn - returned
        if self._has_own_state and not finished:
            return self._states[-1 - in_flight]
        return self._draws.state(self._progress[-1 - in_flight] if self._progress else None)


def _source_of(loader: DataLoader) -> MapSource | IterableSource | None:
    """The dataset with its state; None where it has none, and for datapipes, which torch treats specially."""
    dataset = loader.dataset
    if isinstance(dataset, (IterDataPipe, MapDataPipe)):
        return None
    if isinstance(dataset, IterableDataset):
        return IterableSource(dataset, loader.batch_size)
    return MapSource(dataset) if is_stateful(dataset) else None


def _mark_left(workers: list, how: str) -> list:
    """The states of workers that stay alive after their epoch; states of earlier epochs are unchanged."""
    return [state | {"after": how} if state and state["after"] is None else state for state in workers]
