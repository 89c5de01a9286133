"""A registry keeps what was added, takes the same thing again, and refuses another one."""

import pytest

from fastload.errors import ConfigError
from fastload.registry import Registry


def made(name, module="a"):
    return type(name, (), {"__module__": module, "__qualname__": name})


def test_the_same_thing_again_is_fine_and_the_newer_one_counts():
    registry, first, again = Registry("store"), made("Memory"), made("Memory")
    registry.add("mem", first)
    registry.add("mem", first)
    assert registry["mem"] is first and list(registry) == ["mem"]
    registry.add("mem", again)
    assert registry["mem"] is again


@pytest.mark.parametrize("other", [made("Memory", "b"), made("Disk"), made("Disk")()])
def test_another_thing_is_an_error_and_changes_nothing(other):
    registry, first = Registry("store"), made("Memory")
    registry.add("mem", first)
    with pytest.raises(ConfigError, match=r"there is a store for 'mem' already: a[.]Memory"):
        registry.add("mem", other)
    assert registry["mem"] is first
    registry.remove("mem")
    assert "mem" not in registry
    registry.add("mem", other)
