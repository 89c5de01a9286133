"""Where every pixel of an image field comes from: sizes, crop and flip, computed once for every backend.

In: an `ImageSpec` (one per image field), the size of the upright image (after EXIF orientation), and seed and
position, which key the random draws. Out: a `Geometry`: resize the source box to `resized`, cut `crop` out of
it, flip. Promised: the same numbers on every machine. All arithmetic is in double precision, random draws are
counter-based (`Purpose.CROP`, `Purpose.XFLIP`), and the C++ twin (csrc/decode/geometry.h) makes the same libm
calls in the same order, so the two are equal bit for bit.

The rules:
- resize="short": scale = max(width / w, height / h) of target over source; the side that governs becomes
  exactly the target, the other round_half_even(side * scale), at least the target. The box is the whole
  image. Crop "center": left = (resized_w - width) // 2, top alike; "random": floor(u * (range + 1)) with the
  first two uniforms of block 0; (left, top): as given, and it must lie inside.
- resize=an integer: torchvision's Resize(int) and CenterCrop or RandomCrop. The short side becomes exactly
  that, the long one floor(resize * long / short); `Image` ensures that neither is below the target. The box
  is the whole image. Crop "center": left = round_half_even((resized_w - width) / 2), top alike; the others as
  for "short".
- resize="exact": the whole image becomes the target; nothing is cropped.
- resize="random": torchvision's RandomResizedCrop: ten tries (area in `scale`, log aspect in `ratio`,
  corner), try t taking the four uniforms of block t, then the largest centred box whose aspect is in
  `ratio`. The box has integer corners and is resized to the target.
- At the edges of the box the filter's taps read pixels outside the box but inside the image, as Pillow's
  `resize(box=)` does; cropping before resizing would differ there.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastload import _native
from fastload.caching import cached_property
from fastload.errors import ConfigError, SampleError
from fastload.fields import Image
from fastload.rng import Purpose, check_seed, uniforms

DEFAULT_MAX_PIXELS = 178_956_970  # 512 MiB of RGB
MAX_SOURCE_SIDE = 1 << 24  # a box edge is float32 in Pillow, exact up to here
MAX_RESIZED_SIDE = 1 << 20  # a 1 x 65535 image that covers 256 x 256 would be 16.8 million pixels long
TRIES = 10  # of RandomResizedCrop, as in torchvision

_CODES = {
    "resize": {"short": 0, "exact": 1, "random": 2},  # an integer is _SHORT_SIDE
    "crop": {"center": 0, "random": 1},
    "filter": {"nearest": 0, "bilinear": 1, "bicubic": 2, "lanczos": 3},
    "scaled": {None: 0, "full": 1, "half": 2},
}
_SHORT_SIDE = 3
_GIVEN_CROP = 2
_CROP_OUTSIDE, _SIZE_OUT_OF_RANGE = 1, 2


@dataclass(frozen=True)
class ImageSpec:
    """The geometry of one image field."""

    height: int  # of the target, pixels
    width: int
    resize: str | int = "short"  # "short" | "exact" | "random" | the short side, pixels
    crop: str | tuple[int, int] = "center"  # "center" | "random" | (left, top) in the resized image, pixels
    filter: str = "bicubic"  # "nearest" | "bilinear" | "bicubic" | "lanczos"
    scaled: str | None = "half"  # JPEG's scaled decoding: "half" | "full" | None, see `denominator`
    scale: tuple[float, float] = (0.08, 1.0)  # of resize="random": share of the source's area, (0, 1]
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # of resize="random": width over height
    xflip: float = 0.0  # probability of a horizontal flip

    def __post_init__(self) -> None:
        checked = ("resize", "crop", "filter", "scaled", "scale", "ratio")
        Image(size=(self.height, self.width), **{name: getattr(self, name) for name in checked})
        if not 0.0 <= self.xflip <= 1.0:
            raise ConfigError(f"xflip must be a probability in [0, 1], got {self.xflip!r}.")

    @classmethod
    def of(cls, field: Image, xflip: float = 0.0, like: Image | None = None) -> "ImageSpec":
        """The spec of `field`. like: the field that `field.like` names, which gives the geometry.

        A field with filter="nearest" is never decoded scaled: scaling would average values that must not mix.
        """
        assert (field.like is None) == (like is None), "like= must be resolved to the field that it names"
        source = like or field
        if source.size is None:
            raise ConfigError('Image(size=None): give a size, such as size=256, or like="image".')
        scaled = None if field.filter == "nearest" else field.scaled
        view = {name: getattr(source, name) for name in ("resize", "crop", "scale", "ratio")}
        return cls(*source.size, filter=field.filter, scaled=scaled, xflip=xflip, **view)

    @cached_property
    def native(self) -> "_native.ImageSpec":
        """This spec as the C++ struct."""
        left, top = (0, 0) if isinstance(self.crop, str) else self.crop
        is_short_side = isinstance(self.resize, int)
        return _native.ImageSpec(
            width=self.width,
            height=self.height,
            resize=_SHORT_SIDE if is_short_side else _CODES["resize"][self.resize],
            short_side=self.resize if is_short_side else 0,
            crop=_CODES["crop"][self.crop] if isinstance(self.crop, str) else _GIVEN_CROP,
            crop_left=left,
            crop_top=top,
            filter=_CODES["filter"][self.filter],
            scaled=_CODES["scaled"][self.scaled],
            scale_low=self.scale[0],
            scale_high=self.scale[1],
            ratio_low=self.ratio[0],
            ratio_high=self.ratio[1],
            xflip=self.xflip,
        )

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "native"}


class Geometry(NamedTuple):
    """Resize `box` to `resized`, cut out `crop`, then flip."""

    box: tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels of the upright source
    resized: tuple[int, int]  # width, height of the resized box
    crop: tuple[int, int, int, int]  # left, top, width, height in the resized box
    flip: bool  # horizontally


class Geometries(NamedTuple):
    """The geometry of N images in columns. A row whose `status` is not 0 has no geometry and holds zeros."""

    box: np.ndarray  # [N, 4] float64
    resized: np.ndarray  # [N, 2] int32
    crop: np.ndarray  # [N, 4] int32
    flip: np.ndarray  # [N] bool
    denominator: np.ndarray  # [N] int32, for a JPEG
    status: np.ndarray  # [N] int32: 0 OK, 1 the given crop lies outside, 2 a side is out of range


def geometry(spec: ImageSpec, width: int, height: int, seed: int, position: int) -> Geometry:
    """The geometry of one upright image of `width` x `height` pixels at `position` of the global order.

    Raises SampleError if a given crop does not fit into the resized image, or a side is out of range.
    """
    if not (1 <= width <= MAX_SOURCE_SIDE and 1 <= height <= MAX_SOURCE_SIDE):
        raise SampleError(
            f"the sides of an image must be in [1, {MAX_SOURCE_SIDE}] pixels, got {width} x {height}"
        )
    flip = float(_uniforms(seed, position, Purpose.XFLIP, 0)[0]) < spec.xflip
    target = (spec.width, spec.height)
    if spec.resize == "random":
        box = _random_box(spec, width, height, seed, position)
        return Geometry(box, target, (0, 0, *target), flip)
    box = (0.0, 0.0, float(width), float(height))
    if spec.resize == "exact":
        return Geometry(box, target, (0, 0, *target), flip)
    resized = (_short_side_size if isinstance(spec.resize, int) else _covering_size)(spec, width, height)
    left, top = _corner(spec, *resized, seed, position)
    return Geometry(box, resized, (left, top, *target), flip)


def geometries(spec: ImageSpec, widths, heights, seed: int, positions, impl: str = "auto") -> Geometries:
    """`geometry` and `denominator` of N images at once; widths, heights and positions are [N] integers.

    impl: "native", "reference" (a loop over `geometry`), or "auto" (native); the two are equal.
    """
    check_seed(seed)
    columns = (np.asarray(widths, np.int64), np.asarray(heights, np.int64), np.asarray(positions, np.int64))
    if impl == "reference":
        return _geometries_reference(spec, *columns[:2], seed, columns[2])
    if impl not in ("auto", "native"):
        raise ConfigError(f'impl must be "auto", "reference" or "native", got {impl!r}.')
    return Geometries(*_native.geometries(spec.native, *columns[:2], seed, columns[2]))


def denominator(scaled: str | None, geometry: Geometry) -> int:
    """The scale 1/d at which a JPEG may be decoded: the largest d of 8, 4, 2, 1 that leaves enough pixels.

    "half": the decoded box is at least twice its resized size on both axes; "full": at least its resized
    size; None: d = 1.
    """
    if scaled is None:
        return 1
    factor = {"full": 1, "half": 2}[scaled]
    left, top, right, bottom = geometry.box
    resized_w, resized_h = geometry.resized
    for d in (8, 4, 2):
        if right - left >= d * factor * resized_w and bottom - top >= d * factor * resized_h:
            return d
    return 1


def scaled_box(
    geometry: Geometry, width: int, height: int, denominator: int, orientation: int = 1
) -> tuple[tuple[int, int], tuple[float, float, float, float]]:
    """The size of an image that is decoded at 1/denominator, and the box in its pixels.

    width, height: of the upright image at full size. orientation: how it is stored, in EXIF's numbering.
    The size is (ceil(width / d), ceil(height / d)), as in libjpeg. If d does not divide a side, the last
    stored pixel covers fewer than d pixels. So the box (x0, y0, x1, y1) is divided by d, not stretched by the
    ratio of the sizes (14 dB further from the unscaled result on photos of odd sizes), and it is shifted by
    the missing pixels where orientation makes the last pixel the first. The box is float32, as in Pillow.
    """
    scaled_w, scaled_h = -(-width // denominator), -(-height // denominator)
    missing_x = scaled_w - width / denominator if orientation in (2, 3, 6, 7) else 0.0
    missing_y = scaled_h - height / denominator if orientation in (3, 4, 7, 8) else 0.0
    missing = missing_x, missing_y, missing_x, missing_y
    edges = (edge / denominator + offset for edge, offset in zip(geometry.box, missing, strict=True))
    return (scaled_w, scaled_h), tuple(float(np.float32(edge)) for edge in edges)


def stretched(geometry: Geometry, size: tuple[int, int], other_size: tuple[int, int]) -> Geometry:
    """The same view of an image of `other_size` (width, height), such as a mask at half the resolution."""
    edges = zip(geometry.box, size * 2, other_size * 2, strict=True)
    return geometry._replace(box=tuple(edge if old == new else edge * new / old for edge, old, new in edges))


class _CropOutsideError(SampleError):
    """Status 1 of `Geometries`; every other SampleError of this file is status 2."""


def _uniforms(seed: int, position: int, purpose: Purpose, block: int) -> np.ndarray:
    return uniforms(seed, np.array([position], np.int64), purpose, block)[0]


def _pick(uniform: float, highest: int) -> int:
    """An integer in [0, highest] from a uniform draw in [0, 1)."""
    return min(int(float(uniform) * (highest + 1)), highest)


def _covering_size(spec: ImageSpec, width: int, height: int) -> tuple[int, int]:
    """The size (width, height) at which the image just covers the target."""
    if spec.width * height >= spec.height * width:
        resized = spec.width, max(spec.height, round(height * (spec.width / width)))
    else:
        resized = max(spec.width, round(width * (spec.height / height))), spec.height
    return _checked(resized, f"{width} x {height} pixels, scaled to cover {spec.width} x {spec.height}")


def _short_side_size(spec: ImageSpec, width: int, height: int) -> tuple[int, int]:
    """The size (width, height) at which the short side is `spec.resize`.

    Integer arithmetic: torchvision's int(resize * long / short) is the same as long as a double can tell an
    integer from the next fraction, which is up to 2^53 / short, far above MAX_RESIZED_SIDE.
    """
    side = spec.resize
    resized = (side, side * height // width) if width <= height else (side * width // height, side)
    return _checked(resized, f"{width} x {height} pixels, scaled to a short side of {side}")


def _checked(resized: tuple[int, int], what: str) -> tuple[int, int]:
    if max(resized) > MAX_RESIZED_SIDE:
        raise SampleError(
            f"an image of {what}, would become {resized[0]} x {resized[1]} pixels; at most "
            f"{MAX_RESIZED_SIDE} a side are supported"
        )
    return resized


def _corner(spec: ImageSpec, resized_w: int, resized_h: int, seed: int, position: int) -> tuple[int, int]:
    room_w, room_h = resized_w - spec.width, resized_h - spec.height
    if spec.crop == "center":
        if isinstance(spec.resize, int):
            return round(room_w / 2), round(room_h / 2)
        return room_w // 2, room_h // 2
    if spec.crop == "random":
        u = _uniforms(seed, position, Purpose.CROP, 0)
        return _pick(u[0], room_w), _pick(u[1], room_h)
    left, top = spec.crop
    if left > room_w or top > room_h:
        raise _CropOutsideError(
            f"the crop of {spec.width} x {spec.height} pixels at left {left}, top {top} does not fit into "
            f"the resized image of {resized_w} x {resized_h}"
        )
    return left, top


def _random_box(spec: ImageSpec, width: int, height: int, seed: int, position: int) -> tuple:
    """RandomResizedCrop's box (x0, y0, x1, y1)."""
    area = float(width) * float(height)
    log_low, log_high = math.log(spec.ratio[0]), math.log(spec.ratio[1])
    for attempt in range(TRIES):
        u = _uniforms(seed, position, Purpose.CROP, attempt).tolist()
        box_area = area * (spec.scale[0] + u[0] * (spec.scale[1] - spec.scale[0]))
        aspect = math.exp(log_low + u[1] * (log_high - log_low))
        box_w = round(math.sqrt(box_area * aspect))
        box_h = round(math.sqrt(box_area / aspect))
        if 0 < box_w <= width and 0 < box_h <= height:
            left, top = _pick(u[2], width - box_w), _pick(u[3], height - box_h)
            return float(left), float(top), float(left + box_w), float(top + box_h)
    return _central_box(spec, width, height)


def _central_box(spec: ImageSpec, width: int, height: int) -> tuple:
    """The largest centred box (x0, y0, x1, y1) whose aspect is in `ratio`."""
    box_w, box_h = width, height
    if width / height < spec.ratio[0]:
        box_h = max(1, round(width / spec.ratio[0]))
    elif width / height > spec.ratio[1]:
        box_w = max(1, round(height * spec.ratio[1]))
    left, top = (width - box_w) // 2, (height - box_h) // 2
    return float(left), float(top), float(left + box_w), float(top + box_h)


def _geometries_reference(spec: ImageSpec, widths, heights, seed: int, positions) -> Geometries:
    n = len(positions)
    kinds = ((4,), float), ((2,), np.int32), ((4,), np.int32), ((), bool), ((), np.int32), ((), np.int32)
    columns = Geometries(*(np.zeros((n, *shape), kind) for shape, kind in kinds))
    for i in range(n):
        try:
            chosen = geometry(spec, int(widths[i]), int(heights[i]), seed, int(positions[i]))
        except SampleError as error:
            columns.status[i] = _CROP_OUTSIDE if isinstance(error, _CropOutsideError) else _SIZE_OUT_OF_RANGE
            continue
        columns.box[i], columns.resized[i], columns.crop[i], columns.flip[i] = chosen
        columns.denominator[i] = denominator(spec.scaled, chosen)
    return columns
