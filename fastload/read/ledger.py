"""The ledger of bad samples: what was replaced, where it lies and why; one JSON object a line.

In: the bad samples of each delivered batch, in order. Out: lines in a file, counts, and an error if there are
too many. Promised: batches that were prefetched but never delivered are not listed; a full or read-only disk
does not stop the training run, but causes one warning; readers skip truncated lines; memory is bounded by
WINDOW, and disk space by two files of MAX_BYTES.

    {"position": 40961, "attempt": 0, "sample_id": 7, "shard": "00000.tar", "key": "0007",
     "offset_bytes": 10240, "field": "image", "field_type": "Image", "ext": "jpg;png", "reason": "...",
     "rank": 0, "time": "2026-01-31T12:00:00+00:00"}

`attempt` 0 is the sample of that position itself, 1 its first replacement, which was bad as well, and so on.
`sample_id` is the row in the index, which exclude= takes; in a mixture, "source" names the source of that
index. `offset_bytes` is that of the field in the shard, 0 in a file of its own.
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

WINDOW = 10_000  # positions of this rank that max_bad_fraction refers to
MAX_BYTES = 64 << 20  # some 200,000 lines; then the file is renamed to .old and replaces the one before it
WRITE_SECONDS = 5.0  # that the training run waits for the file
OLD = ".old"
MAX_SHARDS = 5  # in a message
MAX_REASON = 300  # characters


@dataclass(frozen=True)
class BadSample:
    """One line of the ledger, without rank and time."""

    position: int
    attempt: int
    sample_id: int
    shard: str
    key: str
    offset_bytes: int
    field: str
    field_type: str  # "Image", "Custom" and so on
    ext: str  # the extensions of the field, as the user wrote them
    reason: str
    source: str | None = None

    def __str__(self) -> str:
        offset = f" at byte {self.offset_bytes}" if self.offset_bytes else ""
        return f"{_shard(self)}: key '{self.key}'{offset}: field {self.field!r}: {self.reason}"


class Ledger:
    """The bad samples of one rank.

    path: of the file, or None. max_bad_fraction: of the last WINDOW positions; a new process counts from
    zero. The file is opened only to write lines.
    """

    def __init__(self, path: Path | None, max_bad_fraction: float, rank: int):
        self.path, self.rank = path, rank
        self.bad_samples = self.bad_replacements = 0  # of attempt 0, and of all others
        self._max_bad_fraction, self._max_bad = max_bad_fraction, round(max_bad_fraction * WINDOW)
        self._seen = 0  # positions
        self._recent: deque[tuple[int, str]] = deque()  # (positions seen before it, shard)
        self._write_error: str | None = None  # after which nothing is written any more

    def enter(self, bad: list[BadSample], samples: int) -> None:
        """Enters the bad samples of a batch of `samples` positions that is about to be delivered.

        Warns about the first one. Raises BadSamplesError if there are too many.
        """
        sentences = []
        if bad:
            is_first, had_error = not self.bad_samples, self._write_error is not None
            own = [sample for sample in bad if sample.attempt == 0]
            self.bad_samples += len(own)
            self.bad_replacements += len(bad) - len(own)
            self._recent += [(self._seen, _shard(sample)) for sample in own]
            self.write(bad)
            if is_first:
                sentences.append(self._first(bad[0]))
            if self._write_error is not None and not had_error:
                sentences.append(self._write_error)
        self._seen += samples
        while self._recent and self._recent[0][0] < self._seen - WINDOW:
            self._recent.popleft()
        if bad and len(self._recent) > self._max_bad:
            raise BadSamplesError(self._too_many())
        for sentence in sentences:  # last, because a filter may turn warnings into errors
            notice(sentence)

    def write(self, bad: Sequence[BadSample]) -> None:
        """Only writes lines, for a batch that will not be delivered."""
        if not bad or self.path is None or self._write_error is not None:
            return
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        entries = [asdict(sample) | {"rank": self.rank, "time": now} for sample in bad]
        given = [{name: value for name, value in entry.items() if value is not None} for entry in entries]
        # Keys are bytes of any encoding, which Python decodes to surrogates: JSON escapes them.
        error = self._write_lines("".join(json.dumps(entry) + "\n" for entry in given).encode())
        if error is not None:
            self._write_error = (
                f"the ledger {self.path} cannot be written ({error[0]}): bad samples are counted, but no "
                f"longer listed{error[1]}"
            )

    def _write_lines(self, content: bytes) -> tuple[str, str] | None:
        """Appends to the file. Returns (reason, way out) if that fails or takes too long."""
        otherwise = "; choose another file with ledger="
        writer = WorkerThreads(1, "fastload-ledger")
        try:
            # On another thread: if a mount is gone, the write hangs for ever.
            written = writer.submit(self._append, content)
            writer.stop()
            if not writer.join(time.monotonic() + WRITE_SECONDS):
                return f"it took more than {WRITE_SECONDS:g} s", otherwise
            written.result()
        except OSError as error:
            return error.strerror, f". {way_out(error.errno, '')}" if is_shortage(error.errno) else otherwise
        except ResourceError as error:
            return str(error), ""
        return None

    def _append(self, content: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size > MAX_BYTES:
            os.replace(self.path, self.path.with_name(self.path.name + OLD))
        with_retries(lambda: _append(self.path, content), lacks_descriptors)

    def _first(self, sample: BadSample) -> str:
        listed = self.path is not None and self._write_error is None
        where = f"listed in {self.path}" if listed else "counted in stats()"
        return f"a bad sample was replaced by another one: {sample} (further ones are {where})"

    def _too_many(self) -> str:
        worst = Counter(shard for _, shard in self._recent).most_common(MAX_SHARDS)
        listed = self.path is not None and self._write_error is None
        where = f" All are listed in {self.path}." if listed else ""
        return (
            f"{len(self._recent)} of rank {self.rank}'s last {min(self._seen, WINDOW)} samples are bad, and "
            f"max_bad_fraction={self._max_bad_fraction:g} allows {self._max_bad} in {WINDOW}; most are in "
            f"{', '.join(f'{shard} ({count})' for shard, count in worst)}.{where} Repair or exclude these "
            "shards, or raise max_bad_fraction."
        )


def default_name(files: Sequence[str]) -> str:
    """The default file name of the ledger of a source that consists of these containers."""
    where = hashlib.blake2b("\0".join(files).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    return f"{os.path.basename(files[0])[:100]}-{where}.jsonl"


def ledger_path(path: "str | os.PathLike", rank: int, world_size: int) -> Path:
    """The file of a rank: `path` for a single rank, else with the rank before the suffix.

    Each rank has its own file, because several hosts cannot append to one file on a network file system.
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


def _shard(sample: BadSample) -> str:
    return f"{sample.source}: {sample.shard}" if sample.source else sample.shard
