"""A sampler of the user's in the place of fastload's order: what it draws comes, and its place is kept.

Covers order_sampler.py.
"""

import contextlib
import gc
import json
import random
import threading
import time
import weakref

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

import fastload as fl
from fastload.errors import BatchTimeoutError, ConfigError
from fastload.loader.orders.sampled import SPAN
from tests.contracts.stream import assert_equal_streams, assert_every_cursor_gives_the_rest
from tests.loader import samples
from tests.loader.samples import flat, labels, numbers, pictures

N = 23


class Shuffled:
    """Of the kind that people write: shuffles with Python's generator."""

    def __iter__(self):
        order = list(range(N))
        random.shuffle(order)
        return iter(order)

    def __len__(self):
        return N


class Numpy:
    def __iter__(self):
        yield from np.random.permutation(N)


class Counting:
    """Goes on where it was; has a place of its own."""

    def __init__(self):
        self.next = 0

    def __iter__(self):
        while self.next < N:
            self.next += 1
            yield N - self.next
        self.next = 0

    def state_dict(self):
        return {"next": self.next}

    def load_state_dict(self, state):
        self.next = state["next"]


def own_generator(seed=5):
    return torch.Generator().manual_seed(seed)


SAMPLERS = {
    "list": lambda: [5, 0, 3, 3, 22, 1, 7, 8, 9],
    "sequential": lambda: SequentialSampler(range(N)),
    "random": lambda: RandomSampler(range(N)),
    "random with a generator": lambda: RandomSampler(range(N), generator=own_generator()),
    "replacement": lambda: RandomSampler(range(N), replacement=True, num_samples=40),
    "subset": lambda: SubsetRandomSampler([4, 9, 11, 12, 20, 21, 22]),
    "weighted": lambda: WeightedRandomSampler([1.0 + i for i in range(N)], 30),
    "distributed": lambda: DistributedSampler(range(N), num_replicas=2, rank=1, seed=3),
    "stateful distributed": lambda: StatefulDistributedSampler(range(N), num_replicas=2, rank=1, seed=3),
    "Python's generator": Shuffled,
    "NumPy's generator": Numpy,
    "a state of its own": Counting,
}


@contextlib.contextmanager
def seeded(seed):
    """All global generators as they are after this seed."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    yield


@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("last", ["drop", "partial"])
def test_what_the_sampler_draws_is_what_comes_in_batches_as_torch_makes_them(shards, make, last):
    with seeded(1):
        expected = [list(map(int, batch)) for batch in BatchSampler(make(), 4, last == "drop")]
    with seeded(1):
        assert numbers(labels(shards, 4, sampler=make(), last=last)) == expected


def test_a_batch_sampler_gives_batches_of_any_size(shards):
    batches = [[3, 1], [22], [5, 6, 7, 8, 0], [2, 2]]
    loader = labels(shards, None, batch_sampler=batches)
    assert numbers(loader) == batches and len(loader) == 4 and loader.batch_size is None


@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)
def test_every_cursor_gives_the_rest_of_what_the_sampler_draws(shards, make):
    def restore(state):
        loader = pictures(shards, 2, sampler=make(), augment=fl.Augment(xflip=0.5), last="partial")
        loader.load_state_dict(json.loads(json.dumps(state)))
        # Another process has drawn other numbers; before the first draw there is no place to be found.
        with seeded(99 if state["draws"]["taken"] else 1):
            yield from loader

    def whole():
        return pictures(shards, 2, sampler=make(), augment=fl.Augment(xflip=0.5), last="partial", prefetch=3)

    with seeded(1):
        assert_every_cursor_gives_the_rest(whole, restore)


def test_looking_for_a_place_leaves_the_global_generators_alone(shards):
    with seeded(1):
        loader = labels(shards, 4, sampler=RandomSampler(range(N)))
        next(iter(loader))
        state = loader.state_dict()
    with seeded(2):
        before = torch.get_rng_state()
        again = labels(shards, 4, sampler=RandomSampler(range(N)))
        again.load_state_dict(state)
        rest = flat(again)
        assert torch.equal(torch.get_rng_state(), before)
    assert len(set(rest)) == len(rest) == 16


def test_later_epochs_are_exact_with_a_generator_of_the_samplers_own(shards):
    def run(loader, epochs):
        return [flat(loader) for _ in range(epochs)]

    loader = labels(shards, 4, sampler=RandomSampler(range(N), generator=own_generator()))
    iterator = iter(loader)
    next(iterator), next(iterator)
    state = loader.state_dict()
    expected = [flat(iterator), *run(loader, 2)]
    again = labels(shards, 4, sampler=RandomSampler(range(N), generator=own_generator(77)))
    again.load_state_dict(state)
    assert run(again, 3) == expected
    assert expected[1] != expected[2]


@pytest.mark.parametrize(
    "make", [SAMPLERS["random with a generator"], Counting], ids=["generator", "own state"]
)
def test_a_state_between_two_epochs_goes_on_with_the_next(shards, make):
    loader = labels(shards, 5, sampler=make())
    list(loader)
    state = json.loads(json.dumps(loader.state_dict()))
    assert state["draws"]["taken"] == 0 and state["epoch"] == 1
    expected = [flat(loader), flat(loader)]
    again = labels(shards, 5, sampler=make())
    again.load_state_dict(state)
    assert again.state_dict() == state
    assert [flat(again), flat(again)] == expected


def test_a_state_before_the_first_batch_goes_back_to_it(shards):
    loader = labels(shards, 4, sampler=Counting())
    state = loader.state_dict()
    iterator = iter(loader)
    first = next(iterator)
    next(iterator)
    loader.load_state_dict(state)
    assert flat([next(iter(loader))]) == flat([first])
    begun = Counting()
    begun.next = 7
    state = labels(shards, 4, sampler=begun).state_dict()
    again = labels(shards, 4, sampler=Counting())
    again.load_state_dict(state)
    assert flat([next(iter(again))]) == [15, 14, 13, 12]


def test_between_two_epochs_it_is_the_user_who_tells_the_epoch(shards):
    loader = labels(shards, 5, sampler=DistributedSampler(range(N), 1, 0))
    list(loader)
    state = loader.state_dict()
    loader.sampler.set_epoch(1)
    expected = list(loader)
    again = labels(shards, 5, sampler=DistributedSampler(range(N), 1, 0))
    again.load_state_dict(state)
    again.sampler.set_epoch(1)
    assert_equal_streams(list(again), expected)


def test_the_state_is_that_of_the_batch_that_was_delivered_whatever_was_drawn_ahead(shards):
    for prefetch in (1, 8):
        loader = labels(shards, 2, sampler=Counting(), prefetch=prefetch)
        iterator = iter(loader)
        next(iterator)
        assert loader.state_dict()["draws"]["own"] == '{"sampler": {"next": 2}}'


def test_two_ranks_with_a_distributed_sampler_take_every_sample_once_and_throw_other_dice(
    shards, monkeypatch
):
    seen, positions = [], []
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        loader = labels(shards, 3, sampler=DistributedSampler(range(22), 2, rank), last="partial")
        batches = list(loader)
        seen += flat(batches)
        positions += [p for batch in batches for p in batch["__position__"].tolist()]
    assert sorted(seen) == list(range(22))
    assert sorted(positions) == list(range(22))


def test_the_state_of_one_rank_serves_all_ranks_of_a_distributed_sampler(shards, monkeypatch):
    """So Lightning and Accelerate save it: rank 0 for everybody."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    states, rests = [], []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        loader = labels(shards, 3, sampler=DistributedSampler(range(22), 2, rank))
        iterator = iter(loader)
        next(iterator)
        states.append(loader.state_dict())
        rests.append(flat(iterator))
    again = labels(shards, 3, sampler=DistributedSampler(range(22), 2, 1))
    again.load_state_dict(states[0])
    assert flat(again) == rests[1] != rests[0]


def test_set_epoch_goes_to_the_sampler_and_to_another_part_of_the_positions(shards):
    sampler = DistributedSampler(range(N), 1, 0, seed=2)
    loader = labels(shards, 4, sampler=sampler)
    assert loader.sampler is sampler
    loader.set_epoch(3)
    batches = list(loader)
    assert sampler.epoch == 3
    assert batches[0]["__position__"].tolist() == [3 * SPAN + i for i in range(4)]
    sampler.set_epoch(3)
    assert flat(batches) == list(sampler)[:20]


def test_a_sampler_that_was_sent_on_after_its_checkpoint_begins_its_epoch_from_the_start(shards):
    """So Lightning does it with checkpoints of an epoch's end."""
    sampler = DistributedSampler(range(N), 1, 0)
    loader = labels(shards, 4, sampler=sampler)
    iterator = iter(loader)
    for _ in range(5):
        next(iterator)
    state = loader.state_dict()
    other = DistributedSampler(range(N), 1, 0)
    again = labels(shards, 4, sampler=other)
    again.load_state_dict(state)
    assert other.epoch == 0
    iterator = iter(again)
    other.set_epoch(1)
    sampler.set_epoch(1)
    assert flat(iterator) == list(sampler)[:20]
    assert again.state_dict()["epoch"] == 2
    again.load_state_dict(state)
    assert list(again) == []  # without it, the epoch is over


def test_an_epoch_that_is_broken_off_is_followed_by_a_new_one(shards):
    loader = labels(shards, 4, sampler=SequentialSampler(range(N)))
    next(iter(loader))
    batches = list(loader)
    assert flat(batches) == list(range(20)) and batches[0]["__position__"][0] == SPAN


def test_several_epochs_in_one_iteration_ask_the_sampler_anew(shards):
    sampler = RandomSampler(range(N), generator=own_generator())
    batches = list(labels(shards, 4, sampler=sampler, epochs=3))
    expected = RandomSampler(range(N), generator=own_generator())
    assert flat(batches) == [i for _ in range(3) for i in list(expected)[:20]]
    assert [batch["__position__"][0].item() for batch in batches[::5]] == [0, SPAN, 2 * SPAN]


def test_several_epochs_in_one_iteration_tell_the_sampler_each(shards):
    sampler = DistributedSampler(range(N), 1, 0)
    ids = flat(labels(shards, 23, sampler=sampler, epochs=3))
    expected = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        expected += list(sampler)
    assert ids == expected and ids[:N] != ids[N : 2 * N]


def test_an_error_of_the_sampler_comes_after_the_batches_that_it_drew(shards):
    def draws():
        yield from [[0, 1], [2, 3]]
        raise LookupError("my sampler is broken")

    iterator = iter(labels(shards, None, batch_sampler=draws()))
    assert numbers([next(iterator), next(iterator)]) == [[0, 1], [2, 3]]
    with pytest.raises(LookupError, match="my sampler is broken"):
        next(iterator)
    with pytest.raises(StopIteration):
        next(iterator)


def test_a_stand_in_comes_from_the_samplers_own_batch(tmp_path):
    """What a sampler leaves out, as validation samples are, must not come in as a stand-in."""
    made = [samples.sample(i) for i in range(40)]
    for i in (3, 8):
        made[i]["jpg"] = b"no picture"
    samples.write(tmp_path, made)
    chosen = [3, 5, 7, 8, 11, 30]
    loader = pictures(str(tmp_path), 3, sampler=chosen, max_bad_fraction=1.0)
    with pytest.warns(UserWarning, match="sample"):
        first, second = numbers(loader)
    assert loader.stats()["bad_replacements"] == 0  # none stood in for itself
    assert set(first) == {5, 7} and first[1:] == [5, 7]
    assert set(second) == {11, 30} and second[1:] == [11, 30]
    assert numbers(pictures(str(tmp_path), 3, sampler=chosen, max_bad_fraction=1.0)) == [first, second]


def test_a_batch_with_several_bad_samples_finds_the_good_ones(tmp_path):
    made = [samples.sample(i, jpg=b"no picture") if i < 5 else samples.sample(i) for i in range(8)]
    samples.write(tmp_path, made)
    loader = pictures(str(tmp_path), 8, sampler=list(range(8)), max_bad_fraction=1.0)
    with pytest.warns(UserWarning, match="sample"):
        (batch,) = numbers(loader)
    assert batch[5:] == [5, 6, 7] and set(batch[:5]) <= {5, 6, 7} and len(set(batch[:5])) > 1


def test_pixels_of_a_sample_depend_on_its_place_alone(shards):
    made = pictures(shards, 4, sampler=[7] * 8, augment=fl.Augment(xflip=0.5, brightness=0.3))
    first, second = list(made)
    assert not torch.equal(first["image"][0], first["image"][1])
    again = list(pictures(shards, 8, sampler=[7] * 8, augment=fl.Augment(xflip=0.5, brightness=0.3)))
    assert torch.equal(torch.cat([first["image"], second["image"]]), again[0]["image"])


def test_the_sampler_of_a_loader_shows_its_order(shards):
    for arguments in (
        {},
        {"shuffle": False},
        {"last": "partial"},
        {"rank": 1, "world_size": 3},
        {"last": "pad"},
    ):
        loader = labels(shards, 2, **arguments)
        ids = list(loader.sampler)
        assert len(loader.sampler) == len(ids)
        assert flat(loader) == ids
        loader.sampler.set_epoch(5)
        fifth = list(loader.sampler)
        batches = list(loader)
        assert flat(batches) == fifth and batches[0]["__position__"][0] // N == 5
    assert isinstance(labels(shards, shuffle=False).sampler, SequentialSampler)
    assert not isinstance(labels(shards).sampler, SequentialSampler)


def test_the_sampler_of_a_resumed_loader_shows_the_whole_epoch_it_is_in(shards):
    loader = labels(shards, 2)
    iterator = iter(loader)
    head = flat([next(iterator), next(iterator)])
    assert list(loader.sampler)[:4] == head
    assert list(loader.sampler)[4:] == flat(iterator)


def test_an_error_of_the_sampler_keeps_no_loader_alive(shards):
    def draws():
        yield [0, 1]
        raise LookupError

    gc.disable()
    try:
        loader = labels(shards, None, batch_sampler=draws())
        with pytest.raises(LookupError):
            list(loader)
        alive = weakref.ref(loader)
        del loader
        assert alive() is None
    finally:
        gc.enable()


def test_attributes_that_trainers_look_for(shards):
    loader = labels(shards, 4)
    assert list(loader.batch_sampler) == list(BatchSampler(loader.sampler, 4, True))
    batches = BatchSampler(SequentialSampler(range(N)), 4, False)
    sampled = labels(shards, None, batch_sampler=batches)
    assert sampled.batch_sampler is batches and sampled.sampler is batches.sampler
    assert loader.batch_size == 4 and loader.drop_last and len(loader.dataset) == N
    assert not labels(shards, 4, last="partial").drop_last


def test_a_batch_that_takes_too_long_raises_at_once(shards):
    hang = threading.Event()
    fields = {"label": fl.Int("cls"), "slow": fl.Custom("txt", lambda content: hang.wait(20))}
    loader = fl.Loader(shards, 2, fields, timeout_seconds=0.3, threads=1)
    began = time.monotonic()
    with pytest.raises(BatchTimeoutError, match="longer than timeout_seconds"):
        next(iter(loader))
    assert time.monotonic() - began < 10
    hang.set()
    assert flat(fl.Loader(shards, 23, fields, timeout_seconds=20, shuffle=False)) == list(range(N))


def test_a_subset_is_a_selection(shards):
    dataset = fl.Dataset(shards, {"label": fl.Int("cls")})
    with pytest.raises(ConfigError, match="select=indices"):
        fl.DataLoader(Subset(dataset, [1, 2]))


def test_equal_seeds_give_equal_streams_whatever_the_threads(shards):
    one = list(pictures(shards, 3, sampler=list(range(20)), threads=1))
    other = list(pictures(shards, 3, sampler=list(range(20)), threads=4, prefetch=1))
    assert_equal_streams(one, other)
