"""What bad samples cost: the rate of loaders while some of the samples are broken.

    python -m benchmarks.bench_bad_samples --out DIR [--photos DIR] [--rounds 3]

JPEGs of 500x375 (`in500` of end_to_end/corpora.py, four times over: 2048 samples) to float32 batches of 64 at
256x256, shuffled, two threads or worker processes, where none, 0.2 %, 2 % or 10 % of the JPEGs are cut in
half. The loaders: `fastload` with its own decoder and with DALI on the CPU, which replace a bad sample;
webdataset with `handler=warn_and_continue`, which sleeps half a second in the worker and drops it; torch's
DataLoader with the usual try/except, which takes the next index.

A window is a process of its own: two seconds of warming up, then five that count. The loaders and the shares
take turns; the median of the rounds is told, and the share of the rate without bad samples that is left.
Checked in every window: each batch has 64 samples, and no broken one is among them.

Prints a page, and writes bad_samples-DATE-COMMIT.json and .md into --out.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tarfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from benchmarks import options
from benchmarks.end_to_end.corpora import KINDS, make
from benchmarks.end_to_end.machine import commit, keep, machine
from fastload.shards.writer import ShardWriter

BATCH, SIDE, THREADS = 64, 256, 2
SHARES = (0, 0.002, 0.02, 0.1)
COPIES, PER_SHARD = 4, 256
WARM_SECONDS, WINDOW_SECONDS = 2.0, 5.0


def fastload_batches(shards: list[str], decode: str) -> Iterator[list[str]]:
    import fastload as fl

    warnings.simplefilter("ignore")
    fields = {"image": fl.Image("jpg", size=SIDE)}
    how = {"threads": THREADS, "device": "cpu", "decode": decode, "ledger": None, "max_bad_fraction": 1}
    for batch in fl.Loader(shards, BATCH, fields, epochs=None, last="straddle", **how):
        assert batch["image"].shape == (BATCH, 3, SIDE, SIDE)
        yield batch["__key__"]


def _transform(jpeg: bytes):
    from benchmarks.end_to_end.peers.webdataset_pillow import JpegTransform

    return JpegTransform(SIDE)(jpeg)


def _stack(samples):
    import torch

    images, keys = zip(*samples, strict=True)
    return torch.stack(images), list(keys)


def webdataset_batches(shards: list[str]) -> Iterator[list[str]]:
    import torch
    import webdataset

    from benchmarks.end_to_end.peers.dataloader_parts import to_float

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dataset = (
        webdataset.WebDataset(shards, shardshuffle=len(shards), seed=0)
        .repeat()
        .shuffle(256)
        .to_tuple("jpg", "__key__")
        .map_tuple(_transform, str, handler=webdataset.warn_and_continue)
        .batched(BATCH, collation_fn=_stack)
    )
    for images, keys in webdataset.WebLoader(dataset, batch_size=None, num_workers=THREADS):
        assert to_float(images).shape == (BATCH, 3, SIDE, SIDE)
        yield keys


class TarImages:
    """A map-style dataset over the same shards; a bad sample's place goes to the next index."""

    def __init__(self, shards: list[str]):
        self.places = []
        for path in shards:
            with tarfile.open(path) as archive:
                self.places += [(path, one.name, one.offset_data, one.size) for one in archive]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int):
        path, name, offset, size = self.places[i % len(self)]
        with open(path, "rb") as file:
            file.seek(offset)
            content = file.read(size)
        try:
            return _transform(content), name.split(".")[0]
        except (OSError, SyntaxError, ValueError):
            return self[i + 1]


def dataloader_batches(shards: list[str]) -> Iterator[list[str]]:
    import torch

    from benchmarks.end_to_end.peers.dataloader_parts import to_float

    torch.set_num_threads(1)
    dataset = TarImages(shards)
    how = {"num_workers": THREADS, "collate_fn": _stack, "drop_last": True, "persistent_workers": True}
    loader = torch.utils.data.DataLoader(dataset, BATCH, shuffle=True, **how)
    while True:
        for images, keys in loader:
            assert to_float(images).shape == (BATCH, 3, SIDE, SIDE)
            yield keys


LOADERS = {
    "fastload": lambda shards: fastload_batches(shards, "native"),
    "fastload, DALI": lambda shards: fastload_batches(shards, "dali"),
    "webdataset, warn_and_continue": webdataset_batches,
    "DataLoader, try/except": dataloader_batches,
}


def window(name: str, shards: list[str], seconds: float) -> dict:
    """Images a second of one loader, after warming up."""
    batches = LOADERS[name](shards)
    begun = time.perf_counter()
    while time.perf_counter() - begun < WARM_SECONDS:
        next(batches)
    begun, images = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        keys = next(batches)
        assert len(keys) == BATCH and not any(key.startswith("bad") for key in keys)
        images += len(keys)
    return {"rate": images / (time.perf_counter() - begun)}


def make_shards(corpus, share: float, folder: Path) -> list[str]:
    """The corpus with some samples cut in half, whose keys say so."""
    target = folder / f"{corpus.folder.name}-bad-{share:g}"
    if not (target / "done").exists():
        target.mkdir(parents=True, exist_ok=True)
        every = round(1 / share) if share else 0
        with ShardWriter(str(target / "%05d.tar"), max_samples=PER_SHARD) as writer:
            for number, jpeg in enumerate(_jpegs(corpus.shards * COPIES)):
                bad = every and number % every == every // 2
                key = f"{'bad' if bad else 'good'}{number:06d}"
                writer.write({"__key__": key, "jpg": jpeg[: len(jpeg) // 2] if bad else jpeg})
        (target / "done").write_text("")
    return sorted(str(path) for path in target.glob("*.tar"))


def _jpegs(shards: list[str]) -> Iterator[bytes]:
    for path in shards:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.name.endswith(".jpg"):
                    yield archive.extractfile(member).read()


def measure(shards: dict[float, list[str]], rounds: int) -> dict:
    rates: dict[str, dict[float, list[float]]] = {name: {share: [] for share in shards} for name in LOADERS}
    for number in range(rounds):
        for share, paths in shards.items():
            for name in LOADERS:
                command = [sys.executable, "-m", "benchmarks.bench_bad_samples", "--window", name, *paths]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                rate = json.loads(done.stdout.splitlines()[-1])["rate"]
                rates[name][share].append(rate)
                print(f"round {number}: {share:g} bad, {name}: {rate:.0f}", file=sys.stderr, flush=True)
    return rates


def page(result: dict) -> str:
    lines = [
        "Images a second while some samples are broken; what the rows mean: benchmarks/bench_bad_samples.py.",
        "",
        f"Commit {result['commit']['commit']}{' with changes' if result['commit']['dirty'] else ''}, "
        f"{result['machine']['cpu']}, {result['machine']['usable_cpus']} CPUs; medians of {result['rounds']} "
        "rounds (least - most), and the share of the rate without bad samples.",
        "",
        "| loader | " + " | ".join(f"{share:.1%} bad" for share in SHARES) + " |",
        "|---" * (len(SHARES) + 1) + "|",
    ]
    for name, by_share in result["rates"].items():
        none = statistics.median(by_share[SHARES[0]])
        cells = []
        for share in SHARES:
            rates = by_share[share]
            middle = statistics.median(rates)
            left = f", {middle / none:.0%}" if share else ""
            cells.append(f"{middle:.0f} ({min(rates):.0f} - {max(rates):.0f}){left}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window", nargs="+", help=argparse.SUPPRESS)  # a loader and its shards
    given = parser.parse_args()
    if given.window:
        print(json.dumps(window(given.window[0], given.window[1:], WINDOW_SECONDS)))
        return
    result = {"commit": commit(), "machine": machine(), "rounds": given.rounds}
    corpus = make(KINDS["in500"], given.photos, given.cache)
    shards = {share: make_shards(corpus, share, given.cache) for share in SHARES}
    result["rates"] = measure(shards, given.rounds)
    text = page(result)
    print(text)
    if given.out is not None:
        keep("bad_samples", result, text, given.out, checkout=result["commit"])


if __name__ == "__main__":
    main()
