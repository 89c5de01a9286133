"""A property that is computed once, without a lock.

Before Python 3.12 `functools.cached_property` holds one lock for all objects of a class while it computes: a
loader would wait while another one opens its source, and for ever in a child that was forked meanwhile.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class cached_property(Generic[Value]):
    """As functools.cached_property of Python 3.12: two threads that come first may both compute it."""

    def __init__(self, function: Callable[[Any], Value]):
        self._function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, one: Any, owner: type | None = None) -> Value:
        if one is None:
            return self  # type: ignore[return-value]
        value = one.__dict__[self._name] = self._function(one)
        return value
