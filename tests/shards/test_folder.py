"""Folders of images and class folders.

Covers labels.py.
"""

import json
import os

import numpy as np
import pytest
from shard_corpus import write

from fastload.errors import ShardError, SourceError
from fastload.shards.dataset import open_dataset


@pytest.fixture
def opened(tmp_path):
    return lambda folder="d", **more: open_dataset(tmp_path / folder, cache_dir=tmp_path / "cache", **more)


def content_at(found, i):
    with open(found.path_of(i), "rb") as file:
        file.seek(int(found.offset_bytes[i]))
        return file.read(int(found.size_bytes[i]))


def test_the_extension_follows_the_last_dot_and_sidecars_join(tmp_path, opened):
    for name in [
        "IMG 2020.01.02.JPG",
        "IMG 2020.01.02.txt",
        "a b.png",
        "a.png",
        "a.k.png",
        "a.txt",
        "sub.d/東京.Jpg",
    ]:
        write(tmp_path / "d" / name, name.encode())
    dataset = opened()
    assert dataset.keys(np.arange(dataset.n)) == ["IMG 2020.01.02", "a", "a b", "a.k", "sub.d/東京"]
    assert dataset.extensions == {"jpg": 2, "png": 3, "txt": 2}
    found = dataset.locate(np.arange(5), ("jpg", "png"))
    assert found.file_id.tolist() == [-1] * 5
    assert [content_at(found, i).decode() for i in range(5)] == [
        "IMG 2020.01.02.JPG",
        "a.png",
        "a b.png",
        "a.k.png",
        "sub.d/東京.Jpg",
    ]
    captions = dataset.locate(np.arange(5), ("txt",))
    assert sorted(captions.paths) == [0, 1]
    assert captions.size_bytes.tolist() == [18, 5, -1, -1, -1]
    assert dataset.where(0) == "d: key 'IMG 2020.01.02'"


def test_files_that_are_not_samples_are_counted(tmp_path, opened):
    for name in ["a.jpg", ".hidden.jpg", ".cache/b.jpg", "README", "notes.txt", "ends."]:
        write(tmp_path / "d" / name, b"x")
    os.symlink("nowhere", tmp_path / "d/broken.jpg")
    os.symlink("a.jpg", tmp_path / "d/linked.jpg")
    dataset = opened()
    assert dataset.keys(np.arange(dataset.n)) == ["a", "linked"]
    assert dataset.skipped == {"hidden": 2, "no extension": 2, "no image": 1, "no file": 1}


def test_class_folders_give_the_index_of_the_sorted_folder_name(tmp_path, opened):
    for name in ["zebra/1.jpg", "cat/2.jpg", "cat/deep/3.jpg", "dog/4.png"]:
        write(tmp_path / "d" / name, b"x")
    write(tmp_path / "d/README.md", b"")
    os.mkdir(tmp_path / "d/empty")
    dataset = opened()
    assert dataset.classes == ["cat", "dog", "empty", "zebra"]
    assert dataset.keys(np.arange(4)) == ["cat/2", "cat/deep/3", "dog/4", "zebra/1"]
    labels = dataset.labels(np.array([3, 2, 1, 0]))
    assert labels.dtype == np.int64 and labels.tolist() == [3, 1, 0, 0]


def test_an_image_beside_the_folders_means_no_classes(tmp_path, opened):
    for name in ["cat/2.jpg", "1.jpg"]:
        write(tmp_path / "d" / name, b"x")
    assert opened().labels(np.array([0])) is None


@pytest.mark.parametrize(
    "table, expected",
    [
        ([["00000/a.png", 5], ["00000/b.png", -1], ["extra.png", 9]], [5, -1]),
        (None, None),
        ([["00000/a.png", [0.5, 1.0]], ["00000/b.png", [1.0, 0.0]]], None),
    ],
)
def test_dataset_json_gives_the_labels_instead(tmp_path, opened, table, expected):
    write(tmp_path / "d/00000/a.png", b"x")
    write(tmp_path / "d/00000/b.png", b"x")
    write(tmp_path / "d/dataset.json", json.dumps({"labels": table}).encode())
    labels = opened().labels(np.arange(2))
    assert (labels if labels is None else labels.tolist()) == expected


@pytest.mark.parametrize(
    "text, message",
    [
        (b'{"labels": [["a.png", 1]]}', "no label for 1 of 2 samples, the first 'b'"),
        (b"[]", "no table of labels"),
        (b"{", "no table of labels"),
        (b'{"labels": [3]}', "no table of labels"),
    ],
)
def test_a_wrong_dataset_json_is_reported(tmp_path, opened, text, message):
    write(tmp_path / "d/a.png", b"x")
    write(tmp_path / "d/b.png", b"x")
    write(tmp_path / "d/dataset.json", text)
    with pytest.raises(ShardError, match=message) as caught:
        opened()
    assert "\n" not in str(caught.value)


def test_two_files_that_would_be_one_field_are_refused(tmp_path, opened):
    write(tmp_path / "d/a.jpg", b"x")
    write(tmp_path / "d/a.JPG", b"x")
    with pytest.raises(ShardError, match=r"a.JPG and a.jpg would be the same field"):
        opened()


def test_a_folder_without_images_says_what_is_there(tmp_path, opened):
    write(tmp_path / "d/a.npy", b"x")
    with pytest.raises(SourceError, match=r"has no images \(found: 1 .npy\)"):
        opened()
    write(tmp_path / "d/sub/a.tar", b"x")
    with pytest.raises(SourceError, match=r"shards only in subfolders. .*/\*\*/\*.tar"):
        opened()


def test_a_link_to_a_folder_above_ends_in_an_error(tmp_path, opened):
    write(tmp_path / "d/sub/a.jpg", b"x")
    os.symlink(tmp_path / "d", tmp_path / "d/sub/up")
    with pytest.raises(ShardError, match="sub/up is a link to one of its parents"):
        opened()


def age(folder):
    """Sets the times of all folders back, as if nothing had changed for an hour."""
    for path, _, _ in os.walk(folder):
        os.utime(path, (1_600_000_000, 1_600_000_000))


def test_a_cached_folder_is_walked_again_only_if_a_folder_changed(tmp_path, opened, monkeypatch):
    write(tmp_path / "d/cat/1.jpg", b"x")
    write(tmp_path / "d/dog/2.jpg", b"xy")
    age(tmp_path / "d")
    before = opened()
    from fastload.shards import index

    real, walks = index.index_folder, []
    monkeypatch.setattr(index, "index_folder", lambda *args: walks.append(args) or real(*args))
    assert opened().fingerprint == before.fingerprint
    assert walks == []
    write(tmp_path / "d/dog/3.jpg", b"x")
    after = opened()
    assert after.n == 3 and len(walks) == 1
    assert after.fingerprint != before.fingerprint
    # Changed a moment ago: a further change could leave the same time, so the cache is not believed.
    assert opened().n == 3 and len(walks) == 2


def test_a_copied_folder_under_another_name_has_the_same_fingerprint(tmp_path, opened):
    for folder in ("d", "copy"):
        write(tmp_path / folder / "cat/1.jpg", b"x")
        write(tmp_path / folder / "dog/2.jpg", b"xy")
    assert opened("d").fingerprint == opened("copy").fingerprint
    write(tmp_path / "copy/dog/2.jpg", b"xyz")
    os.utime(tmp_path / "copy/dog")
    assert opened("d").fingerprint != opened("copy").fingerprint
