"""The world: given values, then an initialised torch.distributed, then the environment, then one process."""

import os
import subprocess
import sys
import types

import pytest

from fastload.errors import ConfigError
from fastload.world import World

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No launcher and no torch, whatever ran before."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "torch.distributed", None)


def launch(monkeypatch, **environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))


def initialise(monkeypatch, rank, world_size, available=True, initialized=True):
    distributed = types.ModuleType("torch.distributed")
    distributed.is_available = lambda: available
    distributed.is_initialized = lambda: initialized
    distributed.get_rank = lambda: rank
    distributed.get_world_size = lambda: world_size
    monkeypatch.setitem(sys.modules, "torch.distributed", distributed)


def test_nothing_set_is_one_process():
    assert World.current() == World(0, 1, 0, 1) == World()


def test_the_environment_of_torchrun_is_read(monkeypatch):
    launch(monkeypatch, RANK=11, WORLD_SIZE=16, LOCAL_RANK=3, LOCAL_WORLD_SIZE=8)
    assert World.current() == World(11, 16, 3, 8)


def test_an_empty_variable_is_unset(monkeypatch):
    launch(monkeypatch, RANK="", WORLD_SIZE=" ")
    assert World.current() == World()


def test_an_initialised_process_group_wins_over_the_environment(monkeypatch):
    launch(monkeypatch, RANK=1, WORLD_SIZE=2, LOCAL_RANK=1, LOCAL_WORLD_SIZE=2)
    initialise(monkeypatch, 5, 6)
    assert World.current() == World(5, 6, 1, 2)


@pytest.mark.parametrize("available, initialized", [(False, False), (True, False)])
def test_a_process_group_that_is_not_initialised_is_not_asked(monkeypatch, available, initialized):
    launch(monkeypatch, RANK=1, WORLD_SIZE=2)
    initialise(monkeypatch, 5, 6, available, initialized)
    assert World.current() == World(1, 2)


def test_given_values_win_over_everything_but_the_host_stays_as_it_is(monkeypatch):
    launch(monkeypatch, RANK=1, WORLD_SIZE=8, LOCAL_RANK=1, LOCAL_WORLD_SIZE=8)
    initialise(monkeypatch, 5, 6)
    assert World.current(rank=2, world_size=3) == World(2, 3, 1, 8)
    assert World.current(rank=0, world_size=1) == World(0, 1, 1, 8)


def test_half_a_local_pair_is_taken_as_unknown(monkeypatch):
    launch(monkeypatch, RANK=3, WORLD_SIZE=4, LOCAL_RANK=3)
    assert World.current() == World(3, 4, 0, 1)


@pytest.mark.parametrize("given", [{"rank": 0}, {"world_size": 2}])
def test_half_a_given_pair_is_an_error(given):
    with pytest.raises(ConfigError, match="give both, or neither"):
        World.current(**given)


@pytest.mark.parametrize("found, missing", [("RANK", "WORLD_SIZE"), ("WORLD_SIZE", "RANK")])
def test_half_a_pair_in_the_environment_is_an_error(monkeypatch, found, missing):
    launch(monkeypatch, **{found: 1})
    with pytest.raises(ConfigError, match=f"has {found}=1 but no {missing}: set both"):
        World.current()


@pytest.mark.parametrize("name", NAMES)
def test_a_variable_that_is_not_an_integer_is_an_error(monkeypatch, name):
    launch(monkeypatch, RANK=0, WORLD_SIZE=1, LOCAL_RANK=0, LOCAL_WORLD_SIZE=1)
    launch(monkeypatch, **{name: "one"})
    with pytest.raises(ConfigError, match=f"{name} must be an integer, got 'one'"):
        World.current()


@pytest.mark.parametrize(
    "rank, world_size", [(-1, 2), (2, 2), (0, 0), (0, -1), (0.0, 1), ("0", 1), (True, 2)]
)
def test_numbers_out_of_range_are_an_error(monkeypatch, rank, world_size):
    with pytest.raises(ConfigError, match=r"rank and world_size must be integers"):
        World(rank, world_size)
    with pytest.raises(ConfigError, match=r"local_rank and local_world_size must be integers"):
        World(0, 1, rank, world_size)
    with pytest.raises(ConfigError, match="must be integers with 0 <= rank < world_size"):
        World.current(rank, world_size)


def test_a_host_larger_than_the_world_is_an_error(monkeypatch):
    launch(monkeypatch, RANK=0, WORLD_SIZE=2, LOCAL_RANK=0, LOCAL_WORLD_SIZE=4)
    with pytest.raises(ConfigError, match="LOCAL_WORLD_SIZE=4 is more than world_size=2"):
        World.current()


def run_python(script, **environment):
    kept = {name: value for name, value in os.environ.items() if name not in NAMES}
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout.strip()


def test_torch_is_not_imported_to_find_the_world():
    script = (
        "import sys; from fastload.world import World; print(World.current().rank, 'torch' in sys.modules, "
        "'numpy' in sys.modules)"
    )
    assert run_python(script, RANK="1", WORLD_SIZE="2") == "1 False False"


def test_a_real_process_group_is_asked():
    script = """
import torch.distributed as dist
from fastload.world import World
before = World.current()
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
print(before, World.current())
dist.destroy_process_group()
"""
    found = run_python(script, RANK="5", WORLD_SIZE="9")
    assert found == f"{World(5, 9)} {World(0, 1)}"
