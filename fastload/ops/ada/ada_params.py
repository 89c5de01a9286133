"""What adaptive augmentation does to each image of a batch, as numbers: the parameters of `ada_augment`.

In: tensors that a user fills, or the rows that `draw_ada` drew. Out: rows, [N, 40] floats, as the kernels
read them. Promised: a stage that is None is absent, and costs nothing; the columns below are the only place
that says where a number lies (csrc/ops/ada.h repeats them, and a test compares).
"""

from dataclasses import dataclass
from enum import IntFlag
from typing import Any, ClassVar

from fastload.errors import ConfigError
from fastload.ops.ada.stages.wavelets import BAND_MARGIN
from fastload.ops.params import TensorParams, filled_rows, stages_of

COLUMNS = 40  # floats in a row
# First column of each. Those of NOISE_KEY and MOVES hold the bits of int32.
G_INV, C, GAINS, SIGMA, CUT_SIZE, CUT_CENTER, NOISE_KEY, MOVES = 0, 9, 25, 29, 30, 31, 33, 35


class AdaStage(IntFlag):
    """Which stages a batch has; in the order in which they are applied."""

    WARP = 1
    COLOR = 2
    FILTER = 4
    NOISE = 8
    CUTOUT = 16


# name -> shape of one image's entry, and what holds it of a row
SHAPES = {
    "G_inv": (3, 3), "C": (4, 4), "gains": (4,), "sigma": (), "noise_key": (2,), "cut_size": (),
    "cut_center": (2,),
}  # fmt: skip
MOVE_SHAPES = {"xflip": (), "yflip": (), "rotate_int": (), "translate_int": (2,)}
COLUMNS_OF = {
    "G_inv": slice(G_INV, G_INV + 9), "C": slice(C, C + 16), "gains": slice(GAINS, GAINS + 4),
    "sigma": slice(SIGMA, SIGMA + 1), "noise_key": slice(NOISE_KEY, NOISE_KEY + 2),
    "cut_size": slice(CUT_SIZE, CUT_SIZE + 1), "cut_center": slice(CUT_CENTER, CUT_CENTER + 2),
    "xflip": slice(MOVES, MOVES + 1), "yflip": slice(MOVES + 1, MOVES + 2),
    "rotate_int": slice(MOVES + 2, MOVES + 3), "translate_int": slice(MOVES + 3, MOVES + 5),
}  # fmt: skip
STAGE_OF = {
    "G_inv": int(AdaStage.WARP),
    "C": int(AdaStage.COLOR),
    "gains": int(AdaStage.FILTER),
    "sigma": int(AdaStage.NOISE),
    "cut_size": int(AdaStage.CUTOUT),
}


@dataclass(frozen=True)
class AdaParams(TensorParams):
    """Parameters of N images, tensors on one device, floats but for noise_key; None: the stage is absent.

    G_inv: [N, 3, 3], where in the input a pixel of the output lies (affine_warp.py).
    C: [N, 4, 4], of the colours (color_matrix.py).
    gains: [N, 4], of four octaves (band_filter.py).
    sigma: [N], the strength of the noise (noise.py).
    eps: [N, C, H, W], the noise itself; None where noise_key is given.
    cut_size: [N], the side of what becomes 0, as a share of the image's sides; 0: nothing (cutout.py).
    cut_center: [N, 2], its centre (x, y) as shares of width and height.
    noise_key: [N, 2] int32, the noise is made of.
    """

    INTEGERS: ClassVar[tuple[str, ...]] = ("noise_key",)
    G_inv: Any = None
    C: Any = None
    gains: Any = None
    sigma: Any = None
    eps: Any = None
    cut_size: Any = None
    cut_center: Any = None
    noise_key: Any = None

    @classmethod
    def from_rows(cls, rows: Any, stages: int) -> "AdaParams":
        """The parameters in rows [N, 40] float32, as views; `stages` tells which of them mean anything."""
        return cls(**_views(rows, _names(stages))).keep_rows(rows)

    @property
    def stages(self) -> AdaStage:
        """The stages that are there."""
        return AdaStage(stages_of(self, STAGE_OF))

    def rows(self, images: Any) -> Any:
        """[N, 40] as the kernels read them, on the images' device: float32, for images of float64 float64."""
        import torch

        dtype = torch.float64 if images.dtype == torch.float64 else torch.float32
        if self._drawn is not None and (self._drawn.dtype, self._drawn.device) == (dtype, images.device):
            return self._drawn
        rows = torch.zeros(images.shape[0], COLUMNS, dtype=dtype, device=images.device)
        # noise_key is an argument of its own.
        floats = {name: COLUMNS_OF[name] for name in SHAPES if name != "noise_key"}
        return filled_rows(self, floats, rows)

    def detached(self) -> "AdaParams":
        """The same without gradients: parameters get none."""
        return type(self)(**{name: tensor.detach() for name, tensor in self.given().items()})

    def check(self, images: Any) -> None:
        """Raises ConfigError unless every tensor fits images [N, C, H, W], and the images every stage."""
        n, channels, height, width = images.shape
        shapes = SHAPES | {"eps": (channels, height, width)}
        self.check_tensors(shapes, n, images.device, finite=self._drawn is None)
        if self.G_inv is not None and min(height, width) < 2:
            raise ConfigError(f"images of {height}x{width} pixels cannot be warped: sides of 2 or more can.")
        if self.C is not None and channels not in (1, 3):
            raise ConfigError(
                f"images have {channels} channels, and colours are changed in 1 or 3: use geometry alone "
                "(blit, geom), noise and cutout for others."
            )
        if self.gains is not None and min(height, width) <= BAND_MARGIN:
            raise ConfigError(
                f"images of {height}x{width} pixels are too small for the band filter: it needs sides of "
                f"{BAND_MARGIN + 1} or more (imgfilter=0 leaves it out)."
            )
        if (self.sigma is not None) != ((self.eps is not None) or (self.noise_key is not None)):
            raise ConfigError("AdaParams: sigma goes with eps or noise_key, and each of them with sigma.")
        if self.eps is not None and self.noise_key is not None:
            raise ConfigError("AdaParams: give eps or noise_key, not both.")
        if (self.cut_size is None) != (self.cut_center is None):
            raise ConfigError("AdaParams: give cut_size and cut_center together.")


@dataclass(frozen=True)
class EdmParams(TensorParams):
    """Parameters of the non-leaky augmentation for N images, and the labels that tell a network of them.

    xflip, yflip: [N] int32, 1 where columns or rows are reversed.
    rotate_int: [N] int32, quarter turns, 0 to 3.
    translate_int: [N, 2] int32, (x, y) in pixels: the image is moved right by x and up by y.
    G_inv, C: as AdaParams has them.
    labels: [N, K] float32.
    """

    INTEGERS: ClassVar[tuple[str, ...]] = tuple(MOVE_SHAPES)
    xflip: Any = None
    yflip: Any = None
    rotate_int: Any = None
    translate_int: Any = None
    G_inv: Any = None
    C: Any = None
    labels: Any = None

    @classmethod
    def from_rows(cls, rows: Any, labels: Any, stages: int, moving: tuple[str, ...]) -> "EdmParams":
        """The parameters in rows [N, 40] float32, as views; of the moves those in `moving` are there."""
        return cls(**_views(rows, [*_names(stages), *moving]), labels=labels).keep_rows(rows)

    def check(self, images: Any) -> None:
        """Raises ConfigError unless moves that a user gave fit the images; AdaParams checks the `rest`."""
        if self._drawn is None:
            self.check_tensors(MOVE_SHAPES, images.shape[0], images.device)

    def moves(self) -> tuple:
        """xflip, yflip, rotate_int and translate_int, as `move_pixels` takes them."""
        return self.xflip, self.yflip, self.rotate_int, self.translate_int

    def rest(self) -> AdaParams:
        """Warp and colours as AdaParams, of the same rows where they were drawn."""
        return AdaParams(G_inv=self.G_inv, C=self.C).keep_rows(self._drawn)


def _names(stages: int) -> list[str]:
    """The tensors of AdaParams that rows of these stages hold."""
    names = [name for name, stage in STAGE_OF.items() if stages & stage]
    beside = {"sigma": "noise_key", "cut_size": "cut_center"}
    return names + [beside[name] for name in names if name in beside]


def _views(rows: Any, names: list[str]) -> dict[str, Any]:
    """name -> its view of rows [N, 40] float32; of integers as int32."""
    import torch

    found = {}
    for name in names:
        source = rows.view(torch.int32) if name in (*MOVE_SHAPES, "noise_key") else rows
        view = source[:, COLUMNS_OF[name]]
        shape = (SHAPES | MOVE_SHAPES)[name]
        found[name] = view.unflatten(1, shape) if shape else view[:, 0]
    return found
