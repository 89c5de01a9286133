"""Replacement samples: the same on every rank, of the bad sample's window and source, spread over it."""

import numpy as np
import pytest

from fastload.order.mixture import shares_of
from fastload.order.plan import Global, Sequential, Windowed
from fastload.order.replacement import MAX_ATTEMPTS, replacement_ids
from fastload.order.sample_order import MixtureSampleOrder, OrderState, PlanSampleOrder
from fastload.order.steps import Steps

ATTEMPTS = range(1, MAX_ATTEMPTS + 1)


def plans(n):
    counts = np.array([n // 3, 0, n - n // 3])
    return [Sequential(n), Global(n, 5), Windowed(counts, 5, 4, lanes=3), Windowed(counts, 5, 7)]


@pytest.mark.parametrize("n", [1, 2, 7, 64, 65, 130])
def test_windows_are_the_positions_whose_samples_are_mixed(n):
    for plan in plans(n):
        positions = np.arange(3 * n)
        first, step, count = plan.windows(positions)
        for epoch in range(3):
            seen = {}
            for position in range(epoch * n, epoch * n + n):
                at = slice(position, position + 1)
                window = tuple((first[at] + step[at] * np.arange(count[position])).tolist())
                assert position in window
                seen[window[0]] = window
            every = sorted(position for window in seen.values() for position in window)
            assert every == list(range(epoch * n, epoch * n + n))  # windows do not overlap, and leave no gap
        if isinstance(plan, Windowed):
            assert count.max() <= plan.window
        else:
            assert set(count.tolist()) == {n}


def test_a_replacement_depends_only_on_seed_position_and_attempt():
    plan, positions = Global(1000, 3), np.arange(0, 5000, 7)
    for attempt in ATTEMPTS:
        together = replacement_ids(plan, positions, positions, attempt, 9)
        alone = [int(replacement_ids(plan, one, one, attempt, 9)[0]) for one in positions[::-1, None]]
        assert together.tolist() == alone[::-1]
        assert (together != replacement_ids(plan, positions, positions, attempt, 10)).mean() > 0.98
        if attempt > 1:
            assert (together != replacement_ids(plan, positions, positions, attempt - 1, 9)).mean() > 0.98


def test_the_first_four_come_from_the_window_and_the_rest_from_the_epoch():
    plan = Windowed(np.array([500, 700]), 1, 8, lanes=4)
    positions = np.full(400, 1234) + np.arange(400) % 2 * 4  # two places of one lane
    first, step, count = plan.windows(positions)
    window = {int(plan.sample_ids(first[:1] + k * step[:1])[0]) for k in range(int(count[0]))}
    for attempt in ATTEMPTS:
        keys = np.arange(400)  # of other positions, to draw often
        drawn = set(replacement_ids(plan, keys, positions, attempt, 2).tolist())
        assert (drawn == window) if attempt <= 4 else (len(drawn) > 300)


def test_every_sample_of_a_window_stands_in_equally_often():
    plan, keys = Sequential(10), np.arange(20_000)
    counts = np.bincount(replacement_ids(plan, keys, keys % 10, 1, 0), minlength=10)
    assert counts.min() > 1800 and counts.max() < 2200  # 2000 +- 4.7 standard deviations


def test_a_sample_alone_in_its_window_gets_others_from_the_fifth_attempt_on():
    plan = Windowed(np.array([50]), 1, 100)  # 64 lanes: 50 runs of one sample
    position = np.array([7])
    own = plan.sample_ids(position)
    ids = [replacement_ids(plan, position, position, attempt, 0) for attempt in ATTEMPTS]
    assert all((one == own).all() for one in ids[:4])
    assert len({int(one[0]) for one in ids[4:]} - {int(own[0])}) >= 3


@pytest.mark.parametrize("last", ["drop", "pad", "straddle"])
def test_replacements_in_a_mixture_come_from_the_same_source(last):
    plans = [Global(20, 3, 0), Windowed(np.array([30]), 3, 4, stream=1), Sequential(7)]
    sample_order = MixtureSampleOrder(50, plans)
    state = OrderState.start(shares_of([0.5, 0.3, 0.2]))
    for step in range(9):
        rank_batch = sample_order.take(Steps(50, 4, 2, last).step_at(step * 8), 1, state)
        state = rank_batch.after
        for attempt in ATTEMPTS:
            ids = sample_order.replacements(
                rank_batch, np.arange(len(rank_batch.positions)), attempt, 3
            ).sample_ids
            sources = np.searchsorted([0, 20, 50, 57], ids, side="right") - 1
            assert sources.tolist() == rank_batch.sources.tolist()
            for i, (source, own) in enumerate(
                zip(sources.tolist(), rank_batch.own_positions[:, None], strict=True)
            ):
                plan, key = plans[source], rank_batch.positions[i : i + 1]
                expected = replacement_ids(plan, key, own, attempt, 3) + [0, 20, 50][source]
                assert ids[i : i + 1].tolist() == expected.tolist()


def test_a_rank_alone_draws_what_the_ranks_together_draw():
    sample_order = PlanSampleOrder(Windowed(np.array([40, 60]), 1, 8))
    whole = sample_order.take(Steps(100, 8, 1, "drop").step_at(16), 0, OrderState(16))
    expected = sample_order.replacements(whole, np.arange(8), 2, 4).sample_ids
    for rank in range(4):
        part = sample_order.take(Steps(100, 2, 4, "drop").step_at(16), rank, OrderState(16))
        assert (
            sample_order.replacements(part, np.arange(2), 2, 4).sample_ids.tolist()
            == expected[rank::4].tolist()
        )
        one = sample_order.replacements(part, np.array([1]), 2, 4)
        assert one.sample_ids.tolist() == expected[[rank + 4]].tolist()
        assert one.positions.tolist() == [16 + rank + 4]
