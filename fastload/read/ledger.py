"""The ledger of bad samples: what was replaced, where it lies and why; one JSON object a line.

In: the bad samples of each batch that the training gets, in order. Out: lines in a file, counts, and an error
where they are too many. Promised: what was prefetched and never delivered is not in it; a disk that is full
or read-only stops no training, it is warned of once; who reads it passes over a line that was cut; memory is
bounded by WINDOW, the file by MAX_BYTES, and one of as many before it.

    {"position": 40961, "attempt": 0, "sample_id": 7, "shard": "00000.tar", "key": "0007",
     "offset_bytes": 10240, "field": "image", "field_type": "Image", "ext": "jpg;png", "reason": "...",
     "rank": 0, "time": "2026-01-31T12:00:00+00:00"}

`attempt` 0 is the sample of that position itself, 1 its first stand-in, which was bad as well, and so on.
`sample_id` is the row in the index, which exclude= takes; of a mixture, "source" names the source whose
index it is. `offset_bytes` is that of the field in the shard, 0 in a file of its own.
"""

import errno
import hashlib
import json
import os
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from fastload.errors import BadSamplesError, ResourceError
from fastload.notices import notice
from fastload.shards.retry import with_retries
from fastload.shortage import is_shortage, lacks_descriptors, way_out
from fastload.threads import WorkerThreads

WINDOW = 10_000  # positions of this rank that max_bad_fraction is about
MAX_BYTES = 64 << 20  # some 200,000 lines; then the file is put aside, and what was there before is lost
WRITE_SECONDS = 5.0  # that the training waits for the file
OLD = ".old"
MAX_SHARDS = 5  # in a message
MAX_REASON = 300  # characters


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
    field_type: str  # "Image", "Custom" and so on
    ext: str  # that the field may be stored under, as it was asked for
    reason: str
    source: str | None = None

    def __str__(self) -> str:
        place = f" at byte {self.offset_bytes}" if self.offset_bytes else ""
        of = f"{self.source}: " if self.source else ""
        return f"{of}{self.shard}: key '{self.key}'{place}: field {self.field!r}: {self.reason}"


class Ledger:
    """The bad samples of one rank.

    path: of the file, None for none. max_bad_fraction: of the last WINDOW positions; a process that begins
    anew counts from nothing. Nothing is opened but to write lines.
    """

    def __init__(self, path: Path | None, max_bad_fraction: float, rank: int):
        self.path, self.rank = path, rank
        self.bad_samples = self.bad_replacements = 0  # of attempt 0, and of all others
        self._max_bad_fraction, self._most = max_bad_fraction, round(max_bad_fraction * WINDOW)
        self._seen = 0  # positions
        self._recent: deque[tuple[int, str]] = deque()  # (how many positions were seen, shard)
        self._trouble: str | None = None  # why nothing is written any more

    def enter(self, bad: list[BadSample], samples: int) -> None:
        """Takes the bad samples of a batch of `samples` positions, which the training is about to get.

        Warns of the first one. Raises BadSamplesError where there are too many.
        """
        sentences = []
        if bad:
            is_first, knew_trouble = not self.bad_samples, self._trouble is not None
            own = [one for one in bad if one.attempt == 0]
            self.bad_samples += len(own)
            self.bad_replacements += len(bad) - len(own)
            self._recent += [(self._seen, _shard(one)) for one in own]
            self.write(bad)
            if is_first:
                sentences.append(self._first(bad[0]))
            if self._trouble is not None and not knew_trouble:
                sentences.append(self._trouble)
        self._seen += samples
        while self._recent and self._recent[0][0] < self._seen - WINDOW:
            self._recent.popleft()
        if bad and len(self._recent) > self._most:
            raise BadSamplesError(self._too_many())
        for sentence in sentences:  # last, as a warning may be made an error
            notice(sentence)

    def write(self, bad: Sequence[BadSample]) -> None:
        """Writes lines only: the batch of these samples never came."""
        if not bad or self.path is None or self._trouble is not None:
            return
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        lines = [_line({**_without_none(asdict(one)), "rank": self.rank, "time": now}) for one in bad]
        why = self._why_unwritten("".join(lines).encode())
        if why is not None:
            self._trouble = (
                f"the ledger {self.path} cannot be written ({why[0]}): bad samples are counted, and "
                f"not listed any more{why[1]}"
            )

    def _why_unwritten(self, content: bytes) -> tuple[str, str] | None:
        """Appends to the file. Returns (reason, way out) where that fails, or takes longer than may be."""
        rest = "; ledger= names another file"
        writer = WorkerThreads(1, "fastload-ledger")
        try:
            # On another thread: a mount that is gone would keep this one, the training's, for good.
            written = writer.submit(self._append, content)
            writer.stop()
            if not writer.join(time.monotonic() + WRITE_SECONDS):
                return f"it took more than {WRITE_SECONDS:g} s", rest
            written.result()
        except OSError as error:
            if is_shortage(error.errno):
                rest = f". {way_out(error.errno, '')}"
            return error.strerror, rest
        except ResourceError as error:
            return str(error), ""
        return None

    def _append(self, content: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size > MAX_BYTES:
            os.replace(self.path, self.path.with_name(self.path.name + OLD))
        with_retries(lambda: _append(self.path, content), lacks_descriptors)

    def _first(self, one: BadSample) -> str:
        listed = self.path is not None and self._trouble is None
        rest = f"listed in {self.path}" if listed else "counted in stats()"
        return f"a bad sample was replaced by another one: {one} (further ones are {rest})"

    def _too_many(self) -> str:
        worst = Counter(shard for _, shard in self._recent).most_common(MAX_SHARDS)
        where = "" if self.path is None or self._trouble is not None else f" All are listed in {self.path}."
        return (
            f"{len(self._recent)} of rank {self.rank}'s last {min(self._seen, WINDOW)} samples are bad, and "
            f"max_bad_fraction={self._max_bad_fraction:g} allows {self._most} in {WINDOW}; most of them in "
            f"{', '.join(f'{shard} ({count})' for shard, count in worst)}.{where} Mend or leave out these "
            "shards, or raise max_bad_fraction."
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


def _append(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        if os.write(descriptor, content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(descriptor)


def _line(entry: dict) -> str:
    # Keys are bytes of any encoding, of which Python makes surrogates: JSON escapes them.
    return json.dumps(entry, ensure_ascii=True) + "\n"


def _without_none(entry: dict) -> dict:
    return {name: value for name, value in entry.items() if value is not None}


def _shard(one: BadSample) -> str:
    return f"{one.source}: {one.shard}" if one.source else one.shard
