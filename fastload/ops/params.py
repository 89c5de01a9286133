"""What the parameters of all operators share: dataclasses of tensors for N images."""

import reprlib
from typing import Any


def moved(params: Any, integers: tuple[str, ...], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """name -> the tensor as `Tensor.to(*args, **kwargs)` makes it; those of `integers` keep their dtype."""
    found = {}
    for name in params.__dataclass_fields__:
        value = getattr(params, name)
        if name.startswith("_") or value is None:
            continue
        target = value.to(*args, **kwargs)
        found[name] = value.to(target.device) if name in integers else target
    return found


def described(value: Any) -> str:
    """What was given in place of another tensor, for a message."""
    import torch

    if not hasattr(value, "shape"):
        return reprlib.repr(value)
    kind = "" if isinstance(value, torch.Tensor) else f"{type(value).__name__} "
    return f"{kind}{list(value.shape)}"
