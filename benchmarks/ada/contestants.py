"""Who is compared in adaptive augmentation, with which images and parameters, and who is right.

A setting is a pipe at a strength p, drawn once by `AdaPipe` with a fixed seed, so that all have the same
parameters; images and the gradient that comes in are noise in [-1, 1], in which every wrong pixel shows.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from benchmarks.ada.op_sequence import op_sequence
from fastload.augment.ada import AdaPipe
from fastload.augment.diff_augment import DiffAugment
from fastload.ops.ada.ada_augment import ada_augment
from fastload.ops.ada.stages.noise import normals_of
from fastload.ops.diff.diff_augment import diff_augment

NATIVE, REFERENCE, PEER, PEER_LAST = "native", "reference", "op sequence", "op sequence, channels_last"
SEED = 1
# Of the largest value. fastload against itself in float64: float32 with sums in another order.
OWN_TOLERANCE = 1e-5
# The peer's grid is float32: its places are off by 1e-4 half pixels at 256 pixels, which white noise turns
# into as much and more; its margin leaves out the outermost taps of the filters.
PEER_TOLERANCE = 3e-4

Change = Callable[[torch.Tensor], torch.Tensor]


class Setting(NamedTuple):
    """A pipe of AdaPipe.named at a strength; or "DiffAugment", which has none."""

    pipe: str
    p: float | None
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.pipe if self.p is None else f"{self.pipe}, p = {self.p:g}"


SETTINGS = (
    *(Setting("bgc", p, (NATIVE, REFERENCE, PEER, PEER_LAST)) for p in (0.1, 0.6, 1.0)),
    Setting("bgcfnc", 0.6, (NATIVE, PEER, PEER_LAST)),
    Setting("DiffAugment", None, (REFERENCE,)),
)


def noise(n: int, side: int, seed: int) -> torch.Tensor:
    """[n, 3, side, side] float32 in [-1, 1)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, side, side, generator=generator) * 2 - 1


def contestants(setting: Setting, n: int, side: int) -> tuple[dict[str, Change], Change]:
    """name -> a function of images [n, 3, side, side]; and the float64 reference, for images of float64.

    The noise of the native kernel is made from its key in the call, the peer's is made before it."""
    if setting.p is None:
        drawn = DiffAugment(seed=SEED, rank=0).draw(n, side, side)
        change = lambda images: diff_augment(images, drawn, impl="reference")  # noqa: E731
        return {REFERENCE: change}, change
    params = AdaPipe.named(setting.pipe, setting.p, seed=SEED, rank=0).draw(n, 3, side, side)
    eps = None if params.noise_key is None else normals_of(params.noise_key, 3, side, side)
    changes = {
        NATIVE: lambda images: ada_augment(images, params, "native"),
        REFERENCE: lambda images: ada_augment(images, params, "reference"),
        PEER: lambda images: op_sequence(images, params, eps),
        PEER_LAST: lambda images: op_sequence(images, params, eps, channels_last=True),
    }
    return {name: changes[name] for name in setting.names}, changes[REFERENCE]


def forward(change: Change, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return change(images)


def forward_backward(change: Change, images: torch.Tensor, weight: torch.Tensor) -> tuple:
    """The result, and the gradient of its product with `weight` with respect to the images."""
    images = images.detach().requires_grad_()
    result = change(images)
    (gradient,) = torch.autograd.grad(result, images, weight)
    return result.detach(), gradient


def check(changes: dict[str, Change], exact: Change, n: int, side: int) -> dict[str, dict[str, float]]:
    """name -> how far result and gradient are from the float64 reference, as shares of the largest value.

    Raises AssertionError where one is too large."""
    images, weight = noise(n, side, 2), noise(n, side, 3)
    expected = forward_backward(exact, images.double(), weight.double())
    off = {}
    for name, change in changes.items():
        tolerance = PEER_TOLERANCE if name in (PEER, PEER_LAST) else OWN_TOLERANCE
        off[name] = {}
        found = forward_backward(change, images, weight)
        for what, one, right in zip(("result", "gradient"), found, expected, strict=True):
            difference = ((one - right).abs().max() / right.abs().max()).item()
            assert difference <= tolerance, (
                f"{name}: the {what} differs from the float64 reference by {difference:.1e} of its largest "
                "value"
            )
            off[name][what] = difference
    return off
