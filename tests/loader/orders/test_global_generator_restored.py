"""Who sets torch's global generator back himself, and states that say nothing of it."""

import json

import pytest
import torch
from torch.utils.data import IterableDataset

import fastload as fl
from fastload.drop_in.state_format import decoded
from fastload.errors import CursorError
from fastload.loader.orders.global_generator import GlobalGenerator
from fastload.opaque import value_of
from tests.loader.orders.global_cases import (
    LOADERS,
    PLACES,
    SAMPLERS,
    Each,
    N,
    Numbers,
    dataset,
    epoch,
    interrupted,
    plain,
)
from tests.loader.samples import labels

pytestmark = pytest.mark.filterwarnings("ignore:neither the dataset nor its iterator")


class Shuffled(IterableDataset):
    """No state, and an order from the global generator, at its iter() or with the first sample."""

    def __init__(self, eager):
        self.eager = eager

    def __iter__(self):
        return iter(torch.randperm(N).tolist()) if self.eager else self.lazy()

    def __len__(self):
        return N

    def lazy(self):
        yield from torch.randperm(N).tolist()


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_a_stream_without_a_state_that_shuffles_once_is_a_sampler_like_any_other(eager, place):
    def make():
        return fl.DataLoader(Shuffled(eager), 4)

    torch.manual_seed(0)
    state, _, following = interrupted(make, place)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    loader = make()
    loader.load_state_dict(state)
    assert [epoch(loader) for _ in following] == following
    assert torch.equal(torch.get_rng_state(), before)


class Restores(IterableDataset):
    """Its state is a place and torch's global generator, which it puts back when it is told to."""

    def __init__(self, when):
        self.when, self.at, self.loaded = when, 0, None

    def __iter__(self):
        if self.when == "iter":
            self.put_back()
        return self.numbers()

    def numbers(self):
        self.put_back()
        while self.at < 12:
            self.at += 1
            yield float(torch.rand(()))
        self.at = 0

    def put_back(self):
        if self.loaded is not None:
            torch.set_rng_state(self.loaded)
        self.loaded = None

    def state_dict(self):
        return {"at": self.at, "generator": torch.get_rng_state()}

    def load_state_dict(self, state):
        self.at, self.loaded = state["at"], state["generator"]
        if self.when == "load":
            self.put_back()


class RestoresInIterator(IterableDataset):
    def __iter__(self):
        return _RestoringIterator()


class _RestoringIterator:
    at = 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.at == 12:
            raise StopIteration
        self.at += 1
        return float(torch.rand(()))

    state_dict = Restores.state_dict

    def load_state_dict(self, state):
        self.at = state["at"]
        torch.set_rng_state(state["generator"])


@pytest.mark.parametrize("when", ["load", "iter", "first sample", "iterator"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_stream_that_puts_the_global_generator_back_itself_goes_on_from_there(when, steps):
    def make():
        return fl.DataLoader(RestoresInIterator() if when == "iterator" else Restores(when), 4)

    torch.manual_seed(0)
    loader = make()
    iterator = iter(loader)
    for _ in range(steps):
        next(iterator)
    state = loader.state_dict()
    expected = [plain(batch) for batch in iterator], epoch(loader), torch.rand(2).tolist()
    torch.manual_seed(0)
    torch.rand(7)
    again = make()
    again.load_state_dict(state)
    assert (epoch(again), epoch(again), torch.rand(2).tolist()) == expected


class RestoringSampler(Each):
    """Has a place, and torch's global generator in it."""

    at = 0

    def __iter__(self):
        while self.at < N:
            self.at += 1
            yield int(torch.randint(N, ()))
        self.at = 0

    state_dict = Restores.state_dict
    load_state_dict = _RestoringIterator.load_state_dict


@pytest.mark.parametrize("name", ["torch dataset", "torch dataset, batch sampler", "Loader"])
@pytest.mark.parametrize("place", ["begun", "middle", "end"])
def test_a_sampler_that_puts_the_global_generator_back_itself_goes_on_from_there(shards, name, place):
    def make():
        return LOADERS[name](shards, RestoringSampler())

    torch.manual_seed(0)
    state, _, following = interrupted(make, place)
    torch.manual_seed(1)
    loader = make()
    loader.load_state_dict(state)
    assert [epoch(loader) for _ in following] == following


def old(state):
    """As fastload 0.1.0 wrote it."""
    if "draws" in state:
        draws = {name: one for name, one in state["draws"].items() if name != "global_generator"}
        return state | {"draws": draws | {name: value_of(draws[name]) for name in ("generators", "own")}}
    state = decoded(state) | {"version": 2}
    return {name: one for name, one in state.items() if name not in ("global_generator", "rank")}


@pytest.mark.parametrize("name", ["torch dataset", "Loader"])
def test_a_state_of_fastload_0_1_0_is_read_and_later_epochs_are_the_program_s(shards, name):
    def make():
        return LOADERS[name](shards, SAMPLERS["random"]())

    torch.manual_seed(0)
    state, _, following = interrupted(make, "middle")
    torch.manual_seed(4)
    expected = epoch(make())
    torch.manual_seed(4)
    loader = make()
    loader.load_state_dict(json.loads(json.dumps(old(state))))
    assert epoch(loader) == following[0]
    assert epoch(loader) == expected


def test_a_state_of_a_version_that_nobody_knows_is_refused_with_the_reason():
    loader = fl.DataLoader(Numbers())
    with pytest.raises(CursorError, match=r"has version 4, but this fastload reads only 2 and 3. Resume"):
        loader.load_state_dict(loader.state_dict() | {"version": 4})


@pytest.mark.parametrize("text", ["", "no text", "AAAA", 3])
def test_a_text_that_is_no_generator_is_refused(shards, text):
    with pytest.raises(CursorError, match=r"must be the state of a torch generator.*state_dict"):
        GlobalGenerator().load(text, 0)
    loader = fl.DataLoader(Numbers())
    with pytest.raises(CursorError, match="state of a"):
        loader.load_state_dict(loader.state_dict() | {"global_generator": text})
    loader = labels(shards, sampler=[1, 2])
    state = loader.state_dict()
    with pytest.raises(CursorError, match=r"state of a|not a sampler's state"):
        loader.load_state_dict(state | {"draws": state["draws"] | {"global_generator": text}})


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", None, True])
def test_snapshot_every_n_steps_is_a_whole_number_from_1_up(shards, value):
    for given in (Numbers(), dataset(shards)):
        with pytest.raises(
            fl.ConfigError, match=f"snapshot_every_n_steps must be an integer .*, got {value!r}"
        ):
            fl.DataLoader(given, snapshot_every_n_steps=value)


def test_snapshot_every_n_steps_is_accepted_and_every_step_can_be_saved(shards):
    for given in (Numbers(), dataset(shards)):
        loader = fl.DataLoader(given, 4, snapshot_every_n_steps=100)
        assert loader.snapshot_every_n_steps == 100
        iterator = iter(loader)
        next(iterator), next(iterator), next(iterator)
        again = fl.DataLoader(given, 4, snapshot_every_n_steps=3)
        again.load_state_dict(loader.state_dict())
        assert epoch(again) == [plain(batch) for batch in iterator]
