"""What a checkpoint stores: the place in the endless order, and fingerprints of what the place is counted in.

In: the fields, or a dictionary that `to_dict` made, perhaps through JSON or torch.save. Out: a Cursor.
Promised: `from_dict(to_dict(cursor)) == cursor`; a dictionary of another kind or of an unknown version is
refused with the part that is wrong; `differing` names the parts in which two cursors' orders, or pixels, are
not the same. What follows from a difference is the loader's question.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from fastload.errors import CursorError
from fastload.order.mixture import MixtureState
from fastload.order.walk import Place

CURSOR_VERSION = 2

Fingerprints = Mapping[str, str | int | None]


@dataclass(frozen=True)
class Cursor:
    """version: of this layout. epoch: the epoch being loaded. position: the next step starts here, or after.

    order: part -> fingerprint of what the order is made of (seed, plan, window, source, selection).
    pixels: the same of what is made of a sample (fields, augment, dtype, decode).
    mixture: None, or {"now", "epoch"}: the MixtureStates of the place, as dictionaries, and "given": the
    shares that the mixture was made with, before anyone changed them.

    Raises CursorError for a field of another type, a negative number, or an unknown version.
    """

    version: int
    epoch: int
    position: int
    order: Fingerprints
    pixels: Fingerprints
    mixture: Mapping | None = None
    place: Place = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        _check_version(self.version)
        for name in ("epoch", "position"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise CursorError(f"the cursor's {name} is {value!r}, not an integer from 0 up: {_WAY_OUT}")
        for name in ("order", "pixels"):
            _check_fingerprints(name, getattr(self, name))
        object.__setattr__(self, "place", self._place())

    def to_dict(self) -> dict:
        """The fields as a dictionary of integers and strings that JSON keeps as they are."""
        return {
            "version": self.version,
            "epoch": self.epoch,
            "position": self.position,
            "order": dict(self.order),
            "pixels": dict(self.pixels),
            "mixture": copy.deepcopy(self.mixture),
        }

    @classmethod
    def from_dict(cls, state: dict) -> "Cursor":
        """The cursor that `to_dict` wrote. Raises CursorError for a missing, unknown or wrong entry."""
        if not isinstance(state, dict):
            raise CursorError(f"a cursor is a dictionary, not a {type(state).__name__}: {_WAY_OUT}")
        # First, because another version may have other entries.
        _check_version(state.get("version"))
        names = [each.name for each in fields(cls) if each.init]
        missing = [name for name in names if name not in state]
        unknown = sorted(str(name) for name in state if name not in names)
        if missing or unknown:
            wrong = [f"no {name!r}" for name in missing] + [f"an unknown {name!r}" for name in unknown]
            raise CursorError(f"the cursor has {', '.join(wrong)}: {_WAY_OUT}")
        return cls(**state)

    def _place(self) -> Place:
        if self.mixture is None:
            return Place(self.position)
        if not isinstance(self.mixture, Mapping) or set(self.mixture) != {"now", "epoch", "given"}:
            raise CursorError(f"the cursor's mixture is {self.mixture!r}: {_WAY_OUT}")
        given = self.mixture["given"]
        if not isinstance(given, (list, tuple)) or any(type(share) is not int for share in given):
            raise CursorError(f"the cursor's mixture has given={given!r}, no list of integers: {_WAY_OUT}")
        now, at_epoch = (MixtureState.from_dict(self.mixture[name]) for name in ("now", "epoch"))
        if now.position != self.position or len(now.shares) != len(at_epoch.shares):
            raise CursorError(f"the cursor's mixture is not at its position {self.position}: {_WAY_OUT}")
        return Place(self.position, now, at_epoch)


def mixture_entry(place: Place, given: Sequence[int]) -> dict | None:
    """The cursor's `mixture` for a place."""
    if place.mixture is None:
        return None
    return {"now": place.mixture.to_dict(), "epoch": place.epoch_mixture.to_dict(), "given": list(given)}


def differing(then: Fingerprints, now: Fingerprints) -> list[str]:
    """Which parts differ, each in words: "seed (0 then, 1 now)"; without the values where they are hashes."""
    words = []
    for name in {**then, **now}:
        before, after = then.get(name), now.get(name)
        if before != after:
            told = not any(isinstance(value, str) and _is_hash(value) for value in (before, after))
            words.append(f"{name} ({before} then, {after} now)" if told else name)
    return words


_WAY_OUT = "pass what state_dict() returned."


def _is_hash(text: str) -> bool:
    return len(text) >= 16 and all(digit in "0123456789abcdef" for digit in text)


def _check_fingerprints(name: str, prints) -> None:
    good = isinstance(prints, Mapping) and all(
        isinstance(part, str) and (value is None or type(value) in (str, int))
        for part, value in prints.items()
    )
    if not good:
        raise CursorError(f"the cursor's {name} is {prints!r}, no table of fingerprints: {_WAY_OUT}")


def _check_version(version) -> None:
    if type(version) is not int:
        raise CursorError(f"the cursor's version is {version!r}, not an integer: {_WAY_OUT}")
    if version != CURSOR_VERSION:
        raise CursorError(
            f"the cursor has version {version}, this fastload reads version {CURSOR_VERSION}: "
            "resume with the fastload that wrote it."
        )
