"""`fastload bench`: a source through fastload and through torch DataLoader + Pillow, taking turns.

In: a source. Out: a BenchReport: images/s and CPU seconds per 1000 images of both, medians and spread over
the rounds, and their ratio. Promised: before anything is timed, both sides are compared on the same samples
(without flips, JPEGs decoded at full size), and a visible difference is an error; they take turns, so that a
machine that slows down slows both; both read the same samples in the same order with the same number of
threads or workers.
"""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from fastload.backends import usable_cpus
from fastload.errors import ConfigError, SampleError
from fastload.prepare.common.report import render_pairs, render_table
from fastload.shortage import room_for

SIDES = ("fastload", "torch DataLoader + Pillow")
CHECKED_SAMPLES = 32
MIN_PSNR = 40.0  # dB; DALI was measured at 48 and more against Pillow, other geometry at 35 to 45
SETTLE_SHARE = 0.25  # of a turn, not counted: it uses up batches that were made during the other side's turn


@dataclass(frozen=True)
class Turn:
    """What one side did in one round."""

    images: int
    seconds: float
    cpu_seconds: float

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds

    @property
    def cpu_seconds_per_1000(self) -> float:
        return self.cpu_seconds / self.images * 1000


@dataclass(frozen=True)
class BenchReport:
    """Both sides' rounds, and how their pixels differ: the lowest PSNR of a sample in dB (None: all samples
    are equal) and the largest difference of two uint8 values."""

    source: str
    samples: int
    size: int
    batch_size: int
    threads: int
    pipeline: str
    lowest_psnr: float | None
    largest_difference: int
    turns: dict[str, tuple[Turn, ...]]

    @property
    def ratio(self) -> float:
        """How many times faster fastload is, median over median."""
        ours, theirs = (_median(self.turns[side], "images_per_second") for side in SIDES)
        return ours / theirs

    def to_dict(self) -> dict:
        """All fields, the medians, and the ratio, ready for JSON."""
        medians = {
            side: {
                name: _median(self.turns[side], name)
                for name in ("images_per_second", "cpu_seconds_per_1000")
            }
            for side in SIDES
        }
        return {**asdict(self), "medians": medians, "ratio": self.ratio}

    def render(self) -> str:
        """The report as text."""
        rows = []
        for side in SIDES:
            rates = [turn.images_per_second for turn in self.turns[side]]
            cpu = _median(self.turns[side], "cpu_seconds_per_1000")
            spread = f"{min(rates):,.0f} - {max(rates):,.0f}"
            rows.append((side, f"{statistics.median(rates):,.0f}", spread, f"{cpu:.2f}"))
        table = render_table(("side", "images/s", "lowest - highest", "CPU s per 1000"), rows)
        psnr = "bit-equal" if self.lowest_psnr is None else f"PSNR {self.lowest_psnr:.1f} dB or more"
        pairs = [
            ("source", f"{self.source} ({self.samples:,} samples)"),
            ("batches", f"{self.batch_size} x 3 x {self.size} x {self.size}, {self.threads} threads"),
            ("same output", f"{psnr}, differences up to {self.largest_difference} of 255"),
            ("rounds", str(len(self.turns[SIDES[0]]))),
            ("ratio", f"{self.ratio:.2f}"),
        ]
        return f"{self.pipeline}\n\n{render_pairs(pairs)}\n\n{table}"


@room_for("fastload bench cannot go on", "torch")
def bench(
    source,
    *,
    size: int = 256,
    batch_size: int | None = None,
    threads: int | None = None,
    rounds: int = 5,
    seconds: float = 20.0,
    seed: int = 0,
    progress: Callable[[float, str], None] | None = None,
) -> BenchReport:
    """Measures both sides for `seconds` in all, in `rounds` turns each. Raises FastloadError."""
    if rounds < 1 or not seconds > 0:
        raise ConfigError(
            f"rounds must be at least 1 and seconds above 0, got rounds={rounds} and seconds={seconds}."
        )
    from fastload.prepare.common import pipeline
    from fastload.prepare.common.pillow_peer import open_peer
    from fastload.shards.dataset import open_dataset

    threads = usable_cpus() if threads is None else threads
    dataset = open_dataset(source, threads=threads)
    batch_size = min(64, dataset.n) if batch_size is None else batch_size
    settings = {"size": size, "batch_size": batch_size, "threads": threads}
    # The peer's workers start before fastload has threads: a fork copies locks, held or not.
    theirs = _Theirs(open_peer(dataset, size=size, batch_size=batch_size, workers=threads, seed=seed))
    lowest, largest = compare(source, dataset, **settings)
    # The peer raises for a bad sample, so fastload does as well.
    ours = {"only_images": True, "on_bad": "raise", "seed": seed}
    with pipeline.open_loader(source, dataset, **ours, **settings) as loader:
        sides = dict(zip(SIDES, (_Ours(loader), theirs), strict=True))
        turns = _take_turns(sides, rounds, seconds / rounds / len(sides), progress)
        description = repr(loader)
    difference = {"lowest_psnr": lowest, "largest_difference": largest}
    return BenchReport(
        source=str(source), samples=dataset.n, pipeline=description, turns=turns, **settings, **difference
    )


def compare(source, dataset, *, size: int, batch_size: int, threads: int) -> tuple[float | None, int]:
    """The lowest PSNR of some samples (None: all equal) and the largest difference of two uint8 values.

    Raises SampleError where a sample differs visibly: then the two sides do not do the same work.
    """
    import numpy as np

    from fastload.prepare.common import pipeline
    from fastload.prepare.common.pillow_peer import PillowImages

    settings = {"xflip": 0.0, "shuffle": False, "only_images": True, "scaled": None, "on_bad": "raise"}
    peer = PillowImages(dataset, size, xflip=0.0)
    lowest, largest, compared = None, 0, 0
    with pipeline.open_loader(
        source, dataset, size=size, batch_size=batch_size, threads=threads, **settings
    ) as loader:
        for batch in loader:
            sample_ids = pipeline.samples_at(dataset, batch["__position__"], shuffle=False).tolist()
            for ours, sample_id in zip(pipeline.as_pixels(batch["image"]), sample_ids, strict=True):
                theirs = pipeline.as_pixels(peer[sample_id][None])[0]
                difference = np.abs(ours.astype(np.int16) - theirs)
                if difference.any():
                    psnr = _checked_psnr(difference, dataset, sample_id)
                    lowest = psnr if lowest is None else min(lowest, psnr)
                    largest = max(largest, int(difference.max()))
            compared += len(sample_ids)
            if compared >= min(CHECKED_SAMPLES, dataset.n):
                break
    return lowest, largest


def _checked_psnr(difference, dataset, sample_id: int) -> float:
    psnr = 20 * math.log10(255 / math.sqrt(float((difference.astype("float64") ** 2).mean())))
    if psnr < MIN_PSNR:
        raise SampleError(
            f"{dataset.where(sample_id)}: fastload and Pillow give different pictures ({psnr:.1f} dB), "
            "so their rates cannot be compared. Please report this file; until then, leave it out."
        )
    return psnr


class _Ours:
    """Fastload's turn: all its threads are in this process."""

    def __init__(self, loader):
        self._batches = iter(loader)

    def take(self) -> int:
        return len(next(self._batches)["__key__"])

    def cpu_seconds(self) -> float:
        return time.process_time()


class _Theirs:
    """The peer's turn: its workers send their CPU seconds with every batch."""

    def __init__(self, peer):
        self._batches = iter(peer)
        self._of_worker: dict[int, float] = {}
        self.take()

    def take(self) -> int:
        images, worker, cpu_seconds = next(self._batches)
        self._of_worker[worker] = cpu_seconds
        return len(images)

    def cpu_seconds(self) -> float:
        return time.process_time() + sum(self._of_worker.values())


def _take_turns(sides: dict, rounds: int, seconds: float, progress) -> dict[str, tuple[Turn, ...]]:
    """`seconds` for each side in each round; the sides alternate in starting a round."""
    turns: dict[str, list[Turn]] = {name: [] for name in sides}
    for number in range(rounds):
        names = list(sides) if number % 2 == 0 else list(sides)[::-1]
        for turn, name in enumerate(names):
            if progress is not None:
                progress((number + turn / len(names)) / rounds, f"round {number + 1}: {name}")
            _run_for(sides[name], seconds * SETTLE_SHARE)
            turns[name].append(_run_for(sides[name], seconds))
    return {name: tuple(done) for name, done in turns.items()}


def _run_for(side, seconds: float) -> Turn:
    """Takes batches until the time is over, at least two."""
    images, batches, start, cpu_start = 0, 0, time.perf_counter(), side.cpu_seconds()
    while batches < 2 or time.perf_counter() - start < seconds:
        images += side.take()
        batches += 1
    return Turn(images, time.perf_counter() - start, side.cpu_seconds() - cpu_start)


def _median(turns, name: str) -> float:
    return statistics.median(getattr(turn, name) for turn in turns)


def add_options(parser) -> None:
    """The options of `fastload bench`."""
    parser.add_argument("source", metavar="SOURCE", help="shards, a pattern or a folder")
    parser.add_argument("--size", type=int, help="side of the training images in pixels (default: 256)")
    parser.add_argument(
        "--batch-size", type=int, help="images per batch (default: 64, fewer where there are fewer)"
    )
    parser.add_argument(
        "--threads", type=int, help="fastload's threads and torch's workers (default: usable CPUs)"
    )
    parser.add_argument("--rounds", type=int, help="turns of each side (default: 5)")
    parser.add_argument("--seconds", type=float, help="time of all turns together (default: 20)")
