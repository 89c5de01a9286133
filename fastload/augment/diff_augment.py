"""`DiffAugment`: the augmentation of a GAN's discriminator that draws and counts on the device.

In: images [N, C, H, W] floats, real or generated. Out: the same changed by colour, translation and cutout
(`fl.ops.diff_augment` says how), differentiable with respect to the images to any order. Promised: the dice
are a function of (seed, which call this is, row of the image over all ranks); which call this is stands in
the state_dict, so that a training that goes on draws what it would have drawn. Nothing waits for the GPU, and
a call that is captured in a CUDA graph draws anew in each replay.
"""

from typing import Any

import torch

from fastload.errors import ConfigError
from fastload.ops.diff_augment import DEFAULT_POLICY, DiffAugmentParams, diff_augment, stages_of
from fastload.ops.draw_diff_augment import draw_diff_augment
from fastload.rng import check_seed
from fastload.world import World


class DiffAugment(torch.nn.Module):
    """DiffAugment (arXiv 2006.10738) of batches, in training as in evaluation.

    policy: some of "color", "translation", "cutout", in the order in which they are applied; "": nothing.
    seed: 64 bits; discriminators that should see different dice need different ones.
    rank: this process's, where every rank has as many images; None: as found at the first draw.
    impl: as `fl.ops.diff_augment` has it.
    Raises ConfigError for a policy, seed or rank that is none.
    """

    def __init__(
        self, policy: str = DEFAULT_POLICY, *, seed: int = 0, rank: int | None = None, impl: str = "auto"
    ):
        super().__init__()
        stages_of(policy)
        check_seed(seed)
        if rank is not None and (type(rank) is not int or rank < 0):
            raise ConfigError(f"rank={rank!r}: give a number from 0 on, or None.")
        if impl not in ("auto", "reference", "triton"):
            raise ConfigError(f'impl={impl!r}: give "auto", "reference" or "triton".')
        self.policy, self.seed, self.rank, self.impl = policy, int(seed), rank, impl
        self.register_buffer("calls", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("ticket", torch.zeros(1, dtype=torch.int32), persistent=False)

    def forward(self, images: Any) -> Any:
        """The images [N, C, H, W] changed by parameters that are drawn for them: the same shape and dtype."""
        n, _, height, width = images.shape
        return self.apply_params(images, self.draw(n, height, width))

    def draw(self, n: int, height: int, width: int) -> DiffAugmentParams:
        """The parameters of the next n images of height x width pixels: one call more is counted."""
        first_row = self._own_rank() * n
        rows = draw_diff_augment(
            self.calls, self.ticket, n, height, width, seed=self.seed, first_row=first_row, impl=self.impl
        )
        return DiffAugmentParams.from_rows(rows, self.policy)

    def apply_params(self, images: Any, params: DiffAugmentParams) -> Any:
        """The images changed by given parameters, such as `draw` returns."""
        return diff_augment(images, params, self.policy, self.impl)

    def extra_repr(self) -> str:
        return f"policy={self.policy!r}, seed={self.seed}, rank={self.rank}, impl={self.impl!r}"

    def _own_rank(self) -> int:
        if self.rank is not None:
            return self.rank
        rank = _rank_of_this_process()
        if not torch.compiler.is_compiling():  # a changed attribute would mean to compile once more
            self.rank = rank
        return rank


@torch.compiler.assume_constant_result
def _rank_of_this_process() -> int:
    """Read by torch.compile while it compiles, and a constant of what it makes."""
    return World.current().rank
