"""After a resume, later epochs of samplers without a generator are those of an uninterrupted run.

Torch datasets and fastload's own are asked the same questions.
"""

import copy
import json
import pickle

import pytest
import torch
from torch.utils.data import RandomSampler

import fastload as fl
from fastload.loader.orders.generators import encode_state
from tests.loader.orders.global_cases import (
    LOADERS,
    PLACES,
    SAMPLERS,
    Each,
    N,
    Numbers,
    epoch,
    interrupted,
    plain,
)
from tests.loader.samples import labels

pytestmark = pytest.mark.filterwarnings("ignore:neither the dataset nor its iterator")


QUICK_IN_WORKERS = {
    ("torch dataset, in workers", "begun"),
    ("torch dataset, in workers", "last batch"),
    ("torch dataset, in lasting workers", "end"),
}


def resumes():
    """(name, sampler, place). Workers are slow to start: one sampler of them, and few places."""
    for name in LOADERS:
        slow = "workers" in name
        for i, sampler in enumerate(["random"] if slow else SAMPLERS):
            places = PLACES if not slow else ("begun", "end") if "lasting" in name else PLACES[1:]
            for place in places:
                if name in ("torch dataset", "Loader"):
                    quick = True
                elif slow:
                    quick = (name, place) in QUICK_IN_WORKERS
                else:  # the same code as one of the first two
                    quick = place == PLACES[i]
                yield pytest.param(name, sampler, place, marks=[] if quick else [pytest.mark.slow])


@pytest.mark.parametrize(("name", "sampler", "place"), resumes())
def test_all_later_epochs_are_the_uninterrupted_run_s_and_the_program_s_generator_is_left_alone(
    shards, name, sampler, place
):
    def make():
        return LOADERS[name](shards, SAMPLERS[sampler]())

    torch.manual_seed(0)
    state, saved, following = interrupted(make, place)
    after = torch.get_rng_state()
    assert following[-1] != following[-2]
    for program in ("seeds as always", "seeds with another number", "has drawn", "restores"):
        if "workers" in name and program in ("seeds with another number", "has drawn"):
            continue
        torch.manual_seed(8 if program == "seeds with another number" else 0)
        torch.rand(5 if program == "has drawn" else 0)
        loader = make()
        loader.load_state_dict(copy.deepcopy(state))
        if program == "restores":
            torch.set_rng_state(saved)
        before = torch.get_rng_state()
        assert [epoch(loader) for _ in following] == following, program
        expected = after if program == "restores" else before
        assert torch.equal(torch.get_rng_state(), expected), program


@pytest.mark.parametrize("num_workers", [0, 2])
def test_shuffle_true_is_a_sampler_like_any_other(num_workers):
    def make():
        return fl.DataLoader(Numbers(), 4, shuffle=True, num_workers=num_workers)

    torch.manual_seed(0)
    state, _, following = interrupted(make, "middle", k=0)
    torch.manual_seed(0)
    loader = make()
    loader.load_state_dict(state)
    assert [epoch(loader) for _ in following] == following


@pytest.mark.parametrize("name", ["torch dataset", "Loader"])
@pytest.mark.parametrize("sampler", ["random", "eager"])
@pytest.mark.parametrize("place", ["begun", "middle", "end"])
def test_a_resumed_run_can_be_saved_in_a_later_epoch_and_resumed_again(shards, name, sampler, place):
    def make():
        return LOADERS[name](shards, SAMPLERS[sampler]())

    torch.manual_seed(0)
    state, _, following = interrupted(make, place, epochs=5)
    passed = 0
    for number in range(1, 4):
        torch.manual_seed(number)
        loader = make()
        loader.load_state_dict(json.loads(json.dumps(state)))
        assert epoch(loader) == following.pop(0)[passed:]
        iterator, passed = iter(loader), 2
        assert [plain(next(iterator)) for _ in range(passed)] == following[0][:passed]
        state = loader.state_dict()
    assert [plain(batch) for batch in iterator] == following[0][passed:]


class EagerBatches:
    def __iter__(self):
        return iter(torch.randperm(N)[:20].reshape(5, 4).tolist())

    def __len__(self):
        return 5


def test_a_batch_sampler_that_was_resumed_before_its_iter_can_be_saved_within_it(shards):
    def make():
        return labels(shards, None, batch_sampler=EagerBatches())

    torch.manual_seed(0)
    state, _, following = interrupted(make, "end")
    torch.manual_seed(1)
    loader = make()
    loader.load_state_dict(state)
    iterator = iter(loader)
    assert plain(next(iterator)) == following[0][0]
    torch.manual_seed(2)
    again = make()
    again.load_state_dict(loader.state_dict())
    assert [epoch(again) for _ in following] == [following[0][1:], *following[1:]]


@pytest.mark.parametrize("place", ["middle", "end"])
@pytest.mark.parametrize("late", [False, True])
def test_a_program_may_put_the_generator_back_before_iter_or_before_the_first_batch(shards, place, late):
    """A Loader draws nothing at iter(); what the program draws in between is its own."""

    def make():
        return LOADERS["Loader"](shards, SAMPLERS["subset"]())

    torch.manual_seed(0)
    loader = make()
    iterator = iter(loader)
    _ = next(iterator) if place == "middle" else list(iterator)
    state, saved = loader.state_dict(), torch.get_rng_state()
    rest = [plain(batch) for batch in iterator]
    iterator = iter(loader)
    torch.rand(0 if late else 3)
    expected = [plain(batch) for batch in iterator], epoch(loader), torch.rand(2).tolist()
    torch.manual_seed(0)
    torch.rand(5)
    again = make()
    again.load_state_dict(state)
    if not late:
        torch.set_rng_state(saved)
    if place == "middle":
        assert epoch(again) == rest
    iterator = iter(again)
    if late:
        torch.set_rng_state(saved)
    torch.rand(0 if late else 3)
    assert ([plain(batch) for batch in iterator], epoch(again), torch.rand(2).tolist()) == expected


def test_a_first_batch_that_fails_is_no_draw(shards):
    """The sampler has drawn ahead by then."""

    def fail(batch):
        raise ValueError("not yet")

    torch.manual_seed(0)
    expected = epoch(labels(shards, 4, sampler=SAMPLERS["random"]()))
    torch.manual_seed(0)
    loader = labels(shards, 4, sampler=SAMPLERS["random"](), map_batch=fail)
    with pytest.raises(ValueError, match="not yet"):
        next(iter(loader))
    again = labels(shards, 4, sampler=SAMPLERS["random"]())
    again.load_state_dict(loader.state_dict())
    assert epoch(again) == expected


class Noisy(Numbers):
    """Draws in the main process, and puts the generator back with its state."""

    def __getitem__(self, index):
        return index, float(torch.rand(()))

    def state_dict(self):
        return {"generator": torch.get_rng_state()}

    def load_state_dict(self, state):
        torch.set_rng_state(state["generator"])


def test_a_dataset_that_puts_the_generator_back_is_a_program_that_does():
    def make():
        return fl.DataLoader(Noisy(), 4, shuffle=True)

    torch.manual_seed(0)
    state, _, following = interrupted(make, "middle")
    torch.manual_seed(0)
    loader = make()
    loader.load_state_dict(state)
    assert [epoch(loader) for _ in following] == following


@pytest.mark.parametrize("name", ["torch dataset", "Loader"])
@pytest.mark.parametrize("place", PLACES)
def test_a_program_that_seeds_before_each_epoch_with_another_number_means_that(shards, name, place):
    def make():
        return LOADERS[name](shards, SAMPLERS["subset"]())

    def seed(number):
        torch.manual_seed(100 + number)

    state, _, following = interrupted(make, place, before=seed)
    torch.manual_seed(5)
    loader = make()
    loader.load_state_dict(state)
    resumed = []
    for number, _ in enumerate(following, 2 if place == "end" else 1):
        seed(number)
        resumed.append(epoch(loader))
    assert resumed == following


@pytest.mark.parametrize("name", ["torch dataset", "Loader"])
def test_a_program_that_seeds_alike_before_each_epoch_means_that_where_it_can_be_seen(shards, name):
    """As for evaluations that are to be the same: something was drawn before, and nothing since."""

    def make():
        return LOADERS[name](shards, SAMPLERS["random"]())

    loader = make()
    torch.manual_seed(3)
    iterator = iter(loader)
    next(iterator)
    state = loader.state_dict()
    torch.manual_seed(3)
    again = make()
    again.load_state_dict(state)
    torch.rand(9)  # such as a model's weights
    assert len(epoch(again)) == 5
    torch.manual_seed(3)
    second = epoch(again)
    torch.manual_seed(3)
    assert second == epoch(make())


def test_of_what_others_draw_nothing_is_known_but_where_the_program_restores_the_generator(shards):
    for name in ("torch dataset", "Loader"):
        torch.manual_seed(0)
        loader = LOADERS[name](shards, SAMPLERS["random"]())
        iterator = iter(loader)
        next(iterator)
        torch.rand(3)  # a model's dropout
        state, saved = loader.state_dict(), torch.get_rng_state()
        expected = [*((plain(batch), float(torch.rand(()))) for batch in iterator)], epoch(loader)
        torch.manual_seed(0)
        again = LOADERS[name](shards, SAMPLERS["random"]())
        again.load_state_dict(state)
        torch.set_rng_state(saved)
        assert ([(plain(batch), float(torch.rand(()))) for batch in again], epoch(again)) == expected


def test_several_epochs_in_one_iteration_are_resumed_from_every_batch_whatever_was_drawn_ahead(shards):
    def make():
        return labels(shards, 8, sampler=RandomSampler(range(N)), epochs=3, prefetch=4)

    torch.manual_seed(0)
    loader = make()
    states, batches = [], []
    for batch in loader:
        states.append(loader.state_dict())
        batches.append(plain(batch))
    generators = [state["draws"]["global_generator"] for state in states]
    assert len({*generators}) == 3 and generators[1] != encode_state(torch.get_rng_state())
    following = epoch(loader)
    for step, state in enumerate(states):
        torch.manual_seed(0)
        again = make()
        again.load_state_dict(state)
        rest = batches[step + 1 :]
        assert epoch(again) == rest, step
        if rest:
            assert epoch(again) == following


@pytest.mark.parametrize("name", ["torch dataset", "Loader"])
def test_copies_of_a_loader_that_was_resumed_go_on_like_it(shards, name):
    torch.manual_seed(0)
    loader = LOADERS[name](shards, SAMPLERS["random"]())
    state, _, following = interrupted(lambda: loader, "middle")
    torch.manual_seed(1)
    again = LOADERS[name](shards, SAMPLERS["random"]())
    again.load_state_dict(state)
    for one in (copy.copy(again), pickle.loads(pickle.dumps(again)), again):
        assert [epoch(one) for _ in range(3)] == following


@pytest.mark.parametrize("name", ["torch dataset", "Loader"])
def test_the_state_of_another_rank_counts_where_all_ranks_seed_alike(shards, monkeypatch, name):
    def make():
        return LOADERS[name](shards, SAMPLERS["random"]())

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    torch.manual_seed(0)
    state, _, following = interrupted(make, "middle")
    monkeypatch.setenv("RANK", "1")
    for seed in (0, 1):
        torch.manual_seed(seed)
        loader = make()
        loader.load_state_dict(state)
        assert epoch(loader) == following[0]
        torch.manual_seed(seed)
        assert (epoch(loader) == following[1]) is (seed == 0)


class Seeding:
    """A sampler that seeds all that draw, as some do with their epoch."""

    passes = 0

    def __iter__(self):
        self.passes += 1
        torch.manual_seed(self.passes)
        return iter(torch.randperm(N).tolist())

    def __len__(self):
        return N


@pytest.mark.parametrize("name", ["torch dataset", "Loader"])
def test_a_sampler_that_seeds_torch_seeds_it_for_all(shards, name):
    torch.manual_seed(0)
    state = LOADERS[name](shards, Seeding()).state_dict()
    torch.manual_seed(9)
    loader = LOADERS[name](shards, Seeding())
    loader.load_state_dict(state)
    epoch(loader)
    drawn = torch.rand(3)
    torch.manual_seed(1)
    torch.randperm(N)
    assert torch.equal(torch.rand(3), drawn)


def test_what_draws_each_time_is_exact_from_the_end_of_an_epoch_on(shards):
    for name in ("torch dataset", "Loader"):
        torch.manual_seed(0)
        state, _, following = interrupted(lambda name=name: LOADERS[name](shards, Each()), "end")
        torch.manual_seed(0)
        loader = LOADERS[name](shards, Each())
        loader.load_state_dict(state)
        assert [epoch(loader) for _ in following] == following


class OwnStream:
    stream = "own"

    def deliver(self, batch, finish):
        return finish(batch)

    def hand_over(self, delivered):
        return delivered


@pytest.mark.parametrize("place", PLACES)
def test_on_a_device_the_generator_is_saved_as_it_is_when_the_state_is_asked_for(monkeypatch, place):
    monkeypatch.setattr("fastload.drop_in.stateful_loader.resolve_device", lambda device: device)
    monkeypatch.setattr("fastload.drop_in.stateful_loader.delivery", lambda device: OwnStream())

    def make():
        return fl.DataLoader(Numbers(), 4, shuffle=True, device="cuda")

    torch.manual_seed(0)
    state, saved, following = interrupted(make, place)
    assert state["global_generator"] == encode_state(saved)
    torch.manual_seed(0)
    loader = make()
    loader.load_state_dict(state)
    assert [epoch(loader) for _ in following] == following
    loader = make()
    iterator = iter(loader)
    next(iterator)
    torch.rand(1)
    state = loader.state_dict()
    assert state["delivered"] == 1
    assert state["global_generator"] == encode_state(torch.get_rng_state())
