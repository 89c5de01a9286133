"""The batches of an epoch by their numbers, for trainers that resume by skipping the first of them.

accelerate's skip_first_batches, and with it transformers.Trainer, makes a torch DataLoader of a loader's
batch_sampler, dataset and collate_fn, and drops what the batch sampler draws first.

In: an epoch of a loader, and the number of a step. Out: the batch of that step. Promised: the first step
that is requested sets the position of the loader, which reads nothing; the following ones are the next of
its iteration, decoded ahead by its threads at their true positions. So random draws, ranks, replacement
samples and `last` are those of an uninterrupted run. The iteration ends where the loader's would: with
epochs=3 at the end of the third epoch.
"""

import itertools
import re
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from fastload.errors import ConfigError
from fastload.order.sample_order import OrderState
from fastload.order.step_source import StepSource
from fastload.step_ids import StepIds

if TYPE_CHECKING:
    from fastload.loader.iterator import BatchIterator

# From the first of these versions to before the second, transformers skips batches before it calls set_epoch,
# and does not call it afterwards.
_VERSIONS_WITHOUT_EPOCH = (5, 0), (5, 18)


class LoaderActions(NamedTuple):
    """begin(state): begins an iteration of the loader there. end(iterator, state): ends one that has
    delivered everything, at `state`.
    """

    begin: "Callable[[OrderState], BatchIterator]"
    end: "Callable[[BatchIterator, OrderState], None]"


class EpochSteps:
    """The steps of an iteration that begins at the start of an epoch.

    start: of the epoch. span: positions in it. epochs: how many an iteration of the loader has from there on;
    None: it never ends.
    """

    def __init__(
        self, source: StepSource, start: OrderState, span: int, epochs: int | None, actions: LoaderActions
    ):
        self._source, self._start, self._span = source, start, span
        self._epochs, self._actions = epochs, actions
        self._iterator: BatchIterator | None = None
        self._next = 0  # the step that the iterator delivers next

    def __iter__(self) -> Iterator[StepIds]:
        """An iteration of the loader that began meanwhile ends after the last step."""
        numbers = itertools.count() if self._epochs is None else range(self._count())
        for number in numbers:
            yield StepIds(number, self._ids_of, self._make)
        iterator, self._iterator = self._iterator, None
        if iterator is not None and self._next == len(numbers):
            self._actions.end(iterator, self._state(self._span * self._epochs))

    def _count(self) -> int:
        steps = self._source.steps
        if steps.last == "straddle":
            return -(-self._epochs * self._span // steps.samples_per_step)
        return self._epochs * steps.steps_per_epoch

    def _ids_of(self, number: int) -> list[int]:
        _, rank_batch = self._source.take(self._state_before(number), float("inf"))
        return rank_batch.sample_ids.tolist()

    def _make(self, number: int) -> "FinishedBatch":
        if self._iterator is None:
            self._check(number)
            self._iterator, self._next = self._actions.begin(self._state_before(number)), number
        elif number != self._next:
            raise ConfigError(
                f"a loader's batches must be loaded in order, but batch {number} of the epoch was requested "
                f"after batch {self._next - 1}. Do not skip batches on the way, and do not split them over "
                "the ranks again (accelerator.prepare of what skip_first_batches returned): the loader has "
                "done that."
            )
        batch = next(self._iterator, self)
        if batch is self:
            raise ConfigError(
                "the loader was closed, or went to another position, while a torch DataLoader loaded its "
                "batches. Begin a new iteration."
            )
        self._next += 1
        return FinishedBatch(batch)

    def _state_before(self, number: int) -> OrderState:
        steps, epoch = self._source.steps, 0
        if steps.last != "straddle":
            epoch, number = divmod(number, steps.steps_per_epoch)
        return self._state(epoch * self._span + number * steps.samples_per_step)

    def _state(self, offset: int) -> OrderState:
        return self._start.at(self._start.position + offset, self._span)

    def _check(self, number: int) -> None:
        """Raises ConfigError where the number of a step does not determine its position or epoch."""
        steps = self._source.steps
        if steps.last == "straddle" and self._start.position % steps.samples_per_step:
            raise ConfigError(
                f'last="straddle": epoch {self._start.position // self._span} begins within a step of the '
                "epoch before, so its position after a number of batches is undefined. Use "
                'loader.load_state_dict(state), or last="drop", "partial" or "pad".'
            )
        transformers = sys.modules.get("transformers") if "transformers.trainer" in sys.modules else None
        if number and transformers is not None and _skips_without_epoch(transformers.__version__):
            raise ConfigError(
                f"transformers {transformers.__version__} does not pass the epoch to loaders when it skips "
                f"batches, so they would be of epoch {self._start.position // self._span}, whatever the "
                "checkpoint says. Use transformers>=5.18 or <5, or ignore_data_skip=True and "
                "loader.load_state_dict(state), as docs/resume.md shows."
            )


class FinishedBatch:
    """A batch that `__getitems__` returns and collate_fn unpacks."""

    def __init__(self, batch: Any):
        self.batch = batch

    def __getitem__(self, _: Any):
        raise ConfigError(
            "collate_fn: the loader's batches are finished, so there are no samples to collate. Give torch's "
            "DataLoader the loader's own, collate_fn=loader.collate_fn."
        )

    def __iter__(self):
        return self[0]

    def __len__(self) -> int:
        return self[0]


class Collate:
    """The `collate_fn` attribute of a loader: unpacks a finished batch, and passes samples to `collate_fn`,
    or torch's default_collate.
    """

    def __init__(self, collate_fn: Callable[[list], Any] | None = None):
        self._collate_fn = collate_fn

    def __call__(self, samples: Any) -> Any:
        if isinstance(samples, FinishedBatch):
            return samples.batch
        if self._collate_fn is not None:
            return self._collate_fn(samples)
        from torch.utils.data import default_collate

        return default_collate(samples)


def _skips_without_epoch(version: str) -> bool:
    found = re.match(r"(\d+)\.(\d+)", version)
    first, fixed = _VERSIONS_WITHOUT_EPOCH
    return found is not None and first <= (int(found[1]), int(found[2])) < fixed
