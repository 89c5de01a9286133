"""The dataset: lookups over several containers, labels, selections, fingerprints."""

import json
import shutil
import threading

import numpy as np
import pytest
from shard_corpus import content_of, tar_bytes, write, zip_bytes

from fastload.errors import ConfigError
from fastload.shards.dataset import open_dataset

COUNTS = (5, 0, 1, 8, 7)


def names_of(shard):
    """jpg in even samples, png in odd ones, cls everywhere, txt in every third."""
    for i in range(COUNTS[shard]):
        key = f"{shard}{i:03d}"
        yield f"{key}.jpg" if i % 2 == 0 else f"{key}.png"
        yield f"{key}.cls"
        if i % 3 == 0:
            yield f"{key}.txt"


@pytest.fixture
def folder(tmp_path):
    for shard in range(len(COUNTS)):
        names = list(names_of(shard))
        write(tmp_path / f"s/{shard}.tar", tar_bytes(names) if shard != 3 else zip_bytes(names))
    return tmp_path / "s"


@pytest.fixture
def opened(tmp_path, folder):
    return lambda **more: open_dataset(more.pop("source", folder), cache_dir=tmp_path / "cache", **more)


def test_counts_and_names(folder, opened):
    dataset = opened()
    assert dataset.n == len(dataset) == sum(COUNTS)
    assert dataset.names == [f"{i}.tar" for i in range(5)]
    assert dataset.files == dataset.containers == [str(folder / f"{i}.tar") for i in range(5)]
    assert (
        dataset.shard_counts.tolist() == [count for count in COUNTS if count]
        and dataset.shard_counts.dtype == np.int64
    )
    everything = [name for shard in range(5) for name in names_of(shard)]
    extensions = [name.partition(".")[2] for name in everything]
    assert dataset.extensions == {name: extensions.count(name) for name in ("cls", "jpg", "png", "txt")}
    assert dataset.bytes_total == sum(len(content_of(name)) for name in everything)
    assert dataset.labels(np.array([0])) is None and dataset.classes is None


@pytest.mark.parametrize("threads", [1, 3])
def test_locate_leads_to_the_content_of_any_sample_in_any_order(opened, threads):
    dataset = opened(threads=threads)
    ids = np.random.default_rng(1).permutation(np.repeat(np.arange(dataset.n), 3))
    found = dataset.locate(ids, ("jpg", "PNG"))
    assert (found.file_id.dtype, found.offset_bytes.dtype) == (np.int32, np.int64)
    assert (found.size_bytes.dtype, found.ext_index.dtype) == (np.int64, np.int8)
    assert np.any(found.file_id >= 0)
    for i, key in enumerate(dataset.keys(ids)):
        with open(found.path_of(i), "rb") as file:
            file.seek(found.offset_bytes[i])
            content = file.read(found.size_bytes[i])
        assert content == content_of(f"{key}.{('jpg', 'png')[found.ext_index[i]]}")
        assert dataset.names[found.file_id[i]].startswith(key[0])


def test_the_first_alternative_that_is_there_wins(opened):
    dataset = opened()
    ids = np.arange(dataset.n)
    only_txt = dataset.locate(ids, ("txt",))
    either = dataset.locate(ids, ("txt", "cls"))
    missing = only_txt.size_bytes < 0
    assert 0 < missing.sum() < dataset.n
    for column in (only_txt.file_id, only_txt.offset_bytes, only_txt.ext_index):
        assert np.array_equal(column < 0, missing)
    assert np.array_equal(either.ext_index, missing.astype(np.int8))
    assert np.array_equal(either.offset_bytes[~missing], only_txt.offset_bytes[~missing])
    with pytest.raises(KeyError):
        only_txt.path_of(int(np.flatnonzero(missing)[0]))
    assert (dataset.locate(ids, ("nowhere",)).size_bytes == -1).all()
    assert (dataset.locate(ids, ()).size_bytes == -1).all()


def test_empty_batches_and_bad_ids(opened):
    dataset = opened()
    assert dataset.locate(np.array([], np.int64), ("jpg",)).size_bytes.shape == (0,)
    assert dataset.keys([]) == []
    assert dataset.keys(np.arange(dataset.n, dtype=np.uint16)[::-2]) == dataset.keys(range(dataset.n))[::-2]
    for wrong in (-1, dataset.n):
        with pytest.raises(IndexError, match=rf"sample_id {wrong} is outside \[0, 21\)"):
            dataset.locate(np.array([0, wrong]), ("jpg",))
    with pytest.raises(ConfigError, match="must be a 1-D array of integers, got float64"):
        dataset.keys(np.array([0.5]))
    with pytest.raises(ConfigError, match="at most 127 alternatives, got 128"):
        dataset.locate(np.array([0]), ["jpg"] * 128)


def test_rows_and_places_for_messages(opened):
    dataset = opened()
    row = dataset.row(6)
    assert (row.sample_id, row.container, row.key, list(row.extensions)) == (
        6,
        "3.tar",
        "3000",
        ["cls", "jpg", "txt"],
    )
    assert dataset.where(0) == "0.tar: key '0000' at byte 512"
    assert "21 samples in 5 containers" in repr(dataset)


def test_selecting_ids_keeps_them_in_ascending_order(opened):
    everything = opened()
    dataset = opened(select=np.array([19, 3, 7, 0, 5]))
    assert dataset.keys(np.arange(5)) == [everything.keys([i])[0] for i in (0, 3, 5, 7, 19)]
    assert dataset.shard_counts.tolist() == [2, 1, 1, 1]  # one shard has none of them
    assert dataset.extensions["cls"] == 5
    assert dataset.bytes_total == sum(
        size for i in (0, 3, 5, 7, 19) for _, size in everything.row(i).extensions.values()
    )
    assert dataset.where(4) == everything.where(19)
    assert (dataset.row(4).sample_id, dataset.row(4).id) == (4, 19)
    assert dataset.rows_of(np.array([4, 0])).tolist() == [19, 0]
    with pytest.raises(IndexError, match="outside"):
        dataset.keys([5])


def test_keys_to_leave_out_and_predicates_agree(opened):
    everything = opened()
    by_key = opened(exclude=["0001", "3007"])
    by_row = opened(select=lambda row: row.key not in ("0001", "3007"))
    by_id = opened(select=[i for i in range(21) if everything.keys([i])[0] not in ("0001", "3007")])
    assert by_key.n == 19
    assert by_key.fingerprint == by_row.fingerprint == by_id.fingerprint != everything.fingerprint
    assert opened(exclude={"0001"}).n == 20 and opened(select={"0001"}).n == 1
    assert (
        opened(select=lambda row: "txt" in row.extensions).extensions["txt"] == everything.extensions["txt"]
    )


@pytest.mark.parametrize(
    "select, message",
    [
        ([1, 1, 2], "1 duplicate ids"),
        ([21], r"ids must be in \[0, 21\), got 21"),
        ([-1], r"ids must be in .*, got -1"),
        (np.ones(21, bool), "np.flatnonzero"),
        (np.array([[1]]), "with 2 dimensions"),
        ([0.5], r"select=\[0.5\] must hold integers or strings, got float"),
        ([1, "0001"], "must hold integers or strings, got int, str"),
        (5, "select=5: give ids, keys, or a function"),
        (b"0001", "select=b'0001': give ids, keys"),
        ({"a": [1]}, "only a mixture has sources"),
        (np.array([2**63], np.uint64), "the id 9223372036854775808, which no dataset can have"),
        ([], "is empty and keeps nothing"),
        ("0001", r"Write select=\['0001'\]"),
        (["0001", "absent"], "select has 1 keys that no sample has, the first 'absent'"),
        (lambda row: False, "select leaves none of the 21 samples"),
    ],
)
def test_a_selection_that_means_nothing_is_refused(opened, select, message):
    with pytest.raises(ConfigError, match=message) as caught:
        opened(select=select)
    assert "\n" not in str(caught.value)


def test_a_copied_dataset_has_the_same_fingerprint(tmp_path, folder, opened):
    shutil.copytree(folder, tmp_path / "else/where", copy_function=shutil.copyfile)
    copied = opened(source=tmp_path / "else/where")
    assert copied.fingerprint == opened().fingerprint
    assert opened(source=f"{folder}/{{0..4}}.tar").fingerprint == copied.fingerprint


@pytest.mark.parametrize("change", ["rename", "size", "key", "order", "fewer"])
def test_names_sizes_keys_and_order_are_in_the_fingerprint(tmp_path, folder, opened, change):
    before = opened().fingerprint
    source = folder
    if change == "rename":
        (folder / "4.tar").rename(folder / "5.tar")
    elif change == "size":
        write(folder / "2.tar", tar_bytes(["2000.jpg", "2000.cls", "2000.tx"]))
    elif change == "key":
        write(folder / "2.tar", tar_bytes(["x000.jpg", "x000.cls", "x000.txt"]))
    elif change == "order":
        source = f"{folder}/{{4..0}}.tar"
    else:
        (folder / "4.tar").unlink()
    assert opened(source=source).fingerprint != before


def test_labels_of_a_zip_come_from_its_dataset_json(tmp_path, opened):
    import io
    import zipfile

    def make(labels):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as packed:
            for i in range(4):
                packed.writestr(f"00000/img{i:08d}.png", b"x" * i)
            packed.writestr("dataset.json", json.dumps({"labels": labels}))
        return write(tmp_path / f"{len(str(labels))}.zip", out.getvalue())

    labelled = make([[f"00000/img{i:08d}.png", 7 - i] for i in range(4)])
    dataset = opened(source=labelled)
    assert dataset.n == 4 and dataset.extensions == {"png": 4}
    assert dataset.labels([3, 0]).tolist() == [4, 7]
    assert opened(source=labelled, select=[1, 3]).labels([0, 1]).tolist() == [6, 4]
    assert opened(source=make(None)).labels([0]) is None
    assert opened(source=[labelled, make(None)]).labels([0]) is None


def test_folders_with_different_classes_do_not_share_numbers(tmp_path, opened):
    for name in ("a/cat/1.jpg", "a/dog/2.jpg", "b/dog/3.jpg"):
        write(tmp_path / name, b"x")
    with pytest.raises(ConfigError, match="have different classes"):
        opened(source=[tmp_path / "a", tmp_path / "b"])


def test_folders_and_shards_mix(tmp_path, folder, opened):
    write(tmp_path / "f/one.jpg", b"folder")
    dataset = opened(source=[folder / "2.tar", tmp_path / "f"])
    found = dataset.locate([1, 0], ("jpg",))
    assert found.file_id.tolist() == [-1, 0] and found.paths == {0: str(tmp_path / "f/one.jpg")}
    assert found.path_of(1) == str(folder / "2.tar")
    assert np.any(found.file_id >= 0)


def test_many_threads_may_look_up_at_once(opened):
    dataset = opened()
    ids = np.tile(np.arange(dataset.n), 50)
    expected = dataset.locate(ids, ("jpg", "png")).offset_bytes
    wrong = []

    def look():
        for _ in range(20):
            if not np.array_equal(dataset.locate(ids, ("jpg", "png")).offset_bytes, expected):
                wrong.append(1)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
