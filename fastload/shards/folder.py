"""The rows of a folder of images: every file below it, walked with os.scandir.

In: a folder. Out: `Rows` sorted by key, and the folder's stamp (the modification time of every folder in it,
which shows whether a cached index is out of date). Promised: files are never opened, except a dataset.json at
the root.

The extension is what follows the LAST dot, in lower case, and the key is the rest of the relative path,
because photos have names such as "IMG 2020.01.02.jpg". Files with the same key (a.jpg and a.txt) are one
sample. Hidden files and folders, files without an extension, broken links and anything that is not a file are
skipped, and so are samples without an image; all are counted in `Rows.skipped`. Links to files and folders
are followed.

Class folders: if all images lie in subfolders, and there is no dataset.json, a sample's label is the index of
its top-level folder among all top-level folders, sorted (as in torchvision: a folder without images counts
too, so that a class without samples does not shift the others).
"""

from __future__ import annotations

import os
import time
from collections import Counter
from itertools import groupby

import numpy as np

from fastload.errors import ShardError, SourceError, raise_if_foreign
from fastload.shards.labels import labels_of_json
from fastload.shards.retry import reading
from fastload.shards.rows import IMAGE_EXTENSIONS, Rows, shown

Stamp = list[tuple[str, int]]

_IMAGES = frozenset(extension.encode() for extension in IMAGE_EXTENSIONS)
# A change within the clock's resolution of the walk may not change a folder's time; FAT's resolution is 2 s.
_SETTLED_NS = 2_000_000_000


def index_folder(path: str, name: str) -> tuple[Rows, Stamp, list[str] | None]:
    """Rows, stamp and class names (or None) of the folder at `path`, called `name` in messages.

    Raises SourceError if it has no image, ShardError if two files are the same field of one sample.
    """
    walk = reading(path, lambda: _Walk(os.fsencode(path), name))
    samples = _group(walk, name)
    if not samples:
        raise _no_image(walk, path)
    rows = _rows(samples, walk.skipped)
    classes = None
    if walk.has_label_file:
        with open(os.path.join(path, "dataset.json"), "rb") as file:
            rows.labels = labels_of_json(file.read(), rows, name, lambda entry: entry.rpartition(b".")[0])
    elif all(b"/" in key for key, _ in samples):
        classes = sorted(walk.top_folders)
        number = {folder: label for label, folder in enumerate(classes)}
        rows.labels = np.array([number[key.partition(b"/")[0]] for key, _ in samples], np.int32)
    return rows, walk.stamp, None if classes is None else [os.fsdecode(folder) for folder in classes]


def folder_changed(path: str, stamp: Stamp) -> bool:
    """Whether a folder of the stamp was changed or removed since."""
    try:
        return any(os.stat(os.path.join(path, inner)).st_mtime_ns != mtime_ns for inner, mtime_ns in stamp)
    except OSError as error:
        raise_if_foreign(error)
        return True


def time_of(status: os.stat_result, started_ns: int) -> int:
    """The modification time of a folder, for its stamp; -1, which no folder has, if it is too recent.

    started_ns: when the walk began.
    """
    settled = status.st_mtime_ns + _SETTLED_NS < started_ns
    return status.st_mtime_ns if settled else -1


class _Walk:
    """files: (key, extension in lower case, extension as written, size in bytes) of every possible field."""

    def __init__(self, root: bytes, name: str):
        self.root = root
        self.name = name
        self.files: list[tuple[bytes, bytes, bytes, int]] = []
        self.top_folders: list[bytes] = []
        self.skipped: Counter[str] = Counter()
        self.has_label_file = False
        self.stamp: Stamp = []
        self._started_ns = time.time_ns()
        self._enter(b"", ())

    def _enter(self, inner: bytes, above: tuple[tuple[int, int], ...]) -> None:
        status = os.stat(os.path.join(self.root, inner))
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            raise ShardError(
                f"{self.name}: the folder {shown(inner)} is a link to one of its parents. Remove the link."
            )
        self._note_time(inner, status)
        with os.scandir(os.path.join(self.root, inner)) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            relative = inner + b"/" + entry.name if inner else entry.name
            if entry.name.startswith(b"."):
                self.skipped["hidden"] += 1
            elif entry.is_dir():
                if not inner:
                    self.top_folders.append(entry.name)
                self._enter(relative, (*above, identity))
            elif entry.is_file():
                self._take_file(relative, entry.stat())
            else:
                self.skipped["no file"] += 1

    def _take_file(self, relative: bytes, status: os.stat_result) -> None:
        if relative == b"dataset.json":
            self.has_label_file = True
            self._note_time(relative, status)
            return
        key, dot, written = relative.rpartition(b".")
        if not dot or not written or b"/" in written:
            self.skipped["no extension"] += 1
        else:
            self.files.append((key, written.lower(), written, status.st_size))

    def _note_time(self, inner: bytes, status: os.stat_result) -> None:
        self.stamp.append((os.fsdecode(inner), time_of(status, self._started_ns)))


def _group(walk: _Walk, name: str) -> list[tuple[bytes, dict[bytes, tuple[bytes, int]]]]:
    """(key, {extension: (as written, size)}) of every sample with an image, sorted by key."""
    samples = []
    for key, files in groupby(sorted(walk.files), key=lambda file: file[0]):
        fields: dict[bytes, tuple[bytes, int]] = {}
        for _, extension, written, size_bytes in files:
            if extension in fields:
                first, second = (shown(key + b"." + text) for text in (fields[extension][0], written))
                raise ShardError(
                    f"{name}: {first} and {second} would be the same field of one sample. Rename one."
                )
            fields[extension] = (written, size_bytes)
        if _IMAGES.isdisjoint(fields):
            walk.skipped["no image"] += 1
        else:
            samples.append((key, fields))
    return samples


def _rows(samples: list[tuple[bytes, dict[bytes, tuple[bytes, int]]]], skipped: Counter[str]) -> Rows:
    extensions = sorted({extension for _, fields in samples for extension in fields})
    rows = Rows(
        extensions=extensions,
        key_end=np.cumsum([len(key) for key, _ in samples], dtype=np.int64),
        keys=b"".join(key for key, _ in samples),
        skipped=dict(skipped),
    )
    for extension in extensions:
        found = [fields.get(extension) for _, fields in samples]
        size_bytes = np.array([-1 if file is None else file[1] for file in found], np.int64)
        written = sorted({file[0] for file in found if file is not None})
        number = {text: i for i, text in enumerate(written)}
        chosen = np.array([0 if file is None else number[file[0]] for file in found], np.int64)
        rows.size_bytes.append(size_bytes)
        rows.offset_bytes.append(np.where(size_bytes < 0, np.int64(-1), np.int64(0)))
        rows.spellings[extension] = (written, chosen)
    return rows


def _no_image(walk: _Walk, path: str) -> SourceError:
    extensions = Counter(extension for _, extension, _, _ in walk.files)
    if b"tar" in extensions or b"zip" in extensions:
        pattern = os.path.join(path, "**", "*.tar" if b"tar" in extensions else "*.zip")
        return SourceError(
            f"{path}: the folder has shards only in subfolders. Name them by a pattern: {pattern}"
        )
    found = ", ".join(f"{count} .{shown(extension)}" for extension, count in extensions.most_common(3))
    return SourceError(
        f"{path}: the folder has no images (found: {found or 'no files'}). "
        f"Images are {' '.join(sorted(IMAGE_EXTENSIONS))}; pack anything else as tar shards."
    )
