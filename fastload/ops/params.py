"""What the parameters of all operators share: dataclasses of tensors for N images, and the rows of floats
that the kernels read.

In: tensors that a user fills, or rows that were drawn. Out: rows [N, columns], or a ConfigError that names
the tensor. Promised: a field that is None is absent; drawn rows go back to the kernels without a copy.
"""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fastload.errors import ConfigError


@dataclass(frozen=True)
class TensorParams:
    """Base of the parameters of N images: tensors, each None or [N, ...].

    INTEGERS: the fields of int32, which keep it; the others are floats.
    """

    INTEGERS: ClassVar[tuple[str, ...]] = ()
    # The rows that were drawn, of which the fields are views; None: a user filled the fields.
    _drawn: Any = field(default=None, init=False, repr=False, compare=False)

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Every tensor moved or cast, as `Tensor.to` does; those of int32 keep their dtype."""
        moved = {}
        for name, value in self.given().items():
            target = value.to(*args, **kwargs)
            moved[name] = value.to(target.device) if name in self.INTEGERS else target
        return type(self)(**moved)

    def given(self) -> dict[str, Any]:
        """The tensors that are there, by name."""
        return {name: value for name, value in vars(self).items() if name != "_drawn" and value is not None}

    def keep_rows(self, rows: Any) -> Any:
        """These parameters, which are views of `rows`."""
        object.__setattr__(self, "_drawn", rows)
        return self

    def check_tensors(
        self, shapes: Mapping[str, tuple], n: int, device: Any, *, finite: bool = False, typed: bool = True
    ) -> None:
        """Raises ConfigError unless each tensor is [n, *shape], on `device`, and where `typed` of its dtype.

        finite: on the CPU all numbers must be; a GPU would have to be waited for, a compiled graph broken.
        """
        import torch

        owner, finite = type(self).__name__, finite and not torch.compiler.is_compiling()
        for name, shape in shapes.items():
            tensor = getattr(self, name)
            if tensor is None:
                continue
            kind = "int32" if name in self.INTEGERS else "floats"
            check_tensor(f"{owner}.{name}", tensor, (n, *shape), device, kind if typed else None)
            if finite and kind == "floats" and device.type == "cpu" and not torch.isfinite(tensor).all():
                raise ConfigError(f"{owner}.{name} holds numbers that are not finite.")


def check_tensor(name: str, tensor: Any, shape: tuple, device: Any, kind: str | None) -> None:
    """Raises ConfigError unless `tensor` is one of this shape, on `device`, and of "int32" or "floats"."""
    import torch

    if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) != shape:
        raise ConfigError(f"{name} is {_described(tensor)}: give a tensor {list(shape)}.")
    if tensor.device != device:
        raise ConfigError(f"{name} is on {tensor.device}, not on {device}: move it there with .to().")
    wrong = {"int32": tensor.dtype != torch.int32, "floats": not tensor.is_floating_point()}
    if kind is not None and wrong[kind]:
        raise ConfigError(f"{name} is of {tensor.dtype}: give {kind}.")


def stages_of(params: Any, stage_of: Mapping[str, int]) -> int:
    """The stages of what has some of the fields in `stage_of`, as a number: torch.compile traces no flags."""
    stages = 0
    for name, stage in stage_of.items():
        if getattr(params, name, None) is not None:
            stages |= stage
    return stages


def filled_rows(params: Any, columns: Mapping[str, slice], rows: Any) -> Any:
    """The rows [N, ...] with the tensors of `params` in their columns; of longer ones the first numbers."""
    for name, part in columns.items():
        value = getattr(params, name, None)
        if value is not None:
            rows[:, part] = value.detach().reshape(len(rows), -1)[:, : part.stop - part.start]
    return rows


def _described(value: Any) -> str:
    import torch

    if not hasattr(value, "shape"):
        return reprlib.repr(value)
    kind = "" if isinstance(value, torch.Tensor) else f"{type(value).__name__} "
    return f"{kind}{list(value.shape)}"
