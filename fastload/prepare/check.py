"""`fastload check`: which samples of a source a training run could not use, and what a ledger lists.

In: a source, a ledger, or both. Out: a CheckReport. A source is read and decoded from end to end by the same
stages as in training: every pixel of an image, and arrays, JSON and text as far as their bytes go. With a
source and a ledger, only the samples that the ledger lists are checked: are they still bad? A ledger alone is
summed up.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from fastload import fields as fl
from fastload.backends import usable_cpus
from fastload.errors import ConfigError, SampleError
from fastload.prepare.common.report import render_pairs, render_table
from fastload.shortage import room_for

CHUNK = 64  # samples
SHOWN_SAMPLES, SHOWN_SHARDS, SHOWN_REASON = 20, 10, 70
_SIZE = 32  # pixels: the whole image is decoded, and resizing it costs little
_ARRAYS = ("npy", "npz", "pth", "pt")
_CUSTOM = "Custom"  # the type of field that needs a function of the training code


@dataclass(frozen=True)
class Bad:
    """A field of a sample that a training run could not use."""

    sample_id: int
    shard: str
    key: str
    offset_bytes: int
    field: str
    reason: str


@dataclass(frozen=True)
class CheckReport:
    """What was found. checked: samples that were read and decoded now. in_ledger, entries, damaged_lines: the
    ledger's samples, lines and truncated lines, 0 without a ledger. unchecked: samples that are listed for an
    fl.Custom field, whose function only the training code has. bad: what is bad now or, where nothing was
    checked, what the ledger lists."""

    source: str | None
    ledger: str | None
    samples: int
    checked: int
    in_ledger: int
    entries: int
    damaged_lines: int
    unchecked: int
    extensions: dict[str, int]
    bad: tuple[Bad, ...]
    seconds: float

    @property
    def problems(self) -> int:
        """Samples that are bad."""
        return len(self._bad_samples())

    @property
    def worst_shards(self) -> dict[str, int]:
        """shard -> bad samples, the worst first."""
        return dict(Counter(shard for shard, _ in self._bad_samples()).most_common())

    def _bad_samples(self) -> set[tuple[str, str]]:
        return {(bad.shard, bad.key) for bad in self.bad}

    def to_dict(self) -> dict:
        """All fields, ready for JSON."""
        return {**asdict(self), "problems": self.problems, "worst_shards": self.worst_shards}

    def render(self) -> str:
        """The report as text."""
        pairs = []
        if self.source is not None:
            extensions = ", ".join(f"{name} {count:,}" for name, count in self.extensions.items())
            seconds = f"{self.checked:,} of {self.samples:,} in {self.seconds:.1f} s"
            pairs += [("source", self.source), ("extensions", extensions), ("samples checked", seconds)]
        if self.ledger is not None:
            cut = f", {self.damaged_lines:,} lines truncated" if self.damaged_lines else ""
            pairs.append(
                ("ledger", f"{self.ledger}: {self.entries:,} lines, {self.in_ledger:,} samples{cut}")
            )
        if self.unchecked:
            pairs.append(("not checked", f"{self.unchecked:,} samples, listed for an fl.Custom field"))
        pairs.append(("bad samples", f"{self.problems:,}"))
        text = render_pairs(pairs)
        if not self.bad:
            return text
        shards = [(shard, f"{count:,}") for shard, count in list(self.worst_shards.items())[:SHOWN_SHARDS]]
        shown = [
            (bad.key, bad.shard, f"{bad.offset_bytes:,}", bad.field, bad.reason[:SHOWN_REASON])
            for bad in self.bad[:SHOWN_SAMPLES]
        ]
        tables = [
            render_table(("worst shards", "bad samples"), shards),
            render_table(("key", "shard", "byte", "field", ""), shown),
        ]
        more = len(self.bad) - len(shown)
        rest = f"\n... and {more:,} more: --json lists all." if more else ""
        way_out = (
            "A training run replaces them. To leave them out, pass their keys: fl.Loader(..., exclude=[...])."
        )
        return "\n\n".join([text, *tables]) + rest + f"\n\n{way_out}"


@room_for("fastload check cannot go on", "torch")
def check(
    source=None,
    *,
    ledger: "str | Path | None" = None,
    fields: Mapping | None = None,
    max_pixels: int | None = None,
    threads: int | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> CheckReport:
    """Decodes the samples of a source, or of a ledger, and lists the bad ones.

    fields: as `fl.Loader` takes them, a sample that lacks a required field is bad; None: a field for each
    extension, not required. threads: decoding threads; None: the usable CPUs. progress: called with the share
    that is done (0..1) and a note. Raises ConfigError for an invalid ledger, and FastloadError.
    """
    import numpy as np

    from fastload.shards.dataset import open_dataset
    from fastload.shards.ledger_lines import Lines, read_ledger

    begun = time.perf_counter()
    lines = Lines([], 0) if ledger is None else read_ledger(ledger)
    listed = {(entry.get("source"), entry["shard"], entry["key"]): entry for entry in lines.entries}
    counts = {"in_ledger": len(listed), "entries": len(lines.entries), "damaged_lines": lines.damaged}
    counts["ledger"] = None if ledger is None else str(ledger)
    if source is None:
        if ledger is None:
            raise ConfigError("fastload check needs a source, a ledger (--ledger), or both.")
        bad = tuple(_from_ledger(entry) for entry in listed.values())
        return CheckReport(
            source=None, samples=0, checked=0, unchecked=0, extensions={}, bad=bad, seconds=0.0, **counts
        )
    threads = usable_cpus() if threads is None else threads
    if threads < 1:
        raise ConfigError(f"threads must be at least 1, got {threads}.")
    dataset = open_dataset(source, threads=threads)
    checkable = [entry for entry in listed.values() if entry.get("field_type") != _CUSTOM]
    sample_ids = np.arange(dataset.n) if ledger is None else _ids_of(dataset, listed, checkable)
    if fields is None:
        fields = _fields_of(dataset) if ledger is None else _fields_of_ledger(checkable)
    bad = ()
    if len(sample_ids):
        bad = tuple(_find_bad(source, dataset, fields, sample_ids, max_pixels, threads, progress))
    return CheckReport(
        source=str(source),
        samples=dataset.n,
        checked=len(sample_ids),
        unchecked=len(listed) - len(checkable),
        extensions=dict(dataset.extensions),
        bad=bad,
        seconds=time.perf_counter() - begun,
        **counts,
    )


def _find_bad(source, dataset, fields, sample_ids, max_pixels, threads, progress):
    from fastload.loader.config import LoaderConfig
    from fastload.loader.find_faults import examine

    config = LoaderConfig(
        source,
        CHUNK,
        fields,
        dtype="uint8",
        device="cpu",
        decode="native",
        max_pixels=max_pixels,
        ledger=None,
    )
    done = found = 0
    for more, faults in examine(config, dataset, sample_ids, threads):
        done, found = done + more, found + len(faults)
        if progress is not None:
            progress(done / len(sample_ids), f"{done:,} of {len(sample_ids):,} samples, {found:,} bad")
        for fault in faults:
            yield Bad(fault.sample_id, fault.shard, fault.key, fault.offset_bytes, fault.field, fault.reason)


def _fields_of(dataset) -> dict:
    """A field for each extension, of the type that its name suggests."""
    from fastload.shards.source import IMAGE_EXTENSIONS

    chosen = {}
    for extension in dataset.extensions:
        last = extension.rpartition(".")[2]
        if last in IMAGE_EXTENSIONS:
            kind = "Image"
        elif last in _ARRAYS:
            kind = "Tensor"
        elif last == "cls" and _first_is_integer(dataset, extension):
            kind = "Int"
        else:
            kind = {"json": "Json", "txt": "Text"}.get(last, "Bytes")
        chosen[extension] = _field(kind, extension, required=False)
    return chosen


def _field(kind: str, ext: str, required: bool):
    """A field of the type `kind`, with the least work that still finds damage."""
    settings = {} if required else {"default": 0 if kind in ("Image", "Int") else None}
    if kind == "Image":
        settings |= {"size": _SIZE, "resize": "exact", "filter": "bilinear"}
    return getattr(fl, kind)(ext, **settings)


def _first_is_integer(dataset, extension: str) -> bool:
    """Whether the first sample that has it holds a number: some datasets have the name of the class there."""
    import numpy as np

    from fastload.decode import values
    from fastload.prepare.common.stored import read_bytes

    for start in range(0, dataset.n, 1 << 16):
        ids = np.arange(start, min(start + (1 << 16), dataset.n))
        present = ids[dataset.locate(ids, (extension,)).size_bytes >= 0]
        if len(present):
            try:
                values.decode(fl.Int(extension), read_bytes(dataset, int(present[0]), (extension,)))
            except SampleError:
                return False
            return True
    return False


def _ids_of(dataset, listed: dict, checkable: list[dict]):
    """The sample ids of the checkable entries; entries of another source of a mixture are left out.

    Raises ConfigError where no sample that the ledger lists is in the source.
    """
    import numpy as np

    known = {(shard, key) for _, shard, key in listed}
    wanted = {(entry["shard"], entry["key"]) for entry in checkable}
    sample_ids, _ = dataset.find_keys(sorted({key for _, key in known}))
    rows = {sample_id: dataset.row(sample_id) for sample_id in sample_ids.tolist()}
    samples = {sample_id: (row.container, row.key) for sample_id, row in rows.items()}
    if known and not known & set(samples.values()):
        shard, key = next(iter(known))
        raise ConfigError(
            f"the ledger lists {len(listed)} samples, such as key {key!r} of {shard}, but none of them is in "
            "the source. Give the source that the ledger was written for."
        )
    return np.array([sample_id for sample_id, sample in samples.items() if sample in wanted], np.int64)


def _fields_of_ledger(checkable: list[dict]) -> dict:
    """The fields that its lines name, as the training run read them; a field that was missing is required."""
    lacked = {
        entry["field"] for entry in checkable if entry["reason"] == f"no {' or '.join(_extensions(entry))}"
    }
    chosen = {}
    for entry in checkable:
        name, kind, ext = entry["field"], entry.get("field_type", "Bytes"), ";".join(_extensions(entry))
        chosen[name] = _field(kind, ext, required=name in lacked)
    return chosen


def _extensions(entry: dict) -> list[str]:
    return [part.strip().lower() for part in entry.get("ext", entry["field"]).split(";")]


def _from_ledger(entry: dict) -> Bad:
    shard = f"{entry['source']}: {entry['shard']}" if entry.get("source") else entry["shard"]
    return Bad(
        entry["sample_id"], shard, entry["key"], entry["offset_bytes"], entry["field"], entry["reason"]
    )


def add_options(parser) -> None:
    """The options of `fastload check`."""
    parser.add_argument("source", metavar="SOURCE", nargs="?", help="shards, a pattern or a folder")
    parser.add_argument("--ledger", metavar="FILE", help="check only the samples that this ledger lists")
    parser.add_argument("--max-pixels", type=int, help="images with more are bad (default: as in fl.Loader)")
    parser.add_argument("--threads", type=int, help="decoding threads (default: the usable CPUs)")
