"""Which samples of a dataset take part.

In: what to keep and what to leave out: ids, which are row numbers of the index; keys; or a function of a Row.
Out: the row numbers that stay, ascending, in 4 bytes each where that is enough. Promised: `fixed` takes a
copy, so that nothing that becomes of the caller's list changes what is trained on; a selection that means
nothing (an id or a key that is not there, no sample left) is an error, never an empty stream.

A key keeps, or leaves out, all samples of that name; `shard:key` the one in that shard, which may be called
by its name or by the last parts of its path. An entry that is a key as a whole is taken for that key,
whatever colons it has.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastload.errors import ConfigError

from .patience import patiently, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable

    from .dataset import Dataset, Row

    Selection = np.ndarray | Iterable[int] | Iterable[str] | Callable[[Row], bool] | "KeyFile"
else:
    Selection = object

MAX_SHOWN = 5  # of what is unknown, in a message


class KeyFile(NamedTuple):
    """A file of keys, one a line, as exclude= takes it. given: its path as the user wrote it."""

    given: str
    path: str


class _Entry(NamedTuple):
    """What names samples by key. shard: None: of any, unless `key` is "shard:key". source: of a mixture."""

    key: str
    shard: str | None = None
    source: str | None = None

    def __str__(self) -> str:
        return self.key if self.shard is None else f"{self.shard}:{self.key}"


class Excluded:
    """What a mixture leaves out of whatever source has it. `missed`: what no source so far has had."""

    def __init__(self, entries: list[_Entry]):
        self.entries = entries
        self.missed: set[_Entry] = {*entries}


def fixed(name: str, selection: Any, by_source: bool = False) -> Any:
    """A selection in a form that nobody else can change: None, a function, an int64 array, a tuple of keys, a
    KeyFile, or (by_source) name -> any of these. Reads nothing.

    name: of the argument, "select" or "exclude". Raises ConfigError for what is no selection.
    """
    if selection is None or callable(selection) or isinstance(selection, KeyFile):
        return selection
    if isinstance(selection, (str, os.PathLike)):
        return _key_file(name, os.fspath(selection))
    if isinstance(selection, Mapping):
        if not by_source:
            raise ConfigError(f"{name}={reprlib.repr(selection)}: only a mixture has sources to select by.")
        return {source: fixed(name, one) for source, one in selection.items()}
    return _fixed_values(name, selection)


def selected_rows(dataset: Dataset, select: Selection | None, exclude: Any = None) -> np.ndarray | None:
    """Ascending row numbers, uint32 (or uint64 from 2^32 rows on); None where all rows stay.

    Raises ConfigError; SourceError for a file of keys that cannot be read.
    """
    if not isinstance(exclude, Excluded):
        exclude = fixed("exclude", exclude)
    select = fixed("select", select)
    if select is None and exclude is None:
        return None
    n = dataset.all_rows()
    stays = np.ones(n, bool)
    if select is not None:
        stays[:] = False
        stays[_rows("select", dataset, select)] = True
    if exclude is not None:
        stays[_rows("exclude", dataset, exclude)] = False
    if stays.all():
        return None
    rows = np.flatnonzero(stays)
    if len(rows) == 0:
        given = " and ".join(
            name for name, one in (("select", select), ("exclude", exclude)) if one is not None
        )
        raise ConfigError(f"{given} leave{'' if ' ' in given else 's'} none of the {n} samples. Widen it.")
    return rows.astype(np.uint32 if n <= 1 << 32 else np.uint64)


def entries_of(exclude: Any) -> list[_Entry] | None:
    """The keys that a fixed selection names, read from its file where it is one; None where it names none."""
    if isinstance(exclude, KeyFile):
        return _lines(exclude)
    if isinstance(exclude, tuple):
        return [_Entry(key) for key in exclude]
    return None


def refuse_missed(name: str, missed: Iterable[_Entry]) -> None:
    """Raises ConfigError where entries name no sample."""
    unknown = [*missed]
    if unknown:
        first = ", ".join(repr(str(one)) for one in unknown[:MAX_SHOWN])
        raise ConfigError(
            f"{name} has {len(unknown)} keys that no sample has, the first {first}. Correct them, or leave "
            "them out."
        )


def _key_file(name: str, given: str) -> KeyFile:
    if name != "exclude" or isinstance(given, bytes):
        raise ConfigError(f"{name}={given!r}: keys come as a list. Write {name}=[{given!r}].")
    from .source import current_folder

    folder = "" if os.path.isabs(given) else current_folder(given)
    return KeyFile(given, os.path.join(folder, given))


def _fixed_values(name: str, selection: Any) -> np.ndarray | tuple[str, ...]:
    """ids as int64 [n], or keys."""
    if hasattr(selection, "__array__"):
        values = np.asarray(selection)
        if values.ndim != 1:
            raise ConfigError(
                f"{name}={reprlib.repr(selection)}: an array of {values.dtype} in {values.ndim} dimensions. "
                "Give it in one."
            )
        values = values if values.dtype.kind in "iub" else values.tolist()
    elif isinstance(selection, Iterable) and not isinstance(selection, (bytes, bytearray)):
        values = selection if isinstance(selection, range) else list(selection)
    else:
        raise ConfigError(f"{name}={selection!r}: give ids, keys, or a function of a row.")
    if len(values) == 0:
        if name == "exclude":
            return ()
        raise ConfigError(
            f"{name}={selection!r} is empty: it keeps nothing. Write {name}=None for all samples."
        )
    if not isinstance(values, (np.ndarray, range)) and all(isinstance(value, str) for value in values):
        return tuple(map(str, values))
    ids = np.asarray(values)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        if ids.dtype.kind == "b":
            raise ConfigError(f"{name}={reprlib.repr(selection)} is a mask. np.flatnonzero makes ids of it.")
        kinds = ", ".join(sorted({type(value).__name__ for value in values}))
        raise ConfigError(f"{name}={reprlib.repr(selection)} holds {kinds}: give integers, or strings.")
    if ids.dtype.kind == "u" and ids.max() > np.iinfo(np.int64).max:
        raise ConfigError(f"{name} has the id {ids.max()}, which no dataset has. Leave it out.")
    ids = ids.astype(np.int64)  # a copy
    ids.flags.writeable = False
    return ids


def _rows(name: str, dataset: Dataset, selection: Any) -> np.ndarray:
    """The row numbers that a fixed selection names."""
    if callable(selection):
        return np.array([row.id for row in dataset.raw_rows() if selection(row)], np.int64)
    if isinstance(selection, np.ndarray):
        return _checked(name, dataset, selection)
    if isinstance(selection, Excluded):
        rows, missed = _found(name, dataset, selection.entries)
        selection.missed &= {*missed}
        return rows
    rows, missed = _found(name, dataset, entries_of(selection))
    refuse_missed(name if not isinstance(selection, KeyFile) else f"exclude={selection.given!r}", missed)
    return rows


def _checked(name: str, dataset: Dataset, ids: np.ndarray) -> np.ndarray:
    n = dataset.all_rows()
    outside = ids[(ids < 0) | (ids >= n)]
    if outside.size:
        raise ConfigError(f"{name} has the id {outside[0]}, and the ids are [0, {n}). Leave it out.")
    named = np.zeros(n, bool)  # np.unique takes a second for a million
    named[ids] = True
    if name == "select" and (twice := len(ids) - np.count_nonzero(named)):
        raise ConfigError(f"select has {twice} ids twice. Name each sample once (np.unique).")
    return ids


def _found(name: str, dataset: Dataset, entries: list[_Entry]) -> tuple[np.ndarray, list[_Entry]]:
    """The rows that the entries name, and the entries that name none."""
    whole = [one.key for one in entries if one.shard is None]
    rows, unknown = dataset.find_keys(whole)
    unknown = {*unknown}
    # "a:b:c" may be the key "b:c" of shard "a", or "c" of "a:b".
    pairs = {
        one: [(one.shard, one.key)] if one.shard is not None else _splits(one.key)
        for one in entries
        if one.shard is not None or one.key in unknown
    }
    if not pairs:
        return rows, []
    more = _rows_in_shards(name, dataset, pairs)
    missed = [one for one in pairs if one not in more]
    return np.concatenate([rows, *more.values()]), missed


def _splits(text: str) -> list[tuple[str, str]]:
    at = [i for i, letter in enumerate(text) if letter == ":"]
    return [(text[:i], text[i + 1 :]) for i in at]


def _rows_in_shards(name: str, dataset: Dataset, pairs: dict) -> dict[_Entry, np.ndarray]:
    """entry -> rows, for those entries of which a (shard, key) is there."""
    keys = {key for candidates in pairs.values() for _, key in candidates}
    rows, _ = dataset.find_keys([*keys])
    there: dict[tuple[int, str], list[int]] = {}  # several, where a list names a file twice
    of_rows = zip(dataset.containers_of(rows).tolist(), dataset.raw_keys(rows), rows.tolist(), strict=True)
    for place, key, row in of_rows:
        there.setdefault((place, key), []).append(row)
    shards = {shard for candidates in pairs.values() for shard, _ in candidates}
    places = _containers_called(dataset, shards)
    found: dict[_Entry, np.ndarray] = {}
    for entry, candidates in pairs.items():
        hits = [
            (place, there[place, key])
            for shard, key in candidates
            for place in places[shard]
            if (place, key) in there
        ]
        if len(hits) > 1:
            first, second, *_ = (dataset.containers[place] for place, _ in hits)
            raise ConfigError(
                f"{name}: {str(entry)!r} may be a sample of {first} or of {second}. Give more of the path."
            )
        if hits:
            found[entry] = np.array(hits[0][1], np.int64)
    return found


def _containers_called(dataset: Dataset, shards: set[str]) -> dict[str, list[int]]:
    """shard -> the containers whose path ends so."""
    by_name: dict[str, list[int]] = {}
    for place, path in enumerate(dataset.containers):
        by_name.setdefault(os.path.basename(path), []).append(place)
    called = {}
    for shard in shards:
        end = f"/{shard.removeprefix('./')}"
        likely = by_name.get(os.path.basename(shard), ())
        called[shard] = [place for place in likely if f"/{dataset.containers[place]}".endswith(end)]
    return called


def _lines(file: KeyFile) -> list[_Entry]:
    """The entries of a file: a line is a key, shard:key, or the JSON object of a ledger of bad samples."""

    def read() -> bytes:
        with open(file.path, "rb") as opened:
            return opened.read()

    try:
        content = patiently(read)
    except FileNotFoundError:
        raise ConfigError(
            f"exclude={file.given!r}: there is no file {file.path}. Keys come as a list: "
            f"exclude=[{file.given!r}]."
        ) from None
    except OSError as error:
        raise unreadable(file.path, error) from error
    lines = enumerate(content.decode("utf-8", "surrogateescape").split("\n"), 1)
    entries = (_entry(file, number, line.removesuffix("\r")) for number, line in lines if line.strip())
    return [*dict.fromkeys(entries)]


def _entry(file: KeyFile, number: int, line: str) -> _Entry:
    if not line.startswith('{"'):
        return _Entry(line)
    try:
        one = json.loads(line)
        source = one.get("source")
        if isinstance(one["key"], str) and isinstance(one["shard"], str) and isinstance(source, str | None):
            return _Entry(one["key"], one["shard"], source)
    except (ValueError, KeyError):
        pass
    raise ConfigError(
        f"exclude={file.given!r}: line {number} is no line of a ledger: {line[:80]!r}. Give a key or "
        "shard:key a line, or the ledger of a training run."
    )
