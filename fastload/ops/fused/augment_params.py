"""What is to be done to each image of a batch, as numbers: the parameters of `fused_augment`.

In: tensors that a user fills, or the rows that `draw_params` drew. Out: rows, [N, 32] float32, as the kernels
read them. Promised: a stage that is None is absent, and costs nothing; the columns below are the only place
that says where a number lies (csrc/ops/augment.h repeats them, and a test compares).
"""

from dataclasses import dataclass
from enum import IntFlag
from typing import Any

from fastload.errors import ConfigError
from fastload.normalize import Normalization
from fastload.ops.params import TensorParams, filled_rows, stages_of

COLUMNS = 32  # floats in a row: 128 bytes, a cache line of the GPU
G_INV, C, JITTER, ORDER, HSV, CUT_SIZE, CUT_CENTER = 0, 6, 18, 22, 26, 28, 29  # first column of each
STEPS = "bcsh"  # the steps of ColorJitter: 0 brightness, 1 contrast, 2 saturation, 3 hue
GRAY = (0.2989, 0.587, 0.114)  # torchvision's weights; they sum to 0.9999
IDENTITY = Normalization(255.0, (0.0,) * 3, (1.0,) * 3)


class Stage(IntFlag):
    """Which stages a batch has; in the order in which they are applied."""

    WARP = 1
    JITTER = 2
    MEAN = 4  # the jitter has a contrast, which needs the mean of the gray image
    COLOR = 8
    HSV = 16
    CUTOUT = 32


# Of a row, what holds each tensor: of the matrices all but the last row.
COLUMNS_OF = {
    "G_inv": slice(G_INV, G_INV + 6), "jitter": slice(JITTER, JITTER + 4), "order": slice(ORDER, ORDER + 4),
    "C": slice(C, C + 12), "hsv": slice(HSV, HSV + 2), "cut_size": slice(CUT_SIZE, CUT_SIZE + 1),
    "cut_center": slice(CUT_CENTER, CUT_CENTER + 2),
}  # fmt: skip
# A jitter that a user gave counts as one that needs the mean.
STAGE_OF = {
    "G_inv": Stage.WARP, "jitter": Stage.JITTER | Stage.MEAN, "C": Stage.COLOR, "hsv": Stage.HSV,
    "cut_size": Stage.CUTOUT,
}  # fmt: skip
SHAPES = {
    "G_inv": (3, 3), "jitter": (4,), "order": (4,), "C": (4, 4), "hsv": (2,), "cut_size": (),
    "cut_center": (2,),
}  # fmt: skip


@dataclass(frozen=True)
class AugmentParams(TensorParams):
    """Parameters of N images, float tensors on one device; None: the stage is absent.

    G_inv: [N, 3, 3], maps a pixel of the output to the point of the input that it shows; both are (x, y, 1)
        in centred pixel coordinates: x = column - (W - 1) / 2, y = row - (H - 1) / 2. Affine: the last row is
        (0, 0, 1) and is not read.
    jitter: [N, 4], ColorJitter's factors of brightness, contrast, saturation (1 changes nothing) and its hue
        shift in turns (0 changes nothing).
    order: [N, 4], which step comes first, second, third, fourth: a permutation of 0 brightness, 1 contrast,
        2 saturation, 3 hue. None: as numbered.
    C: [N, 4, 4], applied to (red, green, blue, 1) in [0, 1], then clamped there; the last row is not read.
    hsv: [N, 2], a hue shift in turns, then a factor of HSV's saturation.
    cut_size: [N], the side of a square that is cut out, as a share of either side of the image; 0: nothing.
    cut_center: [N, 2], its centre (x, y) as shares of width and height.
    """

    G_inv: Any = None
    jitter: Any = None
    order: Any = None
    C: Any = None
    hsv: Any = None
    cut_size: Any = None
    cut_center: Any = None

    @classmethod
    def from_rows(cls, rows: Any, stages: int) -> "AugmentParams":
        """The parameters in rows [N, 32]; `stages` tells which of them mean anything."""
        import torch

        n, stages = rows.shape[0], Stage(stages)
        given: dict[str, Any] = {}
        if Stage.WARP in stages:
            last = rows.new_tensor([0.0, 0.0, 1.0]).expand(n, 1, 3)
            given["G_inv"] = torch.cat([rows[:, G_INV : G_INV + 6].reshape(n, 2, 3), last], 1)
        if Stage.JITTER in stages:
            given["jitter"] = rows[:, JITTER : JITTER + 4]
            given["order"] = rows[:, ORDER : ORDER + 4].to(torch.int64)
        if Stage.COLOR in stages:
            last = rows.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(n, 1, 4)
            given["C"] = torch.cat([rows[:, C : C + 12].reshape(n, 3, 4), last], 1)
        if Stage.HSV in stages:
            given["hsv"] = rows[:, HSV : HSV + 2]
        if Stage.CUTOUT in stages:
            given["cut_size"] = rows[:, CUT_SIZE]
            given["cut_center"] = rows[:, CUT_CENTER : CUT_CENTER + 2]
        return cls(**given)

    @property
    def stages(self) -> Stage:
        """The stages that are there."""
        return Stage(stages_of(self, STAGE_OF))

    def rows(self, n: int, device: Any) -> Any:
        """[n, 32] float32 on `device`, as the kernels read them."""
        import torch

        rows = torch.zeros(n, COLUMNS, dtype=torch.float32, device=device)
        if self.jitter is not None:
            rows[:, COLUMNS_OF["order"]] = torch.arange(4, dtype=rows.dtype, device=device)
        return filled_rows(self, COLUMNS_OF, rows)

    def check(self, n: int) -> None:
        """Raises ConfigError unless every tensor has the shape above for n images and is on one device.

        On the CPU also for numbers that are not finite, and for an order that is not a permutation; on a GPU
        that would mean waiting for it.
        """
        import torch

        tensors = [value for value in self.given().values() if isinstance(value, torch.Tensor)]
        device = tensors[0].device if tensors else torch.device("cpu")
        self.check_tensors(SHAPES, n, device, finite=True, typed=False)
        if (self.cut_size is None) != (self.cut_center is None):
            raise ConfigError("AugmentParams: give cut_size and cut_center together.")
        if self.order is not None and self.jitter is None:
            raise ConfigError("AugmentParams.order has no meaning without jitter.")
        if self.order is not None and device.type == "cpu":
            steps = torch.arange(4, dtype=self.order.dtype)
            if not (self.order.sort(1).values == steps).all():
                raise ConfigError("AugmentParams.order: each row must be a permutation of 0, 1, 2, 3.")
