"""The rows of one zip file, read from its central directory and its local headers: stored members, zip64.

In: the path of a zip. Out: `Rows` (see rows.py). Promised: nothing is skipped silently.

Members are in the order of the central directory. Each local header is read too, because only it says where
the content starts; its signature, name, method and sizes must agree with the directory. Directories and
symbolic links are not samples; they are counted in `Rows.skipped`. Nor is a root `dataset.json` (EDM stores
labels there; labels.py reads them). Refused: compressed and encrypted members, several disks, bytes before
the zip, a directory with a wrong length or count, members that overlap. Names are the bytes in the zip, even
if an old zip declares them as code page 437, because tools on Linux write UTF-8 there.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import BinaryIO

from fastload import _native
from fastload.shards.rows import HeaderWalk, Rows, shown

REPACK = "Pack it again as one plain zip without compression (zip -0), or as a tar."
MAX_COMMENT_BYTES = 65535
FULL = 0xFFFFFFFF  # a number that did not fit: zip64 holds it

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")


def index_zip(path: str, name: str, impl: str = "auto") -> Rows:
    """The rows of the zip at `path`, called `name` in messages.

    impl: "native" (and "auto") reads without the GIL; "reference" is the specification below.
    Raises ShardError for anything but a complete zip of stored members.
    """
    return _ZipWalk.index(_native.index_zip, path, name, impl)


class _ZipWalk(HeaderWalk):
    has_label_file = True

    def __init__(self, file: BinaryIO, name: str):
        super().__init__(file, name)
        self.extents: list[tuple[int, int]] = []  # of the members: local header, end of the content

    def run(self) -> Rows:
        start, stop, claimed = self._find_directory()
        directory = self.read(start, stop - start)
        at = count = 0
        while at < len(directory):
            length = 0
            if len(directory) - at >= _ENTRY.size and directory.startswith(b"PK\1\2", at):
                length = _ENTRY.size + sum(struct.unpack_from("<3H", directory, at + 28))
            if length == 0 or at + length > len(directory):
                raise self.damaged(start + at, "damaged entry in the directory")
            self._take(directory[at : at + length], start + at, start)
            at += length
            count += 1
        if count != claimed:
            raise self.damaged(start, f"the directory has {count} entries and claims {claimed}, starting")
        self._check_overlap()
        return self.rows.finish(self.header_bytes)

    def _find_directory(self) -> tuple[int, int, int]:
        """(start, stop, number of entries) of the central directory."""
        tail_start = max(0, self.size_bytes - _END.size - MAX_COMMENT_BYTES)
        tail = self.read(tail_start, self.size_bytes - tail_start)
        at = tail.rfind(b"PK\5\6")
        while at >= 0:
            if len(tail) - at >= _END.size:
                (comment_bytes,) = struct.unpack_from("<H", tail, at + 20)
                if comment_bytes == len(tail) - at - _END.size:
                    return self._checked(_END.unpack_from(tail, at), tail_start + at)
            at = tail.rfind(b"PK\5\6", 0, at + 3)
        raise self.damaged(self.size_bytes, "the zip is cut: it has no directory before its end")

    def _checked(self, end: tuple, end_offset: int) -> tuple[int, int, int]:
        _, disk, directory_disk, _, count, size, start, _ = end
        stop = end_offset
        locator_offset = end_offset - _LOCATOR.size
        if locator_offset >= 0:
            signature, _, end64_offset, _ = _LOCATOR.unpack(self.read(locator_offset, _LOCATOR.size))
            if signature == b"PK\6\7":
                stop = end64_offset
                whole = end64_offset + _END64.size <= self.size_bytes
                end64 = _END64.unpack(self.read(end64_offset, _END64.size)) if whole else (b"",)
                if end64[0] != b"PK\6\6":
                    raise self.damaged(locator_offset, "damaged zip64 record")
                disk, directory_disk, _, count, size, start = end64[4:]
        if disk or directory_disk:
            raise self.damaged(end_offset, "the zip is spread over several disks", REPACK)
        if start > stop or size != stop - start:
            what = "the directory does not end where it should (bytes put before the zip, or damage)"
            raise self.damaged(stop, what, REPACK)
        return start, stop, count

    def _take(self, entry: bytes, entry_offset: int, directory_start: int) -> None:
        _, made_by, _, flags, method, _, _, _, packed, size, *rest = _ENTRY.unpack_from(entry)
        name_bytes, extra_bytes, _, _, _, attributes, local = rest
        member = entry[_ENTRY.size : _ENTRY.size + name_bytes]
        extra = entry[_ENTRY.size + name_bytes :][:extra_bytes]
        if FULL in (size, packed, local):
            size, packed, local = self._zip64(extra, (size, packed, local), member, entry_offset)
        if member.endswith(b"/"):
            return self.rows.skip("directory")
        if made_by >> 8 == 3 and attributes >> 16 & 0xF000 == 0xA000:
            return self.rows.skip("link")
        if flags & 0x2041:
            raise self.damaged(local, f"'{shown(member)}' is encrypted", REPACK)
        if method != 0 or packed != size:
            raise self.damaged(local, f"'{shown(member)}' is compressed (method {method})", REPACK)
        start = self._content_start(member, local, size)
        if start + size > directory_start:
            raise self.damaged(local, f"'{shown(member)}' runs into the directory")
        self.extents.append((local, start + size))
        self.rows.add(member, local, start, size)

    def _content_start(self, member: bytes, local: int, size: int) -> int:
        head_bytes = _LOCAL.size + len(member)
        head = self.read(local, head_bytes) if local + head_bytes <= self.size_bytes else bytes(head_bytes)
        signature, _, flags, method, *_, packed, unpacked, local_name_bytes, local_extra_bytes = (
            _LOCAL.unpack_from(head)
        )
        if signature != b"PK\3\4" or local_name_bytes != len(member) or head[_LOCAL.size :] != member:
            raise self.damaged(local, f"no local header of '{shown(member)}'")
        # Sizes may follow the content instead (flag 8), or be in a zip64 field.
        sized = flags & 8 or {packed, unpacked} <= {size, FULL}
        if method != 0 or flags & 0x2041 or not sized:
            raise self.damaged(local, f"the local header of '{shown(member)}' contradicts the directory")
        return local + head_bytes + local_extra_bytes

    def _check_overlap(self) -> None:
        """A damaged length of a local header's extra field moves a member's content into the next member."""
        for (_, end), (begin, _) in pairwise(sorted(self.extents)):
            if begin < end:
                raise self.damaged(begin, "two members overlap, the second")

    def _zip64(self, extra: bytes, numbers: tuple, member: bytes, entry_offset: int) -> list[int]:
        """Extra field 1 holds, in the order (size, packed, local), those of the three that did not fit."""
        at = 0
        while at + 4 <= len(extra):
            kind, length = struct.unpack_from("<2H", extra, at)
            if length > len(extra) - at - 4:
                break
            if kind == 1:
                wide = list(struct.unpack_from(f"<{length // 8}Q", extra, at + 4))
                return [wide.pop(0) if number == FULL and wide else number for number in numbers]
            at += 4 + length
        raise self.damaged(entry_offset, f"'{shown(member)}' has no zip64 sizes: damaged entry")
