"""The record of an iteration over a torch DataLoader: what was drawn, what is through, the workers' states.

In: a loader, and the state that it goes on at. Out: torch's own iterator, made from a view of the loader in
which the sampler remembers its draws and batches carry the states of workers; a state at any time. Promised:
of torch's iterator nothing is read or written; where neither the sampler nor the dataset has a state of its
own, a batch costs no more than a count and a checksum of what was drawn for it. A state has the same shape
whatever it holds (state_format.py).
"""

import copy
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, IterDataPipe, MapDataPipe

from fastload.drop_in.state_format import VERSION, encoded
from fastload.drop_in.worker_state import (
    Carried,
    Carry,
    IterableSource,
    MapSource,
    Placeholder,
    WorkerStart,
    no_state,
)
from fastload.loader.orders.global_generator import GlobalGenerator
from fastload.loader.orders.sampler_state import (
    Draws,
    as_they_were,
    epoch_of,
    generator_state,
    is_stateful,
    pass_over,
    rank_here,
    set_generator,
)


class Epoch:
    """What is known of one iteration: how far it is, and the states of its dataset and sampler.

    restored: the state that it begins at. global_generator: the loader's. With persistent workers it is the
    record of all their epochs.
    """

    def __init__(self, loader: DataLoader, restored: dict | None, global_generator: GlobalGenerator):
        self._generator, self._global = loader.generator, global_generator
        self._iterable = isinstance(loader.dataset, IterableDataset)
        self._lasting, self._batch_size = loader.persistent_workers, loader.batch_size
        self.num_workers, self.delivered, self.finished = loader.num_workers, 0, False
        self.shown: dict | None = None  # where batches are fetched ahead: the state of the one delivered
        self.passed = self.to_discard = 0
        # loader.generator before torch drew the workers' seed, and where it goes on after; None: there
        self._start: str | None = None
        self._now: str | None = None
        self._workers: list = [None] * max(1, loader.num_workers)
        self._last_worker: int | None = None
        self._dice: dict | None = None
        place = self._restore(loader, restored) if restored is not None else None
        skips = 0 if self._last_worker is None else (self._last_worker + 1) % max(1, loader.num_workers)
        self._source = _source_of(loader)
        if any(self._workers) and self._source is None:
            raise no_state(loader.dataset)
        if self._iterable and self.delivered and not any(self._workers):
            self.to_discard, self.delivered, skips = self.delivered, 0, 0
        self._skips = skips if self.num_workers and self._source is not None else 0
        drawing = global_generator.drawing
        self._recorded = None if self._iterable else Recorded(loader, place, self._skips, drawing)
        self.carries = self._source is not None and self.num_workers > 0

    def _restore(self, loader: DataLoader, restored: dict) -> dict | None:
        """The sampler's place; a state at an epoch's end begins the next, as the one process would have."""
        self._now = restored["generator"]["now"]
        self._start = restored["generator"]["start"]
        self._workers = list(restored["workers"])
        if not restored["finished"] and not _is_sent_on(loader, restored):
            self.delivered, self._last_worker = restored["delivered"], restored["last_worker"]
            self._dice = restored["dice"]
            return restored["sampler"]
        if restored["sampler"] is not None:
            pass_over(loader._index_sampler, restored["sampler"])
        if self._lasting or not self.num_workers:
            self._workers = _left(self._workers, "end")
        else:
            self._workers = [None] * self.num_workers
        if not self._lasting:
            self._start = None
        return None

    def torch_iterator(self, loader: DataLoader) -> Iterator:
        """torch's own, made from a view of `loader`; the seeds of its workers are those of the saved run."""
        view = self._view(loader)
        if self._source is not None and not self.num_workers:
            self._source.restore(self._workers[0])
            self._source.dice = self._dice
        self._global.begin()
        if self._start is None and self._now is not None:
            set_generator(loader.generator, self._now)
        with ExitStack() as swapped:  # while torch draws the workers' seed; closed before a dataset draws
            if self._iterable and not self.num_workers and self._source is not None:
                self._source.before_iter, self._source.drawing = swapped.close, self._global.drawing
            if self._start is None:
                swapped.enter_context(self._global.drawing())
                self._start = generator_state(loader.generator)
            else:
                swapped.enter_context(_as_it_was(loader.generator, self._start, self._now))
                if self._recorded is not None:
                    self._recorded.before_first = swapped.close
            return DataLoader._get_iterator(view)

    def reset(self, iterator: Iterator, loader: DataLoader) -> None:
        """Lets torch's iterator, whose workers live on, begin the next epoch."""
        self._workers = _left(self._workers, "end" if self.finished else "break")
        self._last_worker, self.delivered, self.finished = None, 0, False
        self.passed, self.shown = 0, None
        if self._recorded is not None:
            self._recorded.begin_next()
        self._global.begin()
        with self._global.drawing():
            iterator._reset(loader)

    def _view(self, loader: DataLoader) -> DataLoader:
        """A copy of the loader that only torch's iterator sees."""
        view = object.__new__(type(loader))  # copy.copy asks a __getattr__ of yours before there is anything
        changed = view.__dict__  # torch's __setattr__ refuses to change some of them
        changed.update(loader.__dict__, _recorded=self._recorded)
        if self.carries:
            changed["collate_fn"] = Carry(loader.collate_fn, self._source)
            changed["worker_init_fn"] = WorkerStart(
                loader.worker_init_fn, self._source, self._workers, self._skips
            )
        if self._source is not None and (self._iterable or self._skips):
            changed["dataset"] = self._source
        return view

    def dice(self) -> AbstractContextManager:
        """While it lasts, generators are as before the first draw of a dataset that is read again."""
        if self._source is None or self._source.dice is None:
            return nullcontext()
        return as_they_were(self._source.dice["first"] or {}, self._source.dataset)

    def begun(self) -> None:
        """torch has drawn ahead what it will."""
        if self._recorded is not None:
            self._recorded.ahead = self._recorded.asked

    def unpacked(self, carried: Carried) -> Any:
        self._workers[carried.worker], self._last_worker = carried.state, carried.worker
        return carried.batch

    def state(self) -> dict:
        """The state of the loader; nothing changes it any more."""
        state = copy.deepcopy(self.shown or self.snapshot())
        return encoded(state | {"global_generator": self._global.state(), "rank": rank_here()})

    def snapshot(self) -> dict:
        """The place after the batch that torch gave last, to be copied before it is given away."""
        workers = list(self._workers)
        if not self.num_workers:
            workers = [None if self._source is None else self._source.state()]
        now = None if self._generator is None else generator_state(self._generator)
        return {
            "version": VERSION,
            "kind": "iterable" if self._iterable else "map",
            "num_workers": self.num_workers,
            "batch_size": self._batch_size,
            "delivered": self.delivered,
            "finished": self.finished,
            "sampler": None if self._recorded is None else self._recorded.place(self.passed, self.finished),
            "workers": workers,
            "last_worker": self._last_worker,
            "generator": {"start": self._start, "now": now},
            "dice": None if self._source is None else self._source.dice,
        }


def _is_sent_on(loader: DataLoader, restored: dict) -> bool:
    """Whether nothing is left of the epoch, and the sampler was told another one since the state was loaded.

    So does a program that computes the epoch from the steps that it has done, where the last of an epoch was
    saved; the rest that the state speaks of would be an epoch without batches.
    """
    sampler, place = loader._index_sampler, restored["sampler"]
    if place is None or place["epoch"] is None or epoch_of(sampler) == place["epoch"]:
        return False
    if restored["batch_size"] != loader.batch_size:
        return False
    try:
        return restored["delivered"] == len(sampler)
    except TypeError:  # nobody knows how long it is
        return False


@contextmanager
def _as_it_was(generator: Any, state: str, now: str | None) -> Iterator[None]:
    """Puts a generator back to `state` for a while; None is torch's global one.

    now: where it goes on afterwards, if it is the loader's own; the global one goes on where it is.
    """
    after = generator_state(None) if generator is None else now
    set_generator(generator, state)
    try:
        yield
    finally:
        if after is not None:
            set_generator(generator, after)


class Recorded:
    """What torch draws from instead of the sampler: remembers places, as batches are drawn ahead of need.

    torch asks once for each batch that it got from a worker, whether there is still one to draw or not, so
    that what it asked for less what it asked for at first is how many batches are through.
    """

    def __init__(self, loader: DataLoader, place: dict | None, placeholders: int, drawing: Callable):
        self._sampler = loader._index_sampler
        self._place, self._placeholders = place, placeholders
        self._placeholder = [Placeholder()] if loader._auto_collation else Placeholder()
        self.before_first: Callable | None = None
        self.asked = self._drawn = 0
        self.ahead: int | None = None  # what torch asked for before the first batch
        self._drawing = drawing
        self._draws = Draws(self._sampler, place, drawing)
        self._keeps: bool | None = None  # whether the sampler has a state
        self._places: deque = deque()  # its places, after each draw that is not through yet
        self._passed: deque = deque()  # what was drawn until then

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> "Recorded":
        self._draws = Draws(self._sampler, self._place, self._drawing)
        if self._place is None and self.before_first is None:
            self._draws.begin()
        self._keeps, self._places = None, deque([self._draws.state()])
        self._passed = deque([self._draws.passed])
        self.asked = self._drawn = 0
        self.ahead = None
        return self

    def begin_next(self) -> None:
        """torch is about to ask for the iterator again."""
        self._place, self._placeholders, self.before_first = None, 0, None

    def __next__(self) -> Any:
        self.asked += 1
        if self.asked <= self._placeholders:
            return self._placeholder
        if self.before_first is not None:
            self.before_first()
        drawn = next(self._draws)
        self._drawn += 1
        if self._keeps is None:
            self._keeps = self._draws.has_own_place()
        self._keep(self._passed, self._draws.passed)
        if self._keeps:
            self._keep(self._places, self._draws.state())
        return drawn

    def _keep(self, kept: deque, after: Any) -> None:
        kept.append(after)
        while self.ahead is not None and len(kept) > self.ahead + 1:
            kept.popleft()

    def place(self, passed: int, finished: bool) -> dict | None:
        """After the batches that are through; `passed` of them were placeholders."""
        through = min(self._drawn, max(0, self.asked - (self.ahead or 0) - passed))
        under_way = 0 if finished else self._drawn - through
        if self._keeps and not finished:
            return self._places[-1 - under_way]
        return self._draws.state(self._passed[-1 - under_way] if self._passed else None)


def _source_of(loader: DataLoader) -> MapSource | IterableSource | None:
    """The keeper of the dataset's state; None where there is none, and for datapipes: torch knows them."""
    dataset = loader.dataset
    if isinstance(dataset, (IterDataPipe, MapDataPipe)):
        return None
    if isinstance(dataset, IterableDataset):
        return IterableSource(dataset, loader.batch_size)
    return MapSource(dataset) if is_stateful(dataset) else None


def _left(workers: list, how: str) -> list:
    """The states of workers that live on after their epoch ended; those that are older stay as they are."""
    return [one if one is None or one["after"] is not None else one | {"after": how} for one in workers]
