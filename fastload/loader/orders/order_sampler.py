"""The `sampler` and `batch_sampler` of a loader that has an order of its own, where trainers look for them.

In: a loader. Out: a torch Sampler, and a BatchSampler. Promised: `set_epoch` is the loader's, they iterate
over the sample_ids that this rank takes in the epoch that the loader is in, and they shard nothing: the
loader has done that already. What the batch sampler draws, `loader.dataset` makes the batch of
(loader/skipped.py).
"""

from collections.abc import Callable, Iterable, Iterator

from torch.utils.data import BatchSampler, Sampler, SequentialSampler

from fastload.step_ids import StepIds


class OrderSampler(Sampler):
    """sample_ids: gives those of the epoch. length: how many they are. set_epoch: the loader's."""

    def __init__(
        self, sample_ids: Callable[[], Iterator[int]], length: Callable[[], int], set_epoch: Callable
    ):
        self._sample_ids, self._length, self.set_epoch = sample_ids, length, set_epoch

    def __iter__(self) -> Iterator[int]:
        return self._sample_ids()

    def __len__(self) -> int:
        return self._length()


class InOrderSampler(OrderSampler, SequentialSampler):
    """One that does not shuffle: Lightning's overfit_batches takes no other."""


class StepSampler(BatchSampler):
    """The steps of the epoch. steps: gives them. length: how many they are."""

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
        # Not a list yet: which epoch it is, may be said after `iter`.
        yield from self._steps()

    def __len__(self) -> int:
        return self._length()
