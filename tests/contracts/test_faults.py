"""Each contract is seen to fail: loaders with one planted fault, and the contracts that must notice it.

A fault is a change of the order's own code, or of the loader of integers; a contract that lets one through
proves nothing about the loaders that pass it.
"""

import hashlib

import numpy as np
import pytest
import torch

from fastload.order import steps as order_steps
from fastload.order.plan import make_plan
from fastload.order.steps import Step, Steps
from tests.contracts.dealing import LASTS, Sizes
from tests.contracts.elastic import assert_chain, assert_elastic
from tests.contracts.ends import assert_ends_of_epochs
from tests.contracts.integers import IntegerLoader
from tests.contracts.pixels import assert_same_samples, assert_same_samples_after_resuming

N = 23
EVERY = [Sizes(*one) for one in [(1, 1), (2, 3), (3, 2), (5, 4)]]
CHAIN = [((2, 3), 2), ((1, 4), 1), ((5, 2), 99), ((3, 2), 3)]


def maker(loader=IntegerLoader, **arguments):
    plan = make_plan([N], shuffle=True, window=None, seed=5)
    return lambda **sizes: loader(plan, **arguments | sizes)


def elastic(loader, last):
    every = [sizes._replace(last=last) for sizes in EVERY]
    assert_elastic(maker(loader), range(N), every, every)


def chain(loader, last):
    links = [(Sizes(*sizes, last), steps) for sizes, steps in CHAIN]
    assert_chain(maker(loader), range(N), links)


def ends(loader, last):
    for sizes in EVERY:
        assert_ends_of_epochs(maker(loader), range(N), sizes._replace(last=last))


CONTRACTS = {"elastic": elastic, "chain": chain, "ends": ends}


class StateIsPrefetched(IntegerLoader):
    def state_dict(self):
        return {"position": self._steps.step_at(self._position).valid_stop}


class StateOfTheRank(IntegerLoader):
    def state_dict(self):
        return {"position": self._position, "rank": self._rank}


class ResumeSkipsASample(IntegerLoader):
    def load_state_dict(self, state):
        self._position = state["position"] + (state["position"] % N > 0)


class ResumeRepeatsASample(IntegerLoader):
    def load_state_dict(self, state):
        self._position = state["position"] - (state["position"] % N > 0)


class ResumeBeginsTheEpochAnew(IntegerLoader):
    def load_state_dict(self, state):
        self._position = state["position"] // N * N


class ResumeCountsInSteps(IntegerLoader):
    """As a loader does that stores the number of its batches: right only while the sizes stay."""

    def state_dict(self):
        return {"steps": self._position // self._steps.samples_per_step}

    def load_state_dict(self, state):
        self._position = state["steps"] * self._steps.samples_per_step


class OrderOfTheWorld(IntegerLoader):
    def __init__(self, plan, batch_size, rank=0, world_size=1, last="drop"):
        plan = make_plan([N], shuffle=True, window=None, seed=world_size)
        super().__init__(plan, batch_size, rank, world_size, last)


class RankZeroEndsEarly(IntegerLoader):
    def __iter__(self):
        batches = list(super().__iter__())
        yield from batches[: len(batches) - (self._rank == 0 < len(batches))]


class LenIsRoundedUp(IntegerLoader):
    def __len__(self):
        return N // self._steps.samples_per_step + 1


class MaskIsAlwaysTrue(IntegerLoader):
    def _batch(self, step, taken):
        return super()._batch(step, taken) | {"__mask__": np.ones(step.per_rank, bool)}


class SamplesTwiceInAnEpoch(IntegerLoader):
    def _batch(self, step, taken):
        batch = super()._batch(step, taken)
        return batch | {"__key__": [key // 2 for key in batch["__key__"]]}


@pytest.mark.parametrize(
    "loader, last, contracts",
    [
        (StateIsPrefetched, "partial", "elastic chain"),
        (StateOfTheRank, "partial", "elastic chain"),
        (ResumeSkipsASample, "partial", "elastic chain"),
        (ResumeRepeatsASample, "straddle", "elastic chain"),
        (ResumeBeginsTheEpochAnew, "drop", "elastic chain"),
        (ResumeCountsInSteps, "drop", "elastic chain"),
        (OrderOfTheWorld, "pad", "elastic chain"),
        (RankZeroEndsEarly, "partial", "elastic chain ends"),
        (LenIsRoundedUp, "drop", "ends"),
        (MaskIsAlwaysTrue, "pad", "elastic chain ends"),
        (MaskIsAlwaysTrue, "drop", "elastic chain"),
        (SamplesTwiceInAnEpoch, "partial", "elastic chain ends"),
    ],
)
def test_a_fault_of_the_loader_is_noticed(loader, last, contracts):
    for contract in contracts.split():
        with pytest.raises(AssertionError):
            CONTRACTS[contract](loader, last)


def runs_for_ranks(monkeypatch):
    def rank_positions(start, per_rank, rank, world_size):
        return start + rank * per_rank + np.arange(per_rank)

    monkeypatch.setattr(order_steps, "rank_positions", rank_positions)


def one_for_all_ranks(monkeypatch):
    right = order_steps.rank_positions
    monkeypatch.setattr(
        order_steps, "rank_positions", lambda start, count, rank, world: right(start, count, 0, 1)
    )


def a_step_later(monkeypatch):
    right = Steps.step_at
    monkeypatch.setattr(Steps, "step_at", lambda self, position: right(self, position + 1))


def another_share_of_the_rest(share):
    def plant(monkeypatch):
        monkeypatch.setattr(Steps, "_per_rank_of_rest", share)

    return plant


def padding_of_one_sample(monkeypatch):
    def positions(self, rank):
        right = order_steps.rank_positions(self.start, self.per_rank, rank, self.world_size)
        return np.minimum(right, self.valid_stop - 1)

    monkeypatch.setattr(Step, "positions", positions)


@pytest.mark.parametrize(
    "plant, last, contracts",
    [
        (runs_for_ranks, "drop", "elastic chain"),
        (one_for_all_ranks, "drop", "elastic chain ends"),
        (a_step_later, "straddle", "elastic chain ends"),
        (another_share_of_the_rest(lambda self, rest: 0), "partial", "elastic chain ends"),
        (another_share_of_the_rest(lambda self, rest: 0), "pad", "elastic chain ends"),
        (another_share_of_the_rest(lambda self, rest: 0), "straddle", "elastic chain ends"),
        (another_share_of_the_rest(lambda self, rest: rest // self.world_size), "drop", "elastic chain ends"),
        (another_share_of_the_rest(lambda self, rest: rest // self.world_size), "pad", "elastic chain ends"),
        (
            another_share_of_the_rest(lambda self, rest: -(-rest // self.world_size)),
            "partial",
            "elastic ends",
        ),
        (padding_of_one_sample, "pad", "elastic ends"),
    ],
)
def test_a_fault_of_the_order_is_noticed(monkeypatch, plant, last, contracts):
    plant(monkeypatch)
    for contract in contracts.split():
        with pytest.raises(AssertionError):
            CONTRACTS[contract](IntegerLoader, last)


class Pixels(IntegerLoader):
    """Two uint8 "pixels" a sample, of its position; `of` says on what else they depend, by mistake."""

    def __init__(self, plan, batch_size, rank=0, world_size=1, last="pad", threads=1, of=""):
        super().__init__(plan, batch_size, rank, world_size, last)
        self._of, self._taken = of, 0
        self._wrong = {"batch size": batch_size, "rank": rank, "world": world_size, "threads": threads}

    def _batch(self, step, taken):
        batch = super()._batch(step, taken)
        self._taken += 1
        wrong = self._wrong | {"steps since the start": self._taken}
        rows = []
        for i, position in enumerate(batch["__position__"]):
            content = f"{position} {(wrong | {'place in the batch': i}).get(self._of)}"
            rows.append(list(hashlib.sha256(content.encode()).digest()[:8]))
        return batch | {"image": torch.tensor(rows, dtype=torch.uint8)}


def same_samples(of):
    variations = [{"world_size": 3}, {"batch_size": 7}, {"threads": 2}]
    assert_same_samples(maker(Pixels, batch_size=4, of=of), [{"batch_size": 4} | one for one in variations])


def same_samples_after_resuming(of):
    make_loader = maker(Pixels, batch_size=4, of=of)
    assert_same_samples_after_resuming(
        make_loader, {"batch_size": 4}, {"batch_size": 2, "world_size": 2}, [2]
    )


@pytest.mark.parametrize(
    "of", ["place in the batch", "batch size", "rank", "world", "threads", "steps since the start"]
)
def test_pixels_that_depend_on_what_they_must_not_are_noticed(of):
    with pytest.raises(AssertionError):
        same_samples(of)
    if of != "threads":  # which the resume does not change here
        with pytest.raises(AssertionError):
            same_samples_after_resuming(of)


@pytest.mark.parametrize("last", LASTS)
def test_without_a_fault_all_contracts_hold(last):
    for contract in CONTRACTS.values():
        contract(IntegerLoader, last)
    same_samples("")
    same_samples_after_resuming("")
