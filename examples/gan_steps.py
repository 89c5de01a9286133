"""The training step of a small GAN: how D and G learn, what D sees, what a checkpoint must hold.

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
GRID_ROWS, GRID_COLUMNS, MOST_COLUMNS = 8, 8, 16  # with classes, a column is a class


class Gan:
    """All that a training changes, apart from its place in the data: `state_dict` holds it."""

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
            with_r1 = self.options.loss == "ns-r1" and step % self.options.r1_interval == 0
            penalty = self.r1_penalty(reals, labels) if with_r1 else 0
            self.controller.report(real_logits)
        descend(self.discriminator_optimizer, loss + penalty)
        self.count_loss(0, loss)  # without its penalty, which not every step has

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
        """D's logits [N] of the images as it is to see them: augmented, in float32."""
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
        # Rarely, and so much more. arXiv 1912.04958 lowers D's learning rate and betas a little, too.
        weight = self.options.gamma / 2 * self.options.r1_interval
        return weight * gradient.square().sum(dim=(1, 2, 3)).mean()

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        keep = min(AVERAGING, step / (step + 10))  # soon rid of the first weights
        means, news = self.average.state_dict().values(), self.generator.state_dict().values()
        for mean, new in zip(means, news, strict=True):  # BatchNorm's running statistics among them
            mean.lerp_(new, 1 - keep) if mean.is_floating_point() else mean.copy_(new)

    @torch.no_grad()
    def samples(self) -> tuple[torch.Tensor, int]:
        """Images of the averaged generator, of the same z at any time, and the columns to show them in.

        BatchNorm takes the statistics of these images, in a copy, so that looking changes nothing: the
        running ones say little in the first epochs, and all images would be gray."""
        columns = min(self.classes or GRID_COLUMNS, MOST_COLUMNS)
        n = GRID_ROWS * columns
        z = torch.randn(n, Z_SIZE, generator=torch.Generator().manual_seed(self.options.seed)).to(self.device)
        return copy.deepcopy(self.average).train()(z, (torch.arange(n) % columns).to(self.device)), columns

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.amp)

    @torch.no_grad()
    def count_loss(self, row: int, loss: torch.Tensor) -> None:
        """On the device: reading a loss at every step would wait for the GPU at every step."""
        self.losses[row] += torch.stack([loss.detach(), torch.ones_like(loss)])

    def numbers(self) -> dict:
        """Mean losses since the last call, r_t and p; None for what this training has not."""
        (d_sum, d_count), (g_sum, g_count) = self.losses.tolist()
        broken = [loss for loss in (d_sum, g_sum) if not math.isfinite(loss)]
        if broken:
            raise SystemExit(f"train_gan.py: a loss is {broken[0]}: try a lower --lr.")
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
    """T, and the controller, which measures r_t in any case and steers p where T is adaptive."""
    pipe, target, augment = fl.augment.AdaPipe(), None, torch.nn.Identity()  # this pipe changes nothing
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
