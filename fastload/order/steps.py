"""Which positions a step takes: the endless order cut into steps of batch_size * world_size.

In: the sizes of the run, and a position. Out: the step that starts there. Promised: every rank has the same
number of batches, and in one step the batches of all ranks have the same size; steps are counted from the
given position, not from the start of the epoch, so a run may resume at any position with other sizes.

`last` says what happens to the r = n mod (batch_size * world_size) samples at the end of an epoch that do
not fill a step:

- "drop": they are not delivered in this epoch.
- "partial": a last, smaller batch of floor(r / world_size) samples per rank; the remaining samples, fewer
  than world_size, are not delivered.
- "pad": a last, full step that is padded from the start of the same epoch; `Step.valid` tells which samples
  are new.
- "straddle": the step continues in the next epoch, so nothing is dropped or repeated. An epoch's steps are
  those that start in it, so epochs may differ by a step, and an epoch within a single step has none.
"""

from dataclasses import dataclass

import numpy as np

from fastload.errors import ConfigError
from fastload.order.partition import rank_positions

LAST = ("drop", "partial", "pad", "straddle")


@dataclass(frozen=True)
class Step:
    """One batch on every rank: the positions [start, start + per_rank * world_size).

    From `valid_stop` on they are padding, which repeats positions from the start of the same epoch. The
    cursor after the step is at `valid_stop`, the first position that was not delivered. That holds also if
    too little of the epoch is left for a step of this run: it may be enough for the run that resumes.
    """

    start: int
    per_rank: int
    valid_stop: int
    world_size: int
    n: int

    def positions(self, rank: int) -> np.ndarray:
        """The positions that `rank` delivers, padding by the positions that it repeats: [per_rank] int64."""
        positions = rank_positions(self.start, self.per_rank, rank, self.world_size)
        epoch_start = self.start - self.start % self.n
        return np.where(
            positions < self.valid_stop, positions, epoch_start + (positions - epoch_start) % self.n
        )

    def valid(self, rank: int) -> np.ndarray:
        """Which of `positions(rank)` are not padding: [per_rank] bool."""
        return rank_positions(self.start, self.per_rank, rank, self.world_size) < self.valid_stop


@dataclass(frozen=True)
class Steps:
    """The steps of a run over n samples.

    n: samples in an epoch. batch_size: samples per rank and step. last: "drop", "partial", "pad" or
    "straddle".
    Raises ConfigError for sizes below 1, and if an epoch would have no batch.
    """

    n: int
    batch_size: int
    world_size: int = 1
    last: str = "drop"

    def __post_init__(self) -> None:
        for name in ("n", "batch_size", "world_size"):
            size = getattr(self, name)
            if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
                raise ConfigError(f"{name} must be an integer of at least 1, got {size!r}.")
        if self.last not in LAST:
            raise ConfigError(f'last must be "drop", "partial", "pad" or "straddle", got {self.last!r}.')
        if self.after(0) == 0:
            raise ConfigError(self._no_batch())

    @property
    def samples_per_step(self) -> int:
        """batch_size * world_size: the samples of a full step over all ranks."""
        return self.batch_size * self.world_size

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch from its start; with "straddle" a later epoch may have one fewer."""
        return self.after(0)

    @property
    def samples_per_rank(self) -> int:
        """Samples that each rank delivers in an epoch from its start, padding included."""
        full, rest = divmod(self.n, self.samples_per_step)
        return full * self.batch_size + self._per_rank_of_rest(rest)

    def after(self, position: int) -> int:
        """How many steps are left in the epoch of `position`, counted from there; may be 0."""
        assert position >= 0
        full, rest = divmod(self.n - position % self.n, self.samples_per_step)
        return full + (self._per_rank_of_rest(rest) > 0)

    def step_at(self, position: int) -> Step:
        """The first step at or after `position`.

        It starts at `position`, or at the next epoch if too few samples are left in this one.
        """
        if self.after(position) == 0:
            position = self._epoch_stop(position)
        left = self._epoch_stop(position) - position
        per_rank = self.batch_size if left >= self.samples_per_step else self._per_rank_of_rest(left)
        delivered = per_rank * self.world_size
        if self.last == "pad":
            delivered = min(delivered, left)
        return Step(position, per_rank, position + delivered, self.world_size, self.n)

    def _per_rank_of_rest(self, rest: int) -> int:
        """Samples per rank in the step that the last `rest` samples of an epoch give, if any."""
        if rest == 0 or self.last == "drop":
            return 0
        return rest // self.world_size if self.last == "partial" else self.batch_size

    def _epoch_stop(self, position: int) -> int:
        return position - position % self.n + self.n

    def _no_batch(self) -> str:
        epoch = f"an epoch has n={self.n} samples"
        if self.n < self.world_size:
            return (
                f"{epoch}, fewer than world_size={self.world_size}, so an epoch would have no batch: "
                'use last="pad" or last="straddle", or fewer ranks.'
            )
        return (
            f"{epoch}, but a step takes {self.samples_per_step} (batch_size={self.batch_size} * world_size="
            f"{self.world_size}), so an epoch would have no batch: use batch_size="
            f'{self.n // self.world_size} or less, or last="partial", "pad" or "straddle".'
        )
