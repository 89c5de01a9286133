"""Which samples of a dataset take part.

In: a dataset with all its rows, and a selection: integers (sample_ids to keep), strings (keys to leave out)
or a function of a Row. Out: the row numbers that stay, ascending, in 4 bytes each where that is enough.
Promised: a selection that means nothing (an id or a key that is not there, no sample left) is an error, never
an empty stream.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import numpy as np

from fastload.errors import ConfigError

if TYPE_CHECKING:
    from .dataset import Dataset, Row

    Selection = np.ndarray | Collection[int] | Collection[str] | Callable[[Row], bool]
else:
    Selection = object


def selected_rows(dataset: Dataset, select: Selection) -> np.ndarray:
    """Ascending row numbers, uint32 (or uint64 from 2^32 rows on). Raises ConfigError."""
    if callable(select):
        kept = [row.sample_id for row in dataset.raw_rows() if select(row)]
        rows = np.array(kept, np.int64)
    elif isinstance(select, str):
        raise ConfigError(f"select={select!r}: keys to leave out come as a list. Write select=[{select!r}].")
    else:
        values = select if isinstance(select, np.ndarray) else list(select)
        if len(values) == 0:
            raise ConfigError(
                "select is empty: neither ids to keep nor keys to leave out. Write select=None for all."
            )
        if all(isinstance(value, str) for value in values):
            rows = _all_but(dataset, [str(value) for value in values])
        else:
            rows = _kept(dataset, np.asarray(values))
    if len(rows) == 0:
        raise ConfigError(f"select leaves none of the {dataset.all_rows()} samples. Widen it.")
    return rows.astype(np.uint32 if dataset.all_rows() <= 1 << 32 else np.uint64)


def _kept(dataset: Dataset, ids: np.ndarray) -> np.ndarray:
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        way_out = (
            "np.flatnonzero makes ids of a mask." if ids.dtype.kind == "b" else "Give integers or strings."
        )
        raise ConfigError(f"select is an array of {ids.dtype} in {ids.ndim} dimensions. {way_out}")
    n = dataset.all_rows()
    outside = ids[(ids < 0) | (ids >= n)]
    if outside.size:
        raise ConfigError(f"select has the id {outside[0]}, and the ids are [0, {n}). Leave it out.")
    rows = np.unique(ids.astype(np.int64))
    if len(rows) < len(ids):
        raise ConfigError(f"select has {len(ids) - len(rows)} ids twice. Name each sample once (np.unique).")
    return rows


def _all_but(dataset: Dataset, keys: list[str]) -> np.ndarray:
    found, unknown = dataset.find_keys(keys)
    if unknown:
        raise ConfigError(
            f"select leaves out {len(unknown)} keys that no sample has, the first '{unknown[0]}'. Correct it."
        )
    kept = np.ones(dataset.all_rows(), bool)
    kept[found] = False
    return np.flatnonzero(kept)
