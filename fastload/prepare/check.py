"""`fastload check`: which samples of a source a training could not use, and what a ledger says.

In: a source, a ledger, or both. Out: a CheckReport. A source is read and decoded from end to end, by the
stages that a training uses: images with every pixel, arrays, JSON and text as far as their bytes go. With a
ledger, the samples that it lists are checked only: are they still bad? Without a source, the ledger is summed
up.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from fastload.errors import ConfigError
from fastload.shortage import room_for

CHUNK = 64  # samples
SHOWN_SAMPLES, SHOWN_SHARDS, SHOWN_REASON = 20, 10, 70
_SIZE = 32  # pixels: the whole image is decoded, and hardly anything is made of it
_ARRAYS = ("npy", "npz", "pth", "pt")
_CUSTOM = "Custom"  # the type of field that only the training can judge


@dataclass(frozen=True)
class Bad:
    """One field of one sample, which a training could not use."""

    sample_id: int
    shard: str
    key: str
    offset_bytes: int
    field: str
    reason: str


@dataclass(frozen=True)
class CheckReport:
    """What was found. checked: samples that were read and decoded now. in_ledger: samples that the ledger
    lists, entries: its lines, damaged_lines: those that were cut; 0 without one. unjudged: samples that are
    listed because of an fl.Custom field, whose function only the training has. bad: what is bad now, or,
    where nothing was checked, what the ledger says."""

    source: str | None
    ledger: str | None
    samples: int
    checked: int
    in_ledger: int
    entries: int
    damaged_lines: int
    unjudged: int
    extensions: dict[str, int]
    bad: tuple[Bad, ...]
    seconds: float

    @property
    def problems(self) -> int:
        """Samples that are bad."""
        return len({(one.shard, one.key) for one in self.bad})

    @property
    def worst_shards(self) -> dict[str, int]:
        """shard -> bad samples, the worst first."""
        return dict(Counter(shard for shard, _ in {(one.shard, one.key) for one in self.bad}).most_common())

    def to_dict(self) -> dict:
        """All fields, ready for JSON."""
        return {**asdict(self), "problems": self.problems, "worst_shards": self.worst_shards}

    def render(self) -> str:
        """The report as text."""
        from fastload.prepare.common.report import render_pairs, render_table

        pairs = []
        if self.source is not None:
            extensions = ", ".join(f"{name} {count:,}" for name, count in self.extensions.items())
            seconds = f"{self.checked:,} of {self.samples:,} in {self.seconds:.1f} s"
            pairs += [("source", self.source), ("extensions", extensions), ("samples checked", seconds)]
        if self.ledger is not None:
            cut = f", {self.damaged_lines:,} lines cut" if self.damaged_lines else ""
            pairs.append(
                ("ledger", f"{self.ledger}: {self.entries:,} lines, {self.in_ledger:,} samples{cut}")
            )
        if self.unjudged:
            pairs.append(("not judged", f"{self.unjudged:,} samples, listed because of an fl.Custom field"))
        pairs.append(("bad samples", f"{self.problems:,}"))
        text = render_pairs(pairs)
        if not self.bad:
            return text
        shards = [(shard, f"{count:,}") for shard, count in list(self.worst_shards.items())[:SHOWN_SHARDS]]
        shown = [
            (one.key, one.shard, f"{one.offset_bytes:,}", one.field, one.reason[:SHOWN_REASON])
            for one in self.bad[:SHOWN_SAMPLES]
        ]
        tables = [
            render_table(("worst shards", "bad samples"), shards),
            render_table(("key", "shard", "byte", "field", ""), shown),
        ]
        more = len(self.bad) - len(shown)
        rest = f"\n... and {more:,} more: --json lists all." if more else ""
        way_out = (
            "A training run replaces them; to leave them out, pass their keys: fl.Loader(..., exclude=[...])."
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

    fields: as `fl.Loader` takes them, what lacks a required one is bad; None: one for each extension, and
    none is required. threads: decoding threads; None: the usable CPUs. progress: called with the share that
    is done (0..1) and a note. Raises ConfigError for a ledger that is none, and FastloadError.
    """
    import time

    from fastload.backends import usable_cpus
    from fastload.prepare.common.stored import open_source
    from fastload.shards.ledger_lines import Lines, read_ledger

    begun = time.perf_counter()
    lines = Lines([], 0) if ledger is None else read_ledger(ledger)
    listed = {_place(entry): entry for entry in lines.entries}
    told = {"in_ledger": len(listed), "entries": len(lines.entries), "damaged_lines": lines.damaged}
    told["ledger"] = None if ledger is None else str(ledger)
    if source is None:
        if ledger is None:
            raise ConfigError("fastload check: name a source, or a ledger with --ledger, or both.")
        bad = tuple(_from_ledger(entry) for entry in listed.values())
        return CheckReport(
            source=None, samples=0, checked=0, unjudged=0, extensions={}, bad=bad, seconds=0.0, **told
        )
    threads = usable_cpus() if threads is None else threads
    if threads < 1:
        raise ConfigError(f"threads is {threads}: checking needs at least one thread.")
    dataset = open_source(source, threads)
    judged = [entry for entry in listed.values() if entry.get("field_type") != _CUSTOM]
    sample_ids = _range(0, dataset.n) if ledger is None else _ids_of(dataset, listed, judged)
    if fields is None:
        fields = _fields_of(dataset) if ledger is None else _fields_of_ledger(judged)
    bad = ()
    if len(sample_ids):
        bad = tuple(_examined(source, dataset, fields, sample_ids, max_pixels, threads, progress))
    return CheckReport(
        source=str(source),
        samples=dataset.n,
        checked=len(sample_ids),
        unjudged=len(listed) - len(judged),
        extensions=dict(dataset.extensions),
        bad=bad,
        seconds=time.perf_counter() - begun,
        **told,
    )


def _examined(source, dataset, fields, sample_ids, max_pixels, threads, progress):
    from fastload.loader.config import LoaderConfig
    from fastload.loader.examine import examine

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
        for one in faults:
            yield Bad(one.sample_id, one.shard, one.key, one.offset_bytes, one.field, one.reason)


def _fields_of(dataset) -> dict:
    """One field for each extension: what its bytes are by its name."""
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
    """A field of the type `kind`, of whose content as little is made as finds damage."""
    from fastload import fields as fl

    how = {} if required else {"default": 0 if kind in ("Image", "Int") else None}
    if kind == "Image":
        how |= {"size": _SIZE, "resize": "exact", "filter": "bilinear"}
    return getattr(fl, kind)(ext, **how)


def _first_is_integer(dataset, extension: str) -> bool:
    """Whether the first sample that has it holds a number: some write names of classes there."""
    from fastload import fields as fl
    from fastload.decode import values
    from fastload.errors import SampleError
    from fastload.prepare.common.stored import read_bytes

    for start in range(0, dataset.n, 1 << 16):
        ids = _range(start, min(start + (1 << 16), dataset.n))
        having = ids[dataset.locate(ids, (extension,)).size_bytes >= 0]
        if len(having):
            try:
                values.decode(fl.Int(extension), read_bytes(dataset, int(having[0]), (extension,)))
            except SampleError:
                return False
            return True
    return False


def _range(start: int, stop: int):
    import numpy as np

    return np.arange(start, stop, dtype=np.int64)


def _place(entry: dict) -> tuple:
    return entry.get("source"), entry["shard"], entry["key"]


def _ids_of(dataset, listed: dict, judged: list[dict]):
    """The samples of some lines; those of another source of a mixture are passed over.

    Raises ConfigError where none of all that the ledger lists is in the source.
    """
    import numpy as np

    known = {(shard, key) for _, shard, key in listed}
    wanted = {(entry["shard"], entry["key"]) for entry in judged}
    rows, _ = dataset.find_keys(sorted({key for _, key in known}))
    places = {row: (one.container, one.key) for row in rows.tolist() for one in [dataset.row(row)]}
    if known and not known & set(places.values()):
        shard, key = next(iter(known))
        raise ConfigError(
            f"the ledger lists {len(listed)} samples, such as key {key!r} of {shard}, and none of them is in "
            "the source. Name the source that the ledger is of."
        )
    return np.array([row for row, place in places.items() if place in wanted], np.int64)


def _fields_of_ledger(judged: list[dict]) -> dict:
    """The fields that its lines name, as the training read them; what a sample lacked is required."""
    lacked = {
        entry["field"] for entry in judged if entry["reason"] == f"no {' or '.join(_extensions(entry))}"
    }
    chosen = {}
    for entry in judged:
        name, kind, ext = entry["field"], entry.get("field_type", "Bytes"), ";".join(_extensions(entry))
        chosen[name] = _field(kind, ext, required=name in lacked)
    return chosen


def _extensions(entry: dict) -> list[str]:
    return [part.strip().lower() for part in entry.get("ext", entry["field"]).split(";")]


def _from_ledger(entry: dict) -> Bad:
    shard = f"{entry['source']}: {entry['shard']}" if entry.get("source") else entry["shard"]
    place = entry["sample_id"], shard, entry["key"], entry["offset_bytes"]
    return Bad(*place, entry["field"], entry["reason"])


def add_options(parser) -> None:
    """The options of `fastload check`."""
    parser.add_argument("source", metavar="SOURCE", nargs="?", help="shards, a pattern or a folder")
    parser.add_argument("--ledger", metavar="FILE", help="check the samples that a training's ledger lists")
    parser.add_argument("--max-pixels", type=int, help="an image with more is bad (default: as fl.Loader)")
    parser.add_argument("--threads", type=int, help="decoding threads (default: the usable CPUs)")


def from_command_line(options) -> CheckReport:
    """Checks what the command line names, with a progress bar on stderr."""
    from fastload.prepare.common.progress import Progress

    with Progress("check") as progress:
        return check(
            options.source,
            ledger=options.ledger,
            max_pixels=options.max_pixels,
            threads=options.threads,
            progress=progress,
        )
