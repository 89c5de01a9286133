"""A value within a state as a leaf, so that the state has the same structure whatever the value is.

In: None, or the state of the user's sampler or dataset. Out: a leaf for code that traverses states, such as
torch.distributed.checkpoint: it enters mappings, and lists with mappings or tensors, and requires each path
of a new loader's state in the checkpoint. Promised: `value_of(leaf(value))` is the value. JSON values become
JSON text, so a state that survives JSON still does; any other value becomes a tuple of one, with the object
unchanged, which is not entered. A tuple that JSON turned into a list is read as well, and so is a value that
was never made a leaf, as in fastload 0.1.0.
"""

import json
import math
from typing import Any

from fastload.errors import CursorError

_MAX_DEPTH = 50  # of a value that becomes text
_LONGEST_INT = 4096  # bits: Python refuses longer ones as text


def leaf(value: Any) -> str | tuple[Any] | None:
    """The leaf of a value; None stays None."""
    if value is None:
        return None
    return json.dumps(value) if _is_json(value, _MAX_DEPTH) else (value,)


def value_of(leaf: Any) -> Any:
    """The value of a leaf. Raises CursorError for text that is not JSON."""
    if isinstance(leaf, str):
        try:
            return json.loads(leaf)
        except (ValueError, RecursionError) as error:
            raise CursorError(
                f"the checkpoint is damaged: {leaf[:40]!r} is not JSON ({error}). "
                "Pass what state_dict() returned."
            ) from error
    return leaf[0] if isinstance(leaf, (tuple, list)) and len(leaf) == 1 else leaf


def _is_json(value: Any, depth: int) -> bool:
    """Whether JSON keeps the value exactly, including types."""
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
    return kind in (dict, list) and depth > 0 and all(_is_json(item, depth - 1) for item in value)
