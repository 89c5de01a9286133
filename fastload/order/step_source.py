"""What comes next in an order that is planned: the steps of a run, and which samples one rank takes in each.

In: steps, a walk, a rank, and a place. Out: the step after the place with that rank's samples. Promised:
nothing is remembered between two calls, so any place can be asked for.
"""

from dataclasses import dataclass

from fastload.order.sample_order import OrderState, RankBatch, SampleOrder
from fastload.order.steps import Step, Steps


@dataclass(frozen=True)
class StepSource:
    """The steps of one rank."""

    steps: Steps
    walk: SampleOrder
    rank: int

    def take(self, place: OrderState, stop: float) -> tuple[Step, RankBatch] | None:
        """The first step at or after `place` that starts before the position `stop`; None: there is none."""
        if place.position >= stop:
            return None
        step = self.steps.step_at(place.position)
        return None if step.start >= stop else (step, self.walk.take(step, self.rank, place))

    def end(self, place: OrderState, stop: float) -> OrderState:
        """Where an iteration is that has taken all there is between `place` and `stop`."""
        return place if place.position >= stop else place.at(stop, self.walk.n)
