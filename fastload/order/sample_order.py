"""The state of a run in the endless order, and the samples that its next step takes.

In: a plan, or the plans and shares of a mixture; a step; the state before it. Out: positions, sample_ids and
sources of one rank's batch, and the state after the step. Promised: the state is the same on every rank, and
resuming from it with other numbers of ranks and batch sizes continues the same order; nothing is replayed.

One source needs only a position. A mixture also needs the counters of its sources: at the position, and at
the start of its epoch, because that is what `last="pad"` repeats.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from fastload.order.mixture import MIXTURE_VERSION, MixtureState
from fastload.order.partition import rank_positions
from fastload.order.plan import Plan
from fastload.order.replacement import replacement_ids
from fastload.order.steps import Step


@dataclass(frozen=True)
class OrderState:
    """The next step begins at `position`, or after.

    mixture: the counters there; epoch_mixture: those at the start of its epoch. Both are None for one source.
    An epoch has n positions; n is passed wherever it matters. epoch_mixture ignores changes of the shares
    within the epoch: padding that reaches beyond such a change takes other samples than were delivered there.
    Only a run that resumes with larger steps can see that.
    draws: the state of the user's sampler (loader/orders/sampler_state.py); None at the start of an epoch,
    and if the order is fastload's.
    """

    position: int
    mixture: MixtureState | None = None
    epoch_mixture: MixtureState | None = None
    draws: dict | None = None

    @classmethod
    def start(cls, shares: Sequence[int] | None) -> "OrderState":
        """Before the first step. shares: of a mixture; None for one source."""
        if shares is None:
            return cls(0)
        state = MixtureState.start(shares)
        return cls(0, state, state)

    def at(self, position: int, n: int) -> "OrderState":
        """The state at another position, with the shares of this one.

        The counters of a mixture are advanced from here. Going back, those at the start of the epoch are
        known; before that, they are counted as if these shares had held from position 0 on.
        """
        if self.mixture is None:
            return OrderState(position)
        if position >= self.position:
            return self._advanced(position, n)
        shares = self.mixture.shares
        epoch_start = self.position - self.position % n
        if position < epoch_start:
            return OrderState.start(shares)._advanced(position, n)
        mixture = self.epoch_mixture.reweighted(shares)
        return OrderState(epoch_start, mixture, mixture)._advanced(position, n)

    def reweighted(self, shares: Sequence[int], n: int) -> "OrderState":
        """The state of a mixture that continues with other shares from here."""
        mixture = self.mixture.reweighted(shares)
        return OrderState(self.position, mixture, self.epoch_mixture if self.position % n else mixture)

    def _advanced(self, position: int, n: int) -> "OrderState":
        epoch_start = position - position % n
        start, mixture, epoch_mixture = self.position, self.mixture, self.epoch_mixture
        if start < epoch_start:
            start, mixture = epoch_start, mixture.advanced(epoch_start - start)
            epoch_mixture = mixture
        return OrderState(position, mixture.advanced(position - start), epoch_mixture)


class RankBatch(NamedTuple):
    """What one rank takes in a step. positions, sample_ids: [N] int64. sources: [N] int32, the number of each
    sample's source in a mixture, or None. own_positions: [N] int64, the positions counted in the order of
    that source; for one source, equal to positions. after: the state after the step."""

    positions: np.ndarray
    sample_ids: np.ndarray
    sources: np.ndarray | None
    own_positions: np.ndarray
    after: OrderState

    def of(self, indices: np.ndarray) -> "RankBatch":
        """Some of the samples, by their indices in the batch."""
        sources = None if self.sources is None else self.sources[indices]
        columns = (self.positions[indices], self.sample_ids[indices], sources, self.own_positions[indices])
        return RankBatch(*columns, self.after)


class SampleOrder(Protocol):
    """What is known of an endless order without its steps. n: positions in an epoch. kind: its name, which
    checkpoints compare.
    """

    n: int

    @property
    def kind(self) -> str: ...

    def describe(self) -> str:
        """The order in words."""
        ...

    def replacements(self, rank_batch: RankBatch, indices: np.ndarray, attempt: int, seed: int) -> RankBatch:
        """Replacement samples for the bad ones among a batch's samples; another attempt gives others."""
        ...


class PlanSampleOrder(SampleOrder):
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

    def take(self, step: Step, rank: int, state: OrderState) -> RankBatch:
        """The samples of `rank` in a step that begins at `state` or after."""
        positions = step.positions(rank)
        sample_ids = self._plan.sample_ids(positions)
        return RankBatch(positions, sample_ids, None, positions, OrderState(step.valid_stop))

    def replacements(self, rank_batch: RankBatch, indices: np.ndarray, attempt: int, seed: int) -> RankBatch:
        """Replacement samples for some indices of a batch; see replacement.py."""
        bad = rank_batch.of(indices)
        sample_ids = replacement_ids(self._plan, bad.positions, bad.own_positions, attempt, seed)
        return bad._replace(sample_ids=sample_ids)


class MixtureSampleOrder(SampleOrder):
    """The endless order of several sources, each with an order and epochs of its own.

    n: positions in an epoch. plans: one for each source; sample_ids are numbered through all sources.
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

    def take(self, step: Step, rank: int, state: OrderState) -> RankBatch:
        """The samples of `rank` in a step that begins at `state` or after."""
        state = state.at(step.start, self.n)
        new = step.valid_stop - step.start
        padding = step.per_rank * step.world_size - new
        sources, samples, after = state.mixture.take(new)
        if padding:
            repeated = state.epoch_mixture.take(min(padding, self.n))
            times = -(-padding // self.n)
            sources = np.concatenate([sources, *[repeated.sources] * times])
            samples = np.concatenate([samples, *[repeated.samples] * times])
        own = rank_positions(0, step.per_rank, rank, step.world_size)
        sources, samples = sources[own], samples[own]
        if step.valid_stop < step.start - step.start % self.n + self.n:  # in the same epoch
            after = OrderState(step.valid_stop, after, state.epoch_mixture)
        else:
            after = state.at(step.valid_stop, self.n)
        sample_ids = self._by_source(sources, lambda plan, at: plan.sample_ids(samples[at]))
        return RankBatch(step.positions(rank), sample_ids, sources, samples, after)

    def replacements(self, rank_batch: RankBatch, indices: np.ndarray, attempt: int, seed: int) -> RankBatch:
        """Replacement samples from the same sources for some indices of a batch; see replacement.py."""
        bad = rank_batch.of(indices)

        def drawn(plan: Plan, at: np.ndarray) -> np.ndarray:
            return replacement_ids(plan, bad.positions[at], bad.own_positions[at], attempt, seed)

        return bad._replace(sample_ids=self._by_source(bad.sources, drawn))

    def _by_source(self, sources: np.ndarray, ids_of: Callable[[Plan, np.ndarray], np.ndarray]) -> np.ndarray:
        """[N] sample_ids; ids_of(plan, at): the ids of the samples `at`, in the numbering of their source."""
        sample_ids = np.empty(len(sources), np.int64)
        for source in np.unique(sources).tolist():
            at = np.flatnonzero(sources == source)
            sample_ids[at] = ids_of(self._plans[source], at) + self._first_ids[source]
        return sample_ids


PlannedSampleOrder = PlanSampleOrder | MixtureSampleOrder
