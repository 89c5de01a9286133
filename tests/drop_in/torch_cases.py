"""Datasets for the tests of what torch documents of its DataLoader."""

import time

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from fastload import DataLoader as OurLoader

both = pytest.mark.parametrize("loader_class", [DataLoader, OurLoader], ids=["torch", "ours"])


class Numbers(Dataset):
    """0, 1, ... n - 1, and what went wrong at `bad`."""

    def __init__(self, n=11, bad=None, slow=None):
        self.n, self.bad, self.slow = n, bad, slow

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if index == self.bad:
            raise ValueError(f"sample {index} is bad")
        if index == self.slow:
            time.sleep(1.5)
        return index


class Stream(IterableDataset):
    """Numbers from start to stop; each worker takes its own of every num_workers."""

    def __init__(self, stop=11, start=0, length=None):
        self.start, self.stop, self.length = start, stop, length

    def __iter__(self):
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return iter(range(self.start + first, self.stop, step))


def mark_dataset(worker_id):
    get_worker_info().dataset.mark = f"worker {worker_id}"


def plain(batch):
    return batch.tolist() if isinstance(batch, torch.Tensor) else batch


def epochs(loader, count=2):
    return [[plain(batch) for batch in loader] for _ in range(count)]
