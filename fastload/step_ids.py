"""What the batch sampler of a loader draws: the sample_ids of a step, which lead to the batch itself.

In: which step of an epoch it is, and two functions of that number. Out: a sequence of integers, computed when
it is looked at, so that skipping a million steps computes none. Promised: torch's DataLoader, which asks a
dataset for `__getitems__(ids)`, gets the finished batch of that step, or an error with the way out; samples
are never read one by one.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fastload.errors import ConfigError


class StepIds(Sequence):
    """number: of the step in its epoch. ids_of(number): its sample_ids, a list of int; make(number): the
    batch.
    """

    def __init__(self, number: int, ids_of: Callable[[int], list[int]], make: Callable[[int], Any]):
        self.number = number
        self._ids_of, self._make = ids_of, make

    def batch(self) -> Any:
        """What the loader makes of this step."""
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

    def __reduce__(self):
        return list, (list(self),)  # a loader has one place, in one process


def batch_of(ids: Any) -> Any:
    """What `__getitems__(ids)` of a dataset answers. Raises ConfigError unless the ids are a step's."""
    if isinstance(ids, StepIds):
        return ids.batch()
    raise ConfigError(
        "a torch DataLoader would read these samples one by one, not in batches by native threads: use "
        "fastload.DataLoader or fastload.Loader. To skip batches, as accelerate's skip_first_batches does, "
        "give torch the loader's own batch_sampler, dataset and collate_fn, with num_workers=0; with "
        "a sampler of yours, or in worker processes, that is not possible: loader.load_state_dict(state) "
        "goes to any batch (docs/resume.md has it for each trainer)."
    )
