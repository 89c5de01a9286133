"""torch's global CPU generator as one loader draws from it, for the orders of samplers and seeds of workers.

In: the state of the generator in a checkpoint. Out: the generator to draw from. Promised: without a
checkpoint it is the global generator. After a load it is still the global one where the program restores
that itself: when the first iteration begins, its state is the saved one, or it has been seeded since the
load with another seed than the saved one. Otherwise it is a private copy of the saved generator, used by
this loader alone, and the global one stays as it was: later epochs are those of an uninterrupted run, if
nothing else draws from the global generator in that run. Seeding the global generator later, or within a
draw, drops the private copy. The generator of another rank counts only in programs that seed all ranks
alike.
"""

import contextlib
from collections.abc import Iterator

import torch

from fastload.errors import CursorError
from fastload.loader.orders.generators import decode_state, encode_state
from fastload.loader.orders.sampler_state import current_rank


class GlobalGenerator:
    """Of one loader. Saved states are texts, as `generators.generator_state` returns them."""

    def __init__(self) -> None:
        self._saved: torch.Tensor | None = None  # loaded, until an iteration begins
        self._rank = 0  # that saved it
        self._private: torch.Tensor | None = None  # state of the private copy; None: the global one is used
        self._seen: torch.Tensor | None = None  # state of the global one at the load, or the last beginning
        self._is_swapped = False

    def load(self, saved: str | None, rank: int) -> None:
        """Takes over the generator that `rank` saved; None: the global one is used. Raises CursorError."""
        self._saved = None if saved is None else _checked(saved)
        self._rank, self._private, self._seen = rank, None, torch.get_rng_state()

    def begin(self) -> None:
        """Called when an iteration begins: has the program restored or seeded the global generator?"""
        if self._saved is None and self._private is None:
            return
        now = torch.get_rng_state()
        if self._saved is not None:
            self._private, self._saved = self._chosen(self._saved, now), None
        elif torch.equal(now, self._private) or self._was_seeded(now):
            self._private = None
        self._seen = now

    def state(self) -> str:
        """What a checkpoint must hold."""
        states = (self._saved, self._private)
        return encode_state(next((state for state in states if state is not None), torch.get_rng_state()))

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """A context in which torch's global generator is the one to draw from."""
        if self._private is None or self._is_swapped:
            yield
            return
        before = torch.get_rng_state()
        torch.set_rng_state(self._private)
        seed, self._is_swapped = torch.initial_seed(), True
        try:
            yield
        finally:
            self._is_swapped = False
            if torch.initial_seed() == seed:
                self._private = torch.get_rng_state()
                torch.set_rng_state(before)
            else:  # the sampler or dataset has called torch.manual_seed
                self._private = None

    def _chosen(self, saved: torch.Tensor, now: torch.Tensor) -> torch.Tensor | None:
        """The state of the private copy, or None where the global generator is used."""
        if torch.equal(now, saved):
            return None
        has_other_seed = torch.initial_seed() != _seed(saved)
        if has_other_seed and (self._was_seeded(now) or self._rank != current_rank()):
            return None
        return saved

    def _was_seeded(self, now: torch.Tensor) -> bool:
        """Whether the program has seeded the global generator since `_seen`. With the same seed as before
        this shows only where the generator had been used, and has not been used since.
        """
        seed = torch.initial_seed()
        if seed != _seed(self._seen):
            return True
        fresh = torch.Generator().manual_seed(seed).get_state()
        return torch.equal(now, fresh) and not torch.equal(now, self._seen)


def _seed(state: torch.Tensor) -> int:
    generator = torch.Generator()
    generator.set_state(state)
    return generator.initial_seed()


def _checked(text: str) -> torch.Tensor:
    try:
        state = decode_state(text)
        torch.Generator().set_state(state)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CursorError(
            f"the checkpoint's global generator must be the state of a torch generator, got "
            f"{str(text)[:40]!r} ({str(error)[:80]}). Pass what state_dict() returned."
        ) from error
    return state
