"""Datasets for the tests of what torch documents of its DataLoader."""

import multiprocessing

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from fastload import DataLoader as OurLoader
from tests.quick import slow_but

both = pytest.mark.parametrize("loader_class", [DataLoader, OurLoader], ids=["torch", "ours"])
# What torch's loader does with workers is known, and slow.
LOADERS = {"torch-0": (DataLoader, 0), "ours-0": (OurLoader, 0)}
LOADERS |= {"torch-2": (DataLoader, 2), "ours-2": (OurLoader, 2)}
both_and_workers = pytest.mark.parametrize(
    ("loader_class", "num_workers"),
    slow_but([one for name, one in LOADERS.items() if name != "torch-2"], LOADERS.values()),
    ids=LOADERS,
)


class Numbers(Dataset):
    """0, 1, ... n - 1, and what went wrong at `bad`. At `slow` a worker waits until `go_on` is set."""

    def __init__(self, n=11, bad=None, slow=None):
        self.n, self.bad, self.slow = n, bad, slow
        self.go_on = None if slow is None else multiprocessing.get_context("fork").Event()

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if index == self.bad:
            raise ValueError(f"sample {index} is bad")
        if index == self.slow:
            self.go_on.wait(20)
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
