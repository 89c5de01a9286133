"""From a source to containers: paths, braces, globs, folders, and the errors for what leads nowhere."""

import os

import pytest
from shard_corpus import tar_bytes, write

from fastload.errors import ConfigError, SourceError
from fastload.shards.source import expand_braces, find_containers


@pytest.mark.parametrize(
    "pattern, expected",
    [
        ("plain", ["plain"]),
        ("a{0..2}", ["a0", "a1", "a2"]),
        ("a{08..11}.tar", ["a08.tar", "a09.tar", "a10.tar", "a11.tar"]),
        ("a{2..0}", ["a2", "a1", "a0"]),
        ("a{000..0}", ["a000"]),
        ("{train,val}-{0..1}", ["train-0", "train-1", "val-0", "val-1"]),
        ("x{a,{1..2}}y", ["xay", "x1y", "x2y"]),
        ("x{a,b{1..2}}y", ["xay", "xb1y", "xb2y"]),
        ("{a,}b", ["ab", "b"]),
        ("{no}", ["{no}"]),
        ("{a", ["{a"]),
    ],
)
def test_braces_expand_as_in_a_shell(pattern, expected):
    assert expand_braces(pattern) == expected


def test_a_range_of_millions_is_refused():
    with pytest.raises(ConfigError, match="more than a million"):
        expand_braces("{0..99999999}")


@pytest.fixture
def shards(tmp_path):
    for i in range(3):
        write(tmp_path / f"s/{i:05d}.tar", tar_bytes(["a.jpg"]))
    return tmp_path / "s"


def names(source):
    return [container.name for container in find_containers(source)]


def test_a_folder_of_shards_stands_for_its_shards_in_sorted_order(shards):
    write(shards / "00001.tar.flidx", b"index")
    write(shards / "notes.txt", b"")
    write(shards / ".hidden.tar", b"")
    assert names(shards) == ["00000.tar", "00001.tar", "00002.tar"]
    assert [c.path for c in find_containers(str(shards))] == [str(shards / f"{i:05d}.tar") for i in range(3)]


def test_patterns_and_lists_name_containers_in_their_order(shards):
    assert names(f"{shards}/{{00002..00000}}.tar") == ["00002.tar", "00001.tar", "00000.tar"]
    assert names(f"{shards}/*.tar") == ["00000.tar", "00001.tar", "00002.tar"]
    assert names(f"{shards.parent}/**/0000[12].tar") == ["00001.tar", "00002.tar"]
    assert names([shards / "00002.tar", f"{shards}/00000.tar"]) == ["00002.tar", "00000.tar"]
    write(shards.parent / "other/00000.tar", b"")
    assert names([shards / "00000.tar", shards.parent / "other"]) == ["s/00000.tar", "other/00000.tar"]


def test_an_index_beside_a_shard_is_not_a_shard(shards):
    write(shards / "00001.tar.flidx", b"index")
    assert names(f"{shards}/*") == ["00000.tar", "00001.tar", "00002.tar"]


def test_a_path_that_exists_is_taken_literally(tmp_path):
    path = write(tmp_path / "odd [1] {0..3}.tar", tar_bytes(["a.jpg"]))
    assert [c.path for c in find_containers(path)] == [str(path)]


def test_relative_paths_become_absolute(shards, monkeypatch):
    monkeypatch.chdir(shards)
    assert [c.path for c in find_containers("00001.tar")] == [os.path.join(shards, "00001.tar")]


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda d: d / "missing.tar", SourceError, r"missing\.tar: no such file or folder"),
        (
            lambda d: f"{d}/{{00000..00007}}.tar",
            SourceError,
            r"00003.tar \(from .*\{00000..00007\}.tar\): no such",
        ),
        (lambda d: f"{d}/*.zip", SourceError, "nothing matches this pattern"),
        (lambda d: [], SourceError, "empty list"),
        (lambda d: 7, ConfigError, "a source must be a path or a list of paths, got int"),
        (lambda d: [d / "00000.tar", f"{d}/*.tar"], ConfigError, "names this container twice"),
        (lambda d: "s3://bucket/a.tar", SourceError, "only local files"),
        (lambda d: "pipe:cat a.tar", SourceError, "only local files"),
        (lambda d: "/dev/null", SourceError, "neither a file nor a folder"),
    ],
)
def test_a_source_that_leads_nowhere_says_so_in_one_line(shards, make, error, message):
    with pytest.raises(error, match=message) as caught:
        find_containers(make(shards))
    assert "\n" not in str(caught.value)


def test_an_empty_folder_says_so(tmp_path):
    with pytest.raises(SourceError, match="the folder is empty"):
        find_containers(tmp_path)


def test_a_folder_of_shards_and_images_is_ambiguous(shards):
    write(shards / "a.jpg", b"")
    with pytest.raises(ConfigError, match=r"both shards \(00000.tar\) and images \(a.jpg\)"):
        find_containers(shards)


def test_a_folder_of_compressed_tars_says_so(tmp_path):
    write(tmp_path / "s/a.tar.gz", b"")
    with pytest.raises(SourceError, match=r"a.tar.gz is compressed"):
        find_containers(tmp_path / "s")
