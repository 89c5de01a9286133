"""Where there are no descriptors left, every error is ours and names the limit, whatever is opened."""

import errno
import glob
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastload.errors import ConfigError, ShardError
from fastload.shards import index
from fastload.shards.index_file import IndexUnusableError
from fastload.shards.pattern import matches
from fastload.shards.source import find_containers
from fastload.shortage import shortage_in, way_out
from tests import faults, preloaded
from tests.faults import Rule
from tests.quick import slow_but
from tests.scarce import opening

ROOT = Path(__file__).resolve().parents[2]
KINDS = sorted(opening.KINDS)
FEW = ["check", "classes", "glob", "index", "mixture", "tars", "writer", "zip"]


def surroundings(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "FASTLOAD_CACHE": str(folder / "cache")}


def in_vain(lines: list[str]) -> list[str]:
    """The lines that say neither that all is fine nor what to do."""
    return [
        line
        for line in lines
        if not line.endswith(": fine") and not (" True: " in line and "ulimit -n" in line)
    ]


@pytest.mark.parametrize("kind", slow_but(FEW, KINDS))
def test_a_source_is_opened_with_few_descriptors_or_says_how_to_have_more(tmp_path, kind):
    program = "import sys; from pathlib import Path; from tests.scarce import opening\n"
    program += "opening.main(Path(sys.argv[1]), sys.argv[2])"
    ran = preloaded.run(program, str(tmp_path), kind, environment=surroundings(tmp_path), limit_seconds=120)
    assert ran.status == 0, ran.err
    lines = ran.out.splitlines()
    assert len(lines) == 2 * (opening.MOST + 1)
    assert in_vain(lines) == []
    assert [line for line in lines if line.startswith("0, ") and line.endswith(": fine")] == []
    assert all(line.endswith(": fine") for line in lines[2 * 20 :])


@pytest.mark.parametrize("numbers", [(1, 6), pytest.param(range(7), marks=pytest.mark.slow)], ids=str)
def test_what_is_imported_on_first_use_says_how_to_have_more_descriptors(tmp_path, numbers):
    source = str(opening.images(tmp_path))
    command = [sys.executable, "-m", "tests.scarce.first_import", source, *map(str, numbers)]
    ran = subprocess.run(
        command, cwd=ROOT, env=surroundings(tmp_path), capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert len(lines) == 3 * len(numbers)
    assert in_vain(lines) == []
    assert [line for line in lines if line.endswith(": fine")] != []


MET = itertools.product([".tar", ".lock", ".partial", ".flidx"], [errno.ENFILE, errno.ENOMEM])
FEW_MET = [(".tar", errno.ENOMEM), (".partial", errno.ENFILE), (".flidx", errno.ENFILE)]


@pytest.mark.parametrize(("path", "code"), slow_but(FEW_MET, MET))
def test_want_of_the_machine_is_named_wherever_it_is_met(tmp_path, code, path):
    faults.needs_faults()
    opening.shards(tmp_path)
    program = """if 1:
        import sys
        import fastload as fl
        from tests.scarce import opening
        opening.make_impatient()
        try:
            opening.loaded(sys.argv[1])()
        except fl.FastloadError as error:
            print(error)
    """
    ran = faults.run(program, tmp_path, str(tmp_path / "set"), given=(Rule("open", path, code),))
    said = "ulimit -n" if code == errno.ENFILE else "ulimit -v"
    assert os.strerror(code) in ran.out and said in ran.out, ran.out + ran.err


def test_an_index_that_cannot_be_read_back_is_an_error_with_a_way_out(tmp_path, monkeypatch):
    (container, *_) = find_containers(opening.shards(tmp_path))

    def refuse(path):
        raise IndexUnusableError(f"{path}: cannot be read (Input/output error)")

    monkeypatch.setattr(index, "read_index", refuse)
    with pytest.raises(
        ConfigError, match=r"right after it was written. Check the disk of .*or use another folder"
    ):
        index.build(container, tmp_path / "cache")


def test_a_shard_that_cannot_be_compared_is_not_taken_for_unchanged(tmp_path, monkeypatch):
    (container, *_) = find_containers(opening.shards(tmp_path))
    stamp = index.build(container, tmp_path / "cache").stamp

    def refuse(*_, **__):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), container.path)

    assert not index.changed(container, stamp)
    monkeypatch.setattr("fastload.shards.retry.PAUSES_SECONDS", (0.001,))
    monkeypatch.setattr(index, "_has_tail", refuse)
    os.utime(container.path, ns=(0, 0))
    with pytest.raises(Exception, match=r"cannot be read .Too many open files.*ulimit -n"):
        index.changed(container, stamp)


PATTERNS = [
    "*",
    "*.tar",
    "**",
    "**/*.tar",
    "a*/?.tar",
    "a/[xy].tar",
    ".*",
    "*/",
    "**/",
    "a/**/*",
    "**/b/*.tar",
]
PATTERNS += [
    "none*",
    "a/.h*",
    "a/*/*.tar",
    "*/x.tar",
    "**/.h/*",
    "up/../a/*.tar",
    "link/*.tar",
    "**/x.tar",
    "a*",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_match_what_pythons_glob_does(tmp_path, monkeypatch, pattern):
    for name in (
        "a/x.tar",
        "a/y.tar",
        "a/.hidden.tar",
        "a/b/x.tar",
        "b/z.tar",
        ".h/x.tar",
        "x.tar",
        "up/b/q.tar",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "broken.tar").symlink_to(tmp_path / "gone")
    monkeypatch.chdir(tmp_path)
    for one in (pattern, str(tmp_path / pattern)):
        assert matches(one) == sorted(glob.glob(one, recursive=True))


def test_a_pattern_whose_folder_cannot_be_listed_now_is_not_taken_for_one_without_matches(
    tmp_path, monkeypatch
):
    opening.shards(tmp_path)
    listed = os.scandir

    def refuse(path):
        if str(path).endswith("set"):
            raise OSError(errno.ENFILE, os.strerror(errno.ENFILE), path)
        return listed(path)

    monkeypatch.setattr("fastload.shards.retry.PAUSES_SECONDS", (0.001,))
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(Exception, match=r"set: the folder cannot be listed .*ulimit -n"):
        find_containers(str(tmp_path / "*" / "*.tar"))


def test_what_the_linker_says_is_known_for_a_want():
    assert shortage_in("libx.so: cannot open shared object file: Too many open files") == errno.EMFILE
    assert shortage_in("libx.so: failed to map segment from shared object") == errno.ENOMEM
    assert shortage_in("libx.so: cannot open shared object file: No such file or directory") is None
    assert way_out(errno.EIO, "Check the disk.") == "Check the disk."


def test_a_tar_that_the_system_refuses_is_no_damaged_tar(tmp_path):
    """The native indexer's OSError is that of its plain twin."""
    from fastload.shards.tar import index_tar

    for impl in ("native", "reference"):
        with (
            pytest.raises(IsADirectoryError) if impl == "reference" else pytest.raises((OSError, ShardError))
        ):
            index_tar(str(tmp_path), "a.tar", impl)
        with pytest.raises(FileNotFoundError, match=r"gone.tar"):
            index_tar(str(tmp_path / "gone.tar"), "gone.tar", impl)
