"""A dataset: the samples of all containers of a source, numbered [0, n) in the order of the containers.

In: a source (see source.py) and optionally a selection. Out: a `Dataset` that knows where the bytes of any
sample lie, its key and its label. Promised: it opens in O(containers), and in O(samples) if a selection
leaves some out; the rows stay in memory-mapped files (about 32 bytes a jpg + cls + txt sample with its key);
`locate` is native, works on whole batches and releases the GIL; the fingerprint depends only on the selected
rows: on the names of their shards, their keys, sizes and offsets. A copy of the data has the same
fingerprint, and so has data that grew, if only the previous samples are selected.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastload import _native
from fastload.errors import ConfigError, FastloadError, ShardError, SourceError
from fastload.shards import index
from fastload.shards.files import Files
from fastload.shards.index_file import IndexFile, Stamp, chosen_rows
from fastload.shards.select import Selection, selected_rows
from fastload.shards.source import Container, Source, find_containers
from fastload.step_ids import batch_of

MAX_ALTERNATIVES = 127
ROWS_AT_ONCE = 4096
LABELS_AT_ONCE = 1 << 20
CHANGED = (
    "the file has changed since it was indexed. Restore it, or start again when it is complete; if its index "
    "lies beside it, first run: fastload index --beside"
)


@dataclass(frozen=True)
class Row:
    """One sample. container: relative name. extensions: extension -> (offset_bytes, size_bytes).

    id: its row number in the index, which select= and exclude= take, and a batch has as "__id__".
    sample_id: its number among the selected samples; equal to id if all are selected.
    """

    sample_id: int
    container: str
    key: str
    extensions: dict[str, tuple[int, int]]
    id: int


@dataclass(frozen=True)
class Located:
    """Where a field of B samples lies; -1 in all four arrays for a sample without it.

    file_id: int32 [B], index into Dataset.files; -1 for samples of folders, whose files have paths of their
    own. offset_bytes, size_bytes: int64 [B]. ext_index: int8 [B], which of the alternatives was found. paths:
    index in the batch -> absolute path, only for samples of folders.
    """

    file_id: np.ndarray
    offset_bytes: np.ndarray
    size_bytes: np.ndarray
    ext_index: np.ndarray
    paths: dict[int, str]
    files: list[str]

    def path_of(self, i: int) -> str:
        """The absolute path of the file of sample i. Raises KeyError if the field is missing."""
        file_id = int(self.file_id[i])
        return self.files[file_id] if file_id >= 0 else self.paths[i]


def open_dataset(
    source: Source | str | Path | Files | Sequence[str | Path | Files],
    *,
    cache_dir: str | Path | None = None,
    threads: int = 1,
    select: Selection | None = None,
    exclude: Selection | None = None,
    local_rank: int = 0,
    local_world_size: int = 1,
    found: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Opens a source; missing indexes are built first (see index.py) on `threads` threads.

    select: what to keep: integers, which are row numbers of the index, keys or "shard:key", or a function of
    a Row; None: everything. The order stays that of the index. exclude: what to leave out, in the same forms,
    or the path of a file of such keys (see select.py). local_rank, local_world_size: of this process on its
    host. found: called as found(containers opened, containers in total). Raises SourceError, ShardError,
    ConfigError.
    """
    if threads < 1:
        raise ConfigError(f"threads must be at least 1, got {threads}.")
    if not 0 <= local_rank < local_world_size:
        raise ConfigError(
            f"local_rank must be in [0, local_world_size={local_world_size}), got {local_rank}."
        )
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
    return Dataset(containers, indexes, folder, select, exclude)


class Dataset:
    """The samples of a source; made by open_dataset.

    n: number of selected samples. containers: absolute paths; names: relative ones; files: the same paths, as
    Located.file_id counts them; stamps: of the containers when they were opened. shard_counts: int64, the
    selected samples of each container that has any. extensions: extension -> number of samples that have it.
    bytes_total: sum of the selected members' sizes. classes: names of the class folders, or None. skipped:
    members that are not samples, counted by kind. parts: (name, content) of each container that has selected
    samples; content: 32 hex digits of their keys, offsets and sizes. fingerprint: 32 hex digits of parts.

    A sample_id counts the selected samples; a row number, or id, counts all samples of the index.
    """

    def __init__(
        self,
        containers: list[Container],
        indexes: list[IndexFile],
        cache_dir: Path,
        select: Selection | None = None,
        exclude: Selection | None = None,
    ):
        self.containers = [container.path for container in containers]
        self.files = self.containers
        self.names = [container.name for container in containers]
        self._containers = containers
        self._cache_dir = cache_dir
        self._contents = [index.header["content"] for index in indexes]
        self.stamps = [index.stamp for index in indexes]
        self.skipped = sums([index.header["skipped"] for index in indexes])
        counts = sums([index.header["counts"] for index in indexes])
        self._extension_numbers = {name: number for number, name in enumerate(counts)}
        self._lookup = _native.IndexLookup()
        for container, file in zip(containers, indexes, strict=True):
            self._lookup.add(file.mapped, file.described(self._extension_numbers, container.folder))
        self._row_starts = self._lookup.row_starts()
        if self._lookup.rows == 0:
            raise SourceError(f"{self.containers[0]}: the source has no samples (skipped: {self.skipped}).")
        self._rebuilt: dict[int, IndexFile] = {}  # container -> the index that replaced a damaged one
        self._rows = selected_rows(self, select, exclude)
        used = np.flatnonzero(self._taken(self._rows)).tolist()
        self.classes, self.has_labels = _classes([containers[i] for i in used], [indexes[i] for i in used])
        self._count([index.header for index in indexes])
        self.parts = self._parts(self._rows, lambda i: self._rebuilt.get(i, indexes[i]))
        self.fingerprint = fingerprint_of(self.parts)

    def __len__(self) -> int:
        return self.n

    def __getitems__(self, indices: Any) -> Any:
        """As in fl.Dataset: the batch of a loader's step, and an error for anything else."""
        return batch_of(indices)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}: {count}" for name, count in self.extensions.items())
        return f"Dataset({self.n} samples in {len(self.names)} containers; {fields})"

    def locate(self, sample_ids: np.ndarray, alternatives: Sequence[str]) -> Located:
        """Where the first alternative extension that each sample has lies, for sample_ids int64 [B].

        Raises IndexError for an id outside [0, n), ConfigError for more than 127 alternatives.
        """
        alternatives = tuple(alternatives)
        if len(alternatives) > MAX_ALTERNATIVES:
            raise ConfigError(
                f"a field can have at most {MAX_ALTERNATIVES} alternatives, got {len(alternatives)}."
            )
        unknown = len(self._extension_numbers)  # a number that no container has
        numbers = [self._extension_numbers.get(name.lower(), unknown) for name in alternatives]
        rows = self.rows_of(sample_ids)
        found = self._on_valid_columns(lambda: self._lookup.locate(rows, numbers))
        return Located(*found, self.files)

    def keys(self, sample_ids: np.ndarray) -> list[str]:
        """The keys of the samples; bytes that are not UTF-8 become surrogates, as in os.fsdecode."""
        return self.raw_keys(self.rows_of(sample_ids))

    def labels(self, sample_ids: np.ndarray) -> np.ndarray | None:
        """Class labels int64 [B] from class folders or a dataset.json; None if a container has none."""
        if not self.has_labels:
            return None
        rows = self.rows_of(sample_ids)
        return self._on_valid_columns(lambda: self._lookup.labels(rows))

    def row(self, sample_id: int) -> Row:
        """One sample with all its extensions; for messages and predicates, not for speed."""
        return next(self._as_rows(self.rows_of([sample_id]), [sample_id]))

    def where(self, sample_id: int) -> str:
        """Names the sample in messages: "00012.tar: key '0001' at byte 10240"."""
        row = self.row(sample_id)
        offset = min(start for start, _ in row.extensions.values())
        at = "" if self._container_of(sample_id)[0].is_folder else f" at byte {offset}"
        return f"{row.container}: key '{row.key}'{at}"

    def check_unchanged(self, sample_id: int) -> None:
        """Raises ShardError if the sample's container has changed since it was indexed.

        The cached index of a changed folder is dropped, so that the next opening builds a new one. To be
        called for damaged content: a shard that is overwritten while it is read is one error, not ten
        thousand bad samples. Costs one `stat`; in a folder, one for each file of the sample.
        """
        container, stamp = self._container_of(sample_id)
        if container.is_folder:
            has_changed = self._files_changed(sample_id)
            if has_changed:
                index.forget(container, self._cache_dir)
        else:
            has_changed = index.changed(container, stamp)
        if has_changed:
            raise ShardError(f"{self.where(sample_id)}: {CHANGED}")

    def _files_changed(self, sample_id: int) -> bool:
        for extension in self.row(sample_id).extensions:
            located = self.locate([sample_id], [extension])
            with contextlib.suppress(FileNotFoundError):
                if os.stat(located.path_of(0)).st_size != located.size_bytes[0]:
                    return True
        return False

    def _container_of(self, sample_id: int) -> tuple[Container, Stamp]:
        (row,) = self.rows_of([sample_id])
        i = int(self.containers_of(row))
        return self._containers[i], self.stamps[i]

    def rows_of(self, sample_ids: np.ndarray) -> np.ndarray:
        """The row numbers, int64 [B], of samples; select= and exclude= call them ids.

        Raises IndexError for an id outside [0, n), ConfigError for anything but integers.
        """
        ids = np.asarray(sample_ids)
        if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
            raise ConfigError(
                f"sample_ids must be a 1-D array of integers, got {ids.dtype} of shape {ids.shape}."
            )
        if ids.size and not (ids.min() >= 0 and ids.max() < self.n):
            wrong = ids[(ids < 0) | (ids >= self.n)][0]
            raise IndexError(f"sample_id {wrong} is outside [0, {self.n}).")
        ids = ids.astype(np.int64)
        return ids if self._rows is None else self._rows[ids].astype(np.int64)

    def find_keys(self, keys: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """(ascending row numbers, int64, of all samples with these keys; keys that no sample has), before any
        selection."""
        wanted = [_encoded(key) for key in keys]
        rows, unknown = self._on_valid_columns(lambda: self._lookup.find(wanted))
        missed = set(map(_encoded, unknown))
        return rows, [key for key, encoded in zip(keys, wanted, strict=True) if encoded in missed]

    def all_rows(self) -> int:
        """Number of samples before any selection."""
        return self._lookup.rows

    @property
    def has_all_rows(self) -> bool:
        """Whether no selection leaves a row out."""
        return self._rows is None

    @property
    def has_unused_containers(self) -> bool:
        """Whether some container has no selected sample."""
        return len(self.parts) < len(self.containers)

    def used_classes(self) -> list[tuple[int, str]] | None:
        """(label, name) of the class folders, or listed classes, that selected samples belong to."""
        if self.classes is None:
            return None
        used: set[int] = set()
        for start in range(0, self.n, LABELS_AT_ONCE):
            ids = np.arange(start, min(start + LABELS_AT_ONCE, self.n))
            used.update(np.unique(self.labels(ids)).tolist())
        return [(label, self.classes[label]) for label in sorted(used)]

    def part_names(self, start: int = 0) -> list[str]:
        """The relative names of the containers that have selected samples, in the order of `parts`, from
        container number `start` on."""
        used = np.flatnonzero(self._taken(self._rows)).tolist()
        return [self.names[i] for i in used if i >= start]

    def fingerprint_of_first(self, n: int) -> str | None:
        """The `fingerprint` of the first n samples alone; None if it cannot be computed."""
        rows = np.arange(n) if self._rows is None else self._rows[:n]

        def index_of(i: int) -> IndexFile:
            container = self._containers[i]
            return index.find_valid(container, self._cache_dir) or index.build(container, self._cache_dir)

        try:
            return fingerprint_of(self._parts(rows, index_of))
        except FastloadError:  # this only adds to the message of another error
            return None

    def fingerprints_of_0_1_0(self) -> tuple[str, str | None]:
        """The fingerprints in states of 0.1.0: of the source without its selection, and of the selection."""
        names = (container.fingerprint_name for container in self._containers)
        source = fingerprint_of([*zip(names, self._contents, strict=True)])
        if self._rows is None:
            return source, None
        return source, hashlib.blake2b(self._rows.astype("<i8").tobytes(), digest_size=16).hexdigest()

    def raw_keys(self, rows: np.ndarray) -> list[str]:
        """The keys of rows, by their numbers before any selection."""
        return self._on_valid_columns(lambda: self._lookup.keys(rows))

    def containers_of(self, rows: np.ndarray) -> np.ndarray:
        """The number in `containers` of each row, int64; rows are numbers before any selection."""
        return np.searchsorted(self._row_starts, rows, side="right") - 1

    def raw_rows(self) -> Iterator[Row]:
        """Every Row before any selection, in order; sample_id is its row number."""
        for start in range(0, self.all_rows(), ROWS_AT_ONCE):
            rows = np.arange(start, min(start + ROWS_AT_ONCE, self.all_rows()))
            yield from self._as_rows(rows, rows.tolist())

    def _as_rows(self, rows: np.ndarray, sample_ids: list[int]) -> Iterator[Row]:
        keys = self.raw_keys(rows)
        columns = {}
        for name, number in self._extension_numbers.items():
            found = self._on_valid_columns(lambda number=number: self._lookup.locate(rows, [number]))
            columns[name] = (found[1].tolist(), found[2].tolist())
        containers, ids = self.containers_of(rows).tolist(), rows.tolist()
        for i, sample_id in enumerate(sample_ids):
            extensions = {n: (offset[i], size[i]) for n, (offset, size) in columns.items() if size[i] >= 0}
            yield Row(sample_id, self.names[containers[i]], keys[i], extensions, ids[i])

    def _count(self, headers: list[dict]) -> None:
        """Counts the selected rows. headers: of the containers' indexes, with the counts of all rows."""
        taken, rows_of = self._taken(self._rows), np.diff(self._row_starts)
        self.n, self.shard_counts = int(taken.sum()), taken[taken > 0]
        whole = [headers[i] for i in np.flatnonzero(taken == rows_of).tolist()]
        counts = sums([header["counts"] for header in whole])
        self.bytes_total = sum(header["payload_bytes"] for header in whole)
        if self._rows is not None:
            in_part = np.repeat(taken < rows_of, taken)
            rows = self._rows[in_part].astype(np.int64)
            having, bytes_in_part = self._on_valid_columns(lambda: self._lookup.tally(rows))
            self.bytes_total += bytes_in_part
            numbers = self._extension_numbers.items()
            counts = sums([counts, {name: having[number] for name, number in numbers if number in having}])
        self.extensions = {name: counts[name] for name in self._extension_numbers if counts.get(name)}

    def _taken(self, rows: np.ndarray | None) -> np.ndarray:
        """How many of these ascending row numbers each container has, int64 [containers]; None: of all."""
        if rows is None:
            return np.diff(self._row_starts)
        return np.diff(np.searchsorted(rows, self._row_starts)).astype(np.int64)

    def _parts(self, rows: np.ndarray | None, index_of: Callable[[int], IndexFile]) -> list[tuple[str, str]]:
        """(name, content) of each container that has some of these rows. index_of: of container number i."""
        taken, whole = self._taken(rows), np.diff(self._row_starts)
        stop, parts = 0, []
        for i in np.flatnonzero(taken).tolist():
            start, stop = stop, stop + int(taken[i])
            content = self._contents[i]
            if taken[i] < whole[i]:
                own = rows[start:stop].astype(np.int64)
                self.raw_keys(own[:1])  # checks the columns, if they were not checked yet
                content = chosen_rows(index_of(i), own - self._row_starts[i]).content_hash()
            parts.append((self._containers[i].fingerprint_name, content))
        return parts

    def _on_valid_columns(self, call: Callable):
        """The call's result. An index that proves damaged at first use is rebuilt, and the call repeated."""
        rebuilt: set[int] = set()
        while True:
            try:
                return call()
            except _native.IndexDamage as damage:
                i = int(str(damage))
                if i in rebuilt:
                    raise ShardError(
                        f"{self.names[i]}: its index is damaged again right after it was written. "
                        f"Check the disk of {self._cache_dir}, or use another cache_dir."
                    ) from None
                self._rebuild(i)
                rebuilt.add(i)

    def _rebuild(self, i: int) -> None:
        container = self._containers[i]
        fresh = index.build(container, self._cache_dir, afresh=True)
        if fresh.header["content"] != self._contents[i]:
            raise ShardError(
                f"{container.name}: its index was damaged, and the container has changed since it was "
                "indexed. Open the dataset again."
            )
        self.stamps[i], self._rebuilt[i] = fresh.stamp, fresh
        self._lookup.replace(i, fresh.mapped, fresh.described(self._extension_numbers, container.folder))


def _encoded(key: str) -> bytes:
    try:
        return key.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # no container has such a key
        return key.encode("utf-8", "surrogatepass")


def fingerprint_of(parts: Sequence[tuple[str, str]]) -> str:
    """32 hex digits of (name, content) of containers, in their order."""
    digest = hashlib.blake2b(b"dataset 1", digest_size=16)
    for name, content in parts:
        encoded = os.fsencode(name)
        digest.update(f" {len(encoded)} ".encode() + encoded + content.encode())
    return digest.hexdigest()


def sums(tables: list[dict[str, int]]) -> dict[str, int]:
    """name -> the sum of its values in all tables."""
    total: Counter[str] = Counter()
    for table in tables:
        total.update(table)
    return dict(total)


def _classes(containers: list[Container], indexes: list[IndexFile]) -> tuple[list[str] | None, bool]:
    """Names of the class folders, if there are any, and whether every sample has a label. Raises
    ConfigError."""
    used = [i for i, index in enumerate(indexes) if index.n]
    if not used or not all("label" in indexes[i].columns for i in used):
        return None, False
    names = [indexes[i].header["classes"] for i in used]
    for i, other in zip(used, names, strict=True):
        if other != names[0]:
            raise ConfigError(
                f"{containers[used[0]].path} and {containers[i].path} have different classes, so labels "
                "would be ambiguous. Give all folders the same class folders, or open one of them."
            )
    return names[0], True
