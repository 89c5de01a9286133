"""A user's sampler, iterated once, with a state that can be saved after each draw and restored.

In: any iterable of draws: a sampler, or a batch sampler. Out: its draws. Promised: the sampler is not used
before the first draw, or `begin`. A state is restored by load_state_dict of the sampler, of the one inside
torch's own BatchSampler, or of its iterator. Without one, as many samples are drawn again, with the
generators that the sampler used as they were (generators.py). A checksum tells whether the same samples are
drawn again; it is an error where they depend on anything else, as on global generators after the first draw.
With torch's own BatchSampler samples are counted, so the batch size may change. New draws are made within
`generator_context()`, which may replace torch's global generator.
"""

import contextlib
import copy
import itertools
import sys
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import BatchSampler

from fastload.errors import ConfigError, CursorError
from fastload.loader.orders.generators import (
    generator_state,
    generator_states,
    own_generator,
    restored,
    sampler_chain,
    used_generators,
)
from fastload.world import World


def is_stateful(value: Any) -> bool:
    """Whether it has `state_dict` and `load_state_dict`."""
    return all(callable(getattr(value, name, None)) for name in ("state_dict", "load_state_dict"))


def restore_finished(sampler: Iterable, state: dict) -> None:
    """Leaves `sampler` as a finished iteration left it; `state` is its `SamplerIterator.state()` then.

    The sampler keeps the epoch that set_epoch gave it last.
    """
    epoch = epoch_of(sampler)
    draws = SamplerIterator(sampler, state)
    has_rewound = next(draws, _END) is not _END and state["own"] is not None
    if has_rewound:  # some samplers rewind themselves with their StopIteration: load their state once more
        SamplerIterator(sampler, state).begin()
    set_epoch(sampler, epoch)


def is_sampler_state(state: Any) -> bool:
    """Whether it is a `SamplerIterator.state()`; states of the sampler itself are not looked into."""
    entries = {*Progress._fields, "rank", "epoch", "generators", "own"}
    if not isinstance(state, Mapping) or set(state) != entries:
        return False
    if not all(type(state[name]) is int for name in Progress._fields):
        return False
    if state["own"] is not None:
        return isinstance(state["own"], Mapping)
    return isinstance(state["generators"], Mapping) and {"iter", "first"} <= {*state["generators"]}


def initial_state(sampler: Iterable) -> dict:
    """The `SamplerIterator.state()` of an iteration that nobody has begun: the sampler's own state, or that
    of its own generator. Neither global generators nor the epoch belong to the sampler.
    """
    own = own_generator(sampler)
    generators = {} if own is None else {"own": generator_state(own)}
    return {
        **Progress()._asdict(),
        "rank": current_rank(),
        "epoch": None,
        "generators": {"iter": generators, "first": None},
        "own": _state_of_sampler(sampler),
    }


class Progress(NamedTuple):
    """What was drawn; the names are keys of saved states. taken: draws. samples: those in all draws, where
    the sampler is torch's own BatchSampler, else the draws. crc: CRC-32 of the samples.
    """

    taken: int = 0
    samples: int = 0
    crc: int = 0


class SamplerIterator:
    """One iteration over `sampler`. saved: a `state()` of an equal sampler, at which the iteration begins.

    generator_context(): a context in which the sampler is used, see global_generator.py.
    """

    def __init__(
        self,
        sampler: Iterable,
        saved: dict | None = None,
        generator_context: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    ):
        self._sampler, self._saved, self._generator_context = sampler, saved, generator_context
        self._iterator = None
        self._is_batched = _is_batch_sampler(sampler)
        self.progress = Progress() if saved is None else Progress(*(saved[name] for name in Progress._fields))
        self._before_iter: dict = {}  # states of the generators that iter(sampler) used
        self._before_first: dict | None = None  # of those that the first draw used; None before it
        self._before_repeat: dict = {}  # of the global ones, where the first draw must be repeated

    def __iter__(self) -> "SamplerIterator":
        return self

    def begin(self) -> None:
        """Asks the sampler for its iterator now, as torch's DataLoader does, not with the first draw."""
        with self._generator_context():
            if self._saved is not None:
                self._restore(self._saved)
            else:
                self._make_iterator()

    def _make_iterator(self) -> None:
        before = generator_states(self._sampler)
        self._iterator = iter(self._sampler)
        self._before_iter = used_generators(before, self._sampler) | self._before_iter

    def __next__(self) -> Any:
        if self._iterator is None:
            self.begin()
        with self._generator_context():
            draw = self._next()
        taken, samples, crc = self.progress
        self.progress = Progress(taken + 1, samples + (len(draw) if self._is_batched else 1), _crc(draw, crc))
        return draw

    def _next(self) -> Any:
        if self._before_repeat:
            states, self._before_repeat = self._before_repeat, {}
            with restored(states, self._sampler):
                return next(self._iterator)
        if self._before_first is not None:
            return next(self._iterator)
        before = generator_states(self._sampler)
        draw = next(self._iterator)
        self._before_first = used_generators(before, self._sampler)
        return draw

    def has_own_state(self) -> bool:
        """Whether the sampler or its iterator has a state_dict, which must be saved after each draw."""
        return is_stateful(self._iterator) or _stateful_part(self._sampler) is not None

    def state(self, progress: Progress | None = None) -> dict | None:
        """The state after the last draw, JSON-able where the sampler's own state is; None before it begins.

        {"taken", "samples", "crc": see Progress, "rank": that drew, because trainers load one rank's state on
        all ranks, "epoch": the sampler's, where it has set_epoch, "generators": {"iter", "first"}: name ->
        state before iter(), and before the first draw, of those that it used, "own": the state of the sampler
        or its iterator}. progress: of an earlier draw, whose state is wanted, of a sampler without its own.
        """
        if self._iterator is None and self._saved is not None:
            return self._saved
        own = self._own_state()
        if self._iterator is None and own is None:
            return None
        return {
            **(progress or self.progress)._asdict(),
            "rank": current_rank(),
            "epoch": epoch_of(self._sampler),
            "generators": {"iter": self._before_iter, "first": self._before_first} if own is None else None,
            "own": own,
        }

    def _own_state(self) -> dict | None:
        if is_stateful(self._iterator):
            return {"iterator": copy.deepcopy(self._iterator.state_dict())}
        return _state_of_sampler(self._sampler)

    def _restore(self, saved: dict) -> None:
        set_epoch(self._sampler, saved["epoch"])
        own = saved["own"]
        if own is None:
            self._replay(saved["generators"])
            return
        self._before_first = {}
        stateful = _stateful_part(self._sampler)
        if "sampler" in own and stateful is not None:
            stateful.load_state_dict(copy.deepcopy(own["sampler"]))
        self._iterator = iter(self._sampler)
        if "iterator" in own and is_stateful(self._iterator):
            self._iterator.load_state_dict(copy.deepcopy(own["iterator"]))
        elif "iterator" in own or stateful is None:
            raise CursorError(
                f"the checkpoint holds the state of a sampler, but {type(self._sampler).__name__} has no "
                "load_state_dict. Use the sampler that it was saved with."
            )

    def _replay(self, generators: dict) -> None:
        self._before_iter, self._before_first = generators["iter"], generators["first"]
        if self._before_first is None:
            with restored(self._before_iter, self._sampler):
                self._make_iterator()  # a state saved between epochs may not have seen iter()
            return
        # BatchSampler asks for the iterator with its first draw, so what iter() used may have been saved as
        # "first". Restoring "first" before iter() is harmless where iter() used other generators, or none.
        first = self._before_first
        both = {name: first[name] for name in self._before_iter if name in first}
        with restored(first | self._before_iter, self._sampler):
            iterator = iter(self._sampler.sampler if self._is_batched else self._sampler)
            with restored(both, self._sampler):
                count, crc = _replay_samples(iterator, self.progress.samples)
                if not self.progress.taken:  # the first draw was made ahead of need
                    now = generator_states(None)
                    self._before_repeat = {name: now[name] for name in now if name in first}
        self._iterator = iterator
        if self._is_batched:
            self._iterator = iter(BatchSampler(iterator, self._sampler.batch_size, self._sampler.drop_last))
        self._check(count, crc)

    def _check(self, count: int, crc: int) -> None:
        """Raises CursorError unless the same samples were drawn again."""
        if count < self.progress.samples:
            draws = count // self._sampler.batch_size if self._is_batched else count
            raise CursorError(
                f"the checkpoint was saved after {self.progress.taken} draws, but the sampler makes only "
                f"{draws} now. Use the sampler and the dataset that it was saved with."
            )
        if crc != self.progress.crc and self._saved["rank"] == current_rank():
            name = type(self._sampler.sampler if self._is_batched else self._sampler).__name__
            raise CursorError(
                f"the sampler {name} draws other samples than when the checkpoint was saved. Use the sampler "
                "and the dataset that it was saved with; where they are the same, give the sampler "
                "state_dict and load_state_dict, or a torch.Generator as its `generator`."
            )


def current_rank() -> int:
    """The rank of this process; 0 where the environment is contradictory, which is no error here."""
    try:
        return World.current().rank
    except ConfigError:
        return 0


def epoch_of(sampler: Any) -> int | None:
    """The epoch of a sampler with set_epoch, such as torch's DistributedSampler."""
    for part in sampler_chain(sampler):
        if callable(getattr(part, "set_epoch", None)) and type(getattr(part, "epoch", None)) is int:
            return part.epoch
    return None


def set_epoch(sampler: Any, epoch: int | None) -> None:
    """Forwards an epoch to the sampler, and to the sampler inside it."""
    for part in sampler_chain(sampler):
        if epoch is not None and callable(getattr(part, "set_epoch", None)):
            part.set_epoch(epoch)


_END = object()
_REPLAY_CHUNK = 1024  # samples


def _replay_samples(iterator: Iterator, samples: int) -> tuple[int, int]:
    """Draws so many samples again. Returns how many there were, and their CRC."""
    count = crc = 0
    while chunk := list(itertools.islice(iterator, min(_REPLAY_CHUNK, samples - count))):
        count, crc = count + len(chunk), _crc(chunk, crc)
    return count, crc


def _crc(draw: Any, crc: int) -> int:
    """The CRC-32 continued over numbers and strings, independent of how they are grouped. Of other objects
    only the class counts, because their repr may hold an address in memory.
    """
    items = draw if type(draw) in (list, tuple) else [draw]
    try:
        return zlib.crc32(array("q", items), crc)
    except (TypeError, OverflowError):
        pass
    for item in items:
        if isinstance(item, (np.ndarray, np.generic, torch.Tensor)):
            crc = _crc(item.tolist(), crc)
        elif isinstance(item, (list, tuple)):
            crc = _crc([*item], crc)
        elif isinstance(item, Mapping):
            crc = _crc([*item.items()], crc)
        elif isinstance(item, int):
            size_bytes = max(8, item.bit_length() // 8 + 1)
            crc = zlib.crc32(item.to_bytes(size_bytes, sys.byteorder, signed=True), crc)
        else:
            has_plain_repr = item is None or isinstance(item, (str, bytes, float))
            crc = zlib.crc32((repr(item) if has_plain_repr else type(item).__qualname__).encode(), crc)
    return crc


def _is_batch_sampler(sampler: Any) -> bool:
    """Whether it is torch's own BatchSampler, which draws no more than a batch ahead; a subclass might."""
    return type(sampler) is BatchSampler


def _stateful_part(sampler: Any) -> Any:
    parts = sampler_chain(sampler) if _is_batch_sampler(sampler) else [sampler]
    return next((part for part in parts if is_stateful(part)), None)


def _state_of_sampler(sampler: Any) -> dict | None:
    stateful = _stateful_part(sampler)
    return None if stateful is None else {"sampler": copy.deepcopy(stateful.state_dict())}
