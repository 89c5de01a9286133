"""Small tars and zips, cut at every byte and with every byte of their headers changed: an error or all rows.

Both twins agree in every case. What a container's own format cannot show is named where it is accepted.
"""

import io
import os
import struct
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
from shard_corpus import (
    BLOCK,
    END,
    assert_same_outcome,
    content_of,
    header_block,
    outcome,
    padded,
    pax_header,
    samples_of,
    tar_bytes,
    write,
    zip_bytes,
)

from fastload.shards.tar import index_tar
from fastload.shards.zip import index_zip

SMALL_TAR = header_block(b"a.jpg", 700) + padded(b"j" * 700) + header_block(b"a.cls", 1) + padded(b"7") + END
# A header of each kind that says something about a member: its own, GNU's for a long name, pax's.
LONG = b"x" * 120 + b".jpg"
KINDS = {
    "ustar": header_block(b"a.jpg", 2) + padded(b"ab"),
    "gnu": header_block(b"././@LongLink", len(LONG), b"L", b"ustar  \0")
    + padded(LONG)
    + header_block(LONG[:99], 2, b"0", b"ustar  \0")
    + padded(b"ab"),
    "pax": pax_header({"path": "ä.jpg", "size": "2"}) + header_block(b"old.jpg", 2) + padded(b"ab"),
}
SMALL_ZIP = ["a.jpg", "a.txt", "c/b.jpg"]  # of 1023, 513 and 7919 bytes


def hash_of(got) -> str | None:
    return None if isinstance(got, str) else got.content_hash()


def test_a_tar_cut_at_every_byte_is_an_error_or_whole(tmp_path):
    """Both twins at the first and last bytes of each block, the native one everywhere."""
    path = write(tmp_path / "a.tar", SMALL_TAR)
    whole = index_tar(str(path), "a.tar").content_hash()
    for size in range(len(SMALL_TAR), -1, -1):
        os.truncate(path, size)
        near_an_edge = (size + 1) % BLOCK <= 2
        got = assert_same_outcome(index_tar, path) if near_an_edge else outcome(index_tar, path, "native")
        assert hash_of(got) == (whole if size >= len(SMALL_TAR) - BLOCK else None), size


def test_a_zip_cut_at_every_byte_is_an_error(tmp_path):
    whole = zip_bytes(["a.txt", "b.txt"], b"a comment")
    path = write(tmp_path / "a.zip", whole)
    for size in range(len(whole) - 1, -1, -1):
        os.truncate(path, size)
        got = assert_same_outcome(index_zip, path) if size % 8 == 0 else outcome(index_zip, path, "native")
        assert isinstance(got, str) and "the zip is cut" in got, size


@pytest.mark.parametrize("kind", KINDS)
def test_every_byte_of_a_tar_header_changed_is_an_error_or_nothing(tmp_path, kind):
    blob = KINDS[kind] + SMALL_TAR[2 * BLOCK + BLOCK :]
    path = write(tmp_path / "a.tar", blob)
    whole = index_tar(str(path), "a.tar").content_hash()
    headers = [at for at in range(0, len(KINDS[kind]), BLOCK) if blob[at + 257 : at + 262] == b"ustar"]
    with open(path, "r+b", buffering=0) as file:
        for place in (header + offset for header in headers for offset in range(BLOCK)):
            for value in {0, 255, ord("0"), blob[place] ^ 1, blob[place] ^ 128} - {blob[place]}:
                os.pwrite(file.fileno(), bytes([value]), place)
                got = outcome(index_tar, path, "native")
                assert isinstance(got, str) or got.content_hash() == whole, (place, value)
                if place % 16 == 0:
                    assert_same_outcome(index_tar, path)
            os.pwrite(file.fileno(), blob[place : place + 1], place)


def test_every_byte_of_a_zips_headers_changed_is_an_error_or_leaves_the_contents(tmp_path):
    """A name has no checksum, and may change with its copy only; what is left to accept is dates and such."""
    blob = zip_bytes(SMALL_ZIP)
    path = write(tmp_path / "a.zip", blob)
    whole = index_zip(str(path), "a.zip").content_hash()
    with zipfile.ZipFile(path) as packed:
        locals_ = [(one.header_offset, len(one.filename)) for one in packed.infolist()]
    places = [at for begin, name in locals_ for at in range(begin, begin + 30 + name)]
    with open(path, "r+b", buffering=0) as file:
        for place in [*places, *range(blob.find(b"PK\1\2"), len(blob))]:
            for value in {0, 255, blob[place] ^ 1, blob[place] ^ 128} - {blob[place]}:
                os.pwrite(file.fileno(), bytes([value]), place)
                got = (
                    assert_same_outcome(index_zip, path)
                    if place % 4 == 0
                    else outcome(index_zip, path, "native")
                )
                assert isinstance(got, str) or got.content_hash() == whole, (place, value)
            os.pwrite(file.fileno(), blob[place : place + 1], place)


@pytest.mark.slow
def test_two_bytes_changed_at_once_never_break_a_parser(tmp_path):
    """Where checksums and names are repaired after the damage: what lies behind them is tried."""
    rng = np.random.default_rng(0)
    names = ["a.jpg", "a.cls", "x" * 120 + ".jpg", "sché.jpg"]
    tars = [tar_bytes(names, form)[: 12 * BLOCK] + END for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)]
    for index, blobs in ((index_tar, tars), (index_zip, [zip_bytes(names), zip64_bytes(names)])):
        for blob in blobs * 2000:
            damaged = bytearray(blob)
            for place in rng.integers(0, len(blob), 2):
                damaged[place] = rng.integers(0, 256)
            if index is index_tar:
                for at in range(0, len(damaged), BLOCK):
                    if damaged[at + 257 : at + 262] == b"ustar":
                        damaged[at + 148 : at + 156] = b" " * 8
                        damaged[at + 148 : at + 156] = b"%06o\0 " % sum(damaged[at : at + BLOCK])
            got = assert_same_outcome(index, write(tmp_path / "a", bytes(damaged)))
            if not isinstance(got, str):
                for start, size in zip(got.offset_bytes, got.size_bytes, strict=True):
                    assert ((start < 0) | (start + size <= len(blob))).all()


def zip64_bytes(names) -> bytes:
    """A zip whose sizes, offsets and end record are all in zip64 form."""
    out, entries = io.BytesIO(), []
    for name in names:
        content, raw, at = content_of(name), name.encode(), out.tell()
        extra = struct.pack("<2H2Q", 1, 16, len(content), len(content))
        head = struct.pack(
            "<4s5H3L2H", b"PK\3\4", 45, 0, 0, 0, 0, 0, 2**32 - 1, 2**32 - 1, len(raw), len(extra)
        )
        out.write(head + raw + extra + content)
        extra = struct.pack("<2H3Q", 1, 24, len(content), len(content), at)
        sizes = (2**32 - 1, 2**32 - 1, len(raw), len(extra), 0, 0, 0, 0, 2**32 - 1)
        entries.append(struct.pack("<4s6H3L5H2L", b"PK\1\2", 45, 45, 0, 0, 0, 0, 0, *sizes) + raw + extra)
    start, directory = out.tell(), b"".join(entries)
    out.write(directory)
    end = out.tell()
    out.write(
        struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, *[len(names)] * 2, len(directory), start)
    )
    out.write(struct.pack("<4sLQL", b"PK\6\7", 0, end, 1))
    out.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0))
    return out.getvalue()


def test_a_zip64_in_all_of_its_numbers_is_read(tmp_path):
    names = ["a.jpg", "a.txt", "b.jpg"]
    path = write(tmp_path / "a.zip", zip64_bytes(names))
    got = dict(samples_of(assert_same_outcome(index_zip, path), path))
    assert got == {
        b"a": {b"jpg": content_of("a.jpg"), b"txt": content_of("a.txt")},
        b"b": {b"jpg": content_of("b.jpg")},
    }


@pytest.mark.parametrize("value", [0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1, 2**64 - 60])
@pytest.mark.parametrize(
    ("record", "place"),
    [
        (b"PK\6\7", 8),  # where the end record lies
        (b"PK\6\6", 32),  # entries
        (b"PK\6\6", 40),  # size and start of the directory
        (b"PK\6\6", 48),
        (b"PK\1\2", 46 + 5 + 4),  # size, packed size and offset of the first member
        (b"PK\1\2", 46 + 5 + 12),
        (b"PK\1\2", 46 + 5 + 20),
    ],
)
def test_a_zip64_that_lies_is_refused(tmp_path, record, place, value):
    blob = bytearray(zip64_bytes(["a.jpg", "b.jpg"]))
    at = blob.find(record) + place
    if struct.unpack_from("<Q", blob, at) == (value,):
        return
    struct.pack_into("<Q", blob, at, value)
    got = assert_same_outcome(index_zip, write(tmp_path / "a.zip", bytes(blob)))
    assert isinstance(got, str) and got.startswith("a.zip: ") and "\n" not in got


def changed_local(place, content):
    """A zip whose second local header says something else."""
    blob = zip_bytes(["a.jpg", "b.jpg"])
    at = blob.find(b"PK\3\4", 4) + place
    return blob[:at] + content + blob[at + len(content) :]


@pytest.mark.parametrize(
    ("place", "content", "message"),
    [
        (6, b"\1\0", "the local header of 'b.jpg' contradicts the directory at byte"),  # encrypted
        (8, b"\x08\0", "the local header of 'b.jpg' contradicts the directory at byte"),  # deflated
        (18, b"\1\0\0\0", "the local header of 'b.jpg' contradicts the directory at byte"),
        (22, b"\1\0\0\0", "the local header of 'b.jpg' contradicts the directory at byte"),
        (28, b"\xff\xff", "'b.jpg' runs into the directory at byte"),
    ],
)
def test_a_local_header_that_contradicts_the_directory_is_refused(tmp_path, place, content, message):
    got = assert_same_outcome(index_zip, write(tmp_path / "a.zip", changed_local(place, content)))
    assert message in got


def test_sizes_behind_the_content_are_fine(tmp_path):
    """As zip writes to a pipe: flag 8, and zeros in the local header."""

    class Pipe(io.BytesIO):
        def seek(self, *place):
            raise io.UnsupportedOperation

    out = Pipe()
    with zipfile.ZipFile(out, "w") as packed:
        for name in ("a.jpg", "b.jpg"):
            packed.writestr(zipfile.ZipInfo(name), content_of(name))
    assert out.getvalue()[6] & 8
    path = write(tmp_path / "a.zip", out.getvalue())
    got = samples_of(assert_same_outcome(index_zip, path), path)
    assert got == [(b"a", {b"jpg": content_of("a.jpg")}), (b"b", {b"jpg": content_of("b.jpg")})]


def test_members_that_overlap_are_refused(tmp_path):
    """As zip bombs do, and as a damaged header does that moves a content by a few bytes."""
    blob = bytearray(zip_bytes(["a.jpg", "b.jpg"]))
    struct.pack_into("<H", blob, 28, 3)
    got = assert_same_outcome(index_zip, write(tmp_path / "a.zip", bytes(blob)))
    second = bytes(blob).index(b"PK\3\4", 4)
    assert f"two members overlap, the second at byte {second}." in got


def test_members_in_another_order_than_the_directory_are_fine(tmp_path):
    blob = zip_bytes(["a.jpg", "b.jpg"])
    start, end = blob.find(b"PK\1\2"), blob.find(b"PK\5\6")
    middle = blob.find(b"PK\1\2", start + 1)
    path = write(tmp_path / "a.zip", blob[:start] + blob[middle:end] + blob[start:middle] + blob[end:])
    assert assert_same_outcome(index_zip, path).key_list() == [b"b", b"a"]


NAMES = {  # as a member is called -> (key, extension); a key is never a path that is opened
    "with space.jpg": (b"with space", b"jpg"),
    " .jpg": (b" ", b"jpg"),
    "東京/ü.JPG": ("東京/ü".encode(), b"jpg"),
    "a.b.jpg": (b"a", b"b.jpg"),
    "a..jpg": (b"a", b".jpg"),
    "folder.with.dots/a.jpg": (b"folder.with.dots/a", b"jpg"),
    "../../etc/passwd.jpg": (b"../../etc/passwd", b"jpg"),
    "/etc/passwd.jpg": (b"/etc/passwd", b"jpg"),
    "./a.jpg": (b"./a", b"jpg"),
    "c:\\windows\\a.jpg": (b"c:\\windows\\a", b"jpg"),
    "a\tb\nc.jpg": (b"a\tb\nc", b"jpg"),
    "'; drop.jpg": (b"'; drop", b"jpg"),
    "x" * 250 + ".jpg": (b"x" * 250, b"jpg"),
}


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:20]))
@pytest.mark.parametrize("form", ["pax", "gnu", "zip"])
def test_names_are_kept_as_they_are(tmp_path, name, form):
    key, extension = NAMES[name]
    if form == "zip":
        path, index = write(tmp_path / "a.zip", zip_bytes([name])), index_zip
    else:
        form = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT}[form]
        path, index = write(tmp_path / "a.tar", tar_bytes([name], form)), index_tar
    rows = assert_same_outcome(index, path)
    assert samples_of(rows, path) == [(key, {extension: content_of(name)})]


@pytest.mark.parametrize("second", ["a.jpg", "a.JPG"])
def test_two_members_of_one_name_are_refused(tmp_path, second):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile says that it writes a name twice
        packed.writestr(zipfile.ZipInfo("a.jpg"), b"1")
        packed.writestr(zipfile.ZipInfo(second), b"2")
    for name, index, blob in (
        ("a.zip", index_zip, out.getvalue()),
        ("a.tar", index_tar, tar_bytes(["a.jpg", second])),
    ):
        assert f"{name}: a second member '{second}'" in assert_same_outcome(
            index, write(tmp_path / name, blob)
        )


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_members_of_no_bytes_are_samples_with_an_empty_field(tmp_path, kind):
    names = ["empty.jpg", "empty.txt", "last.jpg", "z_empty.jpg"]
    blob = tar_bytes(names) if kind == "tar" else zip_bytes(names)
    index = index_tar if kind == "tar" else index_zip
    path = write(tmp_path / f"a.{kind}", blob)
    rows = assert_same_outcome(index, path)
    assert samples_of(rows, path)[0] == (b"empty", {b"jpg": b"", b"txt": b""})


def test_a_long_link_name_is_not_the_name_of_a_member(tmp_path):
    """GNU's header K names what the next link leads to, and no file, should one follow."""
    target = header_block(b"././@LongLink", 200, b"K", b"ustar  \0") + padded(b"y" * 200)
    blob = target + header_block(b"link.jpg", 0, b"2") + target + header_block(b"a.jpg", 0) + END
    rows = assert_same_outcome(index_tar, write(tmp_path / "a.tar", blob))
    assert rows.key_list() == [b"a"] and rows.skipped == {"link": 1}
