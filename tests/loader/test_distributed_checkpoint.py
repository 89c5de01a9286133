"""torch.distributed.checkpoint saves and loads every loader's state: its shape is the same at every place."""

import copy
import io
import json
import pickle

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.utils.data import Dataset, DistributedSampler, IterableDataset, RandomSampler, get_worker_info

import fastload as fl
from fastload.errors import CursorError
from tests.loader.samples import labels

N = 23
pytestmark = pytest.mark.filterwarnings(
    "ignore:torch.distributed is", "ignore:TypedStorage", "ignore:neither the dataset nor its iterator"
)


class Numbers(Dataset):
    """A map-style dataset, and one whose state has no shape that anybody could know beforehand."""

    def __init__(self, stateful=False):
        self.seen, self.stateful = {}, stateful
        if stateful:
            self.state_dict = lambda: {**self.seen, "sum": torch.tensor(len(self.seen))}
            self.load_state_dict = self._load

    def __len__(self):
        return N

    def __getitem__(self, index):
        self.seen[f"sample {index}"] = [{"seen": True}]
        return (index, len(self.seen)) if self.stateful else index

    def _load(self, state):
        assert int(state.pop("sum")) == len(state)
        self.seen = state


class Stream(IterableDataset):
    def __iter__(self):
        worker = get_worker_info()
        yield from range(0 if worker is None else worker.id, N, 1 if worker is None else worker.num_workers)


class StatefulStream(Stream):
    """Its state is {} at first, then holds tuples and tensors."""

    place = ()

    def __iter__(self):
        for one in list(super().__iter__())[len(self.place) :]:
            self.place = (*self.place, torch.tensor(one))
            yield one
        self.place = ()

    def state_dict(self):
        return {"place": self.place, "nested": [{"more": [torch.ones(1)]}]} if self.place else {}

    def load_state_dict(self, state):
        self.place = state.get("place", ())


class Place:
    """A sampler whose iterator has a state, of another shape after each draw."""

    def __iter__(self):
        return _PlaceIterator()

    def __len__(self):
        return N


class _PlaceIterator:
    def __init__(self):
        self.drawn = {}

    def __iter__(self):
        return self

    def __next__(self):
        if len(self.drawn) == N:
            raise StopIteration
        self.drawn[str(len(self.drawn))] = {}
        return N - len(self.drawn)

    def state_dict(self):
        return self.drawn

    def load_state_dict(self, state):
        self.drawn = state


LOADERS = {
    "map": lambda shards: fl.DataLoader(Numbers(), 4, shuffle=True),
    "map, in workers": lambda shards: fl.DataLoader(Numbers(), 4, shuffle=True, num_workers=2),
    "map, generator": lambda shards: fl.DataLoader(
        Numbers(), 4, shuffle=True, generator=torch.Generator().manual_seed(1)
    ),
    "map, stateful": lambda shards: fl.DataLoader(Numbers(True), 4),
    "map, sampler with a state": lambda shards: fl.DataLoader(Numbers(), 4, sampler=Place()),
    "iterable": lambda shards: fl.DataLoader(Stream(), 4),
    "iterable, stateful": lambda shards: fl.DataLoader(StatefulStream(), 4),
    "iterable, stateful, in workers": lambda shards: fl.DataLoader(StatefulStream(), 4, num_workers=2),
    "Loader": lambda shards: labels(shards),
    "Loader of a mixture": lambda shards: labels(
        fl.Mixture({"a": (shards, 0.7), "b": (shards, 0.3)}, epoch_samples=N)
    ),
    "Loader, sampler": lambda shards: labels(shards, sampler=RandomSampler(range(N))),
    "Loader, distributed sampler": lambda shards: labels(shards, sampler=DistributedSampler(range(N), 1, 0)),
    "Loader, sampler with a state": lambda shards: labels(shards, sampler=Place()),
    "fl.Dataset, sampler": lambda shards: fl.DataLoader(
        fl.Dataset(shards, {"label": fl.Int("cls")}), 4, sampler=RandomSampler(range(N))
    ),
}
each = pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)


def plain(batch):
    batch = batch["label"] if isinstance(batch, dict) else batch
    return [one.tolist() for one in batch] if isinstance(batch, list) else batch.tolist()


def save(loader, path):
    dcp.save({"loader": loader}, checkpoint_id=path, no_dist=True)


def load(loader, path):
    dcp.load({"loader": loader}, checkpoint_id=path, no_dist=True)


@each
def test_a_checkpoint_of_any_place_is_loaded_into_a_fresh_loader_and_into_a_used_one(shards, tmp_path, make):
    loader = make(shards)
    save(loader, tmp_path / "fresh")
    iterator = iter(loader)
    first = [plain(next(iterator)) for _ in range(2)]
    save(loader, tmp_path / "middle")
    rest = [plain(batch) for batch in iterator]
    save(loader, tmp_path / "end")
    expected = {"fresh": first + rest, "middle": rest, "end": [plain(batch) for batch in loader]}
    torch.manual_seed(77)
    for used in (False, True):
        for place, batches in expected.items():
            again = make(shards)
            if used:
                next(iter(again))
            load(again, tmp_path / place)
            assert [plain(batch) for batch in again] == batches, (place, used)


@each
def test_a_state_has_the_same_keys_at_every_place(shards, make):
    loader = make(shards)

    def keys():
        return {*flatten_state_dict(loader.state_dict())[0]}

    fresh = keys()
    iterator = iter(loader)
    assert keys() == fresh
    for _ in iterator:
        assert keys() == fresh
    assert keys() == fresh


@each
def test_states_survive_copies_pickle_and_torch_save_with_weights_only(shards, make):
    loader = make(shards)
    iterator = iter(loader)
    next(iterator), next(iterator)
    state = loader.state_dict()
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    ways = [copy.deepcopy(state), pickle.loads(pickle.dumps(state)), torch.load(file, weights_only=True)]
    rest = [plain(batch) for batch in iterator]
    for one in ways:
        again = make(shards)
        again.load_state_dict(one)
        assert [plain(batch) for batch in again] == rest


@each
def test_a_state_of_json_values_is_what_it_was_after_json(shards, make):
    loader = make(shards)
    iterator = iter(loader)
    next(iterator), next(iterator)
    state = loader.state_dict()
    try:
        text = json.dumps(state)
    except TypeError:
        assert "tensor" in repr(state)
        return
    assert json.loads(text) == state
    again = make(shards)
    again.load_state_dict(json.loads(text))
    assert [plain(batch) for batch in again] == [plain(batch) for batch in iterator]


def test_a_checkpoint_of_other_workers_is_refused_with_the_reason(tmp_path):
    loader = fl.DataLoader(Numbers(), 4, num_workers=2)
    save(loader, tmp_path)
    with pytest.raises(CursorError, match="saved with num_workers=2, but this loader has 0"):
        load(fl.DataLoader(Numbers(), 4), tmp_path)
