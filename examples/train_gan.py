"""Trains a small GAN: DCGAN's networks, three losses, adaptive augmentation or DiffAugment, from any fastload source.

    python examples/train_gan.py --out runs/demo --loss ns-r1 --augment ada
    python examples/train_gan.py faces/ --out runs/faces --epochs 300 --batch-size 128

Without a source it trains on the pictures that `fastload demo` draws, for some minutes on a CPU. It leaves in --out:
samples-EPOCH.png (always of the same z), log.jsonl, plot.png (losses, r_t and p) and checkpoint.pt, from which the
same command goes on, to the same numbers as if it had never stopped. One process, one device: DDP is left out.

bce and ns-r1 are the same loss, softplus(-D(real)) + softplus(D(fake)), without and with R1's penalty (arXiv
1801.04406) in place of BatchNorm in D; wgan-gp is arXiv 1704.00028. D sees real and generated images through the same
augmentation T, and so do the penalties: their gradients are those of D(T(x)) with respect to x.
"""

import argparse
import copy
import os
from pathlib import Path

import torch
from gan_networks import Z_SIZE, Discriminator, Generator
from gan_report import Log, save_grid, save_plot
from torch.nn.functional import softplus

import fastload as fl
from fastload.augment.ada import AdaPipe
from fastload.augment.ada_controller import AdaController

PENALTY = 10.0  # wgan-gp's weight
R1_INTERVAL = 16  # steps from one penalty to the next, which counts so many times as much (arXiv 1912.04958)
AVERAGING = 0.999  # of the generator's weights, for the samples
GRID_ROWS, GRID_COLUMNS, MOST_COLUMNS = 8, 8, 16  # with classes, a column is a class

# What a resumed training may be given anew; anything else would be another training.
FREE = {"source", "out", "resume", "epochs", "steps", "log_every", "save_every", "device", "decode"}
FREE |= {"ada_target", "ada_kimg", "p"}


class Gan:
    """All that a training changes, apart from its place in the data: `state_dict` holds it."""

    def __init__(self, options: argparse.Namespace, classes: int, device: torch.device):
        self.options, self.classes, self.device = options, classes, device
        torch.manual_seed(options.seed)
        shape = options.size, options.width, classes
        self.generator = Generator(*shape).to(device)
        self.discriminator = Discriminator(*shape, batch_norm=options.loss == "bce").to(device)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        betas = tuple(options.betas)
        self.generator_optimizer = torch.optim.Adam(self.generator.parameters(), options.lr, betas)
        self.discriminator_optimizer = torch.optim.Adam(self.discriminator.parameters(), options.lr, betas)
        self.augment, self.controller = augmentation(options, device)
        self.losses = torch.zeros(
            2, 2, device=device
        )  # of D and of G since the last line of the log: sum, count

    def train_step(self, reals: torch.Tensor, labels: torch.Tensor | None, step: int) -> None:
        """One batch: D learns from it, at every n_critic-th step G too; then p may change."""
        self.train_discriminator(reals, labels, step)
        if step % self.options.n_critic == 0:
            self.train_generator(len(reals), labels)
            self.update_average(step)
        self.controller.step()

    def train_discriminator(self, reals: torch.Tensor, labels: torch.Tensor | None, step: int) -> None:
        with torch.no_grad():
            fakes = self.generate(len(reals), labels)
        real_logits, fake_logits = self.judge(reals, labels), self.judge(fakes, labels)
        if self.options.loss == "wgan-gp":
            loss = fake_logits.mean() - real_logits.mean()
            penalty = self.gradient_penalty(reals, fakes, labels)
        else:
            loss = softplus(-real_logits).mean() + softplus(fake_logits).mean()
            with_r1 = self.options.loss == "ns-r1" and step % R1_INTERVAL == 0
            penalty = self.r1_penalty(reals, labels) if with_r1 else 0
            self.controller.report(real_logits)
        descend(self.discriminator_optimizer, loss + penalty)
        self.count_loss(0, loss)

    def train_generator(self, n: int, labels: torch.Tensor | None) -> None:
        self.discriminator.requires_grad_(False)
        logits = self.judge(self.generate(n, labels), labels)
        loss = -logits.mean() if self.options.loss == "wgan-gp" else softplus(-logits).mean()
        descend(self.generator_optimizer, loss)
        self.discriminator.requires_grad_(True)
        self.count_loss(1, loss)

    def generate(self, n: int, labels: torch.Tensor | None) -> torch.Tensor:
        """Images [n, 3, size, size] float32 of new z."""
        z = torch.randn(n, Z_SIZE, device=self.device)
        with self.autocast():
            return self.generator(z, labels).float()

    def judge(self, images: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        """D's logits [N] of the images as it is to see them: augmented, in float32, real and generated alike."""
        seen = self.augment(images)
        with self.autocast():
            return self.discriminator(seen, labels).float()

    def gradient_penalty(self, reals, fakes, labels) -> torch.Tensor:
        """WGAN-GP's, between real and generated images before the augmentation."""
        images = torch.lerp(
            reals, fakes, torch.rand(len(reals), 1, 1, 1, device=self.device)
        ).requires_grad_()
        (gradient,) = torch.autograd.grad(self.judge(images, labels).sum(), images, create_graph=True)
        return PENALTY * (gradient.flatten(1).norm(dim=1) - 1).square().mean()

    def r1_penalty(self, reals, labels) -> torch.Tensor:
        """R1's, at real images before the augmentation; D's answers are reported here, too."""
        images = reals.detach().requires_grad_()
        logits = self.judge(images, labels)
        self.controller.report(logits)
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        return R1_INTERVAL * self.options.gamma / 2 * gradient.square().sum(dim=(1, 2, 3)).mean()

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        keep = min(AVERAGING, step / (step + 10))  # soon rid of the first weights
        for mean, new in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            mean.lerp_(new, 1 - keep)

    @torch.no_grad()
    def samples(self) -> tuple[torch.Tensor, int]:
        """Images of the averaged generator, of the same z and labels at any time, and the columns to show them in.

        They are normalized by their own batch: running statistics would be those of other weights."""
        columns = min(self.classes or GRID_COLUMNS, MOST_COLUMNS)
        n = GRID_ROWS * columns
        z = torch.randn(n, Z_SIZE, generator=torch.Generator().manual_seed(self.options.seed)).to(self.device)
        return self.average(z, (torch.arange(n) % columns).to(self.device)), columns

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.amp)

    @torch.no_grad()
    def count_loss(self, row: int, loss: torch.Tensor) -> None:
        """On the device: reading a loss at every step would wait for the GPU at every step."""
        self.losses[row] += torch.stack([loss.detach(), torch.ones_like(loss)])

    def numbers(self) -> dict:
        """Mean losses since the last call, r_t and p; None for what this training has not."""
        (d_sum, d_count), (g_sum, g_count) = self.losses.tolist()
        if not self.losses.isfinite().all():
            raise SystemExit(f"train_gan.py: a loss is {d_sum or g_sum}: try a lower --lr.")
        self.losses.zero_()
        steered = self.controller.stats()
        return {
            "loss_d": d_sum / d_count if d_count else None,
            "loss_g": g_sum / g_count if g_count else None,
            "r_t": None if self.options.loss == "wgan-gp" else steered["r_t"],
            "p": steered["p"] if self.options.augment == "ada" else None,
        }

    def parts(self) -> dict:
        names = ("generator", "discriminator", "average", "generator_optimizer", "discriminator_optimizer")
        return {name: getattr(self, name) for name in (*names, "augment", "controller")}

    def state_dict(self) -> dict:
        rng = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.device)
        return {name: part.state_dict() for name, part in self.parts().items()} | {
            "losses": self.losses,
            "rng": rng,
        }

    def load_state_dict(self, state: dict) -> None:
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
        self.losses.copy_(state["losses"])
        torch.set_rng_state(state["rng"]["cpu"])
        if self.device.type == "cuda" and "cuda" in state["rng"]:
            torch.cuda.set_rng_state(state["rng"]["cuda"], self.device)
        if self.options.p is not None:
            self.controller.p.fill_(self.options.p)


def augmentation(options: argparse.Namespace, device: torch.device):
    """T, and the controller, which measures r_t in any case and steers p where T is adaptive."""
    pipe, target = AdaPipe(seed=options.seed), None  # changes nothing: a controller wants a pipe to hold
    if options.augment == "ada":
        pipe = AdaPipe.named(options.pipe, seed=options.seed)
        target = options.ada_target if options.p is None else None
    controller = AdaController(
        pipe, options.batch_size, ada_target=target, ada_kimg=options.ada_kimg, p=options.p or 0.0
    ).to(device)
    if options.augment == "diffaugment":
        return fl.augment.DiffAugment(options.policy, seed=options.seed).to(device), controller
    return (pipe if options.augment == "ada" else torch.nn.Identity()), controller


def descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def train(options: argparse.Namespace) -> None:
    if fl.World.current().world_size > 1:
        raise fl.ConfigError(
            "train_gan.py trains in one process: start it without torchrun, or with one rank."
        )
    device = torch.device(options.device)
    out, source = Path(options.out), options.source or demo_pictures()
    out.mkdir(parents=True, exist_ok=True)
    fields = {"image": fl.Image(size=options.size, crop=options.crop)}
    if options.conditional:
        fields["label"] = fl.Int("cls")
    with fl.Loader(
        source,
        options.batch_size,
        fields,
        augment=fl.Augment(xflip=0.5) if options.mirror else None,
        normalize="gan",
        seed=options.seed,
        epochs=None,
        device=options.device,
        decode=options.decode,
    ) as loader:
        steps_an_epoch = len(loader)
        if not steps_an_epoch:
            raise fl.ConfigError(f"{source}: {loader.dataset.n} samples fill no batch: lower --batch-size.")
        gan = Gan(options, class_count(options, loader), device)
        step, last = restore(options, out, gan, loader), options.steps or options.epochs * steps_an_epoch
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


def demo_pictures() -> str:
    """The sample set of `fastload demo`: drawn once, which takes some 20 s, and kept in the cache."""
    from fastload.prepare.demo_images import sample_set

    return sample_set(
        progress=lambda share, kind: print(f"drawing samples: {share:4.0%}", end="\r", flush=True)
    )


def class_count(options: argparse.Namespace, loader) -> int:
    """0 without classes; else as --classes says, or class folders, or the demo set."""
    if not options.conditional:
        return 0
    if options.classes:
        return options.classes
    if options.source is None:
        from fastload.prepare.demo_images import KINDS

        return len(KINDS)
    if loader.dataset.classes is None:
        raise fl.ConfigError(f"{options.source} does not name its classes: say how many with --classes N.")
    return len(loader.dataset.classes)


def save(path: Path, options: argparse.Namespace, step: int, gan: Gan, loader) -> None:
    """Whole or not at all: whoever kills us while we write leaves the checkpoint of before."""
    state = {"step": step, "options": vars(options), "gan": gan.state_dict(), "loader": loader.state_dict()}
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def restore(options: argparse.Namespace, out: Path, gan: Gan, loader) -> int:
    """Goes to --resume's checkpoint, or --out's where there is one; returns its step."""
    path = Path(options.resume or out / "checkpoint.pt")
    if not options.resume and not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    for name, was in state["options"].items():
        if name not in FREE and was != getattr(options, name):
            option = f"--{name.replace('_', '-')}"
            raise fl.ConfigError(
                f"{path} was made with {option} {was}, not {getattr(options, name)}: give the same, or another --out."
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
    add("source", nargs="?", help="shards, a pattern, a zip or a folder; none: what `fastload demo` draws")
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
        help="channels of the widest feature maps; the smallest have 8 times as many",
    )
    add("--crop", choices=("center", "random"), default="center", help="of images that are no squares")
    add("--mirror", action="store_true", help="flip half of the real images")
    add("--loss", choices=("bce", "wgan-gp", "ns-r1"), default="ns-r1")
    add("--gamma", type=float, default=1.0, help="ns-r1: the penalty's weight")
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
            "wgan-gp's critic is free to add any number to all its answers, so the sign of D(real), which ADA steers p "
            "by, means nothing: fix the strength with --p, or use another loss"
        )
    try:
        train(options)
    except fl.FastloadError as error:
        raise SystemExit(f"train_gan.py: {error}") from error


if __name__ == "__main__":
    main()
