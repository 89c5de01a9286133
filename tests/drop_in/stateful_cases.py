"""Datasets, samplers and loaders, with and without states of their own, for the tests of loaders' states."""

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    get_worker_info,
)
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

from fastload import DataLoader as OurLoader
from tests.quick import slow_but

both = pytest.mark.parametrize("loader_class", [StatefulDataLoader, OurLoader], ids=["torchdata", "ours"])
workers = pytest.mark.parametrize("num_workers", [0, 2])
# What torchdata's loader does with workers is known, and slow.
LOADERS = {"torchdata-0": (StatefulDataLoader, 0), "ours-0": (OurLoader, 0)}
LOADERS |= {"torchdata-2": (StatefulDataLoader, 2), "ours-2": (OurLoader, 2)}
both_and_workers = pytest.mark.parametrize(
    ("loader_class", "num_workers"),
    slow_but([one for name, one in LOADERS.items() if name != "torchdata-2"], LOADERS.values()),
    ids=LOADERS,
)


class Numbers(Dataset):
    def __init__(self, n=11, bad=None):
        self.n, self.bad = n, bad

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if index == self.bad:
            raise ValueError("bad")
        return index


class Counting(Numbers):
    """A map-style dataset with a state: how many samples this copy of it has given."""

    given = 0

    def __getitem__(self, index):
        self.given += 1
        return f"{index}: {self.given}"

    def state_dict(self):
        return {"given": self.given}

    def load_state_dict(self, state):
        self.given = state["given"]


def share(n):
    worker = get_worker_info()
    return range(n) if worker is None else range(worker.id, n, worker.num_workers)


class Stream(IterableDataset):
    """No state; the shares of workers differ in length where `uneven`."""

    def __init__(self, n=23, uneven=False):
        self.n, self.uneven = n, uneven

    def numbers(self):
        worker = get_worker_info()
        if self.uneven and worker is not None:
            return range(100 * worker.id, 100 * worker.id + self.n // (1 + worker.id))
        return share(self.n)

    def __iter__(self):
        return iter(self.numbers())


class StatefulStream(Stream):
    """Its own state: where in its share it is, 0 after the end, and how many epochs it has begun."""

    at, begun = 0, 0

    def __iter__(self):
        numbers = self.numbers()
        self.begun += self.at == 0
        while self.at < len(numbers):
            self.at += 1
            yield numbers[self.at - 1] + 1000 * self.begun
        self.at = 0

    def state_dict(self):
        return {"at": self.at, "begun": self.begun}

    def load_state_dict(self, state):
        self.at, self.begun = state["at"], state["begun"]


class SampleOrder:
    def __init__(self, numbers):
        self.numbers, self.at = numbers, 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.at == len(self.numbers):
            raise StopIteration
        self.at += 1
        return self.numbers[self.at - 1]

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class StreamOfWalks(Stream):
    """The state is the iterator's."""

    def __iter__(self):
        return SampleOrder(self.numbers())


class SelfWalk(Stream):
    """A dataset that is its own iterator."""

    at = 0

    def __iter__(self):
        self.at = 0
        return self

    def __next__(self):
        numbers = self.numbers()
        if self.at == len(numbers):
            raise StopIteration
        self.at += 1
        return numbers[self.at - 1]

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class OwnPlace:
    """A sampler with a state of its own: goes on where it is, and rewinds with its end."""

    def __init__(self, n=11):
        self.n, self.at = n, 0

    def __iter__(self):
        while self.at < self.n:
            self.at += 1
            yield self.at - 1
        self.at = 0

    def __len__(self):
        return self.n

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


def plain(batch):
    return batch.tolist() if isinstance(batch, torch.Tensor) else batch


def flat(batches):
    return [number for batch in batches for number in batch]


def epoch(loader):
    return [plain(batch) for batch in loader]


def after(make, steps, finish=False):
    """(batches, state) of a new loader after `steps` of them, and after its StopIteration if `finish`."""
    loader = make()
    iterator = iter(loader)
    batches = [plain(next(iterator)) for _ in range(steps)]
    if finish:
        assert next(iterator, None) is None
    return batches, loader.state_dict()


def rest_of(make, state, epochs=1):
    loader = make()
    loader.load_state_dict(state)
    seen = [epoch(loader) for _ in range(epochs)]
    return seen if epochs > 1 else seen[0]


def generator():
    return torch.Generator().manual_seed(11)


MAPS = {
    "sequential": lambda: (Numbers(), {"batch_size": 2}),
    "shuffled": lambda: (Numbers(), {"batch_size": 2, "shuffle": True, "generator": generator()}),
    "drop_last": lambda: (Numbers(), {"batch_size": 2, "drop_last": True}),
    "one by one": lambda: (Numbers(6), {"batch_size": None, "shuffle": True, "generator": generator()}),
    "replacement": lambda: (
        Numbers(),
        {"sampler": RandomSampler(range(99), True, 37, generator()), "batch_size": 6},
    ),
    "distributed": lambda: (
        Numbers(),
        {"sampler": StatefulDistributedSampler(range(11), 2, 1), "batch_size": 1},
    ),
    "own place": lambda: (Numbers(12), {"sampler": OwnPlace(12), "batch_size": 2}),
    "batch sampler": lambda: (
        Numbers(),
        {"batch_sampler": BatchSampler(SequentialSampler(range(11)), 2, False)},
    ),
}

STREAMS = {
    "no state": lambda: (Stream(), {"batch_size": 4}),
    "dataset's state": lambda: (StatefulStream(), {"batch_size": 4}),
    "iterator's state": lambda: (StreamOfWalks(), {"batch_size": 4}),
    "own iterator": lambda: (SelfWalk(), {"batch_size": 4}),
    "unbatched": lambda: (StatefulStream(6), {"batch_size": None}),
    "uneven": lambda: (StreamOfWalks(16, uneven=True), {"batch_size": 4}),
}


def maker(loader_class, case, num_workers, **more):
    def make():
        dataset, arguments = (MAPS | STREAMS)[case]()
        return loader_class(dataset, num_workers=num_workers, **arguments, **more)

    return make


class OwnStream:
    """A way to a device that only writes down what it is asked for."""

    stream = "own"

    def __init__(self, calls):
        self.calls = calls

    def deliver(self, batch, finish):
        self.calls.append(("deliver", plain(batch)))
        return finish(batch)

    def hand_over(self, delivered):
        self.calls.append(("hand over", plain(delivered)))
        return delivered


class Marked(Stream):
    """As those of Hugging Face: the generator looks at the loaded place when it begins, and forgets it."""

    at, loaded = 0, None

    def __iter__(self):
        (self.at, self.loaded) = (self.loaded or 0, None)
        for one in list(self.numbers())[self.at :]:
            self.at += 1
            yield one

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.loaded = state["at"]
