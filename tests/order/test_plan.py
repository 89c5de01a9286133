"""The plans: every epoch a bijection, windowed as its text says, the order pinned, memory flat at 10^10."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from fastload.errors import ConfigError
from fastload.order.permutation import permute
from fastload.order.plan import Global, Sequential, Windowed, keys_at, make_plan
from fastload.order.steps import Steps
from fastload.rng import Purpose

SIZES = [1, 2, 3, 7, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1000, 1009, 4095, 4096, 4097]

PINNED_GLOBAL = [9, 7, 1, 8, 4, 5, 0, 2, 6, 3, 7, 8, 2, 6, 0, 1, 3, 9, 4, 5]
PINNED_WINDOWED = [8, 11, 3, 7, 0, 4, 10, 1, 5, 9, 2, 6, 0, 4, 9, 1, 5, 8, 3, 6, 11, 2, 7, 10]
PINNED_LARGE = [5967954011, 6924479459, 3150442465]


def shards_of(n, shards, seed=0):
    """n samples spread unevenly over `shards` shards, some of them empty."""
    cuts = np.sort(np.random.default_rng(seed).integers(0, n + 1, shards - 1))
    return np.diff(np.concatenate([[0], cuts, [n]]))


def plans(n):
    counts = shards_of(n, 9)
    yield Sequential(n)
    yield Global(n, 1)
    for window, lanes in [(1, 64), (5, 64), (16, 8), (10**6, 64), (7, 1), (4, 5), (2, 10**6)]:
        yield Windowed(counts, 1, window, lanes)


def by_the_text(plan, epoch):
    """An epoch of a Windowed plan from its description, with lists: (sample_ids in order, runs)."""
    stops = np.cumsum(plan.shard_counts).tolist()
    shards = [list(range(start, stop)) for start, stop in zip([0, *stops[:-1]], stops, strict=True)]
    key = keys_at(plan.seed, np.array([epoch * plan.n]), Purpose.SHARD_ORDER, plan.stream)
    row = [sample for s in permute(np.arange(len(shards)), len(shards), key) for sample in shards[s]]
    runs, start = [], 0
    for lane in range(plan.lanes):
        length = len(range(lane, plan.n, plan.lanes))
        runs.append((start, row[start : start + length]))
        start += length
    mixed = []
    for start, run in runs:
        lane_order = []
        for first in range(0, len(run), plan.window):
            stretch = run[first : first + plan.window]
            key = keys_at(
                plan.seed, np.array([epoch * plan.n + start + first]), Purpose.WINDOW_ORDER, plan.stream
            )
            lane_order += [stretch[i] for i in permute(np.arange(len(stretch)), len(stretch), key)]
        mixed.append(lane_order)
    return [mixed[i % plan.lanes][i // plan.lanes] for i in range(plan.n)], [run for _, run in runs]


@pytest.mark.parametrize("n", SIZES)
def test_every_epoch_is_a_bijection(n):
    for plan in plans(n):
        ids = plan.sample_ids(np.arange(3 * n)).reshape(3, n)
        assert ids.dtype == np.int64 and plan.n == n
        for epoch in range(3):
            np.testing.assert_array_equal(np.sort(ids[epoch]), np.arange(n), err_msg=plan.describe())


@pytest.mark.parametrize("n", [1000, 1009, 4096])
def test_epochs_and_seeds_give_unrelated_orders(n):
    counts = shards_of(n, 200)
    for make in (lambda seed: Global(n, seed), lambda seed: Windowed(counts, seed, 10)):
        first, second = make(0).sample_ids(np.arange(2 * n)).reshape(2, n)
        other_seed = make(1).sample_ids(np.arange(n))
        for one, other in [(first, second), (first, other_seed), (second, other_seed)]:
            assert np.count_nonzero(one == other) < n // 20
            # The windowed order is as random as a shuffle of 200 uneven shards: about 1 / sqrt(100).
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.4


def test_position_and_sample_are_uncorrelated_over_many_epochs_of_global():
    n = 1009
    ids = Global(n, 5).sample_ids(np.arange(100 * n))
    assert abs(np.corrcoef(np.arange(100 * n) % n, ids)[0, 1]) < 5 / (100 * n) ** 0.5
    # Each place sees each sample in 1 of 1009 epochs; consecutive epochs agree in one place on average.
    agreeing = (ids.reshape(100, n)[1:] == ids.reshape(100, n)[:-1]).sum()
    assert 99 - 50 < agreeing < 99 + 50


@pytest.mark.parametrize("n", [1, 63, 64, 65, 500, 1009])
@pytest.mark.parametrize("window, lanes", [(1, 64), (3, 64), (8, 8), (1000, 4), (7, 3)])
def test_windowed_shuffles_as_documented(n, window, lanes):
    plan = Windowed(shards_of(n, 12, seed=n), 9, window, lanes)
    for epoch in (0, 1, 5):
        ids = plan.sample_ids(np.arange(n) + epoch * n)
        assert ids.tolist() == by_the_text(plan, epoch)[0]


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
@pytest.mark.parametrize("last", ["drop", "partial", "pad", "straddle"])
def test_a_rank_reads_only_the_shards_of_its_lanes(world_size, last):
    n, lanes, epochs = 1009, 8, 3
    plan = Windowed(shards_of(n, 40), 3, 10, lanes)
    steps = Steps(n, 5, world_size, last)
    read = {}
    position = 0
    while position < epochs * n:
        step = steps.step_at(position)
        for rank in range(world_size):
            # Padding is read from the start of the epoch, whoever's lane that is.
            for p in step.positions(rank)[step.valid(rank)].tolist():
                read.setdefault((rank, p // n), []).append(p)
        position = step.valid_stop
    for (rank, epoch), positions in read.items():
        residues = {p % n % world_size for p in positions}
        assert len(residues) == 1, (rank, epoch)
        runs = by_the_text(plan, epoch)[1]
        its_lanes = range(residues.pop(), lanes, world_size)
        expected = {sample for lane in its_lanes for sample in runs[lane]}
        assert set(plan.sample_ids(np.array(positions)).tolist()) <= expected


def test_any_position_is_found_alone_in_any_company_and_any_order():
    n = 997
    for plan in plans(n):
        whole = plan.sample_ids(np.arange(4 * n))
        shuffled = np.random.default_rng(0).permutation(4 * n)
        np.testing.assert_array_equal(plan.sample_ids(shuffled), whole[shuffled])
        np.testing.assert_array_equal(plan.sample_ids(np.arange(4 * n)[::13]), whole[::13])
        assert [int(plan.sample_ids(np.array([p]))[0]) for p in (0, n - 1, n, 4 * n - 1)] == [
            whole[p] for p in (0, n - 1, n, 4 * n - 1)
        ]
        assert plan.sample_ids(np.zeros(0, dtype=np.int64)).shape == (0,)


def test_the_orders_are_pinned_so_that_old_checkpoints_keep_their_meaning():
    # Written down when the order was made; if one of these changes, ORDER_VERSION has to change too.
    assert Global(10, 0).sample_ids(np.arange(20)).tolist() == PINNED_GLOBAL
    assert Windowed([3, 0, 4, 5], 0, 2, 3).sample_ids(np.arange(24)).tolist() == PINNED_WINDOWED
    assert Global(10**10, 7).sample_ids(np.array([0, 1, 10**10])).tolist() == PINNED_LARGE


def test_describe_tells_every_part_of_the_order():
    assert Sequential(5).describe() == "sequential/1 n=5"
    assert Global(5, 3).describe() == "global/1 n=5 seed=3"
    texts = {
        Windowed([2, 3], 0, 4).describe(),
        Windowed([3, 2], 0, 4).describe(),
        Windowed([2, 3], 1, 4).describe(),
        Windowed([2, 3], 0, 5).describe(),
        Windowed([2, 3], 0, 4, 32).describe(),
        Windowed([2, 4], 0, 4).describe(),
    }
    assert len(texts) == 6
    assert Windowed(np.array([2, 3], dtype=np.int32), 0, 4).describe() in texts


def test_a_plan_survives_pickling():
    for plan in plans(100):
        copy = pickle.loads(pickle.dumps(plan))
        assert copy.describe() == plan.describe()
        np.testing.assert_array_equal(copy.sample_ids(np.arange(200)), plan.sample_ids(np.arange(200)))


def test_make_plan_chooses_by_shuffle_and_window():
    assert make_plan([2, 3], shuffle=False, window=None, seed=0) == Sequential(5)
    assert make_plan(np.array([2, 3]), shuffle=True, window=None, seed=4) == Global(5, 4)
    windowed = make_plan([2, 3], shuffle=True, window=8, seed=4)
    assert windowed.describe() == Windowed([2, 3], 4, 8, 64).describe()


def test_a_plan_that_makes_no_sense_is_an_error():
    with pytest.raises(ConfigError, match="window=8 has no meaning with shuffle=False"):
        make_plan([5], shuffle=False, window=8, seed=0)
    for window in (0, -1, 2.5, True):
        with pytest.raises(ConfigError, match=r"window must be an integer of at least 1"):
            make_plan([5], shuffle=True, window=window, seed=0)
    with pytest.raises(ConfigError, match=r"lanes must be .* got 0"):
        Windowed([5], 0, 1, 0)
    for counts in ([], [0], [0, 0], [-1, 5]):
        for shuffle, window in [(False, None), (True, None), (True, 4)]:
            with pytest.raises(ConfigError, match="hold no samples"):
                make_plan(counts, shuffle=shuffle, window=window, seed=0)
    with pytest.raises(ConfigError, match=r"seed must be .* got -1"):
        Global(5, -1)
    with pytest.raises(ConfigError, match=r"must be in \[1, 2\*\*62\], got n=0"):
        Sequential(0)
    for plan in plans(10):
        with pytest.raises(ConfigError, match="positions must be at least 0, got -1"):
            plan.sample_ids(np.array([0, -1]))


@pytest.mark.parametrize("make", ["Global(TEN, 3)", "Windowed(np.full(10_000, TEN // 10_000), 3, 4096)"])
def test_memory_stays_flat_at_ten_billion_samples(make):
    script = f"""
import resource, sys
import numpy as np
from fastload.order.plan import Global, Windowed
def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
TEN = 10**10
Windowed(np.full(10, 10), 3, 4).sample_ids(np.arange(1000))
before = peak_bytes()
plan = {make}
for start in range(0, 2 * TEN, TEN // 20):
    ids = plan.sample_ids(np.arange(start, start + 1000))
    assert len(np.unique(ids)) == 1000 and ids.min() >= 0 and ids.max() < TEN
print(peak_bytes() - before)
"""
    grown = int(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)
    # The windowed plan keeps 16 bytes for each of its 10,000 shards and two epochs; a bit a sample is 1.2 GB.
    assert grown < 6 << 20
