"""The parameters of `diff_augment`: what a user fills, or views of the rows [N, 8] that were drawn."""

from dataclasses import dataclass
from typing import Any, ClassVar

from fastload.errors import ConfigError
from fastload.ops.params import TensorParams

COLUMNS = 8  # floats in a row
# First column of each; SHIFT and CUT are (rows, columns), and hold the bits of int32. The last column is 0.
BRIGHTNESS, SATURATION, CONTRAST, SHIFT, CUT = 0, 1, 2, 3, 5
# The largest translation and the side of the box, as shares of the image's sides.
TRANSLATION_RATIO, CUTOUT_RATIO = 0.125, 0.5
DEFAULT_POLICY = "color,translation,cutout"
FIELDS_OF = {
    "color": ("brightness", "saturation", "contrast"),
    "translation": ("shift",),
    "cutout": ("cut_offset",),
}
COLUMNS_OF = {
    "brightness": BRIGHTNESS, "saturation": SATURATION, "contrast": CONTRAST,
    "shift": slice(SHIFT, SHIFT + 2), "cut_offset": slice(CUT, CUT + 2),
}  # fmt: skip
SHAPES = {"brightness": (), "saturation": (), "contrast": (), "shift": (2,), "cut_offset": (2,)}


@dataclass(frozen=True)
class DiffAugmentParams(TensorParams):
    """Parameters of N images, tensors on one device; None: absent, and of the three colours neutral.

    brightness: [N] floats, added. saturation, contrast: [N] floats, factors.
    shift: [N, 2] int32, how far down and right of a pixel lies what it shows.
    cut_offset: [N, 2] int32, the middle (row, column) of what becomes 0.
    """

    INTEGERS: ClassVar[tuple[str, ...]] = ("shift", "cut_offset")
    brightness: Any = None
    saturation: Any = None
    contrast: Any = None
    shift: Any = None
    cut_offset: Any = None

    @classmethod
    def from_rows(cls, rows: Any, policy: str = DEFAULT_POLICY) -> "DiffAugmentParams":
        """What `policy` needs of rows [N, 8] float32, as views."""
        import torch

        integers = rows.view(torch.int32)
        names = [name for stage in stages_of(policy) for name in FIELDS_OF[stage]]
        views = {name: (integers if name in cls.INTEGERS else rows)[:, COLUMNS_OF[name]] for name in names}
        return cls(**views).keep_rows(rows)

    def rows(self, images: Any) -> Any:
        """[N, 8] float32 as the kernels read them, on the device of the images."""
        import torch

        if self._drawn is not None and self._drawn.device == images.device:
            return self._drawn
        rows = torch.zeros(images.shape[0], COLUMNS, dtype=torch.float32, device=images.device)
        rows[:, SATURATION] = rows[:, CONTRAST] = 1.0
        for name, tensor in self.given().items():
            if name in self.INTEGERS:
                tensor = tensor.contiguous().view(torch.float32)
            rows[:, COLUMNS_OF[name]] = tensor.detach()
        return rows

    def check(self, images: Any, policy: str) -> None:
        """Raises ConfigError unless what the policy needs is there, and every tensor fits the images."""
        for stage in stages_of(policy):
            if all(getattr(self, name) is None for name in FIELDS_OF[stage]):
                raise ConfigError(
                    f"policy={policy!r} has {stage} and DiffAugmentParams no "
                    f"{' or '.join(FIELDS_OF[stage])}: give it, or leave the word out."
                )
        self.check_tensors(SHAPES, images.shape[0], images.device)


def stages_of(policy: str) -> tuple[str, ...]:
    """The stages that a policy names, in its order.

    Raises ConfigError for an unknown stage, and for a stage that is named twice.
    """
    words = tuple(policy.split(",")) if isinstance(policy, str) and policy else ()
    stages = tuple(word.strip() for word in words)
    if not isinstance(policy, str) or any(stage not in FIELDS_OF for stage in stages):
        raise ConfigError(f"policy={policy!r}: give {DEFAULT_POLICY!r}, or some of these words in any order.")
    if len(set(stages)) < len(stages):
        raise ConfigError(f"policy={policy!r}: name each stage once.")
    return stages


def check_ratio(name: str, ratio: float) -> None:
    """Raises ConfigError unless `ratio` is a share."""
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0.0 <= ratio <= 1.0:
        raise ConfigError(f"{name} must be a share of the image's sides in [0, 1], got {ratio!r}.")


def pixels_of(side: int, ratio: float) -> int:
    """A share of a side in whole pixels."""
    return int(side * ratio + 0.5)
