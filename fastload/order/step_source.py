"""What comes next in a planned order: the steps of a run, and the samples that one rank takes in each.

In: steps, a SampleOrder, a rank and an OrderState. Out: the next step, with that rank's samples. Promised:
nothing is remembered between two calls, so the step after any state can be asked for.
"""

from dataclasses import dataclass
from typing import Protocol

from fastload.order.sample_order import OrderState, PlannedSampleOrder, RankBatch
from fastload.order.steps import Step, Steps


class StepSource(Protocol):
    """The steps of one rank, one after the other."""

    def take(self, state: OrderState, stop: float) -> tuple[Step, RankBatch] | None:
        """The first step at or after `state` that starts before position `stop`, and this rank's samples;
        None where there is no such step.
        """
        ...

    def end(self, state: OrderState, stop: float) -> OrderState:
        """The state of an iteration that has taken every step between `state` and `stop`."""
        ...


@dataclass(frozen=True)
class PlannedStepSource(StepSource):
    """The steps of one rank in fastload's own order."""

    steps: Steps
    sample_order: PlannedSampleOrder
    rank: int

    def take(self, state: OrderState, stop: float) -> tuple[Step, RankBatch] | None:
        """The first step at or after `state` that starts before position `stop`, or None."""
        if state.position >= stop:
            return None
        step = self.steps.step_at(state.position)
        return None if step.start >= stop else (step, self.sample_order.take(step, self.rank, state))

    def end(self, state: OrderState, stop: float) -> OrderState:
        """The state of an iteration that has taken every step between `state` and `stop`."""
        return state if state.position >= stop else state.at(stop, self.sample_order.n)
