"""torch's DataLoader with a state, and with batches copied to a GPU ahead of need.

In: everything that torch.utils.data.DataLoader takes. Out: its batches, by its own iterators and workers, in its
order. Promised: `state_dict()` between two batches is the place after the one delivered last, and
`load_state_dict()` makes the next iteration its rest, in the meaning of torchdata's StatefulDataLoader; attributes
stay what torch makes them. Exact are the samplers that draws.py finds again, datasets and iterators with
`state_dict` and `load_state_dict`, and the seeds of workers; an iterable dataset without is read again up to its
place. Not exact: random draws inside workers after a resume within an epoch, in_order=False, and, with persistent
workers, an epoch that follows one that was broken off.

Of torch's private names two are used, `_get_iterator` and `_index_sampler`: torch's iterator is made from a copy
of the loader (`_view`) that has other functions and another sampler where a state is to be remembered.
"""

import copy
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, IterDataPipe, MapDataPipe

from fastload.errors import CursorError
from fastload.loader.device import delivery, resolve_device
from fastload.loader.draws import Draws, generator_state, is_stateful, pass_over, set_generator
from fastload.loader.worker_state import Carried, Carry, IterableSource, MapSource, Placeholder, WorkerStart

VERSION = 1
_KEYS = ("kind", "num_workers", "delivered", "finished", "sampler", "workers", "last_worker", "generator")


class StatefulLoader(DataLoader):
    """torch.utils.data.DataLoader, its arguments and behaviour, and what follows.

    device: None and "cpu" leave batches where torch leaves them. With "cuda" ("auto": where there is one) they are
    copied there, one batch ahead, on a stream of the loader's own; tensors in containers, and objects that have
    `to`, are moved. Give pin_memory=True too, or memory is pinned by the training's thread.

    Raises: BackendError, CursorError, besides what torch raises.
    """

    def __init__(
        self,
        dataset,
        batch_size=1,
        shuffle=None,
        sampler=None,
        batch_sampler=None,
        num_workers=0,
        collate_fn=None,
        pin_memory=False,
        drop_last=False,
        timeout=0,
        worker_init_fn=None,
        multiprocessing_context=None,
        generator=None,
        *,
        prefetch_factor=None,
        persistent_workers=False,
        pin_memory_device="",
        in_order=True,
        device=None,
    ):
        super().__init__(
            dataset,
            batch_size=batch_size,
            shuffle=shuffle,
            sampler=sampler,
            batch_sampler=batch_sampler,
            num_workers=num_workers,
            collate_fn=collate_fn,
            pin_memory=pin_memory,
            drop_last=drop_last,
            timeout=timeout,
            worker_init_fn=worker_init_fn,
            multiprocessing_context=multiprocessing_context,
            generator=generator,
            prefetch_factor=prefetch_factor,
            persistent_workers=persistent_workers,
            pin_memory_device=pin_memory_device,
            in_order=in_order,
        )
        self.device = device
        self._epoch: _Epoch | None = None  # of the iteration begun last; holds no iterator of torch's
        self._restored: dict | None = None  # where the next iteration begins

    def __iter__(self) -> "_Iterator":
        lasting = self.persistent_workers and self.num_workers > 0
        if lasting and self._iterator is not None and self._epoch is not None:
            self._epoch.begin_next()
            self._iterator._reset(self)
            inner = self._iterator
        else:
            inner = self._get_iterator()
            if lasting:
                self._iterator = inner
        self._epoch.begun()
        there = None if self.device is None else delivery(resolve_device(self.device))
        return (
            _Iterator(inner, self._epoch)
            if there is None or there.stream is None
            else _Ahead(inner, self._epoch, there)
        )

    def state_dict(self) -> dict:
        """The place after the batch delivered last, a plain dict; it holds what your datasets' states hold."""
        if self.num_workers > 1 and not self.in_order:
            warnings.warn(
                "with in_order=False batches do not arrive in the order of the sampler: after a resume some may come "
                "twice and some not at all. Use in_order=True where that matters.",
                stacklevel=2,
            )
        if self._restored is not None:
            return copy.deepcopy(self._restored)
        return (self._epoch or _Epoch(self, None)).state()

    def load_state_dict(self, state_dict: dict) -> None:
        """The next iteration goes on at `state_dict`; {} is the beginning. Raises CursorError."""
        if state_dict:
            _check(state_dict, self)
        self._iterator = self._epoch = None
        self._restored = copy.deepcopy(state_dict) or None

    def _get_iterator(self):
        epoch = _Epoch(self, self._restored)
        inner = epoch.torch_iterator(self)
        if epoch.to_discard:
            _discard(inner, epoch)
        self._epoch, self._restored = epoch, None
        return inner

    @property
    def _index_sampler(self):
        recorded = self.__dict__.get("_recorded")
        return super()._index_sampler if recorded is None else recorded

    def __getstate__(self) -> dict:
        # Copies begin anew, as torch's do: what is under way holds iterators, which cannot be pickled.
        return self.__dict__ | {"_epoch": None}


class _Iterator:
    """One iteration: torch's iterator, and the record of what it delivered."""

    def __init__(self, inner: Iterator, epoch: "_Epoch"):
        self._inner, self._epoch = inner, epoch

    def __iter__(self) -> "_Iterator":
        return self

    def __len__(self) -> int:
        return len(self._inner)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_inner":
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __next__(self) -> Any:
        epoch = self._epoch
        try:
            batch = next(self._inner)
            while epoch.carries:
                if not isinstance(batch.batch, Placeholder):
                    batch = epoch.unpacked(batch)
                    break
                epoch.passed += 1
                batch = next(self._inner)
        except StopIteration:
            epoch.finished = True
            raise
        epoch.delivered += 1
        return batch


class _Ahead(_Iterator):
    """An iteration whose next batch is on its way to the device while the last is trained on."""

    def __init__(self, inner: Iterator, epoch: "_Epoch", there: Any):
        super().__init__(inner, epoch)
        self._there = there
        self._coming: deque = deque()  # (batch on its way or None, error or None, the state after it)
        epoch.shown = epoch.state()

    def __next__(self) -> Any:
        while len(self._coming) < 2 and not self._ended():
            self._fetch()
        delivered, error, self._epoch.shown = self._coming[0]
        if not isinstance(error, StopIteration):  # that one is raised for ever
            self._coming.popleft()
        if error is not None:
            raise error
        return self._there.hand_over(delivered)

    def _ended(self) -> bool:
        return bool(self._coming) and isinstance(self._coming[-1][1], StopIteration)

    def _fetch(self) -> None:
        delivered, error = None, None
        try:
            delivered = self._there.deliver(super().__next__(), lambda batch: batch)
        except Exception as raised:
            error = raised
        self._coming.append((delivered, error, self._epoch.snapshot()))


class _Epoch:
    """What is known of one iteration: how far it is, and the states of its dataset and sampler.

    restored: the state that it begins at. With persistent workers it is the record of all their epochs.
    """

    def __init__(self, loader: StatefulLoader, restored: dict | None):
        self._loader_generator = loader.generator
        self._iterable = isinstance(loader.dataset, IterableDataset)
        self._lasting = loader.persistent_workers
        self.num_workers, self.delivered, self.finished = loader.num_workers, 0, False
        self.shown: dict | None = None  # where batches are fetched ahead: the state of the one delivered
        self.passed = self.to_discard = 0
        self._start: str | None = None  # loader.generator before torch drew the workers' seed
        self._workers: list = [None] * max(1, loader.num_workers)
        self._last_worker: int | None = None
        place = self._restore(loader, restored) if restored is not None else None
        skips = 0 if self._last_worker is None else (self._last_worker + 1) % max(1, loader.num_workers)
        self._source = _source_of(loader)
        if self._iterable and self.delivered and not any(self._workers):
            self.to_discard, self.delivered, skips = self.delivered, 0, 0
        self._skips = skips if self.num_workers and self._source is not None else 0
        self._recorded = None if self._iterable else _Recorded(loader, place, self._skips)
        self.carries = self._source is not None and self.num_workers > 0

    def _restore(self, loader: StatefulLoader, restored: dict) -> dict | None:
        """The sampler's place; a state at an epoch's end begins the next, as the one process would have."""
        self._now = restored["generator"]["now"]
        self._start = restored["generator"]["start"]
        self._workers = list(restored["workers"])
        if not restored["finished"]:
            self.delivered, self._last_worker = restored["delivered"], restored["last_worker"]
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

    _now: str | None = None  # where loader.generator goes on after that seed was drawn; None: there

    def torch_iterator(self, loader: StatefulLoader) -> Iterator:
        """torch's own, made from a view of `loader`; the seeds of its workers are those of the saved run."""
        view = self._view(loader)
        if self._source is not None and not self.num_workers:
            self._source.restore(self._workers[0])
        generator = loader.generator
        if self._start is None and self._now is not None:
            set_generator(generator, self._now)
        if self._start is None:
            self._start = generator_state(generator)
            return DataLoader._get_iterator(view)
        after = self._now if generator is not None else generator_state(None)
        set_generator(generator, self._start)
        then = _Once(lambda: None if after is None else set_generator(generator, after))
        if self._recorded is not None:
            self._recorded.before_first = then
        try:
            return DataLoader._get_iterator(view)
        finally:
            then()

    def _view(self, loader: StatefulLoader) -> StatefulLoader:
        """A copy of the loader that only torch's iterator sees."""
        view = copy.copy(loader)
        changed = view.__dict__  # torch's __setattr__ refuses to change some of them
        changed["_recorded"] = self._recorded
        if self.carries:
            changed["collate_fn"] = Carry(loader.collate_fn, self._source)
            changed["worker_init_fn"] = WorkerStart(
                loader.worker_init_fn, self._source, self._workers, self._skips
            )
        if self._source is not None and (self._iterable or self._skips):
            changed["dataset"] = self._source
        return view

    def begun(self) -> None:
        """torch has drawn ahead what it will."""
        if self._recorded is not None:
            self._recorded.ahead = self._recorded.asked

    def begin_next(self) -> None:
        """The workers live on, and so do their datasets."""
        self._workers = _left(self._workers, "end" if self.finished else "break")
        self._last_worker, self.delivered, self.finished = None, 0, False
        self.passed, self.shown = 0, None
        if self._recorded is not None:
            self._recorded.begin_next()

    def unpacked(self, carried: Carried) -> Any:
        self._workers[carried.worker], self._last_worker = carried.state, carried.worker
        return carried.batch

    def state(self) -> dict:
        return copy.deepcopy(self.shown) if self.shown is not None else self.snapshot()

    def snapshot(self) -> dict:
        """A state that nothing changes any more."""
        workers = list(self._workers)
        if not self.num_workers:
            workers = [None if self._source is None else self._source.state()]
        settled = self.finished or self._start is None
        now = (
            generator_state(self._loader_generator)
            if settled and self._loader_generator is not None
            else None
        )
        return {
            "version": VERSION,
            "kind": "iterable" if self._iterable else "map",
            "num_workers": self.num_workers,
            "delivered": self.delivered,
            "finished": self.finished,
            "sampler": None if self._recorded is None else self._recorded.place(self.passed, self.finished),
            "workers": copy.deepcopy(workers) if self.num_workers else workers,
            "last_worker": self._last_worker,
            "generator": {"start": self._start, "now": now},
        }


class _Recorded:
    """What torch draws from instead of the sampler: remembers places, as batches are drawn ahead of need.

    torch asks once for each batch that it got from a worker, whether there is still one to draw or not, so that
    what it asked for less what it asked for at first is how many batches are through.
    """

    def __init__(self, loader: StatefulLoader, place: dict | None, placeholders: int):
        self._sampler = loader._index_sampler
        self._place, self._placeholders = place, placeholders
        self._placeholder = [Placeholder()] if loader._auto_collation else Placeholder()
        self.before_first: Callable | None = None
        self.asked = self._drawn = 0
        self.ahead: int | None = None  # what torch asked for before the first batch
        self._draws = Draws(self._sampler, place)
        self._places: deque = (
            deque()
        )  # where the sampler has a state: after each draw that is not through yet

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> "_Recorded":
        self._draws = Draws(self._sampler, self._place)
        if self._place is None and self.before_first is None:
            self._draws.begin()
        self._places = deque([self._draws.state()])
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
        if self._draws.has_own_place():
            self._places.append(self._draws.state())
            while self.ahead is not None and len(self._places) > self.ahead + 1:
                self._places.popleft()
        return drawn

    def place(self, passed: int, finished: bool) -> dict | None:
        """After the batches that are through; `passed` of them were placeholders."""
        through = min(self._drawn, max(0, self.asked - (self.ahead or 0) - passed))
        under_way = 0 if finished else self._drawn - through
        if self._places and not finished and self._draws.has_own_place():
            return self._places[-1 - under_way]
        state = self._draws.state()
        return state and {**state, "taken": state["taken"] - under_way}


class _Once:
    """Calls a function the first time that it is called."""

    def __init__(self, function: Callable):
        self._function = function

    def __call__(self) -> None:
        function, self._function = self._function, None
        if function is not None:
            function()


def _source_of(loader: StatefulLoader) -> MapSource | IterableSource | None:
    """The keeper of the dataset's state; None where it cannot have one. torch alone knows datapipes' graphs."""
    dataset = loader.dataset
    if isinstance(dataset, (IterDataPipe, MapDataPipe)):
        return None
    if isinstance(dataset, IterableDataset):
        return IterableSource(dataset, loader.batch_size)
    return MapSource(dataset) if is_stateful(dataset) else None


def _left(workers: list, how: str) -> list:
    """The states of workers that live on after their epoch ended; those that are older stay as they are."""
    return [one if one is None or one["after"] is not None else one | {"after": how} for one in workers]


def _discard(inner: Iterator, epoch: _Epoch) -> None:
    """Reads an iterable dataset without a state up to its place."""
    warnings.warn(
        f"neither the dataset nor its iterator has state_dict and load_state_dict: {epoch.to_discard} batches are "
        "read again and dropped. Give one of them both for a faster resume.",
        stacklevel=4,
    )
    reading = _Iterator(inner, epoch)
    for done in range(epoch.to_discard):
        try:
            next(reading)
        except StopIteration:
            raise CursorError(
                f"the checkpoint was saved after {epoch.to_discard} batches, and the dataset has {done} now. Use the "
                "dataset and the batch size that it was saved with."
            ) from None


def _check(state: Any, loader: StatefulLoader) -> None:
    if (
        not isinstance(state, dict)
        or state.get("version") != VERSION
        or not all(name in state for name in _KEYS)
    ):
        raise CursorError(
            f"this is no state of a loader of torch datasets: {str(state)[:80]!r}. Give what its state_dict() returned."
        )
    kind = "iterable" if isinstance(loader.dataset, IterableDataset) else "map"
    if state["kind"] != kind:
        raise CursorError(
            f"the checkpoint is of a dataset of kind {state['kind']!r}, this one is {kind!r}. Use the dataset that it was "
            "saved with."
        )
    if state["num_workers"] != loader.num_workers:
        raise CursorError(
            f"the checkpoint was saved with num_workers={state['num_workers']}, this loader has {loader.num_workers}: each "
            f"worker has a place of its own. Use num_workers={state['num_workers']}, or begin the epoch anew."
        )
