"""Which sample a position stands for: a pure function, one plan per way of shuffling.

In: positions in the endless global order (position = epoch * n + i, i in [0, n)), in any order and number.
Out: sample_ids in [0, n), int64. Promised: every epoch is a bijection of [0, n), another one for each
epoch and seed, the same on every machine and rank; any position is found without walking to it.

- `Sequential`: as stored. O(1) memory.
- `Global`: one keyed bijection of the whole dataset. O(1) memory.
- `Windowed`, for media that dislike random reads: see the class. O(shards) memory.

The keys are Philox bits at the first position that they govern, so that no two epochs or windows share one.
"""

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fastload import rng
from fastload.errors import ConfigError
from fastload.order.permutation import MAX_N, permute
from fastload.rng import Purpose

# Part of every `describe()`: raise it when an order changes, so that old checkpoints are refused, not
# misread.
ORDER_VERSION = 1


def make_plan(shard_counts, *, shuffle: bool, window: int | None, seed: int, stream: int = 0) -> "Plan":
    """The plan of a dataset whose shards hold `shard_counts` samples ([S] integers).

    shuffle=False is `Sequential`; shuffle=True is `Global`, or `Windowed` where `window` is a number of
    samples. stream: plans of equal size and seed but unequal streams shuffle differently; the number of the
    source in a mixture.
    Raises ConfigError for a dataset without samples, and for a window without a shuffle.
    """
    if shuffle and window is not None:
        return Windowed(shard_counts, seed, window, stream=stream)
    if window is not None:
        raise ConfigError(
            f"window={window} has no meaning with shuffle=False: use shuffle=True, or window=None."
        )
    n = int(_checked_counts(shard_counts).sum())
    return Global(n, seed, stream) if shuffle else Sequential(n)


@dataclass(frozen=True)
class Sequential:
    """Every epoch in the order of the manifest: sample_id = position mod n."""

    n: int

    def __post_init__(self):
        _check_n(self.n)

    def sample_ids(self, positions: np.ndarray) -> np.ndarray:
        """positions: [N] int64, not negative. Returns [N] int64 in [0, n)."""
        return _split(positions, self.n)[1]

    def windows(self, positions: np.ndarray) -> "Windows":
        """A whole epoch each."""
        return _epoch_windows(positions, self.n)

    @property
    def kind(self) -> str:
        """The rule, without its numbers."""
        return f"sequential/{ORDER_VERSION}"

    def describe(self) -> str:
        """The order in words; two plans with equal words give equal orders."""
        return f"{self.kind} n={self.n}"


@dataclass(frozen=True)
class Global:
    """Every epoch is one keyed bijection of [0, n)."""

    n: int
    seed: int
    stream: int = 0

    def __post_init__(self):
        _check_n(self.n)
        rng.check_seed(self.seed)

    def sample_ids(self, positions: np.ndarray) -> np.ndarray:
        """positions: [N] int64, not negative. Returns [N] int64 in [0, n)."""
        epochs, indices = _split(positions, self.n)
        return permute(indices, self.n, _keys(self.seed, epochs * self.n, Purpose.ORDER, self.stream))

    def windows(self, positions: np.ndarray) -> "Windows":
        """A whole epoch each."""
        return _epoch_windows(positions, self.n)

    @property
    def kind(self) -> str:
        """The rule, without its numbers."""
        return f"global/{ORDER_VERSION}"

    def describe(self) -> str:
        """The order in words; two plans with equal words give equal orders."""
        return f"{self.kind} n={self.n} seed={self.seed}{_stream(self.stream)}"


@dataclass(frozen=True, eq=False)
class Windowed:
    """A shuffle that reads every shard in one stretch of time.

    In each epoch the shards are permuted by key and their samples laid end to end; this row of n samples
    is cut into `lanes` runs. Place i of the epoch belongs to lane i mod lanes and is that lane's (i div
    lanes)-th. Inside a run, each stretch of `window` samples, counted from the run's start, is permuted
    by a key of its own.

    The ragged ends: the runs are exactly as long as the lanes have places, so the first (n mod lanes) of
    them have one sample more (with n < lanes, n runs have one sample and the others none), and an epoch
    is a bijection for every n; the last stretch of a run is shorter than `window` where the window does
    not divide the run.

    Where world_size divides lanes and the steps of an epoch start at its place s, rank r takes the lanes
    congruent to s + r modulo world_size and no other: it reads only their shards. A shard that a cut
    divides is read by the two lanes that share it.

    shard_counts: [S] integers, samples per shard (0 is allowed). window: samples of one lane that are mixed.
    Raises ConfigError for a window or a number of lanes below 1, and for a dataset without samples.
    """

    shard_counts: np.ndarray = field(repr=False)
    seed: int
    window: int
    lanes: int = 64
    stream: int = 0
    n: int = field(init=False)
    _epoch_rows: dict = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self):
        rng.check_seed(self.seed)
        for name, value in (("window", self.window), ("lanes", self.lanes)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ConfigError(f"{name}={value!r} is no number of {name}: use an integer from 1 up.")
        counts = _checked_counts(self.shard_counts)
        counts.flags.writeable = False
        object.__setattr__(self, "shard_counts", counts)
        object.__setattr__(self, "n", int(counts.sum()))
        _check_n(self.n)

    def sample_ids(self, positions: np.ndarray) -> np.ndarray:
        """positions: [N] int64, not negative. Returns [N] int64 in [0, n)."""
        epochs, indices = _split(positions, self.n)
        places = self._places(epochs, indices)
        sample_ids = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            inside = epochs == epoch
            starts, shifts = self._row_of_shards(epoch)
            # The last shard that starts here or before; of empty shards at the same start it is the full one.
            shard = np.searchsorted(starts, places[inside], side="right") - 1
            sample_ids[inside] = places[inside] + shifts[shard]
        return sample_ids

    def windows(self, positions: np.ndarray) -> "Windows":
        """The stretch of its lane that each position is mixed with."""
        epochs, indices = _split(positions, self.n)
        lane, _, stretch, length = self._stretches(indices)
        first = epochs * self.n + stretch * self.lanes + lane
        return Windows(first, np.full_like(first, self.lanes), length)

    @property
    def kind(self) -> str:
        """The rule, with what of it nobody chooses."""
        return f"windowed/{ORDER_VERSION} lanes={self.lanes}"

    def describe(self) -> str:
        """The order in words; two plans with equal words give equal orders."""
        digest = hashlib.blake2b(self.shard_counts.astype("<i8").tobytes(), digest_size=8).hexdigest()
        return (
            f"{self.kind} n={self.n} seed={self.seed} window={self.window} "
            f"shards={len(self.shard_counts)}:{digest}{_stream(self.stream)}"
        )

    def _places(self, epochs: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Where each index of an epoch falls in that epoch's row of shards, in [0, n)."""
        _, run_start, stretch, stretch_length = self._stretches(indices)
        starts = epochs * self.n + run_start + stretch
        keys = _keys(self.seed, starts, Purpose.WINDOW_ORDER, self.stream)
        return run_start + stretch + permute(indices // self.lanes - stretch, stretch_length, keys)

    def _stretches(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """Of each index of an epoch: its lane, where the lane's run starts in the row of shards, where its
        stretch starts in the run, and the stretch's length."""
        lane, index_in_run = indices % self.lanes, indices // self.lanes
        shortest, longer_runs = divmod(self.n, self.lanes)
        run_start = lane * shortest + np.minimum(lane, longer_runs)
        run_length = shortest + (lane < longer_runs)
        stretch = index_in_run - index_in_run % self.window
        return lane, run_start, stretch, np.minimum(self.window, run_length - stretch)

    def _row_of_shards(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(starts, shifts) of the epoch's shards laid end to end: sample_id = place + shift of its shard."""
        rows = self._epoch_rows.get(epoch)
        if rows is None:
            counts = self.shard_counts
            key = _keys(self.seed, np.array([epoch * self.n]), Purpose.SHARD_ORDER, self.stream)
            order = permute(np.arange(len(counts)), len(counts), key)
            starts = np.cumsum(counts[order]) - counts[order]
            rows = starts, (np.cumsum(counts) - counts)[order] - starts
            # Two are kept, because a step may straddle two epochs; clearing is safe for another thread that
            # holds its rows already.
            if len(self._epoch_rows) >= 2:
                self._epoch_rows.clear()
            self._epoch_rows[epoch] = rows
        return rows


Plan = Sequential | Global | Windowed


class Windows(NamedTuple):
    """Positions that are mixed with each other, for each of N positions: first + k * step, k in [0, count).

    All are [N] int64.
    """

    first: np.ndarray
    step: np.ndarray
    count: np.ndarray


def _split(positions: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    positions = np.asarray(positions)
    if positions.size and positions.min() < 0:
        raise ConfigError(f"position {positions.min()} is negative: positions count from 0.")
    return np.divmod(positions.astype(np.int64, casting="same_kind", copy=False), n)


def _epoch_windows(positions: np.ndarray, n: int) -> Windows:
    first = _split(positions, n)[0] * n
    return Windows(first, np.ones_like(first), np.full_like(first, n))


def _stream(stream: int) -> str:
    return f" stream={stream}" if stream else ""


def _keys(
    seed: int, positions: np.ndarray, purpose: Purpose, stream: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    words = rng.bits(seed, positions, purpose, stream).astype(np.uint64)
    shift = np.uint64(32)
    return words[:, 0] | words[:, 1] << shift, words[:, 2] | words[:, 3] << shift


def _checked_counts(shard_counts) -> np.ndarray:
    counts = np.array(shard_counts).reshape(-1)
    if counts.size == 0 or counts.dtype.kind not in "iu" or counts.min() < 0 or counts.sum() < 1:
        raise ConfigError(f"{counts.size} shards hold no sample to order: check the source and select=.")
    return counts.astype(np.int64)


def _check_n(n: int) -> None:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 1 <= n <= MAX_N:
        raise ConfigError(f"n={n!r} samples cannot be ordered: a dataset has from 1 to 2**62 samples.")
