"""Trains a small GAN: DCGAN's networks, three losses, ADA or DiffAugment, any source that fastload reads.

    python examples/train_gan.py --out runs/demo --ada-kimg 20
    python examples/train_gan.py faces/ --out runs/faces --loss bce --augment diffaugment --epochs 300

Without a source it trains on the sample set of `fastload demo`, for a few minutes on two cores; so short a
run needs a small --ada-kimg. It writes to --out: samples-EPOCH.png (always of the same z), log.jsonl,
plot.png (losses, r_t and p) and checkpoint.pt, from which the same command resumes with the same numbers as
without the interruption. This file has the data, the loop and the checkpoint; gan_steps.py has the training
step. It uses a single process and device, without DDP.
"""

import argparse
import os
from pathlib import Path

import torch
from gan_report import Log, save_grid, save_plot
from gan_steps import Gan

import fastload as fl
from fastload.prepare.common.demo_set import CLASSES, demo_set

# Options that may change at a resume; with any other change it would be another training run.
MAY_CHANGE = {"source", "out", "resume", "epochs", "steps", "log_every", "save_every", "device", "decode"}
MAY_CHANGE |= {"ada_target", "ada_kimg", "p"}


def train(options: argparse.Namespace) -> None:
    """Trains to the last step, from the first step or from a checkpoint."""
    if fl.World.current().world_size > 1:
        raise fl.ConfigError("this example trains in a single process: start it without torchrun.")
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
    """Endless batches of real images in [-1, 1], with their classes if --conditional."""
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
    """0 without classes; else from --classes, the class folders or the demo set."""
    if not options.conditional:
        return 0
    if options.classes:
        return options.classes
    if options.source is None:
        return len(CLASSES)
    if loader.dataset.classes is None:
        raise fl.ConfigError(
            f"{options.source} has no class folders: give the number of classes with --classes N."
        )
    return len(loader.dataset.classes)


def save(path: Path, options: argparse.Namespace, step: int, gan: Gan, loader: fl.Loader) -> None:
    """Replaces the checkpoint atomically: a process killed while writing leaves the previous one."""
    state = {"step": step, "options": vars(options), "gan": gan.state_dict(), "loader": loader.state_dict()}
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def restore(options: argparse.Namespace, gan: Gan, loader: fl.Loader) -> int:
    """Restores the checkpoint of --resume, or of --out if there is one; returns its step."""
    path = Path(options.resume or Path(options.out, "checkpoint.pt"))
    if not options.resume and not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    for name, saved in state["options"].items():
        if name not in MAY_CHANGE and saved != getattr(options, name):
            option = f"--{name.replace('_', '-')}"
            raise fl.ConfigError(
                f"{path} was saved with {option} {saved}, got {getattr(options, name)}: use the same value, "
                "or another --out."
            )
    gan.load_state_dict(state["gan"])
    loader.load_state_dict(state["loader"])
    print(f"resuming from {path}, step {state['step']}")
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
    add("source", nargs="?", help="shards, a pattern, a zip or a folder (default: `fastload demo`'s samples)")
    add("--out", required=True, metavar="DIR", help="folder for samples, log, plot and checkpoint")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=positive, default=100, help="passes over the data")
    length.add_argument("--steps", type=positive, help="batches, instead of epochs")
    add("--batch-size", type=positive, default=64)
    add("--size", type=int, default=64, choices=(16, 32, 64, 128, 256), help="side of the images in pixels")
    add(
        "--width",
        type=positive,
        default=64,
        help="channels of the largest feature maps; the smallest have 8 times as many",
    )
    add("--crop", choices=("center", "random"), default="center", help="crop of images that are not square")
    add("--mirror", action="store_true", help="flip half of the real images")
    add("--loss", choices=("bce", "wgan-gp", "ns-r1"), default="ns-r1")
    add(
        "--gamma",
        type=float,
        default=1.0,
        help="ns-r1: weight of the penalty; StyleGAN2-ADA uses 0.0002 * size^2 / batch size",
    )
    add("--r1-interval", type=positive, default=16, help="ns-r1: steps between penalties")
    add("--n-critic", type=positive, default=1, help="steps of D per step of G; wgan-gp was published with 5")
    add(
        "--augment", choices=("none", "ada", "diffaugment"), default="ada", help="augmentation of what D sees"
    )
    add("--pipe", default="bgc", help="ada: a name that AdaPipe.named accepts")
    add("--ada-target", type=float, default=0.6, help="ada: the r_t that p is adjusted for")
    add("--ada-kimg", type=float, default=500, help="ada: thousands of images for p to rise by 1")
    add("--p", type=float, help="ada: a fixed strength")
    add("--policy", default="color,translation,cutout", help="diffaugment: its policy")
    add("--conditional", action="store_true", help='train with classes 0 to N - 1 from fl.Int("cls")')
    add("--classes", type=positive, metavar="N", help="number of classes, for sources without class folders")
    add("--lr", type=float, default=2e-4, help="learning rate of Adam, for G and D")
    add("--betas", type=float, nargs=2, default=(0.5, 0.999), help="betas of Adam")
    add(
        "--amp", action="store_true", help="networks in bfloat16; augmentation, losses and weights in float32"
    )
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--decode", default="auto", help="see fl.Loader; on a GPU without DALI: native")
    add("--seed", type=int, default=0)
    add("--log-every", type=positive, default=20, help="steps between lines of the log")
    add("--save-every", type=positive, default=1, help="epochs between checkpoints, plots and sample grids")
    add("--resume", metavar="CHECKPOINT", help="checkpoint to resume from (default: that of --out, if any)")
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
        parser.error("--p needs --augment ada: it is the strength of ADA")
    if options.classes and not options.conditional:
        parser.error("--classes needs --conditional")
    if options.loss == "wgan-gp" and options.augment == "ada" and options.p is None:
        parser.error(
            "ADA adjusts p by the sign of D(real), but wgan-gp's critic may add any constant to its outputs, "
            "so the sign has no meaning: fix the strength with --p, or use another loss"
        )
    try:
        train(options)
    except fl.FastloadError as error:
        raise SystemExit(f"train_gan.py: {error}") from error


if __name__ == "__main__":
    main()
