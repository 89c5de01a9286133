"""Indexing a tar: both twins against Python's tarfile and against webdataset."""

import os
import tarfile

import numpy as np
import pytest
import webdataset
from shard_corpus import (
    BLOCK,
    END,
    ODD_NAMES,
    PASSED_OVER,
    assert_same_outcome,
    content_of,
    header_block,
    padded,
    pax_header,
    samples_of,
    tar_bytes,
    with_checksum,
    write,
)

from fastload.shards.rows import split_name
from fastload.shards.tar import index_tar

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
IMPLS = ("reference", "native")


def members_by_tarfile(path):
    with tarfile.open(path) as tar:
        return [(member.name, member.offset_data, member.size) for member in tar if member.isreg()]


@pytest.mark.parametrize("tar_format", FORMATS)
def test_rows_hold_the_offsets_and_sizes_that_tarfile_finds(tmp_path, tar_format):
    names = [name for name in ODD_NAMES if tar_format != "ustar" or len(name.encode()) < 200]
    path = write(tmp_path / "a.tar", tar_bytes(names, FORMATS[tar_format]))
    rows = assert_same_outcome(index_tar, path)
    found = set()
    for key, fields in samples_of(rows, path):
        for extension, content in fields.items():
            place = rows.extensions.index(extension)
            row = rows.key_list().index(key)
            found.add(
                (
                    key,
                    extension,
                    int(rows.offset_bytes[place][row]),
                    int(rows.size_bytes[place][row]),
                    content,
                )
            )
    expected = {
        (*split_name(name.encode()), start, size, content_of(name))
        for name, start, size in members_by_tarfile(path)
    }
    assert found == expected
    assert len(found) == len(names)


@pytest.mark.parametrize("tar_format", ["gnu", "pax"])
def test_samples_are_those_of_webdataset(tmp_path, tar_format):
    names = [name for name in ODD_NAMES + PASSED_OVER if name not in ("ends_with_dot.", "folder/.hidden.jpg")]
    path = write(tmp_path / "a.tar", tar_bytes(names, FORMATS[tar_format]))
    theirs = [
        (sample["__key__"].encode(), {k.encode(): v for k, v in sample.items() if not k.startswith("__")})
        for sample in webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
    ]
    for impl in IMPLS:
        assert samples_of(index_tar(str(path), "a.tar", impl), path) == theirs


def test_members_that_are_not_samples_are_counted_by_kind(tmp_path):
    special = []
    for name, kind in [
        ("folder", tarfile.DIRTYPE),
        ("symbolic.jpg", tarfile.SYMTYPE),
        ("hard.jpg", tarfile.LNKTYPE),
        ("pipe.jpg", tarfile.FIFOTYPE),
        ("character.jpg", tarfile.CHRTYPE),
    ]:
        header = tarfile.TarInfo(name)
        header.type = kind
        header.linkname = "plain.jpg" if "k" in name or name == "hard.jpg" else ""
        special.append(header)
    path = write(tmp_path / "a.tar", tar_bytes(["plain.jpg", *PASSED_OVER], special=tuple(special)))
    rows = assert_same_outcome(index_tar, path)
    assert rows.key_list() == [b"plain"]
    assert rows.skipped == {"directory": 1, "link": 2, "device": 2, "meta": 2, "no extension": 2, "hidden": 1}


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 127, 128, 129])
def test_any_number_of_samples(tmp_path, count):
    path = write(tmp_path / "a.tar", tar_bytes([f"{i:05d}.jpg" for i in range(count)]))
    rows = assert_same_outcome(index_tar, path)
    assert rows.key_list() == [b"%05d" % i for i in range(count)]


def test_missing_members_are_minus_one(tmp_path):
    path = write(tmp_path / "a.tar", tar_bytes(["a.jpg", "a.txt", "b.txt", "c.jpg", "d.cls"]))
    rows = assert_same_outcome(index_tar, path)
    present = {e: (s >= 0).tolist() for e, s in zip(rows.extensions, rows.size_bytes, strict=True)}
    assert present == {
        b"jpg": [True, False, True, False],
        b"txt": [True, True, False, False],
        b"cls": [False, False, False, True],
    }


def test_a_pax_size_overrides_the_header(tmp_path):
    content = b"y" * 700
    blob = (
        pax_header({"size": "700", "path": "ö/new name.jpg"}) + header_block(b"old.png", 3) + padded(content)
    )
    path = write(tmp_path / "a.tar", blob + header_block(b"next.jpg", 1) + padded(b"n") + END)
    rows = assert_same_outcome(index_tar, path)
    assert samples_of(rows, path) == [("ö/new name".encode(), {b"jpg": content}), (b"next", {b"jpg": b"n"})]


def test_sizes_of_8_gib_and_more_are_read_in_base_256(tmp_path):
    size = (9 << 30) + 5
    path = tmp_path / "a.tar"
    with open(path, "wb") as file:  # a hole on disk
        file.write(header_block(b"big.npy", b"\x80" + size.to_bytes(11, "big")))
        file.seek(-(-size // BLOCK) * BLOCK, os.SEEK_CUR)
        file.write(header_block(b"small.npy", 4) + padded(b"1234") + END)
    rows = assert_same_outcome(index_tar, path)
    assert [int(s) for s in rows.size_bytes[0]] == [size, 4]
    assert [int(s) for s in rows.offset_bytes[0]] == [BLOCK, 2 * BLOCK + -(-size // BLOCK) * BLOCK]


def test_a_tar_without_magic_is_read(tmp_path):
    blob = (
        header_block(b"folder/", 0, b"\0", bytes(8))
        + header_block(b"old.jpg", 2, b"\0", bytes(8))
        + padded(b"ab")
    )
    path = write(tmp_path / "a.tar", blob + END)
    rows = assert_same_outcome(index_tar, path)
    assert samples_of(rows, path) == [(b"old", {b"jpg": b"ab"})]
    assert rows.skipped == {"directory": 1}


def test_a_global_pax_comment_is_not_a_sample(tmp_path):
    path = write(
        tmp_path / "a.tar", pax_header({"comment": "by git"}, b"g") + header_block(b"a.jpg", 0) + END
    )
    assert assert_same_outcome(index_tar, path).key_list() == [b"a"]


@pytest.mark.parametrize("count", [255, 256, 257])
def test_more_than_256_extensions_are_keys_with_dots(tmp_path, count):
    path = write(tmp_path / "a.tar", tar_bytes([f"IMG.{i:04d}.jpg" for i in range(count)]))
    got = assert_same_outcome(index_tar, path)
    if count <= 256:
        assert got.n == 1 and len(got.extensions) == count
    else:
        assert "more than 256 different extensions, the latest '0256.jpg': the keys seem to hold dots" in got


def test_keys_that_do_not_ascend_are_fine_as_long_as_they_are_different(tmp_path):
    rng = np.random.default_rng(5)
    names = [f"{i:04d}.{e}" for i in rng.permutation(211) for e in ("jpg", "txt")]
    rows = assert_same_outcome(index_tar, write(tmp_path / "a.tar", tar_bytes(names)))
    assert rows.n == 211
    got = assert_same_outcome(index_tar, write(tmp_path / "b.tar", tar_bytes([*names, names[100]])))
    assert f"the key '{names[100][:4]}', first seen at byte" in got and "comes back" in got


def test_a_signed_checksum_of_old_tars_is_accepted(tmp_path):
    block = bytearray(header_block("é.jpg".encode(), 0))
    signed = sum(b - 256 if b > 127 else b for b in bytes(block[:148]) + b" " * 8 + bytes(block[156:]))
    block[148:156] = b"%06o\0 " % signed
    assert bytes(block) != with_checksum(block)
    assert assert_same_outcome(index_tar, write(tmp_path / "a.tar", bytes(block) + END)).key_list() == [
        "é".encode()
    ]


def test_names_that_are_not_utf8_are_keys_too(tmp_path):
    path = write(tmp_path / "a.tar", header_block(b"caf\xe9.jpg", 0) + END)
    assert assert_same_outcome(index_tar, path).key_list() == [b"caf\xe9"]
    write(path, header_block(b"caf\xe9.jpg", 0) * 2 + END)
    assert "a second member 'caf\\xe9.jpg'" in assert_same_outcome(index_tar, path)


def test_indexing_reads_at_most_5_percent_of_a_shard(tmp_path):
    path = tmp_path / "a.tar"
    with open(path, "wb") as file:
        for i in range(200):  # the smallest photos are about 32 KiB
            file.write(header_block(b"%05d.jpg" % i, 32 << 10) + bytes([i % 255 + 1]) * (32 << 10))
            file.write(header_block(b"%05d.cls" % i, 1) + padded(b"7"))
            file.write(header_block(b"%05d.txt" % i, 40) + padded(b"c" * 40))
        file.write(bytes(10240))
    rows = assert_same_outcome(index_tar, path)
    assert rows.n == 200
    assert rows.header_bytes <= 0.05 * path.stat().st_size
