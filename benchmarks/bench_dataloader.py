"""What a changed import brings: torch's DataLoader, fl.DataLoader in its place, and a lifted ImageFolder.

    python -m benchmarks.bench_dataloader --out DIR [--photos DIR] [--rounds 3]

Training, images a second: JPEGs of 500x375 (`in500` of end_to_end/corpora.py) in class folders, torchvision's
ImageFolder with Resize(256), CenterCrop(224), RandomHorizontalFlip, ToTensor and Normalize, shuffled, batches
of 64, two workers or threads. `torch`: torch.utils.data.DataLoader. `import changed`: fl.DataLoader of the
same dataset, which is torch's with a state. `lifted`: fl.DataLoader of fl.Dataset.from_torch(dataset), exact;
`lifted, scaled`: JPEGs decoded at a fraction of their size where that leaves twice the target.

Overhead, batches a second: a dataset that costs nothing, batches of 64 integers, by torch, by fl.DataLoader
and by torchdata's StatefulDataLoader; map-style without a state, and iterable with one, in the main process
and in two workers.

A window is a process of its own: two seconds of warming up, then five that count. The rows take turns; the
median of the rounds is told. Checked before: without the flip, the batches of all rows of a table are equal,
those of images within 1e-5 (`lifted, scaled`: told in levels of 255).

Needs torchvision and torchdata. Prints a page, and writes dataloader-DATE-COMMIT.json and .md into --out.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader, IterableDataset

import fastload as fl
from benchmarks import options
from benchmarks.end_to_end.corpora import KINDS, make
from benchmarks.end_to_end.machine import commit, keep, machine

BATCH, WORKERS, CLASSES = 64, 2, 4
WARM_SECONDS, WINDOW_SECONDS = 2.0, 5.0
STD = (0.229, 0.224, 0.225)


def image_folder(root: str, flip: bool):
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = [transforms.Resize(256), transforms.CenterCrop(224)]
    steps += [transforms.RandomHorizontalFlip()] if flip else []
    steps += [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), STD)]
    return ImageFolder(root, transforms.Compose(steps))


def lifted(folder, scaled: str | None = None):
    return fl.Dataset.from_torch(folder, scaled=scaled)


IMAGES = {
    "torch": lambda folder, **how: DataLoader(folder, BATCH, persistent_workers=True, **how),
    "import changed": lambda folder, **how: fl.DataLoader(folder, BATCH, persistent_workers=True, **how),
    "lifted": lambda folder, **how: fl.DataLoader(lifted(folder), BATCH, **how),
    "lifted, scaled": lambda folder, **how: fl.DataLoader(lifted(folder, "half"), BATCH, **how),
}


class Numbers:
    """A map-style dataset that costs nothing."""

    def __len__(self) -> int:
        return 1 << 20

    def __getitem__(self, i: int) -> int:
        return i


class Counting(IterableDataset):
    """An iterable dataset that costs nothing, and has a state."""

    def __init__(self):
        self.next = 0

    def __iter__(self):
        while self.next < 1 << 20:
            self.next += 1
            yield self.next
        self.next = 0

    def state_dict(self) -> dict:
        return {"next": self.next}

    def load_state_dict(self, state: dict) -> None:
        self.next = state["next"]


def stateful(dataset, batch_size: int, **how):
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(dataset, batch_size, **how)


LOADERS = {"torch": DataLoader, "fl.DataLoader": fl.DataLoader, "torchdata": stateful}
OVERHEADS = {
    f"{kind}, {workers} workers, {name}": lambda loader=loader, dataset=dataset, workers=workers: loader(
        dataset(), BATCH, num_workers=workers
    )
    for kind, dataset in (("map-style", Numbers), ("iterable with a state", Counting))
    for workers in (0, WORKERS)
    for name, loader in LOADERS.items()
}


def batches_of(name: str, root: str) -> Iterator[int]:
    """Endless: the images, or batches, of each batch of a row."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if name in IMAGES:
        folder = image_folder(root, flip=True)
        loader = IMAGES[name](folder, shuffle=True, num_workers=WORKERS, drop_last=True)
        while True:
            for images, labels in loader:
                assert images.shape == (BATCH, 3, 224, 224) and len(labels) == BATCH
                yield BATCH
    loader = OVERHEADS[name]()
    while True:
        for batch in loader:
            assert len(batch) == BATCH
            yield 1


def window(name: str, root: str, seconds: float) -> dict:
    """Images, or batches, a second of one row, after warming up."""
    batches = batches_of(name, root)
    begun = time.perf_counter()
    while time.perf_counter() - begun < WARM_SECONDS:
        next(batches)
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        count += next(batches)
    return {"rate": count / (time.perf_counter() - begun)}


def check(root: str) -> dict:
    """What the rows' batches differ by, without the flip, in order: {row: greatest, mean}, in levels of
    255.
    """
    folder = image_folder(root, flip=False)
    expected = list(IMAGES["torch"](folder, shuffle=False, num_workers=1))
    scale = 255 * torch.tensor(STD).view(3, 1, 1)
    found = {}
    for name, loader in IMAGES.items():
        differences = []
        for (images, labels), (theirs, their_labels) in zip(
            loader(folder, shuffle=False, num_workers=1), expected, strict=True
        ):
            assert torch.equal(labels, their_labels), name
            differences.append(((images - theirs) * scale).abs())
        found[name] = {
            "greatest": max(float(one.max()) for one in differences),
            "mean": statistics.mean(float(one.mean()) for one in differences),
        }
        assert found[name]["greatest"] < 255e-5 or name == "lifted, scaled", (name, found)
    for kind in {name.rsplit(", ", 1)[0] for name in OVERHEADS}:
        firsts = [next(iter(OVERHEADS[f"{kind}, {loader}"]())).tolist() for loader in LOADERS]
        assert firsts[0] == firsts[1] == firsts[2], kind
    return found


def class_folders(corpus, cache: Path) -> str:
    """The corpus's files as links in class folders."""
    root = cache / f"{corpus.folder.name}-classes"
    for number, path in enumerate(corpus.files):
        link = root / f"class{number % CLASSES}" / os.path.basename(path)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(path)
    return str(root)


def measure(root: str, rounds: int, names: list[str]) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in rates:
            command = [sys.executable, "-m", "benchmarks.bench_dataloader", "--window", name, root]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rates[name].append(json.loads(done.stdout.splitlines()[-1])["rate"])
            print(f"round {number}: {name}: {rates[name][-1]:.0f}", file=sys.stderr, flush=True)
    return rates


def page(result: dict) -> str:
    rates, differences = result["rates"], result["differences"]
    lines = [
        "What a changed import brings; what the rows mean: benchmarks/bench_dataloader.py.",
        "",
        f"Commit {result['commit']['commit']}{' with changes' if result['commit']['dirty'] else ''}, "
        f"{result['machine']['cpu']}, {result['machine']['usable_cpus']} CPUs; medians of {result['rounds']} "
        "rounds (least - most).",
        "",
        "| ImageFolder | images/s | of torch | greatest difference, levels | mean |",
        "|---|---|---|---|---|",
    ]
    torchs = statistics.median(rates["torch"])
    for name in IMAGES:
        lines.append(
            f"| {name} | {_spread(rates[name])} | {statistics.median(rates[name]) / torchs:.2f} | "
            f"{differences[name]['greatest']:.4f} | {differences[name]['mean']:.4f} |"
        )
    if not rates.keys() & OVERHEADS.keys():
        return "\n".join(lines) + "\n"
    lines += ["", "| a dataset that costs nothing | batches/s | of torch |", "|---|---|---|"]
    for name in OVERHEADS:
        beside = statistics.median(rates[f"{name.rsplit(', ', 1)[0]}, torch"])
        lines.append(f"| {name} | {_spread(rates[name])} | {statistics.median(rates[name]) / beside:.2f} |")
    return "\n".join(lines) + "\n"


def _spread(rates: list[float]) -> str:
    return f"{statistics.median(rates):.0f} ({min(rates):.0f} - {max(rates):.0f})"


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", action="store_true", help="the first table alone")
    parser.add_argument("--window", nargs=2, help=argparse.SUPPRESS)  # a row and the folder of images
    given = parser.parse_args()
    if given.window:
        print(json.dumps(window(*given.window, WINDOW_SECONDS)))
        return
    result = {"commit": commit(), "machine": machine(), "rounds": given.rounds}
    root = class_folders(make(KINDS["in500"], given.photos, given.cache), given.cache)
    result["differences"] = check(root)
    result["rates"] = measure(root, given.rounds, [*IMAGES] if given.images else [*IMAGES, *OVERHEADS])
    text = page(result)
    print(text)
    if given.out is not None:
        keep("dataloader", result, text, given.out, checkout=result["commit"])


if __name__ == "__main__":
    main()
