"""Which epoch a resumed loader goes on with: orders from generators, set_epoch, last batches."""

import pytest
import torch
from torch.utils.data import DistributedSampler, RandomSampler
from torchdata.stateful_dataloader import StatefulDataLoader

from fastload import DataLoader as OurLoader
from tests.drop_in.stateful_cases import (
    Marked,
    Numbers,
    OwnPlace,
    SelfWalk,
    StatefulStream,
    Stream,
    StreamOfWalks,
    after,
    epoch,
    flat,
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


@pytest.mark.parametrize(
    ("loader_class", "num_workers", "persistent"),
    slow_but(
        [(OurLoader, 0, False), (OurLoader, 2, True)],
        [
            (loader_class, *how)
            for loader_class in (StatefulDataLoader, OurLoader)
            for how in ((0, False), (2, False), (2, True))
        ],
    ),
)
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


LAST_BATCHES = [
    (dataset, num_workers, persistent, finish)
    for dataset in (Marked, StatefulStream, StreamOfWalks, SelfWalk, Stream)
    for num_workers, persistent in ((0, False), (2, False), (2, True))
    for finish in (False, True)
]
# With workers, each dataset once, and each way to end with either kind of workers.
QUICK_LAST_BATCHES = [one for one in LAST_BATCHES if one[1] == 0] + [
    (Marked, 2, False, False),
    (StatefulStream, 2, True, False),
    (StreamOfWalks, 2, True, True),
    (SelfWalk, 2, False, True),
    (Stream, 2, False, False),
]


@pytest.mark.parametrize(
    ("dataset", "num_workers", "persistent", "finish"), slow_but(QUICK_LAST_BATCHES, LAST_BATCHES)
)
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
def test_draws_that_were_made_ahead_are_not_part_of_the_checksum(num_workers):
    def make(last):
        return OurLoader(Numbers(99), 1, sampler=[*range(5), *last], num_workers=num_workers)

    _, state = after(lambda: make([5, 6, 7]), 5)
    assert flat(rest_of(lambda: make([8, 9]), state)) == [8, 9]


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
        for number in range(done // len(loader), 3):
            sampler.set_epoch(number)
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
