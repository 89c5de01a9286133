"""What comes next in an order that is planned: the steps of a run, and which samples one rank takes in each.

In: steps, a walk, a rank, and a place. Out: the step after the place with that rank's samples. Promised:
nothing is remembered between two calls, so any place can be asked for.
"""

from dataclasses import dataclass

from fastload.order.steps import Step, Steps
from fastload.order.walk import Place, Taken, Walk


@dataclass(frozen=True)
class Turns:
    """The steps of one rank."""

    steps: Steps
    walk: Walk
    rank: int

    def take(self, place: Place, stop: float) -> tuple[Step, Taken] | None:
        """The first step at or after `place` that starts before the position `stop`; None: there is none."""
        if place.position >= stop:
            return None
        step = self.steps.step_at(place.position)
        return None if step.start >= stop else (step, self.walk.take(step, self.rank, place))

    def end(self, place: Place, stop: float) -> Place:
        """Where an iteration is that has taken all there is between `place` and `stop`."""
        return place if place.position >= stop else place.at(stop, self.walk.n)
