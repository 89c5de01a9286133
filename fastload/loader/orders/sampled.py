"""The order in which a user's sampler draws, in place of fastload's own.

In: a sampler or a batch sampler that draws sample_ids. Out: steps and samples, as order/step_source.py gives
them. Promised: batches are drawn in order, as far ahead as the loader works, and the state after a batch is
that after its own draw. Positions are (draws before in the epoch) * world_size + rank, so ranks never share
random draws. Replacement samples come from the same batch, because no other sample is known to be among
those that the sampler selects. A saved state holds torch's global generator as it was before the draws of
the next epoch, so later epochs are as exact after a resume as global_generator.py promises.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from fastload import rng
from fastload.caching import cached_property
from fastload.errors import ConfigError
from fastload.loader.describe import order_fingerprints
from fastload.loader.orders.order import Order
from fastload.loader.samples import Samples
from fastload.loader.specs import OrderSpec
from fastload.order.partition import rank_positions
from fastload.order.sample_order import OrderState, RankBatch, SampleOrder
from fastload.order.step_source import StepSource
from fastload.order.steps import Step
from fastload.rng import Purpose
from fastload.world import World

SPAN = 1 << 31  # positions of an epoch, as nobody knows in advance how many samples will be drawn


class SampledOrder(Order):
    """The counterpart of planned.PlannedOrder for a user's sampler or batch sampler."""

    span = SPAN

    def __init__(self, spec: OrderSpec, samples: Samples):
        self._spec, self._samples = spec, samples
        self.given = spec.sampler if spec.batch_sampler is None else spec.batch_sampler
        self._generators: dict[int, str] = {}  # epoch -> the global generator before its first draw

    @cached_property
    def sample_order(self) -> "SamplerSampleOrder":
        return SamplerSampleOrder(self.given)

    def __len__(self) -> int:
        """Batches of an epoch. Raises TypeError where the sampler has no length."""
        return len(self._batches)

    def step_source(self, state: OrderState, world: World) -> "SamplerStepSource":
        """What the sampler draws from here on; it must have been restored to `state`."""
        self.begin()
        self._generators = {}
        generators = self._generator, self._generators
        return SamplerStepSource(
            self._batches, self._name, state.draws, self._samples().n, world, *generators
        )

    def fingerprints(self) -> dict:
        """What a checkpoint must agree with; a sampler's draws depend on the number of ranks."""
        return self._fingerprints | {"world_size": self._spec.world().world_size}

    def describe(self, is_open: bool) -> str:
        return self.sample_order.describe()

    def sampler(self, state: Callable[[], OrderState], set_epoch: Callable[[int], None]) -> Any:
        """The user's own, or the one inside the user's batch sampler."""
        return getattr(self.given, "sampler", self.given) if self._spec.sampler is None else self.given

    def batch_sampler(
        self, state: Callable[[], OrderState], set_epoch: Callable[[int], None], moves: Any
    ) -> Any:
        """The user's own, or torch's BatchSampler of the user's sampler."""
        return self._batches

    def with_sampler(self, state: OrderState) -> OrderState:
        """The state together with the sampler's, which is there before the first iteration, too."""
        from fastload.loader.orders.sampler_state import initial_state

        draws = state.draws or initial_state(self._batches)
        next_epoch = state.position // SPAN + (1 if draws["taken"] else 0)  # of which nothing is drawn yet
        begun = [epoch for epoch in self._generators if epoch >= next_epoch]
        generator = self._generators[min(begun)] if begun else self._generator.state()
        return dataclasses.replace(state, draws=draws | {"global_generator": generator})

    def begin(self) -> None:
        """Must be called when an iteration begins, and before its first draw."""
        self._generator.begin()

    def set_epoch(self, epoch: int) -> None:
        """Forwards the epoch to the sampler, where it has a set_epoch."""
        from fastload.loader.orders.sampler_state import set_epoch

        set_epoch(self._batches, epoch)

    def restore(self, state: OrderState) -> None:
        """Sets the epoch and generator of a checkpoint; the sampler is restored with its first draw."""
        saved = (None, 0) if state.draws is None else (state.draws["global_generator"], state.draws["rank"])
        self._generator.load(*saved)
        self._generators = {}
        if state.draws is not None and state.draws["epoch"] is not None:
            self.set_epoch(state.draws["epoch"])

    def has_other_epoch(self, state: OrderState) -> bool:
        """Whether set_epoch of the sampler was called with another epoch since `restore(state)`: Lightning
        does so where a checkpoint was saved after the last batch of an epoch.
        """
        from fastload.loader.orders.sampler_state import epoch_of

        epoch = None if state.draws is None else state.draws["epoch"]
        return epoch is not None and epoch_of(self._batches) != epoch

    @cached_property
    def _generator(self) -> Any:
        from fastload.loader.orders.global_generator import GlobalGenerator

        return GlobalGenerator()

    @property
    def _name(self) -> str:
        return type(self.given).__name__

    @cached_property
    def _fingerprints(self) -> dict:
        return order_fingerprints(self._spec, self._samples(), self.sample_order)

    @cached_property
    def _batches(self) -> Iterable:
        """The user's batch sampler, or the user's sampler in torch's BatchSampler."""
        if self._spec.batch_sampler is not None:
            return self._spec.batch_sampler
        from torch.utils.data import BatchSampler

        return BatchSampler(self._spec.sampler, self._spec.batch_size, self._spec.last == "drop")


class SamplerSampleOrder(SampleOrder):
    """All that is known of a sampler's order: an epoch has at most SPAN positions."""

    n = SPAN

    def __init__(self, sampler: Any):
        self._sampler = sampler

    @property
    def kind(self) -> str:
        return f"sampler {type(self._sampler).__name__}"

    def describe(self) -> str:
        return f"{type(self._sampler).__name__}, your own"

    def replacements(self, rank_batch: RankBatch, indices: np.ndarray, attempt: int, seed: int) -> RankBatch:
        """Other samples of the same batch; the same sample again where there is no other."""
        bad = rank_batch.of(indices)
        words = rng.bits(seed, bad.positions, Purpose.REPLACEMENT, 0)[:, 0].tolist()
        sample_ids = bad.sample_ids.copy()
        for i, (sample_id, word) in enumerate(zip(sample_ids.tolist(), words, strict=True)):
            others = rank_batch.sample_ids[rank_batch.sample_ids != sample_id]
            if len(others):
                sample_ids[i] = others[(word + attempt) % len(others)]
        return bad._replace(sample_ids=sample_ids)


class SamplerStepSource(StepSource):
    """The batches that a sampler draws. saved: the sampler's state at which it begins. name: of its class.
    n: samples of the dataset. generator: the loader's GlobalGenerator. generators: filled in with the state
    of that before the first draw of each epoch.
    """

    def __init__(
        self,
        batches: Iterable,
        name: str,
        saved: dict | None,
        n: int,
        world: World,
        generator: Any,
        generators: dict[int, str],
    ):
        from fastload.loader.orders import sampler_state

        self._batches, self._name, self._n, self._world = batches, name, n, world
        self._generator, self._generators = generator, generators
        self._iterator_of, self._set_epoch = sampler_state.SamplerIterator, sampler_state.set_epoch
        self._draws = self._iterator_of(batches, saved, generator.swapped_in)

    def take(self, state: OrderState, stop: float) -> tuple[Step, RankBatch] | None:
        """The next batch, which begins at `state` or in the epoch after; None where that is not before
        `stop`.

        Raises ConfigError for an invalid batch of sample_ids, and what the sampler raises.
        """
        while state.position < stop:
            if not self._draws.progress.taken:
                self._generators.setdefault(state.position // SPAN, self._generator.state())
            for batch in self._draws:
                return self._step(state, self._sample_ids(batch))
            if state.position % SPAN == 0:
                raise ConfigError(
                    f"{self._name} must draw at least a batch in every epoch, but drew less in this one. "
                    'Give a sampler that can be iterated again, a smaller batch_size, or last="partial".'
                )
            state = OrderState(state.position - state.position % SPAN + SPAN)
            if state.position < stop:  # within one iteration the program cannot call set_epoch
                self._set_epoch(self._batches, state.position // SPAN)
                self._draws = self._iterator_of(self._batches, None, self._generator.swapped_in)
        return None

    def end(self, state: OrderState, stop: float) -> OrderState:
        return OrderState(int(stop))

    def _step(self, state: OrderState, sample_ids: np.ndarray) -> tuple[Step, RankBatch]:
        rank, world_size = self._world.rank, self._world.world_size
        step = Step(
            start=state.position,
            per_rank=len(sample_ids),
            valid_stop=state.position + len(sample_ids) * world_size,
            world_size=world_size,
            n=SPAN,
        )
        if step.valid_stop > state.position - state.position % SPAN + SPAN:
            raise ConfigError(
                f"{self._name} must draw at most {SPAN // world_size} samples in an epoch, but drew more. "
                "Break off the epoch earlier, and begin a new iteration, iter(loader)."
            )
        positions = rank_positions(step.start, step.per_rank, rank, world_size)
        after = OrderState(step.valid_stop, draws=self._draws.state())
        return step, RankBatch(positions, sample_ids, None, positions, after)

    def _sample_ids(self, batch: Any) -> np.ndarray:
        """A drawn batch as [N] int64."""
        try:
            ids = np.asarray(batch)
        except (TypeError, ValueError):
            ids = np.empty(0)
        if ids.ndim != 1 or not ids.size or ids.dtype.kind not in "iu":
            raise ConfigError(
                f"{self._name} must draw lists of sample_ids, which are integers, but drew "
                f"{str(batch)[:200]}. Single ids go to sampler=, lists to batch_sampler=."
            )
        outside = ids[(ids < 0) | (ids >= self._n)]
        if outside.size:
            raise ConfigError(
                f"{self._name} must draw sample_ids in [0, {self._n}), but drew {outside[0]}. Make the "
                "sampler for this dataset."
            )
        return ids.astype(np.int64)
