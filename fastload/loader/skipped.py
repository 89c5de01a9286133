"""The batches of an epoch, one by one, for trainers that resume by skipping the first of them.

accelerate's skip_first_batches, and with it transformers.Trainer, make a torch DataLoader of a loader's
batch_sampler, dataset and collate_fn, and leave out what the batch sampler draws first.

In: an epoch of a loader, and which of its steps is asked for. Out: that very batch. Promised: the first one
asked for moves the loader there, which reads nothing, and the following ones are the next ones of its
iteration: decoded ahead by its threads, in their true places of the order, so that dice, ranks, stand-ins and
`last` are those of a run that never stopped. It goes on as far as an iteration of the loader: with epochs=3
to the end of the third one.
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
    """What a loader lets be done to it. begin(place): an iteration from there on. end(run, place): it is
    over, at its end.
    """

    begin: "Callable[[OrderState], BatchIterator]"
    end: "Callable[[BatchIterator, OrderState], None]"


class EpochSteps:
    """The steps of an iteration that begins at the start of an epoch.

    start: the place where it begins; span: positions in it. epochs: how many an iteration of the loader has
    from there on; None: it never ends.
    """

    def __init__(self, turns: StepSource, start: OrderState, span: int, epochs: int | None, moves: Moves):
        self._turns, self._start, self._span, self._epochs, self._moves = turns, start, span, epochs, moves
        self._run: BatchIterator | None = None
        self._next = 0  # the step that the iteration delivers next

    def __iter__(self) -> Iterator[StepIds]:
        """An iteration that began on the way is over after its last step."""
        numbers = itertools.count() if self._epochs is None else range(self._count())
        for number in numbers:
            yield StepIds(number, self._ids_of, self._make)
        run, self._run = self._run, None
        if run is not None and self._next == len(numbers):
            self._moves.end(run, self._place(self._span * self._epochs))

    def _count(self) -> int:
        steps = self._turns.steps
        if steps.last == "straddle":
            return -(-self._epochs * self._span // steps.samples_per_step)
        return self._epochs * steps.steps_per_epoch

    def _ids_of(self, number: int) -> list[int]:
        _, taken = self._turns.take(self._place_before(number), float("inf"))
        return taken.sample_ids.tolist()

    def _make(self, number: int) -> "Finished":
        if self._run is None:
            self._check(number)
            self._run, self._next = self._moves.begin(self._place_before(number)), number
        elif number != self._next:
            raise ConfigError(
                f"batch {number} of the epoch was asked for after batch {self._next - 1}: a loader's batches "
                "come one after the other. It has already split them over the ranks, so let nobody split "
                "them again (accelerator.prepare of what skip_first_batches returned), and skip none on the "
                "way."
            )
        batch = next(self._run, self)
        if batch is self:
            raise ConfigError(
                "the loader was moved or closed while its batches came through a torch DataLoader: begin a "
                "new iteration."
            )
        self._next += 1
        return Finished(batch)

    def _place_before(self, number: int) -> OrderState:
        steps, epoch = self._turns.steps, 0
        if steps.last != "straddle":
            epoch, number = divmod(number, steps.steps_per_epoch)
        return self._place(epoch * self._span + number * steps.samples_per_step)

    def _place(self, offset: int) -> OrderState:
        return self._start.at(self._start.position + offset, self._span)

    def _check(self, number: int) -> None:
        """What makes the number of a step no place in the order."""
        steps = self._turns.steps
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
