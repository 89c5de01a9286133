"""The number of processes of the training run, and the rank of this one.

In: rank and world_size if the caller gives them, else an initialised torch.distributed, else the
environment of torchrun (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE), else one process. Out: a World.
Promised: torch is never imported for it, and values that contradict each other are an error.
"""

import os
import sys
from dataclasses import dataclass

from fastload.errors import ConfigError


@dataclass(frozen=True)
class World:
    """rank in [0, world_size) of all processes, local_rank in [0, local_world_size) of those on this host.

    The processes of a host share its CPUs and the indexing; the local pair is (0, 1) if it is not known.
    Raises ConfigError for a number out of its range.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    def __post_init__(self) -> None:
        for name, size_name in (("rank", "world_size"), ("local_rank", "local_world_size")):
            number, size = getattr(self, name), getattr(self, size_name)
            if type(number) is not int or type(size) is not int or not 0 <= number < size:
                raise ConfigError(
                    f"{name} and {size_name} must be integers with 0 <= {name} < {size_name}, got "
                    f"{name}={number!r} and {size_name}={size!r}."
                )

    @classmethod
    def current(cls, rank: int | None = None, world_size: int | None = None) -> "World":
        """This process's World: rank and world_size as given, else as found (see the top of this file).

        The local pair is always that of the environment; (0, 1) unless both of its variables are set.
        Raises ConfigError if only one number of a pair is given, or the numbers contradict each other.
        """
        local_rank, local_world_size = _local_pair()
        if (rank is None) != (world_size is None):
            raise ConfigError(f"rank={rank!r} with world_size={world_size!r}: give both, or neither.")
        if rank is not None and world_size is not None:
            # Not compared with the local pair: eight processes may each load everything, as rank 0 of 1.
            return cls(rank, world_size, local_rank, local_world_size)
        rank, world_size = _process_group() or _environment_pair() or (0, 1)
        if local_world_size > world_size:
            raise ConfigError(
                f"LOCAL_WORLD_SIZE={local_world_size} is more than world_size={world_size}: "
                "correct the environment, or give rank= and world_size=."
            )
        return cls(rank, world_size, local_rank, local_world_size)


def _process_group() -> tuple[int, int] | None:
    """(rank, world_size) of torch.distributed, if the program has imported and initialised it."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed.get_rank(), distributed.get_world_size()


def _environment_pair() -> tuple[int, int] | None:
    rank, world_size = _integer("RANK"), _integer("WORLD_SIZE")
    if rank is None and world_size is None:
        return None
    if rank is None or world_size is None:
        found, missing = ("WORLD_SIZE", "RANK") if rank is None else ("RANK", "WORLD_SIZE")
        raise ConfigError(
            f"the environment has {found}={os.environ[found]} but no {missing}: set both, or give rank= and "
            "world_size=."
        )
    return rank, world_size


def _local_pair() -> tuple[int, int]:
    # Some launchers set only LOCAL_RANK. Without the size the ranks of a host cannot divide work, so each one
    # acts as if it were alone: the same for all of them, and correct, at worst with too many threads.
    local_rank, local_world_size = _integer("LOCAL_RANK"), _integer("LOCAL_WORLD_SIZE")
    if local_rank is None or local_world_size is None:
        return 0, 1
    return local_rank, local_world_size


def _integer(name: str) -> int | None:
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise ConfigError(
            f"the environment variable {name} must be an integer, got {text!r}: correct or unset it."
        ) from None
