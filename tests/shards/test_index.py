"""Index files: what they hold and when they are believed."""

import errno
import io
import json
import os
import shutil
import tarfile
import zlib

import numpy as np
import pytest
from shard_corpus import END, ODD_NAMES, header_block, padded, tar_bytes, write, zip_bytes

from fastload import _native
from fastload.errors import ConfigError, ShardError, SourceError
from fastload.shards import index
from fastload.shards.dataset import open_dataset
from fastload.shards.index import publish
from fastload.shards.index_file import IndexUnusableError, Stamp, read_index, write_index
from fastload.shards.source import find_containers


@pytest.fixture
def counted(monkeypatch):
    """The containers that are indexed from now on."""
    real, seen = index.index_container, []

    def counting(container):
        seen.append(container.name)
        return real(container)

    monkeypatch.setattr(index, "index_container", counting)
    return seen


def index_path(shard, cache):
    (container,) = find_containers(shard)
    return index.cached_path(container, cache)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 63, 64, 65, 4096, 10007])
def test_the_checksum_is_zlibs(size):
    content = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    assert _native.crc32(content) == zlib.crc32(content)


def test_a_second_opening_reads_the_cache(shard, cache, counted):
    first = open_dataset(shard, cache_dir=cache)
    second = open_dataset(shard, cache_dir=cache)
    assert counted == ["00000.tar"]
    assert first.fingerprint == second.fingerprint
    assert os.listdir(cache) == [index_path(shard, cache).name]  # no lock, no temporary file is left


@pytest.mark.parametrize("beside", [False, True])
def test_a_member_that_was_appended_in_the_padding_of_a_tar_is_seen(tmp_path, cache, beside):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        _add(tar, "a.cls")
    if beside:
        publish(find_containers(path)[0])
    assert open_dataset(path, cache_dir=cache).n == 1
    before = os.stat(path)
    with tarfile.open(path, "a") as tar:
        _add(tar, "b.cls")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(path).st_size == before.st_size
    assert open_dataset(path, cache_dir=cache).n == 2


def _add(tar, name):
    info = tarfile.TarInfo(name)
    info.size = 1
    tar.addfile(info, io.BytesIO(b"1"))


@pytest.mark.parametrize("change", ["size", "mtime", "tail"])
def test_a_changed_container_is_indexed_again(shard, cache, counted, change):
    open_dataset(shard, cache_dir=cache)
    status = os.stat(shard)
    if change == "size":
        shard.write_bytes(shard.read_bytes() + bytes(512))
        os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "tail":
        blob = bytearray(shard.read_bytes())
        blob[blob.find(b"\0" * 1024, len(blob) // 2) - 700] ^= 1
        shard.write_bytes(blob)
        os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    else:
        os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    if (
        change == "tail"
    ):  # only in a header would the strict walk see it; here the point is that it is walked at all
        assert index.find_valid(find_containers(shard)[0], cache) is None
    else:
        open_dataset(shard, cache_dir=cache)
        assert counted == ["00000.tar"] * 2


def test_no_damage_of_an_index_file_is_ever_believed(shard, cache):
    """Bytes flipped all over it, and several lengths: the dataset is the same as before, or (never seen) an
    error."""
    expected = open_dataset(shard, cache_dir=cache)
    everything = np.arange(expected.n)
    keys = expected.keys(everything)
    offsets = expected.locate(everything, ("jpg",)).offset_bytes
    path = index_path(shard, cache)
    whole = path.read_bytes()
    for place in [*range(0, len(whole), 13), *range(24)]:
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        dataset = open_dataset(shard, cache_dir=cache)
        assert dataset.keys(everything) == keys
        assert np.array_equal(dataset.locate(everything, ("jpg",)).offset_bytes, offsets)
        assert dataset.fingerprint == expected.fingerprint
        # Padding between columns is under the checksum too, so the file has been written again in any case.
        assert path.read_bytes() == whole
    for length in [0, 1, 23, 24, 25, 500, len(whole) - 100, len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert open_dataset(shard, cache_dir=cache).keys(everything) == keys
        assert path.read_bytes() == whole


def test_an_index_of_another_version_is_built_again(shard, cache, counted):
    open_dataset(shard, cache_dir=cache)
    path = index_path(shard, cache)
    blob = bytearray(path.read_bytes())
    blob[8] += 1
    path.write_bytes(blob)
    with pytest.raises(IndexUnusableError, match="another format or version"):
        read_index(path)
    open_dataset(shard, cache_dir=cache)
    assert len(counted) == 2
    assert read_index(path).n == 9


def test_damage_found_late_in_a_container_that_changed_is_an_error(shard, cache):
    dataset = open_dataset(shard, cache_dir=cache)
    path = index_path(shard, cache)
    blob = bytearray(path.read_bytes())
    blob[-1] ^= 1
    del dataset
    path.write_bytes(blob)
    dataset = open_dataset(shard, cache_dir=cache)
    shard.write_bytes(tar_bytes(["new.jpg"]))
    with pytest.raises(ShardError, match="the container has changed since it was indexed"):
        dataset.keys(np.array([0]))


def test_a_published_index_is_preferred_and_survives_a_copy(tmp_path, shard, cache, counted):
    (container,) = find_containers(shard)
    assert publish(container) == shard.with_name("00000.tar.flidx")
    original = open_dataset(shard, cache_dir=cache)
    shutil.copytree(shard.parent, tmp_path / "copy", copy_function=shutil.copyfile)  # new times
    copy = open_dataset(tmp_path / "copy", cache_dir=tmp_path / "other cache")
    assert copy.fingerprint == original.fingerprint
    assert counted == ["00000.tar"] and not cache.exists() and not (tmp_path / "other cache").exists()


def test_a_published_index_of_another_tar_is_not_believed(shard, cache, counted):
    publish(find_containers(shard)[0])
    size = shard.stat().st_size
    shard.write_bytes(tar_bytes([*ODD_NAMES[:-1], "empty2.txt"]))
    assert shard.stat().st_size == size
    assert open_dataset(shard, cache_dir=cache).keys([9]) == ["empty2"]
    assert len(counted) == 2


def test_the_columns_are_as_narrow_as_their_values_allow(tmp_path):
    for size, width in [(0, 1), (254, 1), (255, 2), (65534, 2), (65535, 4), (2**32 - 2, 4), (2**32 - 1, 8)]:
        path = tmp_path / "a.tar"
        with open(path, "wb") as file:
            file.write(header_block(b"a.jpg", b"\x80" + size.to_bytes(11, "big")))
            file.seek(-(-size // 512) * 512, os.SEEK_CUR)
            file.write(header_block(b"b.txt", 1) + padded(b"x") + END)
        dataset = open_dataset(path, cache_dir=tmp_path)
        found = dataset.locate(np.array([0, 1]), ("jpg",))
        assert found.size_bytes.tolist() == [size, -1] and found.offset_bytes.tolist() == [512, -1]
        columns = {c["name"]: c for c in read_index(index_path(path, tmp_path)).header["columns"]}
        assert columns["size:jpg"]["width"] == width


def test_a_sample_of_three_fields_takes_at_most_40_bytes(tmp_path):
    """The largest numbers that a 1 GiB shard needs, and a key of 12 bytes."""
    from fastload.shards.rows import Rows

    n = 10_000
    step = (1 << 30) // n // 512 * 512
    start = np.arange(n, dtype=np.int64) * step + 512
    rows = Rows(
        extensions=[b"jpg", b"cls", b"txt"],
        offset_bytes=[start, start + step - 2048, start + step - 1024],
        size_bytes=[np.full(n, 100_000), np.full(n, 3), np.full(n, 300)],
        key_end=np.arange(1, n + 1, dtype=np.int64) * 12,
        keys=b"".join(b"%012d" % i for i in range(n)),
    )
    write_index(tmp_path / "a.flidx", rows, Stamp())
    size = (tmp_path / "a.flidx").stat().st_size
    assert -(-size // 4096) * 4096 <= 40 * n
    assert size < 36 * n


def test_columns_that_a_reader_does_not_know_are_let_be(tmp_path, shard, cache):
    dataset = open_dataset(shard, cache_dir=cache)
    expected = dataset.keys(np.arange(dataset.n))
    path = index_path(shard, cache)
    one = read_index(path)
    header = json.loads(json.dumps(one.header))
    content = bytes(memoryview(one.mapped)[one.columns_start :]) + bytes(8)
    header["columns"].append(
        {"name": "width:jpg", "width": 2, "shift": 0, "start": len(content) - 8, "count": 4}
    )
    header["columns_bytes"] = len(content)
    text = json.dumps(header).encode()
    head = b"FLINDEX\n" + np.array([1, len(text), zlib.crc32(text), zlib.crc32(content)], "<u4").tobytes()
    path.write_bytes(head + text + content)
    assert open_dataset(shard, cache_dir=cache).keys(np.arange(dataset.n)) == expected
    assert path.read_bytes() == head + text + content


def test_a_cache_folder_that_cannot_be_written_says_so(shard, tmp_path):
    write(tmp_path / "file", b"")
    with pytest.raises(ConfigError, match=r"the index cannot be written .* use another folder"):
        open_dataset(shard, cache_dir=tmp_path / "file" / "cache")


@pytest.mark.parametrize(
    "where",
    [
        "os.pread",
        "fcntl.flock",
        "os.fsync",
        "os.replace",
        "fastload._native.MappedFile",
    ],
)
def test_a_timeout_of_the_user_is_not_an_error_of_a_file(shard, cache, monkeypatch, where):
    """It is raised by a signal's handler, wherever Python is; and TimeoutError is an OSError."""

    def too_late(*_, **__):
        raise TimeoutError("the user's")

    monkeypatch.setattr(where, too_late)
    with pytest.raises(TimeoutError, match=r"^the user's$"):
        open_dataset(shard, cache_dir=cache)


@pytest.mark.parametrize("where", ["os.scandir", "os.fsync"])
def test_a_timeout_of_the_user_is_not_an_error_of_a_folder(tmp_path, cache, monkeypatch, where):
    def too_late(*_, **__):
        raise TimeoutError("the user's")

    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"")
    monkeypatch.setattr(where, too_late)
    with pytest.raises(TimeoutError, match=r"^the user's$"):
        open_dataset(tmp_path / "pictures", cache_dir=cache)


def test_an_unreadable_label_file_is_not_an_error_of_the_cache(tmp_path, cache, monkeypatch):
    def refused(path, *_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "dataset.json").write_text("{}")
    monkeypatch.setattr("fastload.shards.folder.open", refused, raising=False)
    with pytest.raises(SourceError, match=r"cannot be read .Permission denied.. Check its permissions"):
        open_dataset(tmp_path, cache_dir=cache)


@pytest.mark.parametrize(
    "blob, message",
    [
        (b"", r"bad.tar: the file is empty \(0 bytes\)"),
        (b"\x1f\x8b\x08" + bytes(2000), r"bad.tar: the file is compressed \(gzip\)"),
        (b"\xff\xd8\xff\xe0" + b"jpeg" * 1000, "bad.tar: this is neither a tar nor a zip"),
        (b"short", "bad.tar: this is neither a tar nor a zip"),
        (b"\xff\xd8" * 74 + b"0000644\0" + b"\xff" * 900, "header checksum mismatch .member 0. at byte 0"),
    ],
)
def test_a_file_that_is_not_a_container_is_refused(tmp_path, cache, blob, message):
    path = write(tmp_path / "bad.tar", blob)
    with pytest.raises(ShardError, match=message) as caught:
        open_dataset(path, cache_dir=cache)
    assert "\n" not in str(caught.value)


def test_a_source_without_samples_says_so(tmp_path, cache):
    path = write(tmp_path / "a.tar", tar_bytes(["no_extension"]))
    with pytest.raises(SourceError, match=r"has no samples .*'no extension': 1"):
        open_dataset(path, cache_dir=cache)


def test_a_zip_is_told_by_its_bytes(tmp_path, cache):
    path = write(tmp_path / "called.tar", zip_bytes(["a.jpg"]))
    assert open_dataset(path, cache_dir=cache).keys(np.array([0])) == ["a"]


def test_the_first_bad_shard_of_several_is_reported(tmp_path, cache):
    for i in range(8):
        write(tmp_path / f"s/{i}.tar", tar_bytes(["a.jpg"])[: 100 if i in (3, 5) else None])
    with pytest.raises(ShardError, match=r"^3.tar: "):
        open_dataset(tmp_path / "s", cache_dir=cache, threads=3)


def test_an_index_that_cannot_be_mended_is_an_error_and_no_endless_loop(shard, cache, monkeypatch):
    from fastload.shards import index_file

    monkeypatch.setattr(index_file.zlib, "crc32", lambda content: 7)
    dataset = open_dataset(shard, cache_dir=cache)
    with pytest.raises(ShardError, match="damaged again right after it was written"):
        dataset.keys([0])
