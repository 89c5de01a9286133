"""Lists of files: sample i is paths[i], whatever else lies beside it."""

import multiprocessing
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from shard_corpus import tar_bytes, write

from fastload.errors import ConfigError, ShardError, SourceError
from fastload.shards import index
from fastload.shards.dataset import open_dataset
from fastload.shards.files import Files
from fastload.shards.index import publish
from fastload.shards.mixture import Mixture, open_mixture
from fastload.shards.source import find_containers
from tests.shards.test_folder import age, content_at

NAMES = [
    "dog/2.jpg",
    "cat/10.PNG",
    "cat/a.k.jpg",
    "cat/a.k.png",
    "dog/2.jpg",
    "deep/er/東京 1.JpG",
    "cat/9.Jpeg",
]


@pytest.fixture
def listed(tmp_path):
    """The paths of NAMES, whose files hold their own names, among others that are not listed."""
    for name in [*NAMES, "cat/other.jpg", "dog/2.txt", "unlisted/1.jpg", ".hidden.jpg"]:
        write(tmp_path / "d" / name, name.encode())
    age(tmp_path / "d")
    return [str(tmp_path / "d" / name) for name in NAMES]


@pytest.fixture
def opened(tmp_path):
    return lambda source, **more: open_dataset(source, cache_dir=tmp_path / "cache", **more)


def contents(dataset):
    found = dataset.locate(np.arange(dataset.n), ("png", "jpg", "jpeg"))
    assert (found.file_id == -1).all()
    return [content_at(found, i).decode() for i in range(dataset.n)]


def test_sample_i_is_path_i_in_the_order_of_the_list(listed, opened):
    for names in (NAMES, NAMES[::-1], NAMES[2:4]):
        dataset = opened(Files([listed[NAMES.index(name)] for name in names]))
        assert contents(dataset) == names
    keys = opened(Files(listed)).keys(np.arange(len(NAMES)))
    assert keys == ["dog/2", "cat/10", "cat/a.k", "cat/a.k", "dog/2", "deep/er/東京 1", "cat/9"]
    assert opened(Files(listed[1:4])).keys(np.arange(3)) == [
        "10",
        "a.k",
        "a.k",
    ]  # of the folder that they share


def test_files_that_share_a_key_are_samples_of_their_own(listed, opened):
    dataset = opened(Files(listed))
    assert dataset.extensions == {"jpeg": 1, "jpg": 4, "png": 2} and dataset.n == 7
    assert dataset.locate(np.arange(7), ("jpg",)).size_bytes.tolist() == [9, -1, 11, -1, 9, 20, -1]
    assert dataset.row(3).extensions == {"png": (0, 11)}
    assert dataset.where(3) == "d: key 'cat/a.k'"
    assert dataset.bytes_total == sum(len(name.encode()) for name in NAMES)


@pytest.mark.parametrize(
    "labels", [[3, 0, 1, 1, 3, 2, 0], np.arange(7, dtype=np.uint8), [-1, 2**31 - 1, -(2**31), 0, 1, 2, 3]]
)
def test_labels_are_those_of_the_list(listed, opened, labels):
    dataset = opened(Files(listed, labels))
    assert dataset.has_labels and dataset.classes is None
    assert dataset.labels(np.arange(7)).tolist() == list(labels)
    assert not opened(Files(listed)).has_labels


def test_classes_name_the_labels(listed, opened):
    dataset = opened(Files(listed, [1, 0, 0, 0, 1, 2, 0], classes=["cat", "dog", "deep", "none"]))
    assert dataset.classes == ["cat", "dog", "deep", "none"]


def test_relative_paths_path_objects_and_detours_are_the_same_list(listed, opened, tmp_path, monkeypatch):
    before = opened(Files(listed))
    monkeypatch.chdir(tmp_path / "d/cat")
    os.symlink(tmp_path / "d", tmp_path / "link")
    for paths in (
        [Path(path) for path in listed],
        [os.path.relpath(path) for path in listed],
        [f"{tmp_path}/d/../d//{name}" for name in NAMES],
        iter(listed),
    ):
        dataset = opened(Files(paths))
        assert contents(dataset) == NAMES and dataset.containers == before.containers
        assert dataset.fingerprint == before.fingerprint
    linked = opened(Files([str(tmp_path / "link" / name) for name in NAMES]))
    assert linked.containers == [str(tmp_path / "link")] and linked.fingerprint == before.fingerprint
    assert opened(Files(["10.PNG"])).keys([0]) == ["10"]  # without a folder before it


def test_a_copied_list_has_the_same_fingerprint_and_another_order_another(listed, opened, tmp_path):
    shutil.copytree(tmp_path / "d", tmp_path / "elsewhere/copy")
    copied = [path.replace(f"{tmp_path}/d/", f"{tmp_path}/elsewhere/copy/") for path in listed]
    fingerprints = [opened(Files(paths)).fingerprint for paths in (listed, copied, listed[::-1], listed[:-1])]
    assert fingerprints[0] == fingerprints[1] and len(set(fingerprints)) == 3
    write(tmp_path / "elsewhere/copy/dog/2.jpg", b"longer than before")
    os.utime(tmp_path / "elsewhere/copy/dog")
    assert opened(Files(copied)).fingerprint != fingerprints[0]


def test_the_list_of_all_files_of_a_folder_has_the_folders_fingerprint(tmp_path, opened):
    names = ["a b.png", "a.png", "a/1.JPG", "b/2.jpg"]
    for name in names:
        write(tmp_path / "d" / name, name.encode())
    folder = opened(tmp_path / "d")
    files = opened(Files(folder.locate(np.arange(4), ("png", "jpg")).paths.values()))
    assert files.keys(np.arange(4)) == folder.keys(np.arange(4))
    assert files.fingerprint == folder.fingerprint


@pytest.fixture
def looks(monkeypatch):
    """The lists that were looked for on disk."""
    real, looks = index.index_files, []
    monkeypatch.setattr(index, "index_files", lambda files, root: looks.append(files) or real(files, root))
    return looks


def test_a_list_is_looked_for_again_only_if_a_folder_of_it_changed(listed, opened, looks, tmp_path):
    opened(Files(listed))
    assert opened(Files(listed)).n == 7 and len(looks) == 1
    write(tmp_path / "d/unlisted/2.jpg", b"x")
    assert opened(Files(listed)).n == 7 and len(looks) == 1
    os.remove(listed[1])
    write(tmp_path / "d/cat/10.PNG", b"other")
    assert opened(Files(listed)).locate([1], ("png",)).size_bytes.tolist() == [5] and len(looks) == 2
    # Changed a moment ago: a further change could leave the same time, so the cache is not believed.
    opened(Files(listed))
    assert len(looks) == 3


def test_every_list_has_an_index_of_its_own(listed, opened, looks, tmp_path):
    lists = [
        Files(listed),
        Files(listed[:-1] + listed[:1]),
        Files(listed, range(7)),
        Files(listed, range(1, 8)),
        Files(listed, range(7), classes=list("abcdefg")),
        Files(listed, range(7), classes=list("abcdefh")),
    ]
    opened(tmp_path / "d")
    for _ in range(2):
        datasets = [opened(one) for one in lists]
        assert len(looks) == len(lists)
    assert [one.classes and one.classes[-1] for one in datasets] == [None] * 4 + ["g", "h"]
    assert [one.has_labels and int(one.labels([6])[0]) for one in datasets] == [False, False, 6, 7, 6, 6]
    assert "txt" in opened(tmp_path / "d").extensions  # the folder's own index is another one, too


def test_an_index_beside_the_shared_folder_is_not_the_lists(listed, opened, tmp_path):
    publish(find_containers(tmp_path / "d")[0])
    assert contents(opened(Files(listed))) == NAMES
    with pytest.raises(ConfigError, match=r"Files\(7 files.*is only cached"):
        publish(find_containers(Files(listed))[0])


@pytest.mark.parametrize("gone", ["dog/2.jpg", "cat/9.Jpeg", "deep/er/東京 1.JpG"])
def test_a_missing_file_is_named(listed, opened, gone, tmp_path):
    os.remove(tmp_path / "d" / gone)
    more = r" \(1 more of 7" if gone == "dog/2.jpg" else ""
    with pytest.raises(SourceError, match=rf"/d/{gone}, listed by fl.Files, does not exist{more}"):
        opened(Files(listed))


@pytest.mark.parametrize(
    "wrong", ["nowhere/1.jpg", "dog/2.jpg/1.jpg", "link.jpg", "dir.jpg", "Dog/2.jpg", "dog/2.JPG"]
)
def test_a_listed_path_that_is_not_a_file_is_named(listed, opened, wrong, tmp_path):
    os.symlink("nowhere", tmp_path / "d/link.jpg")
    (tmp_path / "d/dir.jpg").mkdir()
    what = "is a folder" if wrong == "dir.jpg" else "does not exist"
    with pytest.raises(SourceError, match=f"/d/{wrong}, .*{what}. Correct"):
        opened(Files([*listed, str(tmp_path / "d" / wrong)]))


def test_a_linked_file_has_the_size_of_its_target(listed, opened, tmp_path):
    os.symlink("dog/2.jpg", tmp_path / "d/link.jpg")
    assert contents(opened(Files([str(tmp_path / "d/link.jpg")]))) == ["dog/2.jpg"]


def test_a_file_that_was_overwritten_in_place_is_another_one(listed, opened):
    dataset = opened(Files(listed))
    with open(listed[3], "wb") as file:
        file.write(b"longer than before")
    dataset.check_unchanged(2)
    with pytest.raises(ShardError, match=r"key 'cat/a.k': the file has changed"):
        dataset.check_unchanged(3)


@pytest.mark.parametrize("as_list", [False, True])
def test_after_a_file_was_overwritten_and_found_so_the_next_opening_looks_again(tmp_path, opened, as_list):
    """No folder has changed, so that nothing else would tell."""
    path = tmp_path / "d" / "a.jpg"
    write(path, b"a")
    age(tmp_path / "d")
    source = Files([path]) if as_list else str(tmp_path / "d")
    dataset = opened(source)
    path.write_bytes(b"longer than before")
    assert contents(opened(source)) == ["l"]
    with pytest.raises(ShardError, match="the file has changed since it was indexed"):
        dataset.check_unchanged(0)
    assert contents(opened(source)) == ["longer than before"]


def test_two_dots_after_a_link_are_resolved_by_the_file_system(tmp_path, opened):
    for name in ("far/away/there/1.jpg", "far/away/1.jpg", "near/1.jpg"):
        write(tmp_path / name, name.encode())
    os.symlink(tmp_path / "far/away/there", tmp_path / "near/link")
    dataset = opened(Files([tmp_path / "near/link/../1.jpg"]))
    assert contents(dataset) == ["far/away/1.jpg"]


def test_a_missing_file_of_a_relative_path_is_told_with_where_it_was_looked_for(
    listed, opened, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    files = Files(NAMES)
    monkeypatch.chdir(tmp_path / "d")
    with pytest.raises(SourceError, match=r"^dog/2.jpg, .* does not exist in .* \(6 more of 7"):
        opened(files)


@pytest.mark.parametrize("labels", [iter([1, 0]), {"a": 1, "b": 0}.values(), (1, 0), np.array([1, 0])])
def test_labels_may_be_anything_that_can_be_gone_through(labels):
    assert Files(["a.jpg", "b.jpg"], labels).labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    "paths, message",
    [
        ([], "the list is empty"),
        ("a.jpg", "must be a list of paths"),
        (Path("a.jpg"), "must be a list of paths"),
        (3, "must be a list of paths"),
        (["a.jpg", 3], "expected str, bytes or os.PathLike object, not int"),
        ([b"a.jpg"], "os.fsdecode"),
        (["a.jpg", "b.pgm"], "'b.pgm' does not have the extension of an image.*jpeg jpg png"),
        (["a.jpg", "b"], "'b' does not have"),
        (["a.jpg/"], "'a.jpg/' does not have"),
        (["a.jpg", "x.jpg/b"], "'x.jpg/b' does not have"),
        (["a.jpg", ""], "'' does not have"),
    ],
)
def test_anything_but_a_list_of_images_is_refused(paths, message):
    with pytest.raises(ConfigError, match=message):
        Files(paths)


@pytest.mark.parametrize(
    "labels, classes, message",
    [
        ([0], None, r"2 files, got int64 of shape \[1\]"),
        ([0, 1, 2], None, r"shape \[3\]"),
        ([[0], [1]], None, r"shape \[2, 1\]"),
        ([0.0, 1.0], None, "float64"),
        ([True, False], None, "bool"),
        (["0", "1"], None, "give an integer for each of the 2 files"),
        ([0, 2**70], None, f"labels must be in int32, got {2**70}"),
        ([0, None], None, "object of shape"),
        (3, None, r"int64 of shape \[\]"),
        ([0, 2**31], None, "labels must be in int32, got 2147483648"),
        ([0, 2], ["a", "b"], "as there are 2 classes, got 2"),
        ([0, -1], ["a", "b"], "as there are 2 classes, got -1"),
        (None, ["a", "b"], "give labels too"),
        ([0, 1], "ab", "must be a list of names"),
        ([0, 1], 2, "must be a list of names"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, classes, message):
    with pytest.raises(ConfigError, match=message):
        Files(["a.jpg", "b.jpg"], labels, classes)


def test_a_name_with_a_nul_byte_is_refused(opened):
    with pytest.raises(ConfigError, match=r"'b\\x00.jpg' contains a NUL byte"):
        opened(Files(["a.jpg", "b\0.jpg"]))


def test_a_list_pickles_and_shows_itself_in_a_line(listed, opened):
    files = Files(listed, range(7), classes=list("abcdefg"))
    again = pickle.loads(pickle.dumps(files))
    assert (
        opened(again).fingerprint == opened(files).fingerprint
        and again.root_and_hash() == files.root_and_hash()
    )
    assert repr(again) == f"Files(7 files, the first {listed[0]!r}, labels, 7 classes)" and len(again) == 7
    assert repr(Files(["a.jpg"] * 10**5)) == "Files(100000 files, the first 'a.jpg')"


def test_a_list_may_stand_beside_other_sources(listed, opened, tmp_path):
    write(tmp_path / "d/shard.tar", tar_bytes(["t.jpg"]))
    one, other = Files(listed[:2]), Files(listed[2:4])
    dataset = opened([other, tmp_path / "d/shard.tar", one, tmp_path / "d/unlisted"])
    assert dataset.shard_counts.tolist() == [2, 1, 2, 1]
    assert dataset.keys(np.arange(6)) == ["a.k", "a.k", "t", "dog/2", "cat/10", "1"]
    with pytest.raises(ConfigError, match="names this container twice"):
        opened([one, Files(listed[:2])])
    assert opened([one, Files(listed[:2][::-1])]).n == 4
    mixed = open_mixture(Mixture({"a": (one, 1), "b": (other, 2)}, 10), cache_dir=tmp_path / "cache")
    assert len(mixed) == 4


def test_a_selection_counts_the_paths_of_the_list(listed, opened):
    assert contents(opened(Files(listed), select=[1, 5])) == [NAMES[1], NAMES[5]]
    assert contents(opened(Files(listed), exclude=["dog/2", "cat/a.k"])) == [NAMES[1], *NAMES[5:]]


def open_as_rank(files, cache, log, rank):
    real = index.index_files

    def logging(*arguments):
        with open(log, "a") as file:
            file.write("looked\n")
        return real(*arguments)

    index.index_files = logging
    dataset = open_dataset(files, cache_dir=cache, local_rank=rank, local_world_size=3)
    assert contents(dataset) == NAMES


def test_ranks_look_for_a_list_once(listed, cache, tmp_path):
    fork = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    ranks = [fork.Process(target=open_as_rank, args=(Files(listed), cache, log, rank)) for rank in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(30)
        assert rank.exitcode == 0
    assert log.read_text() == "looked\n"


def test_a_damaged_index_is_made_again_from_the_list(listed, opened, cache):
    opened(Files(listed))
    (path,) = cache.glob("*.flidx")
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    assert contents(opened(Files(listed))) == NAMES


def test_a_folder_that_cannot_be_listed_is_named(listed, opened, monkeypatch):
    real = os.scandir

    def denied(folder):
        if folder.endswith(b"/cat/"):
            raise PermissionError(13, "Permission denied", folder)
        return real(folder)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(SourceError, match=r"/d/cat/: the folder cannot be listed .*Check its permissions"):
        opened(Files(listed))
