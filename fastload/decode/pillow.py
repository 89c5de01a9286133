"""The reference decoder: one image of any format to upright RGB, resized, cropped and flipped.

In: the bytes of a file, an `ImageSpec`, seed and position. Out: uint8 [height, width, 3] and the geometry.
Promised: the bytes decide the format; of several frames or pages the first is taken; EXIF orientation (see
image_header.py) is applied; more than `max_pixels` are refused before a pixel is decoded; whatever is wrong
with the file becomes one SampleError with the reason, also where Pillow would fill in missing pixels
(damage.py); errors of this program or of the installation, and lack of memory, pass through. ICC profiles are
ignored.

Conversion to RGB, the same in all backends:
- gray, with or without alpha, is replicated; 1 bit is 0 and 255; a palette is looked up, its transparency
  ignored;
- alpha, straight or premultiplied, is dropped: no background is blended in;
- CMYK and YCCK as Pillow's `convert("RGB")`, which uses no profile: (255 - c) * (255 - k) / 255;
- gray of 9 to 16 bits is shifted right to 8 (Pillow's own conversion clips it); RGB of 16 bits keeps the high
  byte;
- gray of 32 bits holds values of 16 bits, and anything outside [0, 65535] is refused; gray floats are in
  [0, 1], scaled by 255 and rounded half to even, and anything outside is refused, because other ranges cannot
  be guessed.

Pillow has a limit of its own for TIFF and WebP: above twice `PIL.Image.MAX_IMAGE_PIXELS` it refuses them,
whatever `max_pixels` is, and it warns about a TIFF above it.
"""

import functools
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from fastload.decode.damage import check_jpeg, check_rows, pixel_chunks
from fastload.decode.image_header import ImageHeader, image_header
from fastload.decode.reasons import reasons, twice
from fastload.decode.spec import (
    DEFAULT_MAX_PIXELS,
    Geometry,
    ImageSpec,
    denominator,
    geometry,
    scaled_box,
    stretched,
)
from fastload.errors import SampleError
from fastload.imports import import_whole

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_ORIENTATION = 0x0112
_OPENERS = {  # format -> Pillow's name of it
    "jpeg": "Jpeg",
    "png": "Png",
    "gif": "Gif",
    "webp": "WebP",
    "bmp": "Bmp",
    "tiff": "Tiff",
    "pnm": "Ppm",
    "jpeg 2000": "Jpeg2K",
    "avif": "Avif",
}


class DecodedImage(NamedTuple):
    """An image of the batch, and what `report=True` needs."""

    pixels: np.ndarray  # [height, width, 3] uint8
    geometry: Geometry
    size: tuple[int, int]  # width, height of the upright source that `geometry` is about


def decode_image(
    content: bytes,
    spec: ImageSpec,
    seed: int,
    position: int,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    guide: tuple[int, int] | None = None,
) -> DecodedImage:
    """Decodes, resizes, crops and flips one image.

    guide: for a field that is `like` another: the upright size (width, height) of that image, whose geometry
        is stretched to this one if their sizes differ. `geometry` and `size` of the result are the guide's.
    Raises SampleError with the reason but not the name of the sample, which the caller adds; MemoryError.
    """
    content = bytes(content)
    return twice(lambda: _decoded(content, spec, seed, position, max_pixels, guide))


def decode_rgb(content: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> np.ndarray:
    """The whole upright image: [height, width, 3] uint8. Raises SampleError with the reason; MemoryError."""
    content = bytes(content)
    header = image_header(content)

    def decoded() -> np.ndarray:
        image, orientation = _open(content, header, max_pixels)
        return np.array(_upright(image, content, header, orientation))

    return twice(decoded)


def upright_size(content: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> tuple[int, int]:
    """Width and height of the upright image, without decoding: the `guide` of fields that are like it."""
    content = bytes(content)
    header = image_header(content)
    image, orientation = twice(lambda: _open(content, header, max_pixels))
    return _upright_size(image, header, orientation)


def _decoded(
    content: bytes, spec: ImageSpec, seed: int, position: int, max_pixels: int, guide: tuple[int, int] | None
) -> DecodedImage:
    header = image_header(content)
    image, orientation = _open(content, header, max_pixels)
    own = _upright_size(image, header, orientation)
    size = guide or own
    chosen = geometry(spec, *size, seed, position)
    view = stretched(chosen, size, own)
    divisor = denominator(spec.scaled, view) if header.format == "jpeg" else 1
    if divisor > 1:
        with reasons(header.format, own[0] * own[1]):
            # draft takes the largest scale that leaves at least this size, here 1/divisor, and rounds up
            image.draft(None, (image.size[0] // divisor, image.size[1] // divisor))
    rgb = _upright(image, content, header, orientation)
    scaled_size, box = scaled_box(view, *own, divisor, header.orientation)
    if rgb.size != scaled_size:  # a damaged TIFF directory, which two parsers read differently
        raise SampleError(f"decoded to {rgb.size} pixels instead of the {scaled_size} of its header")
    return DecodedImage(render(rgb, chosen, spec.filter, box), chosen, size)


def render(
    rgb: "np.ndarray | Image.Image",
    geometry: Geometry,
    filter: str = "bicubic",
    box: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """Resizes the box of an upright RGB image, crops and flips it: [height, width, 3] uint8.

    rgb: [H, W, 3] uint8, or Pillow's image. box: if it is not `geometry.box`, as after scaled decoding.
    """
    image = rgb if isinstance(rgb, Image.Image) else Image.fromarray(rgb)
    resized = image.resize(geometry.resized, _RESAMPLING[filter], box or geometry.box)
    left, top, width, height = geometry.crop
    pixels = np.asarray(resized)[top : top + height, left : left + width]
    return np.ascontiguousarray(pixels[:, ::-1] if geometry.flip else pixels)


def turned(stored: Image.Image, orientation: int) -> Image.Image:
    """The upright image of one that is stored with this EXIF orientation."""
    return stored.transpose(_TURNS[orientation]) if orientation in _TURNS else stored


def _open(content: bytes, header: ImageHeader, max_pixels: int) -> tuple[Image.Image, int]:
    """Pillow's image, not yet decoded, and the orientation that remains to be applied.

    Not `Image.open`: it tries every format that Pillow knows, some of which run other programs, and it warns
    about large images, for which there is max_pixels.
    """
    if len(content) == 0:
        raise SampleError("the file is empty")
    _check_pixels(header.width, header.height, max_pixels)
    opener = _opener(content, header)
    if opener is None:
        raise SampleError(f"not an image of a known format: it begins with {content[:12]}")
    given = pixel_chunks(content) if header.format == "png" else content
    with reasons(header.format, header.width * header.height):
        image = opener(io.BytesIO(given), "")
    _check_pixels(*image.size, max_pixels)
    # If EXIF has no orientation, Pillow takes it from XMP; no other decoder does.
    for name in ("xmp", "XML:com.adobe.xmp"):
        image.info.pop(name, None)
    if header.format == "unknown":
        with reasons(header.format, image.width * image.height):
            return image, image.getexif().get(_EXIF_ORIENTATION, 1)
    # Pillow applies the orientation of a TIFF itself.
    return image, 1 if header.format == "tiff" else header.orientation


def _opener(content: bytes, header: ImageHeader):
    """Pillow's class for this format, or None; imported when first needed.

    Raises BackendError if descriptors or memory run out during the import.
    """
    format, prefix = header.format, content[:16]
    if prefix.startswith((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")):
        format = "jpeg 2000"
    elif prefix[4:12] in (b"ftypavif", b"ftypavis"):
        format = "avif"
    return _pillow_class(format) if format in _OPENERS else None


@functools.cache
def _pillow_class(format: str) -> type:
    module = import_whole(f"PIL.{_OPENERS[format]}ImagePlugin", f"Pillow's reader of {format.upper()}")
    return getattr(module, f"{_OPENERS[format]}ImageFile")


def _check_pixels(width: int, height: int, max_pixels: int):
    if width * height > max_pixels:
        raise SampleError(f"{width} x {height} pixels are more than max_pixels={max_pixels}")


def _upright_size(image: Image.Image, header: ImageHeader, orientation: int) -> tuple[int, int]:
    if header.format == "tiff" and header.complete:
        return header.upright
    width, height = image.size
    return (height, width) if orientation >= 5 else (width, height)


def _upright(image: Image.Image, content: bytes, header: ImageHeader, orientation: int) -> Image.Image:
    if header.format == "jpeg":
        check_jpeg(content)
        # In one piece: the decoder of arithmetic codes cannot wait for a second one.
        image.decodermaxblock = max(image.decodermaxblock, len(content))
    with reasons(header.format, image.width * image.height):
        image.load()
    if header.format == "png":
        check_rows(image, content)
    return turned(_rgb(image, header), orientation)


def _rgb(image: Image.Image, header: ImageHeader) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        bits = header.bits if 8 < header.bits < 16 else 16
        return _gray(np.asarray(image) >> (bits - 8))
    if image.mode == "I":
        return _gray(_checked(np.asarray(image), 65535, "gray of 32 bits") >> 8)
    if image.mode == "F":
        return _gray(np.rint(_checked(np.asarray(image), 1.0, "gray floats") * np.float32(255)))
    with reasons(header.format, image.width * image.height):
        if image.mode in ("P", "PA", "RGBa"):
            image = image.convert("RGBA")
        elif image.mode == "La":
            image = image.convert("LA")
        return image.convert("RGB")


def _gray(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def _checked(values: np.ndarray, highest: float, what: str) -> np.ndarray:
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= highest):  # a NaN is refused, too
        raise SampleError(
            f"{what} must be in [0, {highest:g}] to be converted to 8 bits, got {low:g} to {high:g}: store "
            "them scaled, or read them with fl.Custom"
        )
    return values
