"""Members of a container become rows: one row a sample, one column an extension.

In: the regular members of one container in their order, as (name, header offset, payload offset, size). Out:
`Rows`, NumPy columns. Names are bytes, because a container does not declare their encoding.

WebDataset's grouping rule: the key is the path up to the first dot of the basename (directories included),
the extension is the rest, lower-cased in ASCII. Skipped, and counted by kind in `Rows.skipped`: names whose
first path component is `__x__` ("meta"), basenames that begin with a dot ("hidden"), names without an
extension ("no extension"). Refused with a ShardError: a second member with the same key and extension, a key
that recurs after another key, more than 256 different extensions.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import BinaryIO

import numpy as np

from fastload.errors import ShardError

COPY_AGAIN = "Copy or download it again, or leave this shard out of the source."
MAX_EXTENSIONS = 256
IMAGE_EXTENSIONS = frozenset(["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm"])
_META = re.compile(rb"__[^/]*__($|/)", re.DOTALL)


@dataclass
class Rows:
    """The samples of one container; n of them, e extensions.

    extensions: e names, lower case, as bytes, in order of first appearance. offset_bytes, size_bytes: e
    arrays int64 [n] each; -1 if a sample has no such member. key_end: int64 [n]; the key of row i is
    keys[key_end[i - 1]:key_end[i]]. skipped: members that are not samples, counted by kind. members_stop: the
    end of the last payload. label_member: (offset, size) of EDM's dataset.json. header_bytes: how many bytes
    of headers were read. labels: int32 [n] or None. spellings: for folders, how each extension is written on
    disk: a list of spellings and an int64 [n] of indices into it.
    """

    extensions: list[bytes]
    key_end: np.ndarray
    keys: bytes
    offset_bytes: list[np.ndarray] = field(default_factory=list)
    size_bytes: list[np.ndarray] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    members_stop: int = 0
    label_member: tuple[int, int] | None = None
    header_bytes: int = 0
    labels: np.ndarray | None = None
    spellings: dict[bytes, tuple[list[bytes], np.ndarray]] = field(default_factory=dict)

    @property
    def n(self) -> int:
        return len(self.key_end)

    def key_list(self) -> list[bytes]:
        """All keys as bytes objects; for tests and small tables only."""
        return [self.keys[start:stop] for start, stop in pairwise([0, *self.key_end.tolist()])]

    def content_hash(self) -> str:
        """32 hex digits of keys, extensions, offsets and sizes: the container's part of a dataset's
        fingerprint.

        They depend neither on how an index file stores the columns, nor on the order of the extensions.
        """
        digest = hashlib.blake2b(f"rows 1 {self.n}".encode(), digest_size=16)
        digest.update(self.key_end.astype("<i8"))
        digest.update(self.keys)
        for column in sorted(range(len(self.extensions)), key=self.extensions.__getitem__):
            name = self.extensions[column]
            spellings, chosen = self.spellings.get(name, ([], np.empty(0, np.int64)))
            digest.update(b"\0".join([b"", name, *spellings, b""]) + chosen.astype("<i8").tobytes())
            digest.update(self.offset_bytes[column].astype("<i8"))
            digest.update(self.size_bytes[column].astype("<i8"))
        return digest.hexdigest()


class RowBuilder:
    """Groups members into rows, with one `add` a member; the reference of csrc/shards/sample_rows.

    has_label_file: a root `dataset.json` is not a sample, but EDM's file of labels.
    """

    def __init__(self, name: str, has_label_file: bool):
        self.name = name
        self.has_label_file = has_label_file
        self.samples: list[tuple[bytes, int, dict[bytes, tuple[int, int]]]] = []
        self.extensions: list[bytes] = []
        self.skipped: dict[str, int] = {}
        self.members_stop = 0
        self.label_member = None

    def add(self, member: bytes, header_offset: int, offset_bytes: int, size_bytes: int) -> None:
        self.members_stop = max(self.members_stop, offset_bytes + size_bytes)
        if self.has_label_file and member == b"dataset.json":
            self.label_member = (offset_bytes, size_bytes)
            return self.skip("label file")
        split = split_name(member)
        if isinstance(split, str):
            return self.skip(split)
        key, extension = split
        if not self.samples or self.samples[-1][0] != key:
            self.samples.append((key, header_offset, {}))
        fields = self.samples[-1][2]
        if extension not in self.extensions:
            self._add_extension(extension, header_offset)
        if extension in fields:
            raise damaged(
                self.name,
                header_offset,
                f"a second member '{shown(member)}' (extensions count in lower case)",
                "Rename or remove one of the two and pack the shard again.",
            )
        fields[extension] = (offset_bytes, size_bytes)

    def skip(self, kind: str) -> None:
        self.skipped[kind] = self.skipped.get(kind, 0) + 1

    def finish(self, header_bytes: int = 0) -> Rows:
        self._check_keys_are_unique()
        keys = [key for key, _, _ in self.samples]
        fields = [found for _, _, found in self.samples]
        table = [
            np.array([found.get(name, (-1, -1)) for found in fields], np.int64).reshape(-1, 2)
            for name in self.extensions
        ]
        return Rows(
            extensions=self.extensions,
            offset_bytes=[pair[:, 0].copy() for pair in table],
            size_bytes=[pair[:, 1].copy() for pair in table],
            key_end=np.cumsum([len(key) for key in keys], dtype=np.int64),
            keys=b"".join(keys),
            skipped=self.skipped,
            members_stop=self.members_stop,
            label_member=self.label_member,
            header_bytes=header_bytes,
        )

    def _add_extension(self, extension: bytes, header_offset: int) -> None:
        if len(self.extensions) == MAX_EXTENSIONS:
            raise damaged(
                self.name,
                header_offset,
                f"more than 256 different extensions, the latest '{shown(extension)}': the keys seem to hold "
                "dots, and an extension starts at the first dot of the name",
                "Rename the members so that their keys have no dots and pack the shard again.",
            )
        self.extensions.append(extension)

    def _check_keys_are_unique(self) -> None:
        first_offset: dict[bytes, int] = {}
        for key, header_offset, _ in self.samples:
            if key in first_offset:
                raise damaged(
                    self.name,
                    header_offset,
                    f"the key '{shown(key)}', first seen at byte {first_offset[key]}, comes back",
                    "All members of a sample must lie together: pack the shard again, sorted by name.",
                )
            first_offset[key] = header_offset


class HeaderWalk:
    """One pass over the headers of a container: a subclass's `run` makes its Rows. The reference of a native
    indexer."""

    has_label_file = False  # as in RowBuilder

    def __init__(self, file: BinaryIO, name: str):
        self.file, self.name = file, name
        self.size_bytes = os.fstat(file.fileno()).st_size
        self.rows = RowBuilder(name, self.has_label_file)
        self.header_bytes = 0

    @classmethod
    def index(cls, native: Callable, path: str, name: str, impl: str) -> Rows:
        """impl: "native" (and "auto") reads without the GIL; "reference" is this class."""
        if impl == "reference":
            with open(path, "rb", buffering=0) as file:
                return cls(file, name).run()
        return Rows(**native(os.fsencode(path), name.encode("utf-8", "surrogateescape")))

    def damaged(self, offset_bytes: int, what: str, way_out: str = COPY_AGAIN) -> ShardError:
        return damaged(self.name, offset_bytes, what, way_out)

    def read(self, start: int, count: int) -> bytes:
        content = os.pread(self.file.fileno(), count, start)
        if len(content) != count:
            raise self.damaged(start + len(content), "the file became shorter while it was read")
        self.header_bytes += count
        return content


def split_name(member: bytes) -> tuple[bytes, bytes] | str:
    """(key, extension) of a member's name, or the kind under which it is skipped."""
    if _META.match(member):
        return "meta"
    base = member.rfind(b"/") + 1
    dot = member.find(b".", base)
    if dot < 0 or dot + 1 == len(member):
        return "no extension"
    if dot == base:
        return "hidden"
    return member[:dot], member[dot + 1 :].lower()


def damaged(name: str, offset_bytes: int, what: str, way_out: str) -> ShardError:
    """An error about a container; all have this form."""
    return ShardError(f"{name}: {what} at byte {offset_bytes}. {way_out}")


def shown(member: bytes) -> str:
    """A member's name for a message of one line."""
    return re.sub(
        r"[\0-\x1f\x7f]", lambda c: f"\\x{ord(c[0]):02x}", member.decode("utf-8", "backslashreplace")
    )
