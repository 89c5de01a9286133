"""`fastload info`: what a source holds: samples, containers, extensions with their sizes, and a few samples.

In: a source. Out: an InfoReport. Only the index and the images of the samples shown are read.
"""

from dataclasses import asdict, dataclass

from fastload import fields as fl
from fastload.errors import ConfigError
from fastload.prepare.common.report import render_bytes, render_pairs, render_table
from fastload.shortage import room_for

SAMPLES_SHOWN = 5
CONTAINERS_SHOWN = 8
CHUNK = 1 << 16  # samples whose sizes are looked up at a time: memory does not grow with the dataset


@dataclass(frozen=True)
class ExtensionSizes:
    """How many samples have an extension, and how large its members are."""

    samples: int
    total_bytes: int
    smallest_bytes: int
    largest_bytes: int


@dataclass(frozen=True)
class ShownSample:
    """A sample: its container, the size of each member, and a description of its image."""

    key: str
    container: str
    size_bytes: dict[str, int]
    image: str


@dataclass(frozen=True)
class InfoReport:
    """What a source holds."""

    source: str
    samples: int
    containers: dict[str, int]
    bytes_total: int
    fingerprint: str
    classes: tuple[str, ...]
    has_labels: bool
    skipped: dict[str, int]
    extensions: dict[str, ExtensionSizes]
    shown: tuple[ShownSample, ...]

    def to_dict(self) -> dict:
        """All fields, ready for JSON."""
        return asdict(self)

    def render(self) -> str:
        """The report as text."""
        pairs = [
            ("source", self.source),
            ("samples", f"{self.samples:,}"),
            ("containers", f"{len(self.containers):,}"),
            ("size", render_bytes(self.bytes_total)),
            ("labels", self._labels()),
            ("skipped", ", ".join(f"{kind} {count:,}" for kind, count in self.skipped.items()) or "-"),
            ("fingerprint", self.fingerprint),
        ]
        parts = [render_pairs(pairs), self._extension_table(), self._container_table(), self._sample_list()]
        return "\n\n".join(part for part in parts if part)

    def _labels(self) -> str:
        if self.classes:
            return f"{len(self.classes):,} class folders"
        return "dataset.json" if self.has_labels else "only those in the samples"

    def _extension_table(self) -> str:
        rows = []
        for name, sizes in self.extensions.items():
            mean = sizes.total_bytes // max(sizes.samples, 1)
            numbers = (sizes.total_bytes, mean, sizes.smallest_bytes, sizes.largest_bytes)
            rows.append((name, f"{sizes.samples:,}", *map(render_bytes, numbers)))
        return render_table(("extension", "samples", "total", "mean", "smallest", "largest"), rows)

    def _container_table(self) -> str:
        rows = [(name, f"{count:,}") for name, count in list(self.containers.items())[:CONTAINERS_SHOWN]]
        more = len(self.containers) - len(rows)
        return render_table(("container", "samples"), rows) + (f"\n... and {more:,} more" if more else "")

    def _sample_list(self) -> str:
        lines = ["samples"]
        for sample in self.shown:
            members = ", ".join(f"{ext} {render_bytes(size)}" for ext, size in sample.size_bytes.items())
            image = f"; {sample.image}" if sample.image else ""
            lines.append(f"  {sample.container}: {sample.key}: {members}{image}")
        return "\n".join(lines) if self.shown else ""


@room_for("fastload info cannot go on", "fastload.prepare.common.stored")
def info(source, *, samples: int = SAMPLES_SHOWN, threads: int = 1) -> InfoReport:
    """Counts what a source holds and shows `samples` samples, evenly spaced. Raises FastloadError."""
    if samples < 0:
        raise ConfigError(f"samples must be at least 0, got {samples}.")
    from fastload.shards.dataset import open_dataset

    dataset = open_dataset(source, threads=threads)
    count = min(samples, dataset.n)
    shown = [_describe(dataset, i * dataset.n // count) for i in range(count)]
    return InfoReport(
        source=str(source),
        samples=dataset.n,
        containers=dict(zip(dataset.names, dataset.shard_counts.tolist(), strict=True)),
        bytes_total=int(dataset.bytes_total),
        fingerprint=dataset.fingerprint,
        classes=tuple(dataset.classes or ()),
        has_labels=dataset.has_labels,
        skipped=dict(dataset.skipped),
        extensions={name: _sizes_of(dataset, name) for name in dataset.extensions},
        shown=tuple(shown),
    )


def _sizes_of(dataset, extension: str) -> ExtensionSizes:
    """Looks up the size of every member with this extension, a chunk of samples at a time."""
    import numpy as np

    count, total, smallest, largest = 0, 0, None, 0
    for start in range(0, dataset.n, CHUNK):
        sample_ids = np.arange(start, min(start + CHUNK, dataset.n), dtype=np.int64)
        sizes = dataset.locate(sample_ids, (extension,)).size_bytes
        sizes = sizes[sizes >= 0]
        if len(sizes):
            count, total = count + len(sizes), total + int(sizes.sum())
            smallest = int(sizes.min()) if smallest is None else min(smallest, int(sizes.min()))
            largest = max(largest, int(sizes.max()))
    return ExtensionSizes(count, total, smallest or 0, largest)


def _describe(dataset, sample_id: int) -> ShownSample:
    row = dataset.row(sample_id)
    images = tuple(ext for ext in row.extensions if ext.rpartition(".")[2] in fl.Image(size=1).extensions)
    sizes = {extension: size for extension, (_, size) in row.extensions.items()}
    image = _describe_image(dataset, sample_id, images[:1]) if images else ""
    return ShownSample(row.key, row.container, sizes, image)


def _describe_image(dataset, sample_id: int, extensions: tuple[str, ...]) -> str:
    from io import BytesIO

    from PIL import Image

    from fastload.prepare.common.stored import read_bytes

    content = read_bytes(dataset, sample_id, extensions)
    try:
        with Image.open(BytesIO(content)) as image:
            return f"{image.width} x {image.height} {image.format} {image.mode}"
    except (OSError, SyntaxError, ValueError):
        return "not an image that Pillow can read"


def add_options(parser) -> None:
    """The options of `fastload info`."""
    parser.add_argument("source", metavar="SOURCE", help="shards, a pattern or a folder")
    parser.add_argument("--samples", type=int, help="how many samples to show (default: 5)")
