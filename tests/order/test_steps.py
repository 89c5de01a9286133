"""The steps: what each `last` delivers, the same number of equal batches on every rank, from any position."""

import itertools
import re

import numpy as np
import pytest

from fastload.errors import ConfigError
from fastload.order.steps import LAST, Steps
from tests.quick import slow_but

SIZES = [1, 2, 3, 7, 8, 9, 17, 24, 25, 61]


def every_steps(lasts=LAST, sizes=SIZES):
    """All Steps of small sizes that make sense."""
    for n, batch_size, world_size, last in itertools.product(sizes, (1, 3, 8), range(1, 9), lasts):
        enough = {"drop": n >= batch_size * world_size, "partial": n >= world_size}.get(last, True)
        if enough:
            yield Steps(n, batch_size, world_size, last)


def epoch_of(steps, position, stop):
    """The steps that start in [position, stop)."""
    taken = []
    while position < stop:
        step = steps.step_at(position)
        if step.start >= stop:
            break
        taken.append(step)
        position = step.valid_stop
    return taken


def delivered(steps, taken, valid_only=True):
    """The positions of all ranks, in the order of start + j; checks that the ranks' batches match in size."""
    positions = []
    for step in taken:
        ranks = [step.positions(rank) for rank in range(steps.world_size)]
        valid = [step.valid(rank) for rank in range(steps.world_size)]
        assert {len(part) for part in [*ranks, *valid]} == {step.per_rank}
        in_order, keep = np.stack(ranks, axis=1).ravel(), np.stack(valid, axis=1).ravel()
        positions += in_order[keep].tolist() if valid_only else in_order.tolist()
    return positions


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_drop_delivers_full_batches_and_leaves_the_rest(epoch):
    for steps in every_steps(["drop"]):
        start, whole = epoch * steps.n, steps.n // steps.samples_per_step
        taken = epoch_of(steps, start, start + steps.n)
        assert len(taken) == whole == steps.steps_per_epoch == steps.after(start)
        assert delivered(steps, taken) == list(range(start, start + whole * steps.samples_per_step))
        assert {step.per_rank for step in taken} == {steps.batch_size}
        assert steps.step_at(taken[-1].valid_stop).start == start + steps.n


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_partial_delivers_all_but_less_than_one_sample_per_rank(epoch):
    for steps in every_steps(["partial"]):
        start = epoch * steps.n
        taken = epoch_of(steps, start, start + steps.n)
        assert len(taken) == steps.steps_per_epoch == steps.after(start)
        assert delivered(steps, taken) == list(range(start, start + steps.n - steps.n % steps.world_size))
        assert {step.per_rank for step in taken[:-1]} <= {steps.batch_size}
        assert 1 <= taken[-1].per_rank <= steps.batch_size
        assert steps.step_at(taken[-1].valid_stop).start == start + steps.n


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_pad_delivers_all_and_refills_from_the_start_of_the_same_epoch(epoch):
    for steps in every_steps(["pad"]):
        start = epoch * steps.n
        taken = epoch_of(steps, start, start + steps.n)
        assert (
            len(taken) == -(-steps.n // steps.samples_per_step) == steps.steps_per_epoch == steps.after(start)
        )
        assert delivered(steps, taken) == list(range(start, start + steps.n))
        slots = len(taken) * steps.samples_per_step
        assert delivered(steps, taken, valid_only=False) == [start + i % steps.n for i in range(slots)]
        assert {step.per_rank for step in taken} == {steps.batch_size}
        assert taken[-1].valid_stop == start + steps.n


def test_straddle_delivers_every_position_once_in_equal_batches():
    for steps in every_steps(["straddle"]):
        taken = epoch_of(steps, 0, 4 * steps.n)
        stop = taken[-1].valid_stop
        assert delivered(steps, taken) == list(range(stop)) and stop >= 4 * steps.n
        assert {step.per_rank for step in taken} == {steps.batch_size}
        assert all(step.valid(0).all() for step in taken)


def test_straddle_counts_the_steps_that_start_in_an_epoch():
    for steps in every_steps(["straddle"]):
        starts = [step.start for step in epoch_of(steps, 0, 4 * steps.n)]
        for position in starts:
            stop = (position // steps.n + 1) * steps.n
            assert steps.after(position) == sum(position <= start < stop for start in starts)


@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize("sizes", slow_but([SIZES[:-1]], [SIZES[:-1], SIZES[-1:]]), ids=str)
def test_from_any_position_the_steps_cover_the_rest_of_the_epoch(last, sizes):
    for steps in every_steps([last], sizes):
        for position in range(steps.n, 2 * steps.n):
            taken = epoch_of(steps, position, 2 * steps.n)
            assert len(taken) == steps.after(position)
            left = 2 * steps.n - position
            lost = {
                "drop": left % steps.samples_per_step,
                "partial": left % steps.samples_per_step % steps.world_size,
            }.get(last, 0)
            got = [p for p in delivered(steps, taken) if p < 2 * steps.n]
            assert got == list(range(position, 2 * steps.n - lost))


@pytest.mark.parametrize("last", LAST)
def test_a_run_may_go_on_with_other_sizes_and_lose_or_repeat_nothing_before_the_end(last):
    n = 61
    for (b0, w0), (b1, w1) in itertools.permutations([(1, 1), (2, 3), (8, 2), (5, 1), (3, 7)], 2):
        before, after = Steps(n, b0, w0, last), Steps(n, b1, w1, last)
        position, taken = 0, []
        while position < n:
            got = taken + delivered(after, epoch_of(after, position, n))
            assert got[: n - 21] == list(range(n))[: n - 21]  # 21 is the largest step
            assert len(got) == len(set(got))
            step = before.step_at(position)
            taken += delivered(before, [step])
            position = step.valid_stop


def test_where_too_little_is_left_the_step_is_the_next_epochs_first():
    steps = Steps(10, 4, 1, "drop")
    assert steps.after(8) == 0
    assert steps.step_at(8) == steps.step_at(10)
    assert steps.step_at(8).start == 10
    assert Steps(10, 2, 3, "partial").step_at(8).start == 10


def test_a_large_epoch_needs_no_memory_and_no_walk():
    steps = Steps(10**10, 64, 8, "partial")
    assert steps.steps_per_epoch == -(-(10**10) // 512)
    step = steps.step_at(3 * 10**10 + 10**10 - 100)
    assert (step.per_rank, step.valid_stop) == (12, 4 * 10**10 - 4)


@pytest.mark.parametrize("last", LAST)
def test_what_is_too_little_for_a_step_is_left_for_a_run_with_smaller_ones(last):
    large, small = Steps(23, 5, 2, last), Steps(23, 1, 1, last)
    taken = epoch_of(large, 0, 23)
    behind = {"drop": 20, "partial": 22, "pad": 23, "straddle": 30}[last]
    assert taken[-1].valid_stop == behind
    rest = delivered(small, epoch_of(small, behind, 23))
    assert rest == list(range(behind, 23))


@pytest.mark.parametrize(
    "n, batch_size, world_size, last, message",
    [
        (
            100,
            64,
            2,
            "drop",
            r"n=100 samples, but a step takes 128 \(batch_size=64 .*: use batch_size=50 or less",
        ),
        (
            100,
            101,
            1,
            "drop",
            r'n=100 samples, but a step takes 101 .*: use batch_size=100 or less, or last="partial"',
        ),
        (3, 1, 4, "drop", r'n=3 samples, fewer than world_size=4, .*: use last="pad" or last="straddle"'),
        (1, 1, 2, "partial", r'n=1 samples, fewer than world_size=2, .*: use last="pad"'),
    ],
)
def test_an_epoch_without_a_batch_is_an_error_that_says_the_way_out(n, batch_size, world_size, last, message):
    with pytest.raises(ConfigError, match=message):
        Steps(n, batch_size, world_size, last)
    for other in ("pad", "straddle"):
        assert Steps(n, batch_size, world_size, other).steps_per_epoch == 1


@pytest.mark.parametrize("size", [0, -1, 1.0, None, True])
@pytest.mark.parametrize("name", ["n", "batch_size", "world_size"])
def test_a_size_below_one_is_an_error(name, size):
    sizes = {"n": 10, "batch_size": 2, "world_size": 1, name: size}
    with pytest.raises(
        ConfigError, match=rf"{name} must be an integer of at least 1, got {re.escape(repr(size))}"
    ):
        Steps(**sizes)


def test_an_unknown_last_is_an_error():
    with pytest.raises(ConfigError, match=r"last must be .*, got 'keep'"):
        Steps(10, 2, 1, "keep")
