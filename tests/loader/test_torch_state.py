"""What a state of a torch DataLoader means, asked of torchdata's StatefulDataLoader and of ours."""

import copy
import json
import pickle
import random
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    get_worker_info,
)
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

from fastload import DataLoader as OurLoader
from fastload.drop_in.worker_state import Carried, MapSource
from fastload.errors import CursorError
from fastload.loader.device import CpuDelivery
from fastload.loader.orders.sampler_state import generator_state

pytestmark = [
    pytest.mark.filterwarnings("ignore:neither the dataset nor its iterator"),
    pytest.mark.filterwarnings("ignore:with in_order=False"),
]
both = pytest.mark.parametrize("loader_class", [StatefulDataLoader, OurLoader], ids=["torchdata", "ours"])
workers = pytest.mark.parametrize("num_workers", [0, 2])


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


class CountingMany(Counting):
    def __getitems__(self, indices):
        return [self[index] for index in indices]


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


def resumes():
    """Every case, by both loaders, with and without workers; torchdata's with workers is known, and slow."""
    for loader_class, name in ((StatefulDataLoader, "torchdata"), (OurLoader, "ours")):
        for num_workers in (0, 2):
            marks = [pytest.mark.slow] if num_workers and loader_class is StatefulDataLoader else []
            for case in (*MAPS, *STREAMS):
                yield pytest.param(
                    loader_class, num_workers, case, id=f"{case}-{num_workers}-{name}", marks=marks
                )


@pytest.mark.parametrize(("loader_class", "num_workers", "case"), resumes())
def test_resume_at_every_batch_gives_the_rest_of_the_epoch(loader_class, num_workers, case):
    make = maker(loader_class, case, num_workers)
    whole = epoch(make())
    # With workers each resume starts processes: the first, some in the middle and the last.
    steps = set(range(len(whole) + 1) if num_workers == 0 else (1, 2, len(whole) // 2 + 1, len(whole)))
    if loader_class is StatefulDataLoader and num_workers and case == "dataset's state":
        steps.remove(len(whole))  # torchdata forgets that a worker's share has ended with a smaller batch
    for step in steps:
        batches, state = after(make, step)
        assert batches == whole[:step]
        assert rest_of(make, state) == whole[step:], step


@both
@workers
@pytest.mark.parametrize("case", ["shuffled", "distributed", "own place", "no state", "iterator's state"])
def test_a_state_after_the_end_is_the_beginning_of_the_next_epoch(loader_class, case, num_workers):
    inexact = loader_class is StatefulDataLoader and num_workers == 0
    if inexact and case == "distributed":
        pytest.skip("without workers torchdata's loader makes the next epoch of its own sampler an empty one")
    make = maker(loader_class, case, num_workers)
    loader = make()
    whole = [epoch(loader) for _ in range(2)]
    assert len(whole[1]) == len(whole[0]) > 0
    _, state = after(make, len(whole[0]), finish=True)
    resumed = rest_of(make, state, epochs=2)
    if inexact and case == "shuffled":
        assert sorted(flat(resumed[0])) == list(range(11))  # some order, not that of an unbroken run
    else:
        assert resumed[0] == whole[1]
    assert len(resumed[1]) == len(whole[0])


class CountsEpochs(OwnPlace):
    """Its order depends on how many of its epochs have ended."""

    ended = 0

    def __iter__(self):
        yield from (100 * self.ended + one for one in super().__iter__())
        self.ended += 1

    def state_dict(self):
        return {"at": self.at, "ended": self.ended}

    def load_state_dict(self, state):
        self.at, self.ended = state["at"], state["ended"]


@workers
@pytest.mark.parametrize("own", [RandomSampler, CountsEpochs])
def test_a_sampler_of_yours_begins_the_next_epoch_where_it_left_the_last(own, num_workers):
    def make():
        sampler = CountsEpochs(6) if own is CountsEpochs else RandomSampler(range(6), generator=generator())
        return OurLoader(Numbers(999), 2, sampler=sampler, num_workers=num_workers)

    loader = make()
    epochs = [epoch(loader) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    _, state = after(make, 3, finish=True)
    assert rest_of(make, state, epochs=2) == epochs[1:]


@both
@workers
@pytest.mark.parametrize("case", ["sequential", "iterator's state", "no state"])
def test_after_the_rest_come_whole_epochs(loader_class, case, num_workers):
    make = maker(loader_class, case, num_workers)
    whole = epoch(make())
    _, state = after(make, 2)
    assert rest_of(make, state, epochs=3) == [whole[2:], whole, whole]


@both
@workers
def test_a_state_before_the_first_batch_is_the_beginning(loader_class, num_workers):
    for case in ("shuffled", "dataset's state"):
        make = maker(loader_class, case, num_workers)
        whole = epoch(make())
        loader = make()
        state = loader.state_dict()
        assert epoch(loader) == whole
        assert rest_of(make, state) == whole
        _, state = after(make, 0)
        assert rest_of(make, state) == whole


@both
@workers
def test_a_state_that_was_loaded_and_not_used_is_given_back(loader_class, num_workers):
    make = maker(loader_class, "shuffled", num_workers)
    whole = epoch(make())
    _, state = after(make, 3)
    loader = make()
    loader.load_state_dict(state)
    assert rest_of(make, loader.state_dict()) == whole[3:]
    assert epoch(loader) == whole[3:]


@both
@workers
def test_a_resumed_run_can_be_saved_and_resumed_again(loader_class, num_workers):
    for case in ("shuffled", "iterator's state"):
        make = maker(loader_class, case, num_workers)
        whole = epoch(make())
        _, state = after(make, 1)
        for step in range(1, 4):
            loader = make()
            loader.load_state_dict(state)
            iterator = iter(loader)
            assert plain(next(iterator)) == whole[step]
            state = loader.state_dict()
        assert rest_of(make, state) == whole[4:]


@both
@workers
def test_an_empty_state_is_the_beginning(loader_class, num_workers):
    make = maker(loader_class, "sequential", num_workers)
    loader = make()
    whole = epoch(loader)
    next(iter(loader))
    loader.load_state_dict({})
    assert epoch(loader) == whole


@both
@workers
def test_a_state_may_be_loaded_in_the_middle_of_an_iteration(loader_class, num_workers):
    make = maker(loader_class, "iterator's state", num_workers, persistent_workers=num_workers > 0)
    whole = epoch(make())
    loader = make()
    iterator = iter(loader)
    next(iterator)
    state = loader.state_dict()
    next(iterator)
    loader.load_state_dict(state)
    assert epoch(loader) == whole[1:]
    assert epoch(loader) == whole


@both
@workers
def test_a_state_does_not_change_with_what_follows(loader_class, num_workers):
    make = maker(loader_class, "dataset's state", num_workers)
    loader = make()
    iterator = iter(loader)
    next(iterator)
    state = loader.state_dict()
    before = copy.deepcopy(state)
    list(iterator)
    assert state == before


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


@pytest.fixture
def calls(monkeypatch):
    calls = []
    monkeypatch.setattr("fastload.drop_in.stateful_loader.resolve_device", lambda device: device)
    monkeypatch.setattr("fastload.drop_in.stateful_loader.delivery", lambda device: OwnStream(calls))
    return calls


def wreck(state):
    for one in state.values() if isinstance(state, dict) else state:
        if isinstance(one, (dict, list)):
            wreck(one)
    state.clear()


@pytest.mark.parametrize("device", [None, "cuda"])
@workers
def test_what_you_do_to_a_state_does_not_reach_the_loader(calls, num_workers, device):
    for case in ("iterator's state", "own place", "shuffled"):
        make = maker(OurLoader, case, num_workers, device=device)
        loader = make()
        iterator = iter(loader)
        next(iterator)
        state = loader.state_dict()
        before = copy.deepcopy(state)
        again = make()
        again.load_state_dict(state)
        wreck(state)
        assert state == {}
        assert loader.state_dict() == before
        state = again.state_dict()
        wreck(state)
        assert epoch(again) == [plain(batch) for batch in iterator]


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


@both
@pytest.mark.parametrize("dataset_class", [Counting, CountingMany])
@pytest.mark.parametrize("num_workers", [0, 3])
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
    pinned = Carried([1], 3, {"at": 2}).pin_memory()
    assert (pinned.batch, pinned.worker, pinned.state) == (("pinned", [1]), 3, {"at": 2})


@both
@pytest.mark.parametrize("num_workers", [0, 2, 3])
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
    def make(dataset):
        return OurLoader(dataset, 4, num_workers=1, multiprocessing_context=context)

    _, state = after(lambda: make(StreamOfWalks()), 2)
    assert rest_of(lambda: make(StreamOfWalks()), state) == epoch(OurLoader(Stream(), 4))[2:]


@both
@pytest.mark.parametrize("case", ["dataset's state", "iterator's state", "uneven"])
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


@both
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


@both
@pytest.mark.parametrize(("num_workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_with_the_same_generator_all_later_epochs_are_those_of_an_unbroken_run(
    loader_class, num_workers, persistent
):
    if loader_class is StatefulDataLoader and num_workers == 0:
        pytest.skip("without workers torchdata's loader goes on with another order")
    make = maker(loader_class, "shuffled", num_workers, persistent_workers=persistent)
    loader = make()
    epochs = [epoch(loader) for _ in range(4)]
    for step in (0, 2, 6):
        loader = make()
        epoch(loader)
        iterator = iter(loader)
        assert [plain(next(iterator)) for _ in range(step)] == epochs[1][:step]
        assert rest_of(make, loader.state_dict(), epochs=3) == [epochs[1][step:], *epochs[2:]], step


@workers
def test_an_order_from_the_global_generator_is_found_again_and_the_generator_left_alone(num_workers):
    def make():
        return OurLoader(Numbers(), 2, True, num_workers=num_workers)

    torch.manual_seed(3)
    whole = [one.tolist() for one in torch.utils.data.DataLoader(Numbers(), 2, True, num_workers=num_workers)]
    torch.manual_seed(3)
    batches, state = after(make, 2)
    assert batches == whole[:2]
    torch.manual_seed(4)
    before = torch.get_rng_state()
    assert rest_of(make, state) == whole[2:]
    assert torch.equal(torch.get_rng_state(), before)


def test_the_next_epoch_from_the_global_generator_is_not_the_last_one_again():
    def make():
        return OurLoader(Numbers(99), 9, True, num_workers=1, persistent_workers=True)

    torch.manual_seed(3)
    batches, state = after(make, 11, finish=True)
    resumed = rest_of(make, state, epochs=2)
    assert all(sorted(flat(one)) == list(range(99)) for one in resumed)
    assert batches != resumed[0] != resumed[1]


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


@pytest.mark.parametrize("dataset", [Marked, StatefulStream, StreamOfWalks, SelfWalk, Stream])
@pytest.mark.parametrize(("num_workers", "persistent"), [(0, False), (2, False), (2, True)])
@pytest.mark.parametrize("finish", [False, True])
def test_after_the_last_short_batch_comes_a_whole_epoch(dataset, num_workers, persistent, finish):
    def make():
        return OurLoader(dataset(9), 2, num_workers=num_workers, persistent_workers=persistent)

    loader = make()
    whole = [epoch(loader) for _ in range(3)]
    _, state = after(make, len(whole[0]), finish=finish)
    resumed = rest_of(make, state, epochs=3)
    if dataset is StatefulStream and not persistent and num_workers and not finish:
        return  # the workers of the second epoch are new, and count anew
    assert resumed[:2] == whole[1:] if finish else resumed == [[], *whole[1:]]


def test_of_another_batch_size_the_samples_that_are_left_come():
    def make(size):
        return OurLoader(Numbers(23), size, shuffle=True, generator=generator())

    whole = flat(epoch(make(1)))
    for num_workers, then, now in [(0, 4, 3), (0, 2, 5), (2, 4, 3), (2, 1, None)]:
        loader = make(then)
        iterator = iter(loader)
        next(iterator), next(iterator)
        again = OurLoader(Numbers(23), now, True, num_workers=num_workers, generator=generator())
        state = loader.state_dict()
        again.load_state_dict(state | {"num_workers": num_workers, "workers": [None] * max(1, num_workers)})
        batches = epoch(again)
        assert (batches if now is None else flat(batches)) == whole[2 * then :]
        assert now is None or len(batches[0]) == now


@workers
def test_of_another_batch_size_a_stream_without_a_state_is_refused(num_workers):
    _, state = after(lambda: OurLoader(Stream(), 4, num_workers=num_workers), 2)
    loader = OurLoader(Stream(), 3, num_workers=num_workers)
    with pytest.raises(CursorError, match=r"saved with batch_size=4, this loader has 3.*Use batch_size=4"):
        loader.load_state_dict(state)
    _, state = after(lambda: OurLoader(StatefulStream(), 4), 2)
    assert rest_of(lambda: OurLoader(StatefulStream(), 5), state)[0][0] == 1008


@pytest.mark.parametrize(
    "other",
    [
        lambda: OurLoader(Numbers(30), 2, shuffle=True, generator=generator()),
        lambda: OurLoader(Numbers(), 2, generator=generator()),
        lambda: OurLoader(Numbers(), 2, sampler=[3, 1, 2] * 4, generator=generator()),
    ],
)
def test_a_sampler_that_draws_others_than_it_drew_is_an_error(other):
    _, state = after(maker(OurLoader, "shuffled", 0), 2)
    loader = other()
    loader.load_state_dict(state)
    with pytest.raises(CursorError, match=r"draws other samples than|Sampler has none|list has none"):
        list(loader)


@workers
def test_draws_that_were_made_ahead_are_not_part_of_the_checksum(num_workers):
    def make(last):
        return OurLoader(Numbers(99), 1, sampler=[*range(5), *last], num_workers=num_workers)

    _, state = after(lambda: make([5, 6, 7]), 5)
    assert flat(rest_of(lambda: make([8, 9]), state)) == [8, 9]


@pytest.mark.parametrize("own", [False, True])
def test_a_generator_that_is_there_only_then_or_only_now_is_refused(own):
    _, state = after(lambda: OurLoader(Numbers(), generator=generator() if own else None), 1)
    loader = OurLoader(Numbers(), generator=None if own else generator())
    with pytest.raises(CursorError, match=f"saved with {'a' if own else 'no'} generator, this loader has"):
        loader.load_state_dict(state)


@pytest.mark.parametrize(
    "damage",
    [{"sampler": {"taken": 1}}, {"generator": None}, {"workers": []}, {"workers": [3]}, {"delivered": "2"}],
)
def test_a_damaged_state_is_refused(damage):
    _, state = after(maker(OurLoader, "shuffled", 0), 2)
    loader = maker(OurLoader, "shuffled", 0)()
    for wrong in (state | damage, []):
        with pytest.raises(CursorError, match="this is no state of a loader"):
            loader.load_state_dict(wrong)


def test_distributed_sampler_keeps_the_epoch_that_it_was_told_last():
    def make():
        return OurLoader(Numbers(), 2, sampler=DistributedSampler(range(11), 2, 0))

    loader = make()
    told = []
    for number in range(3):
        loader.sampler.set_epoch(number)
        told.append(epoch(loader))
    assert told[0] != told[1] != told[2]
    loader.sampler.set_epoch(1)
    iterator = iter(loader)
    next(iterator)
    resumed = make()
    resumed.load_state_dict(loader.state_dict())
    assert epoch(resumed) == told[1][1:]
    list(iterator)
    resumed = make()
    resumed.load_state_dict(loader.state_dict())
    resumed.sampler.set_epoch(2)
    assert epoch(resumed) == told[2]


@workers
def test_a_batch_that_failed_is_passed_over(num_workers):
    """As by the iteration itself. With workers, torchdata's state goes back to it."""
    loader = OurLoader(Numbers(9, bad=2), 2, num_workers=num_workers)
    iterator = iter(loader)
    next(iterator)
    with pytest.raises(ValueError, match="bad"):
        next(iterator)
    resumed = OurLoader(Numbers(9), 2, num_workers=num_workers)
    resumed.load_state_dict(loader.state_dict())
    assert epoch(resumed) == [[4, 5], [6, 7], [8]]
    assert [plain(batch) for batch in iterator] == [[4, 5], [6, 7], [8]]


def test_a_nested_iteration_is_the_one_that_is_saved():
    loader = OurLoader(Numbers(5), None)
    outer = iter(loader)
    assert [next(outer), next(outer)] == [0, 1]
    inner = iter(loader)
    next(inner)
    state = loader.state_dict()
    assert next(outer) == 2
    assert rest_of(lambda: OurLoader(Numbers(5), None), state) == [1, 2, 3, 4]


@pytest.mark.parametrize("case", ["shuffled", "distributed", "iterator's state", "no state"])
def test_a_state_is_json_where_your_states_are(case):
    make = maker(OurLoader, case, 2)
    whole = epoch(make())
    _, state = after(make, 2)
    assert rest_of(make, json.loads(json.dumps(state))) == whole[2:]
    assert state["delivered"] == 2


def test_a_loader_with_a_loaded_state_can_be_pickled():
    make = maker(OurLoader, "sequential", 0)
    loader = make()
    loader.load_state_dict(after(make, 2)[1])
    assert epoch(pickle.loads(pickle.dumps(loader))) == epoch(make())[2:]


def test_in_order_false_warns_when_its_state_is_asked_for():
    loader = OurLoader(Numbers(), num_workers=2, in_order=False)
    with pytest.warns(UserWarning, match="some may come twice and some not at all.*in_order=True"):
        loader.state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OurLoader(Numbers(), num_workers=1, in_order=False).state_dict()


@pytest.mark.parametrize(
    ("state", "make", "message"),
    [
        ({"epoch": 1}, lambda: OurLoader(Numbers()), "this is no state of a loader.*state_dict"),
        ("text", lambda: OurLoader(Numbers()), "this is no state of a loader"),
        (None, lambda: OurLoader(Numbers(), num_workers=2), "num_workers=0, this loader has 2"),
        (None, lambda: OurLoader(Stream()), "kind 'map', this one is 'iterable'"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(state, make, message):
    if state is None:
        _, state = after(lambda: OurLoader(Numbers()), 1)
    loader = make()
    with pytest.raises(CursorError, match=message) as caught:
        loader.load_state_dict(state)
    assert "\n" not in str(caught.value)
    assert len(epoch(loader)) > 0


@pytest.mark.parametrize(
    ("saved", "now", "message"),
    [
        (lambda: Numbers(), lambda: Numbers(3), "saved after 5 draws, and the sampler makes 3 now"),
        (lambda: Stream(), lambda: Stream(3), "saved after 5 batches, and the dataset has 3 now"),
        (lambda: StreamOfWalks(), lambda: Stream(), "list_iterator|range_iterator has no state_dict"),
        (lambda: Counting(), lambda: Numbers(), "Numbers has no state_dict"),
    ],
)
def test_a_dataset_that_does_not_fit_is_an_error(saved, now, message):
    _, state = after(lambda: OurLoader(saved(), None), 5)
    loader = OurLoader(now(), None)
    loader.load_state_dict(state)
    with pytest.raises(CursorError, match=message) as caught:
        list(loader)
    assert "\n" not in str(caught.value)


def test_on_a_device_one_batch_is_on_its_way_while_the_last_is_used(calls):
    iterator = iter(OurLoader(Numbers(3), None, device="cuda"))
    assert calls == []
    assert next(iterator) == 0
    assert calls == [("deliver", 0), ("deliver", 1), ("hand over", 0)]
    assert list(iterator) == [1, 2]
    assert calls[3:] == [("deliver", 2), ("hand over", 1), ("hand over", 2)]
    with pytest.raises(StopIteration):
        next(iterator)


@workers
@pytest.mark.parametrize("case", ["shuffled", "own place", "no state", "dataset's state", "iterator's state"])
def test_on_a_device_the_state_is_that_of_the_batch_delivered(calls, case, num_workers):
    make = maker(OurLoader, case, num_workers, device="cuda")
    whole = epoch(maker(OurLoader, case, num_workers)())
    for step in (0, 1, 2, len(whole)):
        batches, state = after(make, step)
        assert batches == whole[:step]
        assert rest_of(make, state) == whole[step:], step
    _, state = after(make, len(whole), finish=True)
    assert state["finished"]


def test_an_iteration_of_which_nothing_was_taken_leaves_the_generator_as_it_was_saved():
    """Trainers call iter() before they know whether they need it."""

    def made(seed):
        return OurLoader(Numbers(9), 2, shuffle=True, generator=torch.Generator().manual_seed(seed))

    loader = made(3)
    iterator = iter(loader)
    next(iterator)
    state = loader.state_dict()
    expected = epoch(loader)
    again = made(3)
    again.load_state_dict(state)
    iter(again)
    assert epoch(again) == expected


class Interrupted(Numbers):
    interrupted = False

    def __getitem__(self, index):
        if index == 1 and not self.interrupted:
            self.interrupted = True
            raise KeyboardInterrupt
        return index


def test_on_a_device_an_interrupt_loses_no_batch(calls):
    loader = OurLoader(Interrupted(4), None, device="cuda")
    iterator = iter(loader)
    with pytest.raises(KeyboardInterrupt):
        next(iterator)
    assert rest_of(lambda: OurLoader(Numbers(4), None), loader.state_dict()) == [0, 1, 2, 3]
    assert next(iterator) == 0


def test_on_a_device_an_error_comes_at_its_batch_and_iteration_goes_on(calls):
    loader = OurLoader(Numbers(5, bad=2), None, device="cuda")
    iterator = iter(loader)
    assert [next(iterator), next(iterator)] == [0, 1]
    with pytest.raises(ValueError, match="bad"):
        next(iterator)
    assert list(iterator) == [3, 4]


def test_all_iterations_over_a_loader_share_one_stream_and_its_copies_have_their_own(monkeypatch, calls):
    made = []
    monkeypatch.setattr(
        "fastload.drop_in.stateful_loader.delivery", lambda device: made.append(device) or OwnStream(calls)
    )
    loader = OurLoader(Numbers(2), None, device="cuda")
    assert epoch(loader) == epoch(loader) == [0, 1]
    assert made == ["cuda"]
    for other in (pickle.loads(pickle.dumps(loader)), copy.copy(loader)):
        assert epoch(other) == [0, 1]
    assert made == ["cuda"] * 3
    loader.device = "cuda:1"
    assert epoch(loader) == [0, 1]
    assert made[3:] == ["cuda:1"]


@pytest.mark.parametrize("device", [None, "cpu", torch.device("cpu")])
def test_on_the_cpu_batches_are_torch_s_own(device):
    loader = OurLoader(Numbers(2), None, device=device)
    assert loader.device is device
    assert type(iter(loader)).__name__ == "_Iterator"
    assert CpuDelivery.stream is None
    assert epoch(loader) == [0, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@workers
@pytest.mark.parametrize("pin_memory", [False, True])
def test_batches_come_to_the_gpu(num_workers, pin_memory):
    dataset = TensorDataset(torch.arange(4000).reshape(40, 100), torch.ones(40))
    loader = OurLoader(dataset, 4, num_workers=num_workers, pin_memory=pin_memory, device="cuda")
    seen = []
    for numbers, ones in loader:
        assert numbers.device.type == ones.device.type == "cuda"
        torch.cuda._sleep(1_000_000)
        seen.append(numbers.clone())
    assert torch.equal(torch.cat(seen).cpu(), dataset.tensors[0])


@both
@workers
def test_loaders_that_take_turns_have_a_place_each(loader_class, num_workers):
    make = maker(loader_class, "dataset's state", num_workers)
    whole = epoch(make())
    one, other = make(), make()
    first, second = iter(one), iter(other)
    assert [plain(next(first)), plain(next(second)), plain(next(first))] == [whole[0], whole[0], whole[1]]
    states = one.state_dict(), other.state_dict()
    assert [rest_of(make, state) for state in states] == [whole[2:], whole[1:]]


@both
@pytest.mark.parametrize("case", ["shuffled", "dataset's state", "iterator's state"])
def test_to_ask_for_the_state_again_changes_nothing(loader_class, case):
    make = maker(loader_class, case, 0)
    whole = epoch(make())
    loader = make()
    seen = []
    for batch in loader:
        seen.append(plain(batch))
        assert repr(loader.state_dict()) == repr(loader.state_dict())
    assert seen == whole


class CountsIters(StreamOfWalks):
    iters = 0

    def __iter__(self):
        self.iters += 1
        return super().__iter__()


@both
def test_a_resume_asks_a_dataset_for_one_iterator_and_fetches_nothing_again(loader_class):
    _, state = after(lambda: loader_class(CountsIters(), 4), 2)
    loader = loader_class(CountsIters(), 4)
    loader.load_state_dict(state)
    assert plain(next(iter(loader))) == [8, 9, 10, 11]
    assert loader.dataset.iters == 1


@both
@workers
def test_the_length_stays_that_of_a_whole_epoch_after_a_resume(loader_class, num_workers):
    make = maker(loader_class, "sequential", num_workers)
    _, state = after(make, 2)
    loader = make()
    loader.load_state_dict(state)
    assert len(loader) == 6
    assert len(epoch(loader)) == 4
    assert len(loader) == 6


@both
@workers
def test_a_state_of_the_last_batch_has_no_rest_and_then_comes_a_whole_epoch(loader_class, num_workers):
    make = maker(loader_class, "sequential", num_workers)
    whole = epoch(make())
    _, state = after(make, len(whole))
    assert rest_of(make, state, epochs=2) == [[], whole]


@workers
@pytest.mark.parametrize("saved", [3, 6])
def test_a_sampler_that_is_told_its_epoch_goes_on_where_the_program_counts_steps(num_workers, saved):
    """Of a state of an epoch's last batch the rest would be an epoch without batches."""

    def train(state=None, done=0) -> tuple[list, dict]:
        sampler = DistributedSampler(range(11), 2, 1)
        loader = OurLoader(Numbers(), 1, sampler=sampler, num_workers=num_workers)
        if state is not None:
            loader.load_state_dict(state)
        got, kept = [], {}
        for epoch in range(done // len(loader), 3):
            sampler.set_epoch(epoch)
            for batch in loader:
                got.append(batch.tolist())
                kept[done + len(got)] = loader.state_dict()
        return got, kept

    whole, states = train()
    assert len(whole) == 18
    assert train(states[saved], saved)[0] == whole[saved:]


def test_the_rest_of_an_epoch_that_is_over_is_empty_where_its_sampler_is_told_the_same_epoch():
    sampler = DistributedSampler(range(11), 2, 1)
    loader = OurLoader(Numbers(), 1, sampler=sampler)
    sampler.set_epoch(4)
    for _ in loader:
        state = loader.state_dict()
    again_sampler = DistributedSampler(range(11), 2, 1)
    again = OurLoader(Numbers(), 1, sampler=again_sampler)
    again.load_state_dict(state)
    assert again_sampler.epoch == 4
    again_sampler.set_epoch(4)
    assert list(again) == []
    again_sampler.set_epoch(5)
    sampler.set_epoch(5)
    assert [batch.tolist() for batch in again] == [batch.tolist() for batch in loader]
