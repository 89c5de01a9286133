"""`fl.Dataset`: samples and what is to be made of them, for a DataLoader to load.

In: a source, fields, and how they are to look. Out: what `fl.DataLoader` makes a Loader of, and, for looking
at, single samples by their index. Promised: what can be judged without data is judged when it is made; the
source is opened once, on first use, and a copy for another process opens it again.
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

MANY = 1000  # single samples, from which on somebody trains on them


class Dataset(OwnSamples):
    """Samples of a source, and how they are to look; see `fl.Loader` for all arguments but these.

    as_tuple: a batch is a list of the fields' values in their order, as torch's collate makes it of tuples,
        and has no "__key__" and the like; a sample is a tuple. False: dicts.

    `len(dataset)` is the number of samples, `dataset[i]` one of them: dict or tuple, image [3, height,
    width], on the CPU, with the dice of position i, or an error where it is bad; for looking at, not for
    training, because each opens its files anew. `classes` are the names of class folders, or None.

    Raises ConfigError here for what is wrong in itself, and what `fl.Loader` raises when the source is
    needed; IndexError for an index outside [-n, n).
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
            raise ConfigError(f"as_tuple={as_tuple!r}: give True or False.")
        reports = any(isinstance(one, Image) and one.report for one in fields.values())
        if as_tuple and (reports or (augment is not None and augment.mixes)):
            raise ConfigError(
                "as_tuple=True has room for the fields alone: leave out report=True, mixup and cutmix, or "
                "use dicts."
            )
        self.fixed_source, self.fields, self.window = config.source, dict(fields), window
        self.as_tuple = as_tuple
        self._opened: shards.Dataset | MixtureDataset | None = None
        self._shown = 0  # single samples

    @classmethod
    def from_torch(cls, dataset: Any, scaled: str | None = None, **options) -> "Dataset":
        """A torchvision ImageFolder, or whatever has `.samples` and such transforms, read by fastload.

        See fastload/drop_in/from_torchvision.py for what can be lifted, and what is not the same. scaled: as
        in fl.Image. options: arguments of this class that the dataset does not answer, such as window or
        decode. Raises ConfigError for what cannot be honoured.
        """
        from fastload.drop_in.from_torchvision import lift

        lifted = lift(dataset, scaled=scaled)
        for name in options.keys() & lifted.keys() - {"as_tuple"}:
            raise ConfigError(f"from_torch: {name}= is said by the dataset and its transforms; leave it out.")
        return cls(**lifted | options)

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
        """As it was given; relative paths lie where the dataset was made."""
        fixed = self.fixed_source
        return fixed if isinstance(fixed, Mixture) else fixed.given

    @property
    def classes(self) -> list[str] | None:
        return getattr(self.opened(), "classes", None)

    def as_given(self, batch: dict) -> dict | list:
        """A batch of a Loader in this dataset's form: a list of the fields with as_tuple, else itself."""
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
            raise ConfigError(f"dataset[{i!r}]: give the index of one sample, a whole number.") from None
        self._shown += 1
        if self._shown == MANY:
            warnings.warn(
                f"dataset[i] was asked for {MANY} times, and opens its files anew each time: "
                "fastload.DataLoader loads a dataset fast",
                stacklevel=2,
            )
        if not -n <= i < n:
            raise IndexError(f"sample {i} is outside [0, {n}).")
        options = self.options | {"device": "cpu", "map_batch": None, "ledger": None, "on_bad": "raise"}
        # Sample i in order is what rank i of n gets first.
        loader = loader_of(
            self,
            self.fixed_source,
            1,
            self.fields,
            shuffle=False,
            rank=i % n,
            world_size=n,
            prefetch=1,
            **options,
        )
        with loader:
            return self.samples_of(next(iter(loader)))[0]

    def __getitems__(self, indices: Any) -> Any:
        """Torch's own DataLoader asks so: for the batch, where a loader's batch_sampler drew the indices.

        Raises ConfigError for other indices: what was meant to be fast would be read sample by sample.
        """
        return batch_of(indices)

    def __iter__(self) -> Iterator:
        return (self[i] for i in range(len(self)))

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_opened": None}

    def __repr__(self) -> str:
        return f"fastload.Dataset({self.fixed_source!r}, fields={list(self.fields)})"
