"""The `sampler` and `batch_sampler` attributes of a loader with fastload's own order, for trainers.

In: functions of a loader. Out: a torch Sampler, and a BatchSampler. Promised: `set_epoch` is the loader's;
they iterate over the sample_ids of this rank in the loader's current epoch, and do not split them again.
`loader.dataset` turns what the batch sampler draws into the batch itself (loader/skipped.py).
"""

from collections.abc import Callable, Iterable, Iterator

from torch.utils.data import BatchSampler, Sampler, SequentialSampler

from fastload.step_ids import StepIds


class OrderSampler(Sampler):
    """sample_ids(): those of the epoch. length(): how many there are. set_epoch(epoch): the loader's."""

    def __init__(
        self, sample_ids: Callable[[], Iterator[int]], length: Callable[[], int], set_epoch: Callable
    ):
        self._sample_ids, self._length, self.set_epoch = sample_ids, length, set_epoch

    def __iter__(self) -> Iterator[int]:
        return self._sample_ids()

    def __len__(self) -> int:
        return self._length()


class InOrderSampler(OrderSampler, SequentialSampler):
    """An order that is not shuffled, in the class that Lightning's overfit_batches requires."""


class StepSampler(BatchSampler):
    """steps(): those of the epoch. length(): how many there are."""

    def __init__(
        self,
        sampler: OrderSampler,
        batch_size: int,
        drop_last: bool,
        steps: Callable[[], Iterable[StepIds]],
        length: Callable[[], int],
    ):
        super().__init__(sampler, batch_size, drop_last)
        self._steps, self._length, self.set_epoch = steps, length, sampler.set_epoch

    def __iter__(self) -> Iterator[StepIds]:
        # A generator, because set_epoch may be called after `iter`.
        yield from self._steps()

    def __len__(self) -> int:
        return self._length()
