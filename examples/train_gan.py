"""Trains a small GAN: DCGAN's networks, three losses, ADA or DiffAugment, any source that fastload reads.

    python examples/train_gan.py --out runs/demo --ada-kimg 20
    python examples/train_gan.py faces/ --out runs/faces --loss bce --augment diffaugment --epochs 300

Without a source it trains on the sample set of `fastload demo`, for some five minutes on two cores (in so
short a time p must be let rise fast). It leaves in --out: samples-EPOCH.png (always of the same
z), log.jsonl, plot.png (losses, r_t and p) and checkpoint.pt, from which the same command goes on, to the
same numbers as if it had never stopped. This file is the data, the loop and the checkpoint; gan_steps.py
is what happens in a step. One process, one device: DDP is left out.
"""

import argparse
import os
from pathlib import Path

import torch
from gan_report import Log, save_grid, save_plot
from gan_steps import Gan

import fastload as fl
from fastload.prepare.common.demo_set import CLASSES, demo_set

# What a resumed training may be given anew; anything else would be another training.
FREE = {"source", "out", "resume", "epochs", "steps", "log_every", "save_every", "device", "decode"}
FREE |= {"ada_target", "ada_kimg", "p"}


def train(options: argparse.Namespace) -> None:
    """Trains to the last step, from the first or from a checkpoint's."""
    if fl.World.current().world_size > 1:
        raise fl.ConfigError("this example trains in one process: start it without torchrun.")
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    with open_loader(options) as loader:
        steps_an_epoch = len(loader)
        gan = Gan(options, class_count(options, loader), torch.device(options.device))
        step, last = restore(options, gan, loader), options.steps or options.epochs * steps_an_epoch
        log = Log(out / "log.jsonl", step)
        batches = iter(loader)
        while step < last:
            batch, step = next(batches), step + 1
            gan.train_step(batch["image"], batch.get("label"), step)
            if step % options.log_every == 0 or step == last:
                waited_seconds = loader.stats()["stages"]["training"]["waiting_seconds"]
                log.write(step, options.batch_size, gan.numbers(), waited_seconds)
            if step % (options.save_every * steps_an_epoch) == 0 or step == last:
                save_grid(*gan.samples(), out / f"samples-{-(-step // steps_an_epoch):05d}.png")
                save_plot(log.rows, panels(options), out / "plot.png")
                save(out / "checkpoint.pt", options, step, gan, loader)


def open_loader(options: argparse.Namespace) -> fl.Loader:
    """Endless batches of real images in [-1, 1], with their classes where these are asked for."""
    fields = {"image": fl.Image(size=options.size, crop=options.crop)}
    if options.conditional:
        fields["label"] = fl.Int("cls")
    return fl.Loader(
        options.source or demo_set(),
        options.batch_size,
        fields,
        augment=fl.Augment(xflip=0.5) if options.mirror else None,
        normalize="gan",
        seed=options.seed,
        epochs=None,
        device=options.device,
        decode=options.decode,
    )


def class_count(options: argparse.Namespace, loader: fl.Loader) -> int:
    """0 without classes; else as --classes says, or class folders, or the demo set."""
    if not options.conditional:
        return 0
    if options.classes:
        return options.classes
    if options.source is None:
        return len(CLASSES)
    if loader.dataset.classes is None:
        raise fl.ConfigError(f"{options.source} does not name its classes: say how many with --classes N.")
    return len(loader.dataset.classes)


def save(path: Path, options: argparse.Namespace, step: int, gan: Gan, loader: fl.Loader) -> None:
    """Whole or not at all: whoever kills us while we write leaves the checkpoint of before."""
    state = {"step": step, "options": vars(options), "gan": gan.state_dict(), "loader": loader.state_dict()}
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def restore(options: argparse.Namespace, gan: Gan, loader: fl.Loader) -> int:
    """Goes to --resume's checkpoint, or --out's where there is one; returns its step."""
    path = Path(options.resume or Path(options.out, "checkpoint.pt"))
    if not options.resume and not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    for name, was in state["options"].items():
        if name not in FREE and was != getattr(options, name):
            option = f"--{name.replace('_', '-')}"
            raise fl.ConfigError(
                f"{path} was made with {option} {was}, not {getattr(options, name)}: give the same, "
                "or another --out."
            )
    gan.load_state_dict(state["gan"])
    loader.load_state_dict(state["loader"])
    print(f"going on from {path}, step {state['step']}")
    return state["step"]


def panels(options: argparse.Namespace) -> dict:
    """What the plot shows."""
    shown = {"losses": {"lines": ("loss_d", "loss_g")}}
    if options.loss != "wgan-gp":
        target = options.ada_target if options.augment == "ada" and options.p is None else None
        shown["r_t, the mean sign of D(real)"] = {"lines": ("r_t",), "low": -1, "high": 1, "dashed": target}
    if options.augment == "ada":
        shown["p"] = {"lines": ("p",), "low": 0}
    return shown


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add(
        "source",
        nargs="?",
        help="shards, a pattern, a zip or a folder (default: `fastload demo`'s samples)",
    )
    add("--out", required=True, metavar="DIR", help="for samples, log, plot and checkpoint")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=positive, default=100, help="passes over the data")
    length.add_argument("--steps", type=positive, help="batches, in place of epochs")
    add("--batch-size", type=positive, default=64)
    add("--size", type=int, default=64, choices=(16, 32, 64, 128, 256), help="side of the images in pixels")
    add(
        "--width",
        type=positive,
        default=64,
        help="channels of the largest feature maps; the smallest have 8 times as many",
    )
    add("--crop", choices=("center", "random"), default="center", help="of images that are no squares")
    add("--mirror", action="store_true", help="flip half of the real images")
    add("--loss", choices=("bce", "wgan-gp", "ns-r1"), default="ns-r1")
    add(
        "--gamma",
        type=float,
        default=1.0,
        help="ns-r1: the penalty's weight; StyleGAN2-ADA takes 0.0002 * size^2 / batch size",
    )
    add("--r1-interval", type=positive, default=16, help="ns-r1: steps from one penalty to the next")
    add("--n-critic", type=positive, default=1, help="steps of D for one of G; wgan-gp was published with 5")
    add("--augment", choices=("none", "ada", "diffaugment"), default="ada", help="what D sees images through")
    add("--pipe", default="bgc", help="ada: one of AdaPipe's names")
    add("--ada-target", type=float, default=0.6, help="ada: the r_t that p is steered to")
    add("--ada-kimg", type=float, default=500, help="ada: thousands of images in which p can rise by 1")
    add("--p", type=float, help="ada: a fixed strength, nothing is steered")
    add("--policy", default="color,translation,cutout", help="diffaugment: its steps")
    add("--conditional", action="store_true", help='train with classes, 0 to N - 1, from fl.Int("cls")')
    add(
        "--classes",
        type=positive,
        metavar="N",
        help="how many; for sources that do not tell, as class folders do",
    )
    add("--lr", type=float, default=2e-4, help="Adam's, of G and D")
    add("--betas", type=float, nargs=2, default=(0.5, 0.999), help="Adam's")
    add(
        "--amp", action="store_true", help="networks in bfloat16; augmentation, losses and weights in float32"
    )
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--decode", default="auto", help="see fl.Loader; on a GPU without DALI: native")
    add("--seed", type=int, default=0)
    add("--log-every", type=positive, default=20, help="steps from one line of the log to the next")
    add(
        "--save-every",
        type=positive,
        default=1,
        help="epochs from one checkpoint, plot and sample grid to the next",
    )
    add("--resume", metavar="CHECKPOINT", help="where to go on from, if not from --out's")
    return parser


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def main(arguments: list[str] | None = None) -> None:
    parser = command_line()
    options = parser.parse_args(arguments)
    options.betas = tuple(options.betas)
    if options.augment != "ada" and options.p is not None:
        parser.error("--p is the strength of --augment ada")
    if options.classes and not options.conditional:
        parser.error("--classes goes with --conditional")
    if options.loss == "wgan-gp" and options.augment == "ada" and options.p is None:
        parser.error(
            "wgan-gp's critic is free to add any number to all its answers, so the sign of D(real), by which "
            "ADA steers p, means nothing: fix the strength with --p, or use another loss"
        )
    try:
        train(options)
    except fl.FastloadError as error:
        raise SystemExit(f"train_gan.py: {error}") from error


if __name__ == "__main__":
    main()
