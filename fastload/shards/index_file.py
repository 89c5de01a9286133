"""The index file of one container: its rows as columns, to be memory-mapped. This file describes the format.

    bytes 0..8    magic "FLINDEX\\n"
    then uint32   version, bytes of the JSON text, CRC-32 of the JSON text, CRC-32 of all bytes after it
    then          the JSON text, padded with blanks to a multiple of 64
    then          the columns, each starting at a multiple of 8

All numbers are little-endian. The JSON lists the columns: {"name", "width" in bytes, "shift" in bits,
"start", "count"}. A reader ignores columns that it does not know, so columns may be added without a new
version:

    size:EXT      bytes of each sample's member; all ones: there is none. Unsigned, 1, 2, 4 or 8 bytes wide
    offset:EXT    where its content starts, shifted right by `shift`; as wide as the largest value needs
    spelling:EXT  folders: which of `spellings[EXT]` the file has on disk
    key_end       where each sample's key ends in `keys`
    keys          the concatenated keys
    label         int32 class labels, if there are any

Promised: a file is written whole or not at all (temporary file, fsync, rename). A damaged file is never used:
`read_index` refuses a wrong header or size, and IndexLookup checks the columns before their first use. A
jpg + cls + txt sample takes about 23 bytes and its key.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import tempfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fastload import _native
from fastload.errors import raise_if_foreign
from fastload.shards.rows import Rows
from fastload.shortage import is_shortage

MAGIC = b"FLINDEX\n"
VERSION = 1
_HEAD = struct.Struct("<8s4I")
_HEADER_MULTIPLE = 64
ROWS_AT_ONCE = 1 << 16  # whose keys are gathered at once, with 8 bytes for each of their bytes


class IndexUnusableError(Exception):
    """An index file is damaged, of another version, or not an index file; never leaves shards/."""


@dataclass(frozen=True)
class Stamp:
    """Shows whether a container has changed since it was indexed; not part of any fingerprint.

    The tail is 4 KiB: of a zip the last ones; of a tar those up to the end of the block after its last
    member, where another member would be appended.
    """

    size_bytes: int = 0
    mtime_ns: int = 0
    tail_start: int = 0
    tail_stop: int = 0
    tail_crc: int = 0
    folders: list[tuple[str, int]] = field(default_factory=list)


@dataclass(frozen=True)
class IndexFile:
    """A mapped index file. header: the parsed JSON text. columns_start: the byte offset of the columns."""

    path: str
    mapped: _native.MappedFile
    header: dict
    columns_start: int
    checksum: int
    seen_mtime_ns: int | None = None  # of the container, when it was found to be unchanged

    @property
    def n(self) -> int:
        return self.header["rows"]

    @property
    def columns(self) -> dict[str, dict]:
        """name -> the column's entry in the header."""
        return {column["name"]: column for column in self.header["columns"]}

    @property
    def stamp(self) -> Stamp:
        stored = self.header["stamp"]
        seen = {} if self.seen_mtime_ns is None else {"mtime_ns": self.seen_mtime_ns}
        return Stamp(**{**stored, **seen, "folders": [tuple(pair) for pair in stored["folders"]]})

    def described(self, extension_numbers: dict[str, int], folder: str | None) -> dict:
        """The argument of IndexLookup.add; folder: the absolute path of a folder container."""
        columns = self.columns

        def location(name: str) -> dict | None:
            if name not in columns:
                return None
            column = columns[name]
            at = self.columns_start + column["start"]
            return {"at": at, "width": column["width"], "shift": column["shift"]}

        return {
            "rows": self.n,
            "container_bytes": self.header["stamp"]["size_bytes"],
            "columns_start": self.columns_start,
            "checksum": self.checksum,
            "folder": None if folder is None else os.fsencode(folder) + b"/",
            "key_end": location("key_end"),
            "keys": location("keys"),
            "keys_bytes": columns["keys"]["count"],
            "labels": location("label"),
            "extensions": [
                {
                    "extension": extension_numbers[name],
                    "offset_bytes": location(f"offset:{name}"),
                    "size_bytes": location(f"size:{name}"),
                    "spelling": location(f"spelling:{name}"),
                    "spellings": [_bytes(text) for text in self.header["spellings"].get(name, [])],
                }
                for name in self.header["counts"]
            ],
        }


def write_index(
    path: str | Path, rows: Rows, stamp: Stamp, classes: list[str] | None = None, *, alone: bool = False
) -> None:
    """Writes the index of a container to `path`, whole or not at all; `alone` as in write_atomically.

    Raises OSError.
    """
    packed = _pack_all(rows)
    columns, blob, start = [], [], 0
    for name, (array, shift) in packed.items():
        columns.append(
            {"name": name, "width": array.itemsize, "shift": shift, "start": start, "count": array.size}
        )
        content = array.tobytes()
        blob.append(content + bytes(-len(content) % 8))
        start += len(blob[-1])
    content = b"".join(blob)
    sizes = {_text(name): size for name, size in zip(rows.extensions, rows.size_bytes, strict=True)}
    header = {
        "rows": rows.n,
        "stamp": stamp.__dict__,
        "content": rows.content_hash(),
        "counts": {name: int((size >= 0).sum()) for name, size in sorted(sizes.items())},
        "payload_bytes": sum(int(size[size >= 0].sum()) for size in sizes.values()),
        "skipped": rows.skipped,
        "header_bytes": rows.header_bytes,
        "classes": classes,
        "spellings": {
            _text(name): list(map(_text, written)) for name, (written, _) in rows.spellings.items()
        },
        "columns": columns,
        "columns_bytes": len(content),
    }
    text = json.dumps(header).encode()
    text += b" " * (-(_HEAD.size + len(text)) % _HEADER_MULTIPLE)
    head = _HEAD.pack(MAGIC, VERSION, len(text), zlib.crc32(text), zlib.crc32(content))
    write_atomically(path, head + text + content, alone=alone)


def read_index(path: str | Path) -> IndexFile:
    """The mapped index file at `path`. Takes O(1): IndexLookup checks the columns later.

    Raises FileNotFoundError, IndexUnusableError; OSError if descriptors or memory run out.
    """
    try:
        mapped = _native.MappedFile(os.fsencode(path))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise_if_foreign(error)
        if is_shortage(error.errno):
            raise
        raise IndexUnusableError(f"{path}: cannot be read ({error.strerror})") from None
    view = memoryview(mapped)
    if len(view) < _HEAD.size or sys.byteorder != "little":
        raise IndexUnusableError(f"{path}: too short for an index file")
    magic, version, text_bytes, text_crc, checksum = _HEAD.unpack_from(view)
    if magic != MAGIC or version != VERSION:
        raise IndexUnusableError(f"{path}: another format or version ({version}, expected {VERSION})")
    columns_start = _HEAD.size + text_bytes
    if columns_start > len(view) or zlib.crc32(view[_HEAD.size : columns_start]) != text_crc:
        raise IndexUnusableError(f"{path}: damaged header")
    header = json.loads(bytes(view[_HEAD.size : columns_start]))
    if header["columns_bytes"] != len(view) - columns_start:
        raise IndexUnusableError(f"{path}: truncated")
    return IndexFile(os.fspath(path), mapped, header, columns_start, checksum)


def chosen_rows(index: IndexFile, chosen: np.ndarray) -> Rows:
    """Some rows of an index, as if their container had no others.

    chosen: ascending row numbers, int64. IndexLookup must have checked the columns.
    """
    columns = index.columns

    def values(name: str, rows: np.ndarray = chosen) -> np.ndarray | None:
        column = columns.get(name)
        if column is None:
            return None
        start, width = index.columns_start + column["start"], column["width"]
        stored = np.frombuffer(index.mapped, f"<u{width}", column["count"], start)
        return stored[rows].astype(np.uint64) << np.uint64(column["shift"])

    stops = values("key_end").astype(np.int64)
    starts = np.where(chosen == 0, 0, values("key_end", np.maximum(chosen - 1, 0)).astype(np.int64))
    start, count = index.columns_start + columns["keys"]["start"], columns["keys"]["count"]
    rows = Rows(
        extensions=[],
        key_end=np.cumsum(stops - starts),
        keys=_joined(np.frombuffer(index.mapped, np.uint8, count, start), starts, stops),
    )
    for name in index.header["counts"]:
        size = values(f"size:{name}")
        missing = size == np.uint64(2 ** (8 * columns[f"size:{name}"]["width"]) - 1)
        if missing.all():
            continue
        offset = values(f"offset:{name}")
        offset = np.int64(0) if offset is None else offset.astype(np.int64)
        rows.extensions.append(_bytes(name))
        rows.size_bytes.append(np.where(missing, np.int64(-1), size.astype(np.int64)))
        rows.offset_bytes.append(np.where(missing, np.int64(-1), offset))
        if (spelling := values(f"spelling:{name}")) is not None:
            used, spelled = np.unique(spelling[~missing], return_inverse=True)
            number = np.zeros(len(chosen), np.int64)
            number[~missing] = spelled
            written = index.header["spellings"][name]
            rows.spellings[_bytes(name)] = [_bytes(written[i]) for i in used.tolist()], number
    return rows


def _joined(keys: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> bytes:
    """The bytes [start, stop) of `keys`, uint8, of each row, concatenated."""
    pieces = []
    for at in range(0, len(starts), ROWS_AT_ONCE):
        begin, lengths = starts[at : at + ROWS_AT_ONCE], (stops - starts)[at : at + ROWS_AT_ONCE]
        ends = np.cumsum(lengths)
        pieces.append(keys[np.arange(ends[-1]) + np.repeat(begin - ends + lengths, lengths)].tobytes())
    return b"".join(pieces)


def write_atomically(path: str | Path, content: bytes, *, alone: bool = False) -> None:
    """Writes a file whole or not at all, also if the power fails. Raises OSError.

    alone: no other process writes it now. Then the temporary file has a fixed name, and replaces one that was
    left by a killed process.
    """
    path = Path(path)
    if alone:
        temporary = str(path.parent / f".{path.name}.partial")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    else:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # mkstemp's 0600 would hide a published index from other users
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _pack_all(rows: Rows) -> dict[str, tuple[np.ndarray, int]]:
    """Column name -> (unsigned array, shift in bits)."""
    packed: dict[str, tuple[np.ndarray, int]] = {}
    for i, extension in enumerate(rows.extensions):
        name = _text(extension)
        size_bytes, present = rows.size_bytes[i], rows.size_bytes[i] >= 0
        width = _width(int(size_bytes.max(initial=0)) + 1)  # all ones means missing
        stored = np.where(present, size_bytes.astype("<u8"), np.uint64(2**64 - 1))
        packed[f"size:{name}"] = stored.astype(f"<u{width}"), 0
        if extension in rows.spellings:  # of a folder: all offsets are 0 and need no column
            packed[f"spelling:{name}"] = _narrow(rows.spellings[extension][1]), 0
        else:
            offset = np.where(present, rows.offset_bytes[i], 0)
            shift = 9 if not np.any(offset & 511) else 0  # tar: whole blocks of 512 bytes
            packed[f"offset:{name}"] = _narrow(offset >> shift), shift
    packed["key_end"] = _narrow(rows.key_end), 0
    packed["keys"] = np.frombuffer(rows.keys, np.uint8), 0
    if rows.labels is not None:
        packed["label"] = rows.labels.astype("<i4").view("<u4"), 0
    return packed


def _narrow(values: np.ndarray) -> np.ndarray:
    return values.astype(f"<u{_width(int(values.max(initial=0)))}")


def _width(largest: int) -> int:
    """The fewest of 1, 2, 4 or 8 bytes that hold `largest`."""
    return next(width for width in (1, 2, 4, 8) if largest < 1 << 8 * width)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
