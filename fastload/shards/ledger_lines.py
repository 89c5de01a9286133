"""A ledger of bad samples, read: by whoever checks them again, or leaves them out.

In: the path that `ledger=` was given. Out: its lines, those of all ranks. Promised: lines that a crash or a
full disk cut are passed over and counted; what is no ledger is an error. Who writes it, and what a line
means, is in fastload/read/ledger.py.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

from fastload.errors import ConfigError
from fastload.shortage import naming_shortage

_KINDS = {"position": int, "attempt": int, "sample_id": int, "shard": str, "key": str, "offset_bytes": int}
_KINDS |= {"field": str, "reason": str}


class Lines(NamedTuple):
    """What a ledger holds. damaged: lines that a crash or a full disk cut."""

    entries: list[dict]
    damaged: int


def ledger_files(path: "str | os.PathLike") -> list[Path]:
    """The file at `path`, and those of ranks beside it, as far as they are there."""
    path = Path(path)
    ranks = path.parent.glob(f"{_escaped(path.stem)}.rank*{_escaped(path.suffix)}")
    return [one for one in (path, *sorted(ranks)) if one.is_file()]


@naming_shortage("the ledger cannot be read")
def read_ledger(path: "str | os.PathLike") -> Lines:
    """The lines of a ledger, those of all its ranks. Raises ConfigError for what is no ledger."""
    files = ledger_files(path)
    if not files:
        raise ConfigError(f"{path}: no such ledger; name the file that ledger= was given.")
    entries: list[dict] = []
    damaged = 0
    for one in files:
        with open(one, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                entry = _entry(line)
                if entry is None:
                    damaged += 1
                else:
                    entries.append(entry)
    if damaged and not entries:
        raise ConfigError(f"{path}: none of its {damaged} lines is one of a ledger; name another file.")
    return Lines(entries, damaged)


def _entry(line: str) -> dict | None:
    try:
        entry = json.loads(line)
        is_right = all(isinstance(entry[name], kind) for name, kind in _KINDS.items())
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return entry if is_right else None


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "[]*?" else letter for letter in name)
