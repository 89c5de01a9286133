"""A sampler's place is saved after each draw and found again, whatever the sampler draws from.

Covers generators.py.
"""

import copy
import itertools
import json
import random

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from fastload.errors import CursorError
from fastload.loader.orders.generators import generator_state, set_generator_state
from fastload.loader.orders.sampler_state import SamplerIterator, is_stateful, restore_finished
from tests.loader.samples import labels


class Shuffled:
    """Draws its whole order from a global generator, when asked for its iterator or with the first draw."""

    def __init__(self, source, eager):
        self.source, self.eager = source, eager

    def order(self):
        if self.source == "random":
            return random.sample(range(9), 9)
        return (np.random.permutation(9) if self.source == "numpy" else torch.randperm(9)).tolist()

    def __iter__(self):
        return iter(self.order()) if self.eager else self.lazy()

    def lazy(self):
        yield from self.order()


class Both(Shuffled):
    """Draws once when asked for its iterator, and again with the first draw."""

    def __iter__(self):
        first = self.order()
        return (10 * one + two for one, two in zip(first, self.lazy(), strict=True))


class OwnPlace:
    """Goes on where it is, and rewinds with its end."""

    at = 0

    def __iter__(self):
        while self.at < 9:
            self.at += 1
            yield self.at - 1
        self.at = 0

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class Stays(OwnPlace):
    """As torchdata's: remembers where it was at the end, and only a load makes it go on from there."""

    def __init__(self):
        self.next_at = None

    def __iter__(self):
        self.at, self.next_at = self.next_at or 0, None
        while self.at < 9:
            self.at += 1
            yield self.at - 1

    def load_state_dict(self, state):
        self.next_at = state["at"]


class OwnIterator:
    def __iter__(self):
        return SampleOrder()


class SampleOrder(OwnPlace):
    def __iter__(self):
        return self

    def __next__(self):
        if self.at == 9:
            raise StopIteration
        self.at += 1
        return self.at - 1


def generator():
    return torch.Generator().manual_seed(5)


SAMPLERS = {
    "list": lambda: [5, 3, 3, 8],
    "sequential": lambda: SequentialSampler(range(9)),
    "random": lambda: RandomSampler(range(9)),
    "replacement": lambda: RandomSampler(range(99), True, 70),
    "generator": lambda: RandomSampler(range(9), generator=generator()),
    "longer": lambda: RandomSampler(range(3), num_samples=8, generator=generator()),
    "weighted": lambda: WeightedRandomSampler([1.0] * 9, 9, generator=generator()),
    "subset": lambda: SubsetRandomSampler(range(9), generator=generator()),
    "distributed": lambda: DistributedSampler(range(9), 2, 1),
    "batches": lambda: BatchSampler(RandomSampler(range(9), generator=generator()), 2, False),
    "batches of global": lambda: BatchSampler(RandomSampler(range(9)), 2, True),
    "batches of own place": lambda: BatchSampler(OwnPlace(), 3, True),
    "own place": OwnPlace,
    "stays": Stays,
    "own iterator": OwnIterator,
    **{
        f"{source}, {how}": lambda source=source, how=how: Shuffled(source, how == "eager")
        for source in ("random", "numpy", "torch")
        for how in ("eager", "lazy")
    },
    "twice": lambda: Both("numpy", False),
}
each = pytest.mark.parametrize("name", SAMPLERS)


def seed(number):
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def global_states():
    return [generator_state(None), random.getstate(), np.random.get_state()[1].tolist()]


@each
@pytest.mark.parametrize("between", [False, True])
def test_from_every_place_come_the_rest_of_the_draws(name, between):
    """between: the global generators are used between iter() and the first draw, as for workers' seeds."""

    def begun():
        seed(1)
        draws = SamplerIterator(SAMPLERS[name]())
        if between:
            draws.begin()
            seed(3)
        return draws

    whole = list(begun())
    for taken in range(len(whole) + 1):
        draws = begun()
        assert [next(draws) for _ in range(taken)] == whole[:taken]
        state = json.loads(json.dumps(draws.state()))
        seed(2 if taken else 3 if between else 1)  # what was not drawn yet, the generators of now decide
        if not taken and not between:
            continue
        before = global_states()
        again = SamplerIterator(SAMPLERS[name](), state)
        assert again.state() == state
        assert list(again) == whole[taken:], taken
        if taken:
            assert global_states() == before


@each
def test_a_place_can_be_saved_from_a_restored_one(name):
    seed(1)
    draws = SamplerIterator(SAMPLERS[name]())
    whole = [next(draws), next(draws)]
    state = draws.state()
    whole += draws
    seed(2)
    for step in range(2, len(whole)):
        again = SamplerIterator(SAMPLERS[name](), state)
        assert next(again) == whole[step]
        state = again.state()
        assert state["taken"] == step + 1
    assert list(SamplerIterator(SAMPLERS[name](), state)) == []


@each
def test_a_state_does_not_change_with_later_draws(name):
    draws = SamplerIterator(SAMPLERS[name]())
    next(draws)
    state = draws.state()
    before = json.dumps(state)
    next(draws)
    assert json.dumps(state) == before


@each
def test_a_sampler_is_passed_over_to_where_its_iteration_left_it(name):
    seed(1)
    sampler = SAMPLERS[name]()
    draws = SamplerIterator(sampler)
    list(draws)
    state = draws.state()
    seed(4)
    following = list(SamplerIterator(sampler))
    again = SAMPLERS[name]()
    restore_finished(again, state)
    seed(4)
    assert list(SamplerIterator(again)) == following


def test_nothing_is_asked_of_a_sampler_before_the_first_draw_or_begin():
    class Asked:
        asked = 0

        def __iter__(self):
            self.asked += 1
            return iter([1])

    sampler = Asked()
    draws = SamplerIterator(sampler)
    assert draws.state() is None
    assert iter(draws) is draws
    assert sampler.asked == 0
    draws.begin()
    assert (sampler.asked, next(draws), sampler.asked) == (1, 1, 1)


def test_the_place_of_a_sampler_that_has_not_begun_is_its_own_state():
    sampler = OwnPlace()
    sampler.at = 4
    assert list(SamplerIterator(OwnPlace(), SamplerIterator(sampler).state())) == [4, 5, 6, 7, 8]


def test_the_epoch_of_a_sampler_is_part_of_its_place():
    sampler = DistributedSampler(range(9), 2, 1)
    sampler.set_epoch(3)
    draws = SamplerIterator(sampler)
    next(draws)
    again = DistributedSampler(range(9), 2, 1)
    assert list(SamplerIterator(again, draws.state())) == list(draws)
    assert again.epoch == 3
    told = DistributedSampler(range(9), 2, 1)
    told.set_epoch(4)
    restore_finished(told, draws.state())
    assert told.epoch == 4


def test_a_sampler_that_has_become_shorter_is_an_error():
    draws = SamplerIterator([1, 2, 3])
    list(draws)
    with pytest.raises(
        CursorError, match=r"saved after 3 draws, but the sampler makes only 1 now\. Use"
    ) as caught:
        next(SamplerIterator([1], draws.state()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sampler", [OwnPlace(), OwnIterator()])
def test_a_sampler_without_a_state_cannot_be_given_one(sampler):
    draws = SamplerIterator(sampler)
    next(draws)
    with pytest.raises(
        CursorError, match=r"list has no load_state_dict\. Use the sampler that it was saved with"
    ):
        next(SamplerIterator([1, 2], draws.state()))


def test_a_state_needs_both_of_its_methods():
    assert is_stateful(OwnPlace()) and is_stateful(torch.nn.Linear(1, 1))
    assert not is_stateful([]) and not is_stateful(None)


@pytest.mark.parametrize("own", [False, True])
def test_a_generator_goes_on_where_its_text_says(own):
    one = generator() if own else None
    state = generator_state(one)
    drawn = torch.rand(3, generator=one)
    set_generator_state(one, state)
    assert torch.equal(torch.rand(3, generator=one), drawn)


class ReadsAhead:
    """Draws pairs from a sampler, one sample ahead of need."""

    def __init__(self, sampler):
        self.sampler = sampler

    def __iter__(self):
        inner = iter(self.sampler)
        kept = next(inner)
        for one in inner:
            yield [kept, one]
            kept = one


class Bucketed(BatchSampler):
    """torch's by name, and reads ahead."""

    __iter__ = ReadsAhead.__iter__


@pytest.mark.parametrize("batches", [ReadsAhead, lambda sampler: Bucketed(sampler, 2, False)])
def test_what_reads_ahead_of_a_stateful_sampler_is_drawn_again_itself(batches):
    whole = list(SamplerIterator(batches(Stays())))
    for taken in range(1, len(whole) + 1):
        draws = SamplerIterator(batches(Stays()))
        assert [next(draws) for _ in range(taken)] == whole[:taken]
        assert list(SamplerIterator(batches(Stays()), draws.state())) == whole[taken:]


class NumpyOwn(Shuffled):
    """Has a generator of its own that nobody knows."""

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def __iter__(self):
        return iter(self.rng.permutation(9).tolist())


class LazyRandom:
    def __iter__(self):
        return (random.randrange(1000) for _ in range(9))


class OwnEpochs:
    epoch = 0

    def __iter__(self):
        self.epoch += 1
        return iter(range(self.epoch, self.epoch + 9))


@pytest.mark.parametrize("make", [NumpyOwn, LazyRandom, OwnEpochs])
@pytest.mark.parametrize("finish", [False, True])
@pytest.mark.parametrize("batched", [False, True])
def test_a_place_that_cannot_be_found_again_is_an_error(make, finish, batched):
    def made():
        return BatchSampler(make(), 2, False) if batched else make()

    sampler = made()
    list(sampler)  # what draws from global generators does not know its second epoch again either
    draws = SamplerIterator(sampler)
    next(draws)
    random.random()  # the training's own
    next(draws)
    with pytest.raises(CursorError, match=rf"the sampler {make.__name__} draws other samples.*state_dict"):
        if finish:
            list(draws)
            restore_finished(made(), draws.state())
        else:
            next(SamplerIterator(made(), draws.state()))


@pytest.mark.parametrize(
    "other", [range(1, 12), RandomSampler(range(9), generator=generator()), [0, 1.0, 2], ["0", "1", "2"]]
)
def test_another_sampler_is_an_error(other):
    draws = SamplerIterator(SequentialSampler(range(9)))
    next(draws), next(draws)
    with pytest.raises(CursorError, match="draws other samples than when the checkpoint was saved") as caught:
        next(SamplerIterator(other, draws.state()))
    assert "\n" not in str(caught.value)


def test_a_loader_of_fastload_s_own_refuses_another_sampler_too(shards):
    loader = labels(shards, 4, sampler=range(20))
    iterator = iter(loader)
    next(iterator), next(iterator)
    again = labels(shards, 4, sampler=range(1, 21))
    again.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    with pytest.raises(CursorError, match="the sampler range draws other samples"):
        next(iter(again))


@pytest.mark.parametrize("own", [False, True])
def test_a_generator_that_is_not_there_then_or_now_is_an_error(own):
    draws = SamplerIterator(RandomSampler(range(99), generator=generator() if own else None))
    next(draws)
    before = global_states()
    with pytest.raises(CursorError, match="has none. Give it a generator" if own else "other samples"):
        next(SamplerIterator(RandomSampler(range(99), generator=None if own else generator()), draws.state()))
    assert global_states() == before


@pytest.mark.parametrize(
    "drawn",
    [
        [[1, 2], [3]],
        (np.int64(1), torch.tensor(2), 3),
        [np.array([1, 2]), torch.tensor([3])],
        ["a", 1, 2**70, -5, None, 0.5],
        [{"a": 1}, {"a": object()}],
        [(1, "a"), (2, "b")],
    ],
)
def test_whatever_is_drawn_has_a_checksum(drawn):
    draws = SamplerIterator(copy.copy(drawn))
    taken = next(draws)
    assert [taken, *SamplerIterator(drawn, draws.state())] == [*drawn] or isinstance(drawn[0], np.ndarray)
    if not isinstance(drawn[0], dict):
        with pytest.raises(CursorError, match="draws other samples"):
            next(SamplerIterator([drawn[-1]], draws.state()))


@pytest.mark.parametrize("name", ["sequential", "random", "generator", "numpy, eager", "twice", "stays"])
@pytest.mark.parametrize("last", [False, True])
def test_a_place_in_torch_s_batches_is_one_of_samples(name, last):
    """Whatever the batch size is now, and where there are no batches."""

    def made(size):
        return BatchSampler(SAMPLERS[name](), size, last) if size else SAMPLERS[name]()

    seed(1)
    singly = list(made(None))
    for then, now in itertools.product([2, 3, 4], [2, 3, 5, None]):
        for taken in range(1, 9 // then + 1):
            seed(1)
            draws = SamplerIterator(made(then))
            passed = sum(len(next(draws)) for _ in range(taken))
            rest = singly[passed:]
            again = list(SamplerIterator(made(now), json.loads(json.dumps(draws.state()))))
            assert again == (rest if now is None else list(BatchSampler(rest, now, last))), (then, now, taken)


def test_a_place_in_batches_of_another_size_is_saved_again():
    draws = SamplerIterator(BatchSampler(range(30), 4, False))
    for _ in range(3):
        next(draws)
    draws = SamplerIterator(BatchSampler(range(30), 7, False), draws.state())
    assert next(draws) == [*range(12, 19)]
    assert next(SamplerIterator(BatchSampler(range(30), 2, False), draws.state())) == [19, 20]


def test_half_an_environment_does_not_keep_a_sampler_from_its_place(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    draws = SamplerIterator(SequentialSampler(range(5)))
    next(draws)
    assert draws.state()["rank"] == 0
    assert list(SamplerIterator(SequentialSampler(range(5)), draws.state())) == [1, 2, 3, 4]
