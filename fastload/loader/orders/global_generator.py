"""torch's global CPU generator, as one loader draws from it: its samplers' orders and its workers' seeds.

In: what a state saved of the generator. Out: the generator to draw from. Promised: without a load it is the
global one. After a load it is the global one where the program has put that back itself: it is as it was
saved when the first iteration begins, or it was seeded after the load with another seed than it had when it
was saved. Else it is a private copy of the saved one, from which this loader alone draws, so that its later
epochs are those of a run that was never interrupted, wherever nothing else draws from the global generator in
that run; the program's own is then as it was, after each draw. Who seeds the global generator anew later on,
or within a draw, means that: the private copy is dropped. A generator of another rank counts only for
programs that seed all ranks alike.
"""

import contextlib
from collections.abc import Iterator

import torch

from fastload.errors import CursorError
from fastload.loader.orders.sampler_state import rank_here, state_of_text, text_of_state


class GlobalGenerator:
    """Of one loader. Its texts are what `sampler_state.generator_state` makes of a generator."""

    def __init__(self):
        self._saved: torch.Tensor | None = None  # by a state that was loaded, until an iteration begins
        self._rank = 0  # that saved it
        self._private: torch.Tensor | None = None  # where the private copy is; None: the global one counts
        self._seen: torch.Tensor | None = None  # the global one, at the load or when an iteration began
        self._is_swapped = False

    def load(self, saved: str | None, rank: int) -> None:
        """What a state says. None: nothing, and the global one counts. Raises CursorError for no text of a
        generator.
        """
        self._saved = None if saved is None else _checked(saved)
        self._rank, self._private, self._seen = rank, None, torch.get_rng_state()

    def begin(self) -> None:
        """An iteration begins: looks at what the program has done to the global generator since the last."""
        if self._saved is None and self._private is None:
            return
        now = torch.get_rng_state()
        if self._saved is not None:
            self._private, self._saved = self._chosen(self._saved, now), None
        elif torch.equal(now, self._private) or self._is_seeded_anew(now):
            self._private = None
        self._seen = now

    def state(self) -> str:
        """What a state has to hold."""
        for one in (self._saved, self._private):
            if one is not None:
                return text_of_state(one)
        return text_of_state(torch.get_rng_state())

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """While it lasts, the global generator is the one to draw from."""
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
            else:  # what draws has seeded all that draw
                self._private = None

    def _chosen(self, saved: torch.Tensor, now: torch.Tensor) -> torch.Tensor | None:
        """The private copy to be, or None where the global one counts."""
        if torch.equal(now, saved):
            return None
        with_another_seed = torch.initial_seed() != _seed(saved)
        if with_another_seed and (self._is_seeded_anew(now) or self._rank != rank_here()):
            return None
        return saved

    def _is_seeded_anew(self, now: torch.Tensor) -> bool:
        """Whether the program has seeded the global one since `_seen`. That it did so with the same seed is
        known only where something had drawn from it, and nothing has since.
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
        state = state_of_text(text)
        torch.Generator().set_state(state)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CursorError(
            f"the checkpoint's global generator is {str(text)[:40]!r}, no state of a torch generator "
            f"({str(error)[:80]}): pass what state_dict() returned."
        ) from error
    return state
