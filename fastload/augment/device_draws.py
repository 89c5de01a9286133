"""What all pipes for generated images share: random draws on the device, call after call.

Generated images have no position in a data set. Their draws are keyed by (seed, calls, row): `calls` counts
the draws, on the device and in state_dict, so that a resumed training run, a replayed CUDA graph, gradient
accumulation and a regularizer's extra call all go on in one stream; row is rank * N + i, the image's index in
the global batch, so that the ranks of a step draw as one process with the whole batch would. N must be the
same on all ranks.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import nn

from fastload.errors import ConfigError
from fastload.ops.twins import WITH_NATIVE, check_images, check_impl, choose
from fastload.rng import check_seed
from fastload.world import World


class FixedDtypes(nn.Module):
    """A module some of whose buffers keep their dtype when it is cast or loaded: `.half()` of a network that
    holds it would otherwise leave a p that small steps no longer change. On the CPU it follows the first
    tensor that it is called with to another device (`follow`).

    FSDP1's `buffer_dtype` casts without the module's methods: leave it out, or do not wrap the pipe."""

    fixed_dtypes: ClassVar[dict[str, torch.dtype]] = {}
    _called = False  # whether it has seen its first images, or logits, since it was made or copied

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_called": False}

    @property
    def _device(self) -> torch.device:
        return self._buffers[next(iter(self.fixed_dtypes))].device

    def may_follow(self, device: torch.device) -> bool:
        """Whether a call with a tensor on `device` would still move the buffers there; not to "meta", where
        their contents would be lost."""
        return self._device.type == "cpu" and not self._called and device.type != "meta"

    def follow(self, device: torch.device, what: str) -> None:
        """To be called with the device of the images, or logits: moves the buffers of a module on the CPU
        there, with what was loaded into them, if these are the first.

        Raises ConfigError where the module is to stay, and where torch.compile or a CUDA graph that is
        captured would not notice that it moved.
        """
        if device != self._device:
            found = f"the {what} are on {device} and {type(self).__name__} is on {self._device}"
            if not self.may_follow(device):
                raise ConfigError(f"{found}: move it with .to({what}.device).")
            if torch.compiler.is_compiling() or _is_captured(device):
                raise ConfigError(
                    f"{found}, and cannot follow them in a compiled or captured graph: move it before, with "
                    f".to({what}.device)."
                )
            with torch.inference_mode(False), torch.no_grad():  # its buffers change outside of it as well
                self._apply(lambda tensor: tensor.to(device), recurse=False)
        if not torch.compiler.is_compiling() and not self._called:  # a changed attribute would compile anew
            self._called = True

    def _apply(self, fn: Any, recurse: bool = True) -> "FixedDtypes":
        before = {name: self._buffers[name] for name in self.fixed_dtypes}
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            if self._buffers[name].dtype != buffer.dtype:
                self._buffers[name] = buffer.to(self._buffers[name].device)
        return self

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        for name, dtype in self.fixed_dtypes.items():
            self._buffers[name] = self._buffers[name].to(dtype)


class DeviceDraws(FixedDtypes):
    """A module with a seed and a counter of its draws. It augments in `eval()` as in `train()`.

    On the CPU it moves to the device of the first images that it is called with; then it stays, and images
    elsewhere are refused until `.to()` moves it. Its settings are attributes that can be read; to write one
    raises ConfigError, for compiled and captured graphs would ignore it.

    seed: in [0, 2^64). rank: this process's number among those that share the batch; None: as loaders find it
    (torch.distributed, else torchrun's environment, else 0), at the first draw. impl: "auto" (Triton on a
    GPU, the fastest that a CPU has there), or a twin by name.

    A call that is run again would draw anew: a draw within a backward pass, where torch.utils.checkpoint
    computes a function again, raises ConfigError. Draw before the checkpointed function and only
    `apply_params` in it, or have selective checkpointing save the `fastload::draw_...` operators. A CUDA
    graph is captured after a first call, which compiles the kernels.
    """

    impls: tuple[str, ...] = WITH_NATIVE
    fixed_dtypes: ClassVar[dict[str, torch.dtype]] = {"calls": torch.int64, "ticket": torch.int32}
    _fixed: frozenset[str] = frozenset()
    _settings: dict[str, float]
    calls: torch.Tensor  # [1] int64, draws made so far
    ticket: torch.Tensor  # [1] int32, programs of a draw that are done; 0 between draws

    def __init__(self, seed: int = 0, rank: int | None = None, impl: str = "auto"):
        super().__init__()
        check_seed(seed)
        if rank is not None and (type(rank) is not int or rank < 0):
            raise ConfigError(f"rank={rank!r}: give an integer from 0, or None.")
        check_impl(impl, self.impls)
        self.fix(seed=int(seed), rank=rank, impl=impl)
        self._found_rank: int | None = None
        self.register_buffer("calls", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("ticket", torch.zeros(1, dtype=torch.int32), persistent=False)

    def fix(self, **settings: Any) -> None:
        """Keeps settings as attributes that can be read, and not changed."""
        self.__dict__.update(settings)
        self.__dict__["_fixed"] = self._fixed | set(settings)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._fixed:
            self._refuse_change(name, f"{name}={value!r}")
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in self._fixed:
            self._refuse_change(name)
        super().__delattr__(name)

    def _refuse_change(self, name: str, wanted: str = "...") -> None:
        kind = type(self).__name__
        raise ConfigError(
            f"{kind}.{name} is fixed: compiled and captured graphs would not notice a change. Make a new "
            f"pipe, {kind}({wanted}), and load this one's state_dict into it to go on with p and the draws."
        )

    @property
    def settings(self) -> Mapping[str, float]:
        """Multipliers and strengths by name, to be read."""
        return MappingProxyType(self._settings)

    def key(self, n: int) -> tuple[int, int]:
        """The seed as an int64 of the same bits, and the first row of this process's n images."""
        rank = self._found_rank if self.rank is None else self.rank
        if rank is None:
            rank = _current_rank()
            if not torch.compiler.is_compiling():  # a changed attribute would mean to compile once more
                self._found_rank = rank
        return self.seed - (self.seed >> 63 << 64), rank * n

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles find their own rank: they may be opened by another process."""
        return super().__getstate__() | {"_found_rank": None}

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        # In no state_dict: it is anything after to_empty(), and still nowhere after loading with assign=True.
        # Else it stays where it is, for the sake of CUDA graphs.
        if self.ticket.device == self.calls.device:
            self.ticket.zero_()
        else:
            self.ticket = torch.zeros_like(self.calls, dtype=torch.int32)

    def check(self, images: Any) -> None:
        """Raises ConfigError unless images are floats [N, C, H, W] where the pipe is, or the first."""
        check_images(images)
        self.follow(images.device, "images")

    def drawing(self) -> str:
        """The twin that draws: Triton for buffers on a GPU or where it is asked for, else the reference."""
        return choose("reference" if self.impl == "native" else self.impl, self.calls.device)


def _is_captured(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _current_rank() -> int:
    return World.current().rank


# What torch.compiler.assume_constant_result sets; to call it would import all of torch._dynamo, and Triton.
_current_rank._dynamo_marked_constant = True


def strengths(owner: str, given: dict[str, Any], limits: dict[str, float] | None = None) -> dict[str, float]:
    """The given numbers as floats. Raises ConfigError for a negative number, infinity, NaN and other types.

    limits: name -> the largest allowed value; others have no limit."""
    found = {}
    for name, value in given.items():
        highest = (limits or {}).get(name, math.inf)
        number = strength(value, highest)
        if number is None:
            limit = "0 or more" if highest == math.inf else f"0 to {highest:g}"
            raise ConfigError(f"{owner}({name}={value!r}): give a number, {limit}.")
        found[name] = number
    return found


def strength(value: Any, highest: float = math.inf) -> float | None:
    """`value` as a float, where it is a finite number from 0 to `highest`."""
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError):
        return None
    return number if 0.0 <= number <= highest and number < math.inf else None
