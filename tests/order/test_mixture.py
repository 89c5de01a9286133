"""The schedule of a mixture: never a whole sample off, the same in both twins, resumed from any state."""

import itertools
import json
import math
import random
from fractions import Fraction

import numpy as np
import pytest

from fastload import _native
from fastload.errors import ConfigError, CursorError
from fastload.order.mixture import MAX_SOURCES, SHARES, MixtureState, shares_of

EVERYDAY = [[1], [1, 1], [0.7, 0.3], [0.5, 0.3, 0.2], [1, 2, 4], [1, 0, 3], [1 / 3, 1 / 7], [0.999, 0.001]]


def random_weights(seed, most_sources=20):
    rng = random.Random(seed)
    return [rng.random() ** 3 for _ in range(rng.randint(1, most_sources))]


WEIGHTS = [*EVERYDAY, *(random_weights(seed) for seed in range(40))]


def start(weights):
    return MixtureState.start(shares_of(weights))


def counts_after(sources, k):
    """[places, k]: how many samples each source has given after each place."""
    return np.cumsum(sources[:, None] == np.arange(k), axis=0)


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda weights: str(len(weights)))
def test_no_source_is_a_whole_sample_off_at_any_prefix(weights):
    places, k = 5000, sum(weight > 0 for weight in weights)
    counts = counts_after(start(weights).take(places).sources, len(weights))
    wanted = np.arange(1, places + 1)[:, None] * np.array(weights) / sum(weights)
    bound = 1 - 1 / (2 * k - 2) if k > 1 else 0
    assert np.abs(counts - wanted).max() <= bound + 1e-6  # 1e-6: of the comparison in floats


def test_taking_whoever_is_owed_most_would_break_the_bound():
    # The same measure can fail: by the simpler rule, the worst of 300 weights of five sources is 1.1 off.
    rng, worst = random.Random(4), 0.0
    for _ in range(300):
        weights = np.array([rng.random() ** 3 for _ in range(5)])
        weights /= weights.sum()
        owed = np.zeros(5)
        for _ in range(300):
            owed += weights
            owed[np.argmax(owed)] -= 1
            worst = max(worst, np.abs(owed).max())
    assert worst > 1.02


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda weights: str(len(weights)))
def test_the_twins_are_equal_from_any_state(weights):
    state = start(weights)
    for count in (0, 1, 2, 7, 300, 129):
        native, plain = state.take(count), state.take(count, impl="reference")
        assert native.sources.dtype == np.int32 and native.samples.dtype == np.int64
        np.testing.assert_array_equal(native.sources, plain.sources)
        np.testing.assert_array_equal(native.samples, plain.samples)
        assert native.after == plain.after == state.advanced(count)
        state = native.after


def test_the_twins_are_equal_while_weights_change_and_sources_go_off_and_on():
    rng = random.Random(7)
    for _ in range(60):
        k = rng.randint(1, 9)
        state = start([rng.random() for _ in range(k)])
        for _ in range(20):
            weights = [rng.random() if rng.random() < 0.6 else 0 for _ in range(k)]
            weights[rng.randrange(k)] = 1
            state = state.reweighted(shares_of(weights))
            native, plain = state.take(rng.randint(1, 40)), state.take(0, impl="reference")
            plain = state.take(len(native.sources), impl="reference")
            np.testing.assert_array_equal(native.sources, plain.sources)
            assert native.after == plain.after
            assert all(weights[source] > 0 for source in native.sources.tolist())
            state = native.after


@pytest.mark.parametrize("weights", EVERYDAY, ids=str)
def test_it_goes_on_from_every_place_as_if_it_had_never_stopped(weights):
    whole = start(weights).take(200)
    for stop in range(201):
        head = start(weights).take(stop)
        tail = MixtureState.from_dict(json.loads(json.dumps(head.after.to_dict()))).take(200 - stop)
        assert np.concatenate([head.sources, tail.sources]).tolist() == whole.sources.tolist()
        assert np.concatenate([head.samples, tail.samples]).tolist() == whole.samples.tolist()
        assert tail.after == whole.after


@pytest.mark.parametrize("weights", EVERYDAY, ids=str)
def test_each_source_gives_its_samples_one_after_the_other(weights):
    picks = start(weights).take(1000)
    for source in range(len(weights)):
        own = picks.samples[picks.sources == source]
        assert own.tolist() == list(range(picks.after.given[source]))
    assert picks.after.position == 1000


def test_what_is_owed_is_the_shares_so_far_minus_what_was_given():
    rng = random.Random(3)
    state, wanted = start([1, 1, 1]), [0, 0, 0]
    for _ in range(50):
        shares = shares_of([rng.random() for _ in range(3)])
        count = rng.randint(0, 30)
        state = state.reweighted(shares).take(count).after
        wanted = [total + count * share for total, share in zip(wanted, shares, strict=True)]
        assert list(state.owed) == [a - SHARES * b for a, b in zip(wanted, state.given, strict=True)]


def test_two_sources_stay_within_a_half_however_often_weights_change():
    rng = random.Random(5)
    state = start([1, 1])
    for _ in range(3000):
        share = rng.random()
        state = state.reweighted(shares_of([share, 1 - share])).take(rng.randint(1, 5)).after
        assert max(map(abs, state.owed)) <= SHARES // 2


def test_many_sources_stay_within_1_7_samples_while_weights_change():
    rng, worst = random.Random(6), 0
    for _ in range(300):
        k = rng.choice([2, 3, 4, 5, 8, 12])
        state, on_and_off = start([rng.random() for _ in range(k)]), rng.random() < 0.5
        for _ in range(40):
            weights = [float(rng.random() < 0.5) if on_and_off else rng.random() for _ in range(k)]
            weights[rng.randrange(k)] = 1
            state = state.reweighted(shares_of(weights))
            for _ in range(rng.randint(1, 30)):
                state = state.take(1).after
                worst = max(worst, *map(abs, state.owed))
    assert 1.0 < worst / SHARES < 1.7


@pytest.mark.parametrize(
    "weights", [[0.7, 0.3], [0.5, 0.3, 0.2], [1, 2, 4], [0.125, 0.625, 0.25], [1]], ids=str
)
def test_far_ahead_is_reached_by_whole_periods(weights):
    far = 10**15 + 3
    state = start(weights).advanced(far)
    period = SHARES // math.gcd(*shares_of(weights))
    assert state.position == far
    assert state.owed == start(weights).advanced(far % period).owed
    wanted = [Fraction(str(weight)) * far / sum(Fraction(str(one)) for one in weights) for weight in weights]
    assert all(abs(given - want) < 1 for given, want in zip(state.given, wanted, strict=True))


def test_advancing_equals_taking_over_many_periods_and_after_changes():
    for weights, other in itertools.product(EVERYDAY[1:5], repeat=2):
        if len(weights) != len(other):
            continue
        state = start(weights).take(13).after.reweighted(shares_of(other))
        for count in (0, 1, 9, 10, 11, 100, 1003):
            assert state.advanced(count) == state.take(count).after


def test_shares_are_exact_where_decimals_allow_and_add_up_where_not():
    assert shares_of([0.7, 0.3]) == (SHARES * 7 // 10, SHARES * 3 // 10)
    assert shares_of([1, 1, 1]) == (SHARES // 3,) * 3
    assert shares_of([2.5, 0]) == (SHARES, 0)
    for weights in WEIGHTS:
        shares = shares_of(weights)
        assert sum(shares) == SHARES
        exact = [Fraction(str(weight)) * SHARES for weight in weights]
        total = sum(Fraction(str(weight)) for weight in weights)
        assert all(abs(share - want / total) < 1 for share, want in zip(shares, exact, strict=True))


def test_numpy_weights_mean_what_their_digits_say():
    assert shares_of([np.float64(0.7), np.float32(0.3)]) == shares_of([0.7, 0.3])
    assert shares_of([np.int64(3), 1]) == shares_of([3, 1])


def test_a_weight_too_small_for_a_share_and_too_many_sources_are_errors():
    with pytest.raises(ConfigError, match=r"weight 1e-16 is less than 1/6e.14 of the sum of the weights"):
        shares_of([1e-16, 1])
    with pytest.raises(ConfigError, match=f"at most {MAX_SOURCES} sources, got {MAX_SOURCES + 1}"):
        shares_of([1] * (MAX_SOURCES + 1))
    assert start([1] * MAX_SOURCES).take(MAX_SOURCES).after.given == (1,) * MAX_SOURCES


GOOD = start([0.7, 0.3]).take(5).after.to_dict()


@pytest.mark.parametrize(
    "change",
    [
        {"shares": [1, 2]},
        {"shares": [SHARES + 1, -1]},
        {"given": [3]},
        {"given": [-1, 6]},
        {"given": [2**63, 0]},
        {"given": [3, 2.0]},
        {"given": [3, True]},
        {"given": "32"},
        {"owed": [1, 1]},
        {"owed": [5 * SHARES, -5 * SHARES]},
        {"more": []},
    ],
    ids=str,
)
def test_inconsistent_numbers_are_refused(change):
    assert MixtureState.from_dict(GOOD).to_dict() == GOOD
    with pytest.raises(CursorError, match="the cursor's mixture"):
        MixtureState.from_dict(GOOD | change)


@pytest.mark.parametrize(
    "columns",
    [
        ([], [], []),
        ([SHARES], [0, 0], [0]),
        ([SHARES - 1], [0], [0]),
        ([SHARES, SHARES, SHARES], [0, 0, 0], [0, 0, 0]),
        ([2 * SHARES, -SHARES], [0, 0], [0, 0]),
        ([SHARES], [-1], [0]),
        ([SHARES], [0], [2**62]),
        ([SHARES // 1024] * 1025, [0] * 1025, [0] * 1025),
    ],
    ids=lambda columns: str(len(columns[0])),
)
def test_the_native_twin_checks_its_arguments(columns):
    with pytest.raises(ValueError, match="mixture"):
        _native.mixture_take(*columns, 1)
    with pytest.raises(ValueError, match="count must not be negative"):
        _native.mixture_advance([SHARES], [0], [0], -1)


def test_the_schedule_is_pinned_so_that_old_checkpoints_keep_their_meaning():
    # Written down when the rule was made; if it changes, MIXTURE_VERSION has to change too.
    assert "".join(map(str, start([0.5, 0.3, 0.2]).take(20).sources.tolist())) == PINNED
    assert "".join(map(str, start([1, 2, 4, 0.1]).take(20).sources.tolist())) == PINNED_UNEVEN


PINNED = "01020102010102010201"
PINNED_UNEVEN = "21202122122012212021"
