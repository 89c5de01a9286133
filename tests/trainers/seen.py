"""What a training sees of its loader: the samples of every step, and who decoded them."""

import json
from pathlib import Path

import torch

import fastload as fl

BATCH_SIZE = 5
# Steps, here, where reading them takes no import of a trainer.
LIGHTNING_SAVED_AFTER = 6  # within the second epoch on 2 ranks, and in the first on 1
ACCELERATE_SAVED_AFTER = (3, 6)  # 3 is within an epoch on one rank and on two
FIELDS = {"image": fl.Image(size=8), "label": fl.Int("cls")}


class Pictures:
    """A map-style dataset of torch's kind."""

    def __len__(self) -> int:
        return 44

    def __getitem__(self, i: int) -> dict:
        return {"image": torch.full((3, 8, 8), i / 44), "label": i}


def torch_loader() -> fl.DataLoader:
    generator = torch.Generator().manual_seed(3)
    return fl.DataLoader(
        Pictures(), BATCH_SIZE, shuffle=True, drop_last=True, generator=generator, num_workers=1
    )


def train_loader(shards: str, sampler=None, shuffle: bool = True) -> fl.Loader:
    dataset = fl.Dataset(shards, FIELDS, augment=fl.Augment(xflip=0.5))
    return fl.DataLoader(
        dataset, BATCH_SIZE, shuffle=shuffle and sampler is None, sampler=sampler, drop_last=True
    )


class Seen:
    """The steps of one run, as JSON holds them: epoch, labels, and the sum of the pixels."""

    def __init__(self):
        self.steps: list[dict] = []

    def see(self, epoch: int, batch: dict) -> None:
        pixels = round(float(batch["image"].double().sum()), 6)
        self.steps.append({"epoch": epoch, "labels": batch["label"].tolist(), "pixels": pixels})


def who_loaded(loader) -> dict:
    """What only a Loader whose native threads have worked can say."""
    stats = loader.stats()
    return {
        "type": type(loader).__name__,
        "decoder": repr(loader).partition("decode: ")[2].partition("\n")[0],
        "images": stats["images"],
        "native_decode_seconds": stats["stages"]["decode"]["busy_seconds"],
    }


def write(out: str, rank: int, found: dict) -> None:
    Path(out, f"rank-{rank}.json").write_text(json.dumps(found))
