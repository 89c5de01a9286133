"""The batches and the parameters that the kernels of adaptive augmentation are timed with.

In: a context, which says whether there is a GPU. Out: images and gradients of noise in float32, and drawn
parameters, all on its device; small ones where kernels are interpreted.
"""

from typing import Any, NamedTuple

from benchmarks.gpu.ada_twins import noise
from benchmarks.gpu.cases import Context

SHAPE, TINY = (64, 3, 256, 256), (1, 3, 4, 4)
JUDGED = 0.6  # the p that targets are for, and that kernels and tiles are timed at
ROTATED = 5  # batches of images and as many gradients, in turn: 500 MB, ten times the L2 cache of an H200


class Batches(NamedTuple):
    """Images and gradients [n, 3, side, side], some of each."""

    images: list
    weights: list

    def of(self, launch: int) -> tuple:
        return self.images[launch % len(self.images)], self.weights[launch % len(self.weights)]

    @property
    def bytes(self) -> int:
        """I: of one batch."""
        return self.images[0].numel() * 4


def batches_of(context: Context) -> Batches:
    """The same for all cases of a part."""
    shape, count = context.of(SHAPE, TINY), context.of(ROTATED, 1)
    seeds = range(context.seed, context.seed + 2 * count)
    made = context.once("ada batches", lambda: [noise(shape, seed, context.device) for seed in seeds])
    return Batches(made[:count], made[count:])


def drawn(context: Context, p: float, pipe: str = "bgc") -> Any:
    """Parameters of the batch, on the device."""
    from fastload.augment.ada import AdaPipe

    made = AdaPipe.named(pipe, p, seed=context.seed + 1, rank=0, impl="reference")
    return made.draw(*context.of(SHAPE, TINY)).to(context.device)
