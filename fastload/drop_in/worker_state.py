"""What runs beside a torch dataset, in its worker or in the main process, so that its place can be saved.

In: the dataset of yours, and the states that its workers were saved with. Out: batches with the state after
each (`Carried`). Promised: torchdata's order of loading: the dataset's state, then its iterator is made, then
the iterator's state; the dataset in `get_worker_info()` is yours; everything here can be pickled, for spawn
and forkserver. A state: {"dataset", "iterator": their own states or None, "ended": the iterator has raised
StopIteration, "after": None, or how the epoch that it is of was left ("end" or "break"), where it is the next
that goes on}.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch.utils.data import Dataset, IterableDataset, get_worker_info
from torch.utils.data._utils.pin_memory import pin_memory

from fastload.errors import CursorError
from fastload.loader.orders.sampler_state import as_they_were, generators_of, is_stateful, used_since


class Placeholder:
    """Stands for a sample of a batch that only passes torch's turn on to the next worker."""


class Carried:
    """A batch on its way from a worker, which worker, and its state after it."""

    def __init__(self, batch: Any, worker: int, state: dict | None):
        self.batch, self.worker, self.state = batch, worker, state

    def pin_memory(self) -> "Carried":
        """torch's pin thread asks for it: only the batch is pinned."""
        return Carried(pin_memory(self.batch), self.worker, self.state)


class Carry:
    """A collate_fn that lets each batch carry the state of `source`."""

    def __init__(self, collate_fn: Callable, source: "MapSource | IterableSource"):
        self._collate_fn, self._source = collate_fn, source

    def __call__(self, samples: Any) -> Carried:
        worker = get_worker_info().id
        first = samples[0] if type(samples) is list and samples else samples
        if isinstance(first, Placeholder):
            return Carried(first, worker, None)
        return Carried(self._collate_fn(samples), worker, self._source.state())


class WorkerStart:
    """A worker_init_fn that calls yours, then loads the worker's state.

    states: one per worker, None where it starts afresh. placeholders: the workers below it give one batch of
    them first.
    """

    def __init__(
        self, init_fn: Callable | None, source: "MapSource | IterableSource", states: list, placeholders: int
    ):
        self._init_fn, self._source = init_fn, source
        self._states, self._placeholders = states, placeholders

    def __call__(self, worker_id: int) -> None:
        worker = get_worker_info()
        if worker.dataset is self._source:
            # It refuses to be written to; an __iter__ and a worker_init_fn look there for your dataset.
            object.__setattr__(worker, "dataset", self._source.dataset)
        if self._init_fn is not None:
            self._init_fn(worker_id)
        self._source.restore(self._states[worker_id], worker_id < self._placeholders)


class MapSource(Dataset):
    """A map-style dataset with a state of its own."""

    dice = None

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def restore(self, state: dict | None, placeholder: bool = False) -> None:
        if state is not None:
            _load(self.dataset, state["dataset"])

    def state(self) -> dict | None:
        return _state(self.dataset.state_dict(), None)

    def __getitem__(self, index: Any) -> Any:
        return index if isinstance(index, Placeholder) else self.dataset[index]

    @property
    def __getitems__(self) -> Callable | None:
        return self._many if getattr(self.dataset, "__getitems__", None) else None

    def _many(self, indices: list) -> list:
        return indices if isinstance(indices[0], Placeholder) else self.dataset.__getitems__(indices)


class IterableSource(IterableDataset):
    """An iterable dataset, and the iterator that torch made of it. batch_size: of a batch of placeholders.

    dice: the generators that a dataset without a state drew from in the main process, as they were: {"iter":
    before its iter(), "first": before its first sample, None before it}. Workers have seeds instead.
    before_iter(): called when torch asks for the iterator. drawing(): a context for what such a dataset draws
    of its order, see global_generator.py. Both are the main process's: what workers get has none.
    """

    def __init__(self, dataset: IterableDataset, batch_size: int | None):
        self.dataset, self._batch_size = dataset, batch_size or 1
        self._iterator, self._ended = None, False
        self._restored, self._placeholders = None, 0
        self._kept: dict | None = None  # what was restored, until something is drawn
        self.dice: dict | None = None
        self.before_iter: Callable[[], None] | None = None
        self.drawing: Callable[[], AbstractContextManager] = nullcontext

    def __repr__(self) -> str:
        return repr(self.dataset)  # torch's warning about a wrong length shows it

    def restore(self, state: dict | None, placeholder: bool = False) -> None:
        """Loads the dataset's state; the rest is for the next `__iter__`."""
        self._restored = self._kept = state
        self._placeholders = self._batch_size if placeholder else 0
        if state is not None and state["dataset"] is not None:
            _load(self.dataset, state["dataset"])

    def __iter__(self) -> "IterableSource":
        if self.before_iter is not None:
            self.before_iter()
        state, self._restored = self._restored, None
        self._iterator, self._ended = self._begin(), False
        if state is None:
            return self
        if state["iterator"] is not None:
            _load(self._iterator, state["iterator"])
        if state["ended"]:
            self._pass_end(state)
        if state["after"] is None:
            self._ended = state["ended"]
            return self
        if state["after"] == "end" and not state["ended"]:
            for _ in self._iterator:  # there is nothing left but what the dataset does at its end
                pass
        self._iterator = iter(self.dataset)
        return self

    def _begin(self) -> Iterator:
        if self.dice is not None:
            with as_they_were(self.dice["iter"], self.dataset):
                return iter(self.dataset)
        if get_worker_info() is not None or is_stateful(self.dataset):
            return iter(self.dataset)
        with self.drawing():
            before = generators_of(self.dataset)
            iterator = iter(self.dataset)
            used = used_since(before, self.dataset)
        if not is_stateful(iterator):
            self.dice = {"iter": used, "first": None}
        return iterator

    def _pass_end(self, state: dict) -> None:
        """Lets a dataset whose iterator had ended do again what it does then, such as to forget its place."""
        with as_they_were(generators_of(self.dataset), self.dataset):
            starts_anew = next(self._iterator, _NOTHING) is not _NOTHING
        if starts_anew and state["dataset"] is not None:  # it has rewound itself: its state is a beginning
            _load(self.dataset, state["dataset"])

    def __next__(self) -> Any:
        if self._placeholders:
            self._placeholders -= 1
            return Placeholder()
        if self._ended:
            raise StopIteration
        self._kept = None
        try:
            if self.dice is not None and self.dice["first"] is None:
                return self._first()
            return next(self._iterator)
        except StopIteration:
            self._ended = True
            raise

    def _first(self) -> Any:
        with self.drawing():
            before = generators_of(self.dataset)
            drawn = next(self._iterator)
            self.dice = self.dice | {"first": used_since(before, self.dataset)}
        return drawn

    def state(self) -> dict | None:
        """None where neither the dataset nor its iterator has a state.

        What was restored, until something is drawn: a generator that was not begun has not looked at it yet.
        """
        if self._kept is not None:
            return self._kept
        iterator = self._iterator if is_stateful(self._iterator) else None
        dataset = self.dataset if is_stateful(self.dataset) and iterator is not self.dataset else None
        if iterator is None and dataset is None:
            return None
        states = (None if one is None else one.state_dict() for one in (dataset, iterator))
        return _state(*states, ended=self._ended)


_NOTHING = object()


def _state(dataset: Any, iterator: Any, ended: bool = False) -> dict:
    # A copy: torch's queue pickles in a thread of its own, while the dataset goes on.
    return copy.deepcopy({"dataset": dataset, "iterator": iterator, "ended": ended, "after": None})


def _load(one: Any, state: Any) -> None:
    if not is_stateful(one):
        raise no_state(one)
    one.load_state_dict(copy.deepcopy(state))


def no_state(one: Any) -> CursorError:
    """What is raised where a state has nothing to be loaded into."""
    return CursorError(
        f"the checkpoint holds the state of a dataset or its iterator, and {type(one).__name__} has no "
        "state_dict and load_state_dict. Use the dataset that it was saved with."
    )
