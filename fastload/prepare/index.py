"""`fastload index`: builds the indexes that opening a dataset needs, so that training starts at once.

In: a source. Out: an IndexReport. An up-to-date index is kept; a missing or stale one is built. With
`beside`, all indexes are written beside their containers, to be copied with the data.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from fastload.backends import usable_cpus
from fastload.errors import ConfigError
from fastload.prepare.common.report import render_bytes, render_pairs
from fastload.shortage import room_for


@dataclass(frozen=True)
class IndexReport:
    """What was indexed: `built` of `shards` containers. written_to: a folder, or "beside the shards"."""

    source: str
    shards: int
    built: int
    samples: int
    bytes_total: int
    extensions: dict[str, int]
    skipped: dict[str, int]
    written_to: str
    seconds: float

    def to_dict(self) -> dict:
        """All fields, ready for JSON."""
        return asdict(self)

    def render(self) -> str:
        """The report as text."""
        extensions = ", ".join(f"{name} {count:,}" for name, count in self.extensions.items())
        pairs = [
            ("source", self.source),
            (
                "shards",
                f"{self.shards:,} ({self.built:,} indexed now, {self.shards - self.built:,} up to date)",
            ),
            ("samples", f"{self.samples:,}, {render_bytes(self.bytes_total)}"),
            ("extensions", extensions),
            ("skipped", ", ".join(f"{kind} {count:,}" for kind, count in self.skipped.items()) or "-"),
            ("written to", self.written_to),
            ("seconds", f"{self.seconds:.2f}"),
        ]
        return render_pairs(pairs)


@room_for("fastload index cannot go on", "fastload.prepare.common.stored")
def index(
    source,
    *,
    beside: bool = False,
    cache_dir=None,
    threads: int | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> IndexReport:
    """Builds or refreshes the indexes of a source; `beside` writes all of them beside their containers.

    cache_dir: a folder for the indexes, instead of the user's cache. threads: containers indexed at a time;
    None: the usable CPUs.
    progress: called with the share that is done (0..1) and a note. Raises FastloadError.
    """
    from fastload.shards.dataset import open_dataset
    from fastload.shards.index import default_cache_dir, find_valid
    from fastload.shards.source import find_containers

    threads = usable_cpus() if threads is None else threads
    if threads < 1:
        raise ConfigError(f"threads must be at least 1, got {threads}.")
    start = time.perf_counter()
    containers = find_containers(source)
    folder = default_cache_dir() if cache_dir is None else Path(cache_dir)
    if beside:
        built = _publish(containers, threads, progress)
    else:
        built = sum(find_valid(container, folder) is None for container in containers)
    dataset = open_dataset(source, cache_dir=folder, threads=threads, found=_counter(progress, "opened"))
    return IndexReport(
        source=str(source),
        shards=len(containers),
        built=built,
        samples=dataset.n,
        bytes_total=int(dataset.bytes_total),
        extensions=dict(dataset.extensions),
        skipped=dict(dataset.skipped),
        written_to="beside the shards" if beside else str(folder),
        seconds=time.perf_counter() - start,
    )


def _publish(containers, threads: int, progress) -> int:
    """Writes every index beside its container, even if it was there before; returns their number."""
    from fastload.shards.index import publish
    from fastload.threads import for_all

    found, written = _counter(progress, "written"), itertools.count(1)
    for_all(containers, publish, lambda *_: found(next(written), len(containers)), threads, "fastload-index")
    return len(containers)


def _counter(progress, what: str) -> Callable[[int, int], None]:
    """A callback for counts, which gives `progress` its share and its note."""

    def found(done: int, total: int) -> None:
        if progress is not None:
            progress(done / total, f"{done:,} of {total:,} shards {what}")

    return found


def add_options(parser) -> None:
    """The options of `fastload index`."""
    parser.add_argument("source", metavar="SOURCE", help="shards, a pattern or a folder")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--beside", action="store_true", help="write the indexes beside the shards")
    target.add_argument("--cache-dir", metavar="FOLDER", help="write the indexes into this folder")
    parser.add_argument("--threads", type=int, help="shards indexed at a time (default: the usable CPUs)")
