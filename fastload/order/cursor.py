"""What a checkpoint stores: the place in the endless order, and fingerprints of what the place is counted in.

In: the fields, or a dictionary that `to_dict` made, perhaps through JSON or torch.save. Out: a Cursor.
Promised: `from_dict(to_dict(cursor)) == cursor`; a dictionary of another kind or of an unknown version is
refused with the part that is wrong; `differing` names the parts in which two cursors' orders, or pixels, are
not the same. What follows from a difference is the loader's question.
"""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fastload.errors import CursorError
from fastload.opaque import leaf, value_of
from fastload.order.mixture import WAY_OUT, MixtureState, integers
from fastload.order.sample_order import OrderState

CURSOR_VERSION = 3
VERSION_OF_0_1_0 = 2

Fingerprints = Mapping[str, str | int | None]


@dataclass(frozen=True)
class Cursor:
    """epoch: the epoch being loaded. place: the next step starts there, or after.

    order: part -> fingerprint of what the order is made of (seed, plan, window, source).
    pixels: the same of what is made of a sample (image fields, augment, dtype, decode).
    made_with: the shares with which a mixture was made, before anyone changed them; None for one source.
    inventory: source -> what was remembered of its data, for messages (fastload/shards/inventory.py).
    version: of the layout. That of 0.1.0 has no inventory, and in `order` a "source" of all samples, and a
        "selection" of those that are selected.
    """

    epoch: int
    place: OrderState
    order: Fingerprints
    pixels: Fingerprints
    made_with: Sequence[int] | None = None
    inventory: Mapping[str, Sequence] = field(default_factory=dict)
    version: int = CURSOR_VERSION

    def to_dict(self) -> dict:
        """The fields as a dictionary of integers and strings that JSON keeps as they are."""
        place, mixture = self.place, None
        if place.mixture is not None:
            mixture = {
                "now": place.mixture.to_dict(),
                "epoch": place.epoch_mixture.to_dict(),
                "made_with": list(self.made_with),
            }
        state = {
            "version": self.version,
            "epoch": self.epoch,
            "position": place.position,
            "order": dict(self.order),
            "pixels": dict(self.pixels),
            "mixture": mixture,
        }
        if self.version != VERSION_OF_0_1_0:
            state["inventory"] = {source: list(one) for source, one in self.inventory.items()}
        return state if place.draws is None else state | {DRAWS: _draws_entry(place.draws)}

    @classmethod
    def from_dict(cls, state: dict) -> "Cursor":
        """The cursor that `to_dict` wrote.

        Raises CursorError for a missing or unknown entry, one of another type, a negative number, numbers
        that do not belong together, or an unknown version.
        """
        if not isinstance(state, dict):
            raise CursorError(f"a cursor is a dictionary, not a {type(state).__name__}: {WAY_OUT}")
        # First, because another version may have other entries.
        version = _checked_version(state.get("version"))
        entries = _ENTRIES if version == VERSION_OF_0_1_0 else (*_ENTRIES, "inventory")
        missing = [name for name in entries if name not in state]
        unknown = sorted(str(name) for name in state if name not in (*entries, DRAWS))
        if missing or unknown:
            wrong = [f"no {name!r}" for name in missing] + [f"an unknown {name!r}" for name in unknown]
            raise CursorError(f"the cursor has {', '.join(wrong)}: {WAY_OUT}")
        for name in ("epoch", "position"):
            value = state[name]
            if type(value) is not int or value < 0:
                raise CursorError(f"the cursor's {name} is {value!r}, not an integer from 0 up: {WAY_OUT}")
        for name in ("order", "pixels"):
            _check_fingerprints(name, state[name])
        place, made_with = _place_of(state["position"], state["mixture"])
        if DRAWS in state:
            place = dataclasses.replace(place, draws=_draws_of(state[DRAWS]))
        inventory = _inventory_of(state.get("inventory", {}))
        prints = dict(state["order"]), dict(state["pixels"])
        return cls(state["epoch"], place, *prints, made_with, inventory, version)


def differing(then: Fingerprints, now: Fingerprints) -> list[str]:
    """Which parts differ, each in words: "seed (0 then, 1 now)"; without the values where they are hashes."""
    words = []
    for name in {**then, **now}:
        before, after = then.get(name), now.get(name)
        if before != after and (name not in now or name not in then):
            words.append(f"{name} ({'new' if name in now else 'gone'})")
        elif before != after:
            told = not any(isinstance(value, str) and _is_hash(value) for value in (before, after))
            words.append(f"{name} ({before} then, {after} now)" if told else name)
    return words


DRAWS = "draws"  # there only where a sampler of the user's draws
_DRAWS = {"taken", "samples", "crc", "rank", "epoch", "generators", "own"}
_LEAVES = ("generators", "own")  # of these: they differ in shape from place to place
_GENERATOR = "global_generator"  # torch's, as text; states of fastload 0.1.0 have none
_ENTRIES = ("version", "epoch", "position", "order", "pixels", "mixture")


def _place_of(position: int, mixture) -> tuple[OrderState, tuple[int, ...] | None]:
    """The place of these entries of a cursor, and the shares with which its mixture was made."""
    if mixture is None:
        return OrderState(position), None
    if not isinstance(mixture, Mapping) or set(mixture) != {"now", "epoch", "made_with"}:
        raise CursorError(f"the cursor's mixture is {mixture!r}: {WAY_OUT}")
    now, at_epoch = (MixtureState.from_dict(mixture[name]) for name in ("now", "epoch"))
    made_with = integers("made_with", mixture["made_with"])
    sources = {len(shares) for shares in (now.shares, at_epoch.shares, made_with)}
    if len(sources) > 1 or now.position != position or at_epoch.position > position:
        raise CursorError(f"the cursor's mixture is not the one of position {position}: {WAY_OUT}")
    return OrderState(position, now, at_epoch), made_with


def _draws_entry(draws: dict) -> dict:
    """What `_draws_of` reads: the same shape for every place of a sampler."""
    draws = {_GENERATOR: None} | copy.deepcopy(draws)
    return draws | {name: leaf(draws[name]) for name in _LEAVES}


def _draws_of(draws) -> dict:
    """The place of a sampler, judged as far as it is ours."""
    good = isinstance(draws, Mapping) and set(draws) - {_GENERATOR} == _DRAWS
    good = good and isinstance(draws.get(_GENERATOR), str | None)
    if not good or type(draws["taken"]) is not int or draws["taken"] < 0:
        raise CursorError(f"the cursor's draws are {str(draws)[:200]}, no place of a sampler: {WAY_OUT}")
    values = {name: value_of(draws[name]) for name in _LEAVES}
    if values["own"] is None and not isinstance(values["generators"], Mapping):
        raise CursorError(f"the cursor's draws are {str(draws)[:200]}, no place of a sampler: {WAY_OUT}")
    return {_GENERATOR: None} | copy.deepcopy(dict(draws) | values)


def _is_hash(text: str) -> bool:
    return len(text) >= 16 and all(digit in "0123456789abcdef" for digit in text)


def _check_fingerprints(name: str, prints) -> None:
    good = isinstance(prints, Mapping) and all(
        isinstance(part, str) and (value is None or type(value) in (str, int))
        for part, value in prints.items()
    )
    if not good:
        raise CursorError(f"the cursor's {name} is {prints!r}, no table of fingerprints: {WAY_OUT}")


def _inventory_of(inventory) -> dict[str, list]:
    """What is remembered of each source; what it says is read in shards/inventory.py."""
    good = isinstance(inventory, Mapping) and all(
        isinstance(source, str) and isinstance(one, (list, tuple)) for source, one in inventory.items()
    )
    if not good:
        raise CursorError(f"the cursor's inventory is {str(inventory)[:200]}, no table of sources: {WAY_OUT}")
    return {source: list(one) for source, one in inventory.items()}


def _checked_version(version) -> int:
    if type(version) is not int:
        raise CursorError(f"the cursor's version is {version!r}, not an integer: {WAY_OUT}")
    if version not in (VERSION_OF_0_1_0, CURSOR_VERSION):
        raise CursorError(
            f"the cursor has version {version}, this fastload reads versions {VERSION_OF_0_1_0} and "
            f"{CURSOR_VERSION}: resume with the fastload that wrote it."
        )
    return version
