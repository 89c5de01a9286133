"""What adaptive augmentation does to each image of a batch, as numbers: the parameters of `ada_augment`.

In: tensors that a user fills, or the rows that `draw_ada` drew. Out: rows, [N, 40] floats, one for each
image, as the kernels read them. Promised: a stage that is None is absent, and costs nothing; parameters that
were drawn are views of their rows, and go back to the kernels without a copy; the columns below are the only
place that says where a number lies (csrc/ops/ada.h repeats them, and a test compares).
"""

from dataclasses import dataclass, field
from enum import IntFlag
from typing import Any

from fastload.errors import ConfigError
from fastload.ops.ada.stages.wavelets import BAND_MARGIN
from fastload.ops.params import described, moved

COLUMNS = 40  # floats in a row
# First column of each. Those of NOISE_KEY and MOVES hold the bits of int32.
G_INV, C, GAINS, SIGMA, CUT_SIZE, CUT_CENTER, NOISE_KEY, MOVES = 0, 9, 25, 29, 30, 31, 33, 35
MOVE_COLUMN_OF = {"xflip": MOVES, "yflip": MOVES + 1, "rotate_int": MOVES + 2, "translate_int": MOVES + 3}


class AdaStage(IntFlag):
    """Which stages a batch has; in the order in which they are applied."""

    WARP = 1
    COLOR = 2
    FILTER = 4
    NOISE = 8
    CUTOUT = 16


# name -> shape of one image's entry
SHAPES = {
    "G_inv": (3, 3),
    "C": (4, 4),
    "gains": (4,),
    "sigma": (),
    "noise_key": (2,),
    "cut_size": (),
    "cut_center": (2,),
}
COLUMN_OF = {
    "G_inv": G_INV, "C": C, "gains": GAINS, "sigma": SIGMA, "noise_key": NOISE_KEY, "cut_size": CUT_SIZE,
    "cut_center": CUT_CENTER,
}  # fmt: skip
STAGE_OF = {
    "G_inv": int(AdaStage.WARP),
    "C": int(AdaStage.COLOR),
    "gains": int(AdaStage.FILTER),
    "sigma": int(AdaStage.NOISE),
    "cut_size": int(AdaStage.CUTOUT),
}


@dataclass(frozen=True)
class AdaParams:
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

    G_inv: Any = None
    C: Any = None
    gains: Any = None
    sigma: Any = None
    eps: Any = None
    cut_size: Any = None
    cut_center: Any = None
    noise_key: Any = None
    _drawn: Any = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def from_rows(cls, rows: Any, stages: int) -> "AdaParams":
        """The parameters in rows [N, 40] float32, as views; `stages` tells which of them mean anything."""
        params = cls(**views(rows, stages))
        object.__setattr__(params, "_drawn", rows)
        return params

    @property
    def stages(self) -> AdaStage:
        """The stages that are there."""
        return AdaStage(stages_of(self))

    def rows(self, images: Any) -> Any:
        """[N, 40] as the kernels read them, on the images' device: float32, for images of float64 float64."""
        import torch

        dtype = torch.float64 if images.dtype == torch.float64 else torch.float32
        if self._drawn is not None and (self._drawn.dtype, self._drawn.device) == (dtype, images.device):
            return self._drawn
        return filled_rows(self, images.shape[0], dtype, images.device)

    def detached(self) -> "AdaParams":
        """The same without gradients: parameters get none."""
        given = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return type(self)(**{name: one if one is None else one.detach() for name, one in given.items()})

    def to(self, *args: Any, **kwargs: Any) -> "AdaParams":
        """Every tensor moved or cast, as `Tensor.to` does; noise_key keeps its integers."""
        return type(self)(**moved(self, ("noise_key",), *args, **kwargs))

    def check(self, images: Any) -> None:
        """Raises ConfigError unless every tensor fits images [N, C, H, W], and the images every stage."""
        n, channels, height, width = images.shape
        shapes = SHAPES | {"eps": (channels, height, width)}
        check_shapes(self, shapes, n, images.device, is_drawn=self._drawn is not None)
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


def views(rows: Any, stages: int) -> dict[str, Any]:
    """name -> its view of rows [N, 40] float32, of the stages that are there."""
    import torch

    found = {}
    names = [name for name, stage in STAGE_OF.items() if stages & stage]
    for name, beside in (("sigma", "noise_key"), ("cut_size", "cut_center")):
        if name in names:
            names.append(beside)
    for name in names:
        shape, column = SHAPES[name], COLUMN_OF[name]
        source = rows.view(torch.int32) if name == "noise_key" else rows
        if not shape:
            found[name] = source[:, column]
        else:
            size = shape[0] * (shape[1] if len(shape) > 1 else 1)
            found[name] = source[:, column : column + size].unflatten(1, shape)
    return found


def stages_of(params: Any) -> int:
    """The stages of what has some of AdaParams' fields, as a number: torch.compile traces no flags."""
    stages = 0
    for name, stage in STAGE_OF.items():
        if getattr(params, name, None) is not None:
            stages |= stage
    return stages


def filled_rows(params: Any, n: int, dtype: Any, device: Any) -> Any:
    """Rows [n, 40] with what `params` have of SHAPES, noise_key aside, which travels beside the rows."""
    import torch

    rows = torch.zeros(n, COLUMNS, dtype=dtype, device=device)
    for name, column in COLUMN_OF.items():
        value = getattr(params, name, None)
        if value is not None and name != "noise_key":
            flat = value.detach().reshape(n, -1)
            rows[:, column : column + flat.shape[1]] = flat
    return rows


def check_shapes(params: Any, shapes: dict, n: int, device: Any, *, is_drawn: bool) -> None:
    """Raises ConfigError unless each tensor of `params` is [n, *shape] on `device`; and finite, where it was
    not drawn and to ask means neither to wait for a GPU nor to break a graph."""
    import torch

    owner = type(params).__name__
    for name, shape in shapes.items():
        tensor = getattr(params, name)
        if tensor is None:
            continue
        if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) != (n, *shape):
            raise ConfigError(f"{owner}.{name} is {described(tensor)}: give a tensor {[n, *shape]}.")
        if tensor.device != device:
            raise ConfigError(
                f"{owner}.{name} lies on {tensor.device} and the images on {device}: use {owner}.to()."
            )
        if tensor.is_floating_point() == (name in ("noise_key",)):
            kind = "int32 words" if name == "noise_key" else "floats"
            raise ConfigError(f"{owner}.{name} is of {tensor.dtype}: give {kind}.")
        if is_drawn or tensor.device.type != "cpu" or torch.compiler.is_compiling():
            continue
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ConfigError(f"{owner}.{name} holds numbers that are not finite.")


@dataclass(frozen=True)
class EdmParams:
    """Parameters of the non-leaky augmentation for N images, and the labels that tell a network what was
    done.

    xflip, yflip: [N] int32, 1 where columns or rows are reversed.
    rotate_int: [N] int32, quarter turns, 0 to 3.
    translate_int: [N, 2] int32, (x, y) in pixels: the image is moved right by x and up by y.
    G_inv, C: as AdaParams has them.
    labels: [N, K] float32.
    """

    xflip: Any = None
    yflip: Any = None
    rotate_int: Any = None
    translate_int: Any = None
    G_inv: Any = None
    C: Any = None
    labels: Any = None
    _drawn: Any = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def from_rows(cls, rows: Any, labels: Any, stages: int, moving: tuple[str, ...]) -> "EdmParams":
        """The parameters in rows [N, 40] float32, as views; of the moves those in `moving` are there."""
        import torch

        integers, found = rows.view(torch.int32), views(rows, stages)
        for name in moving:
            column = MOVE_COLUMN_OF[name]
            found[name] = integers[:, column : column + 2] if name == "translate_int" else integers[:, column]
        params = cls(**found, labels=labels)
        object.__setattr__(params, "_drawn", rows)
        return params

    def check(self, images: Any) -> None:
        """Raises ConfigError unless the moves that a user gave are int32 of the shapes above, beside the
        images; the rest is checked as AdaParams."""
        import torch

        if self._drawn is not None:
            return
        for name in MOVE_COLUMN_OF:
            tensor, shape = (
                getattr(self, name),
                [len(images), 2] if name == "translate_int" else [len(images)],
            )
            if tensor is None:
                continue
            if (
                not isinstance(tensor, torch.Tensor)
                or list(tensor.shape) != shape
                or tensor.dtype != torch.int32
            ):
                kind = f"{tensor.dtype} " if isinstance(tensor, torch.Tensor) else ""
                raise ConfigError(
                    f"EdmParams.{name} is {kind}{described(tensor)}: give a tensor {shape} of int32."
                )

    def moves(self) -> tuple:
        """xflip, yflip, rotate_int and translate_int, as `move_pixels` takes them."""
        return self.xflip, self.yflip, self.rotate_int, self.translate_int

    def rest(self) -> AdaParams:
        """Warp and colours as AdaParams, of the same rows where they were drawn."""
        params = AdaParams(G_inv=self.G_inv, C=self.C)
        object.__setattr__(params, "_drawn", self._drawn)
        return params

    def to(self, *args: Any, **kwargs: Any) -> "EdmParams":
        """Every tensor moved or cast, as `Tensor.to` does; the moves keep their integers."""
        return type(self)(**moved(self, tuple(MOVE_COLUMN_OF), *args, **kwargs))
