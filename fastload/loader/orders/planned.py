"""fastload's own order, of one source or of a mixture.

In: an OrderSpec, and the opened samples. Out: the samples of any step, the length of an epoch, what a
checkpoint must agree with; orders/sampled.py does the same for a user's sampler. Promised: nothing is opened
before it is needed, and the world is looked up at every call.
"""

from collections.abc import Callable, Iterator
from typing import Any

from fastload.caching import cached_property
from fastload.loader.describe import order_fingerprints
from fastload.loader.orders.order import Order
from fastload.loader.samples import Samples
from fastload.loader.skipped import EpochSteps, LoaderActions
from fastload.loader.specs import OrderSpec
from fastload.order.plan import make_plan
from fastload.order.sample_order import (
    MixtureSampleOrder,
    OrderState,
    PlannedSampleOrder,
    PlanSampleOrder,
)
from fastload.order.step_source import PlannedStepSource, StepSource
from fastload.order.steps import Steps
from fastload.shards.mixture import MixtureDataset
from fastload.world import World


class PlannedOrder(Order):
    """samples: opened on first use."""

    def __init__(self, spec: OrderSpec, samples: Samples):
        self._spec, self._samples = spec, samples

    @property
    def span(self) -> int:
        """Positions in an epoch; known without opening a mixture."""
        mixture = self._spec.mixture
        return self._samples().n if mixture is None else mixture.epoch_samples

    @cached_property
    def sample_order(self) -> PlannedSampleOrder:
        spec, dataset = self._spec, self._samples()
        options = {"shuffle": spec.shuffle, "window": spec.window, "seed": spec.seed}
        if isinstance(dataset, MixtureDataset):
            sources = enumerate(dataset.datasets.values())
            plans = [make_plan(source.shard_counts, stream=number, **options) for number, source in sources]
            return MixtureSampleOrder(spec.mixture.epoch_samples, plans)
        return PlanSampleOrder(make_plan(dataset.shard_counts, **options))

    def __len__(self) -> int:
        """Steps of an epoch."""
        return self._steps().steps_per_epoch

    def step_source(self, state: OrderState, world: World) -> StepSource:
        return PlannedStepSource(self._steps(), self.sample_order, world.rank)

    def fingerprints(self) -> dict:
        return self._fingerprints

    def describe(self, is_open: bool) -> str:
        return self.sample_order.describe() if is_open else "the source is not opened yet"

    def sampler(self, state: Callable[[], OrderState], set_epoch: Callable[[int], None]) -> Any:
        from fastload.loader.orders.order_sampler import InOrderSampler, OrderSampler

        kind = OrderSampler if self._spec.shuffle else InOrderSampler
        return kind(lambda: self._ids_from(state()), lambda: self._steps().samples_per_rank, set_epoch)

    def batch_sampler(
        self, state: Callable[[], OrderState], set_epoch: Callable[[int], None], actions: LoaderActions
    ) -> Any:
        from fastload.loader.orders.order_sampler import StepSampler

        def steps() -> EpochSteps:
            start, epochs = state(), self._spec.epochs
            left = epochs and epochs - start.position // self.span % epochs
            return EpochSteps(self.step_source(start, self._spec.world()), start, self.span, left, actions)

        sampler, drop_last = self.sampler(state, set_epoch), self._spec.last == "drop"
        return StepSampler(sampler, self._spec.batch_size, drop_last, steps, self.__len__)

    def _ids_from(self, state: OrderState) -> Iterator[int]:
        """The sample_ids that this rank takes in the epoch that begins at `state`."""
        source, stop = self.step_source(state, self._spec.world()), state.position + self.span
        while (step := source.take(state, stop)) is not None:
            _, rank_batch = step
            yield from rank_batch.sample_ids.tolist()
            state = rank_batch.after

    @cached_property
    def _fingerprints(self) -> dict:
        return order_fingerprints(self._spec, self._samples(), self.sample_order)

    def _steps(self) -> Steps:
        spec = self._spec
        return Steps(self.sample_order.n, spec.batch_size, spec.world().world_size, spec.last)
