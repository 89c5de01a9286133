"""Class labels from the dataset.json that EDM's tools put at the root of a zip or a folder.

In: rows, and the content of a dataset.json ({"labels": [[name, label], ...]} or {"labels": null}). Out: int32
[n], one a row, or None if there are no integer labels (null, or vectors, which are conditioning and not
classes). Promised: either every row has a label or none has; other names in the file are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from fastload.errors import ShardError
from fastload.shards.rows import Rows, shown

_CORRECT = 'Write {"labels": [[name, integer], ...]} or {"labels": null} there.'


def labels_of_json(
    content: bytes, rows: Rows, name: str, key_of: Callable[[bytes], bytes]
) -> np.ndarray | None:
    """Labels of `rows` as int32 [n], or None; `key_of` turns a name in the file into the key of its sample.

    Raises ShardError if the file is not such a JSON, or leaves samples without a label.
    """
    try:
        table = json.loads(content)["labels"]
        if table is None:
            return None
        label_of = {key_of(entry.encode("utf-8", "surrogateescape")): label for entry, label in table}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ShardError(f"{name}: dataset.json has no table of labels ({error}). {_CORRECT}") from None
    if not all(type(label) is int and -(2**31) <= label < 2**31 for label in label_of.values()):
        return None
    keys = rows.key_list()
    missing = [key for key in keys if key not in label_of]
    if missing:
        raise ShardError(
            f"{name}: dataset.json has no label for {len(missing)} of {len(keys)} samples, "
            f"the first '{shown(missing[0])}'. {_CORRECT}"
        )
    return np.array([label_of[key] for key in keys], np.int32)
