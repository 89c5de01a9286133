"""What a glob pattern matches, as in Python's `glob`, with one exception.

In: a pattern with `*`, `?`, `[]` or `**`. Out: the paths that match it, sorted. Promised: the same as
`glob.glob(pattern, recursive=True)`. But if a folder cannot be listed because of a transient error (no
descriptors left, a disk that does not respond), this raises OSError; `glob` would treat the folder as empty.
Both skip folders without permission.
"""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterator

from fastload import _native


def matches(pattern: str) -> list[str]:
    """The paths that match. Raises OSError."""
    return sorted(path for path in _found(pattern, False) if path)


def _found(pattern: str, only_folders: bool) -> Iterator[str]:
    folder, name = os.path.split(pattern)
    if not glob.has_magic(pattern):
        if os.path.lexists(pattern) if name else os.path.isdir(folder):
            yield pattern
        return
    is_searched = folder != pattern and glob.has_magic(folder)
    for home in _found(folder, True) if is_searched else [folder]:
        for found in _names(home, name, only_folders):
            yield os.path.join(home, found)


def _names(home: str, name: str, only_folders: bool) -> Iterator[str]:
    """The names in a folder that match `name`, the last part of a pattern."""
    if name == "**":
        if not home or os.path.isdir(home):
            yield ""
            yield from _below(home, only_folders)
    elif glob.has_magic(name):
        names = _listed(home, only_folders)
        yield from fnmatch.filter(names if name.startswith(".") else filter(_is_shown, names), name)
    elif os.path.lexists(os.path.join(home, name)) if name else os.path.isdir(home):
        yield name


def _below(home: str, only_folders: bool) -> Iterator[str]:
    for name in filter(_is_shown, _listed(home, only_folders)):
        yield name
        for inner in _below(os.path.join(home, name), only_folders):
            yield os.path.join(name, inner)


def _listed(folder: str, only_folders: bool) -> list[str]:
    try:
        with os.scandir(folder or os.curdir) as entries:
            return [entry.name for entry in entries if not only_folders or _is_folder(entry)]
    except OSError as error:
        if error.errno is None or _native.is_transient(error.errno):
            raise
        return []


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno is None or _native.is_transient(error.errno):
            raise
        return False


def _is_shown(name: str) -> bool:
    return not name.startswith(".")
