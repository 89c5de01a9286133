"""The samples of a loader, opened on first use.

In: how to open a source, or an fl.Dataset that opens its own. Out: a dataset of fastload/shards. Promised: a
source is opened once, its index is kept in the cache folder of this machine, and built with the loader's
threads.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from fastload import backends
from fastload.errors import ConfigError
from fastload.shards import dataset as shards
from fastload.shards.mixture import Mixture, MixtureDataset, open_mixture
from fastload.shortage import raising_shortage
from fastload.world import World


class OwnSamples(ABC):
    """A dataset that opens its own samples, as fl.Dataset does."""

    @abstractmethod
    def opened(self, threads: int | None = None) -> shards.Dataset | MixtureDataset:
        """The samples on disk; indexed on `threads` threads where that was never done."""


def refuse_dataset(source: Any) -> None:
    """Raises ConfigError for a Dataset given as a source: it would be iterated over, sample by sample."""
    if isinstance(source, OwnSamples):
        raise ConfigError(
            "the source is a fastload.Dataset: pass it to fastload.DataLoader(dataset, batch_size)."
        )


class Samples:
    """The samples of a loader, opened on first use.

    open_source(threads): opens them. threads(): how many threads to use. given: the fl.Dataset to use instead
    of open_source, if any.
    """

    def __init__(
        self,
        open_source: Callable[[int], shards.Dataset | MixtureDataset],
        threads: Callable[[], int],
        given: OwnSamples | None = None,
    ):
        self._open, self._threads, self.given = open_source, threads, given
        self.opened: shards.Dataset | MixtureDataset | None = None

    def __call__(self) -> shards.Dataset | MixtureDataset:
        if self.opened is None:
            open_source = self._open if self.given is None else self.given.opened
            self.opened = open_source(self._threads())
        return self.opened


def open_samples(
    source: Any, select: Any, exclude: Any, world: World, threads: int
) -> shards.Dataset | MixtureDataset:
    """Opens a source, in the cache of this machine.

    Raises SourceError, ShardError, ConfigError, ResourceError.
    """
    open_source = open_mixture if isinstance(source, Mixture) else shards.open_dataset
    with raising_shortage("to open the source"):
        return open_source(
            source,
            cache_dir=backends.cache_dir() / "index",
            threads=threads,
            select=select,
            exclude=exclude,
            local_rank=world.local_rank,
            local_world_size=world.local_world_size,
        )
