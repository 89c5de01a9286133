"""Makes containers of every odd kind for the tests of shards/, in code.

In: names and contents. Out: bytes of tars and zips, or files below a folder. Everything is written by
Python's own tarfile and zipfile, or by hand where those refuse to write what must be refused.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np

BLOCK = 512

# Names that have gone wrong somewhere: spaces, non-ASCII, dots, capitals, more than 100 bytes.
ODD_NAMES = [
    "plain.jpg",
    "plain.cls",
    "with space.JPG",
    "with space.txt",
    "folder.with.dots/inner.jpg",
    "folder.with.dots/inner.seg.png",
    "sché 東京.jpg",
    "sché 東京.txt",
    "a/" * 30 + "deep.jpg",
    "x" * 90 + "/" + "y" * 60 + ".jpg",
    "x" * 90 + "/" + "z" * 120 + ".jpg",
    "x" * 90 + "/" + "z" * 120 + ".txt",
    "./dot/begin.jpg",
    "empty.jpg",
    "empty.txt",
]
PASSED_OVER = ["__index__/a.jpg", "__meta__", "no_extension", "folder/.hidden.jpg", "ends_with_dot."]


def content_of(name: str) -> bytes:
    """Differs by name in bytes and length; sizes around one and two blocks come up; 'empty' is empty."""
    if name.startswith("empty"):
        return b""
    seed = sum(name.encode())
    size = (0, 1, 511, 512, 513, 1023, 1024, 1025, 7919)[seed % 9]
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8).tobytes()


def tar_bytes(names: list[str], tar_format: int = tarfile.PAX_FORMAT, special: tuple = ()) -> bytes:
    """A tar of these members; `special`: further TarInfos without content, put first."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format, encoding="utf-8") as tar:
        for header in special:
            tar.addfile(header)
        for name in names:
            header = tarfile.TarInfo(name)
            header.size = len(content_of(name))
            tar.addfile(header, io.BytesIO(content_of(name)))
    return out.getvalue()


def header_block(name: bytes, size: bytes | int, kind: bytes = b"0", magic: bytes = b"ustar\x0000") -> bytes:
    """One header with a right checksum, whatever else is wrong in it."""
    block = bytearray(BLOCK)
    block[: len(name)] = name
    block[100:108] = b"0000644\0"
    block[124:136] = b"%011o\0" % size if isinstance(size, int) else size
    block[156:157] = kind
    block[257:265] = magic
    return with_checksum(block)


def with_checksum(block: bytes) -> bytes:
    block = bytearray(block)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def pax_header(records: dict[str, str], kind: bytes = b"x") -> bytes:
    text = b""
    for key, value in records.items():
        record = f" {key}={value}\n".encode()
        length = len(record) + 1
        while len(str(length)) + len(record) != length:
            length += 1
        text += str(length).encode() + record
    return header_block(b"pax", len(text), kind) + padded(text)


END = bytes(2 * BLOCK)


def zip_bytes(names: list[str], comment: bytes = b"") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as packed:
        for name in names:
            packed.writestr(zipfile.ZipInfo(name), content_of(name))
        packed.comment = comment
    return out.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def samples_of(rows, path: Path) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """(key, {extension: content}) of every row, read by offset from the container."""
    blob = path.read_bytes()
    out = []
    for row, key in enumerate(rows.key_list()):
        fields = {}
        for place, extension in enumerate(rows.extensions):
            start, size = int(rows.offset_bytes[place][row]), int(rows.size_bytes[place][row])
            assert (start < 0) == (size < 0)
            if size >= 0:
                fields[extension] = blob[start : start + size]
        out.append((key, fields))
    return out


def assert_same_rows(one, other) -> None:
    assert one.extensions == other.extensions
    assert one.key_list() == other.key_list()
    for a, b in zip(one.offset_bytes + one.size_bytes, other.offset_bytes + other.size_bytes, strict=True):
        assert a.dtype == b.dtype == np.int64
        assert np.array_equal(a, b)
    assert one.skipped == other.skipped
    assert one.members_stop == other.members_stop
    assert one.label_member == other.label_member
    assert one.content_hash() == other.content_hash()


def outcome(index, path: Path, impl: str):
    """The rows, or the ShardError's text: what two twins must agree in."""
    from fastload.errors import ShardError

    try:
        return index(str(path), path.name, impl)
    except ShardError as error:
        return str(error)


def assert_same_outcome(index, path: Path):
    plain, native = outcome(index, path, "reference"), outcome(index, path, "native")
    if isinstance(plain, str) or isinstance(native, str):
        assert plain == native, f"{plain!r} != {native!r}"
    else:
        assert_same_rows(plain, native)
    return native
