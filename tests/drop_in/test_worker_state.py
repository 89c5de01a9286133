"""The states of datasets, in worker processes and without: saved with each batch, and loaded again.

Covers notices.py.
"""

import itertools
import json
import random

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset, get_worker_info
from torchdata.stateful_dataloader import StatefulDataLoader

from fastload import DataLoader as OurLoader
from fastload.drop_in.worker_state import BatchWithState, MapSource
from fastload.loader.orders.generators import generator_state
from tests.drop_in.stateful_cases import (
    Counting,
    Marked,
    Numbers,
    SampleOrder,
    Stream,
    StreamOfWalks,
    after,
    both,
    epoch,
    generator,
    maker,
    plain,
    rest_of,
    workers,
)
from tests.quick import slow_but

pytestmark = [
    pytest.mark.filterwarnings("ignore:neither the dataset nor its iterator"),
    pytest.mark.filterwarnings("ignore:with in_order=False"),
]


class CountingMany(Counting):
    def __getitems__(self, indices):
        return [self[index] for index in indices]


class Order(IterableDataset):
    """Writes down in which order its state is loaded."""

    def __init__(self):
        self.calls = []

    def __iter__(self):
        self.calls.append("iter")
        walk = SampleOrder(range(6))
        load = walk.load_state_dict
        walk.load_state_dict = lambda state: (self.calls.append("load iterator"), load(state))
        return walk

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        self.calls.append("load dataset")


@both
def test_states_are_loaded_in_this_order_dataset_iterator(loader_class):
    loader = loader_class(Order(), 2)
    next(iter(loader))
    again = loader_class(Order(), 2)
    again.load_state_dict(loader.state_dict())
    assert [one.tolist() for one in again] == [[2, 3], [4, 5]]
    assert again.dataset.calls[:3] == ["load dataset", "iter", "load iterator"]


@workers
def test_a_dataset_that_is_its_own_iterator_is_saved_once(num_workers):
    _, state = after(maker(OurLoader, "own iterator", num_workers), 1)
    saved = {"dataset": None, "iterator": {"at": 4}, "ended": False, "after": None}
    assert json.loads(state["workers"][0]) == saved


STATES_OF_MAPS = [*itertools.product((0, 3), (Counting, CountingMany), (StatefulDataLoader, OurLoader))]
QUICK_STATES_OF_MAPS = [one for one in STATES_OF_MAPS if one[0] == 0 or one[1:] == (CountingMany, OurLoader)]


@pytest.mark.parametrize(
    ("num_workers", "dataset_class", "loader_class"), slow_but(QUICK_STATES_OF_MAPS, STATES_OF_MAPS)
)
def test_the_state_of_a_map_style_dataset_is_of_each_worker(loader_class, dataset_class, num_workers):
    def make():
        return loader_class(dataset_class(17), 2, num_workers=num_workers)

    whole = epoch(make())
    for step in (1, 2, 5, len(whole)):
        batches, state = after(make, step)
        assert batches + rest_of(make, state) == whole, step


def test_one_by_one_too_the_state_of_a_map_style_dataset_is_of_each_worker():
    def make():
        return OurLoader(Counting(7), None, num_workers=2)

    whole = epoch(make())
    batches, state = after(make, 3)
    assert batches + rest_of(make, state) == whole


class Live(Counting):
    """Its state_dict gives what it goes on writing to."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def state_dict(self):
        return {"seen": self.seen}


def test_a_state_on_its_way_from_a_worker_is_a_copy():
    """torch's queue pickles it in a thread of its own, while the worker reads on."""
    dataset = Live()
    state = MapSource(dataset).state()
    dataset.seen.append(1)
    assert state["dataset"] == {"seen": []}


def test_of_what_a_worker_sends_the_batch_is_pinned(monkeypatch):
    monkeypatch.setattr("fastload.drop_in.worker_state.pin_memory", lambda batch: ("pinned", batch))
    pinned = BatchWithState([1], 3, {"at": 2}).pin_memory()
    assert (pinned.batch, pinned.worker, pinned.state) == (("pinned", [1]), 3, {"at": 2})


FOUND_AGAIN = [*itertools.product((StatefulDataLoader, OurLoader), (0, 2, 3))]


@pytest.mark.parametrize(
    ("loader_class", "num_workers"),
    slow_but([(StatefulDataLoader, 0), (OurLoader, 0), (OurLoader, 3)], FOUND_AGAIN),
)
def test_a_map_style_dataset_s_state_is_found_again_from_a_resumed_run(loader_class, num_workers):
    def make():
        return loader_class(Counting(17), 2, num_workers=num_workers)

    whole = epoch(make())
    state = after(make, 1)[1]
    for step in (1, 3, 5):
        loader = make()
        loader.load_state_dict(state)
        iterator = iter(loader)
        assert [next(iterator), next(iterator)] == whole[step : step + 2]
        state = loader.state_dict()
    assert rest_of(make, state) == whole[7:]


@pytest.mark.parametrize("context", ["spawn", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_states_cross_every_way_to_start_a_worker(context):
    """Into such a worker, and out of it."""

    def make(context):
        return OurLoader(StreamOfWalks(), 4, num_workers=1, multiprocessing_context=context)

    whole = epoch(OurLoader(Stream(), 4))
    _, state = after(lambda: make("fork"), 2)
    loader = make(context)
    loader.load_state_dict(state)
    iterator = iter(loader)
    assert next(iterator).tolist() == whole[2]
    state = loader.state_dict()
    assert [plain(batch) for batch in iterator] == whole[3:]
    assert rest_of(lambda: make("fork"), state) == whole[3:]


SECOND_EPOCHS = [
    *itertools.product((StatefulDataLoader, OurLoader), ("dataset's state", "iterator's state", "uneven"))
]


@pytest.mark.parametrize(
    ("loader_class", "case"),
    slow_but([(OurLoader, "dataset's state"), (OurLoader, "uneven")], SECOND_EPOCHS),
)
def test_persistent_workers_are_resumed_in_their_second_epoch(loader_class, case):
    make = maker(loader_class, case, 2, persistent_workers=True)
    loader = make()
    first, second, third = (epoch(loader) for _ in range(3))
    for step in (0, 1, 2, len(second) - 1):
        loader = make()
        assert epoch(loader) == first
        iterator = iter(loader)
        assert [plain(next(iterator)) for _ in range(step)] == second[:step]
        state = loader.state_dict()
        loader = None
        assert rest_of(make, state, epochs=2) == [second[step:], third], step


@pytest.mark.parametrize(
    "loader_class", slow_but([OurLoader], [StatefulDataLoader, OurLoader]), ids=["torchdata", "ours"]
)
@pytest.mark.parametrize("case", ["shuffled", "dataset's state"])
def test_persistent_workers_go_on_after_the_end_of_an_epoch(loader_class, case):
    if loader_class is StatefulDataLoader and case == "dataset's state":
        pytest.skip("torchdata forgets that a worker's share has ended with a smaller batch")
    make = maker(loader_class, case, 2, persistent_workers=True)
    loader = make()
    epochs = [epoch(loader) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    _, state = after(make, len(epochs[0]), finish=True)
    assert rest_of(make, state, epochs=2) == epochs[1:]


@pytest.mark.parametrize("own", [False, True])
def test_workers_have_the_seeds_of_the_run_that_was_saved(own):
    class Seeds(Numbers):
        def __getitem__(self, index):
            return get_worker_info().seed

    def make():
        return OurLoader(Seeds(), None, num_workers=2, generator=generator() if own else None)

    torch.manual_seed(1)
    batches, state = after(make, 3)
    torch.manual_seed(2)
    assert set(rest_of(make, state)) == set(batches)


class Noise(IterableDataset):
    """Has no state, and draws from the worker's global generators."""

    def __iter__(self):
        for _ in range(6):
            yield [random.random(), float(np.random.rand()), float(torch.rand(()))]


def test_a_stream_without_a_state_is_read_again_with_the_same_dice_in_workers():
    def make():
        return OurLoader(Noise(), None, num_workers=2)

    torch.manual_seed(1)
    whole = [[float(x) for x in one] for one in make()]
    torch.manual_seed(1)
    loader = make()
    iterator = iter(loader)
    for _ in range(5):
        next(iterator)
    torch.manual_seed(2)
    again = make()
    again.load_state_dict(loader.state_dict())
    with pytest.warns(UserWarning, match="5 batches are read again and dropped") as caught:
        iterator = iter(again)
    assert caught[0].filename == __file__
    assert [[float(x) for x in one] for one in iterator] == whole[5:]


class Dice(IterableDataset):
    """Has no state, and shuffles with a global generator, in its iter() or with the first sample."""

    def __init__(self, source, eager):
        self.source, self.eager = source, eager

    def order(self):
        if self.source == "random":
            return random.sample(range(20), 20)
        return (np.random.permutation(20) if self.source == "numpy" else torch.randperm(20)).tolist()

    def lazy(self):
        yield from self.order()

    def __iter__(self):
        return iter(self.order()) if self.eager else self.lazy()


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("source", ["random", "numpy", "torch"])
def test_a_stream_without_a_state_is_read_again_with_the_generators_that_it_began_with(source, eager):
    def make():
        return OurLoader(Dice(source, eager), 3)

    def seed(number):
        random.seed(number), np.random.seed(number), torch.manual_seed(number)

    seed(1)
    whole = epoch(make())
    for step in (0, 1, 2, 7) if eager else (1, 2, 7):
        seed(1)
        _, state = after(make, step)
        seed(2)
        before = random.getstate(), np.random.get_state()[1].tolist(), generator_state(None)
        loader = make()
        loader.load_state_dict(json.loads(json.dumps(state)))
        assert epoch(loader) == whole[step:]
        assert before == (random.getstate(), np.random.get_state()[1].tolist(), generator_state(None))
        random.random(), np.random.rand(), torch.rand(())
        loader.load_state_dict(after(lambda loader=loader: loader, 0)[1])
        assert epoch(loader) != whole


@workers
def test_a_state_before_the_first_batch_of_a_resumed_run_is_the_one_that_was_loaded(num_workers):
    def make():
        return OurLoader(Marked(10), 2, num_workers=num_workers)

    whole = epoch(make())
    _, state = after(make, 2)
    for _ in range(2):
        loader = make()
        loader.load_state_dict(state)
        iterator = iter(loader)
        state = loader.state_dict()
    assert [plain(batch) for batch in iterator] == whole[2:]
    assert rest_of(make, state) == whole[2:]
