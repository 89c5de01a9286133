"""The `sampler` of a loader that has an order of its own, for trainers that look for one.

In: a loader. Out: a torch Sampler. Promised: `set_epoch` is the loader's, it iterates over the sample_ids
that this rank takes in the epoch that the loader is in, and it shards nothing: the loader has done that
already.
"""

from collections.abc import Callable, Iterator

from torch.utils.data import Sampler, SequentialSampler


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
