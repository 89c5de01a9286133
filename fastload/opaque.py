"""A value within a state as one leaf, so that the state has the same shape whatever the value is.

In: None, or what your samplers and datasets gave as their state. Out: a leaf for everything that walks
through states, as torch.distributed.checkpoint does: it enters mappings, and lists that hold mappings or
tensors, and wants each path in the checkpoint that it finds in the state of a fresh loader. Promised:
`value_of(leaf(value))` is the value; JSON's own values become JSON text, so that a state that JSON keeps as
it is stays one; all others a tuple of one, with your objects as they are, which nobody enters. What JSON made
of such a tuple is read as well, and so is a value that was never made a leaf, as those of fastload 0.1.0.
"""

import json
import math
from typing import Any

from fastload.errors import CursorError

_DEEPEST = 50  # levels of a value that becomes text
_LONGEST_INT = 4096  # bits: Python refuses longer ones as text


def leaf(value: Any) -> str | tuple | None:
    """The leaf of a value; None stays None."""
    if value is None:
        return None
    return json.dumps(value) if _is_json(value, _DEEPEST) else (value,)


def value_of(leaf: Any) -> Any:
    """The value of a leaf. Raises CursorError for text that is not JSON."""
    if isinstance(leaf, str):
        try:
            return json.loads(leaf)
        except (ValueError, RecursionError) as error:
            raise CursorError(
                f"the checkpoint is damaged: it holds {leaf[:40]!r}, which is not JSON ({error}). "
                "Pass what state_dict() returned."
            ) from error
    return leaf[0] if isinstance(leaf, (tuple, list)) and len(leaf) == 1 else leaf


def _is_json(value: Any, depth: int) -> bool:
    """Whether JSON keeps the value exactly, types included."""
    kind = type(value)
    if value is None or kind in (bool, str):
        return True
    if kind is int:
        return value.bit_length() <= _LONGEST_INT
    if kind is float:
        return math.isfinite(value)
    if kind is dict:
        if not all(type(name) is str for name in value):
            return False
        value = value.values()
    return kind in (dict, list) and depth > 0 and all(_is_json(one, depth - 1) for one in value)
