"""An explicit list of image files as one container.

In: paths in the order of the samples, and optionally a label for each. Out: `Files`, a source for
`fl.Loader`; and for the index its `Rows` and the stamp of the folders of the files. Promised: sample i is
paths[i], one file a sample: a file that is listed twice is two samples, and so are a.jpg and a.png; every
listed file is included. Files are never opened, and each folder is listed once; for a list that is already
indexed, only the modification times of the folders are checked.

A key is the path relative to the folder that all files share, without its last extension. So the fingerprint
does not depend on the location of that folder, and equals that of a folder source with the same samples.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import reprlib
import stat
import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from fastload.errors import ConfigError, SourceError
from fastload.shards.folder import Stamp, time_of
from fastload.shards.retry import NOT_LISTED, reading
from fastload.shards.rows import IMAGE_EXTENSIONS, Rows


class Files:
    """A list of image files as a source: sample i is the file `paths[i]`.

        fl.Files(["photos/b.jpg", "photos/a.png"], labels=[0, 1], classes=["cat", "dog"])

    paths: of files, absolute or relative to the current folder at this time; each ends in the extension of an
        image. labels: an integer for each, for fl.Int("cls"). classes: their names; label i is classes[i].

    Raises ConfigError for anything but a list of paths of images, and for labels that do not match it.
    """

    def __init__(
        self,
        paths: Iterable[str | os.PathLike],
        labels: Any = None,
        classes: Iterable[str] | None = None,
    ):
        self.paths = _paths(paths)
        relative = next((path for path in self.paths if not path.startswith("/")), None)
        self._folder = "" if relative is None else current_folder(relative)
        if isinstance(classes, str) or not isinstance(classes, Iterable | None):
            raise ConfigError(
                f"Files(classes=...) must be a list of names, one for each label, got {classes!r}."
            )
        self.classes = None if classes is None else tuple(str(name) for name in classes)
        self.labels = None if labels is None else _labels(labels, len(self.paths), self.classes)
        if self.classes is not None and self.labels is None:
            raise ConfigError(
                f"Files(classes={reprlib.repr(classes)}): classes name labels, so give labels too."
            )

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        labels = "" if self.labels is None else ", labels"
        classes = "" if self.classes is None else f", {len(self.classes)} classes"
        return f"Files({len(self)} files, the first {self.paths[0]!r}{labels}{classes})"

    def absolute(self) -> list[bytes]:
        """The absolute paths; links are kept, except in folders with "..".

        Raises ConfigError for a NUL byte in a name.
        """
        joined = os.fsencode("\0".join(self.paths))
        paths = joined.split(b"\0")
        if len(paths) != len(self):
            wrong = next(path for path in self.paths if "\0" in path)
            raise ConfigError(
                f"Files(paths=...): {wrong!r} contains a NUL byte, which no file name can. Correct it."
            )
        folder = os.fsencode(self._folder)
        homes = {home: _absolute_home(os.path.join(folder, home)) for home in set(map(_home, paths))}
        if all(home == absolute for home, absolute in homes.items()):
            return paths
        return [homes[home] + path[len(home) :] for home, path in zip(map(_home, paths), paths, strict=True)]

    def root_and_hash(self) -> tuple[str, str]:
        """(the folder that all files share, 32 hex digits of the list), for the current file system."""
        paths = self.absolute()
        digest = hashlib.blake2b(b"files 1\0" + b"\0".join(paths), digest_size=16)
        if self.labels is not None:
            digest.update(b"\0labels\0" + self.labels.astype("<i4").tobytes())
        digest.update(repr(self.classes).encode("utf-8", "surrogateescape"))
        return os.fsdecode(os.path.commonpath(set(map(_home, paths)))), digest.hexdigest()


def index_files(files: Files, root: str) -> tuple[Rows, Stamp, list[str] | None]:
    """Rows, stamp and class names (or None) of a list whose files share the folder `root`.

    Raises SourceError for a missing file, and for a folder that cannot be listed.
    """
    paths = files.absolute()
    sizes, stamp = reading(root, lambda: _look(paths, os.fsencode(root)), NOT_LISTED)
    size_bytes = np.fromiter(map(sizes.__getitem__, paths), np.int64, len(paths))
    missing = np.flatnonzero(size_bytes < 0)
    if missing.size:
        others = f" ({missing.size - 1} more of {len(paths)} are missing)" if missing.size > 1 else ""
        path = files.paths[missing[0]]
        where = "" if os.path.isabs(path) else f" in {files._folder}"
        what = "is a folder" if os.path.isdir(paths[missing[0]]) else "does not exist"
        raise SourceError(f"{path}, listed by fl.Files, {what}{where}{others}. Correct the list.")
    rows = _rows(paths, len(os.path.join(os.fsencode(root), b"")), size_bytes)
    rows.labels = files.labels
    return rows, stamp, None if files.classes is None else list(files.classes)


def current_folder(path: str) -> str:
    """The current folder, for a relative path. Raises SourceError if it is gone."""
    try:
        return os.getcwd()
    except OSError as error:
        raise SourceError(
            f"{path}: the path is relative, but there is no current folder ({error.strerror}). Use an "
            "absolute path."
        ) from error


def _paths(paths: Any) -> tuple[str, ...]:
    if isinstance(paths, (str, bytes, os.PathLike)) or not isinstance(paths, Iterable):
        raise ConfigError(
            f"Files(paths=...) must be a list of paths, got {paths!r}. A folder can be a source itself."
        )
    try:
        given = tuple(map(os.fspath, paths))
    except TypeError as error:
        wrong = f"paths={reprlib.repr(paths)}"
        raise ConfigError(f"Files({wrong}): {error}. Give paths of files.") from None
    if not given:
        raise ConfigError(f"Files(paths={paths!r}): the list is empty. Name at least one file.")
    kinds = set(map(type, given))
    if kinds != {str}:
        if not all(issubclass(kind, str) for kind in kinds):
            wrong = next(path for path in given if not isinstance(path, str))
            raise ConfigError(
                f"Files(paths=...): paths must be str, got {wrong!r}. Convert bytes with os.fsdecode."
            )
        given = tuple(map(str, given))
    written = {path.rpartition(".")[2] for path in given}
    unreadable = {text for text in written if text.lower() not in IMAGE_EXTENSIONS}
    if unreadable:
        wrong = next(path for path in given if path.rpartition(".")[2] in unreadable)
        raise ConfigError(
            f"Files(paths=...): {wrong!r} does not have the extension of an image "
            f"({' '.join(sorted(IMAGE_EXTENSIONS))}). Remove it, or rename it."
        )
    return given


def _labels(labels: Any, count: int, classes: tuple[str, ...] | None) -> np.ndarray:
    """int32 [count]"""
    if isinstance(labels, Iterable) and not hasattr(labels, "__array__"):
        labels = list(labels)  # NumPy does not consume iterators
    numbers = np.asarray(labels)
    # Integers that exceed int64 come as objects.
    are_integers = numbers.dtype.kind in "iu" or all(type(number) is int for number in numbers.flat)
    if numbers.shape != (count,) or not are_integers:
        raise ConfigError(
            f"Files(labels={reprlib.repr(labels)}): give an integer for each of the {count} files, got "
            f"{numbers.dtype} of shape {list(numbers.shape)}."
        )
    low, high = (-(2**31), 2**31) if classes is None else (0, len(classes))
    outside = numbers[(numbers < low) | (numbers >= high)]
    if outside.size:
        allowed = f"in [0, {high}), as there are {high} classes" if classes is not None else "in int32"
        raise ConfigError(
            f"Files(labels={reprlib.repr(labels)}): labels must be {allowed}, got {outside[0]}."
        )
    return numbers.astype(np.int32)


def _home(path: bytes) -> bytes:
    """The folder of a file with the slash after it: b"/d/" of b"/d/a.jpg", b"" of b"a.jpg"."""
    return path[: path.rfind(b"/") + 1]


def _absolute_home(home: bytes) -> bytes:
    # Only the file system can resolve ".." after a link.
    inner = (os.path.realpath if b".." in home.split(b"/") else os.path.abspath)(home).strip(b"/")
    return b"/" + inner + b"/" if inner else b"/"


def _look(paths: list[bytes], root: bytes) -> tuple[dict[bytes, int], Stamp]:
    """Path -> size in bytes, -1 if it is not a file; and the modification time of each folder.

    Folders are listed, because a network file system sends sizes along with the names; a `stat` for each of a
    million paths would be faster only on a local disk.
    """
    sizes = dict.fromkeys(paths, -1)
    stamp: Stamp = []
    started_ns = time.time_ns()
    for home in dict.fromkeys(map(_home, paths)):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            stamp.append((os.fsdecode(os.path.relpath(home, root)), time_of(os.stat(home), started_ns)))
            with os.scandir(home) as entries:
                for entry in entries:
                    if entry.path in sizes:
                        sizes[entry.path] = _size(entry)
    return sizes, stamp


def _size(entry: os.DirEntry) -> int:
    try:
        status = entry.stat()
    except FileNotFoundError:  # a link that leads nowhere
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def _rows(paths: list[bytes], skipped: int, size_bytes: np.ndarray) -> Rows:
    """One row a path, whose first `skipped` bytes are the shared folder."""
    parts = [path[skipped:].rpartition(b".") for path in paths]
    keys = [key for key, _, _ in parts]
    spellings = sorted({written for _, _, written in parts})
    number = {written: i for i, written in enumerate(spellings)}
    spelled = np.fromiter((number[written] for _, _, written in parts), np.int64, len(paths))
    rows = Rows(
        extensions=sorted({written.lower() for written in spellings}),
        key_end=np.cumsum(np.fromiter(map(len, keys), np.int64, len(keys))),
        keys=b"".join(keys),
    )
    for extension in rows.extensions:
        own = [written for written in spellings if written.lower() == extension]
        own_number = np.full(len(spellings), -1, np.int64)
        own_number[[number[written] for written in own]] = np.arange(len(own))
        chosen = own_number[spelled]
        rows.size_bytes.append(np.where(chosen < 0, np.int64(-1), size_bytes))
        rows.offset_bytes.append(np.where(chosen < 0, np.int64(-1), np.int64(0)))
        rows.spellings[extension] = (own, np.maximum(chosen, 0))
    return rows
