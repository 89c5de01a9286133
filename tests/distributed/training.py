"""A small training that can be killed at any moment and started again: one rank of it.

    python -m tests.distributed.training --shards DIR --folder DIR --last drop [--stop POSITION]
        --rank R --world-size W --meet URL

Every step: a batch, its line in the rank's log, an all_reduce (so the ranks stay in step), and every
CHECKPOINT_STEPS steps a checkpoint, which rank 0 replaces as a whole. At the start the checkpoint is loaded
and the logs are cut back to its step: what they hold then is the timeline that survives. Ends at the first
step that reaches --stop, with a last checkpoint; without --stop it never ends.

In --folder: `checkpoint` (step, the loader's state, the model), `log-R.txt` (a line for each sample: step,
position, label, CRC of the pixels), `diary.txt` (of rank 0: "first step", "writes N", "wrote N").
"""

import argparse
import os
import time
import zlib
from pathlib import Path

import torch
import torch.distributed as dist

import fastload as fl
from tests.distributed.rank import add_rank_arguments, ends_after, process_group
from tests.loader.samples import pictures

MOST_SECONDS = 55
GLOO_SECONDS = 40
CHECKPOINT_STEPS = 20
STEP_SECONDS = 0.004
BATCH_SIZE = 4
WEIGHTS = 250_000  # 1 MB: writing the checkpoint takes long enough to be hit by a kill


def make_loader(shards: str, last: str, batch_size: int = BATCH_SIZE, **arguments) -> fl.Loader:
    # Drawn where images are decoded, and where they are augmented.
    augment = fl.Augment(xflip=0.5, brightness=0.2)
    return pictures(shards, batch_size, last=last, epochs=None, augment=augment, prefetch=6, **arguments)


def delivered(batch: dict) -> list[tuple[int, int, int]]:
    """(position, label, CRC of the pixels) of each sample."""
    pixels = batch["image"].numpy()
    crcs = [zlib.crc32(pixels[i].tobytes()) for i in range(len(pixels))]
    return list(zip(batch["__position__"].tolist(), batch["label"].tolist(), crcs, strict=True))


def learn(samples: list[tuple[int, int, int]]) -> int:
    """What a step adds to the model: a number that a missing, repeated or changed sample changes."""
    return sum((position + 1) * (label + 1) + crc for position, label, crc in samples)


def save(folder: Path, content: dict) -> None:
    """The old checkpoint or the new one is there, whole, whenever the process dies."""
    temporary = folder / "checkpoint.tmp"
    with open(temporary, "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / "checkpoint")


def load(folder: Path) -> dict | None:
    try:
        return torch.load(folder / "checkpoint", weights_only=True)
    except FileNotFoundError:
        return None


def cut_back(log: Path, step: int) -> None:
    """Drops what came after `step`, and a line that was broken off."""
    if not log.exists():
        return
    size_bytes = 0
    for line in log.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n") or int(line.split()[0]) > step:
            break
        size_bytes += len(line)
    os.truncate(log, size_bytes)


def log_of(folder: Path, rank: int) -> Path:
    return folder / f"log-{rank}.txt"


def train(given: argparse.Namespace) -> None:
    folder, rank, world_size = given.folder, given.rank, given.world_size
    loader = make_loader(given.shards, given.last)
    checkpoint = load(folder)
    step, model, weights = 0, torch.zeros(1, dtype=torch.int64), torch.zeros(WEIGHTS)
    if checkpoint is not None:
        step, model = checkpoint["step"], checkpoint["model"]
        loader.load_state_dict(checkpoint["loader"])
    # Of every rank that there ever was, also where there are fewer now.
    for number in range(rank, given.most_ranks, world_size):
        cut_back(log_of(folder, number), step)
    diary = os.open(folder / "diary.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    log = os.open(log_of(folder, rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(what: str) -> None:
        if rank == 0:
            os.write(diary, f"{what}\n".encode())

    def write_checkpoint() -> None:
        note(f"writes {step}")
        if rank == 0:
            save(folder, {"step": step, "loader": loader.state_dict(), "model": model, "weights": weights})
        note(f"wrote {step}")

    for number, batch in enumerate(loader):
        step += 1
        samples = delivered(batch)
        # Before the all_reduce: when rank 0 writes the checkpoint of a step, all ranks have logged it.
        os.write(log, "".join(f"{step} {p} {label} {crc}\n" for p, label, crc in samples).encode())
        learned = torch.tensor([learn(samples)])
        dist.all_reduce(learned)
        model += learned
        place = loader.state_dict()["position"]
        _check_agreement(place)
        if number == 0:
            note("first step")
        if step % CHECKPOINT_STEPS == 0:
            write_checkpoint()
        if given.stop is not None and place >= given.stop:
            write_checkpoint()
            return
        time.sleep(STEP_SECONDS)


def _check_agreement(place: int) -> None:
    most_and_least = torch.tensor([place, -place])
    dist.all_reduce(most_and_least, op=dist.ReduceOp.MAX)
    assert most_and_least.tolist() == [place, -place], f"ranks are at other places: {most_and_least}, {place}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--last", required=True)
    parser.add_argument("--most-ranks", type=int, required=True, help="that any launch of this training has")
    parser.add_argument("--stop", type=int)
    add_rank_arguments(parser, required=True)
    given = parser.parse_args()
    ends_after(MOST_SECONDS)
    with process_group(given, GLOO_SECONDS):
        train(given)


if __name__ == "__main__":
    main()
