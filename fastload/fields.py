"""What a sample is made of: one frozen field per entry of the batch, as the user writes them.

`fields={"image": fl.Image("jpg", size=256), "label": fl.Int("cls")}`: a field names the extensions that it
may be stored under (`"jpg;jpeg;png"`: the first that a sample has is taken) and how the bytes become a value.
Everything that can be judged without data is judged here, on construction, with a ConfigError of one line.
Ground floor: no torch, no NumPy, no Pillow.
"""

import copy
import math
import operator
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

from fastload.errors import ConfigError

RESIZES = ("short", "exact", "random")
FILTERS = ("bicubic", "bilinear", "lanczos", "nearest")
SCALINGS = ("half", "full", None)
MAX_SIDE = 65535  # pixels; the largest side that a JPEG can have, and far beyond any training resolution
_CROPS = ("center", "random")
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
TENSOR_DTYPES = ("float16", "bfloat16", "float32", "float64", *_INTEGERS, "bool", "complex64", "complex128")


class _Required:
    """The type of REQUIRED; there is one instance, also after pickling and copying."""

    def __repr__(self) -> str:
        return "REQUIRED"

    def __reduce__(self) -> str:
        return "REQUIRED"


REQUIRED = _Required()  # no default was given: a sample without the field is an error


class Field:
    """What all fields share: `ext`, alternatives separated by ";", and `default`, for samples without."""

    ext: str
    default: Any

    def __post_init__(self) -> None:
        if not isinstance(self.ext, str) or not self.extensions:
            raise ConfigError(
                f'{type(self).__name__}(ext={self.ext!r}): name an extension, such as "jpg" or "jpg;png".'
            )
        for extension in self.extensions:
            if not extension or extension.startswith(".") or "/" in extension:
                way_out = f'write "{extension.strip("./")}"' if extension.strip("./") else "leave it out"
                raise ConfigError(
                    f"{type(self).__name__}(ext={self.ext!r}): {extension!r} is not an extension; {way_out}."
                )

    @property
    def extensions(self) -> tuple[str, ...]:
        """The alternatives in order of preference, lower-cased as the shards' index has them."""
        if not self.ext.strip():
            return ()
        return tuple(part.strip().lower() for part in self.ext.split(";"))

    def _copy_default(self) -> None:
        """So that later changes of the object change no sample."""
        if self.default is not REQUIRED:
            object.__setattr__(self, "default", copy.deepcopy(self.default))

    @property
    def required(self) -> bool:
        """True where a sample without this field is an error."""
        return self.default is REQUIRED


@dataclass(frozen=True)
class Image(Field):
    """An image, decoded to RGB, upright, resized, cropped, normalized.

    size: one integer (a square) or (height, width), in pixels; kept as (height, width). None is allowed only
        where `like` names the field that decides it.
    resize: "short": the image is scaled until it just covers `size`, and a crop is taken; "exact": the whole
        image is scaled to `size`, whatever that does to its aspect; "random": RandomResizedCrop with `scale`
        and `ratio`; an integer: the short side becomes so many pixels, and a crop is taken, as torchvision's
        Resize(int) and a crop of `size`, neither side of which may be larger.
    crop: for resize="short" and an integer: "center", "random", or (left, top) in pixels of the resized
        image.
    filter: antialiased "bicubic", "bilinear" or "lanczos"; "nearest" for masks.
    scaled: JPEG only. "half": decode at the smallest of 1/2, 1/4, 1/8 that is still at least twice the
        target; "full": at the smallest that is at least the target; None: at full size, exact.
    normalize: a preset's name or (mean, std); None: as the loader says.
    like: the name of another image field, whose geometry and random draws this one shares (masks, depth,
        ControlNet pairs).
    report: also put original size, crop box and target size into the batch.
    scale, ratio: for resize="random": share of the area, in (0, 1], and width over height of the crop, low
        and high.
    default: the colour of the image that replaces a missing one: a gray value from 0 to 255 or (r, g, b).
    """

    ext: str = "jpg;jpeg;png;webp;bmp;gif;tif;tiff;ppm"
    _: KW_ONLY
    size: int | tuple[int, int] | None = None
    resize: str | int = "short"
    crop: str | tuple[int, int] = "center"
    filter: str = "bicubic"
    scaled: str | None = "half"
    normalize: str | tuple | None = None
    like: str | None = None
    report: bool = False
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    default: Any = REQUIRED

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {name: getattr(self, name) for name in ("size", "resize", "crop", "scale", "ratio")}
        self._keep("size", _size(self.size))
        self._keep("resize", _resize(self.resize, self.size, given["size"]))
        self._keep("crop", _crop(self.crop))
        self._keep("scale", _range("scale", self.scale, 0.0, 1.0))
        self._keep("ratio", _range("ratio", self.ratio, 1 / MAX_SIDE, MAX_SIDE))
        self._keep("normalize", _normalize(self.normalize))
        self._keep("default", _colour(self.default))
        _one_of("filter", self.filter, FILTERS)
        _one_of("scaled", self.scaled, SCALINGS)
        if not isinstance(self.report, bool):
            raise ConfigError(f"Image(report={self.report!r}): give True or False.")
        if self.like is not None:
            self._check_like(given)
        elif self.resize in ("exact", "random") and self.crop != "center":
            raise ConfigError(
                f'Image(resize="{self.resize}", crop={given["crop"]!r}): only resize="short" and an integer '
                "leave something to crop; leave crop out."
            )

    def _check_like(self, given: dict[str, Any]) -> None:
        if not isinstance(self.like, str) or not self.like:
            raise ConfigError(f'Image(like={self.like!r}): name another image field, such as like="image".')
        for name, value in given.items():
            if getattr(self, name) != getattr(Image, name):
                raise ConfigError(
                    f'Image(like="{self.like}", {name}={value!r}): the geometry comes from '
                    f'"{self.like}"; leave {name} out.'
                )

    def _keep(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Int(Field):
    """An integer written in decimal digits, as in WebDataset's `cls`; int64 in the batch."""

    ext: str = "cls"
    _: KW_ONLY
    default: Any = REQUIRED

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.required:
            return
        value = _as_int(self.default)
        if value is None or not -(2**63) <= value < 2**63:
            raise ConfigError(f"Int(default={self.default!r}): give an integer that fits int64, such as -1.")
        object.__setattr__(self, "default", value)


@dataclass(frozen=True)
class Text(Field):
    """UTF-8 text; one newline at the end is dropped, everything else is kept as it is."""

    ext: str = "txt"
    _: KW_ONLY
    default: Any = REQUIRED


@dataclass(frozen=True)
class Json(Field):
    """A JSON document."""

    ext: str = "json"
    _: KW_ONLY
    default: Any = REQUIRED

    def __post_init__(self) -> None:
        super().__post_init__()
        self._copy_default()


@dataclass(frozen=True)
class Tensor(Field):
    """An array or a dict of arrays: npy, npz or pth, told apart by their bytes; never a free pickle.

    shape: of the array of one sample, such as (4, 64, 64), and dtype, such as "float16": a sample of another
        one is bad, where without them a batch of samples that do not fit together raises.
    """

    ext: str
    _: KW_ONLY
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    default: Any = REQUIRED

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shape is not None:
            try:
                shape = tuple(_as_int(side) for side in self.shape)
            except TypeError:
                shape = (None,)
            if any(side is None or side < 0 for side in shape):
                raise ConfigError(
                    f"Tensor(shape={self.shape!r}): give the sides of one sample's array, (4, 64, 64)."
                )
            object.__setattr__(self, "shape", shape)
        if self.dtype is not None:
            name = str(self.dtype).removeprefix("torch.")
            if name not in TENSOR_DTYPES:
                raise ConfigError(f"Tensor(dtype={self.dtype!r}): give one of {', '.join(TENSOR_DTYPES)}.")
            object.__setattr__(self, "dtype", name)
        self._copy_default()


@dataclass(frozen=True)
class Bytes(Field):
    """The bytes as they are stored."""

    ext: str
    _: KW_ONLY
    default: Any = REQUIRED


@dataclass(frozen=True)
class Custom(Field):
    """Whatever `fn(content: bytes)` returns; it runs on worker threads, in no particular order.

    draws: fn is called as fn(content, draw); `draw` (fastload.rng.Draw) gives random numbers: `uniform`,
        `integer`, `choice`. They depend on the loader's seed, the sample's position and the field's name
        alone, so that they are the same after a resume, on any rank and any thread.
    """

    ext: str
    fn: Callable[..., Any]
    _: KW_ONLY
    default: Any = REQUIRED
    draws: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.fn):
            raise ConfigError(f"Custom({self.ext!r}, fn={self.fn!r}): fn must be a function of bytes.")
        if not isinstance(self.draws, bool):
            raise ConfigError(f"Custom({self.ext!r}, draws={self.draws!r}): give True or False.")


def _as_int(value: Any) -> int | None:
    """`value` as an int if it is an integer (NumPy's too), else None, as for True and 2.0."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _pair(value: Any) -> tuple | None:
    """`value` as a tuple of two, or None, as for "ab"."""
    if isinstance(value, (str, bytes)):
        return None
    try:
        pair = tuple(value)
    except TypeError:
        return None
    return pair if len(pair) == 2 else None


def _size(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    sides = _pair(size) or (size, size)
    height, width = (_as_int(side) for side in sides)
    if height is None or width is None:
        raise ConfigError(f"Image(size={size!r}): give whole pixels: size=256 or size=(height, width).")
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise ConfigError(f"Image(size={size!r}): a side must be 1 to {MAX_SIDE} pixels, as in size=256.")
    return height, width


def _resize(resize: Any, size: tuple[int, int] | None, given: Any) -> str | int:
    """One of RESIZES, or the pixels of the short side, which `size`, given as `given`, must fit into."""
    if isinstance(resize, str) and resize in RESIZES:
        return resize
    side = _as_int(resize)
    if side is None or not 1 <= side <= MAX_SIDE:
        choice = ", ".join(map(repr, RESIZES))
        raise ConfigError(
            f"Image(resize={resize!r}): give one of {choice}, or the short side, 1 to {MAX_SIDE} pixels."
        )
    if size is not None and max(size) > side:
        raise ConfigError(
            f"Image(size={given!r}, resize={resize!r}): a crop of {size[0]} x {size[1]} pixels does not fit "
            f"where the short side is {side}, and nothing is padded; give resize={max(size)} or more, or a "
            "smaller size."
        )
    return side


def _crop(crop: Any) -> str | tuple[int, int]:
    if isinstance(crop, str) and crop in _CROPS:
        return crop
    left, top = (_as_int(edge) for edge in _pair(crop) or (None, None))
    if left is None or top is None or left < 0 or top < 0:
        raise ConfigError(
            f'Image(crop={crop!r}): give "center", "random", or (left, top) in pixels of the resized image.'
        )
    return left, top


def _range(name: str, value: Any, lowest: float, highest: float) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in _pair(value) or ())
    except (TypeError, ValueError):
        low = high = math.nan
    if not (lowest <= low <= high <= highest and low > 0.0):
        raise ConfigError(f"Image({name}={value!r}): give (low, high) with 0 < low <= high <= {highest}.")
    return low, high


def _normalize(normalize: Any) -> str | tuple | None:
    """Lists become tuples, so that the field can be hashed; normalize.py judges the numbers."""
    if normalize is None or isinstance(normalize, str):
        return normalize
    pair = _pair(normalize)
    if pair is None:
        raise ConfigError(f'Image(normalize={normalize!r}): give a preset such as "gan", or (mean, std).')
    try:
        return tuple(part if isinstance(part, (int, float, str)) else tuple(part) for part in pair)
    except TypeError:
        raise ConfigError(
            f"Image(normalize={normalize!r}): as (mean, std), give one number or three for each."
        ) from None


def _colour(colour: Any) -> Any:
    if colour is REQUIRED:
        return colour
    channels = (colour,) * 3 if _as_int(colour) is not None else colour
    try:
        channels = tuple(_as_int(channel) for channel in channels)
    except TypeError:
        channels = ()
    if len(channels) != 3 or any(channel is None or not 0 <= channel <= 255 for channel in channels):
        raise ConfigError(f"Image(default={colour!r}): give a gray value from 0 to 255 or (r, g, b).")
    return channels


def _one_of(name: str, value: Any, allowed: tuple):
    if value not in allowed:
        choice = ", ".join(map(repr, allowed))
        raise ConfigError(f"Image({name}={value!r}): give one of {choice}.")
