"""Which sample a position takes: a pure function, one plan for each way of shuffling.

In: any positions of the endless global order (position = epoch * n + i, i in [0, n)). Out: sample_ids in
[0, n), int64. Promised: every epoch is a bijection of [0, n), a different one for each epoch and seed, the
same on every machine and rank; any position is computed directly.

- `Sequential`: as stored. O(1) memory.
- `Global`: one keyed bijection of the whole dataset. O(1) memory.
- `Windowed`, for storage on which random reads are slow: see the class. O(shards) memory.

The keys are Philox bits at the first position that they apply to, so that no two epochs or windows share one.
"""

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fastload import rng
from fastload.errors import ConfigError
from fastload.order.permutation import MAX_N, permute
from fastload.rng import Purpose

# Part of every `describe()`. Raise it when an order changes, so that old checkpoints are refused.
ORDER_VERSION = 1


def make_plan(shard_counts, *, shuffle: bool, window: int | None, seed: int, stream: int = 0) -> "Plan":
    """The plan of a dataset whose shards hold `shard_counts` samples ([S] integers).

    shuffle=False is `Sequential`; shuffle=True is `Global`, or `Windowed` if `window` is a number of samples.
    stream: the number of the source in a mixture; plans of equal size and seed but different streams shuffle
    differently.
    Raises ConfigError for a dataset without samples, and for window without shuffle.
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
class _WholeEpochs:
    """What plans that mix each epoch as a whole, or not at all, have in common."""

    n: int

    def __post_init__(self) -> None:
        _check_n(self.n)

    def windows(self, positions: np.ndarray) -> "Windows":
        """Each window is a whole epoch."""
        first = _split(positions, self.n)[0] * self.n
        return Windows(first, np.ones_like(first), np.full_like(first, self.n))


@dataclass(frozen=True)
class Sequential(_WholeEpochs):
    """Every epoch in the order of the index: sample_id = position mod n."""

    def sample_ids(self, positions: np.ndarray) -> np.ndarray:
        """positions: [N] int64, not negative. Returns [N] int64 in [0, n)."""
        return _split(positions, self.n)[1]

    @property
    def kind(self) -> str:
        """The name and version of the rule, without its numbers."""
        return f"sequential/{ORDER_VERSION}"

    def describe(self) -> str:
        """The order in words; plans with equal descriptions give equal orders."""
        return f"{self.kind} n={self.n}"


@dataclass(frozen=True)
class Global(_WholeEpochs):
    """Every epoch is one keyed bijection of [0, n)."""

    seed: int
    stream: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        rng.check_seed(self.seed)

    def sample_ids(self, positions: np.ndarray) -> np.ndarray:
        """positions: [N] int64, not negative. Returns [N] int64 in [0, n)."""
        epochs, indices = _split(positions, self.n)
        return permute(indices, self.n, keys_at(self.seed, epochs * self.n, Purpose.ORDER, self.stream))

    @property
    def kind(self) -> str:
        """The name and version of the rule, without its numbers."""
        return f"global/{ORDER_VERSION}"

    def describe(self) -> str:
        """The order in words; plans with equal descriptions give equal orders."""
        return f"{self.kind} n={self.n} seed={self.seed}{_stream(self.stream)}"


@dataclass(frozen=True, eq=False)
class Windowed:
    """A shuffle that reads each shard within one period of the epoch.

    In each epoch the shards are permuted by key and their samples concatenated; this sequence of n samples is
    cut into `lanes` runs. Index i of the epoch belongs to lane i mod lanes and is the (i div lanes)-th of
    that lane. Within a run, each window of `window` samples, counted from the run's start, is permuted with a
    key of its own.

    Remainders: each run is as long as its lane, so the first (n mod lanes) runs have one more sample (if
    n < lanes, n runs have one sample and the others none), and an epoch is a bijection for every n. The last
    window of a run is shorter if the window does not divide the run.

    If world_size divides lanes and the steps of an epoch start at its index s, rank r takes exactly the lanes
    congruent to s + r modulo world_size, so it reads only their shards. A shard that spans two runs is read
    by both lanes.

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

    def __post_init__(self) -> None:
        rng.check_seed(self.seed)
        for name, value in (("window", self.window), ("lanes", self.lanes)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ConfigError(f"{name} must be an integer of at least 1, got {value!r}.")
        counts = _checked_counts(self.shard_counts)
        counts.flags.writeable = False
        object.__setattr__(self, "shard_counts", counts)
        object.__setattr__(self, "n", int(counts.sum()))
        _check_n(self.n)

    def sample_ids(self, positions: np.ndarray) -> np.ndarray:
        """positions: [N] int64, not negative. Returns [N] int64 in [0, n)."""
        epochs, indices = _split(positions, self.n)
        offsets = self._offsets(epochs, indices)
        sample_ids = np.empty_like(offsets)
        for epoch in np.unique(epochs).tolist():
            inside = epochs == epoch
            starts, shifts = self._shard_sequence(epoch)
            # The last shard that starts here or before; empty shards with the same start come before it.
            shard = np.searchsorted(starts, offsets[inside], side="right") - 1
            sample_ids[inside] = offsets[inside] + shifts[shard]
        return sample_ids

    def windows(self, positions: np.ndarray) -> "Windows":
        """The window of its lane that each position is mixed within."""
        epochs, indices = _split(positions, self.n)
        lane, _, start, length = self._windows(indices)
        first = epochs * self.n + start * self.lanes + lane
        return Windows(first, np.full_like(first, self.lanes), length)

    @property
    def kind(self) -> str:
        """The name and version of the rule, and the number of lanes, which users cannot choose."""
        return f"windowed/{ORDER_VERSION} lanes={self.lanes}"

    def describe(self) -> str:
        """The order in words; plans with equal descriptions give equal orders."""
        digest = hashlib.blake2b(self.shard_counts.astype("<i8").tobytes(), digest_size=8).hexdigest()
        return (
            f"{self.kind} n={self.n} seed={self.seed} window={self.window} "
            f"shards={len(self.shard_counts)}:{digest}{_stream(self.stream)}"
        )

    def _offsets(self, epochs: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """The offset in [0, n) of each index within its epoch's sequence of shards."""
        _, run_start, window_start, window_length = self._windows(indices)
        starts = epochs * self.n + run_start + window_start
        keys = keys_at(self.seed, starts, Purpose.WINDOW_ORDER, self.stream)
        return run_start + window_start + permute(indices // self.lanes - window_start, window_length, keys)

    def _windows(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """For each index of an epoch: its lane, the start of the lane's run in the sequence of shards, the
        start of its window within the run, and the length of that window."""
        lane, index_in_run = indices % self.lanes, indices // self.lanes
        shortest, longer_runs = divmod(self.n, self.lanes)
        run_start = lane * shortest + np.minimum(lane, longer_runs)
        run_length = shortest + (lane < longer_runs)
        window_start = index_in_run - index_in_run % self.window
        return lane, run_start, window_start, np.minimum(self.window, run_length - window_start)

    def _shard_sequence(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(starts, shifts) of the epoch's concatenated shards: sample_id = offset + shift of its shard."""
        rows = self._epoch_rows.get(epoch)
        if rows is None:
            counts = self.shard_counts
            key = keys_at(self.seed, np.array([epoch * self.n]), Purpose.SHARD_ORDER, self.stream)
            order = permute(np.arange(len(counts)), len(counts), key)
            starts = np.cumsum(counts[order]) - counts[order]
            rows = starts, (np.cumsum(counts) - counts)[order] - starts
            # Two are kept, because a step may straddle two epochs. Clearing is safe: another thread holds
            # references to its rows.
            if len(self._epoch_rows) >= 2:
                self._epoch_rows.clear()
            self._epoch_rows[epoch] = rows
        return rows


Plan = Sequential | Global | Windowed


class Windows(NamedTuple):
    """For each of N positions, those that it is mixed with: first + k * step, k in [0, count).

    All are [N] int64.
    """

    first: np.ndarray
    step: np.ndarray
    count: np.ndarray


def _split(positions: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    positions = np.asarray(positions)
    if positions.size and positions.min() < 0:
        raise ConfigError(f"positions must be at least 0, got {positions.min()}.")
    return np.divmod(positions.astype(np.int64, casting="same_kind", copy=False), n)


def _stream(stream: int) -> str:
    return f" stream={stream}" if stream else ""


def keys_at(
    seed: int, positions: np.ndarray, purpose: Purpose, stream: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    words = rng.bits(seed, positions, purpose, stream).astype(np.uint64)
    shift = np.uint64(32)
    return words[:, 0] | words[:, 1] << shift, words[:, 2] | words[:, 3] << shift


def _checked_counts(shard_counts) -> np.ndarray:
    counts = np.array(shard_counts).reshape(-1)
    if counts.size == 0 or counts.dtype.kind not in "iu" or counts.min() < 0 or counts.sum() < 1:
        raise ConfigError(f"the {counts.size} shards hold no samples: check the source and select=.")
    return counts.astype(np.int64)


def _check_n(n: int) -> None:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 1 <= n <= MAX_N:
        raise ConfigError(f"the number of samples must be in [1, 2**62], got n={n!r}.")
