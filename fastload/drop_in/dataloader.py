"""`fl.DataLoader`: torch's DataLoader by its arguments, fastload's Loader for an fl.Dataset.

In: torch's arguments. Out: for an fl.Dataset a `Loader`, else a torch DataLoader with a state. Promised:
every argument of torch's is honoured, or refused with the reason; a warning names those that have no meaning
for native threads.
"""

import inspect
import os
import warnings
from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import ConcatDataset, Subset

from fastload.drop_in.dataset import Dataset
from fastload.drop_in.stateful_loader import StatefulLoader, T
from fastload.errors import ConfigError
from fastload.loader.config import MAX_THREADS, count
from fastload.loader.loader import Loader, loader_of
from fastload.loader.skipped import Collate

# Attributes under torch's names, from which trainers make a torch DataLoader of the loader's parts: batches
# come from threads of this process, within their own time limit, and on the right device.
TORCH_ATTRIBUTES = {
    "num_workers": 0,
    "pin_memory": False,
    "timeout": 0,
    "worker_init_fn": None,
    "multiprocessing_context": None,
    "prefetch_factor": None,
    "persistent_workers": False,
    "pin_memory_device": "",
}
NEEDS_PROCESSES = ("worker_init_fn", "multiprocessing_context")


class DataLoader(StatefulLoader[T]):
    """A replacement for torch.utils.data.DataLoader, with the same arguments.

    Of an fl.Dataset it makes an `fl.Loader`, not a torch DataLoader, with these meanings of the arguments:

    num_workers: threads; 0: the usable CPUs. num_workers * prefetch_factor batches are prefetched; None: the
        Loader's default.
    pin_memory: True puts batches on the GPU, if there is one.
    generator: its initial_seed() is the seed; None: 0 on every rank. The order is fastload's.
    collate_fn: gets the samples of a batch. Without it batches are dicts, or lists with
        Dataset(as_tuple=True), of the tensors that `fl.Loader` describes.
    sampler, batch_sampler: select the samples of this rank; without them World splits samples over the ranks.
    drop_last: False splits the last samples evenly over the ranks; a remainder smaller than the number of
        ranks is dropped.
    device: of the batches, copied ahead of need on a stream of the loader's own; None: as pin_memory says.
    snapshot_every_n_steps: as in torchdata's StatefulDataLoader, an integer of at least 1. It has no effect:
        `state_dict()` is exact after every batch.

    Of any other dataset it makes a torch DataLoader with state_dict and load_state_dict (StatefulLoader).

    Raises ConfigError for what cannot be honoured: batch_size=None without a batch_sampler, a subclass of
    this class, or a Subset of an fl.Dataset (use Dataset(select=indices)).
    """

    def _new(cls, dataset: Any = None, *args, **kwargs):
        if isinstance(dataset, Subset) and isinstance(dataset.dataset, Dataset):
            raise ConfigError(
                "a Subset of a fastload.Dataset would be read sample by sample. Use "
                "fastload.Dataset(..., select=indices)."
            )
        if isinstance(dataset, ConcatDataset) and any(isinstance(part, Dataset) for part in dataset.datasets):
            raise ConfigError(
                "a ConcatDataset of fastload.Datasets would be read sample by sample. Use one "
                "fastload.Dataset of a list of sources, or fastload.Mixture."
            )
        if isinstance(dataset, (str, os.PathLike)):
            raise ConfigError(
                f"dataset must be a dataset, got the path {dataset!r}. Use "
                f"fastload.Dataset({dataset!r}, fields={{...}})."
            )
        if not isinstance(dataset, Dataset):
            return super().__new__(cls)
        if cls is not DataLoader:
            raise ConfigError(
                f"{cls.__name__}: a subclass of DataLoader cannot load a fastload.Dataset. Use "
                "fastload.DataLoader itself, or fastload.Loader."
            )
        return _loader(dataset, *args, **kwargs)

    if not TYPE_CHECKING:  # type checkers see the arguments of StatefulLoader.__init__ instead
        __new__ = _new


def _loader(*args: Any, **kwargs: Any) -> Loader:
    """The Loader for torch's arguments; in_order and persistent_workers are always true."""
    bound = inspect.signature(StatefulLoader.__init__).bind(None, *args, **kwargs)
    bound.apply_defaults()
    given = SimpleNamespace(**bound.arguments)
    _check(given)
    dataset, generator, prefetch = given.dataset, given.generator, given.prefetch_factor
    has_sampler = given.sampler is not None or given.batch_sampler is not None
    loader = loader_of(
        dataset,
        dataset.fixed_source,
        given.batch_size if given.batch_sampler is None else None,
        dataset.fields,
        **dataset.options | {"map_batch": _Collated(dataset, given.collate_fn)},
        shuffle=bool(given.shuffle) and not has_sampler,
        window=dataset.window if given.shuffle else None,
        seed=0 if generator is None else generator.initial_seed() % 2**64,
        last="drop" if given.drop_last else "partial",
        device=_device(given.device, given.pin_memory, given.pin_memory_device),
        threads=given.num_workers or None,
        prefetch=None if prefetch is None else max(1, prefetch * given.num_workers),
        sampler=given.sampler,
        batch_sampler=given.batch_sampler,
        timeout_seconds=given.timeout or None,
    )
    own = {name: getattr(given, name) for name in ("generator", "in_order", "snapshot_every_n_steps")}
    for name, value in (TORCH_ATTRIBUTES | {"collate_fn": Collate(given.collate_fn)} | own).items():
        setattr(loader, name, value)
    return loader


class _Collated:
    """A map_batch: the dataset's own, then the user's collate_fn, or else `Dataset.formatted`."""

    def __init__(self, dataset: Dataset, collate_fn: Any):
        self._dataset, self._collate_fn = dataset, collate_fn

    def __call__(self, batch: dict) -> Any:
        dataset, map_batch = self._dataset, self._dataset.options["map_batch"]
        if map_batch is not None:
            batch = map_batch(batch)
        if batch is None or not (dataset.as_tuple or self._collate_fn):
            return batch  # the Loader raises an error for None
        if not isinstance(batch, Mapping) or not batch.keys() >= dataset.fields.keys():
            raise ConfigError(
                "map_batch must return the batch with all its fields, because as_tuple=True or collate_fn= "
                "needs them. Return the dict, or drop both."
            )
        if self._collate_fn is None:
            return dataset.formatted(batch)
        return self._collate_fn(self._samples(batch))

    def _samples(self, batch: Mapping) -> list:
        try:
            return self._dataset.samples_of(batch)
        except (TypeError, IndexError) as error:
            raise ConfigError(
                f"collate_fn gets single samples, but map_batch added an entry without samples ({error}). "
                "Use only one of the two."
            ) from error


def _check(given: SimpleNamespace) -> None:
    """Raises ConfigError by torch's own rules; warns of what has no meaning for threads."""
    if given.batch_size is None and given.batch_sampler is None:
        raise ConfigError("batch_size must be an integer of at least 1, got None. Use batch_size=1.")
    if given.batch_sampler is not None:
        if given.batch_size != 1 or given.shuffle or given.sampler is not None or given.drop_last:
            raise ConfigError(
                "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"
            )
    elif given.sampler is not None and given.shuffle:
        raise ConfigError("sampler option is mutually exclusive with shuffle")
    _check_workers(given.num_workers, given.prefetch_factor, given.persistent_workers)
    count("snapshot_every_n_steps", given.snapshot_every_n_steps, 1)
    if not isinstance(given.timeout, (int, float)) or given.timeout < 0:
        raise ConfigError(f"timeout must be a number of at least 0 (seconds), got {given.timeout!r}.")
    if not isinstance(given.generator, torch.Generator | None):
        raise ConfigError(f"generator must be a torch.Generator or None, got {given.generator!r}.")
    if given.collate_fn is not None and not callable(given.collate_fn):
        raise ConfigError(f"collate_fn must be a function of a list of samples, got {given.collate_fn!r}.")
    for name in NEEDS_PROCESSES:
        if getattr(given, name) is not None:
            warnings.warn(
                f"{name} has no effect: a fastload.Dataset is read by threads, not by worker processes",
                stacklevel=4,
            )


def _check_workers(num_workers, prefetch_factor, persistent_workers) -> None:
    count("num_workers", num_workers, 0, MAX_THREADS)
    if prefetch_factor is not None and num_workers == 0:
        raise ConfigError(
            f"prefetch_factor={prefetch_factor!r} counts batches per worker, so it needs num_workers of "
            "at least 1, got 0."
        )
    if prefetch_factor is not None and not (isinstance(prefetch_factor, int) and prefetch_factor >= 0):
        raise ConfigError(f"prefetch_factor must be an integer of at least 0, got {prefetch_factor!r}.")
    if persistent_workers and num_workers == 0:
        raise ConfigError("persistent_workers=True needs num_workers of at least 1, got num_workers=0.")


def _device(device: Any, pin_memory: bool, pin_memory_device: str) -> Any:
    """The device of the batches: `device`, or else the one that pin_memory means."""
    if device is not None or not pin_memory:
        return "cpu" if device is None else device
    if not torch.cuda.is_available():
        warnings.warn(
            "pin_memory=True has no effect: torch sees no GPU, so batches stay on the CPU", stacklevel=4
        )
        return "cpu"
    return pin_memory_device or "cuda"
