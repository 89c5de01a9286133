"""What the machine can run: CPUs under quotas, the libjpeg that Pillow brings, modules not imported."""

import ctypes
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from fastload import backends
from fastload.errors import ConfigError
from fastload.world import World


def cgroups(tmp_path, lines, files):
    """A cgroup file with `lines`, and a mount with `files` (path -> text): the arguments of _quota_cpus."""
    (tmp_path / "cgroup").write_text("\n".join(lines) + "\n")
    for path, text in files.items():
        (tmp_path / "mount" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mount" / path).write_text(text)
    return tmp_path / "cgroup", tmp_path / "mount"


@pytest.mark.parametrize(
    "lines, files, cpus",
    [
        (["0::/"], {}, sys.maxsize),
        (["0::/"], {"cpu.max": "max 100000\n"}, sys.maxsize),
        (["0::/"], {"cpu.max": "400000 100000\n"}, 4),
        (["0::/"], {"cpu.max": "399999 100000\n"}, 3),
        (["0::/"], {"cpu.max": "50000 100000\n"}, 1),
        (["0::/a/b"], {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n"}, 2),
        (["0::/a/b"], {"a/cpu.max": "500000 100000\n", "a/b/cpu.max": "300000 100000\n"}, 3),
        (["0::/host/path/that/is/not/mounted"], {"cpu.max": "200000 100000\n"}, 2),
        (["0::/../../other"], {"cpu.max": "200000 100000\n"}, 2),
        (["0::/"], {"unified/cpu.max": "200000 100000\n"}, 2),
        (["1:cpu:/"], {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, sys.maxsize),
        (["1:cpu:/"], {"cpu/cpu.cfs_quota_us": "600000\n", "cpu/cpu.cfs_period_us": "200000\n"}, 3),
        (
            ["9:memory:/m", "4:cpu,cpuacct:/a", "0::/"],
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "200000\n", "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"},
            2,
        ),
        (
            ["4:cpuset:/", "5:cpuacct:/"],
            {"cpuset/cpu.cfs_quota_us": "1", "cpuset/cpu.cfs_period_us": "1"},
            sys.maxsize,
        ),
    ],
)
def test_the_quota_is_the_tightest_of_the_cgroups_above(tmp_path, lines, files, cpus):
    assert backends._quota_cpus(*cgroups(tmp_path, lines, files)) == cpus


def test_a_machine_without_cgroups_has_no_quota(tmp_path):
    assert backends._quota_cpus(tmp_path / "missing", tmp_path) == sys.maxsize


def test_usable_cpus_are_at_least_one_and_no_more_than_the_affinity(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    for quota, expected in [(sys.maxsize, 6), (7, 6), (6, 6), (5, 5), (1, 1)]:
        monkeypatch.setattr(backends, "_quota_cpus", lambda *paths, quota=quota: quota)
        assert backends.usable_cpus() == expected
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert backends.usable_cpus() == 1


@pytest.mark.parametrize("cpus, local, threads", [(8, 1, 8), (8, 3, 2), (8, 8, 1), (8, 9, 1), (1, 1, 1)])
def test_the_processes_of_a_host_share_its_cpus(monkeypatch, cpus, local, threads):
    monkeypatch.setattr(backends, "usable_cpus", lambda: cpus)
    assert backends.threads_per_process(World(0, 16, 0, local)) == threads


def test_pillows_libjpeg_comes_first_and_is_one(monkeypatch):
    candidates = backends.find_libjpeg()
    assert candidates[0].is_absolute() and candidates[0].exists(), (
        "this Pillow was not installed from a wheel"
    )
    assert ctypes.CDLL(str(candidates[0])).jpeg_std_error


def test_without_pillow_the_systems_libjpeg_is_left(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert backends.find_libjpeg() == [Path("libjpeg.so.62"), Path("libjpeg.so.8")]


def test_a_pillow_for_macos_is_looked_into(monkeypatch, tmp_path):
    library = tmp_path / "PIL" / ".dylibs" / "libjpeg.62.4.0.dylib"
    library.parent.mkdir(parents=True)
    library.touch()
    (library.parent / "libjpegxl.dylib").touch()
    spec = types.SimpleNamespace(origin=str(tmp_path / "PIL" / "__init__.py"))
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert backends.find_libjpeg()[0] == library


def test_has_finds_modules_and_submodules():
    assert backends.has("numpy") and backends.has("PIL.Image") and backends.has("os.path")
    for missing in ("no_such_module", "PIL.no_such_module", "no_such_module.part", "PIL.Image.part"):
        assert not backends.has(missing)


def test_has_and_find_libjpeg_import_nothing():
    script = """
import sys
from fastload import backends
print(backends.has("torch"), backends.has("torch.distributed"), backends.has("PIL.Image"))
backends.find_libjpeg(), backends.usable_cpus(), backends.cache_dir()
print([name for name in ("torch", "PIL", "numpy", "ctypes", "subprocess") if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split("\n")[:2] == ["True True True", "[]"]


def test_a_module_that_is_blocked_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert not backends.has("numpy") and not backends.has("numpy.random.no_such_module")


def test_the_cache_folder_is_ours_then_xdgs_then_the_homes(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FASTLOAD_CACHE", "~/mine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert backends.cache_dir() == tmp_path / "mine"
    monkeypatch.setenv("FASTLOAD_CACHE", "")
    assert backends.cache_dir() == tmp_path / "xdg" / "fastload"
    for ignored in ("", "relative/folder"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert backends.cache_dir() == tmp_path / ".cache" / "fastload"
    assert list(tmp_path.iterdir()) == []


def test_a_relative_cache_folder_is_made_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTLOAD_CACHE", "here")
    assert backends.cache_dir() == tmp_path / "here"


def test_no_home_folder_is_an_error_with_the_way_out(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("FASTLOAD_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(ConfigError, match="set FASTLOAD_CACHE to a folder"):
        backends.cache_dir()
