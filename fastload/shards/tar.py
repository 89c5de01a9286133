"""The rows of one tar file, read only from its headers: ustar, pax, GNU long names and links, base-256 sizes.

In: the path of a tar. Out: `Rows` (see rows.py). Promised: every header's checksum is verified, every payload
lies inside the file, and nothing is skipped silently.

Directories, links and devices are not samples and have no payload; they are counted in `Rows.skipped`. Sparse
members, multi-volume parts and unknown member types are refused, because their content is not a byte range of
the file, or is unknown.

The end: there must be a zero block, and from the first one on all bytes must be zero. POSIX requires two zero
blocks; one is enough here, as for GNU tar, because a writer that wrote the end marker has written all
members. A file that ends at a member boundary without any zero block is refused, although GNU tar and Python
accept it: it looks like a tar that was truncated there, and missing samples must be noticed. The message says
how to append the marker to a complete tar.
"""

from __future__ import annotations

import re
from typing import BinaryIO

from fastload import _native
from fastload.shards.rows import HeaderWalk, Rows, shown

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

    impl: "native" (and "auto") reads without the GIL; "reference" is the specification below.
    Raises ShardError for anything but a complete, undamaged tar.
    """
    return _TarWalk.index(_native.index_tar, path, name, impl)


class _TarWalk(HeaderWalk):
    """`at` is the offset of the current header."""

    def __init__(self, file: BinaryIO, name: str):
        super().__init__(file, name)
        self.at = self.member = 0
        self._forget_overrides()

    def run(self) -> Rows:
        while True:
            if self.at + BLOCK > self.size_bytes:
                raise self._problem_at_the_end()
            block = self.read(self.at, BLOCK)
            if not any(block):
                break
            if not _checksum_matches(block):
                raise self.damaged(self.at, f"header checksum mismatch (member {self.member})")
            self._take(block)
        if self.pending:
            raise self.damaged(self.at, "an extended header with no member behind it")
        self._check_padding()
        return self.rows.finish(self.header_bytes)

    def _take(self, block: bytes) -> None:
        size = _size_field(block[124:136])
        if size is None or size > MAX_SIZE_BYTES:
            raise self.damaged(self.at, f"damaged size field (member {self.member})")
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
            raise self.damaged(self.at, what, "Pack the shard again without --sparse.")
        if regular:
            self._take_payload(member, size if self.size is None else self.size)
        elif kind[0] in _SKIPPED:
            # No payload, whatever their size field is, as in GNU tar and Python.
            self.rows.skip(_SKIPPED[kind[0]])
            self.at += BLOCK
        else:
            what = f"'{shown(member)}' has the unknown member type {kind[0]}"
            raise self.damaged(self.at, what, "Pack the shard again with regular files only.")
        self._forget_overrides()
        self.member += 1

    def _take_payload(self, member: bytes, size: int) -> None:
        start = self.at + BLOCK
        if start + size > self.size_bytes:
            what = (
                f"the file is cut: '{shown(member)}' needs bytes up to {start + size}, "
                f"the file has {self.size_bytes}, in the member"
            )
            raise self.damaged(self.at, what)
        self.rows.add(member, self.at, start, size)
        self.at = start + padded(size)

    def _extended(self, size: int) -> bytes:
        """The payload of an extended header; moves past it."""
        if size > MAX_EXTENDED_BYTES:
            raise self.damaged(self.at, f"an extended header of {size} bytes")
        if self.at + BLOCK + size > self.size_bytes:
            raise self.damaged(self.at, "the file is cut in an extended header")
        payload = self.read(self.at + BLOCK, size)
        self.header_at = self.at
        self.at += BLOCK + padded(size)
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
                raise self.damaged(self.header_at, "damaged pax header")
            key, equals, value = record[len(match[0]) : -1].partition(b"=")
            if not equals:
                raise self.damaged(self.header_at, "damaged pax header")
            self._take_record(key, value, everywhere)
            at += length
        self.pending = self.pending or not everywhere

    def _take_record(self, key: bytes, value: bytes, everywhere: bool) -> None:
        sparse = key.startswith(b"GNU.sparse.")
        if everywhere and (sparse or key in (b"path", b"size")):
            what = f"a global pax header that sets '{shown(key)}' for all members"
            raise self.damaged(self.header_at, what, "Pack the shard again with another tool.")
        if sparse:
            self.sparse = True
        if key == b"path":
            self.path = value or None
        if key == b"size":
            if value and not re.fullmatch(rb"\d{1,18}", value):
                raise self.damaged(self.header_at, "damaged size in a pax header")
            self.size = int(value) if value else None

    def _problem_at_the_end(self) -> Exception:
        if self.at == self.size_bytes:
            return self.damaged(
                self.at,
                "no end marker (a block of zeros): the tar seems cut between two members",
                "Copy or download it again, or append a marker if it is whole: "
                "head -c 1024 /dev/zero >> FILE.",
            )
        where = min(self.at, self.size_bytes)
        return self.damaged(where, "the file is cut in a header or in padding")

    def _check_padding(self) -> None:
        at = self.at + BLOCK
        while at < self.size_bytes:
            chunk = self.read(at, min(64 * 1024, self.size_bytes - at))
            if any(chunk):
                first = at + len(chunk) - len(chunk.lstrip(b"\0"))
                what = (
                    f"content behind the end marker at byte {self.at} (two tars joined, or a damaged header)"
                )
                raise self.damaged(first, what, "Pack the shard again: tar would not show what lies there.")
            at += len(chunk)

    def _forget_overrides(self) -> None:
        """Extended headers apply only to one member."""
        self.path: bytes | None = None
        self.size: int | None = None
        self.sparse = False
        self.pending = False


def _octal(field: bytes) -> int | None:
    """Blanks, digits, then blanks or NULs; an empty field is 0, as in every tar."""
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
    signed_sum = sum(byte - 256 if byte > 127 else byte for byte in summed)  # as in some old tars
    return stored is not None and stored in (sum(summed), signed_sum)


def _header_name(block: bytes) -> bytes:
    """The name in a ustar header; with GNU's own magic ("ustar  ") the prefix field has another meaning."""
    member = block[:100].split(b"\0")[0]
    prefix = block[345:500].split(b"\0")[0]
    return prefix + b"/" + member if block[257:263] == b"ustar\0" and prefix else member


def padded(size: int) -> int:
    """The bytes of whole blocks that content of this size takes."""
    return -(-size // BLOCK) * BLOCK
