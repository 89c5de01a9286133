"""A sampler of yours, iterated once, with a place that can be saved after each draw and found again.

In: any iterable of what is to be drawn: a sampler, or a batch sampler. Out: its draws. Promised: nothing is
asked of it before the first draw, or before `begin`; a place is found again by the sampler's own state_dict
(of the sampler, of the one inside a torch BatchSampler, or of its iterator), else by drawing again as many
times, with the generators that it drew from as they were: its own, or the global ones of torch, random and
NumPy, which are then given back as they are now. Not found again is what a sampler without state_dict draws
from global generators after its first draw; torch's samplers draw everything at once.
"""

import base64
import copy
import itertools
import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from fastload.errors import CursorError


def is_stateful(one: Any) -> bool:
    """Whether it has a place of its own: `state_dict` and `load_state_dict`."""
    return all(callable(getattr(one, name, None)) for name in ("state_dict", "load_state_dict"))


def pass_over(sampler: Iterable, state: dict) -> None:
    """Leaves `sampler` as an iteration left it that has ended; `state` is its `Draws.state()` then.

    A sampler that is told its epoch keeps the one that it was told last.
    """
    told = epoch_of(sampler)
    draws = Draws(sampler, state)
    starts_anew = next(draws, _NOTHING) is not _NOTHING and state["own"] is not None
    if starts_anew:  # some samplers rewind themselves with their StopIteration: their state is a beginning
        Draws(sampler, state).begin()
    set_epoch(sampler, told)


def place_before(sampler: Iterable) -> dict:
    """The place, as `Draws.state()` has it, before an iteration over `sampler` that nobody has begun: its own
    state, or that of its own generator. Global generators are not the sampler's to save, nor is its epoch.
    """
    own, holder = _own_generator(sampler), _stateful_part(sampler)
    generators = {} if own is None else {"own": generator_state(own)}
    return {
        "taken": 0,
        "epoch": None,
        "generators": {"iter": generators, "first": None},
        "own": None if holder is None else {"sampler": copy.deepcopy(holder.state_dict())},
    }


class Draws:
    """One iteration over `sampler`. restored: a `state()` of one over an equal sampler, where it begins."""

    def __init__(self, sampler: Iterable, restored: dict | None = None):
        self._sampler, self._restored = sampler, restored
        self._iterator = None
        self._taken = 0
        self._at_iter: dict = {}  # the generators that iter(sampler) used, as they were before it
        self._at_first: dict | None = None  # those that the first draw used; None before it

    def __iter__(self) -> "Draws":
        return self

    def begin(self) -> None:
        """Asks the sampler for its iterator now, as torch's DataLoader does, not with the first draw."""
        if self._restored is not None:
            self._find(self._restored)
        else:
            before = _generators_of(self._sampler)
            self._iterator = iter(self._sampler)
            self._at_iter = self._used_since(before)

    def __next__(self) -> Any:
        if self._iterator is None:
            self.begin()
        if self._at_first is not None:
            drawn = next(self._iterator)
        else:
            before = _generators_of(self._sampler)
            drawn = next(self._iterator)
            self._at_first = self._used_since(before)
        self._taken += 1
        return drawn

    def has_own_place(self) -> bool:
        """Whether the place is a state of the sampler or its iterator, to be asked for after each draw."""
        return is_stateful(self._iterator) or _stateful_part(self._sampler) is not None

    def state(self) -> dict | None:
        """The place after the last draw, JSON-able where the sampler's own state is; None before it begins.

        {"taken": draws, "epoch": the sampler's, where it has set_epoch, "generators": {"iter", "first"}: what
        iter() and the first draw used, as name -> state before, "own": the sampler's or its iterator's
        state}.
        """
        if self._iterator is None and self._restored is not None:
            return self._restored
        own = self._own_state()
        if self._iterator is None and own is None:
            return None
        return {
            "taken": self._taken,
            "epoch": epoch_of(self._sampler),
            "generators": {"iter": self._at_iter, "first": self._at_first} if own is None else None,
            "own": own,
        }

    def _used_since(self, before: dict) -> dict:
        after = _generators_of(self._sampler)
        return {name: one for name, one in before.items() if one != after[name]}

    def _own_state(self) -> dict | None:
        if is_stateful(self._iterator):
            return {"iterator": copy.deepcopy(self._iterator.state_dict())}
        holder = _stateful_part(self._sampler)
        return None if holder is None else {"sampler": copy.deepcopy(holder.state_dict())}

    def _find(self, restored: dict) -> None:
        """Begins where `restored` says."""
        self._taken = restored["taken"]
        set_epoch(self._sampler, restored["epoch"])
        own = restored["own"]
        if own is None:
            self._replay(restored["generators"])
            return
        self._at_first = {}
        holder = _stateful_part(self._sampler)
        if "sampler" in own and holder is not None:
            holder.load_state_dict(copy.deepcopy(own["sampler"]))
        self._iterator = iter(self._sampler)
        if "iterator" in own and is_stateful(self._iterator):
            self._iterator.load_state_dict(copy.deepcopy(own["iterator"]))
        elif "iterator" in own or holder is None:
            raise CursorError(
                f"the checkpoint holds the own state of a sampler, and {type(self._sampler).__name__} has no "
                "load_state_dict. Use the sampler that it was saved with."
            )

    def _replay(self, generators: dict) -> None:
        self._at_iter, self._at_first = generators["iter"], generators["first"]
        now = {name: get() for name, (get, _) in _GLOBAL.items()}
        try:
            self._set_generators(self._at_iter)
            self._iterator = iter(self._sampler)
            self._set_generators(self._at_first or {})
            drawn = sum(1 for _ in itertools.islice(self._iterator, self._taken))
        finally:
            for name in {*self._at_iter, *(self._at_first or {})} & set(_GLOBAL):
                _GLOBAL[name][1](now[name])
        if drawn < self._taken:
            raise CursorError(
                f"the checkpoint was saved after {self._taken} draws, and the sampler makes {drawn} now. Use "
                "the sampler, the dataset and the batch size that it was saved with."
            )

    def _set_generators(self, states: dict) -> None:
        own = _own_generator(self._sampler)
        for name, state in states.items():
            if name in _GLOBAL:
                _GLOBAL[name][1](state)
            elif own is not None:
                set_generator(own, state)


def generator_state(generator: "torch.Generator | None") -> str:
    """The state of a generator as text; None is torch's global one."""
    return _text(torch.get_rng_state() if generator is None else generator.get_state())


def set_generator(generator: "torch.Generator | None", state: str) -> None:
    """Puts a generator where `generator_state` found it; None is torch's global one."""
    torch.set_rng_state(_tensor(state)) if generator is None else generator.set_state(_tensor(state))


_NOTHING = object()


def _parts(sampler: Any) -> list:
    """The sampler, and the one that a torch BatchSampler groups."""
    return [sampler, sampler.sampler] if hasattr(sampler, "sampler") else [sampler]


def _stateful_part(sampler: Any) -> Any:
    return next((part for part in _parts(sampler) if is_stateful(part)), None)


def epoch_of(sampler: Any) -> int | None:
    """The epoch of a sampler that is told it, as torch's DistributedSampler is."""
    for part in _parts(sampler):
        if callable(getattr(part, "set_epoch", None)) and type(getattr(part, "epoch", None)) is int:
            return part.epoch
    return None


def set_epoch(sampler: Any, epoch: int | None) -> None:
    for part in _parts(sampler):
        if epoch is not None and callable(getattr(part, "set_epoch", None)):
            part.set_epoch(epoch)


def _own_generator(sampler: Any) -> "torch.Generator | None":
    found = (getattr(part, "generator", None) for part in _parts(sampler))
    return next((one for one in found if isinstance(one, torch.Generator)), None)


def _generators_of(sampler: Any) -> dict:
    """name -> state of all generators that it may draw from."""
    states = {name: get() for name, (get, _) in _GLOBAL.items()}
    own = _own_generator(sampler)
    return states if own is None else states | {"own": generator_state(own)}


def _text(state: torch.Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)


def _get_random() -> list:
    version, words, gauss = random.getstate()
    return [version, list(words), gauss]


def _set_random(state: list) -> None:
    version, words, gauss = state
    random.setstate((version, tuple(words), gauss))


def _get_numpy() -> list:
    name, words, *rest = np.random.get_state()
    return [name, words.tolist(), *rest]


_GLOBAL = {
    "torch": (lambda: generator_state(None), lambda state: set_generator(None, state)),
    "random": (_get_random, _set_random),
    "numpy": (_get_numpy, lambda state: np.random.set_state(tuple(state))),
}
