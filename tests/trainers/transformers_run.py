"""Trainings with transformers.Trainer, in one process; what each of them saw is written to --out.

python -m tests.trainers.transformers_run --shards DIR --out DIR
"""

import argparse
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import torch

import fastload as fl
from tests.distributed.rank import add_rank_arguments, ends_after
from tests.trainers.seen import BATCH_SIZE, FIELDS, Pictures, Seen, write

EPOCHS = 2
MOST_SECONDS = 100
ACCUMULATED = (1, 2)  # batches in a step
DICE = fl.Augment(xflip=0.5, brightness=0.1)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3 * 8 * 8, 1)
        self.seen, self.validated = Seen(), Seen()

    def forward(self, image, label, **_):
        (self.seen if self.training else self.validated).see(0, {"image": image, "label": label})
        return {"loss": self.layer(image.flatten(1)).square().mean()}


def loaders(shards: str) -> dict[str, Callable]:
    dataset = fl.Dataset(shards, FIELDS, augment=DICE)
    generator = torch.Generator
    return {
        "Loader": lambda: fl.Loader(shards, BATCH_SIZE, FIELDS, augment=DICE),
        "DataLoader, 0 workers": lambda: fl.DataLoader(dataset, BATCH_SIZE, shuffle=True),
        "DataLoader, 2 workers": lambda: fl.DataLoader(
            dataset, BATCH_SIZE, shuffle=True, num_workers=2, prefetch_factor=2, timeout=60, drop_last=True
        ),
        "endless": lambda: fl.Loader(shards, BATCH_SIZE, FIELDS, augment=DICE, epochs=None),
        "torch": lambda: fl.DataLoader(
            Pictures(), BATCH_SIZE, shuffle=True, generator=generator().manual_seed(3)
        ),
    }


def saved_after(steps_per_epoch: int) -> list[int]:
    """Steps after which a training is saved: within an epoch, at its end, and within the next one."""
    return [2, steps_per_epoch, steps_per_epoch + 1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards", required=True)
    parser.add_argument("--out", required=True)
    add_rank_arguments(parser, required=False)  # of no use: there is one process
    given = parser.parse_args()
    ends_after(MOST_SECONDS)
    os.environ["HF_HUB_OFFLINE"] = "1"
    found = {}
    for (name, make), accumulated in itertools.product(loaders(given.shards).items(), ACCUMULATED):
        folder = Path(given.out, name, str(accumulated))
        model, steps = train(folder, make(), accumulated, saves=True)
        here = {"whole": model.seen.steps, "steps": steps, "validated": model.validated.steps, "from": {}}
        # To a generator of torch's nobody tells in which epoch a training goes on.
        for step in saved_after(steps // EPOCHS)[: 1 if name == "torch" else None]:
            again, _ = train(folder, make(), accumulated, resume=folder / f"checkpoint-{step}")
            here["from"][step] = again.seen.steps
        found[f"{name}, {accumulated}"] = here
    write(given.out, 0, found)


def train(
    folder: Path, loader, accumulated: int, saves: bool = False, resume: Path | None = None
) -> tuple[Model, int]:
    """A training, and how many steps there are."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class SavesWhereAsked(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            control.should_save = state.global_step in saved_after(state.max_steps // EPOCHS)

    class OurTrainer(Trainer):
        def get_train_dataloader(self):
            return loader

        def get_eval_dataloader(self, eval_dataset=None):
            return fl.Loader(loader.dataset.source, 4, FIELDS, shuffle=False, last="partial")

    evaluates = saves and isinstance(loader.dataset, fl.Dataset)
    arguments = TrainingArguments(
        str(folder),
        num_train_epochs=EPOCHS,
        gradient_accumulation_steps=accumulated,
        save_strategy="no",
        eval_strategy="epoch" if evaluates else "no",
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
    )
    model = Model()
    trainer = OurTrainer(model, arguments, eval_dataset=loader.dataset if evaluates else None)
    if saves:
        trainer.add_callback(SavesWhereAsked())
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return model, trainer.state.max_steps


if __name__ == "__main__":
    main()
