"""Damage in a file that Pillow decodes anyway, with gray or black in place of missing pixels.

In: the bytes of a JPEG or PNG that Pillow has opened. Out: a SampleError that says what is damaged, or
nothing. Promised: for JPEGs the rule of csrc/decode/jpeg.h; the decompressed bytes of a PNG are not kept. The
native threads stop reading below the crop (with all kernels at the same row), so only this check finds bad
codes below it: whether such a file is bad may depend on a random crop.

The rule, for every decoder. A JPEG is whole if it has an end marker and libjpeg did not fill in pixels: its
warnings of a premature end, a bad code, a lost restart interval or inconsistent scans mean damage. Bytes that
it skips before a marker are harmless, and so is whatever follows the end: padding, previews, videos. A PNG is
whole if all of its rows are present; what follows them may be truncated, including checksums and the end
chunk. Pillow itself refuses a truncated GIF, WebP, BMP, TIFF or PNM. No check finds wrong but readable
values, because JPEG has no checksum; nor a JPEG with arithmetic coding that was truncated and closed by an
end marker, because its codes never run out.

DALI checks less (dali/gate.py). Without a libjpeg (backend.py), Pillow or simplejpeg decide about a JPEG.
"""

import functools
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from fastload import _native
from fastload.decode.backend import load_libjpeg
from fastload.errors import SampleError

_PIECE_BYTES = 1 << 16  # decompressed at once, and dropped
# Adam7: left, top, and the steps to the right and down, of the seven passes
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PALETTE = 3


def check_jpeg(content: bytes) -> None:
    """Raises SampleError for a JPEG that libjpeg would complete with gray, or decode for minutes."""
    if not _has_libjpeg():
        return
    reason = _native.jpeg_damage(content)
    if reason:
        raise SampleError(f"cannot decode the JPEG image: {reason}")


def pixel_chunks(content: bytes) -> bytes:
    """The PNG without the chunks that no pixel depends on: texts, profiles, later frames of an animation.

    Pillow decompresses texts and profiles when it opens a file, and refuses large texts, such as the
    workflows that some programs store there. Raises SampleError for a palette image without a palette, which
    Pillow would decode as black.
    """
    kept, start, has_palette = [], 0, False
    for at, kind, stop in _chunks(content):
        has_palette = has_palette or kind == b"PLTE"
        if kind == b"IDAT" and _colour_type(content) == _PALETTE and not has_palette:
            raise SampleError("cannot decode the PNG image: it has no palette")
        if kind[0] & 0x20 and kind != b"tRNS":  # lower case: ancillary
            kept.append(content[start:at])
            start = stop
    return b"".join((*kept, content[start:])) if start else content


def check_rows(image: Image.Image, content: bytes) -> None:
    """Raises SampleError for a PNG whose pixels end early; Pillow leaves the missing ones black.

    image: as decoded from `content`. The file is decompressed a second time only if the last row is black, or
    the rows are interlaced.
    """
    is_interlaced = content[28] != 0
    if is_interlaced or not np.asarray(image)[-1].any():
        needed, found = _pixel_bytes(content), 0
        for piece in _inflated(content):
            found += len(piece)
            if found >= needed:
                return
        raise SampleError(f"cannot decode the PNG image: its pixels end after {found} of {needed} bytes")


def packed_text_bytes(content: bytes) -> int:
    """Bytes of the texts and profiles that a PNG stores compressed."""
    texts = (b"zTXt", b"iTXt", b"iCCP")
    return sum(stop - at for at, kind, stop in _chunks(content) if kind in texts)


@functools.cache
def _has_libjpeg() -> bool:
    return load_libjpeg()[0] is not None


def _chunks(content: bytes) -> Iterator[tuple[int, bytes, int]]:
    """(start, type, stop) of every whole chunk; ends at the first bytes that are not one."""
    at = 8
    while at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        stop = at + 12 + length
        if stop > len(content) or not kind.isalpha():
            return
        yield at, kind, stop
        at = stop


def _colour_type(content: bytes) -> int:
    return content[25]


def _pixel_bytes(content: bytes) -> int:
    """The decompressed size of a PNG's pixels: rows of whole bytes, each preceded by its filter byte."""
    width, height, bits = struct.unpack_from(">IIB", content, 16)
    pixel_bits = bits * {0: 1, 2: 3, _PALETTE: 1, 4: 2, 6: 4}[_colour_type(content)]
    passes = _PASSES if content[28] else ((0, 0, 1, 1),)
    needed = 0
    for left, top, right, down in passes:
        columns, rows = -(-(width - left) // right), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            needed += rows * (1 + -(-columns * pixel_bits // 8))
    return needed


def _inflated(content: bytes) -> Iterator[bytes]:
    """The decompressed pixels, in pieces, as far as the bytes go."""
    # Raw deflate: zlib's checksum after the pixels may be truncated or wrong.
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    header_bytes = 2  # zlib's
    for rest in _pixel_data(content):
        rest, header_bytes = rest[header_bytes:], max(0, header_bytes - len(rest))
        while rest and not inflate.eof:
            try:
                yield inflate.decompress(rest, _PIECE_BYTES)
            except zlib.error:
                return
            rest = inflate.unconsumed_tail


def _pixel_data(content: bytes) -> Iterator[bytes]:
    """The contents of the IDAT chunks; the last of them may be truncated."""
    end = 8
    for at, kind, stop in _chunks(content):
        end = stop
        if kind == b"IDAT":
            yield content[at + 8 : stop - 4]
    if content[end + 4 : end + 8] == b"IDAT":
        yield content[end + 8 :]
