"""Loaders of torch datasets and of fastload's own whose samplers draw from torch's global generator."""

import torch
from torch.utils.data import (
    BatchSampler,
    Dataset,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    get_worker_info,
)

import fastload as fl
from tests.loader.samples import labels

N = 23


class Numbers(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, index):
        return index


class Seeds(Numbers):
    def __getitem__(self, index):
        return index, get_worker_info().seed


class Each:
    """Draws from the global generator each time."""

    def __iter__(self):
        return (int(torch.randint(N, ())) for _ in range(N))

    def __len__(self):
        return N


class Eager:
    """Draws its whole order when it is asked for its iterator."""

    def __iter__(self):
        return iter(torch.randperm(N).tolist())

    def __len__(self):
        return N


SAMPLERS = {
    "random": lambda: RandomSampler(range(N)),
    "replacement": lambda: RandomSampler(range(N), True, 40),
    "subset": lambda: SubsetRandomSampler(range(20)),
    "weighted": lambda: WeightedRandomSampler([1.0] * N, 30),
    "eager": Eager,
}


def dataset(shards):
    return fl.Dataset(shards, {"label": fl.Int("cls")})


LOADERS = {
    "torch dataset": lambda shards, sampler: fl.DataLoader(Numbers(), 4, sampler=sampler),
    "torch dataset, batch sampler": lambda shards, sampler: fl.DataLoader(
        Numbers(), batch_sampler=BatchSampler(sampler, 4, False)
    ),
    "torch dataset, in workers": lambda shards, sampler: fl.DataLoader(
        Seeds(), 4, sampler=sampler, num_workers=2
    ),
    "torch dataset, in lasting workers": lambda shards, sampler: fl.DataLoader(
        Seeds(), 4, sampler=sampler, num_workers=2, persistent_workers=True
    ),
    "fl.Dataset": lambda shards, sampler: fl.DataLoader(dataset(shards), 4, sampler=sampler),
    "Loader": lambda shards, sampler: labels(shards, 4, sampler=sampler, last="partial"),
}

PLACES = ("new", "begun", "middle", "last batch", "end")


def plain(batch):
    batch = batch["label"] if isinstance(batch, dict) else batch
    return [one.tolist() for one in batch] if isinstance(batch, list) else batch.tolist()


def epoch(loader):
    return [plain(batch) for batch in loader]


def interrupted(make, place, k=1, epochs=3, before=lambda number: None):
    """A run that saves in epoch `k`: (its state, the global generator then, what follows, as epochs).

    before(number): called before each epoch.
    """
    loader = make()
    for number in range(k):
        before(number)
        list(loader)
    before(k)
    iterator = None if place == "new" else iter(loader)
    taken = {"begun": 0, "middle": 2, "last batch": len(loader)}.get(place, 0)
    [next(iterator) for _ in range(taken)]
    rest = [*iterator] if place == "end" else iterator
    state, generator = loader.state_dict(), torch.get_rng_state()
    following = [] if place == "end" else [[plain(batch) for batch in (loader if iterator is None else rest)]]
    for number in range(k + 1, k + 1 + epochs - len(following)):
        before(number)
        following.append(epoch(loader))
    return state, generator, following
