"""Samples named by key: a list or a file of keys, and the rows that it means.

In: keys and "shard:key", or a file of them, or a ledger of bad samples. Out: `Entry`s; and for a dataset,
their row numbers and the entries that match no sample. Promised: if the whole entry is a key, it means that
key, whatever colons it has; a shard may be named as in messages and the ledger, or by the last parts of its
path; an entry that matches samples of two files is an error.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastload.errors import ConfigError
from fastload.shards.ledger_lines import ledger_files, read_ledger
from fastload.shards.retry import reading

if TYPE_CHECKING:
    from fastload.shards.dataset import Dataset

MAX_SHOWN = 5  # unknown entries in a message
MAX_ENTRY = 8192  # characters of a shard:key; a path has at most 4096, and so has a name
_short = reprlib.Repr()
_short.maxstring = 300


class KeyFile(NamedTuple):
    """A file of keys, one a line, for exclude=. given: its path as the user wrote it."""

    given: str
    path: str


class Entry(NamedTuple):
    """Names samples by key. shard: None: any, unless `key` is "shard:key". source: of a mixture."""

    key: str
    shard: str | None = None
    source: str | None = None

    def __str__(self) -> str:
        source = f"{self.source}: " if self.source else ""
        return _short.repr(self.key if self.shard is None else f"{source}{self.shard}:{self.key}")


def lines_of(file: KeyFile) -> list[Entry]:
    """The entries of a file with a key or shard:key on each line, or of a ledger with all its ranks."""

    def read() -> list[bytes]:
        contents = []
        for path in ledger_files(file.path):
            with open(path, "rb") as opened:
                contents.append(opened.read())
        return contents

    what = f"exclude={file.given!r}"
    contents = reading(file.path, read)
    if not contents:
        found = "it is a folder" if os.path.isdir(file.path) else f"there is no file {file.path}"
        raise ConfigError(
            f"{what}: {found}. Give a file of keys, or keys as a list: exclude=[{file.given!r}]."
        )
    if any(content.lstrip().startswith(b'{"') for content in contents):
        lines = read_ledger(file.path).entries
        return [*dict.fromkeys(Entry(line["key"], line["shard"], line.get("source")) for line in lines)]
    # Files of ranks have no meaning for a file of keys; the first one is read if the file itself is missing.
    text = contents[0].removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    if text.lstrip().startswith(("[", "\0")) or "\0" in text[:1024]:
        raise ConfigError(
            f"{what}: not a list of keys: {text[:80]!r}. Write a key or shard:key on each line."
        )
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return [*dict.fromkeys(Entry(line) for line in lines if line.strip())]


def refuse_missed(name: str, missed: Iterable[Entry]) -> None:
    """Raises ConfigError if there are entries that match no sample."""
    unknown = [*missed]
    if unknown:
        first = ", ".join(map(str, unknown[:MAX_SHOWN]))
        raise ConfigError(
            f"{name} has {len(unknown)} keys that no sample has, the first {first}. Correct them, or leave "
            "them out."
        )


def rows_of_entries(name: str, dataset: Dataset, entries: list[Entry]) -> tuple[np.ndarray, list[Entry]]:
    """The rows that the entries name, and the entries that match no sample."""
    rows, unknown = dataset.find_keys([entry.key for entry in entries if entry.shard is None])
    unknown = {*unknown}
    with_shard = [entry for entry in entries if entry.shard is not None or entry.key in unknown]
    if not with_shard:
        return rows, []
    in_shards, missed = _rows_in_shards(name, dataset, with_shard)
    return np.concatenate([rows, in_shards]), missed


def _rows_in_shards(name: str, dataset: Dataset, entries: list[Entry]) -> tuple[np.ndarray, list[Entry]]:
    """The rows of entries that name a shard, and the entries that match no sample."""
    shards = _Shards(dataset)
    wanted = [(i, *pair) for i, entry in enumerate(entries) for pair in _pairs(entry, shards)]
    keys = {key: number for number, key in enumerate(dict.fromkeys(key for _, _, key in wanted))}
    rows, _ = dataset.find_keys([*keys])
    # A sample's code is one integer of its container and key.
    numbers = np.fromiter(map(keys.__getitem__, dataset.raw_keys(rows)), np.int64, len(rows))
    row_codes = dataset.containers_of(rows) * len(keys) + numbers
    order = np.argsort(row_codes, kind="stable")
    rows, row_codes = rows[order], row_codes[order]
    codes = np.array([container * len(keys) + keys[key] for _, container, key in wanted], np.int64)
    entry = np.array([i for i, _, _ in wanted], np.int64)
    first, stop = np.searchsorted(row_codes, codes, "left"), np.searchsorted(row_codes, codes, "right")
    hit = stop > first  # several rows if a list names a file twice
    _refuse_ambiguous(name, dataset, entries, entry[hit], codes[hit] // max(1, len(keys)))
    missed = np.ones(len(entries), bool)
    missed[entry[hit]] = False
    counts = (stop - first)[hit]
    found = np.repeat(first[hit] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
    return rows[found], [entries[i] for i in np.flatnonzero(missed).tolist()]


def _refuse_ambiguous(
    name: str, dataset: Dataset, entries: list[Entry], entry: np.ndarray, container: np.ndarray
) -> None:
    """Raises ConfigError if an entry names samples of several files. entry, container: of each hit."""
    for i in entry[:-1][entry[1:] == entry[:-1]].tolist():
        paths = dict.fromkeys(dataset.containers[number] for number in container[entry == i].tolist())
        if len(paths) > 1:  # several lists of files in the same folder have the same path
            first, second, *_ = paths
            raise ConfigError(
                f"{name}: {entries[i]} is ambiguous: it may be in {first} or in {second}. Give more of "
                "the path."
            )


def _pairs(entry: Entry, shards: _Shards) -> Iterator[tuple[int, str]]:
    """(container, key) that an entry may mean: "a:b:c" is the key "b:c" of shard "a", or "c" of "a:b"."""
    if entry.shard is not None:
        yield from ((number, entry.key) for number in shards[entry.shard])
        return
    text = entry.key
    if len(text) > MAX_ENTRY:
        return
    at = text.find(":")
    while at >= 0:
        yield from ((number, text[at + 1 :]) for number in shards[text[:at]])
        at = text.find(":", at + 1)


class _Shards(dict):
    """A shard's name -> numbers of the containers that it may mean: by name, else by the end of the path."""

    def __init__(self, dataset: Dataset):
        super().__init__()
        self._containers = dataset.containers
        self._named: dict[str, list[int]] = {}
        self._ending: dict[str, list[int]] = {}
        for number, (name, path) in enumerate(zip(dataset.names, dataset.containers, strict=True)):
            self._named.setdefault(name, []).append(number)
            self._ending.setdefault(os.path.basename(path), []).append(number)

    def __missing__(self, shard: str) -> list[int]:
        found = self._named.get(shard)
        if found is None:
            end = f"/{shard.removeprefix('./')}"
            likely = self._ending.get(os.path.basename(shard), ())
            found = [number for number in likely if f"/{self._containers[number]}".endswith(end)]
        self[shard] = found
        return found
