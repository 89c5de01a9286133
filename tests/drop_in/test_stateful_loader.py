"""What a state of a torch DataLoader means, asked of torchdata's StatefulDataLoader and of ours."""

import copy
import itertools
import json
import pickle

import pytest
from torchdata.stateful_dataloader import StatefulDataLoader

from fastload import DataLoader as OurLoader
from tests.drop_in.stateful_cases import (
    LOADERS,
    MAPS,
    STREAMS,
    Numbers,
    StreamOfWalks,
    after,
    both,
    both_and_workers,
    epoch,
    flat,
    maker,
    plain,
    rest_of,
    workers,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:neither the dataset nor its iterator"),
    pytest.mark.filterwarnings("ignore:with in_order=False"),
]


# With workers: an order from a generator, a sampler's own state, and each way to find a stream's place.
QUICK_IN_WORKERS = ("shuffled", "own place", "no state", "dataset's state", "uneven")


def resumes():
    """Every case, by both loaders, with and without workers, which are slow."""
    for loader_class, name in ((StatefulDataLoader, "torchdata"), (OurLoader, "ours")):
        for num_workers in (0, 2):
            for case in (*MAPS, *STREAMS):
                quick = num_workers == 0 or (loader_class is OurLoader and case in QUICK_IN_WORKERS)
                marks = [] if quick else [pytest.mark.slow]
                yield pytest.param(
                    loader_class, num_workers, case, id=f"{case}-{num_workers}-{name}", marks=marks
                )


@pytest.mark.parametrize(("loader_class", "num_workers", "case"), resumes())
def test_resume_at_every_batch_gives_the_rest_of_the_epoch(loader_class, num_workers, case):
    make = maker(loader_class, case, num_workers)
    whole = epoch(make())
    # With workers each resume starts processes: the first batch, one of the other worker, and the last.
    steps = set(
        range(len(whole) + 1) if num_workers == 0 else (1, (len(whole) // 2 + 1) // 2 * 2, len(whole))
    )
    if loader_class is StatefulDataLoader and num_workers and case == "dataset's state":
        steps.remove(len(whole))  # torchdata forgets that a worker's share has ended with a smaller batch
    for step in steps:
        batches, state = after(make, step)
        assert batches == whole[:step]
        assert rest_of(make, state) == whole[step:], step


def ends():
    """In workers, an order from a generator and each way to find a stream's place are quick."""
    for (name, one), case in itertools.product(
        LOADERS.items(), ("shuffled", "distributed", "own place", "no state", "iterator's state")
    ):
        quick = name != "torchdata-2" and (name != "ours-2" or case not in ("distributed", "own place"))
        yield pytest.param(*one, case, id=f"{case}-{name}", marks=[] if quick else [pytest.mark.slow])


@pytest.mark.parametrize(("loader_class", "num_workers", "case"), ends())
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


@both_and_workers
@pytest.mark.parametrize("case", ["sequential", "iterator's state", "no state"])
def test_after_the_rest_come_whole_epochs(loader_class, case, num_workers):
    make = maker(loader_class, case, num_workers)
    whole = epoch(make())
    _, state = after(make, 2)
    assert rest_of(make, state, epochs=3) == [whole[2:], whole, whole]


@both_and_workers
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


@both_and_workers
def test_a_state_that_was_loaded_and_not_used_is_given_back(loader_class, num_workers):
    make = maker(loader_class, "shuffled", num_workers)
    whole = epoch(make())
    _, state = after(make, 3)
    loader = make()
    loader.load_state_dict(state)
    assert rest_of(make, loader.state_dict()) == whole[3:]
    assert epoch(loader) == whole[3:]


@both_and_workers
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


@both_and_workers
def test_an_empty_state_is_the_beginning(loader_class, num_workers):
    make = maker(loader_class, "sequential", num_workers)
    loader = make()
    whole = epoch(loader)
    next(iter(loader))
    loader.load_state_dict({})
    assert epoch(loader) == whole


@both_and_workers
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


@both_and_workers
def test_a_state_does_not_change_with_what_follows(loader_class, num_workers):
    make = maker(loader_class, "dataset's state", num_workers)
    loader = make()
    iterator = iter(loader)
    next(iterator)
    state = loader.state_dict()
    before = copy.deepcopy(state)
    list(iterator)
    assert state == before


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


@both_and_workers
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


@both_and_workers
def test_the_length_stays_that_of_a_whole_epoch_after_a_resume(loader_class, num_workers):
    make = maker(loader_class, "sequential", num_workers)
    _, state = after(make, 2)
    loader = make()
    loader.load_state_dict(state)
    assert len(loader) == 6
    assert len(epoch(loader)) == 4
    assert len(loader) == 6


@both_and_workers
def test_a_state_of_the_last_batch_has_no_rest_and_then_comes_a_whole_epoch(loader_class, num_workers):
    make = maker(loader_class, "sequential", num_workers)
    whole = epoch(make())
    _, state = after(make, len(whole))
    assert rest_of(make, state, epochs=2) == [[], whole]
