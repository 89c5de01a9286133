"""From the source that a user names to the containers that hold the data.

In: a path, a brace or glob pattern, `Files`, or a list of them. Out: a `Source`: what was named, and the
folder of relative paths; and its `Container`s in the order of their samples, each with its absolute path and
the relative name that messages and the fingerprint use. Promised: the meaning of a Source never changes, even
if the current folder or the caller's list does; creating one reads nothing; everything that was named is
included; a name without a match is a SourceError.

A path that exists is taken literally, whatever characters it has. Braces expand in the order in which they
are written (`{00000..00031}`, `{train,val}`), globs (`*`, `?`, `[]`, `**`) in sorted order. A folder that
directly contains tar or zip files means those, sorted; any other folder is one container of images.
"""

from __future__ import annotations

import glob
import os
import re
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

from fastload.errors import ConfigError, SourceError
from fastload.shards.files import Files, current_folder
from fastload.shards.pattern import matches
from fastload.shards.retry import NOT_LISTED, reading
from fastload.shards.rows import IMAGE_EXTENSIONS

INDEX_SUFFIX = ".flidx"
_short = reprlib.Repr()
_short.maxstring = _short.maxother = 200  # long enough for most paths
_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")


@dataclass(frozen=True)
class Container:
    """path: absolute. name: relative to the folder that all containers share. is_folder: a folder of images,
    else a tar or zip. files: if only these files of the folder are samples; list_hash: 32 hex digits of
    them."""

    path: str
    name: str
    is_folder: bool
    files: Files | None = field(default=None, compare=False, repr=False)
    list_hash: str = ""

    @property
    def fingerprint_name(self) -> str:
        """The shard's own name, without its folder; empty for a folder, because a copy may have another name
        elsewhere."""
        return "" if self.is_folder else os.path.basename(self.path)

    @property
    def folder(self) -> str | None:
        """The path, if it is a folder."""
        return self.path if self.is_folder else None


class Source:
    """What a user named. Later changes of the list, or of the current folder, have no effect.

    given: a path, a pattern or Files, or any iterable of them. folder: of relative paths; None: the current
    folder. Nothing is read.

    Raises ConfigError for anything but paths; SourceError for an empty list, and for a relative path if there
    is no current folder.
    """

    def __init__(self, given: str | Path | Files | Iterable[str | Path | Files], folder: str | None = None):
        is_one = isinstance(given, (str, bytes, os.PathLike, Files)) or not isinstance(given, Iterable)
        self.given: object = given if is_one else [*given]
        self.parts: tuple[str | Files, ...] = tuple(map(_part, [given] if is_one else self.given))
        if not self.parts:
            raise SourceError("the source is an empty list. Name a tar, a zip, a folder or a pattern.")
        relative = [part for part in self.parts if isinstance(part, str) and not os.path.isabs(part)]
        self.folder = folder if folder is not None or not relative else current_folder(relative[0])

    @classmethod
    def of(cls, source: Source | str | Path | Files | Iterable) -> Source:
        """`source` as a Source; unchanged if it is one."""
        return source if isinstance(source, cls) else cls(source)

    def __repr__(self) -> str:
        return _short.repr(self.given)

    def __str__(self) -> str:
        return str(self.given)

    def __fspath__(self) -> str:
        """Of a single path. Raises TypeError for anything else."""
        return os.fspath(self.given)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Source) and (self.parts, self.folder) == (other.parts, other.folder)

    def __hash__(self) -> int:
        return hash((self.parts, self.folder))


def find_containers(source: Source | str | Path | Files | Iterable[str | Path | Files]) -> list[Container]:
    """All containers of `source`, in order. Raises SourceError, ConfigError."""
    source = Source.of(source)
    found: list[Container] = []
    for part in source.parts:
        if isinstance(part, Files):
            path, list_hash = part.root_and_hash()
            found.append(Container(path, "", True, part, list_hash))
        else:
            folder = source.folder or ""
            found.extend(Container(path, "", is_folder) for path, is_folder in _expand(part, folder))
    if len(set(found)) < len(found):
        twice = next(container.path for i, container in enumerate(found) if container in found[:i])
        raise ConfigError(f"{twice}: the source names this container twice. Name it once.")
    root = os.path.commonpath([os.path.dirname(container.path) for container in found])
    return [replace(container, name=os.path.relpath(container.path, root)) for container in found]


def _part(part: object) -> str | Files:
    if isinstance(part, Files):
        return part
    path = os.fspath(part) if isinstance(part, (str, os.PathLike)) else part
    if not isinstance(path, str):
        raise ConfigError(
            f"a source must be a path or a list of paths, got {type(part).__name__} ({part!r})."
        )
    if not path:
        raise SourceError(
            f"the source is an empty path ({part!r}). Name a tar, a zip, a folder or a pattern; the current "
            "folder is '.'."
        )
    return path


def _expand(part: str, folder: str) -> list[tuple[str, bool]]:
    """One entry of the source as (absolute path, is a folder of images). folder: of relative paths."""
    if "://" in part or part.startswith("pipe:"):
        raise SourceError(f"{part}: only local files are supported. Mount or copy the data first.")
    if os.path.exists(os.path.join(folder, part)):
        return _existing(os.path.join(folder, part))
    found: list[tuple[str, bool]] = []
    where = "" if os.path.isabs(part) else f" in {folder}"
    for path in expand_braces(part):
        if os.path.exists(os.path.join(folder, path)):
            found.extend(_existing(os.path.join(folder, path)))
        elif glob.has_magic(path):
            pattern = os.path.join(glob.escape(folder), path)  # the folder is not a pattern
            matched = reading(pattern, partial(matches, pattern), NOT_LISTED)
            matched = [match for match in matched if not match.endswith(INDEX_SUFFIX)]
            if not matched:
                raise SourceError(
                    f"{path}: nothing matches this pattern{where}. Check its folder, and quote the pattern."
                )
            for match in matched:
                found.extend(_existing(match))
        else:
            origin = f" (from {part})" if path != part else ""
            raise SourceError(f"{path}{origin}: no such file or folder{where}. Correct the path.")
    return found


def _existing(path: str) -> list[tuple[str, bool]]:
    path = _absolute(path)
    if os.path.isfile(path):
        return [(path, False)]
    if not os.path.isdir(path):
        raise SourceError(f"{path}: neither a file nor a folder. Correct the path.")
    listed = reading(path, lambda: os.listdir(path), NOT_LISTED)
    names = sorted(name for name in listed if not name.startswith("."))
    if not names:
        raise SourceError(f"{path}: the folder is empty. Name a folder with tars, zips or images.")
    shards = [name for name in names if name.lower().endswith((".tar", ".zip"))]
    if not shards:
        packed = [name for name in names if name.lower().endswith(_COMPRESSED)]
        if packed:
            raise SourceError(
                f"{path}: {packed[0]} is compressed, but only uncompressed tars are supported. Decompress it."
            )
        return [(path, True)]
    image = next((name for name in names if name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS), None)
    if image is not None:
        raise ConfigError(
            f"{path}: the folder holds both shards ({shards[0]}) and images ({image}). "
            f"Name the shards by a pattern ({os.path.join(path, '*' + shards[0][-4:])}), or move the images."
        )
    return [(os.path.join(path, name), False) for name in shards]


def _absolute(path: str) -> str:
    if ".." not in path.split(os.sep):
        return os.path.abspath(path)
    # Only the file system can resolve ".." after a link.
    home, name = os.path.split(path.rstrip(os.sep))
    return os.path.join(os.path.realpath(home), name) if name != ".." else os.path.realpath(path)


def expand_braces(pattern: str) -> list[str]:
    """`a{1..3}{x,y}` -> a1x a1y a2x ...; numbers with leading zeros keep their width; other braces stay.

    Raises ConfigError for a range of more than a million names.
    """
    start = pattern.find("{")
    while start >= 0:
        choices, stop = _choices(pattern, start)
        if choices:
            tails = expand_braces(pattern[stop:])
            return [pattern[:start] + middle + tail for middle in choices for tail in tails]
        start = pattern.find("{", start + 1)
    return [pattern]


def _choices(pattern: str, start: int) -> tuple[list[str], int]:
    """The choices of the brace at `start`, and where it ends; no choices if it is an ordinary character."""
    depth, cuts = 0, [start]
    for at in range(start, len(pattern)):
        depth += {"{": 1, "}": -1}.get(pattern[at], 0)
        if depth == 0 or (depth == 1 and pattern[at] == ","):
            cuts.append(at)
        if depth == 0:
            break
    parts = [pattern[left + 1 : right] for left, right in pairwise(cuts)]
    numbers = re.fullmatch(r"(-?\d+)\.\.(-?\d+)", parts[0]) if len(parts) == 1 else None
    if depth != 0 or (len(parts) < 2 and not numbers):
        return [], start
    if numbers:
        return _number_range(numbers[1], numbers[2]), cuts[-1] + 1
    return [choice for part in parts for choice in expand_braces(part)], cuts[-1] + 1


def _number_range(first: str, last: str) -> list[str]:
    start, stop = int(first), int(last)
    if abs(stop - start) >= 1_000_000:
        raise ConfigError(
            f"{{{first}..{last}}} is a range of more than a million names. Correct the pattern."
        )
    padded = any(len(text.lstrip("-")) > 1 and text.lstrip("-").startswith("0") for text in (first, last))
    width = max(len(first), len(last)) if padded else 0
    step = 1 if stop >= start else -1
    return [f"{number:0{width}d}" for number in range(start, stop + step, step)]
