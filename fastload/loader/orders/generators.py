"""The random generators that a sampler or a dataset may draw from, saved and restored.

In: a sampler or a dataset. Out: the states of its own `generator`, if it has one, and of the global
generators of torch, random and NumPy. Promised: states are JSON-able; `restored` puts the global generators
back.
"""

import base64
import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from fastload.errors import CursorError


def generator_state(generator: torch.Generator | None) -> str:
    """The state of a generator as text; None is torch's global one."""
    return encode_state(torch.get_rng_state() if generator is None else generator.get_state())


def set_generator_state(generator: torch.Generator | None, text: str) -> None:
    """Restores what `generator_state` returned; None is torch's global generator."""
    set_state = torch.set_rng_state if generator is None else generator.set_state
    set_state(decode_state(text))


def encode_state(state: torch.Tensor) -> str:
    """The state of a torch generator, [bytes] uint8, as text."""
    return base64.b64encode(state.numpy().tobytes()).decode()


def decode_state(text: str) -> torch.Tensor:
    """The inverse of `encode_state`."""
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)


def generator_states(owner: Any) -> dict:
    """name -> state of every generator that a sampler or a dataset may draw from."""
    states = {name: get() for name, (get, _) in _GLOBAL_GENERATORS.items()}
    own = own_generator(owner)
    return states if own is None else states | {"own": generator_state(own)}


def used_generators(before: dict, owner: Any) -> dict:
    """The entries of `before`, an earlier generator_states(owner), whose generators have been used since."""
    now = generator_states(owner)
    return {name: state for name, state in before.items() if state != now[name]}


@contextlib.contextmanager
def restored(states: dict, owner: Any) -> Iterator[None]:
    """Restores generators for a while; afterwards the global ones continue as if nothing had been drawn."""
    own = own_generator(owner)
    if "own" in states and own is None:
        raise CursorError(
            f"the checkpoint holds the state of a generator, but {type(sampler_chain(owner)[-1]).__name__} "
            "has none. Give it a generator, as when the checkpoint was saved."
        )
    before = {name: _GLOBAL_GENERATORS[name][0]() for name in states if name in _GLOBAL_GENERATORS}
    try:
        for name, state in states.items():
            if name in _GLOBAL_GENERATORS:
                _GLOBAL_GENERATORS[name][1](state)
            else:
                set_generator_state(own, state)
        yield
    finally:
        for name, state in before.items():
            _GLOBAL_GENERATORS[name][1](state)


def own_generator(owner: Any) -> torch.Generator | None:
    """The `generator` of a sampler or a dataset, or of the sampler inside it."""
    found = (getattr(sampler, "generator", None) for sampler in sampler_chain(owner))
    return next((generator for generator in found if isinstance(generator, torch.Generator)), None)


def sampler_chain(sampler: Any) -> list:
    """The sampler, and the sampler inside it, if there is one."""
    return [sampler, sampler.sampler] if hasattr(sampler, "sampler") else [sampler]


def _get_random() -> list:
    version, words, gauss = random.getstate()
    return [version, list(words), gauss]


def _set_random(state: list) -> None:
    version, words, gauss = state
    random.setstate((version, tuple(words), gauss))


def _get_numpy() -> list:
    name, words, *rest = np.random.get_state()
    return [name, words.tolist(), *rest]


_GLOBAL_GENERATORS = {
    "torch": (lambda: generator_state(None), lambda state: set_generator_state(None, state)),
    "random": (_get_random, _set_random),
    "numpy": (_get_numpy, lambda state: np.random.set_state(tuple(state))),
}
