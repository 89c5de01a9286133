"""What says which samples come next, and what such an order has to answer.

A loader has one order: `planned.PlannedOrder` is fastload's own, `sampled.SampledOrder` that of a user's
sampler. In: a state of the order, and the world. Out: the steps of this rank from there on. Promised by an
order: nothing is opened before it is needed; every rank gets batches of the same size in the same number; the
state after a step is all that is needed to continue with the next one.
"""

from collections.abc import Callable
from typing import Any, Protocol

from fastload.loader.skipped import LoaderActions
from fastload.order.sample_order import OrderState, SampleOrder
from fastload.order.step_source import StepSource
from fastload.world import World


class Order(Protocol):
    """Which samples a loader delivers. span: positions in an epoch. sample_order: opened on first use."""

    @property
    def span(self) -> int: ...

    @property
    def sample_order(self) -> SampleOrder: ...

    def __len__(self) -> int:
        """Batches of an epoch."""
        ...

    def step_source(self, state: OrderState, world: World) -> StepSource:
        """The steps of this rank, from any state on."""
        ...

    def fingerprints(self) -> dict[str, Any]:
        """Part of the order -> what a checkpoint must agree with."""
        ...

    def describe(self, is_open: bool) -> str:
        """The order in words; opens nothing."""
        ...

    def sampler(self, state: Callable[[], OrderState], set_epoch: Callable[[int], None]) -> Any:
        """A torch Sampler of this order. state(): the start of the epoch to iterate over."""
        ...

    def batch_sampler(
        self, state: Callable[[], OrderState], set_epoch: Callable[[int], None], actions: LoaderActions
    ) -> Any:
        """A torch BatchSampler of this order; what it draws stands for finished batches (skipped.py)."""
        ...
