"""Which source a place of a mixture takes from: a schedule that keeps every prefix in proportion.

In: weights, how many samples each source has given, and what each is owed. Out: for the next places of the
order, the source and its how-manieth sample. Promised: exact integers, the same in Python and C++
(csrc/order/mixture.h); with unchanged weights no source is ever a whole sample away from weight * places, at
any prefix; the state is three integers a source, so that nothing is replayed to go on.

The rule is Tijdeman's (The chairman assignment problem, Discrete Mathematics 32, 1980). With k sources of
positive weight, a source may be taken once it is owed 1/(2k-2) of a sample, and of these the one is taken
that will be the first to be owed 1 - 1/(2k-2); that is also the furthest that any source falls behind or
runs ahead. Taking whoever is owed most is simpler and breaks the bound of one sample.

Weights are shares of SHARES, and what a source is owed is counted in the same unit, so nothing is rounded
after the weights themselves. When weights change, what is owed is kept: the proportions that are met are
those of the whole past, not of the time since the change. A change can find several sources owed much at
once, so that for a while one may be further away than with weights that stay; no rule that does not know the
changes beforehand could prevent it. tests/order/test_mixture.py looks at how far that goes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from fastload.errors import ConfigError, CursorError

# 5.8e14: below 2^50, so that sums of a few fit 64 bits, with many divisors, so that weights such as 0.7, 1/3
# or 0.125 are exact, and schedules of such weights repeat soon.
SHARES = 2**16 * 3**4 * 5**6 * 7**2 * 11 * 13
MOST_SOURCES = 1024
MIXTURE_VERSION = 1  # of the rule: raise it when schedules change, so that old checkpoints are refused
WALKED_AT_ONCE = 10_000_000  # places: Ctrl-C is seen between two such walks
WAY_OUT = "pass what state_dict() returned."
_IMPLS = ("auto", "plain", "native")


class Picks(NamedTuple):
    """What the next N places take. sources: [N] int32. samples: [N] int64, the how-manieth of its source,
    counted from 0 over all of its passes. after: the state behind them."""

    sources: np.ndarray
    samples: np.ndarray
    after: "MixtureState"


@dataclass(frozen=True)
class MixtureState:
    """Where a mixture stands, per source: `shares` of SHARES, samples `given` so far, and what it is `owed`.

    owed: in samples / SHARES, the sum of the shares at all places so far minus what was given; sums to 0.
    """

    shares: tuple[int, ...]
    given: tuple[int, ...]
    owed: tuple[int, ...]

    @classmethod
    def start(cls, shares: Sequence[int]) -> "MixtureState":
        """Before the first place."""
        return cls(tuple(shares), (0,) * len(shares), (0,) * len(shares))

    @property
    def position(self) -> int:
        """How many places are behind."""
        return sum(self.given)

    def reweighted(self, shares: Sequence[int]) -> "MixtureState":
        """From here on with other shares; what is owed stays owed."""
        return MixtureState(tuple(shares), self.given, self.owed)

    def take(self, count: int, *, impl: str = "auto") -> Picks:
        """The next `count` places. impl: "auto" (native), "plain" or "native"; the twins are equal."""
        assert count >= 0 and impl in _IMPLS
        twin = _plain if impl == "plain" else _native
        sources, samples, given, owed = twin(self.shares, self.given, self.owed, count)
        return Picks(sources, samples, MixtureState(self.shares, given, owed))

    def advanced(self, count: int) -> "MixtureState":
        """The state `count` places on; whole periods of the schedule are not walked through."""
        state, period = self, SHARES // math.gcd(*self.shares)
        while count >= period:
            on, count = state._walked(period), count - period
            if on.owed == state.owed:  # from here on it repeats
                gained = [after - before for after, before in zip(on.given, state.given, strict=True)]
                turns, count = divmod(count, period)
                given = tuple(now + turns * more for now, more in zip(on.given, gained, strict=True))
                on = MixtureState(on.shares, given, on.owed)
            state = on
        return state._walked(count)

    def to_dict(self) -> dict:
        """Lists of integers, as JSON keeps them."""
        return {"shares": list(self.shares), "given": list(self.given), "owed": list(self.owed)}

    @classmethod
    def from_dict(cls, state: dict) -> "MixtureState":
        """What `to_dict` wrote. Raises CursorError for anything else, and for numbers of no one mixture."""
        if not isinstance(state, dict) or set(state) != {"shares", "given", "owed"}:
            raise CursorError(
                f"the cursor's mixture has {state!r}, not its shares, given and owed: {WAY_OUT}"
            )
        made = cls(**{name: integers(name, values) for name, values in state.items()})
        if not made._is_sound():
            raise CursorError(f"the cursor's mixture has numbers that do not belong together: {WAY_OUT}")
        return made

    def _is_sound(self) -> bool:
        k = len(self.shares)
        return (
            len(self.given) == len(self.owed) == k > 0
            and sum(self.shares) == SHARES
            and sum(self.owed) == 0
            and min(self.shares + self.given) >= 0
            and max(self.given) < 2**62
            # The schedule stays far below this; beyond it, sums would not fit 64 bits.
            and max(map(abs, self.owed)) <= 2 * k * SHARES
        )

    def _walked(self, count: int) -> "MixtureState":
        from fastload import _native as native

        given, owed = self.given, self.owed
        while count > 0:
            given, owed = native.mixture_advance(self.shares, given, owed, min(count, WALKED_AT_ONCE))
            count -= WALKED_AT_ONCE
        return MixtureState(self.shares, tuple(given), tuple(owed))


def integers(name: str, values) -> tuple[int, ...]:
    """A column of a checkpoint's mixture. Raises CursorError for anything but a list of integers."""
    if not isinstance(values, (list, tuple)) or any(type(value) is not int for value in values):
        raise CursorError(f"the cursor's mixture has {name}={values!r}, no list of integers: {WAY_OUT}")
    return tuple(values)


def shares_of(weights: Sequence[float]) -> tuple[int, ...]:
    """The weights as shares of SHARES: exact where the decimal numbers allow, else the nearest that add up.

    weights: finite numbers from 0 up, in any unit, one of them positive. A weight means the decimal number
    that it is written as: 0.7 is 7/10, not the binary number nearest to it. Raises ConfigError for too many
    sources, and for a weight that is too small beside the rest to get a share.
    """
    if len(weights) > MOST_SOURCES:
        raise ConfigError(f"a mixture of {len(weights)} sources: at most {MOST_SOURCES} are possible.")
    exact = [Fraction(str(weight)) for weight in weights]
    total = sum(exact)
    assert min(exact) >= 0 and total > 0
    wanted = [weight * SHARES / total for weight in exact]
    shares = [math.floor(share) for share in wanted]
    by_remainder = sorted(range(len(shares)), key=lambda i: (shares[i] - wanted[i], i))
    for i in by_remainder[: SHARES - sum(shares)]:
        shares[i] += 1
    for weight, fraction, share in zip(weights, exact, shares, strict=True):
        if fraction > 0 and share == 0:
            raise ConfigError(
                f"weight {weight!r} is less than 1 in {SHARES:.0e} of all weights: give 0, or more."
            )
    return tuple(shares)


def _native(shares, given, owed, count):
    from fastload import _native as native

    sources, samples, given, owed = native.mixture_take(shares, given, owed, count)
    return sources, samples, tuple(given), tuple(owed)


def _plain(shares, given, owed, count):
    """As in the first paragraphs of this file, one place after the other."""
    given, owed = list(given), list(owed)
    active = [source for source, share in enumerate(shares) if share > 0]
    few = SHARES if len(active) == 1 else -(-SHARES // (2 * len(active) - 2))
    due = SHARES if len(active) == 1 else SHARES - SHARES // (2 * len(active) - 2)
    sources, samples = np.empty(count, np.int32), np.empty(count, np.int64)
    for place in range(count):
        for source in active:
            owed[source] += shares[source]
        # None is owed enough only after a change of weights, when sources that are off are owed something.
        ready = [source for source in active if owed[source] >= few] or active
        source = min(ready, key=lambda source: (-((owed[source] - due) // shares[source]), source))
        sources[place], samples[place] = source, given[source]
        given[source] += 1
        owed[source] -= SHARES
    return sources, samples, tuple(given), tuple(owed)
