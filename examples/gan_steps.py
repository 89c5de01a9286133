"""The training step of a small GAN: how D and G are updated, what D sees, what a checkpoint holds.

bce and ns-r1 are the same loss, softplus(-D(real)) + softplus(D(fake)), that is cross entropy with the
labels 1 and 0: without R1's penalty (arXiv 1801.04406) and with it. wgan-gp is arXiv 1704.00028. D sees
real and generated images through the same augmentation T, and so do the penalties: their gradients are
those of D(T(x)) with respect to x.
"""

import argparse
import copy
import math

import torch
from gan_networks import Z_SIZE, Discriminator, Generator
from torch.nn.functional import softplus

import fastload as fl

PENALTY = 10.0  # wgan-gp's weight
AVERAGING = 0.999  # of the generator's weights, for the samples
GRID_ROWS, GRID_COLUMNS, MAX_COLUMNS = 8, 8, 16  # with classes, each column is a class


class Gan:
    """The state of a training run, except for its position in the data; `state_dict` holds all of it."""

    def __init__(self, options: argparse.Namespace, classes: int, device: torch.device):
        self.options, self.classes, self.device = options, classes, device
        torch.manual_seed(options.seed)
        shape = options.size, options.width, classes
        self.generator = Generator(*shape).to(device)
        self.discriminator = Discriminator(*shape, batch_norm=options.loss == "bce").to(device)
        self.average = copy.deepcopy(self.generator).requires_grad_(False).eval()
        betas = tuple(options.betas)
        self.generator_optimizer = torch.optim.Adam(self.generator.parameters(), options.lr, betas)
        self.discriminator_optimizer = torch.optim.Adam(self.discriminator.parameters(), options.lr, betas)
        self.augment, self.controller = augmentation(options, device)
        self.losses = torch.zeros(2, 2, device=device)  # of D and G since the last log line: sum, count

    def train_step(self, reals: torch.Tensor, labels: torch.Tensor | None, step: int) -> None:
        """Updates D with a batch, and G at every n_critic-th step; then p may change."""
        self.train_discriminator(reals, labels, step)
        if step % self.options.n_critic == 0:
            self.train_generator(len(reals), labels)
            self.update_average(step)
        self.controller.step()

    def train_discriminator(self, reals: torch.Tensor, labels: torch.Tensor | None, step: int) -> None:
        with torch.no_grad():
            fakes = self.generate(len(reals), labels)
        real_logits, fake_logits = self.score(reals, labels), self.score(fakes, labels)
        if self.options.loss == "wgan-gp":
            loss = fake_logits.mean() - real_logits.mean()
            penalty = self.gradient_penalty(reals, fakes, labels)
        else:
            loss = softplus(-real_logits).mean() + softplus(fake_logits).mean()
            with_r1 = self.options.loss == "ns-r1" and step % self.options.r1_interval == 0
            penalty = self.r1_penalty(reals, labels) if with_r1 else 0
            self.controller.report(real_logits)
        descend(self.discriminator_optimizer, loss + penalty)
        self.count_loss(0, loss)  # without the penalty, which only some steps have

    def train_generator(self, n: int, labels: torch.Tensor | None) -> None:
        self.discriminator.requires_grad_(False)
        logits = self.score(self.generate(n, labels), labels)
        loss = -logits.mean() if self.options.loss == "wgan-gp" else softplus(-logits).mean()
        descend(self.generator_optimizer, loss)
        self.discriminator.requires_grad_(True)
        self.count_loss(1, loss)

    def generate(self, n: int, labels: torch.Tensor | None) -> torch.Tensor:
        """Images [n, 3, size, size] float32 of new z."""
        z = torch.randn(n, Z_SIZE, device=self.device)
        with self.autocast():
            return self.generator(z, labels).float()

    def score(self, images: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        """D's logits [N] of the images after the augmentation, in float32."""
        augmented = self.augment(images)
        with self.autocast():
            return self.discriminator(augmented, labels).float()

    def gradient_penalty(self, reals, fakes, labels) -> torch.Tensor:
        """WGAN-GP's penalty, between real and generated images before the augmentation."""
        images = torch.lerp(
            reals, fakes, torch.rand(len(reals), 1, 1, 1, device=self.device)
        ).requires_grad_()
        (gradient,) = torch.autograd.grad(self.score(images, labels).sum(), images, create_graph=True)
        return PENALTY * (gradient.flatten(1).norm(dim=1) - 1).square().mean()

    def r1_penalty(self, reals, labels) -> torch.Tensor:
        """R1's penalty, at real images before the augmentation; D's logits are reported here as well."""
        images = reals.detach().requires_grad_()
        logits = self.score(images, labels)
        self.controller.report(logits)
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        # Lazy regularization: rare and weighted up. arXiv 1912.04958 also lowers D's learning rate and betas.
        weight = self.options.gamma / 2 * self.options.r1_interval
        return weight * gradient.square().sum(dim=(1, 2, 3)).mean()

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        keep = min(AVERAGING, step / (step + 10))  # the initial weights fade quickly
        averages, weights = self.average.state_dict().values(), self.generator.state_dict().values()
        for average, weight in zip(averages, weights, strict=True):  # with BatchNorm's running statistics
            average.lerp_(weight, 1 - keep) if average.is_floating_point() else average.copy_(weight)

    @torch.no_grad()
    def samples(self) -> tuple[torch.Tensor, int]:
        """Images of the averaged generator, always of the same z, and the number of columns of their grid.

        A copy in training mode makes them, with the statistics of these images in BatchNorm: in the first
        epochs the running statistics are still so far off that all images would be gray."""
        columns = min(self.classes or GRID_COLUMNS, MAX_COLUMNS)
        n = GRID_ROWS * columns
        z = torch.randn(n, Z_SIZE, generator=torch.Generator().manual_seed(self.options.seed)).to(self.device)
        return copy.deepcopy(self.average).train()(z, (torch.arange(n) % columns).to(self.device)), columns

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.amp)

    @torch.no_grad()
    def count_loss(self, row: int, loss: torch.Tensor) -> None:
        """Sums on the device: reading the loss at every step would wait for the GPU at every step."""
        self.losses[row] += torch.stack([loss.detach(), torch.ones_like(loss)])

    def numbers(self) -> dict:
        """Mean losses since the last call, r_t and p; None for those that this training run does not have."""
        (d_sum, d_count), (g_sum, g_count) = self.losses.tolist()
        diverged = [loss for loss in (d_sum, g_sum) if not math.isfinite(loss)]
        if diverged:
            raise SystemExit(f"train_gan.py: a loss is {diverged[0]}: try a lower --lr.")
        self.losses.zero_()
        adaptive = self.controller.stats()
        return {
            "loss_d": d_sum / d_count if d_count else None,
            "loss_g": g_sum / g_count if g_count else None,
            "r_t": None if self.options.loss == "wgan-gp" else adaptive["r_t"],
            "p": adaptive["p"] if self.options.augment == "ada" else None,
        }

    def parts(self) -> dict:
        names = ("generator", "discriminator", "average", "generator_optimizer", "discriminator_optimizer")
        return {name: getattr(self, name) for name in (*names, "augment", "controller")}

    def state_dict(self) -> dict:
        rng = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.device)
        state = {name: part.state_dict() for name, part in self.parts().items()}
        return state | {"losses": self.losses, "rng": rng}

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
    """T, and the controller, which always measures r_t and adjusts p where T is adaptive."""
    pipe, target, augment = (
        fl.augment.AdaPipe(),
        None,
        torch.nn.Identity(),
    )  # this pipe leaves images as they are
    if options.augment == "ada":
        augment = pipe = fl.augment.AdaPipe.named(options.pipe, seed=options.seed)
        target = options.ada_target if options.p is None else None
    elif options.augment == "diffaugment":
        augment = fl.augment.DiffAugment(options.policy, seed=options.seed)
    controller = fl.augment.AdaController(
        pipe, options.batch_size, ada_target=target, ada_kimg=options.ada_kimg, p=options.p or 0.0
    )
    return augment.to(device), controller.to(device)


def descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
