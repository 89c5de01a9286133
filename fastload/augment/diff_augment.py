"""`DiffAugment`: the augmentation of a GAN's discriminator that draws and counts on the device.

In: images [N, C, H, W] floats, real or generated. Out: the same changed by colour, translation and cutout
(`fl.ops.diff_augment` says how), differentiable with respect to the images to any order. Promised: the draws
are a function of (seed, which call this is, row of the image over all ranks); the number of the call is in
the state_dict, so that a resumed training run draws what it would have drawn. Nothing waits for the GPU, and
a call that is captured in a CUDA graph draws anew in each replay.
"""

from typing import Any

from fastload.augment.device_draws import DeviceDraws
from fastload.ops.diff.diff_augment import diff_augment
from fastload.ops.diff.diff_params import DEFAULT_POLICY, DiffAugmentParams, stages_of
from fastload.ops.diff.draw_diff_augment import draw_diff_augment
from fastload.ops.twins import WITHOUT_NATIVE


class DiffAugment(DeviceDraws):
    """DiffAugment (arXiv 2006.10738) of batches, in training as in evaluation.

    policy: some of "color", "translation", "cutout", in the order in which they are applied; "": nothing.
    seed, rank: see DeviceDraws. impl: as `fl.ops.diff_augment` has it.
    Raises ConfigError for an invalid policy, seed or rank.
    """

    impls = WITHOUT_NATIVE

    def __init__(
        self, policy: str = DEFAULT_POLICY, *, seed: int = 0, rank: int | None = None, impl: str = "auto"
    ):
        super().__init__(seed, rank, impl)
        stages_of(policy)
        self.fix(policy=policy)

    def forward(self, images: Any) -> Any:
        """The images [N, C, H, W] changed by parameters that are drawn for them: the same shape and dtype."""
        self.check(images)
        n, _, height, width = images.shape
        return self.apply_params(images, self.draw(n, height, width))

    def draw(self, n: int, height: int, width: int) -> DiffAugmentParams:
        """The parameters of the next n images of height x width pixels: one call more is counted."""
        _, first_row = self.key(n)
        rows = draw_diff_augment(
            self.calls, self.ticket, n, height, width, seed=self.seed, first_row=first_row, impl=self.impl
        )
        return DiffAugmentParams.from_rows(rows, self.policy)

    def apply_params(self, images: Any, params: DiffAugmentParams) -> Any:
        """The images changed by given parameters, such as `draw` returns."""
        return diff_augment(images, params, self.policy, self.impl)

    def extra_repr(self) -> str:
        return f"policy={self.policy!r}, seed={self.seed}, rank={self.rank}, impl={self.impl!r}"
