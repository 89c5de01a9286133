"""`fastload demo`: the default training pipeline for a few seconds, on your data or its own photographs.

In: a source, or none. Out: a DemoReport (rates, time to the first batch, which stage limits) and a contact
sheet, PNG, of samples as stored beside the same samples as trained. Without a source, a sample set is made
once in the cache folder. Promised: the sheet is drawn after everything was measured, and where it cannot be
written, the report is returned all the same and says why.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fastload.errors import ConfigError, FastloadError
from fastload.fields import Image
from fastload.imports import import_whole
from fastload.prepare.common.report import render_pairs, render_stats
from fastload.shortage import room_for

SHEET_SAMPLES = 24
BATCH_SIZE = 64
SEPARATOR = " \N{MIDDLE DOT} "


@dataclass(frozen=True)
class DemoReport:
    """What the demo measured.

    first_batch_seconds: from the start of the command to the first batch, imports included; None without a
    batch. stats: the dict of Loader.stats(). sheet: the path of the contact sheet; None where it could not be
    written, and then `error` says why.
    """

    source: str
    samples: int
    shards: int
    extensions: dict[str, int]
    size: int
    batch_size: int
    pipeline: str
    first_batch_seconds: float | None
    stats: dict
    sheet: str | None
    error: str | None = None

    @property
    def problems(self) -> int:
        """The number of samples that could not be used."""
        return self.stats["bad_samples"]

    def to_dict(self) -> dict:
        """All fields and the CPU seconds per 1000 images, ready for JSON."""
        images = self.stats["images"]
        per_1000 = self.stats["cpu_seconds"] / images * 1000 if images else None
        return {**asdict(self), "cpu_seconds_per_1000_images": per_1000}

    def render(self) -> str:
        """The report as text."""
        found = f"{self.samples:,} samples in {self.shards:,} containers"
        extensions = ", ".join(self.extensions)
        batches = f"{self.batch_size} x 3 x {self.size} x {self.size}"
        pairs = [("source", self.source), ("found", f"{found} ({extensions})"), ("batches", batches)]
        if self.first_batch_seconds is not None:
            pairs.append(
                ("start-up", f"{self.first_batch_seconds:.1f} s from the command to the first batch")
            )
        head = render_pairs([*pairs, ("contact sheet", self.sheet or "not written")])
        return f"{self.pipeline}\n\n{head}\n\n{render_stats(self.stats)}"


@room_for("fastload demo cannot go on", "torch")
def demo(
    source=None,
    *,
    seconds: float = 5.0,
    size: int = 256,
    batch_size: int | None = None,
    threads: int | None = None,
    out="fastload-demo.png",
    progress: Callable[[float, str], None] | None = None,
    started: float | None = None,
) -> DemoReport:
    """Runs the default training pipeline over the source for `seconds` after its first batch.

    batch_size: None is 64, or the number of samples where that is smaller. out: where the contact sheet goes.
    progress: called with the share that is done (0..1) and a note. started: the time.monotonic() from which
    the first batch is timed; None is now. Raises FastloadError.
    """
    started = time.monotonic() if started is None else started
    if not seconds > 0:
        raise ConfigError(f"seconds must be above 0, got {seconds}.")
    _check_target(Path(out))
    Image(size=size)  # raises for an invalid size, before the work
    source = _own_samples(progress) if source is None else source
    from fastload.prepare.common import pipeline
    from fastload.shards.dataset import open_dataset

    dataset = open_dataset(source)
    batch_size = min(BATCH_SIZE, dataset.n) if batch_size is None else batch_size
    with pipeline.open_loader(source, dataset, size=size, batch_size=batch_size, threads=threads) as loader:
        kept, first = _train(loader, seconds, progress)
        stats, description = loader.stats(), repr(loader)
    report = DemoReport(
        source=str(source),
        samples=dataset.n,
        shards=len(dataset.names),
        extensions=dict(dataset.extensions),
        size=size,
        batch_size=batch_size,
        pipeline=description,
        first_batch_seconds=None if first is None else first - started,
        stats=stats,
        sheet=str(out),
    )
    try:
        _draw_sheet(dataset, kept, report)
    except (FastloadError, OSError) as error:
        return replace(report, sheet=None, error=_sheet_error(out, error))
    return report


def _check_target(out: Path) -> None:
    """Refuses a wrong name before the work, not after it."""
    if out.suffix.lower() != ".png":
        raise ConfigError(f"--out {out}: the contact sheet is a PNG; give a name that ends in .png.")
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: the folder {out.parent} does not exist; make it first.")


def _own_samples(progress) -> str:
    from fastload.prepare.common.demo_set import demo_set

    def after_photo(share: float, name: str) -> None:
        import_whole("torch")  # which takes the longest; meanwhile threads crop the other photos
        if progress is not None:
            progress(share, f"making samples: {name}")

    return demo_set(progress=after_photo)


def _train(loader, seconds: float, progress) -> tuple[list[dict], float | None]:
    """Takes batches for `seconds` after the first; returns those of the first SHEET_SAMPLES samples, and the
    time.monotonic() of the first batch."""
    kept, images, start = [], 0, None
    if progress is not None:
        progress(0.0, "first batch")
    for batch in loader:
        start = time.monotonic() if start is None else start
        if images < SHEET_SAMPLES:
            kept.append(batch)
        images += len(batch["__key__"])
        elapsed = time.monotonic() - start
        if progress is not None:
            progress(elapsed / seconds, f"training: {images:,} images")
        if elapsed >= seconds:
            break
    return kept, start


def _draw_sheet(dataset, kept: list[dict], report: DemoReport) -> None:
    from fastload.prepare.common.contact_sheet import contact_sheet

    pairs = [pair for batch in kept for pair in _pairs(dataset, batch)][:SHEET_SAMPLES]
    rate = f"{report.stats['images_per_second']:,.0f} images/s"
    steps = f"short side to {report.size}, center crop, xflip 0.5"
    subtitle = f"{report.source}  |  {report.samples:,} samples  |  {steps}  |  {rate}"
    contact_sheet(pairs, "fastload demo", subtitle).save(report.sheet)


def _pairs(dataset, batch: dict):
    from PIL import Image

    from fastload.prepare.common import pipeline
    from fastload.prepare.common.contact_sheet import PICTURE_HEIGHT, Pair
    from fastload.prepare.common.stored import read_stored

    sample_ids = pipeline.samples_at(dataset, batch["__position__"])
    extensions = pipeline.image_extensions(dataset)
    count = min(len(sample_ids), SHEET_SAMPLES)
    trained = pipeline.as_pixels(batch["image"][:count])
    keys = dataset.keys(sample_ids[:count])
    for row, sample_id in enumerate(sample_ids[:count].tolist()):
        if keys[row] != batch["__key__"][row]:
            continue  # a bad sample: the batch has a replacement sample here
        stored = read_stored(dataset, sample_id, extensions, limit=2 * PICTURE_HEIGHT)
        title = SEPARATOR.join((batch["__key__"][row], f"{stored.width} x {stored.height} {stored.format}"))
        yield Pair(stored.picture, Image.fromarray(trained[row]), title, _note(dataset, batch, row))


def _note(dataset, batch: dict, row: int) -> str:
    """The class, by name where class folders name it, and the caption."""
    from fastload.prepare.common.pipeline import NO_LABEL

    label = int(batch["label"][row]) if "label" in batch else NO_LABEL
    named = dataset.classes is not None and 0 <= label < len(dataset.classes)
    kind = dataset.classes[label] if named else f"cls {label}" if label != NO_LABEL else ""
    caption = batch["caption"][row] if "caption" in batch else ""
    return SEPARATOR.join(part for part in (kind, caption) if part)


def _sheet_error(out, error: FastloadError | OSError) -> str:
    reason = str(error)
    if isinstance(error, OSError) and error.filename in (None, str(out)):  # and not a file of the source
        reason = f"{error.strerror or error}. Name another file with --out."
    return f"{out}: the contact sheet was not written: {reason}"


def add_options(parser) -> None:
    """The options of `fastload demo`."""
    what = "shards, a pattern or a folder (default: its own photographs)"
    parser.add_argument("source", nargs="?", metavar="SOURCE", help=what)
    parser.add_argument("--seconds", type=float, help="how long to run (default: 5)")
    parser.add_argument("--size", type=int, help="side of the training images in pixels (default: 256)")
    parser.add_argument(
        "--batch-size", type=int, help="images per batch (default: 64, fewer where there are fewer)"
    )
    parser.add_argument("--threads", type=int, help="decoding threads (default: all usable CPUs)")
    parser.add_argument("--out", metavar="PNG", help="where the contact sheet goes")
