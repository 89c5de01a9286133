"""The samples after any state: the same for every split into steps and ranks, mixtures included."""

import itertools

import numpy as np
import pytest

from fastload.order.mixture import MixtureState, shares_of
from fastload.order.plan import Global, Sequential, make_plan
from fastload.order.sample_order import MixtureSampleOrder, OrderState, PlanSampleOrder
from fastload.order.steps import LAST, Steps

SIZES = (7, 5, 12)
SHARES = shares_of([0.5, 0.2, 0.3])
N = 11  # positions in an epoch: a multiple of no other size here


def mixture_order(n=N, window=None):
    how = {"shuffle": True, "window": window, "seed": 3}
    return MixtureSampleOrder(n, [make_plan([size], stream=i, **how) for i, size in enumerate(SIZES)])


def by_the_definition(count, shares=SHARES):
    """(source, sample_id) of the first positions: each source's own order, by the schedule."""
    first_ids = np.cumsum([0, *SIZES])
    plans = [Global(size, 3, i) for i, size in enumerate(SIZES)]
    picks = MixtureState.start(shares).take(count, impl="reference")
    pairs = zip(picks.sources.tolist(), picks.samples.tolist(), strict=True)
    return [(i, int(plans[i].sample_ids(np.array([k]))[0] + first_ids[i])) for i, k in pairs]


def delivered(sample_order, steps, state, stop):
    """position -> (source, sample_id) of all ranks' samples before `stop` but padding, and the last state."""
    got = {}
    while state.position < stop:
        step = steps.step_at(state.position)
        rank_batches = [sample_order.take(step, rank, state) for rank in range(steps.world_size)]
        assert all(rank_batch.after == rank_batches[0].after for rank_batch in rank_batches)
        for rank, rank_batch in enumerate(rank_batches):
            columns = rank_batch.positions, rank_batch.sources, rank_batch.sample_ids, step.valid(rank)
            for position, source, sample_id, valid in zip(*(c.tolist() for c in columns), strict=True):
                if valid:
                    assert position not in got
                    got[position] = source, sample_id
        state = rank_batches[0].after
    return got, state


@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize(("batch_size", "world_size"), [(1, 1), (3, 1), (2, 2), (1, 8), (11, 1)])
def test_a_mixture_takes_the_same_samples_at_the_same_positions_for_every_size(batch_size, world_size, last):
    expected = by_the_definition(6 * N)
    steps = Steps(N, batch_size, world_size, last)
    got, _ = delivered(mixture_order(), steps, OrderState.start(SHARES), 5 * N)
    assert len(got) > 30
    assert all(got[position] == expected[position] for position in got)


def test_every_state_is_the_same_however_it_is_reached():
    sample_order, start = mixture_order(), OrderState.start(SHARES)
    states = {position: start.at(position, N) for position in range(4 * N)}
    for batch_size, world_size, last in itertools.product((1, 2, 5), (1, 2, 3), LAST):
        if batch_size * world_size > N and last == "drop":
            continue
        steps, state = Steps(N, batch_size, world_size, last), start
        while state.position < 3 * N:
            state = sample_order.take(steps.step_at(state.position), 0, state).after
            if state.position in states:
                assert state == states[state.position]
    for here, there in itertools.product(states, repeat=2):
        assert states[here].at(there, N) == states[there]


@pytest.mark.parametrize("batch_size", [4, 11, 12, 40])
@pytest.mark.parametrize("stop", [0, 3, 7])
def test_pad_repeats_the_start_of_the_epoch(batch_size, stop):
    expected = by_the_definition(3 * N)
    sample_order, steps = mixture_order(), Steps(N, batch_size, 1, "pad")
    state = OrderState.start(SHARES).at(2 * N + stop, N)
    while state.position < 3 * N:
        step = steps.step_at(state.position)
        rank_batch = sample_order.take(step, 0, state)
        columns = (rank_batch.positions, rank_batch.sources, rank_batch.sample_ids)
        for position, *pair in zip(*(column.tolist() for column in columns), strict=True):
            assert tuple(pair) == expected[position]
        state = rank_batch.after
    assert (~step.valid(0)).sum() == -(N - stop) % batch_size


def test_other_shares_hold_from_a_state_on_and_do_not_change_the_past():
    sample_order, steps = mixture_order(), Steps(N, 1, 1, "straddle")
    before, state = delivered(sample_order, steps, OrderState.start(SHARES), 15)
    only_last = state.reweighted(shares_of([0, 0, 1]), N)
    assert only_last.epoch_mixture == state.epoch_mixture
    after, _ = delivered(sample_order, steps, only_last, 30)
    assert before == dict(enumerate(by_the_definition(15)))
    assert {source for source, _ in after.values()} == {2}
    assert len({sample_id for _, sample_id in after.values()}) == 12  # a pass of its own, never begun anew


def test_back_in_its_epoch_a_state_keeps_the_shares_and_knows_the_counters():
    state = OrderState.start(SHARES).at(2 * N + 5, N).reweighted(shares_of([1, 1, 1]), N)
    back = state.at(2 * N, N)
    assert back.mixture.given == OrderState.start(SHARES).at(2 * N, N).mixture.given
    assert back.mixture.shares == back.epoch_mixture.shares == shares_of([1, 1, 1])
    assert state.at(2 * N + 2, N).mixture.given == back.mixture.take(2).after.given


def test_back_beyond_its_epoch_the_shares_count_from_the_first_position():
    state = OrderState.start(SHARES).at(2 * N + 5, N).reweighted(shares_of([1, 1, 1]), N)
    assert state.at(N + 1, N) == OrderState.start(shares_of([1, 1, 1])).at(N + 1, N)


def test_reweighting_at_the_start_of_an_epoch_changes_what_pad_repeats():
    state = OrderState.start(SHARES).at(N, N).reweighted(shares_of([1, 0, 0]), N)
    assert state.mixture == state.epoch_mixture
    rank_batch = mixture_order().take(Steps(N, 2 * N, 1, "pad").step_at(N), 0, state)
    assert set(rank_batch.sources.tolist()) == {0}


def test_a_mixture_of_one_source_takes_what_the_source_alone_would():
    plan = Global(13, 5)
    alone, mixed = PlanSampleOrder(plan), MixtureSampleOrder(13, [plan])
    step = Steps(13, 5, 2, "straddle").step_at(20)
    for rank in range(2):
        one = alone.take(step, rank, OrderState(20))
        other = mixed.take(step, rank, OrderState.start(shares_of([2])).at(20, 13))
        assert one.sample_ids.tolist() == other.sample_ids.tolist()
        assert one.positions.tolist() == other.positions.tolist()
        assert one.sources is None and other.sources.tolist() == [0] * 5


def test_sources_of_equal_size_are_shuffled_differently():
    how = {"shuffle": True, "seed": 0}
    for window in (None, 3):
        one, other = (make_plan([400, 400], window=window, stream=stream, **how) for stream in (0, 1))
        assert one.sample_ids(np.arange(800)).tolist() != other.sample_ids(np.arange(800)).tolist()
        assert one.describe() != other.describe()
    assert make_plan([20], window=None, **how) == make_plan([20], window=None, stream=0, **how)


def test_the_state_of_one_source_is_its_position():
    state = OrderState.start(None)
    assert state.at(10**12, 7) == OrderState(10**12)
    step = Steps(9, 2, 2, "drop").step_at(4)
    rank_batch = PlanSampleOrder(Sequential(9)).take(step, 1, state)
    assert rank_batch.positions.tolist() == rank_batch.sample_ids.tolist() == [5, 7]
    assert rank_batch.after == OrderState(8) and rank_batch.sources is None


def test_a_step_that_begins_after_the_state_takes_the_samples_there():
    # As after a resume with a larger batch, for which too little of the epoch is left.
    expected = by_the_definition(3 * N)
    step = Steps(N, 8, 1, "drop").step_at(5)
    rank_batch = mixture_order().take(step, 0, OrderState.start(SHARES).at(5, N))
    assert rank_batch.positions.tolist() == list(range(N, N + 8))
    pairs = zip(rank_batch.sources.tolist(), rank_batch.sample_ids.tolist(), strict=True)
    assert list(pairs) == expected[N : N + 8]
    assert rank_batch.after == OrderState.start(SHARES).at(N + 8, N)
