"""What users add to fastload by name or class: field stages and augmentations.

In: a key and a value, when the module that defines the value is imported. Out: the value of a key. Promised:
the same key twice is an error, unless the value has the same module and name, as after a reload or in a
notebook's cell that runs again: then the newer one counts.
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

from fastload.errors import ConfigError

Key = TypeVar("Key")
Value = TypeVar("Value")


class Registry(Generic[Key, Value]):
    """what: a kind of value, for errors."""

    def __init__(self, what: str):
        self._what = what
        self._values: dict[Key, Value] = {}

    def add(self, key: Key, value: Value) -> None:
        """Raises ConfigError where the key belongs to something else."""
        before = self._values.get(key)
        if before is not None and before is not value and _name(before) != _name(value):
            raise ConfigError(
                f"there is a {self._what} for {key!r} already: {_name(before)}. Use another name."
            )
        self._values[key] = value

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __getitem__(self, key: Key) -> Value:
        return self._values[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._values)

    def remove(self, key: Key) -> None:
        """Forgets the key; for tests."""
        self._values.pop(key, None)


def _name(value: object) -> str:
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"
