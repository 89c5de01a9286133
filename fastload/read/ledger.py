"""The ledger of bad samples: what was replaced, where it lies and why; one JSON object a line.

In: the bad samples of each batch that the training gets, in order. Out: lines in a file, counts, and an error
where they are too many. Promised: what was prefetched and never delivered is not in it; a line is written at
once or not at all; a disk that is full or read-only stops no training, it is warned of once; memory is
bounded by WINDOW, the file by MOST_BYTES.

    {"position": 40961, "attempt": 0, "sample_id": 7, "shard": "00000.tar", "key": "0007",
     "offset_bytes": 10240, "field": "image", "reason": "...", "rank": 0, "time": "2026-01-31T12:00:00+00:00"}

`attempt` 0 is the sample of that position itself, 1 its first stand-in, which was bad as well, and so on. Of
a mixture, "source" names the source, which `sample_id` counts in. `offset_bytes` is that of the field in the
shard, 0 in a file of its own.
"""

import hashlib
import json
import os
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from fastload.errors import BadSamplesError, ConfigError

WINDOW = 10_000  # positions of this rank that max_bad_fraction is about
MOST_BYTES = 64 << 20  # some 200,000 lines; then samples are counted only
MOST_SHARDS = 5  # in a message
MOST_REASON = 300  # characters


@dataclass(frozen=True)
class BadSample:
    """One line of the ledger, but for rank and time."""

    position: int
    attempt: int
    sample_id: int
    shard: str
    key: str
    offset_bytes: int
    field: str
    reason: str
    source: str | None = None

    def __str__(self) -> str:
        place = f" at byte {self.offset_bytes}" if self.offset_bytes else ""
        of = f"{self.source}: " if self.source else ""
        return f"{of}{self.shard}: key '{self.key}'{place}: field {self.field!r}: {self.reason}"


class Ledger:
    """The bad samples of one rank.

    path: of the file, None for none. max_bad_fraction: of the last WINDOW positions. Nothing is opened but to
    write a line.
    """

    def __init__(self, path: Path | None, max_bad_fraction: float, rank: int):
        self.path, self.count = path, 0
        self._most = max_bad_fraction * WINDOW
        self._max_bad_fraction, self._rank = max_bad_fraction, rank
        self._seen = 0  # positions
        self._recent: deque[tuple[int, str]] = deque()  # (how many positions were seen, shard)
        self._writes = path is not None

    def enter(self, bad: list[BadSample], samples: int) -> None:
        """Takes the bad samples of a batch of `samples` positions, which the training is about to get.

        Warns of the first one. Raises BadSamplesError where there are too many.
        """
        if bad:
            self.write(bad)
            if not self.count:
                warnings.warn(self._first(bad[0]), stacklevel=5)
            self.count += len(bad)
            self._recent += [(self._seen, _shard(one)) for one in bad if one.attempt == 0]
        self._seen += samples
        while self._recent and self._recent[0][0] < self._seen - WINDOW:
            self._recent.popleft()
        if bad and len(self._recent) > self._most:
            raise BadSamplesError(self._too_many())

    def _first(self, one: BadSample) -> str:
        rest = f"further ones go to {self.path}" if self._writes else "further ones are counted in stats()"
        return f"a bad sample was replaced by another one: {one} ({rest})"

    def _too_many(self) -> str:
        worst = Counter(shard for _, shard in self._recent).most_common(MOST_SHARDS)
        where = f" All are in {self.path}." if self._writes else ""
        return (
            f"{len(self._recent)} of rank {self._rank}'s last {min(self._seen, WINDOW)} samples are bad, "
            f"more than max_bad_fraction={self._max_bad_fraction:g} of {WINDOW}; most of them in "
            f"{', '.join(f'{shard} ({count})' for shard, count in worst)}.{where} Mend or leave out these "
            "shards, or raise max_bad_fraction."
        )

    def write(self, bad: Iterable[BadSample]) -> None:
        """Writes lines only: the batch of these samples never came."""
        if not self._writes:
            return
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        lines = [_line({**_without_none(asdict(one)), "rank": self._rank, "time": now}) for one in bad]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                full = os.fstat(descriptor).st_size > MOST_BYTES
                if not full:
                    self._append(descriptor, "".join(lines).encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            self._stop(f"cannot be written ({error.strerror})")
            return
        if full:
            self._stop(f"has more than {MOST_BYTES:,} bytes")

    def _append(self, descriptor: int, content: bytes) -> None:
        start = os.fstat(descriptor).st_size
        if os.write(descriptor, content) < len(content):  # the disk is full: half a line helps nobody
            os.ftruncate(descriptor, start)
            raise OSError(28, os.strerror(28))

    def _stop(self, why: str) -> None:
        self._writes = False
        warnings.warn(
            f"the ledger {self.path} {why}: bad samples are counted, and not listed any more", stacklevel=7
        )


def default_name(files: Sequence[str]) -> str:
    """The name of a ledger for the source that consists of these containers, wherever it is kept."""
    where = hashlib.blake2b("\0".join(files).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    return f"{os.path.basename(files[0])[:100]}-{where}.jsonl"


def ledger_path(path: "str | os.PathLike", rank: int, world_size: int) -> Path:
    """The file of a rank: `path` where it is alone, else with the rank before the suffix.

    Ranks have files of their own, because several hosts cannot append to one on a network file system.
    """
    path = Path(path)
    return path if world_size == 1 else path.with_name(f"{path.stem}.rank{rank}{path.suffix}")


def read_ledger(path: "str | os.PathLike") -> Iterator[dict]:
    """The lines of a ledger, those of all its ranks. Raises ConfigError for what is no ledger."""
    path = Path(path)
    ranks = path.parent.glob(f"{_escaped(path.stem)}.rank*{_escaped(path.suffix)}")
    files = [one for one in (path, *sorted(ranks)) if one.exists()]
    if not files:
        raise ConfigError(f"{path}: no such ledger; name the file that ledger= was given.")
    for one in files:
        with open(one, encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                yield _entry(line, one, number)


def _entry(line: str, path: Path, number: int) -> dict:
    try:
        entry = json.loads(line)
        entry["sample_id"], entry["shard"], entry["key"], entry["reason"], entry["field"]
    except (ValueError, TypeError, KeyError):
        raise ConfigError(f"{path}: line {number} is no line of a ledger.") from None
    return entry


def _line(entry: dict) -> str:
    # Keys are bytes of any encoding, of which Python makes surrogates: JSON escapes them.
    return json.dumps(entry, ensure_ascii=True) + "\n"


def _without_none(entry: dict) -> dict:
    return {name: value for name, value in entry.items() if value is not None}


def _shard(one: BadSample) -> str:
    return f"{one.source}: {one.shard}" if one.source else one.shard


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "[]*?" else letter for letter in name)
