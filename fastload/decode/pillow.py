"""The reference decoder: the bytes of one image of any format become upright RGB, resized, cropped and
flipped.

In come the bytes of a file, an `ImageSpec`, seed and position; out come uint8 [height, width, 3] and the
geometry. Promised: the format is told by the bytes; of several frames or pages the first is taken; EXIF
orientation (see image_header.py) is applied; more than `max_pixels` are refused before a pixel is decoded;
whatever is wrong with the file becomes one SampleError with the reason, also where Pillow would fill in what
is missing (damage.py); errors of this program, of an installation or for want of memory pass through. ICC
profiles are ignored.

One conversion to RGB each, the same in all backends:
- gray, with or without alpha, is replicated; 1 bit is 0 and 255; a palette is looked up, its transparency
  ignored;
- alpha, straight or premultiplied, is dropped: no background is blended in;
- CMYK and YCCK as Pillow's `convert("RGB")`, which knows no profile: (255 - c) * (255 - k) / 255;
- gray of 9 to 16 bits is shifted right to 8 (Pillow's own conversion clips it); RGB of 16 bits keeps the high
  byte;
- gray of 32 bits holds 16, and anything outside [0, 65535] is refused; gray floats are levels in [0, 1],
  scaled by 255 and rounded half to even, and anything outside is refused. Where other ranges are meant,
  nobody can guess which.

Pillow guards TIFF and WebP a second time: above twice `PIL.Image.MAX_IMAGE_PIXELS` it refuses them whatever
`max_pixels` says, and it warns of a TIFF above it.
"""

import contextlib
import functools
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from fastload.decode.damage import check_jpeg, check_rows, pixel_chunks
from fastload.decode.image_header import ImageHeader, image_header
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
from fastload.shortage import is_of_memory

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_OPENERS = {  # format -> (module of PIL, class)
    "jpeg": ("JpegImagePlugin", "JpegImageFile"),
    "png": ("PngImagePlugin", "PngImageFile"),
    "gif": ("GifImagePlugin", "GifImageFile"),
    "webp": ("WebPImagePlugin", "WebPImageFile"),
    "bmp": ("BmpImagePlugin", "BmpImageFile"),
    "tiff": ("TiffImagePlugin", "TiffImageFile"),
    "pnm": ("PpmImagePlugin", "PpmImageFile"),
    "jpeg2000": ("Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "avif": ("AvifImagePlugin", "AvifImageFile"),
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
_PLAINLY = {  # how what Pillow says begins -> what it means
    "not identified by this driver": "its header is damaged or cut",
    "unpack": "its header is damaged or cut",
    "Truncated File Read": "its header is damaged or cut",
    "could not create decoder object": "its chunks are damaged or cut",
    "failed to read next frame": "its pixels are damaged or cut",
    "cannot load this image": "it holds no pixels",
    "decoder error -2": "its pixels are damaged or cut",
}


class DecodedImage(NamedTuple):
    """An image of the batch, and what `report=True` tells of it."""

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
        is stretched to this one where they differ in size. `geometry` and `size` of the result are the
        guide's.
    Raises SampleError with the reason, without saying which sample: the caller knows.
    """
    content = bytes(content)
    header = image_header(content)
    image, orientation = _open(content, header, max_pixels)
    own = _upright_size(image, header, orientation)
    size = guide or own
    chosen = geometry(spec, *size, seed, position)
    view = stretched(chosen, size, own)
    divisor = denominator(spec.scaled, view) if header.format == "jpeg" else 1
    if divisor > 1:
        with _reasons(header.format):
            # draft takes the largest scale that leaves at least this size, which is 1/divisor, and rounds up
            image.draft(None, (image.size[0] // divisor, image.size[1] // divisor))
    rgb = _upright(image, content, header, orientation)
    scaled_size, box = scaled_box(view, *own, divisor, header.orientation)
    if rgb.size != scaled_size:  # a damaged TIFF directory, which two parsers read differently
        raise SampleError(f"decoded to {rgb.size} pixels, where its header promised {scaled_size}")
    return DecodedImage(render(rgb, chosen, spec.filter, box), chosen, size)


def decode_rgb(content: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> np.ndarray:
    """The whole upright image: [height, width, 3] uint8. Raises SampleError with the reason."""
    content = bytes(content)
    header = image_header(content)
    image, orientation = _open(content, header, max_pixels)
    return np.array(_upright(image, content, header, orientation))


def upright_size(content: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> tuple[int, int]:
    """Width and height of the upright image, without decoding: the `guide` of fields that are like this."""
    content = bytes(content)
    header = image_header(content)
    image, orientation = _open(content, header, max_pixels)
    return _upright_size(image, header, orientation)


def render(
    rgb: "np.ndarray | Image.Image",
    geometry: Geometry,
    filter: str = "bicubic",
    box: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """Resizes the box of an upright RGB image, cuts out the crop and flips it: [height, width, 3] uint8.

    rgb: [H, W, 3] uint8, or Pillow's image. box: where it is not `geometry.box`, as after scaled decoding.
    """
    image = rgb if isinstance(rgb, Image.Image) else Image.fromarray(rgb)
    resized = image.resize(geometry.resized, _RESAMPLING[filter], box or geometry.box)
    left, top, width, height = geometry.crop
    pixels = np.asarray(resized)[top : top + height, left : left + width]
    return np.ascontiguousarray(pixels[:, ::-1] if geometry.flip else pixels)


def turned(stored: Image.Image, orientation: int) -> Image.Image:
    """The upright image of one that is stored with EXIF's `orientation`."""
    return stored.transpose(_TURNS[orientation]) if orientation in _TURNS else stored


def _open(content: bytes, header: ImageHeader, max_pixels: int) -> tuple[Image.Image, int]:
    """Pillow's image, not yet decoded, and the orientation that is still to be applied to it.

    Not `Image.open`: it tries every format that Pillow knows, some of which run other programs, and warns of
    large images where we have a limit of our own.
    """
    if len(content) == 0:
        raise SampleError("the file is empty")
    _check_pixels(header.width, header.height, max_pixels)
    opener = _opener(content, header)
    if opener is None:
        raise SampleError(f"not an image of a known format: it begins with {content[:12]}")
    given = pixel_chunks(content) if header.format == "png" else content
    with _reasons(header.format):
        image = opener(io.BytesIO(given), "")
    _check_pixels(*image.size, max_pixels)
    # Pillow takes the orientation from XMP where EXIF has none; no other decoder does.
    for name in ("xmp", "XML:com.adobe.xmp"):
        image.info.pop(name, None)
    if header.format == "unknown":
        with _reasons(header.format):
            return image, image.getexif().get(_EXIF_ORIENTATION, 1)
    return image, (
        1 if header.format == "tiff" else header.orientation
    )  # Pillow turns a TIFF when it is decoded


def _opener(content: bytes, header: ImageHeader):
    """The class of Pillow that reads this format; None where there is none. Imported when first needed."""
    prefix, name = content[:16], header.format
    if prefix.startswith((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")):
        name = "jpeg2000"
    elif prefix[4:12] in (b"ftypavif", b"ftypavis"):
        name = "avif"
    return _pillow_class(*_OPENERS[name]) if name in _OPENERS else None


@functools.cache
def _pillow_class(module: str, name: str) -> type:
    return getattr(import_whole(f"PIL.{module}"), name)


def _check_pixels(width: int, height: int, max_pixels: int):
    if width * height > max_pixels:
        raise SampleError(f"{width} x {height} pixels are more than max_pixels={max_pixels}")


def _upright_size(image: Image.Image, header: ImageHeader, orientation: int) -> tuple[int, int]:
    if header.format == "tiff" and header.complete:
        return header.upright
    width, height = image.size
    return (height, width) if orientation >= 5 else (width, height)


def _upright(image: Image.Image, content: bytes, header: ImageHeader, orientation: int) -> Image.Image:
    """Decodes, converts to RGB and turns."""
    if header.format == "jpeg":
        check_jpeg(content)
        # In one piece: the decoder of arithmetic codes cannot wait for the next.
        image.decodermaxblock = max(image.decodermaxblock, len(content))
    with _reasons(header.format):
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
    with _reasons(header.format):
        if image.mode in ("P", "PA", "RGBa"):
            image = image.convert("RGBA")
        elif image.mode == "La":
            image = image.convert("LA")
        return image.convert("RGB")


def _gray(levels: np.ndarray) -> Image.Image:
    return Image.fromarray(levels.astype(np.uint8)).convert("RGB")


def _checked(levels: np.ndarray, highest: float, what: str) -> np.ndarray:
    low, high = levels.min(), levels.max()
    if not (low >= 0 and high <= highest):  # false where there is a NaN
        raise SampleError(
            f"{what} must lie in [0, {highest:g}] to become 8 bits, and reach from {low:g} to {high:g}: "
            "store them scaled, or read them with fl.Custom"
        )
    return levels


@contextlib.contextmanager
def _reasons(format: str):
    """Turns what calls of Pillow raise into a SampleError; its plugins raise nearly any class that there is.

    Nothing else belongs inside. Want of memory and a missing plugin are no file's fault.
    """
    try:
        yield
    except (MemoryError, ImportError):
        raise
    except Exception as error:
        if is_of_memory(error):
            raise
        kind = "image" if format == "unknown" else f"{format.upper()} image"
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = next((plain for said, plain in _PLAINLY.items() if reason.startswith(said)), reason)
        raise SampleError(f"cannot decode the {kind}: {reason}") from error
