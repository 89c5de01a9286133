"""How long the order takes: one epoch's shuffle of 1,000,000 ids, against the stored permutation that it
replaces.

    pytest -o addopts= benchmarks/bench_order.py

A row is one call for all 1,000,000 ids; "reference" is the NumPy twin, "stored" NumPy's own shuffle, which
keeps the whole permutation in memory (8 MB here, 80 GB for 10^10 samples).
"""

import numpy as np
import pytest

from fastload.order.mixture import MixtureState, shares_of
from fastload.order.permutation import permute
from fastload.order.plan import Global, Windowed

COUNT = 1_000_000
KEY = (0x0123456789ABCDEF, 42)


@pytest.mark.parametrize("impl", ["native", "reference"])
def test_permutation_of_a_million_ids(benchmark, impl):
    indices = np.arange(COUNT)
    permuted = benchmark(permute, indices, COUNT, KEY, impl=impl)
    assert np.array_equal(np.sort(permuted), indices)
    assert np.array_equal(permuted, permute(indices, COUNT, KEY, impl="reference"))


def test_permutation_of_a_million_ids_stored(benchmark):
    dice = np.random.default_rng(0)
    permuted = benchmark(dice.permutation, COUNT)
    assert np.array_equal(np.sort(permuted), np.arange(COUNT))


@pytest.mark.parametrize(
    "plan",
    [Global(COUNT, seed=0), Windowed([1000] * 1000, seed=0, window=4096)],
    ids=["global", "windowed"],
)
def test_sample_ids_of_an_epoch(benchmark, plan):
    sample_ids = benchmark(plan.sample_ids, np.arange(COUNT, 2 * COUNT))
    assert np.array_equal(np.sort(sample_ids), np.arange(COUNT))


@pytest.mark.parametrize("count", [64, 4096])
def test_sample_ids_of_a_step_among_ten_billion(benchmark, count):
    """What the loader asks for: a step at a time, here of a dataset that no stored shuffle could hold."""
    plan = Global(10**10, seed=0)
    sample_ids = benchmark(plan.sample_ids, np.arange(7, 7 + count))
    assert len(np.unique(sample_ids)) == count


@pytest.mark.parametrize("impl", ["native", "reference"])
@pytest.mark.parametrize("k", [2, 10, 100])
def test_ten_thousand_places_of_a_mixture(benchmark, k, impl):
    dice = np.random.default_rng(k)
    state = MixtureState.start(shares_of(dice.random(k).tolist()))
    picks = benchmark(state.take, 10_000, impl=impl)
    assert np.array_equal(picks.sources, state.take(10_000, impl="reference").sources)
