"""The rows of one tar file, read from its headers only: ustar, pax, GNU long names and long links, base-256
sizes.

In: the path of a tar. Out: `Rows` (see rows.py). Promised: every header's checksum is verified, every payload
lies inside the file, and nothing is passed over in silence.

Directories, links and devices are no samples and carry no payload; they are counted in `Rows.skipped`.
Refused, because a byte range of the file is not the member's content or because nobody knows what it is:
sparse members, multi-volume parts, unknown member types.

The end: from the first zero block on all bytes must be zero, and there must be one. POSIX asks for two zero
blocks; one is enough here, as for GNU tar, because a writer that has come to the end marker has written all
members. A file that ends at a member boundary without any zero block is refused, where GNU tar and Python
accept it: it looks the same as a tar that was cut there, and a shard's missing samples must not go unnoticed.
The message says how to append the marker to a tar that is whole.
"""

from __future__ import annotations

import os
import re
from typing import BinaryIO

from fastload import _native
from fastload.shards.rows import COPY_AGAIN, RowBuilder, Rows, damaged, shown

BLOCK = 512
MAX_EXTENDED_BYTES = 1 << 20  # of a pax header or a long name; real ones are below 64 KiB
MAX_SIZE_BYTES = 1 << 62  # larger than any file

_SKIPPED = {
    **dict.fromkeys(b"12", "link"),
    **dict.fromkeys(b"346", "device"),
    **dict.fromkeys(b"5\0", "directory"),
    ord("V"): "volume label",
}


def index_tar(path: str, name: str, impl: str = "auto") -> Rows:
    """The rows of the tar at `path`, called `name` in messages.

    impl: "native" (which "auto" means) reads without the GIL; "reference" is the specification below.
    Raises ShardError for anything that is not a whole, undamaged tar.
    """
    if impl == "reference":
        return _reference(path, name)
    return Rows(**_native.index_tar(os.fsencode(path), name.encode("utf-8", "surrogateescape")))


def _reference(path: str, name: str) -> Rows:
    with open(path, "rb", buffering=0) as file:
        return _TarWalk(file, name).run()


class _TarWalk:
    """One pass over the headers; `at` is the byte of the header that is being read."""

    def __init__(self, file: BinaryIO, name: str):
        self.file = file
        self.name = name
        self.size_bytes = os.fstat(file.fileno()).st_size
        self.rows = RowBuilder(name, has_label_file=False)
        self.at = 0
        self.member = 0
        self.header_bytes = 0
        self._forget_overrides()

    def run(self) -> Rows:
        while True:
            if self.at + BLOCK > self.size_bytes:
                raise self._problem_at_the_end()
            block = self._read(self.at, BLOCK)
            if not any(block):
                break
            if not _checksum_matches(block):
                raise damaged(
                    self.name, self.at, f"header checksum mismatch (member {self.member})", COPY_AGAIN
                )
            self._take(block)
        if self.pending:
            raise damaged(self.name, self.at, "an extended header with no member behind it", COPY_AGAIN)
        self._check_padding()
        return self.rows.finish(self.header_bytes)

    def _take(self, block: bytes) -> None:
        size = _size_field(block[124:136])
        if size is None or size > MAX_SIZE_BYTES:
            raise damaged(self.name, self.at, f"damaged size field (member {self.member})", COPY_AGAIN)
        kind = block[156:157]
        if kind in (b"x", b"X", b"g"):
            self._take_pax(size, kind == b"g")
        elif kind == b"L":
            self.path = self._extended(size).split(b"\0")[0]
            self.pending = True
        elif kind == b"K":
            self._extended(size)
            self.pending = True
        else:
            self._take_member(block, kind, size)

    def _take_member(self, block: bytes, kind: bytes, size: int) -> None:
        member = _header_name(block) if self.path is None else self.path
        regular = kind in (b"0", b"7") or (kind == b"\0" and not member.endswith(b"/"))
        if self.sparse or kind == b"S":
            what = f"'{shown(member)}' is a sparse member, whose bytes do not lie together"
            raise damaged(self.name, self.at, what, "Pack the shard again without --sparse.")
        if regular:
            self._take_payload(member, size if self.size is None else self.size)
        elif kind[0] in _SKIPPED:
            # No payload, whatever their size field says (as GNU tar and Python read it).
            self.rows.skip(_SKIPPED[kind[0]])
            self.at += BLOCK
        else:
            what = f"'{shown(member)}' has the unknown member type {kind[0]}"
            raise damaged(self.name, self.at, what, "Pack the shard again with regular files only.")
        self._forget_overrides()
        self.member += 1

    def _take_payload(self, member: bytes, size: int) -> None:
        start = self.at + BLOCK
        if start + size > self.size_bytes:
            what = (
                f"the file is cut: '{shown(member)}' needs bytes up to {start + size}, "
                f"the file has {self.size_bytes}, in the member"
            )
            raise damaged(self.name, self.at, what, COPY_AGAIN)
        self.rows.add(member, self.at, start, size)
        self.at = start + _padded(size)

    def _extended(self, size: int) -> bytes:
        """The payload of an extended header; moves behind it."""
        if size > MAX_EXTENDED_BYTES:
            raise damaged(self.name, self.at, f"an extended header of {size} bytes", COPY_AGAIN)
        if self.at + BLOCK + size > self.size_bytes:
            raise damaged(self.name, self.at, "the file is cut in an extended header", COPY_AGAIN)
        payload = self._read(self.at + BLOCK, size)
        self.header_at = self.at
        self.at += BLOCK + _padded(size)
        return payload

    def _take_pax(self, size: int, everywhere: bool) -> None:
        """Records of the form "LENGTH KEY=VALUE\\n", LENGTH counting the whole record."""
        payload = self._extended(size)
        at = 0
        while at < len(payload):
            match = re.compile(rb"(\d{1,9}) ").match(payload, at)
            length = int(match[1]) if match else 0
            record = payload[at : at + length]
            if not match or length < len(match[0]) + 2 or len(record) < length or not record.endswith(b"\n"):
                raise damaged(self.name, self.header_at, "damaged pax header", COPY_AGAIN)
            key, equals, value = record[len(match[0]) : -1].partition(b"=")
            if not equals:
                raise damaged(self.name, self.header_at, "damaged pax header", COPY_AGAIN)
            self._take_record(key, value, everywhere)
            at += length
        self.pending = self.pending or not everywhere

    def _take_record(self, key: bytes, value: bytes, everywhere: bool) -> None:
        sparse = key.startswith(b"GNU.sparse.")
        if everywhere and (sparse or key in (b"path", b"size")):
            what = f"a global pax header that sets '{shown(key)}' for all members"
            raise damaged(self.name, self.header_at, what, "Pack the shard again with another tool.")
        if sparse:
            self.sparse = True
        if key == b"path":
            self.path = value or None
        if key == b"size":
            if value and not re.fullmatch(rb"\d{1,18}", value):
                raise damaged(self.name, self.header_at, "damaged size in a pax header", COPY_AGAIN)
            self.size = int(value) if value else None

    def _problem_at_the_end(self) -> Exception:
        if self.at == self.size_bytes:
            return damaged(
                self.name,
                self.at,
                "no end marker (a block of zeros): the tar seems cut between two members",
                "Copy or download it again, or append a marker if it is whole: "
                "head -c 1024 /dev/zero >> FILE.",
            )
        where = min(self.at, self.size_bytes)
        return damaged(self.name, where, "the file is cut in a header or in padding", COPY_AGAIN)

    def _check_padding(self) -> None:
        at = self.at + BLOCK
        while at < self.size_bytes:
            chunk = self._read(at, min(64 * 1024, self.size_bytes - at))
            if any(chunk):
                first = at + len(chunk) - len(chunk.lstrip(b"\0"))
                what = (
                    f"content behind the end marker at byte {self.at} (two tars joined, or a damaged header)"
                )
                raise damaged(
                    self.name, first, what, "Pack the shard again: tar would not show what lies there."
                )
            at += len(chunk)

    def _forget_overrides(self) -> None:
        """What extended headers said holds for one member only."""
        self.path: bytes | None = None
        self.size: int | None = None
        self.sparse = False
        self.pending = False

    def _read(self, start: int, count: int) -> bytes:
        got = os.pread(self.file.fileno(), count, start)
        if len(got) != count:
            raise damaged(
                self.name, start + len(got), "the file became shorter while it was read", COPY_AGAIN
            )
        self.header_bytes += count
        return got


def _octal(field: bytes) -> int | None:
    """Blanks, digits, then blanks or NULs; nothing at all counts as 0, as in every tar."""
    match = re.fullmatch(rb" *([0-7]*) *(\0.*)?", field, re.DOTALL)
    return int(match[1] or b"0", 8) if match else None


def _size_field(field: bytes) -> int | None:
    """Octal, or base-256 if the top bit is set (GNU, for sizes from 8 GiB on)."""
    if field[0] < 0x80:
        return _octal(field)
    return int.from_bytes(field[1:], "big") if field[0] == 0x80 else None


def _checksum_matches(block: bytes) -> bool:
    stored = _octal(block[148:156])
    summed = block[:148] + b" " * 8 + block[156:]
    with_signs = sum(
        byte - 256 if byte > 127 else byte for byte in summed
    )  # some old tars summed signed chars
    return stored is not None and stored in (sum(summed), with_signs)


def _header_name(block: bytes) -> bytes:
    """The name of a ustar header; GNU's own magic ("ustar  ") uses the place of the prefix for other
    things."""
    member = block[:100].split(b"\0")[0]
    prefix = block[345:500].split(b"\0")[0]
    return prefix + b"/" + member if block[257:263] == b"ustar\0" and prefix else member


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
