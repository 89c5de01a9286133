"""`fl.Dataset`: the samples of a source, and how they are decoded, for a DataLoader.

In: a source, fields, and how their values are made. Out: what `fl.DataLoader` makes a Loader of; single
samples by their index, for inspection. Promised: all that can be checked without data is checked at once;
the source is opened once, on first use, and again by a copy in another process.
"""

import operator
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fastload import backends
from fastload.augment.pipe import Augment
from fastload.errors import ConfigError
from fastload.fields import Field, Image
from fastload.loader.config import LoaderConfig
from fastload.loader.loader import loader_of
from fastload.loader.samples import OwnSamples, open_samples, refuse_dataset
from fastload.shards import dataset as shards
from fastload.shards.mixture import Mixture, MixtureDataset
from fastload.step_ids import batch_of
from fastload.world import World

MANY = 1000  # single samples; whoever reads more of them is training on them


class Dataset(OwnSamples):
    """The samples of a source, and how they are decoded; see `fl.Loader` for all arguments but this:

    as_tuple: True: a batch is a list of the fields' values in their order, as torch's default_collate makes
        of tuples, without "__key__" and the like; a sample is a tuple. False: both are dicts.

    `len(dataset)` is the number of samples, and `dataset[i]` one sample on the CPU, a dict or tuple without
    the batch dimension: an image is [3, height, width] of `dtype`, with the random draws of position i. It
    is meant for inspection, not for training, because every access opens the files again; a bad sample
    raises. `classes` are the names of the class folders, or None.

    Raises ConfigError for invalid arguments; what `fl.Loader` raises when the source is first needed;
    IndexError for an index outside [-n, n).
    """

    def __init__(
        self,
        source: Any,
        fields: Mapping[str, Field],
        *,
        augment: Augment | None = None,
        normalize: Any = "gan",
        dtype: Any = "float32",
        layout: str = "nchw",
        window: int | None = None,
        select: Any = None,
        exclude: Any = None,
        map_batch: Callable[[dict], Any] | None = None,
        decode: str = "auto",
        max_bytes: int | None = None,
        max_pixels: int | None = None,
        on_bad: str = "replace",
        max_bad_fraction: float | None = None,
        ledger: Any = "auto",
        deterministic: bool = True,
        hw_decoder_load: float | None = None,
        as_tuple: bool = False,
    ):
        refuse_dataset(source)
        self.options = {
            name: value
            for name, value in locals().items()
            if name not in ("self", "source", "fields", "window", "as_tuple")
        }
        config = LoaderConfig(source, 1, fields, window=window, **self.options)
        self.options |= {"select": config.select, "exclude": config.exclude, "normalize": config.normalize}
        if not isinstance(as_tuple, bool):
            raise ConfigError(f"as_tuple must be True or False, got {as_tuple!r}.")
        reports = any(isinstance(field, Image) and field.report for field in fields.values())
        if as_tuple and (reports or (augment is not None and augment.mixes)):
            raise ConfigError(
                "as_tuple=True returns only the fields, but report=True, mixup and cutmix add entries. Drop "
                "these, or use as_tuple=False."
            )
        self.fixed_source, self.fields, self.window = config.source, dict(fields), window
        self.as_tuple = as_tuple
        self._opened: shards.Dataset | MixtureDataset | None = None
        self._accesses = 0  # to single samples

    @classmethod
    def from_torch(cls, dataset: Any, scaled: str | None = None, **options) -> "Dataset":
        """The Dataset that reads what a torchvision ImageFolder reads, with the same transforms.

        dataset: an ImageFolder, or any dataset with `.samples` and torchvision's transforms, or a Subset of
        one; fastload/drop_in/from_torchvision.py lists them, and what differs. scaled: as in fl.Image.
        options: arguments of this class that the dataset does not determine, such as window or decode.
        Samples are tuples of an image [3, height, width] and a label. Raises ConfigError for what has no
        counterpart.
        """
        from fastload.drop_in.from_torchvision import dataset_arguments

        arguments = dataset_arguments(dataset, scaled=scaled)
        for name in options.keys() & arguments.keys() - {"as_tuple"}:
            raise ConfigError(
                f"from_torch: {name}= follows from the dataset and its transforms, so it must not be given. "
                "Drop it, or use fl.Dataset itself."
            )
        return cls(**arguments | options)

    def opened(self, threads: int | None = None) -> shards.Dataset | MixtureDataset:
        """The samples on disk; indexed on `threads` threads where that was never done."""
        if self._opened is None:
            world = World.current()
            threads = threads or backends.threads_per_process(world)
            chosen = self.options["select"], self.options["exclude"]
            self._opened = open_samples(self.fixed_source, *chosen, world, threads)
        return self._opened

    @property
    def source(self) -> Any:
        """The source as it was given; relative paths start at the folder where the dataset was made."""
        fixed = self.fixed_source
        return fixed if isinstance(fixed, Mixture) else fixed.given

    @property
    def classes(self) -> list[str] | None:
        return getattr(self.opened(), "classes", None)

    def formatted(self, batch: dict) -> dict | list:
        """A Loader's batch in the form of this dataset: a list of the fields with as_tuple, else the dict."""
        return [batch[name] for name in self.fields] if self.as_tuple else batch

    def samples_of(self, batch: dict) -> list:
        """The samples of a Loader's batch, each a dict or tuple; tensors are views of the batch."""
        names = list(self.fields) if self.as_tuple else list(batch)
        columns = [batch[name] for name in names]
        rows = ([column[i] for column in columns] for i in range(len(columns[0])))
        return [tuple(row) if self.as_tuple else dict(zip(names, row, strict=True)) for row in rows]

    def __len__(self) -> int:
        return self.source.epoch_samples if isinstance(self.source, Mixture) else self.opened().n

    def __bool__(self) -> bool:
        return True  # or `if dataset:` would open the source

    def __getitem__(self, i: int) -> dict | tuple:
        try:
            i, n = operator.index(i), len(self)
        except TypeError:
            raise ConfigError(f"dataset[{i!r}]: the index must be an integer.") from None
        self._accesses += 1
        if self._accesses == MANY:
            warnings.warn(
                f"dataset[i] was called {MANY} times, and opens its files again each time: "
                "fastload.DataLoader loads a dataset much faster",
                stacklevel=2,
            )
        if not -n <= i < n:
            raise IndexError(f"dataset[{i}]: the index must be in [-{n}, {n}).")
        options = self.options | {"device": "cpu", "map_batch": None, "ledger": None, "on_bad": "raise"}
        # Without shuffling, sample i is the first of rank i of n.
        options |= {"shuffle": False, "rank": i % n, "world_size": n, "prefetch": 1}
        with loader_of(self, self.fixed_source, 1, self.fields, **options) as loader:
            return self.samples_of(next(iter(loader)))[0]

    def __getitems__(self, indices: Any) -> Any:
        """Called by torch's own DataLoader: the batch, where a loader's batch_sampler drew the indices.

        Raises ConfigError for other indices, which would be read one by one.
        """
        return batch_of(indices)

    def __iter__(self) -> Iterator:
        return (self[i] for i in range(len(self)))

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_opened": None}

    def __repr__(self) -> str:
        return f"fastload.Dataset({self.fixed_source!r}, fields={list(self.fields)})"
