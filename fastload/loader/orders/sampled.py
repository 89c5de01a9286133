"""The order that a sampler of yours gives, in the place of fastload's own.

In: a sampler or a batch sampler that draws sample_ids. Out: steps and samples, as order/step_source.py gives
them. Promised: it is asked for batches in order, as far ahead as the loader works, and the place after a
batch is that of its own draw; positions are (draws before in the epoch) * world_size + rank, so that no two
ranks throw the same dice; stand-ins come from the same batch, because nothing else is known to be in the
sampler's choice. A place that is saved holds torch's global generator as it was before the draws of the next
epoch, so that after a resume later epochs are exact as far as global_generator.py promises it.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from fastload import rng
from fastload.caching import cached_property
from fastload.errors import ConfigError
from fastload.loader.describe import order_fingerprints
from fastload.loader.samples import Samples
from fastload.loader.specs import OrderSpec
from fastload.order.partition import rank_positions
from fastload.order.sample_order import OrderState, RankBatch
from fastload.order.steps import Step
from fastload.rng import Purpose
from fastload.world import World

SPAN = 1 << 31  # positions of an epoch: how many a sampler draws, nobody knows before


class SampledOrder:
    """What planned.PlannedOrder is, for a sampler, or batch sampler, of the user's."""

    span = SPAN

    def __init__(self, spec: OrderSpec, samples: Samples):
        self._spec, self._samples = spec, samples
        self.given = spec.sampler if spec.batch_sampler is None else spec.batch_sampler
        self.sample_order = DrawnSampleOrder(self.given)
        self._ahead: dict[int, str] = {}  # epoch -> the global generator before its first draws, if begun

    def __len__(self) -> int:
        """Batches of an epoch. Raises TypeError where the sampler has no length."""
        return len(self._batches)

    def step_source(self, state: OrderState, world: World) -> "DrawnStepSource":
        """What the sampler draws from here on; `state` must be what it was put back to."""
        self.begin()
        self._ahead = {}
        names = self._batches, self._name
        return DrawnStepSource(*names, state.draws, self._samples().n, world, self._generator, self._ahead)

    def fingerprints(self) -> dict:
        """What a checkpoint must agree in: what a sampler draws belongs to a number of ranks."""
        return self._fingerprints | {"world_size": self._spec.world().world_size}

    def describe(self, is_open: bool) -> str:
        """In words; without opening anything."""
        return self.sample_order.describe()

    def sampler(self, state: Callable[[], OrderState], set_epoch: Callable[[int], None]) -> Any:
        """The user's own, or what his batch sampler says that it draws from."""
        return getattr(self.given, "sampler", self.given) if self._spec.sampler is None else self.given

    def batch_sampler(
        self, state: Callable[[], OrderState], set_epoch: Callable[[int], None], moves: Any
    ) -> Any:
        """The user's own, or one of his sampler."""
        return self._batches

    def with_sampler(self, state: OrderState) -> OrderState:
        """The state with what has to be saved of the sampler, also before anybody iterates over it."""
        from fastload.loader.orders.sampler_state import place_before

        draws = state.draws or place_before(self._batches)
        epoch = state.position // SPAN + (1 if draws["taken"] else 0)  # the first to be drawn from here on
        ahead = [begun for begun in self._ahead if begun >= epoch]
        generator = self._ahead[min(ahead)] if ahead else self._generator.state()
        return dataclasses.replace(state, draws=draws | {"global_generator": generator})

    def begin(self) -> None:
        """An iteration begins, or is about to draw."""
        self._generator.begin()

    def tell(self, epoch: int) -> None:
        """The epoch that comes, to a sampler that wants to know it."""
        from fastload.loader.orders.sampler_state import set_epoch

        set_epoch(self._batches, epoch)

    def put_back(self, state: OrderState) -> None:
        """To the epoch of a checkpoint; the sampler finds the rest at its first draw."""
        saved = (None, 0) if state.draws is None else (state.draws["global_generator"], state.draws["rank"])
        self._generator.load(*saved)
        self._ahead = {}
        if state.draws is not None and state.draws["epoch"] is not None:
            self.tell(state.draws["epoch"])

    def has_left(self, state: OrderState) -> bool:
        """Whether the sampler was told another epoch since it was put back to `state`: Lightning does so
        where a checkpoint was saved after an epoch's last batch.
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
        """What draws whole batches: the user's batch sampler, or his sampler in torch's BatchSampler."""
        if self._spec.batch_sampler is not None:
            return self._spec.batch_sampler
        from torch.utils.data import BatchSampler

        return BatchSampler(self._spec.sampler, self._spec.batch_size, self._spec.last == "drop")


class DrawnSampleOrder:
    """What is known of a sampler's order: that an epoch is at most SPAN positions long."""

    n = SPAN

    def __init__(self, drawn_from: Any):
        self._drawn_from = drawn_from

    @property
    def kind(self) -> str:
        return f"sampler {type(self._drawn_from).__name__}"

    def describe(self) -> str:
        """The order in words."""
        return f"{type(self._drawn_from).__name__}, of yours"

    def replacements(self, rank_batch: RankBatch, at: np.ndarray, attempt: int, seed: int) -> RankBatch:
        """Other samples of the same batch; the same again where there is no other."""
        drawn = rng.bits(seed, rank_batch.positions[at], Purpose.REPLACEMENT, 0)[:, 0].tolist()
        sample_ids = rank_batch.sample_ids[at].copy()
        for i, (sample_id, word) in enumerate(zip(sample_ids.tolist(), drawn, strict=True)):
            others = rank_batch.sample_ids[rank_batch.sample_ids != sample_id]
            if len(others):
                sample_ids[i] = others[(word + attempt) % len(others)]
        return rank_batch.of(at)._replace(sample_ids=sample_ids)


class DrawnStepSource:
    """The batches that a sampler draws, from a place on. name: the user's for it. n: samples of the
    dataset. generator: the loader's GlobalGenerator. ahead: where to note, for each epoch, what it was before
    the epoch's first draws.
    """

    def __init__(
        self,
        batches: Iterable,
        name: str,
        restored: dict | None,
        n: int,
        world: World,
        generator: Any,
        ahead: dict,
    ):
        from fastload.loader.orders import sampler_state

        self._batches, self._name, self._n, self._world = batches, name, n, world
        self._generator, self._ahead = generator, ahead
        self._begin, self._tell = sampler_state.Draws, sampler_state.set_epoch
        self._draws = self._begin(batches, restored, generator.drawing)

    def take(self, state: OrderState, stop: float) -> tuple[Step, RankBatch] | None:
        """The next batch, which begins at `state` or in the epoch after; None: it is not before `stop`.

        Raises ConfigError for what is no batch of sample_ids, and what the sampler raises.
        """
        while state.position < stop:
            if not self._draws.passed.taken:
                self._ahead.setdefault(state.position // SPAN, self._generator.state())
            for drawn in self._draws:
                return self._step(state, self._sample_ids(drawn))
            if state.position % SPAN == 0:
                raise ConfigError(
                    f"{self._name} draws nothing in this epoch, or less than a batch: give a sampler that "
                    "can be iterated again, a smaller batch_size, or keep incomplete batches."
                )
            state = OrderState(state.position - state.position % SPAN + SPAN)
            if state.position < stop:  # within one iteration nobody else could tell it
                self._tell(self._batches, state.position // SPAN)
                self._draws = self._begin(self._batches, None, self._generator.drawing)
        return None

    def end(self, state: OrderState, stop: float) -> OrderState:
        """Where an iteration is that has taken all there is between `state` and `stop`."""
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
                f"{self._name} draws more than {SPAN // world_size} samples in an epoch: break off and begin "
                "a new iteration, iter(loader), before."
            )
        positions = rank_positions(step.start, step.per_rank, rank, world_size)
        after = OrderState(step.valid_stop, draws=self._draws.state())
        return step, RankBatch(positions, sample_ids, None, positions, after)

    def _sample_ids(self, drawn: Any) -> np.ndarray:
        """A drawn batch as [N] int64."""
        try:
            ids = np.asarray(drawn)
        except (TypeError, ValueError):
            ids = np.empty(0)
        if ids.ndim != 1 or not ids.size or ids.dtype.kind not in "iu":
            raise ConfigError(
                f"{self._name} drew {str(drawn)[:200]}: a batch is a list of sample_ids, "
                "which are integers; what draws one at a time goes to sampler=, lists to batch_sampler=."
            )
        outside = ids[(ids < 0) | (ids >= self._n)]
        if outside.size:
            raise ConfigError(
                f"{self._name} drew {outside[0]}, and the dataset's samples are "
                f"[0, {self._n}): make the sampler for this dataset."
            )
        return ids.astype(np.int64)
