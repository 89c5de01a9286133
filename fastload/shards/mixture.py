"""Several sources as one: what the user asks for, and the dataset that it becomes.

In: names, each with a source and a weight. Out: a checked `Mixture`; and `MixtureDataset`, which has the
methods of `Dataset` for sample_ids that are numbered through all sources, in the order of their names.
Promised: the order in which the sources were written has no effect; a message about a sample names its
source. order/mixture.py decides which source comes when.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastload.errors import ConfigError, FastloadError, ShardError
from fastload.shards.dataset import Dataset, Located, Row, open_dataset, sums
from fastload.shards.keys import refuse_missed
from fastload.shards.select import Excluded, entries_of, fixed
from fastload.shards.source import Source
from fastload.step_ids import batch_of

MAX_EPOCH_SAMPLES = 2**32  # times the highest epoch it must fit int64
MAX_WEIGHT = 1e300  # weights are divided by each other; larger ones, or infinity, are a mistake


@dataclass(frozen=True)
class Mixture:
    """Samples of several sources, in proportion to their weights: a source for `fl.Loader`.

        fl.Mixture({"faces": ("faces/*.tar", 0.7), "art": ("art.zip", 0.3)}, epoch_samples=1_000_000)

    sources: name -> (source, weight); a source is what `fl.Loader` takes, a weight a number >= 0 in any unit;
        both are copied. epoch_samples: the samples of an epoch. The sources' own epochs are independent of
        it: each source starts again, in a different order, when all of its samples were delivered.

    Raises ConfigError for a name that is not a string, a negative weight, weights that are all 0, and
    epoch_samples below 1.
    """

    sources: Mapping[str, tuple[Any, float]]
    epoch_samples: int

    def __post_init__(self) -> None:
        if not isinstance(self.sources, Mapping) or not self.sources:
            example = '{"faces": ("faces/*.tar", 0.7), "art": ("art.zip", 0.3)}'
            raise ConfigError(
                f"Mixture(sources=...) must map names to sources and weights, such as {example}, got "
                f"{self.sources!r}."
            )
        for name, entry in self.sources.items():
            if not isinstance(name, str) or not name:
                raise ConfigError(f"Mixture(sources=...): names must be non-empty strings, got {name!r}.")
            if not isinstance(entry, (tuple, list)) or len(entry) != 2:
                raise ConfigError(f"Mixture(sources=...): {name!r} must be (source, weight), got {entry!r}.")
            if isinstance(entry[0], Mixture):
                raise ConfigError(f"Mixture(sources=...): {name!r} is a mixture itself; name its sources.")
        fixed_sources = {}
        for name in sorted(self.sources):
            source, weight = self.sources[name]
            fixed_sources[name] = (_source(name, source), weight)
        object.__setattr__(self, "sources", fixed_sources)
        self.weights_of({name: weight for name, (_, weight) in self.sources.items()})
        try:
            samples = operator.index(self.epoch_samples)
        except TypeError:
            samples = 0
        if isinstance(self.epoch_samples, bool) or not 1 <= samples <= MAX_EPOCH_SAMPLES:
            raise ConfigError(
                f"Mixture: epoch_samples must be an integer in [1, {MAX_EPOCH_SAMPLES}], got "
                f"{self.epoch_samples!r}."
            )
        object.__setattr__(self, "epoch_samples", samples)

    @property
    def names(self) -> list[str]:
        """The names of the sources, sorted; source number i of the order is names[i]."""
        return list(self.sources)

    @property
    def weights(self) -> list[float]:
        return [weight for _, weight in self.sources.values()]

    def weights_of(self, weights: Mapping[str, float]) -> list[float]:
        """Other weights for the same sources, in the order of `names`.

        Raises ConfigError if a name is missing or unknown, or a weight is not a number >= 0.
        """
        if not isinstance(weights, Mapping):
            raise ConfigError(
                f"weights must map each of {', '.join(self.names)} to a number, got {weights!r}."
            )
        missing = [name for name in self.names if name not in weights]
        unknown = [name for name in weights if name not in self.sources]
        if missing or unknown:
            wrong = [f"{name!r} has no weight" for name in missing]
            wrong += [f"{name!r} is not a source" for name in unknown]
            raise ConfigError(f"weights: {', '.join(wrong)}; the sources are {', '.join(self.names)}.")
        for name, weight in weights.items():
            kinds = (int, float, np.integer, np.floating)
            is_number = isinstance(weight, kinds) and not isinstance(weight, bool)
            if not is_number or not 0 <= weight <= MAX_WEIGHT:
                raise ConfigError(f"weights: {name!r} must have an int or float >= 0, got {weight!r}.")
        if not any(weights.values()):
            raise ConfigError(f"weights: at least one must be positive, got {weights!r}.")
        return [weights[name] for name in self.names]


def open_mixture(mixture: Mixture, *, select: Any = None, exclude: Any = None, **how: Any) -> MixtureDataset:
    """Opens the sources of a mixture, one after the other; `how`: as for open_dataset.

    select: None, a function of a Row for all sources, or name -> selection. exclude: the same, or keys, or a
    file of them, each of which some source must have. Raises what open_dataset raises, prefixed by the
    source's name, and ConfigError for another kind of selection, or an unknown source.
    """
    select, exclude = fixed("select", select, True), fixed("exclude", exclude, True)
    _check_sources(mixture, "select", select)
    entries = entries_of(exclude)
    if entries is None:
        _check_sources(mixture, "exclude", exclude)
    missed = set(entries or ())
    datasets = {}
    for name, (source, _) in mixture.sources.items():
        own = [entry for entry in entries or () if entry.source in (None, name)]
        excluded = Excluded(own) if entries is not None else _of_source(exclude, name)
        try:
            datasets[name] = open_dataset(source, select=_of_source(select, name), exclude=excluded, **how)
        except FastloadError as error:
            raise type(error)(f"source {name!r}: {error}") from error
        if entries is not None:
            missed -= {*own} - excluded.missed
    refuse_missed("exclude", missed)
    return MixtureDataset(datasets)


def _source(name: str, source: Any) -> Source:
    try:
        return Source.of(source)
    except FastloadError as error:
        raise type(error)(f"Mixture(sources=...): {name!r}: {error}") from error


def _check_sources(mixture: Mixture, argument: str, selection: Any) -> None:
    if selection is None or callable(selection):
        return
    if not isinstance(selection, Mapping):
        raise ConfigError(f"{argument}: for a mixture, give a function of a row, or name -> selection.")
    unknown = [name for name in selection if name not in mixture.sources]
    if unknown:
        raise ConfigError(
            f"{argument}: {unknown[0]!r} is not a source; the sources are {', '.join(mixture.names)}."
        )


def _of_source(selection: Any, name: str) -> Any:
    return selection.get(name) if isinstance(selection, Mapping) else selection


class MixtureDataset:
    """The samples of all sources of a mixture, numbered through; the methods are those of `Dataset`.

    datasets: name -> Dataset. n, names, files, stamps, extensions, classes, has_labels: of all together.
    """

    def __init__(self, datasets: Mapping[str, Dataset]):
        self.datasets = dict(datasets)
        self._parts = list(self.datasets.values())
        self._first_ids = np.cumsum([0, *(dataset.n for dataset in self._parts)])
        self._first_files = np.cumsum([0, *(len(dataset.files) for dataset in self._parts)])
        self.n = int(self._first_ids[-1])
        self.names = [
            f"{name}: {container}" for name, dataset in self.datasets.items() for container in dataset.names
        ]
        self.files = [path for dataset in self._parts for path in dataset.files]
        self.stamps = [stamp for dataset in self._parts for stamp in dataset.stamps]
        self.extensions = sums([dataset.extensions for dataset in self._parts])
        self.has_labels = all(dataset.has_labels for dataset in self._parts)
        self.classes = self._common_classes()

    def __len__(self) -> int:
        return self.n

    def __getitems__(self, indices: Any) -> Any:
        """As in fl.Dataset: the batch of a loader's step, and an error for anything else."""
        return batch_of(indices)

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}: {dataset!r}" for name, dataset in self.datasets.items())
        return f"MixtureDataset({parts})"

    def locate(self, sample_ids: np.ndarray, alternatives: Sequence[str]) -> Located:
        """As Dataset.locate."""
        n = len(sample_ids)
        file_id, ext_index = np.full(n, -1, np.int32), np.full(n, -1, np.int8)
        offset_bytes, size_bytes = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
        paths: dict[int, str] = {}
        for part, indices, own_ids in self._by_source(sample_ids):
            found = self._parts[part].locate(own_ids, alternatives)
            in_files = found.file_id >= 0
            file_id[indices] = np.where(in_files, found.file_id + self._first_files[part], found.file_id)
            offset_bytes[indices], size_bytes[indices] = found.offset_bytes, found.size_bytes
            ext_index[indices] = found.ext_index
            paths.update({int(indices[i]): path for i, path in found.paths.items()})
        return Located(file_id, offset_bytes, size_bytes, ext_index, paths, self.files)

    def keys(self, sample_ids: np.ndarray) -> list[str]:
        """As Dataset.keys; keys of two sources may be equal."""
        keys = [""] * len(sample_ids)
        for part, indices, own_ids in self._by_source(sample_ids):
            for i, key in zip(indices.tolist(), self._parts[part].keys(own_ids), strict=True):
                keys[i] = key
        return keys

    def labels(self, sample_ids: np.ndarray) -> np.ndarray | None:
        """As Dataset.labels; None if some source has none."""
        if not self.has_labels:
            return None
        labels = np.empty(len(sample_ids), np.int64)
        for part, indices, own_ids in self._by_source(sample_ids):
            labels[indices] = self._parts[part].labels(own_ids)
        return labels

    def rows_of(self, sample_ids: np.ndarray) -> np.ndarray:
        """As Dataset.rows_of; rows count within each source."""
        rows = np.empty(len(sample_ids), np.int64)
        for part, indices, own_ids in self._by_source(sample_ids):
            rows[indices] = self._parts[part].rows_of(own_ids)
        return rows

    def row(self, sample_id: int) -> Row:
        """A sample, with its sample_id within its source."""
        _, dataset, own_id = self._own(sample_id)
        return dataset.row(own_id)

    def where(self, sample_id: int) -> str:
        """Names the sample in messages: "faces: 00012.tar: key '0001' at byte 10240"."""
        name, dataset, own_id = self._own(sample_id)
        return f"{name}: {dataset.where(own_id)}"

    def check_unchanged(self, sample_id: int) -> None:
        """As Dataset.check_unchanged; the message names the source."""
        name, dataset, own_id = self._own(sample_id)
        try:
            dataset.check_unchanged(own_id)
        except ShardError as error:
            raise ShardError(f"{name}: {error}") from error

    def _own(self, sample_id: int) -> tuple[str, Dataset, int]:
        """The name and the dataset of the sample's source, and its sample_id there."""
        part = int(np.searchsorted(self._first_ids, sample_id, side="right")) - 1
        return list(self.datasets)[part], self._parts[part], sample_id - int(self._first_ids[part])

    def _by_source(self, sample_ids: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(number of the source, indices in the batch, sample_ids there) for each source of the batch."""
        part_of = np.searchsorted(self._first_ids, sample_ids, side="right") - 1
        for part in np.unique(part_of).tolist():
            indices = np.flatnonzero(part_of == part)
            yield part, indices, sample_ids[indices] - self._first_ids[part]

    def _common_classes(self) -> list[str] | None:
        if not self.has_labels:
            return None
        (first, classes), *others = ((name, dataset.classes) for name, dataset in self.datasets.items())
        for name, other in others:
            if other != classes:
                raise ConfigError(
                    f"Mixture: {first!r} and {name!r} have different classes, so labels would be ambiguous. "
                    "Give all sources the same class folders, or leave the labels out."
                )
        return classes
