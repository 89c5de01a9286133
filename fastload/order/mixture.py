"""Which source each position of a mixture takes from: a schedule that keeps every prefix in proportion.

In: weights, how many samples each source has given, and what each is owed. Out: for each of the next
positions, the source and the index of the sample within it. Promised: exact integers, the same in Python and
C++ (csrc/order/mixture.h); with constant weights, after any p positions each source has given less than one
sample more or fewer than weight * p; the state is three integers a source, so resuming replays nothing.

The rule is Tijdeman's (The chairman assignment problem, Discrete Mathematics 32, 1980). With k sources of
positive weight, a source may be taken once it is owed 1/(2k-2) of a sample. Of these, the source is taken
that will be the first to be owed 1 - 1/(2k-2), which is also the furthest that any source falls behind or
runs ahead. Taking the source that is owed most is simpler, but breaks the bound of one sample.

Weights are shares of SHARES, and what a source is owed is counted in the same unit, so only the weights
themselves are rounded. When weights change, what is owed is kept: the proportions hold for the whole past,
not for the time since the change. Several sources may be owed much at the moment of a change, so a source
may then be further away for a while than under constant weights; no rule that cannot foresee the changes can
prevent it. tests/order/test_mixture.py measures how far.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from fastload import _native
from fastload.errors import ConfigError, CursorError

# 5.8e14: below 2^50, so that sums of a few fit 64 bits; with many divisors, so that weights such as 0.7, 1/3
# or 0.125 are exact and their schedules repeat soon.
SHARES = 2**16 * 3**4 * 5**6 * 7**2 * 11 * 13
MAX_SOURCES = 1024
MIXTURE_VERSION = 1  # of the rule: raise it when schedules change, so that old checkpoints are refused
ADVANCED_AT_ONCE = 10_000_000  # positions: Ctrl-C is noticed between two such calls
WAY_OUT = "pass what state_dict() returned."
_IMPLS = ("auto", "reference", "native")


class Picks(NamedTuple):
    """What the next N positions take. sources: [N] int32. samples: [N] int64, the index of the sample within
    its source, counted from 0 over all of its passes. after: the state after them."""

    sources: np.ndarray
    samples: np.ndarray
    after: "MixtureState"


@dataclass(frozen=True)
class MixtureState:
    """The counters of each source: `shares` of SHARES, samples `given` so far, and what it is `owed`.

    owed: in samples / SHARES, the sum of the shares at all positions so far minus what was given; sums to 0.
    """

    shares: tuple[int, ...]
    given: tuple[int, ...]
    owed: tuple[int, ...]

    @classmethod
    def start(cls, shares: Sequence[int]) -> "MixtureState":
        """Before the first position."""
        return cls(tuple(shares), (0,) * len(shares), (0,) * len(shares))

    @property
    def position(self) -> int:
        """How many samples were given."""
        return sum(self.given)

    def reweighted(self, shares: Sequence[int]) -> "MixtureState":
        """The state with other shares from here on; what is owed stays owed."""
        return MixtureState(tuple(shares), self.given, self.owed)

    def take(self, count: int, *, impl: str = "auto") -> Picks:
        """The next `count` positions. impl: "auto" (native), "reference" or "native"; the twins are equal."""
        assert count >= 0 and impl in _IMPLS
        twin = _reference if impl == "reference" else _native.mixture_take
        sources, samples, given, owed = twin(self.shares, self.given, self.owed, count)
        return Picks(sources, samples, MixtureState(self.shares, tuple(given), tuple(owed)))

    def advanced(self, count: int) -> "MixtureState":
        """The state after `count` more positions; whole periods of the schedule are skipped at once."""
        state, period = self, SHARES // math.gcd(*self.shares)
        while count >= period:
            later, count = state._stepped(period), count - period
            if later.owed == state.owed:  # the schedule repeats from here on
                gained = [after - before for after, before in zip(later.given, state.given, strict=True)]
                periods, count = divmod(count, period)
                given = tuple(now + periods * more for now, more in zip(later.given, gained, strict=True))
                later = MixtureState(later.shares, given, later.owed)
            state = later
        return state._stepped(count)

    def to_dict(self) -> dict:
        """Lists of integers, which survive JSON unchanged."""
        return {"shares": list(self.shares), "given": list(self.given), "owed": list(self.owed)}

    @classmethod
    def from_dict(cls, state: dict) -> "MixtureState":
        """What `to_dict` wrote. Raises CursorError for anything else, and for inconsistent numbers."""
        if not isinstance(state, dict) or set(state) != {"shares", "given", "owed"}:
            raise CursorError(
                f"the cursor's mixture must have shares, given and owed, got {state!r}: {WAY_OUT}"
            )
        mixture = cls(**{name: integers(name, values) for name, values in state.items()})
        if not mixture._is_consistent():
            raise CursorError(f"the cursor's mixture has inconsistent numbers: {WAY_OUT}")
        return mixture

    def _is_consistent(self) -> bool:
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

    def _stepped(self, count: int) -> "MixtureState":
        given, owed = self.given, self.owed
        while count > 0:
            given, owed = _native.mixture_advance(self.shares, given, owed, min(count, ADVANCED_AT_ONCE))
            count -= ADVANCED_AT_ONCE
        return MixtureState(self.shares, tuple(given), tuple(owed))


def integers(name: str, values) -> tuple[int, ...]:
    """A column of a checkpoint's mixture. Raises CursorError for anything but a list of integers."""
    if not isinstance(values, (list, tuple)) or any(type(value) is not int for value in values):
        raise CursorError(
            f"the cursor's mixture: {name} must be a list of integers, got {values!r}: {WAY_OUT}"
        )
    return tuple(values)


def shares_of(weights: Sequence[float]) -> tuple[int, ...]:
    """The weights as shares of SHARES: exact if the decimal numbers allow it, else the nearest that add up.

    weights: finite numbers >= 0, in any unit, at least one of them positive. A weight means the decimal
    number that it is written as: 0.7 is 7/10, not the binary number nearest to it. Raises ConfigError for too
    many sources, and for a weight that is too small beside the others to get a share.
    """
    if len(weights) > MAX_SOURCES:
        raise ConfigError(f"a mixture can have at most {MAX_SOURCES} sources, got {len(weights)}.")
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
                f"weight {weight!r} is less than 1/{SHARES:.0e} of the sum of the weights: use 0, or more."
            )
    return tuple(shares)


def _reference(shares, given, owed, count):
    """The rule at the top of this file, position by position."""
    given, owed = list(given), list(owed)
    active = [source for source, share in enumerate(shares) if share > 0]
    few = SHARES if len(active) == 1 else -(-SHARES // (2 * len(active) - 2))
    due = SHARES if len(active) == 1 else SHARES - SHARES // (2 * len(active) - 2)
    sources, samples = np.empty(count, np.int32), np.empty(count, np.int64)
    for i in range(count):
        for source in active:
            owed[source] += shares[source]
        # No source is owed enough only after a change of weights, if sources of weight 0 are owed something.
        ready = [source for source in active if owed[source] >= few] or active
        source = min(ready, key=lambda source: (-((owed[source] - due) // shares[source]), source))
        sources[i], samples[i] = source, given[source]
        given[source] += 1
        owed[source] -= SHARES
    return sources, samples, given, owed
