"""Where a run stands in the endless order, and which samples its next step takes.

In: a plan, or the plans and shares of a mixture; a step; the place before it. Out: positions, sample_ids and
sources of one rank's batch, and the place after the step. Promised: places are the same on every rank, and
who goes on from one, with other ranks and batch sizes, takes what would have come; nothing is replayed.

One source needs no more than a position. A mixture also needs what its sources have given: up to the
position, and up to the start of its epoch, because that is what `last="pad"` repeats.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastload.order.mixture import MIXTURE_VERSION, MixtureState
from fastload.order.partition import rank_positions
from fastload.order.plan import Plan
from fastload.order.replacement import stand_in_ids
from fastload.order.steps import Step


@dataclass(frozen=True)
class OrderState:
    """The next step begins at `position`, or after.

    mixture: the counters there, epoch_mixture: those at the start of its epoch; None where there is one
    source. An epoch has n positions, which is given wherever it matters. Shares that changed within the epoch
    are not in epoch_mixture: padding that reaches beyond the change takes other samples than were delivered
    there, which only a run can see that resumed with larger steps.
    draws: of a sampler of yours, which place it has (loader/orders/sampler_state.py); None at the start of an
    epoch, and where the order is fastload's.
    """

    position: int
    mixture: MixtureState | None = None
    epoch_mixture: MixtureState | None = None
    draws: dict | None = None

    @classmethod
    def start(cls, shares: Sequence[int] | None) -> "OrderState":
        """Before everything. shares: of a mixture; None where there is one source."""
        if shares is None:
            return cls(0)
        state = MixtureState.start(shares)
        return cls(0, state, state)

    def at(self, position: int, n: int) -> "OrderState":
        """The place at another position, with the shares of this one.

        A mixture is counted on from here; back to its epoch's start it is known, and further back it is
        counted as if these shares had held from position 0 on.
        """
        if self.mixture is None:
            return OrderState(position)
        if position >= self.position:
            return self._on_to(position, n)
        shares = self.mixture.shares
        epoch_start = self.position - self.position % n
        if position < epoch_start:
            return OrderState.start(shares)._on_to(position, n)
        state = self.epoch_mixture.reweighted(shares)
        return OrderState(epoch_start, state, state)._on_to(position, n)

    def reweighted(self, shares: Sequence[int], n: int) -> "OrderState":
        """The same place of a mixture that goes on with other shares."""
        state = self.mixture.reweighted(shares)
        return OrderState(self.position, state, self.epoch_mixture if self.position % n else state)

    def _on_to(self, position: int, n: int) -> "OrderState":
        epoch_start = position - position % n
        here, state, epoch_state = self.position, self.mixture, self.epoch_mixture
        if here < epoch_start:
            here, state = epoch_start, state.advanced(epoch_start - here)
            epoch_state = state
        return OrderState(position, state.advanced(position - here), epoch_state)


class RankBatch(NamedTuple):
    """What one rank takes in a step. positions, sample_ids: [N] int64. sources: [N] int32, the number of the
    source in a mixture, or None. own_positions: [N] int64, the positions in the order of that source; those
    of one source are its own. after: the place behind the step."""

    positions: np.ndarray
    sample_ids: np.ndarray
    sources: np.ndarray | None
    own_positions: np.ndarray
    after: OrderState

    def of(self, places: np.ndarray) -> "RankBatch":
        """Some of the samples."""
        sources = None if self.sources is None else self.sources[places]
        columns = (self.positions[places], self.sample_ids[places], sources, self.own_positions[places])
        return RankBatch(*columns, self.after)


class PlanSampleOrder:
    """The endless order of one source. n: positions in an epoch."""

    def __init__(self, plan: Plan):
        self.n = plan.n
        self._plan = plan

    @property
    def kind(self) -> str:
        return self._plan.kind

    def describe(self) -> str:
        """The order in words."""
        return self._plan.describe()

    def take(self, step: Step, rank: int, place: OrderState) -> RankBatch:
        """The samples of `rank` in a step that begins at `place` or after."""
        positions = step.positions(rank)
        sample_ids = self._plan.sample_ids(positions)
        return RankBatch(positions, sample_ids, None, positions, OrderState(step.valid_stop))

    def stand_ins(self, taken: RankBatch, places: np.ndarray, attempt: int, seed: int) -> RankBatch:
        """Other samples for some places of a batch; see replacement.py."""
        taken = taken.of(places)
        sample_ids = stand_in_ids(self._plan, taken.positions, taken.own_positions, attempt, seed)
        return taken._replace(sample_ids=sample_ids)


class MixtureSampleOrder:
    """The endless order of several sources, each in an order and with passes of its own.

    n: positions in an epoch. plans: one for each source; the sample_ids of all are numbered through.
    """

    def __init__(self, n: int, plans: Sequence[Plan]):
        self.n = n
        self._plans = plans
        self._first_ids = np.cumsum([0, *(plan.n for plan in plans)])

    @property
    def kind(self) -> str:
        return f"mixture/{MIXTURE_VERSION} of {self._plans[0].kind}"

    def describe(self) -> str:
        """The order in words."""
        return f"mixture n={self.n} of " + " and ".join(plan.describe() for plan in self._plans)

    def take(self, step: Step, rank: int, place: OrderState) -> RankBatch:
        """The samples of `rank` in a step that begins at `place` or after."""
        place = place.at(step.start, self.n)
        new = step.valid_stop - step.start
        padding = step.per_rank * step.world_size - new
        sources, samples, after = place.mixture.take(new)
        if padding:
            repeated = place.epoch_mixture.take(min(padding, self.n))
            turns = -(-padding // self.n)
            sources = np.concatenate([sources, *[repeated.sources] * turns])
            samples = np.concatenate([samples, *[repeated.samples] * turns])
        own = rank_positions(0, step.per_rank, rank, step.world_size)
        sources, samples = sources[own], samples[own]
        if step.valid_stop < step.start - step.start % self.n + self.n:  # in the same epoch
            after = OrderState(step.valid_stop, after, place.epoch_mixture)
        else:
            after = place.at(step.valid_stop, self.n)
        sample_ids = self._by_source(sources, lambda plan, at: plan.sample_ids(samples[at]))
        return RankBatch(step.positions(rank), sample_ids, sources, samples, after)

    def stand_ins(self, taken: RankBatch, places: np.ndarray, attempt: int, seed: int) -> RankBatch:
        """Other samples of the same sources for some places of a batch; see replacement.py."""
        taken = taken.of(places)

        def drawn(plan: Plan, at: np.ndarray) -> np.ndarray:
            return stand_in_ids(plan, taken.positions[at], taken.own_positions[at], attempt, seed)

        return taken._replace(sample_ids=self._by_source(taken.sources, drawn))

    def _by_source(self, sources: np.ndarray, ids_of: Callable[[Plan, np.ndarray], np.ndarray]) -> np.ndarray:
        """[N] sample_ids; ids_of(plan, at): those of one source's samples `at`, as it counts them."""
        sample_ids = np.empty(len(sources), np.int64)
        for source in np.unique(sources).tolist():
            at = np.flatnonzero(sources == source)
            sample_ids[at] = ids_of(self._plans[source], at) + self._first_ids[source]
        return sample_ids


SampleOrder = PlanSampleOrder | MixtureSampleOrder
