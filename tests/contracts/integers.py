"""The least that is a loader: the order and its cursor, no samples. What a key stands for is its number.

It keeps its place as fastload.Loader does, so that the contracts can go through every case of small integers
in seconds; the same contracts then take a sample of the cases through files and decoders.
"""

from collections.abc import Iterator

import numpy as np

from fastload.order.mixture import MixtureState, shares_of
from fastload.order.plan import Plan
from fastload.order.sample_order import MixtureSampleOrder, OrderState, PlanSampleOrder
from fastload.order.steps import Steps


class IntegerLoader:
    """Batches of "__position__" [N] int64, "__key__" (list of N sample_ids) and, with "pad", "__mask__".

    order: a Plan; or a MixtureSampleOrder, with the weights of its sources. Then there is "__source__", too
    (list of N numbers).
    """

    def __init__(
        self, order: Plan | MixtureSampleOrder, batch_size, rank=0, world_size=1, last="drop", weights=None
    ):
        self._walk = PlanSampleOrder(order) if isinstance(order, Plan) else order
        self._rank = rank
        self._steps = Steps(order.n, batch_size, world_size, last)
        self._place = OrderState.start(None if weights is None else shares_of(weights))

    @property
    def _position(self) -> int:
        return self._place.position

    @_position.setter
    def _position(self, position: int) -> None:
        self._place = self._place.at(position, self._walk.n)

    def __iter__(self) -> Iterator[dict]:
        stop = (self._position // self._walk.n + 1) * self._walk.n
        while self._position < stop:
            step = self._steps.step_at(self._position)
            if step.start >= stop:
                break
            taken = self._walk.take(step, self._rank, self._place)
            self._place = taken.after  # before the batch is given away, as the training has it then
            yield self._batch(step, taken)
        self._position = max(self._position, stop)

    def __len__(self) -> int:
        return self._steps.steps_per_epoch

    def set_weights(self, weights: list) -> None:
        self._place = self._place.reweighted(shares_of(weights), self._walk.n)

    def state_dict(self) -> dict:
        place = self._place
        if place.mixture is None:
            return {"position": place.position}
        mixtures = {"now": place.mixture.to_dict(), "epoch": place.epoch_mixture.to_dict()}
        return {"position": place.position, **mixtures}

    def load_state_dict(self, state: dict) -> None:
        mixtures = [MixtureState.from_dict(state[name]) for name in ("now", "epoch") if name in state]
        self._place = OrderState(state["position"], *mixtures)

    def _batch(self, step, taken) -> dict:
        batch = {"__position__": taken.positions, "__key__": taken.sample_ids.tolist()}
        if self._steps.last == "pad":
            batch["__mask__"] = step.valid(self._rank)
        if taken.sources is not None:
            batch["__source__"] = taken.sources.tolist()
        assert taken.positions.dtype == np.int64
        return batch
