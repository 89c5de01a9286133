"""The batches of an epoch, one by one, for trainers that resume by skipping the first of them.

accelerate's skip_first_batches, and with it transformers.Trainer, make a torch DataLoader of a loader's
batch_sampler, dataset and collate_fn, and leave out what the batch sampler draws first.

In: an epoch of a loader, and which of its steps is asked for. Out: that very batch. Promised: the first one
asked for moves the loader there, which reads nothing, and the following ones are the next ones of its
iteration: decoded ahead by its threads, at their true positions, so that random draws, ranks, replacements
and `last` are those of a run that never stopped. It goes on as far as an iteration of the loader: with
epochs=3 to the end of the third one.
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

# transformers skips before it tells the epoch, and tells it to nobody then: from the first version to before
# the second one.
_TELLS_NO_EPOCH = (5, 0), (5, 18)


class Moves(NamedTuple):
    """What a loader lets be done to it. begin(state): an iteration from there on. end(iterator, state): it
    is over, at its end.
    """

    begin: "Callable[[OrderState], BatchIterator]"
    end: "Callable[[BatchIterator, OrderState], None]"


class EpochSteps:
    """The steps of an iteration that begins at the start of an epoch.

    start: where it begins; span: positions in it. epochs: how many an iteration of the loader has
    from there on; None: it never ends.
    """

    def __init__(self, source: StepSource, start: OrderState, span: int, epochs: int | None, moves: Moves):
        self._source, self._start, self._span, self._epochs, self._moves = source, start, span, epochs, moves
        self._iterator: BatchIterator | None = None
        self._next = 0  # the step that the iteration delivers next

    def __iter__(self) -> Iterator[StepIds]:
        """An iteration that began on the way is over after its last step."""
        numbers = itertools.count() if self._epochs is None else range(self._count())
        for number in numbers:
            yield StepIds(number, self._ids_of, self._make)
        iterator, self._iterator = self._iterator, None
        if iterator is not None and self._next == len(numbers):
            self._moves.end(iterator, self._state(self._span * self._epochs))

    def _count(self) -> int:
        steps = self._source.steps
        if steps.last == "straddle":
            return -(-self._epochs * self._span // steps.samples_per_step)
        return self._epochs * steps.steps_per_epoch

    def _ids_of(self, number: int) -> list[int]:
        _, rank_batch = self._source.take(self._state_before(number), float("inf"))
        return rank_batch.sample_ids.tolist()

    def _make(self, number: int) -> "Finished":
        if self._iterator is None:
            self._check(number)
            self._iterator, self._next = self._moves.begin(self._state_before(number)), number
        elif number != self._next:
            raise ConfigError(
                f"batch {number} of the epoch was asked for after batch {self._next - 1}: a loader's batches "
                "come one after the other. It has already split them over the ranks, so let nobody split "
                "them again (accelerator.prepare of what skip_first_batches returned), and skip none on the "
                "way."
            )
        batch = next(self._iterator, self)
        if batch is self:
            raise ConfigError(
                "the loader was moved or closed while its batches came through a torch DataLoader: begin a "
                "new iteration."
            )
        self._next += 1
        return Finished(batch)

    def _state_before(self, number: int) -> OrderState:
        steps, epoch = self._source.steps, 0
        if steps.last != "straddle":
            epoch, number = divmod(number, steps.steps_per_epoch)
        return self._state(epoch * self._span + number * steps.samples_per_step)

    def _state(self, offset: int) -> OrderState:
        return self._start.at(self._start.position + offset, self._span)

    def _check(self, number: int) -> None:
        """Refuses where the number of a step does not tell where it begins."""
        steps = self._source.steps
        if steps.last == "straddle" and self._start.position % steps.samples_per_step:
            raise ConfigError(
                f'last="straddle": the steps of epoch {self._start.position // self._span} begin within a '
                "step of the epoch before, so skipping a number of batches leads nowhere. Use "
                'loader.load_state_dict(state), or last="drop", "partial" or "pad".'
            )
        transformers = sys.modules.get("transformers") if "transformers.trainer" in sys.modules else None
        if number and transformers is not None and _tells_no_epoch(transformers.__version__):
            raise ConfigError(
                f"transformers {transformers.__version__} tells no loader the epoch in which it skips "
                f"batches, so these would be of epoch {self._start.position // self._span}, whatever the "
                "checkpoint says. Use transformers>=5.18, or below 5, or ignore_data_skip=True and "
                "loader.load_state_dict(state), as docs/resume.md shows."
            )


class Finished:
    """A batch that `__getitems__` hands to a collate_fn."""

    def __init__(self, batch: Any):
        self.batch = batch

    def __getitem__(self, _: Any):
        raise ConfigError(
            "collate_fn: this batch is finished, there are no samples to collate: give torch's DataLoader "
            "the loader's own, collate_fn=loader.collate_fn."
        )

    def __iter__(self):
        return self[0]

    def __len__(self) -> int:
        return self[0]


class Collate:
    """The collate_fn that a loader shows: a finished batch passes through, samples go to `given`, or where
    that is None to torch's default_collate.
    """

    def __init__(self, given: Callable[[list], Any] | None = None):
        self.given = given

    def __call__(self, samples: Any) -> Any:
        if isinstance(samples, Finished):
            return samples.batch
        if self.given is not None:
            return self.given(samples)
        from torch.utils.data import default_collate

        return default_collate(samples)


def _tells_no_epoch(version: str) -> bool:
    found = re.match(r"(\d+)\.(\d+)", version)
    first, fixed = _TELLS_NO_EPOCH
    return found is not None and first <= (int(found[1]), int(found[2])) < fixed
