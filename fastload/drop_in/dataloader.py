"""`fl.DataLoader`: torch's DataLoader by its arguments, fastload's Loader where the dataset is fastload's.

In: torch's arguments. Out: for an fl.Dataset a `Loader`, else a loader of torch's own with a state that can
be saved. Promised: every argument of torch's is honoured, or refused with the reason; where one has no
meaning for native threads, a warning says so.
"""

import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data import ConcatDataset, Subset

from fastload.drop_in.dataset import Dataset
from fastload.drop_in.stateful_loader import StatefulLoader, T
from fastload.errors import ConfigError
from fastload.loader.config import MOST_THREADS, count
from fastload.loader.loader import Loader, loader_of
from fastload.loader.skipped import Collate

# What trainers that make a torch DataLoader of the loader's parts give to it: the batches are made by threads
# of this process, within their own time limit, and lie where they are to be.
SHOWN = {
    "num_workers": 0,
    "pin_memory": False,
    "timeout": 0,
    "worker_init_fn": None,
    "multiprocessing_context": None,
    "prefetch_factor": None,
    "persistent_workers": False,
    "pin_memory_device": "",
}
WITHOUT_WORKERS = ("worker_init_fn", "multiprocessing_context")


class DataLoader(StatefulLoader[T]):
    """torch.utils.data.DataLoader, to be imported in its place; see there for the arguments.

    Of an fl.Dataset it makes a `Loader` (no torch DataLoader, because trainers would make another one of it):
    num_workers are its threads (0: the usable CPUs), num_workers * prefetch_factor the batches ahead (None:
    as the Loader thinks best), pin_memory=True means batches on the GPU where there is one, the seed is
    generator.initial_seed() (0 without one, on every rank), the order fastload's. Batches are dicts, or lists
    with Dataset(as_tuple=True); collate_fn is given the batch's samples. Ranks are split by World, unless
    sampler= or batch_sampler= says which samples come. drop_last=False: of the last samples each rank gets as
    many; fewer than there are ranks are left out.

    The loader's attributes under torch's names are what a torch DataLoader of its parts needs, as accelerate
    makes one to skip batches: num_workers is 0 there, because no process works for it.

    Of any other dataset it makes what torch makes, with state_dict and load_state_dict.

    device: batches are brought there ahead of need, on a stream of the loader's own; None: as torch.
    snapshot_every_n_steps: accepted because torchdata's StatefulDataLoader has it, a whole number from 1 up.
    It changes nothing: `state_dict()` is exact after every batch.

    Raises ConfigError for what cannot be honoured: batch_size=None, a subclass of this class, or a Subset of
    an fl.Dataset (Dataset(select=indices) is one).
    """

    def __new__(cls, dataset: Any = None, *args, **kwargs):
        if isinstance(dataset, Subset) and isinstance(dataset.dataset, Dataset):
            raise ConfigError(
                "a Subset of a fastload.Dataset would be read sample by sample: use "
                "fastload.Dataset(..., select=indices)."
            )
        if isinstance(dataset, ConcatDataset) and any(isinstance(one, Dataset) for one in dataset.datasets):
            raise ConfigError(
                "a ConcatDataset of fastload.Datasets would be read sample by sample: use one "
                "fastload.Dataset of a list of sources, or fastload.Mixture."
            )
        if isinstance(dataset, (str, os.PathLike)):
            raise ConfigError(f"{dataset!r} is a path: give fastload.Dataset({dataset!r}, fields={{...}}).")
        if not isinstance(dataset, Dataset):
            return super().__new__(cls)
        if cls is not DataLoader:
            raise ConfigError(
                f"{cls.__name__}: a subclass of DataLoader cannot load a fastload.Dataset. Call "
                "fastload.DataLoader itself, or fastload.Loader."
            )
        return _loader(dataset, *args, **kwargs)


def _loader(
    dataset: Dataset,
    batch_size: int | None = 1,
    shuffle: bool | None = None,
    sampler: Any = None,
    batch_sampler: Any = None,
    num_workers: int = 0,
    collate_fn: Any = None,
    pin_memory: bool = False,
    drop_last: bool = False,
    timeout: float = 0,
    worker_init_fn: Any = None,
    multiprocessing_context: Any = None,
    generator: torch.Generator | None = None,
    *,
    prefetch_factor: int | None = None,
    persistent_workers: bool = False,
    pin_memory_device: str = "",
    in_order: bool = True,
    device: Any = None,
    snapshot_every_n_steps: int = 1,
) -> Loader:
    """The Loader that torch's arguments ask for. Batches come in order, and threads stay, whatever in_order
    and persistent_workers say.
    """
    given = dict(locals())
    _check(given)
    if batch_sampler is not None:
        batch_size = None
    loader = loader_of(
        dataset,
        dataset.fixed_source,
        batch_size,
        dataset.fields,
        **dataset.options | {"map_batch": _Finish(dataset, collate_fn)},
        shuffle=bool(shuffle) and sampler is None and batch_sampler is None,
        window=dataset.window if shuffle else None,
        seed=0 if generator is None else generator.initial_seed() % 2**64,
        last="drop" if drop_last else "partial",
        device=_device(device, pin_memory, pin_memory_device),
        threads=num_workers or None,
        prefetch=max(1, prefetch_factor * num_workers) if prefetch_factor is not None else None,
        sampler=sampler,
        batch_sampler=batch_sampler,
        timeout_seconds=timeout or None,
    )
    shown = SHOWN | {"collate_fn": Collate(collate_fn), "generator": generator, "in_order": in_order}
    shown |= {"snapshot_every_n_steps": snapshot_every_n_steps}
    for name, value in shown.items():  # where training code looks for torch's
        setattr(loader, name, value)
    return loader


class _Finish:
    """What becomes of a Loader's batch: the dataset's map_batch, then its form, or the user's collate_fn."""

    def __init__(self, dataset: Dataset, collate_fn: Any):
        self._dataset, self._collate_fn = dataset, collate_fn

    def __call__(self, batch: dict) -> Any:
        dataset, map_batch = self._dataset, self._dataset.options["map_batch"]
        if map_batch is not None:
            batch = map_batch(batch)
        if batch is None or not (dataset.as_tuple or self._collate_fn):
            return batch  # for None the Loader has a word
        if not isinstance(batch, Mapping) or not batch.keys() >= dataset.fields.keys():
            raise ConfigError(
                "map_batch: with as_tuple=True or collate_fn= it must return the batch, with all fields."
            )
        return dataset.as_given(batch) if self._collate_fn is None else self._collate_fn(self._samples(batch))

    def _samples(self, batch: Mapping) -> list:
        try:
            return self._dataset.samples_of(batch)
        except (TypeError, IndexError) as error:
            raise ConfigError(
                f"collate_fn is given single samples, and an entry that map_batch made has none ({error}): "
                "let one of the two do it."
            ) from error


def _check(given: dict) -> None:
    """Torch's own rules, and what native threads cannot honour."""
    if given["batch_size"] is None and given["batch_sampler"] is None:
        raise ConfigError("batch_size=None: fastload makes whole batches; use batch_size=1.")
    if given["batch_sampler"] is not None:
        if given["batch_size"] != 1 or given["shuffle"] or given["sampler"] is not None or given["drop_last"]:
            raise ConfigError(
                "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"
            )
    elif given["sampler"] is not None and given["shuffle"]:
        raise ConfigError("sampler option is mutually exclusive with shuffle")
    _check_workers(given["num_workers"], given["prefetch_factor"], given["persistent_workers"])
    count("snapshot_every_n_steps", given["snapshot_every_n_steps"], 1)
    if not isinstance(given["timeout"], (int, float)) or given["timeout"] < 0:
        raise ConfigError(f"timeout={given['timeout']!r}: timeout option should be non-negative")
    if not isinstance(given["generator"], torch.Generator | None):
        raise ConfigError(f"generator={given['generator']!r}: give a torch.Generator, whose seed is taken.")
    if given["collate_fn"] is not None and not callable(given["collate_fn"]):
        raise ConfigError(f"collate_fn={given['collate_fn']!r}: give a function of a list of samples.")
    for name in WITHOUT_WORKERS:
        if given[name] is not None:
            warnings.warn(
                f"{name} has no effect: a fastload.Dataset is read by threads of this process, there are no "
                "worker processes",
                stacklevel=4,
            )


def _check_workers(num_workers, prefetch_factor, persistent_workers) -> None:
    count("num_workers", num_workers, 0, MOST_THREADS)
    if prefetch_factor is not None and num_workers == 0:
        raise ConfigError("prefetch_factor counts batches for each of num_workers: give num_workers, too.")
    if prefetch_factor is not None and not (isinstance(prefetch_factor, int) and prefetch_factor >= 0):
        raise ConfigError(
            f"prefetch_factor={prefetch_factor!r}: prefetch_factor option should be non-negative, and whole"
        )
    if persistent_workers and num_workers == 0:
        raise ConfigError("persistent_workers option needs num_workers > 0")


def _device(device: Any, pin_memory: bool, pin_memory_device: str) -> Any:
    """Where batches go: `device` where it is given, else what pin_memory means."""
    if device is not None or not pin_memory:
        return "cpu" if device is None else device
    if not torch.cuda.is_available():
        warnings.warn("pin_memory=True, and torch sees no GPU here: batches stay on the CPU", stacklevel=4)
        return "cpu"
    return pin_memory_device or "cuda"
