"""The header of an image file: format, size, orientation, without decoding anything.

In: the bytes of an image file, or the first of them. Out: an `ImageHeader`. Promised: the format is found by
magic bytes, never by an extension; whatever the bytes are, nothing outside them is read and no error is
raised. Orientation is EXIF's (in JPEG, PNG and WebP) or the tag of TIFF's first directory; XMP is not read.
This is the only definition of orientation, for all backends. The parser is native
(csrc/decode/image_header.h); in the tests Pillow's lazy `Image.open` is its oracle.
"""

from typing import NamedTuple

from fastload import _native

FORMATS = ("unknown", "jpeg", "png", "gif", "webp", "bmp", "tiff", "pnm")


class ImageHeader(NamedTuple):
    """`width` and `height` are as stored, before orientation, and 0 if none were found."""

    format: str  # one of FORMATS
    width: int  # pixels
    height: int
    orientation: int  # 1 to 8, as in EXIF; 1 if it is missing or invalid
    channels: int  # as stored: gray 1, palette 1, with alpha 2, RGB or YCbCr 3, RGBA or CMYK 4
    bits: int  # of one channel, or of an index into a palette
    progressive: bool  # a progressive JPEG
    adobe_transform: int  # of a JPEG's Adobe marker: 0 (RGB or CMYK), 1 (YCbCr), 2 (YCCK); -1: none

    @property
    def complete(self) -> bool:
        """Whether the size was found; else the format is unknown, or the bytes are damaged or truncated."""
        return self.width > 0

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height after EXIF orientation, pixels."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def image_header(content: bytes) -> ImageHeader:
    """The header of the image in `content`: bytes, or any contiguous buffer of them; a prefix is enough."""
    found, code, width, height, *rest = _native.parse_image_header(content)
    return ImageHeader(FORMATS[code], *((width, height) if found else (0, 0)), *rest)
