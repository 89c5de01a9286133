"""What a checkpoint stores: the place in the endless order, and fingerprints of what the place is counted in.

In: the fields, or a dictionary that `to_dict` made, perhaps through JSON or torch.save. Out: a Cursor.
Promised: `from_dict(to_dict(cursor)) == cursor`; a dictionary of another kind or of an unknown version is
refused with the part that is wrong. Whether the fingerprints fit the loader is the loader's question.
"""

from dataclasses import asdict, dataclass, fields

from fastload.errors import CursorError

CURSOR_VERSION = 1


@dataclass(frozen=True)
class Cursor:
    """version: of this layout. epoch: the epoch being loaded. position: the next step starts here, or after.

    order_fingerprint: of the dataset's rows and the plan; pixel_fingerprint: of what is made of a sample.
    Raises CursorError for a field of another type, a negative number, or an unknown version.
    """

    version: int
    epoch: int
    position: int
    order_fingerprint: str
    pixel_fingerprint: str

    def __post_init__(self):
        _check_version(self.version)
        for name in ("epoch", "position"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise CursorError(f"the cursor's {name} is {value!r}, not an integer from 0 up: {_WAY_OUT}")
        for name in ("order_fingerprint", "pixel_fingerprint"):
            if not isinstance(getattr(self, name), str):
                raise CursorError(f"the cursor's {name} is {getattr(self, name)!r}, not a string: {_WAY_OUT}")

    def to_dict(self) -> dict:
        """The fields as a dictionary of integers and strings that JSON keeps as they are."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: dict) -> "Cursor":
        """The cursor that `to_dict` wrote. Raises CursorError for a missing, unknown or wrong entry."""
        if not isinstance(state, dict):
            raise CursorError(f"a cursor is a dictionary, not a {type(state).__name__}: {_WAY_OUT}")
        # First, because another version may have other entries.
        _check_version(state.get("version"))
        names = [each.name for each in fields(cls)]
        missing = [name for name in names if name not in state]
        unknown = sorted(str(name) for name in state if name not in names)
        if missing or unknown:
            wrong = [f"no {name!r}" for name in missing] + [f"an unknown {name!r}" for name in unknown]
            raise CursorError(f"the cursor has {', '.join(wrong)}: {_WAY_OUT}")
        return cls(**state)


_WAY_OUT = "pass what state_dict() returned."


def _check_version(version) -> None:
    if type(version) is not int:
        raise CursorError(f"the cursor's version is {version!r}, not an integer: {_WAY_OUT}")
    if version != CURSOR_VERSION:
        raise CursorError(
            f"the cursor has version {version}, this fastload reads version {CURSOR_VERSION}: "
            "resume with the fastload that wrote it."
        )
