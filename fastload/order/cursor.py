"""What a checkpoint stores: a state of the endless order, and fingerprints of the order that it belongs to.

In: the fields, or a dictionary that `to_dict` made, perhaps through JSON or torch.save. Out: a Cursor.
Promised: `from_dict(to_dict(cursor)) == cursor`; a dictionary of another kind or of an unknown version is
refused, and the error names the wrong entry; `differing` names the parts in which the orders, or the pixels,
of two cursors differ. What follows from a difference is up to the loader.
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
    """epoch: the epoch being loaded. state: where the next step starts, or before it.

    order: part -> fingerprint of what determines the order (seed, plan, window, source).
    pixels: the same for what determines a sample's pixels (image fields, augment, dtype, decode).
    made_with: the shares that a mixture was created with, before any change; None for one source.
    inventory: source -> what was remembered of its data, for messages (fastload/shards/inventory.py).
    version: of the layout. Version 0.1.0's has no inventory; its `order` has a "source" of all samples and a
        "selection" of the selected ones.
    """

    epoch: int
    state: OrderState
    order: Fingerprints
    pixels: Fingerprints
    made_with: Sequence[int] | None = None
    inventory: Mapping[str, Sequence] = field(default_factory=dict)
    version: int = CURSOR_VERSION

    def to_dict(self) -> dict:
        """The fields as a dictionary of integers and strings, which survives JSON unchanged."""
        state, mixture = self.state, None
        if state.mixture is not None:
            mixture = {
                "now": state.mixture.to_dict(),
                "epoch": state.epoch_mixture.to_dict(),
                "made_with": list(self.made_with),
            }
        entries = {
            "version": self.version,
            "epoch": self.epoch,
            "position": state.position,
            "order": dict(self.order),
            "pixels": dict(self.pixels),
            "mixture": mixture,
        }
        if self.version != VERSION_OF_0_1_0:
            entries["inventory"] = {source: list(inventory) for source, inventory in self.inventory.items()}
        return entries if state.draws is None else entries | {DRAWS: _draws_entry(state.draws)}

    @classmethod
    def from_dict(cls, state: dict) -> "Cursor":
        """The cursor that `to_dict` wrote.

        Raises CursorError for a missing or unknown entry, a wrong type, a negative number, inconsistent
        numbers, or an unknown version.
        """
        if not isinstance(state, dict):
            raise CursorError(f"a cursor must be a dict, got a {type(state).__name__}: {WAY_OUT}")
        # First, because other versions have other entries.
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
                raise CursorError(f"the cursor's {name} must be an integer >= 0, got {value!r}: {WAY_OUT}")
        for name in ("order", "pixels"):
            _check_fingerprints(name, state[name])
        order_state, made_with = _order_state_of(state["position"], state["mixture"])
        if DRAWS in state:
            order_state = dataclasses.replace(order_state, draws=_draws_of(state[DRAWS]))
        inventory = _inventory_of(state.get("inventory", {}))
        fingerprints = dict(state["order"]), dict(state["pixels"])
        return cls(state["epoch"], order_state, *fingerprints, made_with, inventory, version)


def differing(then: Fingerprints, now: Fingerprints) -> list[str]:
    """Which parts differ, each in words: "seed (0 then, 1 now)"; hashes are not shown."""
    words = []
    for name in {**then, **now}:
        before, after = then.get(name), now.get(name)
        if before != after and (name not in now or name not in then):
            words.append(f"{name} ({'new' if name in now else 'gone'})")
        elif before != after:
            hides = any(isinstance(value, str) and _is_hash(value) for value in (before, after))
            words.append(name if hides else f"{name} ({before} then, {after} now)")
    return words


DRAWS = "draws"  # present only if the user's sampler draws the samples
_DRAWS = {"taken", "samples", "crc", "rank", "epoch", "generators", "own"}
_LEAVES = ("generators", "own")  # of these: their shape differs from state to state
_GENERATOR = "global_generator"  # torch's, as text; absent in states of fastload 0.1.0
_ENTRIES = ("version", "epoch", "position", "order", "pixels", "mixture")


def _order_state_of(position: int, mixture) -> tuple[OrderState, tuple[int, ...] | None]:
    """The OrderState of these entries of a cursor, and the shares that its mixture was created with."""
    if mixture is None:
        return OrderState(position), None
    if not isinstance(mixture, Mapping) or set(mixture) != {"now", "epoch", "made_with"}:
        raise CursorError(f"the cursor's mixture is {mixture!r}: {WAY_OUT}")
    now, epoch_start = (MixtureState.from_dict(mixture[name]) for name in ("now", "epoch"))
    made_with = integers("made_with", mixture["made_with"])
    sources = {len(shares) for shares in (now.shares, epoch_start.shares, made_with)}
    if len(sources) > 1 or now.position != position or epoch_start.position > position:
        raise CursorError(f"the cursor's mixture does not match its position {position}: {WAY_OUT}")
    return OrderState(position, now, epoch_start), made_with


def _draws_entry(draws: dict) -> dict:
    """What `_draws_of` reads: the same shape for every state of a sampler."""
    draws = {_GENERATOR: None} | copy.deepcopy(draws)
    return draws | {name: leaf(draws[name]) for name in _LEAVES}


def _draws_of(draws) -> dict:
    """The state of a sampler. Only fastload's own entries are checked."""
    valid = isinstance(draws, Mapping) and set(draws) - {_GENERATOR} == _DRAWS
    valid = valid and isinstance(draws.get(_GENERATOR), str | None)
    if valid and type(draws["taken"]) is int and draws["taken"] >= 0:
        values = {name: value_of(draws[name]) for name in _LEAVES}
        if values["own"] is not None or isinstance(values["generators"], Mapping):
            return {_GENERATOR: None} | copy.deepcopy(dict(draws) | values)
    raise CursorError(f"the cursor's draws are not a sampler's state: {str(draws)[:200]}: {WAY_OUT}")


def _is_hash(text: str) -> bool:
    return len(text) >= 16 and all(digit in "0123456789abcdef" for digit in text)


def _check_fingerprints(name: str, fingerprints) -> None:
    valid = isinstance(fingerprints, Mapping) and all(
        isinstance(part, str) and (value is None or type(value) in (str, int))
        for part, value in fingerprints.items()
    )
    if not valid:
        raise CursorError(
            f"the cursor's {name} must map names to fingerprints, got {fingerprints!r}: {WAY_OUT}"
        )


def _inventory_of(inventory) -> dict[str, list]:
    """What is remembered of each source; shards/inventory.py checks and reads the entries."""
    valid = isinstance(inventory, Mapping) and all(
        isinstance(source, str) and isinstance(entry, (list, tuple)) for source, entry in inventory.items()
    )
    if not valid:
        raise CursorError(
            f"the cursor's inventory must map sources to lists, got {str(inventory)[:200]}: {WAY_OUT}"
        )
    return {source: list(entry) for source, entry in inventory.items()}


def _checked_version(version) -> int:
    if type(version) is not int:
        raise CursorError(f"the cursor's version must be an integer, got {version!r}: {WAY_OUT}")
    if version not in (VERSION_OF_0_1_0, CURSOR_VERSION):
        raise CursorError(
            f"the cursor has version {version}, but this fastload reads versions {VERSION_OF_0_1_0} and "
            f"{CURSOR_VERSION}: resume with the fastload that wrote it."
        )
    return version
