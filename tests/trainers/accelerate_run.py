"""Trainings with Accelerate, on as many ranks as torchrun gives; what each rank saw is written to --out.

python -m tests.trainers.accelerate_run --shards DIR --out DIR
"""

import argparse
import os
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.utils.data import DistributedSampler

import fastload as fl
from tests.distributed.rank import add_rank_arguments, ends_after
from tests.trainers.seen import ACCELERATE_SAVED_AFTER as SAVED_AFTER
from tests.trainers.seen import Seen, train_loader, who_loaded, write

EPOCHS = 3
MOST_SECONDS = 100


def train(given, folder: Path | None, sampler=None, resume: Path | None = None, from_step: int = 0):
    """A training loop as Accelerate's users write it. folder: where it saves its state, for each of
    SAVED_AFTER and at the end of the first epoch."""
    accelerator = Accelerator(cpu=True)
    model = torch.nn.Linear(3 * 8 * 8, 1)
    given_loader = train_loader(given.shards, sampler)
    model, optimizer, loader = accelerator.prepare(
        model, torch.optim.SGD(model.parameters(), 0.01), given_loader
    )
    assert loader is given_loader and type(loader) is fl.Loader  # not wrapped, not sharded again
    accelerator.register_for_checkpointing(loader)
    if resume is not None:
        accelerator.load_state(resume)
    seen, step = Seen(), from_step
    for epoch in range(from_step // len(loader), EPOCHS):
        loader.set_epoch(epoch)
        for batch in loader:
            seen.see(epoch, batch)
            loss = model(batch["image"].flatten(1)).square().mean()
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            if folder is not None and step in (*SAVED_AFTER, len(loader)):
                accelerator.save_state(folder / f"step-{step}")
    return seen.steps, loader, accelerator


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards", required=True)
    parser.add_argument("--out", required=True)
    add_rank_arguments(parser, required=False)  # of no use: Accelerate reads the environment
    given = parser.parse_args()
    ends_after(MOST_SECONDS)
    out = Path(given.out)
    whole, loader, accelerator = train(given, out / "whole")
    found = {"whole": whole, "who": who_loaded(loader)}
    for step in (*SAVED_AFTER, len(loader)):
        found[f"from step {step}"] = train(given, None, None, out / "whole" / f"step-{step}", step)[0]
    if accelerator.num_processes > 1:
        found["sampled whole"] = train(given, out / "sampled", sampler(accelerator))[0]
        for step in (*SAVED_AFTER, len(loader)):
            resume = out / "sampled" / f"step-{step}"
            found[f"sampled from step {step}"] = train(given, None, sampler(accelerator), resume, step)[0]
    write(given.out, accelerator.process_index, found)
    accelerator.end_training()
    # A thread of torch's gloo may still ask for Python's lock, to let go of DDP's last work, which aborts a
    # process whose Python is ending (ProcessGroupGloo::runLoop): this one ends without.
    sys.stdout.flush()
    os._exit(0)


def sampler(accelerator: Accelerator) -> DistributedSampler:
    return DistributedSampler(range(44), accelerator.num_processes, accelerator.process_index, seed=4)


if __name__ == "__main__":
    main()
