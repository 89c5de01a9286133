"""The order of a loader that was given no sampler: fastload's own, of one source or of a mixture.

In: a config, and the opened samples. Out: the walk, its turns, how long an epoch is, what a checkpoint must
agree in; orders/sampled.py answers the same for a sampler of the user's. Promised: nothing is opened before
it is needed, and the world is the one at the time of the question.
"""

from collections.abc import Callable, Iterator
from typing import Any

from fastload.caching import cached_property
from fastload.loader.config import LoaderConfig
from fastload.loader.describe import order_fingerprints
from fastload.loader.samples import Samples
from fastload.loader.skipped import EpochSteps, Moves
from fastload.order.plan import make_plan
from fastload.order.sample_order import MixtureSampleOrder, OrderState, PlanSampleOrder, SampleOrder
from fastload.order.step_source import StepSource
from fastload.order.steps import Steps
from fastload.shards.mixture import Mixture, MixtureDataset
from fastload.world import World


class PlannedOrder:
    """samples: what is opened on first use."""

    def __init__(self, config: LoaderConfig, samples: Samples):
        self._config, self._samples = config, samples

    @property
    def span(self) -> int:
        """Positions in an epoch; a mixture need not be opened to know them."""
        source = self._config.source
        return source.epoch_samples if isinstance(source, Mixture) else self._samples().n

    @cached_property
    def walk(self) -> SampleOrder:
        config, dataset = self._config, self._samples()
        how = {"shuffle": config.shuffle, "window": config.window, "seed": config.seed}
        if isinstance(dataset, MixtureDataset):
            parts = enumerate(dataset.datasets.values())
            plans = [make_plan(one.shard_counts, stream=number, **how) for number, one in parts]
            return MixtureSampleOrder(config.source.epoch_samples, plans)
        return PlanSampleOrder(make_plan(dataset.shard_counts, **how))

    def __len__(self) -> int:
        """The steps of an epoch."""
        return self._steps().steps_per_epoch

    def turns(self, place: OrderState, world: World) -> StepSource:
        """What one rank takes, from any place on."""
        return StepSource(self._steps(), self.walk, world.rank)

    def fingerprints(self) -> dict:
        """What a checkpoint must agree in."""
        return self._fingerprints

    def describe(self, is_open: bool) -> str:
        """In words; without opening anything."""
        return self.walk.describe() if is_open else "the source is not opened yet"

    def sampler(self, place: Callable[[], OrderState], set_epoch: Callable[[int], None]) -> Any:
        """A torch Sampler that shows this order. place(): where the epoch begins that it is to show."""
        from fastload.loader.orders.order_sampler import InOrderSampler, OrderSampler

        kind = OrderSampler if self._config.shuffle else InOrderSampler
        return kind(lambda: self._ids_from(place()), lambda: self._steps().samples_per_rank, set_epoch)

    def batch_sampler(
        self, place: Callable[[], OrderState], set_epoch: Callable[[int], None], moves: Moves
    ) -> Any:
        """The same in batches; what it draws leads to the batch itself. moves: the loader's."""
        from fastload.loader.orders.order_sampler import StepSampler

        def steps() -> EpochSteps:
            start, epochs = place(), self._config.epochs
            left = epochs and epochs - start.position // self.span % epochs
            return EpochSteps(self.turns(start, self._config.world()), start, self.span, left, moves)

        sampler, drop_last = self.sampler(place, set_epoch), self._config.last == "drop"
        return StepSampler(sampler, self._config.batch_size, drop_last, steps, self.__len__)

    def placed(self, place: OrderState) -> OrderState:
        """What has to be saved."""
        return place

    def begin(self) -> None:
        """An iteration begins; it depends on nothing that the program may have changed."""

    def tell(self, epoch: int) -> None:
        """The epoch that comes; it is in every place already."""

    def put_back(self, place: OrderState) -> None:
        """To the place of a checkpoint; it says everything."""

    def has_left(self, place: OrderState) -> bool:
        """Whether the user has gone to another epoch behind the loader's back."""
        return False

    def _ids_from(self, place: OrderState) -> Iterator[int]:
        """The sample_ids that this rank takes in the epoch that begins at `place`."""
        turns, stop = self.turns(place, self._config.world()), place.position + self.span
        while (turn := turns.take(place, stop)) is not None:
            yield from turn[1].sample_ids.tolist()
            place = turn[1].after

    @cached_property
    def _fingerprints(self) -> dict:
        return order_fingerprints(self._config, self._samples(), self.walk)

    def _steps(self) -> Steps:
        config = self._config
        return Steps(self.walk.n, config.batch_size, config.world().world_size, config.last)
