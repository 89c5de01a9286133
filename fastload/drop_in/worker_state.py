"""The state of a torch dataset, saved and restored in the process that reads it: a worker, or the main one.

In: a user's dataset, and the states that its workers were saved with. Out: batches, each with the state
after it (`BatchWithState`). Promised: torchdata's order of loading: the dataset's state is loaded, its
iterator is made, the iterator's state is loaded. The dataset in `get_worker_info()` is the user's.
Everything here can be pickled, for spawn and forkserver. A state: {"dataset", "iterator": their own states
or None, "ended": whether the iterator has raised StopIteration, "after": None, or, where the next epoch is
the one to resume, how the epoch of the state was left: "end" or "break"}.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch.utils.data import Dataset, IterableDataset, get_worker_info
from torch.utils.data._utils.pin_memory import pin_memory

from fastload.errors import CursorError
from fastload.loader.orders.generators import generator_states, restored, used_generators
from fastload.loader.orders.sampler_state import is_stateful


class Placeholder:
    """A sample of an empty batch, which makes torch turn to the next worker."""


class BatchWithState:
    """A batch from a worker, the worker's number, and its state after the batch."""

    def __init__(self, batch: Any, worker: int, state: dict | None):
        self.batch, self.worker, self.state = batch, worker, state

    def pin_memory(self) -> "BatchWithState":
        """Called by torch's pin thread: only the batch is pinned."""
        return BatchWithState(pin_memory(self.batch), self.worker, self.state)


class CollateWithState:
    """A collate_fn that adds the state of `source` to each batch."""

    def __init__(self, collate_fn: Callable, source: "MapSource | IterableSource"):
        self._collate_fn, self._source = collate_fn, source

    def __call__(self, samples: Any) -> BatchWithState:
        worker = get_worker_info().id
        first = samples[0] if type(samples) is list and samples else samples
        if isinstance(first, Placeholder):
            return BatchWithState(first, worker, None)
        return BatchWithState(self._collate_fn(samples), worker, self._source.state())


class WorkerStart:
    """A worker_init_fn that calls the user's, then loads the worker's state.

    states: one per worker, None for a worker that starts afresh. placeholders: how many workers, the first
    ones, return a batch of placeholders first.
    """

    def __init__(
        self, init_fn: Callable | None, source: "MapSource | IterableSource", states: list, placeholders: int
    ):
        self._init_fn, self._source = init_fn, source
        self._states, self._placeholders = states, placeholders

    def __call__(self, worker_id: int) -> None:
        worker = get_worker_info()
        if worker.dataset is self._source:
            # It refuses plain assignment; an __iter__ and a worker_init_fn look there for the user's dataset.
            object.__setattr__(worker, "dataset", self._source.dataset)
        if self._init_fn is not None:
            self._init_fn(worker_id)
        self._source.restore(self._states[worker_id], worker_id < self._placeholders)


class MapSource(Dataset):
    """A map-style dataset with a state of its own."""

    generators = None

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
        return self._get_items if getattr(self.dataset, "__getitems__", None) else None

    def _get_items(self, indices: list) -> list:
        return indices if isinstance(indices[0], Placeholder) else self.dataset.__getitems__(indices)


class IterableSource(IterableDataset):
    """An iterable dataset, and the iterator that torch made of it. batch_size: of a batch of placeholders.

    generators: states of the generators that a dataset without a state of its own drew from in the main
    process: {"iter": before its iter(), "first": before its first sample, None until then}. Workers have
    seeds instead. before_iter(): called when torch asks for the iterator. generator_context(): a context for
    the draws that decide the order of such a dataset, see global_generator.py. Both are set in the main
    process only.
    """

    def __init__(self, dataset: IterableDataset, batch_size: int | None):
        self.dataset, self._batch_size = dataset, batch_size or 1
        self._iterator, self._ended = None, False
        self._restored, self._placeholders = None, 0
        self._loaded: dict | None = None  # the restored state, until the next sample
        self.generators: dict | None = None
        self.before_iter: Callable[[], None] | None = None
        self.generator_context: Callable[[], AbstractContextManager] = nullcontext

    def __repr__(self) -> str:
        return repr(self.dataset)  # shown in torch's warning about a wrong length

    def restore(self, state: dict | None, placeholder: bool = False) -> None:
        """Loads the dataset's state; the next `__iter__` loads that of the iterator."""
        self._restored = self._loaded = state
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
            for _ in self._iterator:  # there are no samples left, but the dataset may do something at its end
                pass
        self._iterator = iter(self.dataset)
        return self

    def _begin(self) -> Iterator:
        if self.generators is not None:
            with restored(self.generators["iter"], self.dataset):
                return iter(self.dataset)
        if get_worker_info() is not None or is_stateful(self.dataset):
            return iter(self.dataset)
        with self.generator_context():
            before = generator_states(self.dataset)
            iterator = iter(self.dataset)
            used = used_generators(before, self.dataset)
        if not is_stateful(iterator):
            self.generators = {"iter": used, "first": None}
        return iterator

    def _pass_end(self, state: dict) -> None:
        """Repeats what a dataset does when its iterator ends, such as resetting its state."""
        with restored(generator_states(self.dataset), self.dataset):
            has_rewound = next(self._iterator, _END) is not _END
        if has_rewound and state["dataset"] is not None:  # its saved state was a beginning: load it once more
            _load(self.dataset, state["dataset"])

    def __next__(self) -> Any:
        if self._placeholders:
            self._placeholders -= 1
            return Placeholder()
        if self._ended:
            raise StopIteration
        self._loaded = None
        try:
            if self.generators is not None and self.generators["first"] is None:
                return self._first()
            return next(self._iterator)
        except StopIteration:
            self._ended = True
            raise

    def _first(self) -> Any:
        with self.generator_context():
            before = generator_states(self.dataset)
            sample = next(self._iterator)
            self.generators = self.generators | {"first": used_generators(before, self.dataset)}
        return sample

    def state(self) -> dict | None:
        """None where neither the dataset nor its iterator has a state.

        The restored state until the next sample: an iterator that has not begun has not taken it over yet.
        """
        if self._loaded is not None:
            return self._loaded
        iterator = self._iterator if is_stateful(self._iterator) else None
        dataset = self.dataset if is_stateful(self.dataset) and iterator is not self.dataset else None
        if iterator is None and dataset is None:
            return None
        states = (None if owner is None else owner.state_dict() for owner in (dataset, iterator))
        return _state(*states, ended=self._ended)


_END = object()


def _state(dataset: Any, iterator: Any, ended: bool = False) -> dict:
    # A copy, because torch's queue pickles it in another thread while the dataset moves on.
    return copy.deepcopy({"dataset": dataset, "iterator": iterator, "ended": ended, "after": None})


def _load(owner: Any, state: Any) -> None:
    if not is_stateful(owner):
        raise stateless_error(owner)
    owner.load_state_dict(copy.deepcopy(state))


def stateless_error(owner: Any) -> CursorError:
    """The error for a state that cannot be loaded."""
    return CursorError(
        f"the checkpoint holds the state of a dataset or its iterator, but {type(owner).__name__} has no "
        "state_dict and load_state_dict. Use the dataset that it was saved with."
    )
