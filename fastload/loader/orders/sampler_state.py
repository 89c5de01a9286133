"""A sampler of yours, iterated once, with a place that can be saved after each draw and found again.

In: any iterable of what is to be drawn: a sampler, or a batch sampler. Out: its draws. Promised: nothing is
asked of it before the first draw, or before `begin`; a place is found again by the sampler's own state_dict
(of the sampler, of the one inside torch's own BatchSampler, or of its iterator), else by drawing again as
many samples, with the generators that it drew from as they were: its `generator`, or the global ones of
torch, random and NumPy, which are then given back as they are now. A checksum tells whether what is drawn
again is what was drawn then: what depends on anything else, as on global generators after the first draw, is
an error. A place within torch's own BatchSampler is one of samples, whatever the batch size. What was not
drawn yet is drawn within `drawing()`, which may put another generator in the place of torch's global one.
"""

import base64
import contextlib
import copy
import itertools
import random
import sys
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import BatchSampler

from fastload.errors import ConfigError, CursorError
from fastload.world import World


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


def is_place(state: Any) -> bool:
    """Whether it is a `Draws.state()`, as far as that is ours."""
    entries = {*Passed._fields, "rank", "epoch", "generators", "own"}
    if not isinstance(state, Mapping) or set(state) != entries:
        return False
    own, generators = state["own"], state["generators"]
    counts = all(type(state[name]) is int for name in Passed._fields)
    if own is not None:
        return counts and isinstance(own, Mapping)
    return counts and isinstance(generators, Mapping) and {"iter", "first"} <= {*generators}


def place_before(sampler: Iterable) -> dict:
    """The place, as `Draws.state()` has it, before an iteration over `sampler` that nobody has begun: its own
    state, or that of its own generator. Global generators are not the sampler's to save, nor is its epoch.
    """
    own, holder = _own_generator(sampler), _stateful_part(sampler)
    generators = {} if own is None else {"own": generator_state(own)}
    return {
        **Passed()._asdict(),
        "rank": rank_here(),
        "epoch": None,
        "generators": {"iter": generators, "first": None},
        "own": None if holder is None else {"sampler": copy.deepcopy(holder.state_dict())},
    }


class Passed(NamedTuple):
    """What was drawn: how many draws, samples (those in a draw of torch's own BatchSampler), and a CRC-32."""

    taken: int = 0
    samples: int = 0
    crc: int = 0


class Draws:
    """One iteration over `sampler`. restored: a `state()` of one over an equal sampler, where it begins.

    drawing(): a context for all that asks something of the sampler, see global_generator.py.
    """

    def __init__(
        self,
        sampler: Iterable,
        restored: dict | None = None,
        drawing: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    ):
        self._sampler, self._restored, self._drawing = sampler, restored, drawing
        self._iterator = None
        self._grouped = _is_grouped(sampler)
        self.passed = Passed() if restored is None else _passed_of(restored)
        self._at_iter: dict = {}  # the generators that iter(sampler) used, as they were before it
        self._at_first: dict | None = None  # those that the first draw used; None before it
        self._again: dict = {}  # of these the global ones, where the first draw is to be made once more

    def __iter__(self) -> "Draws":
        return self

    def begin(self) -> None:
        """Asks the sampler for its iterator now, as torch's DataLoader does, not with the first draw."""
        with self._drawing():
            if self._restored is not None:
                self._find(self._restored)
            else:
                self._ask_for_iterator()

    def _ask_for_iterator(self) -> None:
        before = generators_of(self._sampler)
        self._iterator = iter(self._sampler)
        self._at_iter = used_since(before, self._sampler) | self._at_iter

    def __next__(self) -> Any:
        if self._iterator is None:
            self.begin()
        with self._drawing():
            drawn = self._next()
        taken, samples, crc = self.passed
        self.passed = Passed(taken + 1, samples + (len(drawn) if self._grouped else 1), _crc(drawn, crc))
        return drawn

    def _next(self) -> Any:
        if self._again:
            again, self._again = self._again, {}
            with as_they_were(again, self._sampler):
                return next(self._iterator)
        if self._at_first is not None:
            return next(self._iterator)
        before = generators_of(self._sampler)
        drawn = next(self._iterator)
        self._at_first = used_since(before, self._sampler)
        return drawn

    def has_own_place(self) -> bool:
        """Whether the place is a state of the sampler or its iterator, to be asked for after each draw."""
        return is_stateful(self._iterator) or _stateful_part(self._sampler) is not None

    def state(self, passed: Passed | None = None) -> dict | None:
        """The place after the last draw, JSON-able where the sampler's own state is; None before it begins.

        {"taken", "samples", "crc": as Passed has them, "rank": whose draws these are, since trainers load
        one rank's state on all, "epoch": the sampler's, where it has set_epoch,
        "generators": {"iter", "first"}: what iter() and the first draw used, as name -> state before, "own":
        the sampler's or its iterator's state}. passed: of an earlier draw, whose place it then is, of a
        sampler without a state of its own.
        """
        if self._iterator is None and self._restored is not None:
            return self._restored
        own = self._own_state()
        if self._iterator is None and own is None:
            return None
        return {
            **(passed or self.passed)._asdict(),
            "rank": rank_here(),
            "epoch": epoch_of(self._sampler),
            "generators": {"iter": self._at_iter, "first": self._at_first} if own is None else None,
            "own": own,
        }

    def _own_state(self) -> dict | None:
        if is_stateful(self._iterator):
            return {"iterator": copy.deepcopy(self._iterator.state_dict())}
        holder = _stateful_part(self._sampler)
        return None if holder is None else {"sampler": copy.deepcopy(holder.state_dict())}

    def _find(self, restored: dict) -> None:
        """Begins where `restored` says."""
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
        if self._at_first is None:
            with as_they_were(self._at_iter, self._sampler):
                self._ask_for_iterator()  # which nobody may have done when a state was saved between epochs
            return
        # BatchSampler asks for the iterator with its first draw: what that used is in "first", if it was
        # saved so. To begin with "first" is harmless where iter() used something else, or nothing.
        first = self._at_first
        with as_they_were(first | self._at_iter, self._sampler):
            singly = iter(self._sampler.sampler if self._grouped else self._sampler)
            with as_they_were({name: first[name] for name in self._at_iter if name in first}, self._sampler):
                drawn, crc = _drawn_again(singly, self.passed.samples)
                if not self.passed.taken:  # the first was drawn ahead of need
                    self._again = {name: get() for name, (get, _) in _GLOBAL.items() if name in first}
        self._iterator = singly
        if self._grouped:
            self._iterator = iter(BatchSampler(singly, self._sampler.batch_size, self._sampler.drop_last))
        self._check(drawn, crc)

    def _check(self, drawn: int, crc: int) -> None:
        """Raises CursorError where what was drawn again is not what was drawn."""
        if drawn < self.passed.samples:
            makes = drawn // self._sampler.batch_size if self._grouped else drawn
            raise CursorError(
                f"the checkpoint was saved after {self.passed.taken} draws, and the sampler makes {makes} "
                "now. Use the sampler and the dataset that it was saved with."
            )
        if crc != self.passed.crc and self._restored["rank"] == rank_here():
            name = type(self._sampler.sampler if self._grouped else self._sampler).__name__
            raise CursorError(
                f"the sampler {name} draws other samples than when the checkpoint was saved. Use the sampler "
                "and the dataset that it was saved with; where they are the same, give the sampler "
                "state_dict and load_state_dict, or a torch.Generator as its `generator`."
            )


def generator_state(generator: "torch.Generator | None") -> str:
    """The state of a generator as text; None is torch's global one."""
    return text_of_state(torch.get_rng_state() if generator is None else generator.get_state())


def set_generator(generator: "torch.Generator | None", state: str) -> None:
    """Puts a generator where `generator_state` found it; None is torch's global one."""
    torch.set_rng_state(state_of_text(state)) if generator is None else generator.set_state(
        state_of_text(state)
    )


def text_of_state(state: torch.Tensor) -> str:
    """A generator's state, [bytes] uint8, as text; `state_of_text` is the other way."""
    return base64.b64encode(state.numpy().tobytes()).decode()


def state_of_text(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)


def rank_here() -> int:
    """This process's; 0 where an environment does not say it well, which is the sampler's business here."""
    try:
        return World.current().rank
    except ConfigError:
        return 0


def generators_of(one: Any) -> dict:
    """name -> state of all generators that a sampler or a dataset may draw from."""
    states = {name: get() for name, (get, _) in _GLOBAL.items()}
    own = _own_generator(one)
    return states if own is None else states | {"own": generator_state(own)}


def used_since(before: dict, one: Any) -> dict:
    """Those of `generators_of(one)` that have gone on since, as they were before."""
    after = generators_of(one)
    return {name: state for name, state in before.items() if state != after[name]}


@contextlib.contextmanager
def as_they_were(states: dict, one: Any) -> Iterator[None]:
    """Puts the generators of `states` back for a while; the global ones are then again what they are now."""
    own = _own_generator(one)
    if "own" in states and own is None:
        raise CursorError(
            f"the checkpoint holds the state of a generator, and {type(_parts(one)[-1]).__name__} has none. "
            "Give it a generator, as when it was saved."
        )
    now = {name: _GLOBAL[name][0]() for name in states if name in _GLOBAL}
    try:
        for name, state in states.items():
            _GLOBAL[name][1](state) if name in _GLOBAL else set_generator(own, state)
        yield
    finally:
        for name, state in now.items():
            _GLOBAL[name][1](state)


_NOTHING = object()
_AT_ONCE = 1024  # samples that are drawn again


def _passed_of(state: dict) -> Passed:
    return Passed(*(state[name] for name in Passed._fields))


def _drawn_again(iterator: Iterator, samples: int) -> tuple[int, int]:
    """How many of so many samples the iterator gave, and their CRC."""
    drawn = crc = 0
    while some := list(itertools.islice(iterator, min(_AT_ONCE, samples - drawn))):
        drawn, crc = drawn + len(some), _crc(some, crc)
    return drawn, crc


def _crc(drawn: Any, crc: int) -> int:
    """`crc` gone on over numbers and strings, one by one, however they are grouped; of other objects it sees
    only the class, because their text may tell where they lie in memory.
    """
    some = drawn if type(drawn) in (list, tuple) else [drawn]
    try:
        return zlib.crc32(array("q", some), crc)
    except (TypeError, OverflowError):
        pass
    for one in some:
        if isinstance(one, (np.ndarray, np.generic, torch.Tensor)):
            crc = _crc(one.tolist(), crc)
        elif isinstance(one, (list, tuple)):
            crc = _crc([*one], crc)
        elif isinstance(one, Mapping):
            crc = _crc([*one.items()], crc)
        elif isinstance(one, int):
            size_bytes = max(8, one.bit_length() // 8 + 1)
            crc = zlib.crc32(one.to_bytes(size_bytes, sys.byteorder, signed=True), crc)
        else:
            known = one is None or isinstance(one, (str, bytes, float))
            crc = zlib.crc32((repr(one) if known else type(one).__qualname__).encode(), crc)
    return crc


def _is_grouped(sampler: Any) -> bool:
    """Whether it is torch's own BatchSampler, which never draws more than its batch holds; a subclass may."""
    return type(sampler) is BatchSampler


def _parts(sampler: Any) -> list:
    """The sampler, and the one that it draws from."""
    return [sampler, sampler.sampler] if hasattr(sampler, "sampler") else [sampler]


def _stateful_part(sampler: Any) -> Any:
    parts = _parts(sampler) if _is_grouped(sampler) else [sampler]
    return next((part for part in parts if is_stateful(part)), None)


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
