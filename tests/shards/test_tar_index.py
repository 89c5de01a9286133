"""Indexing a tar: against Python's tarfile and webdataset, both twins, and every way in which a tar can be
damaged."""

import io
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

from fastload.errors import ShardError
from fastload.shards.rows import split_name
from fastload.shards.tar import index_tar

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
IMPLS = ("plain", "native")


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


def test_what_is_no_sample_is_counted_by_kind(tmp_path):
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


def test_a_tar_cut_at_any_block_is_reported_with_its_byte_offset(tmp_path):
    """Also one byte before and behind each boundary; nothing shorter than the first zero block passes."""
    whole = tar_bytes(["a.jpg", "a.txt", "x" * 120 + ".jpg", "sché.jpg"], tarfile.PAX_FORMAT)
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        last = list(tar)[-1]
    members_stop = last.offset_data + -(-last.size // BLOCK) * BLOCK
    expected = index_tar(str(write(tmp_path / "whole.tar", whole)), "whole.tar").content_hash()
    for boundary in range(0, len(whole) + 1, BLOCK):
        for cut in {max(0, boundary - 1), boundary, min(len(whole), boundary + 1)}:
            got = assert_same_outcome(index_tar, write(tmp_path / "cut.tar", whole[:cut]))
            if cut < members_stop + BLOCK:
                assert isinstance(got, str), f"a tar cut at byte {cut} passed"
                place = int(got.split(" at byte ")[1].split(".")[0])
                assert "cut" in got and place <= cut
            else:
                assert got.content_hash() == expected


def test_a_flipped_bit_in_any_header_byte_is_found_or_changes_nothing(tmp_path):
    whole = tar_bytes(["a.jpg", "x" * 120 + ".jpg"], tarfile.PAX_FORMAT)
    path = write(tmp_path / "a.tar", whole)
    expected = index_tar(str(path), "a.tar").content_hash()
    with tarfile.open(path) as tar:
        headers = sorted({member.offset for member in tar} | {member.offset_data - BLOCK for member in tar})
    harmless = []
    for header in headers:
        for place in range(header, header + BLOCK):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << (place % 8)
            got = assert_same_outcome(index_tar, write(path, bytes(damaged)))
            if isinstance(got, str):
                assert (
                    f"header checksum mismatch (member {min(headers.index(header), 1)}) at byte {header}."
                    in got
                )
            else:
                assert got.content_hash() == expected
                harmless.append(place - header)
    assert all(148 <= place < 156 for place in harmless)  # blanks around the checksum's own digits


@pytest.mark.parametrize(
    "tail, message",
    [
        (bytes(BLOCK), None),
        (bytes(BLOCK + 3), None),
        (bytes(20 * BLOCK), None),
        (bytes(200 * BLOCK), None),
        (b"", "no end marker .* at byte 1024"),
        (bytes(BLOCK - 1), "cut in a header or in padding at byte 1024"),
        (bytes(BLOCK) + b"\0\1", "content behind the end marker at byte 1024 .* at byte 1537"),
        (END + tar_bytes(["second.jpg"]), "content behind the end marker at byte 1024 .* at byte 2048"),
        (bytes(300 * BLOCK) + b"x", f"at byte {1024 + 300 * BLOCK}"),
    ],
)
def test_one_zero_block_ends_a_tar_and_nothing_may_follow(tmp_path, tail, message):
    path = write(tmp_path / "a.tar", header_block(b"a.jpg", 2) + padded(b"ab") + tail)
    got = assert_same_outcome(index_tar, path)
    if message is None:
        assert got.key_list() == [b"a"]
    else:
        with pytest.raises(ShardError, match=message):
            index_tar(str(path), "a.tar")


JPG = header_block(b"a.jpg", 2) + padded(b"ab")


@pytest.mark.parametrize(
    "blob, message",
    [
        (JPG + JPG + END, "a second member 'a.jpg' .* at byte 1024"),
        (JPG + header_block(b"a.JPG", 0) + END, "a second member 'a.JPG' .* at byte 1024"),
        (
            JPG + header_block(b"b.jpg", 0) + header_block(b"a.txt", 0) + END,
            "the key 'a', first seen at byte 0, comes back at byte 1536",
        ),
        (JPG + header_block(b"b.jpg", 1 << 20) + END, "the file is cut: 'b.jpg' .* at byte 1024"),
        (JPG + header_block(b"b.jpg", b"12345678xyz\0") + END, "damaged size field .member 1. at byte 1024"),
        (JPG + header_block(b"b.jpg", b"\xff" * 12) + END, "damaged size field"),
        (JPG + header_block(b"b.jpg", b"\x80" + b"\xff" * 11) + END, "damaged size field"),
        (JPG + header_block(b"b.jpg", 0, b"S") + END, "'b.jpg' is a sparse member"),
        (JPG + pax_header({"GNU.sparse.major": "1"}) + header_block(b"b.jpg", 0) + END, "is a sparse member"),
        (JPG + header_block(b"b.jpg", 0, b"M") + END, "unknown member type 77 at byte 1024"),
        (
            JPG + pax_header({"path": "c.jpg"}, b"g") + END,
            "global pax header that sets 'path' .* at byte 1024",
        ),
        (JPG + pax_header({"size": "-3"}) + END, "damaged size in a pax header at byte 1024"),
        (
            JPG + header_block(b"pax", 9, b"x") + padded(b"99 a=b\n\0\0") + END,
            "damaged pax header at byte 1024",
        ),
        (JPG + header_block(b"pax", 6, b"x") + padded(b"6 abc\n") + END, "damaged pax header at byte 1024"),
        (JPG + pax_header({"path": "c.jpg"}) + END, "extended header with no member behind it at byte 2048"),
        (
            JPG + header_block(b"long", 2 << 20, b"L") + END,
            "an extended header of 2097152 bytes at byte 1024",
        ),
        (JPG + header_block(b"long", 5000, b"L") + END, "cut in an extended header at byte 1024"),
        (JPG + b"garbage!" * 64 + END, "header checksum mismatch .member 1. at byte 1024"),
    ],
)
def test_broken_rules_are_reported_with_their_byte_offset(tmp_path, blob, message):
    path = write(tmp_path / "bad.tar", blob)
    assert_same_outcome(index_tar, path)
    with pytest.raises(ShardError, match=message) as caught:
        index_tar(str(path), "bad.tar")
    assert str(caught.value).startswith("bad.tar: ")
    assert "\n" not in str(caught.value)


def test_a_global_pax_comment_is_no_sample(tmp_path):
    path = write(tmp_path / "a.tar", pax_header({"comment": "made by git"}, b"g") + JPG + END)
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


def test_names_that_are_no_utf8_are_keys_all_the_same(tmp_path):
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
