"""Trainings under Lightning, on as many ranks as torchrun gives; what each rank saw is written to --out.

python -m tests.trainers.lightning_run --shards DIR --out DIR
"""

import argparse
import os
import warnings
from functools import partial
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DistributedSampler

import fastload as fl
from tests.distributed.rank import add_rank_arguments, ends_after
from tests.trainers.seen import FIELDS, Seen, torch_loader, train_loader, who_loaded, write
from tests.trainers.seen import LIGHTNING_SAVED_AFTER as SAVED_AFTER

EPOCHS = 3
MOST_SECONDS = 100


class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3 * 8 * 8, 1)
        self.trained, self.validated = Seen(), Seen()

    def training_step(self, batch, _):
        self.trained.see(self.trainer.current_epoch, batch)
        return self.layer(batch["image"].flatten(1)).square().mean()

    def validation_step(self, batch, _):
        self.validated.see(self.trainer.current_epoch, batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def fit(given, folder, loader, resume=None, **arguments) -> tuple[Model, lightning.Trainer]:
    """A training, whole or from a checkpoint on; step checkpoints go to `folder`."""
    model = Model()
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=world_size,
        strategy="ddp" if world_size > 1 else "auto",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            ModelCheckpoint(folder, filename="{step}", every_n_train_steps=SAVED_AFTER, save_top_k=-1),
            ModelCheckpoint(
                Path(folder, "ends"), filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True
            ),
        ],
        **{"max_epochs": EPOCHS, **arguments},
    )
    validation = fl.DataLoader(fl.Dataset(given.shards, FIELDS), 4)
    trainer.fit(model, loader, validation, ckpt_path=resume)
    # Lightning has not made one of its own; of a torch DataLoader it does, for its sampler.
    assert trainer.train_dataloader is loader or isinstance(loader, fl.DataLoader)
    assert type(trainer.train_dataloader) is type(loader)
    return model, trainer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards", required=True)
    parser.add_argument("--out", required=True)
    add_rank_arguments(parser, required=False)  # of no use: Lightning reads the environment
    given = parser.parse_args()
    ends_after(MOST_SECONDS)
    warnings.simplefilter("ignore")
    out = Path(given.out)
    own = partial(train_loader, given.shards)
    found, trainer = resumed(given, out / "own", own, "")
    found["who"] = who_loaded(trainer.train_dataloader)
    found |= resumed(given, out / "torch", torch_loader, "torch's ")[0]
    if trainer.world_size > 1:
        # torch's DistributedSampler splits the samples instead of World.
        sampled = lambda: own(DistributedSampler(range(44), seed=4))  # noqa: E731
        found |= resumed(given, out / "sampled", sampled, "sampled ")[0]
    else:
        steps = len(found["whole"]) // EPOCHS
        stopped, stopped_trainer = fit(given, out / "stopped", own(), max_steps=steps + 1)
        stopped_trainer.save_checkpoint(out / "stopped" / "last.ckpt")
        again, _ = fit(given, out / "again", own(), resume=out / "stopped" / "last.ckpt")
        found["stopped by max_steps"] = stopped.trained.steps + again.trained.steps
        in_order, _ = fit(given, out / "overfit", own(shuffle=False), max_epochs=2, overfit_batches=2)
        found["overfit"] = in_order.trained.steps
    write(given.out, trainer.global_rank, found)


def resumed(given, folder: Path, make_loader, name: str) -> tuple[dict, lightning.Trainer]:
    """A whole training, and those that go on from its checkpoints of a step and of an epoch's end."""
    model, trainer = fit(given, folder, make_loader())
    found = {f"{name}whole": model.trained.steps, f"{name}validated": model.validated.steps}
    for place, checkpoint in {
        "from a step": folder / f"step={SAVED_AFTER}.ckpt",
        "from an epoch's end": folder / "ends" / "epoch=0.ckpt",
    }.items():
        again, _ = fit(given, folder / "again", make_loader(), resume=checkpoint)
        found[name + place] = again.trained.steps
    return found, trainer


if __name__ == "__main__":
    main()
