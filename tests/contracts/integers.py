"""The least that is a loader: the order and its cursor, no samples. What a key stands for is its number.

It keeps its place as fastload.Loader does, so that the contracts can go through every case of small integers
in seconds; the same contracts then take a sample of the cases through files and decoders.
"""

from collections.abc import Iterator

import numpy as np

from fastload.order.plan import Plan
from fastload.order.steps import Steps


class IntegerLoader:
    """Batches of "__position__" [N] int64, "__key__" (list of N sample_ids) and, with "pad", "__mask__"."""

    def __init__(self, plan: Plan, batch_size: int, rank: int = 0, world_size: int = 1, last: str = "drop"):
        self._plan, self._rank = plan, rank
        self._steps = Steps(plan.n, batch_size, world_size, last)
        self._position = 0

    def __iter__(self) -> Iterator[dict]:
        stop = (self._position // self._plan.n + 1) * self._plan.n
        while self._position < stop:
            step = self._steps.step_at(self._position)
            if step.start >= stop:
                break
            self._position = step.valid_stop  # before the batch is given away, as the training has it then
            yield self._batch(step)
        self._position = max(self._position, stop)

    def __len__(self) -> int:
        return self._steps.steps_per_epoch

    def state_dict(self) -> dict:
        return {"position": self._position}

    def load_state_dict(self, state: dict) -> None:
        self._position = state["position"]

    def _batch(self, step) -> dict:
        positions = step.positions(self._rank)
        batch = {"__position__": positions, "__key__": self._plan.sample_ids(positions).tolist()}
        if self._steps.last == "pad":
            batch["__mask__"] = step.valid(self._rank)
        assert positions.dtype == np.int64
        return batch
