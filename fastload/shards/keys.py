"""Samples named by key: what a list or a file of keys says, and the rows that are meant.

In: keys and "shard:key", or a file of them, or a ledger of bad samples. Out: `Entry`s, and of a dataset the
row numbers of all of them, and which entries no sample has. Promised: an entry that is a key as a whole is
taken for that key, whatever colons it has; a shard may be called by the name that messages and the ledger
call it, or by the last parts of its path; what may mean samples of two files is an error.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastload.errors import ConfigError
from fastload.shards.ledger_lines import ledger_files, read_ledger
from fastload.shards.retry import with_retries, unreadable

if TYPE_CHECKING:
    from fastload.shards.dataset import Dataset

MAX_SHOWN = 5  # of what is unknown, in a message
MAX_ENTRY = 8192  # characters of what may be shard:key; a path has 4096 at most, and so has a name
_short = reprlib.Repr()
_short.maxstring = 300


class KeyFile(NamedTuple):
    """A file of keys, one a line, as exclude= takes it. given: its path as the user wrote it."""

    given: str
    path: str


class Entry(NamedTuple):
    """What names samples by key. shard: None: of any, unless `key` is "shard:key". source: of a mixture."""

    key: str
    shard: str | None = None
    source: str | None = None

    def __str__(self) -> str:
        source = f"{self.source}: " if self.source else ""
        return _short.repr(self.key if self.shard is None else f"{source}{self.shard}:{self.key}")


def lines_of(file: KeyFile) -> list[Entry]:
    """The entries of a file: a line is a key or shard:key; or those of a ledger, of all its ranks."""

    def read() -> list[bytes]:
        contents = []
        for path in ledger_files(file.path):
            with open(path, "rb") as opened:
                contents.append(opened.read())
        return contents

    what = f"exclude={file.given!r}"
    try:
        contents = with_retries(read)
    except OSError as error:
        raise unreadable(file.path, error) from error
    if not contents:
        found = "it is a folder" if os.path.isdir(file.path) else f"there is no file {file.path}"
        raise ConfigError(
            f"{what}: {found}. Give a file of keys, or keys as a list: exclude=[{file.given!r}]."
        )
    if any(content.lstrip().startswith(b'{"') for content in contents):
        entries = read_ledger(file.path).entries
        return [*dict.fromkeys(Entry(one["key"], one["shard"], one.get("source")) for one in entries)]
    # In a file of keys those of ranks have no meaning; one of them is there where the file itself is not.
    text = contents[0].removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    if text.lstrip().startswith(("[", "\0")) or "\0" in text[:1024]:
        raise ConfigError(f"{what}: this is no list of keys: {text[:80]!r}. Write a key or shard:key a line.")
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return [*dict.fromkeys(Entry(line) for line in lines if line.strip())]


def refuse_missed(name: str, missed: Iterable[Entry]) -> None:
    """Raises ConfigError where entries name no sample."""
    unknown = [*missed]
    if unknown:
        first = ", ".join(map(str, unknown[:MAX_SHOWN]))
        raise ConfigError(
            f"{name} has {len(unknown)} keys that no sample has, the first {first}. Correct them, or leave "
            "them out."
        )


def rows_of_entries(name: str, dataset: Dataset, entries: list[Entry]) -> tuple[np.ndarray, list[Entry]]:
    """The rows that the entries name, and the entries that name none."""
    whole = [one.key for one in entries if one.shard is None]
    rows, unknown = dataset.find_keys(whole)
    unknown = {*unknown}
    parts = [one for one in entries if one.shard is not None or one.key in unknown]
    if not parts:
        return rows, []
    in_shards, missed = _rows_in_shards(name, dataset, parts)
    return np.concatenate([rows, in_shards]), missed


def _rows_in_shards(name: str, dataset: Dataset, entries: list[Entry]) -> tuple[np.ndarray, list[Entry]]:
    """The rows of what is named with a shard, and the entries that name none."""
    called = _Shards(dataset)
    wanted = [(i, *pair) for i, one in enumerate(entries) for pair in _pairs(one, called)]
    keys = {key: number for number, key in enumerate(dict.fromkeys(key for _, _, key in wanted))}
    rows, _ = dataset.find_keys([*keys])
    # A sample is told by one number: its container, then its key.
    numbers = np.fromiter(map(keys.__getitem__, dataset.raw_keys(rows)), np.int64, len(rows))
    there = dataset.containers_of(rows) * len(keys) + numbers
    order = np.argsort(there, kind="stable")
    rows, there = rows[order], there[order]
    codes = np.array([place * len(keys) + keys[key] for _, place, key in wanted], np.int64)
    entry = np.array([i for i, _, _ in wanted], np.int64)
    first, stop = np.searchsorted(there, codes, "left"), np.searchsorted(there, codes, "right")
    hit = stop > first  # several rows, where a list names a file twice
    _refuse_ambiguous(name, dataset, entries, entry[hit], codes[hit] // max(1, len(keys)))
    missed = np.ones(len(entries), bool)
    missed[entry[hit]] = False
    counts = (stop - first)[hit]
    found = np.repeat(first[hit] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
    return rows[found], [entries[i] for i in np.flatnonzero(missed).tolist()]


def _refuse_ambiguous(
    name: str, dataset: Dataset, entries: list[Entry], entry: np.ndarray, place: np.ndarray
) -> None:
    """Raises ConfigError where an entry names samples of several files. entry, place: of each hit."""
    for i in entry[:-1][entry[1:] == entry[:-1]].tolist():
        places = place[entry == i].tolist()
        paths = dict.fromkeys(dataset.containers[one] for one in places)
        if len(paths) > 1:  # lists of files of one folder have one path
            first, second, *_ = paths
            raise ConfigError(
                f"{name}: {entries[i]} may be a sample of {first} or of {second}. Give more of the path."
            )


def _pairs(entry: Entry, called: _Shards) -> Iterator[tuple[int, str]]:
    """(container, key) that an entry may mean: "a:b:c" is the key "b:c" of shard "a", or "c" of "a:b"."""
    if entry.shard is not None:
        yield from ((place, entry.key) for place in called[entry.shard])
        return
    text = entry.key
    if len(text) > MAX_ENTRY:
        return
    at = text.find(":")
    while at >= 0:
        yield from ((place, text[at + 1 :]) for place in called[text[:at]])
        at = text.find(":", at + 1)


class _Shards(dict):
    """What a shard is called -> the containers that may be meant: by name, else by the end of the path."""

    def __init__(self, dataset: Dataset):
        super().__init__()
        self._containers = dataset.containers
        self._named: dict[str, list[int]] = {}
        self._ending: dict[str, list[int]] = {}
        for place, (name, path) in enumerate(zip(dataset.names, dataset.containers, strict=True)):
            self._named.setdefault(name, []).append(place)
            self._ending.setdefault(os.path.basename(path), []).append(place)

    def __missing__(self, shard: str) -> list[int]:
        found = self._named.get(shard)
        if found is None:
            end = f"/{shard.removeprefix('./')}"
            likely = self._ending.get(os.path.basename(shard), ())
            found = [place for place in likely if f"/{self._containers[place]}".endswith(end)]
        self[shard] = found
        return found
