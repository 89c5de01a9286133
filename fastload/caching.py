"""A property that is computed once, without a lock.

Before Python 3.12 `functools.cached_property` holds a lock for all objects of a class while it computes. So a
loader would wait while another loader opens its source, and for ever in a child that was forked meanwhile.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class cached_property(Generic[Value]):
    """As functools.cached_property of Python 3.12: two threads may both compute the value."""

    def __init__(self, function: Callable[[Any], Value]):
        self._function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Value:
        if instance is None:
            return self  # type: ignore[return-value]
        value = instance.__dict__[self._name] = self._function(instance)
        return value
