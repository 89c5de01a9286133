"""What the batch sampler of a loader yields: the sample_ids of a step, which lead to the batch itself.

In: the number of a step in its epoch, and two functions of that number. Out: a sequence of integers, computed
on access, so skipping a million steps computes none. Promised: torch's DataLoader, which calls a dataset's
`__getitems__(ids)`, gets the finished batch of that step, or an error that says what to do; samples are never
read one at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fastload.errors import ConfigError


class StepIds(Sequence[int]):
    """number: of the step in its epoch. ids_of(number): its sample_ids, a list of int; make(number): the
    batch.
    """

    def __init__(self, number: int, ids_of: Callable[[int], list[int]], make: Callable[[int], Any]):
        self.number = number
        self._ids_of, self._make = ids_of, make

    def batch(self) -> Any:
        """The loader's batch of this step."""
        return self._make(self.number)

    def __getitem__(self, i: Any) -> Any:
        return self._ids_of(self.number)[i]

    def __len__(self) -> int:
        return len(self._ids_of(self.number))

    def __iter__(self) -> Iterator[int]:
        return iter(self._ids_of(self.number))

    def __add__(self, other: Any) -> list[int]:
        return list(self) + list(other)

    def __radd__(self, other: Any) -> list[int]:
        return list(other) + list(self)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, (StepIds, list)) and list(self) == list(other)

    def __repr__(self) -> str:
        return repr(list(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)  # a loader belongs to one process


def batch_of(ids: Any) -> Any:
    """The result of a dataset's `__getitems__(ids)`. Raises ConfigError unless the ids are a StepIds."""
    if isinstance(ids, StepIds):
        return ids.batch()
    raise ConfigError(
        "a torch DataLoader would read these samples one at a time, not in batches on native threads: use "
        "fastload.DataLoader or fastload.Loader. To skip batches, as accelerate's skip_first_batches does, "
        "give torch the loader's own batch_sampler, dataset and collate_fn, with num_workers=0; with your "
        "own sampler, or in worker processes, that is not possible: loader.load_state_dict(state) goes to "
        "any batch (docs/resume.md shows it for each trainer)."
    )
