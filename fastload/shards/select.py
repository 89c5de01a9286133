"""Which samples of a dataset are used.

In: what to keep and what to leave out: ids, which are row numbers of the index; keys; or a function of a Row.
Out: the row numbers that stay, ascending, in 4 bytes each if that is enough. Promised: `fixed` takes a copy,
so later changes of the caller's list have no effect; a selection that cannot be meant (an unknown id or key,
no sample left) is an error, never an empty stream. A key names all samples with that key, "shard:key" the one
in that shard (keys.py).
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastload.errors import ConfigError, FunctionError
from fastload.shards.files import current_folder
from fastload.shards.keys import Entry, KeyFile, lines_of, refuse_missed, rows_of_entries

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastload.shards.dataset import Dataset, Row

    Selection = np.ndarray | Iterable[int] | Iterable[str] | Callable[[Row], bool] | "KeyFile"
else:
    Selection = object


class Excluded:
    """What a mixture leaves out of one source. `missed`: entries that the source does not have."""

    def __init__(self, entries: list[Entry]):
        self.entries = entries
        self.missed: set[Entry] = set()


def fixed(name: str, selection: Any, by_source: bool = False) -> Any:
    """An immutable copy of a selection: None, a function, an int64 array, a tuple of keys, a KeyFile, or
    (by_source) name -> any of these. Reads nothing.

    name: of the argument, "select" or "exclude". Raises ConfigError for anything else.
    """
    if selection is None or callable(selection) or isinstance(selection, KeyFile):
        return selection
    if isinstance(selection, (str, os.PathLike)):
        return _key_file(name, os.fspath(selection))
    if isinstance(selection, Mapping):
        if not by_source:
            raise ConfigError(f"{name}={reprlib.repr(selection)}: only a mixture has sources to select by.")
        return {source: fixed(name, own) for source, own in selection.items()}
    return _fixed_values(name, selection)


def selected_rows(dataset: Dataset, select: Selection | None, exclude: Any = None) -> np.ndarray | None:
    """Ascending row numbers, uint32 (or uint64 from 2^32 rows on); None if all rows stay.

    Raises ConfigError; SourceError for a file of keys that cannot be read; FunctionError if a function of a
    row raises an exception.
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
        given = " and ".join(["select"] * (select is not None) + ["exclude"] * (exclude is not None))
        raise ConfigError(f"{given} leave{'' if ' ' in given else 's'} none of the {n} samples. Select more.")
    return rows.astype(np.uint32 if n <= 1 << 32 else np.uint64)


def entries_of(exclude: Any) -> list[Entry] | None:
    """The keys of a fixed selection, read from its file if it is one; None if it does not name keys."""
    if isinstance(exclude, KeyFile):
        return lines_of(exclude)
    if isinstance(exclude, tuple):
        return [Entry(key) for key in exclude]
    return None


def _key_file(name: str, given: Any) -> KeyFile:
    if name != "exclude" or not isinstance(given, str) or not given:
        way_out = f"keys must be a list. Write {name}=[{given!r}]" if given else "give ids, keys or a file"
        raise ConfigError(f"{name}={given!r}: {way_out}.")
    if "\0" in given:
        raise ConfigError(f"{name}={given!r}: a file name cannot contain a NUL byte. Correct the path.")
    folder = "" if os.path.isabs(given) else current_folder(given)
    return KeyFile(given, os.path.join(folder, given))


def _fixed_values(name: str, selection: Any) -> np.ndarray | range | tuple[str, ...]:
    """ids as int64 [n] or a range, or keys."""
    if isinstance(selection, np.ma.MaskedArray):
        raise ConfigError(f"{name}={reprlib.repr(selection)} is a masked array: give ids.compressed().")
    values = _listed(name, selection)
    if len(values) == 0:
        if name == "exclude":
            return ()
        raise ConfigError(
            f"{name}={selection!r} is empty and keeps nothing. Write {name}=None for all samples."
        )
    if isinstance(values, range):
        return values
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        return tuple(map(str, values))
    return _fixed_ids(name, selection, values)


def _listed(name: str, selection: Any) -> np.ndarray | range | list:
    if isinstance(selection, range):
        return selection
    if hasattr(selection, "__array__"):
        try:
            values = np.asarray(selection)
        except (TypeError, ValueError, RuntimeError) as error:  # a tensor that NumPy cannot represent
            raise ConfigError(f"{name}={reprlib.repr(selection)}: {error} Give integers.") from error
        if values.ndim != 1:
            raise ConfigError(
                f"{name}={reprlib.repr(selection)} must be one-dimensional, got {values.dtype} with "
                f"{values.ndim} dimensions."
            )
        return values if values.dtype.kind in "iub" else values.tolist()
    if isinstance(selection, Iterable) and not isinstance(selection, (bytes, bytearray, memoryview)):
        return list(selection)
    raise ConfigError(f"{name}={selection!r}: give ids, keys, or a function of a row.")


def _fixed_ids(name: str, selection: Any, values: np.ndarray | list) -> np.ndarray:
    try:
        ids = np.asarray(values)
    except ValueError:  # lists of several lengths
        ids = np.empty((0, 0))
    if ids.dtype.kind == "b":
        raise ConfigError(
            f"{name}={reprlib.repr(selection)} is a mask. Convert it to ids with np.flatnonzero."
        )
    if ids.dtype.kind in "uO" and all(isinstance(value, int | np.integer) for value in values):
        beyond = next((value for value in values if not 0 <= value < 1 << 63), None)
        if beyond is not None:
            raise ConfigError(f"{name} has the id {beyond}, which no dataset can have. Leave it out.")
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        kinds = ", ".join(sorted({type(value).__name__ for value in values}))
        raise ConfigError(f"{name}={reprlib.repr(selection)} must hold integers or strings, got {kinds}.")
    ids = ids.astype(np.int64)  # a copy
    ids.flags.writeable = False
    return ids


def _rows(name: str, dataset: Dataset, selection: Any) -> np.ndarray:
    if callable(selection):
        return _of_function(name, dataset, selection)
    if isinstance(selection, np.ndarray | range):
        return _checked(name, dataset, selection)
    if isinstance(selection, Excluded):
        rows, missed = rows_of_entries(name, dataset, selection.entries)
        selection.missed = {*missed}
        return rows
    rows, missed = rows_of_entries(name, dataset, entries_of(selection))
    refuse_missed(name if not isinstance(selection, KeyFile) else f"exclude={selection.given!r}", missed)
    return rows


def _of_function(name: str, dataset: Dataset, function: Callable[[Row], bool]) -> np.ndarray:
    kept = []
    for row in dataset.raw_rows():
        try:
            is_named = bool(function(row))
        except Exception as error:  # also StopIteration, which could end a caller's loop
            raise FunctionError(
                f"{name}: the function raised {type(error).__name__} ({error}) for key '{row.key}' of "
                f"{row.container}, which has {', '.join(row.extensions)}."
            ) from error
        if is_named:
            kept.append(row.id)
    return np.array(kept, np.int64)


def _checked(name: str, dataset: Dataset, ids: np.ndarray | range) -> np.ndarray:
    n = dataset.all_rows()
    # min() of a range would iterate over it.
    low, high = sorted((ids[0], ids[-1])) if isinstance(ids, range) else (ids.min(), ids.max())
    if low < 0 or high >= n:
        wrong = low if low < 0 else high
        raise ConfigError(f"{name}: ids must be in [0, {n}), got {wrong}. Leave it out.")
    if isinstance(ids, range):
        return np.arange(low, high + 1, abs(ids.step))
    named = np.zeros(n, bool)  # np.unique took most of the time to open (bench_open)
    named[ids] = True
    if name == "select" and (twice := len(ids) - np.count_nonzero(named)):
        raise ConfigError(f"select has {twice} duplicate ids. Name each sample once (np.unique).")
    return ids
