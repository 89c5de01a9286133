"""Reads a ledger of bad samples, to check them again or to exclude them.

In: the path given as `ledger=`. Out: its lines, from all ranks. Promised: lines that were truncated by a
crash or a full disk are skipped and counted; a file that is not a ledger is an error. fastload/read/ledger.py
writes ledgers and describes their lines.
"""

import glob
import json
import os
from pathlib import Path
from typing import NamedTuple

from fastload.errors import ConfigError
from fastload.shortage import naming_shortage

_KINDS = {"position": int, "attempt": int, "sample_id": int, "shard": str, "key": str, "offset_bytes": int}
_KINDS |= {"field": str, "reason": str}


class Lines(NamedTuple):
    """The lines of a ledger. damaged: how many were truncated by a crash or a full disk."""

    entries: list[dict]
    damaged: int


def ledger_files(path: "str | os.PathLike") -> list[Path]:
    """The file at `path`, and those of ranks beside it, as far as they exist."""
    path = Path(path)
    ranks = path.parent.glob(f"{glob.escape(path.stem)}.rank*{glob.escape(path.suffix)}")
    return [file for file in (path, *sorted(ranks)) if file.is_file()]


@naming_shortage("the ledger cannot be read")
def read_ledger(path: "str | os.PathLike") -> Lines:
    """The lines of a ledger, from all its ranks. Raises ConfigError if it is not a ledger."""
    files = ledger_files(path)
    if not files:
        raise ConfigError(f"{path}: no such ledger; name the file that was given as ledger=.")
    entries: list[dict] = []
    damaged = 0
    for file in files:
        with open(file, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                entry = _entry(line)
                if entry is None:
                    damaged += 1
                else:
                    entries.append(entry)
    if damaged and not entries:
        raise ConfigError(f"{path} is not a ledger: none of its {damaged} lines is valid; name another file.")
    return Lines(entries, damaged)


def _entry(line: str) -> dict | None:
    try:
        entry = json.loads(line)
        is_valid = all(isinstance(entry[name], kind) for name, kind in _KINDS.items())
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return entry if is_valid else None
