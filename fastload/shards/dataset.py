"""A dataset: the samples of all containers of a source, numbered [0, n) in the order of the containers.

In: a source (see source.py) and optionally a selection. Out: a `Dataset` that tells for any sample where its
bytes lie, its key and its label. Promised: opened in O(containers); the rows stay in memory-mapped files
(about 32 bytes a jpg + cls + txt sample with its key); `locate` is native, works on whole batches and holds
no GIL; the fingerprint depends on the names of shards, keys, sizes and offsets of the selected rows only, so
that a copy of the data has the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastload import _native
from fastload.errors import ConfigError, ShardError, SourceError
from fastload.step_ids import batch_of

from . import index
from .files import Files
from .index_file import IndexFile, Stamp
from .select import Selection, selected_rows
from .source import Container, find_containers

MAX_ALTERNATIVES = 127
ROWS_AT_ONCE = 4096
CHANGED = (
    "the file has changed since it was indexed. Put it back as it was, or begin anew when it is complete; "
    "where its index lies beside it, first run: fastload index --beside"
)


@dataclass(frozen=True)
class Row:
    """One sample. container: relative name. extensions: extension -> (offset_bytes, size_bytes)."""

    sample_id: int
    container: str
    key: str
    extensions: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Located:
    """Where one field of B samples lies; -1 in all four arrays for a sample without it.

    file_id: int32 [B], index into Dataset.files; -1 for samples of folders, whose files have paths of their
    own. offset_bytes, size_bytes: int64 [B]. ext_index: int8 [B], which of the alternatives was found. paths:
    place in the batch -> absolute path, for samples of folders only.
    """

    file_id: np.ndarray
    offset_bytes: np.ndarray
    size_bytes: np.ndarray
    ext_index: np.ndarray
    paths: dict[int, str]
    files: list[str]

    def path_of(self, i: int) -> str:
        """The absolute path of the file that holds sample i of the batch. Raises KeyError if the field is
        missing."""
        place = int(self.file_id[i])
        return self.files[place] if place >= 0 else self.paths[i]

    @property
    def one_file_each(self) -> bool:
        """True if every field that is there is a file of its own."""
        return not np.any(self.file_id >= 0)


def open_dataset(
    source: str | Path | Files | Sequence[str | Path | Files],
    *,
    cache_dir: str | Path | None = None,
    threads: int = 1,
    select: Selection | None = None,
    local_rank: int = 0,
    local_world_size: int = 1,
    found: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Opens a source; indexes that are missing are built first (see index.py) on `threads` threads.

    select: None; integers, the sample_ids to keep (kept in ascending order); strings, keys to leave out; or a
    function of a Row that is true for the samples to keep. local_rank, local_world_size: which of the host's
    processes this is. found: called as found(containers opened, containers in all). Raises SourceError,
    ShardError, ConfigError.
    """
    if threads < 1:
        raise ConfigError(f"threads={threads}: indexing needs at least one thread.")
    if not 0 <= local_rank < local_world_size:
        raise ConfigError(f"local_rank={local_rank} is not in [0, local_world_size={local_world_size}).")
    containers = find_containers(source)
    folder = Path(cache_dir) if cache_dir is not None else index.default_cache_dir()
    indexes = index.open_indexes(
        containers,
        folder,
        threads=threads,
        local_rank=local_rank,
        local_world_size=local_world_size,
        found=found,
    )
    return Dataset(containers, indexes, folder, select)


class Dataset:
    """The samples of a source; made by open_dataset.

    n: number of (selected) samples. containers: absolute paths, names: relative ones; files: the same paths,
    as Located.file_id counts them; stamps: what they were when they were opened. shard_counts: int64
    [containers], selected samples of each. extensions: extension -> number of samples that have it.
    bytes_total: sum of the selected members' sizes. classes: names of the class folders, or None. skipped:
    what was no sample, by kind. fingerprint: 32 hex digits of all that follows: source_fingerprint, of the
    rows before any selection, and selection_fingerprint, of which are selected; None for all.
    """

    def __init__(
        self, containers: list[Container], indexes: list[IndexFile], cache_dir: Path, select: Selection | None
    ):
        self.containers = [container.path for container in containers]
        self.files = self.containers
        self.names = [container.name for container in containers]
        self._containers = containers
        self._cache_dir = cache_dir
        self._contents = [index.header["content"] for index in indexes]
        self.stamps = [index.stamp for index in indexes]
        self.classes, self.has_labels = _classes(containers, indexes)
        self.skipped = sums([index.header["skipped"] for index in indexes])
        counts = sums([index.header["counts"] for index in indexes])
        self._extension_numbers = {name: number for number, name in enumerate(counts)}
        self._lookup = _native.IndexLookup()
        for container, one in zip(containers, indexes, strict=True):
            self._lookup.add(one.mapped, one.described(self._extension_numbers, _folder(container)))
        self._row_starts = self._lookup.row_starts()
        if self._lookup.rows == 0:
            raise SourceError(f"{self.containers[0]}: the source has no samples (skipped: {self.skipped}).")
        self._rows = None if select is None else selected_rows(self, select)
        self._count(counts, sum(index.header["payload_bytes"] for index in indexes))
        self.source_fingerprint, self.selection_fingerprint, self.fingerprint = self._fingerprints()

    def __len__(self) -> int:
        return self.n

    def __getitems__(self, indices: Any) -> Any:
        """As in fl.Dataset: of a loader's step its batch, and an error for all else."""
        return batch_of(indices)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}: {count}" for name, count in self.extensions.items())
        return f"Dataset({self.n} samples in {len(self.names)} containers; {fields})"

    def locate(self, sample_ids: np.ndarray, alternatives: Sequence[str]) -> Located:
        """Where the first of the alternative extensions that a sample has lies, for sample_ids int64 [B].

        Raises IndexError for an id outside [0, n), ConfigError for more than 127 alternatives.
        """
        alternatives = tuple(alternatives)
        if len(alternatives) > MAX_ALTERNATIVES:
            raise ConfigError(
                f"{len(alternatives)} alternatives of one field; at most {MAX_ALTERNATIVES} are possible."
            )
        unknown = len(self._extension_numbers)  # a number that no container has
        numbers = [self._extension_numbers.get(name.lower(), unknown) for name in alternatives]
        rows = self._rows_of(sample_ids)
        found = self._on_sound_columns(lambda: self._lookup.locate(rows, numbers))
        return Located(*found, self.files)

    def keys(self, sample_ids: np.ndarray) -> list[str]:
        """The keys of the samples; bytes that are not UTF-8 as surrogates, as in os.fsdecode."""
        rows = self._rows_of(sample_ids)
        return self._on_sound_columns(lambda: self._lookup.keys(rows))

    def labels(self, sample_ids: np.ndarray) -> np.ndarray | None:
        """Class labels int64 [B] from class folders or a dataset.json; None if some container has none."""
        if not self.has_labels:
            return None
        rows = self._rows_of(sample_ids)
        return self._on_sound_columns(lambda: self._lookup.labels(rows))

    def row(self, sample_id: int) -> Row:
        """One sample with all its extensions; for messages and predicates, not for speed."""
        return next(self._as_rows(self._rows_of([sample_id]), [sample_id]))

    def where(self, sample_id: int) -> str:
        """The sample's place for messages: "00012.tar: key '0001' at byte 10240"."""
        row = self.row(sample_id)
        if self._home_of(sample_id)[0].is_folder:
            return f"{row.container}: key '{row.key}'"
        return (
            f"{row.container}: key '{row.key}' at byte {min(start for start, _ in row.extensions.values())}"
        )

    def check_unchanged(self, sample_id: int) -> None:
        """Raises ShardError where the sample's container is no longer the one that was indexed.

        The cached index of a folder is dropped then, so that it is made anew when it is opened again. For
        content that turns out damaged: a shard that is overwritten while it is read is one error, and not
        ten thousand bad samples. Costs a `stat`; of a folder, one for each file of the sample.
        """
        container, stamp = self._home_of(sample_id)
        if container.is_folder:
            is_other = self._files_changed(sample_id)
            if is_other:
                index.forget(container, self._cache_dir)
        else:
            is_other = index.changed(container, stamp)
        if is_other:
            raise ShardError(f"{self.where(sample_id)}: {CHANGED}")

    def _files_changed(self, sample_id: int) -> bool:
        for extension in self.row(sample_id).extensions:
            located = self.locate([sample_id], [extension])
            with contextlib.suppress(FileNotFoundError):
                if os.stat(located.path_of(0)).st_size != located.size_bytes[0]:
                    return True
        return False

    def _home_of(self, sample_id: int) -> tuple[Container, Stamp]:
        (raw,) = self._rows_of([sample_id])
        place = int(np.searchsorted(self._row_starts, raw, side="right")) - 1
        return self._containers[place], self.stamps[place]

    def find_keys(self, keys: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """Ascending row numbers (before any selection) int64 of all samples with these keys; keys that none
        has."""
        wanted = [key.encode("utf-8", "surrogateescape") for key in keys]
        return self._on_sound_columns(lambda: self._lookup.find(wanted))

    def all_rows(self) -> int:
        """Number of samples before any selection."""
        return self._lookup.rows

    def raw_rows(self) -> Iterator[Row]:
        """Every Row before any selection, in order; sample_id counts them."""
        for start in range(0, self.all_rows(), ROWS_AT_ONCE):
            raws = np.arange(start, min(start + ROWS_AT_ONCE, self.all_rows()))
            yield from self._as_rows(raws, raws.tolist())

    def _as_rows(self, raws: np.ndarray, sample_ids: list[int]) -> Iterator[Row]:
        keys = self._on_sound_columns(lambda: self._lookup.keys(raws))
        columns = {}
        for name, number in self._extension_numbers.items():
            found = self._on_sound_columns(lambda number=number: self._lookup.locate(raws, [number]))
            columns[name] = (found[1].tolist(), found[2].tolist())
        containers = np.searchsorted(self._row_starts, raws, side="right") - 1
        for i, sample_id in enumerate(sample_ids):
            extensions = {n: (offset[i], size[i]) for n, (offset, size) in columns.items() if size[i] >= 0}
            yield Row(sample_id, self.names[containers[i]], keys[i], extensions)

    def _rows_of(self, sample_ids: np.ndarray) -> np.ndarray:
        ids = np.asarray(sample_ids)
        if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
            raise ConfigError(
                f"sample_ids are integers in one dimension, not {ids.dtype} of shape {ids.shape}."
            )
        if ids.size and not (ids.min() >= 0 and ids.max() < self.n):
            wrong = ids[(ids < 0) | (ids >= self.n)][0]
            raise IndexError(f"sample_id {wrong} is outside [0, {self.n}).")
        ids = ids.astype(np.int64)
        return ids if self._rows is None else self._rows[ids].astype(np.int64)

    def _count(self, counts: dict[str, int], payload_bytes: int) -> None:
        if self._rows is None:
            self.n = self._lookup.rows
            self.shard_counts = np.diff(self._row_starts)
            self.extensions = {name: count for name, count in counts.items() if count}
            self.bytes_total = payload_bytes
            return
        self.n = len(self._rows)
        self.shard_counts = np.diff(np.searchsorted(self._rows, self._row_starts)).astype(np.int64)
        rows = self._rows.astype(np.int64)
        having, self.bytes_total = self._on_sound_columns(lambda: self._lookup.tally(rows))
        self.extensions = {
            name: having[number] for name, number in self._extension_numbers.items() if having.get(number)
        }

    def _fingerprints(self) -> tuple[str, str | None, str]:
        digest = hashlib.blake2b(b"dataset 1", digest_size=16)
        for container, content in zip(self._containers, self._contents, strict=True):
            name = os.fsencode(container.fingerprint_name)
            digest.update(f" {len(name)} ".encode() + name + content.encode())
        source = digest.hexdigest()
        if self._rows is None:
            return source, None, source
        rows = self._rows.astype("<i8").tobytes()
        digest.update(b" selected " + rows)
        return source, hashlib.blake2b(rows, digest_size=16).hexdigest(), digest.hexdigest()

    def _on_sound_columns(self, call: Callable):
        """The call's result; a container whose index proves damaged at first use gets a new one, and the call
        again."""
        mended: set[int] = set()
        while True:
            try:
                return call()
            except _native.IndexDamage as damage:
                place = int(str(damage))
                if place in mended:
                    raise ShardError(
                        f"{self.names[place]}: its index is damaged again as soon as it is written. "
                        f"Check the disk of {self._cache_dir}, or give another cache_dir."
                    ) from None
                self._mend(place)
                mended.add(place)

    def _mend(self, place: int) -> None:
        container = self._containers[place]
        fresh = index.build(container, self._cache_dir, afresh=True)
        if fresh.header["content"] != self._contents[place]:
            raise ShardError(
                f"{container.name}: its index was damaged, and the container is no longer the one that was "
                "indexed. Open the dataset again."
            )
        self.stamps[place] = fresh.stamp
        self._lookup.replace(
            place, fresh.mapped, fresh.described(self._extension_numbers, _folder(container))
        )


def _folder(container: Container) -> str | None:
    return container.path if container.is_folder else None


def sums(tables: list[dict[str, int]]) -> dict[str, int]:
    """name -> the sum of what the tables have under it."""
    total: dict[str, int] = {}
    for table in tables:
        for name, count in table.items():
            total[name] = total.get(name, 0) + count
    return total


def _classes(containers: list[Container], indexes: list[IndexFile]) -> tuple[list[str] | None, bool]:
    """Names of the class folders, if there are any, and whether every sample has a label. Raises
    ConfigError."""
    used = [place for place, index in enumerate(indexes) if index.n]
    labelled = [any(one["name"] == "label" for one in indexes[place].header["columns"]) for place in used]
    if not used or not all(labelled):
        return None, False
    names = [indexes[place].header["classes"] for place in used]
    for place, other in zip(used, names, strict=True):
        if other != names[0]:
            raise ConfigError(
                f"{containers[used[0]].path} and {containers[place].path} have different classes, so that a "
                "label would mean two things. Give all folders the same class folders, or open one."
            )
    return names[0], True
