"""The keyed bijection: that it is one at every size, that it looks like a shuffle, that the twins agree."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest

from fastload.errors import ConfigError
from fastload.order import permutation
from fastload.order.permutation import permute

BOTH = pytest.mark.parametrize("impl", ["reference", "native"])
POWERS = sorted({2**k + d for k in range(1, 18) for d in (-1, 0, 1)})
PRIMES = [2, 3, 5, 7, 11, 13, 101, 1009, 65521]
TEN_BILLION = 10**10
KEYS = [(0, 0), (0, 1), (1, 0), (2**64 - 1, 2**64 - 1), (0x0123456789ABCDEF, 42)]


def z_score(counts, cells):
    """How many standard deviations chi-square lies above its mean, for `cells` equally likely outcomes."""
    expected = counts.sum() / cells
    missing = cells - np.count_nonzero(counts)
    seen = counts[counts > 0]
    chi_square = ((seen - expected) ** 2 / expected).sum() + missing * expected
    return (chi_square - (cells - 1)) / math.sqrt(2 * (cells - 1))


def shuffles(n, keys, places=None):
    """The permutations of [0, n) under the keys (0, 5), (1, 5), ..., or these places of them: [keys, n]."""
    places = np.arange(n) if places is None else np.array(places)
    many_keys = np.repeat(np.arange(keys), len(places)).astype(np.uint64), 5
    return permute(np.tile(places, keys), n, many_keys).reshape(keys, -1)


@BOTH
@pytest.mark.parametrize("n", [1, *POWERS, *PRIMES])
def test_it_is_a_bijection_of_every_size(n, impl):
    permuted = permute(np.arange(n), n, (n, 3), impl=impl)
    assert permuted.dtype == np.int64
    np.testing.assert_array_equal(np.sort(permuted), np.arange(n))


@pytest.mark.parametrize("n", [1, 2, 3, 255, 256, 257, 2**31 - 1, 2**32 + 1, TEN_BILLION, 2**62 - 1, 2**62])
def test_the_twins_are_equal(n):
    indices = np.unique(np.concatenate([[0, n - 1, n // 2], np.random.default_rng(0).integers(0, n, 1009)]))
    for key in KEYS:
        plain = permute(indices, n, key, impl="reference")
        np.testing.assert_array_equal(plain, permute(indices, n, key, impl="native"))
        assert plain.min() >= 0 and plain.max() < n


def test_the_twins_are_equal_where_each_index_has_its_own_size_and_key():
    random = np.random.default_rng(1)
    n = random.integers(1, 3000, 2001)
    indices = random.integers(0, n)
    keys = tuple(random.integers(0, 2**64 - 1, 2001, dtype=np.uint64) for _ in range(2))
    plain = permute(indices, n, keys, impl="reference")
    np.testing.assert_array_equal(plain, permute(indices, n, keys, impl="native"))
    one_by_one = [
        permute(indices[i : i + 1], int(n[i]), (keys[0][i], keys[1][i]))[0] for i in range(0, 2001, 97)
    ]
    np.testing.assert_array_equal(plain[::97], one_by_one)


@BOTH
def test_non_contiguous_and_narrow_indices_give_the_same_order(impl):
    whole = permute(np.arange(1000), 1000, (1, 2), impl=impl)
    np.testing.assert_array_equal(permute(np.arange(1000)[::7], 1000, (1, 2), impl=impl), whole[::7])
    np.testing.assert_array_equal(permute(np.arange(1000, dtype=np.int16), 1000, (1, 2), impl=impl), whole)
    assert permute(np.zeros(0, dtype=np.int64), 1000, (1, 2), impl=impl).shape == (0,)


@pytest.mark.parametrize("key", KEYS[:3])
def test_at_ten_billion_every_turn_can_be_undone_so_it_is_a_bijection(key):
    indices = np.random.default_rng(2).integers(0, TEN_BILLION, 5000).astype(np.uint64)
    half_bits = np.full(5000, 17, dtype=np.uint64)  # 4^17 is the smallest power of four above 10^10
    words = tuple(np.full(5000, word, dtype=np.uint64) for word in key)
    turned = permutation._feistel(indices, half_bits, *words)
    np.testing.assert_array_equal(turn_back(turned, 17, *words), indices)


def turn_back(index, half_bits, key0, key1):
    swap = permutation._round_key(8, key0, key1) >> np.uint64(63)
    index = np.where(index < 2, index ^ swap, index)
    bits, golden = np.uint64(half_bits), np.uint64(permutation._GOLDEN)
    left, right = index >> bits, index & np.uint64(2**half_bits - 1)
    for round_number in reversed(range(8)):
        mixed = permutation._mix64(permutation._round_key(round_number, key0, key1) + left * golden)
        left, right = right ^ (mixed >> np.uint64(64 - half_bits)), left
    return left << bits | right


def test_at_ten_billion_neighbours_scatter_over_the_whole_range():
    permuted = permute(np.arange(100_000), TEN_BILLION, (7, 8))
    assert len(np.unique(permuted)) == 100_000
    # A hundred bins of a thousand each; five standard deviations of chi-square.
    assert z_score(np.bincount(permuted // (TEN_BILLION // 100), minlength=100), 100) < 5


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7, 8])
def test_every_shuffle_of_a_few_samples_is_equally_likely(n):
    keys = 60_000 if n < 8 else 200_000
    codes = shuffles(n, keys) @ (n ** np.arange(n))
    counts = np.unique(codes, return_counts=True)[1]
    assert z_score(counts, math.factorial(n)) < 5


@pytest.mark.parametrize("n", [9, 13, 16, 17, 31, 64, 65, 100])
def test_every_pair_of_places_gets_every_pair_of_samples_equally_often(n):
    columns = shuffles(n, 40_000, (0, 1, n // 2, n - 1)).T
    for first, second in itertools.combinations(columns, 2):
        counts = np.bincount(first * n + second, minlength=n * n)
        assert z_score(counts, n * (n - 1)) < 5


@pytest.mark.parametrize("n", [1000, 4096, 65_537])
def test_place_and_sample_are_uncorrelated(n):
    places = np.arange(n)
    # The correlation of a random shuffle has a standard deviation of 1 / sqrt(n - 1).
    for seed in range(20):
        permuted = permute(places, n, (seed, 0))
        assert abs(np.corrcoef(places, permuted)[0, 1]) < 5 / math.sqrt(n - 1)
        assert abs(np.corrcoef(permuted[:-1], permuted[1:])[0, 1]) < 5 / math.sqrt(n - 2)


def test_neighbouring_keys_give_unrelated_shuffles():
    n = 4099
    orders = [permute(np.arange(n), n, key) for key in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2**63, 0)]]
    for one, other in itertools.combinations(orders, 2):
        # Two random shuffles agree in one place on average (Poisson); ten is beyond 1e-7.
        assert np.count_nonzero(one == other) < 10
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / math.sqrt(n - 1)


@BOTH
@pytest.mark.parametrize(
    "index, n", [(-1, 5), (5, 5), (6, 5), (0, 0), (0, -1), (0, 2**62 + 1), (2**62, 2**62)]
)
def test_an_index_or_size_out_of_range_is_an_error(index, n, impl):
    with pytest.raises(IndexError, match=rf"index {index} is not in \[0, n\) with n={n}"):
        permute(np.array([0, index]) if n > 1 else np.array([index]), n, (0, 0), impl=impl)


@BOTH
def test_sizes_that_match_no_index_are_an_error(impl):
    with pytest.raises(ValueError):
        permute(np.arange(3), np.array([5, 5]), (0, 0), impl=impl)
    with pytest.raises(TypeError):
        permute(np.arange(3) / 2, 5, (0, 0), impl=impl)


def test_an_unknown_impl_is_an_error():
    with pytest.raises(ConfigError, match=r"impl must be .*, got 'fast'"):
        permute(np.arange(3), 3, (0, 0), impl="fast")


@BOTH
def test_memory_stays_flat_at_ten_billion(impl):
    script = f"""
import resource, sys
import numpy as np
from fastload.order.permutation import permute
def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
permute(np.arange(1000), 1000, (1, 2), impl={impl!r})
before = peak_bytes()
for start in range(0, {TEN_BILLION}, {TEN_BILLION} // 50):
    permute(np.arange(start, start + 1000), {TEN_BILLION}, (1, 2), impl={impl!r})
print(peak_bytes() - before)
"""
    grown = int(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)
    assert grown < 4 << 20  # a bitmap of 10^10 would be 1.2 GB
