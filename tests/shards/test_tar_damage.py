"""Damaged tars and broken rules are reported with their byte offset, by both twins alike."""

import io
import tarfile

import pytest
from shard_corpus import BLOCK, END, assert_same_outcome, header_block, padded, pax_header, tar_bytes, write

from fastload.errors import ShardError
from fastload.shards.tar import index_tar

JPG = header_block(b"a.jpg", 2) + padded(b"ab")


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
