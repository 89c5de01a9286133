"""Files by hand that no encoder writes: lies, damage and bombs.

`odd()` are files that must decode, by name; `refused()` are files that must not, each with a pattern of the
reason. All are made once a process; odd_jpegs.py has the JPEGs among them, corpus.py makes the ordinary ones.
"""

import functools
import struct
import zlib

import numpy as np

from tests.corpus import SIZE, encode, picture, pictures
from tests.odd_jpegs import MIB, odd_jpegs, refused_jpegs


@functools.cache
def odd() -> dict[str, bytes]:
    """Files that must decode, by name."""
    return {**odd_jpegs(), **_odd_pngs(), **_odd_others()}


@functools.cache
def refused() -> dict[str, tuple[bytes, str]]:
    """Name -> (file, pattern of the reason)."""
    return {**refused_jpegs(), **_refused_pngs(), **_refused_others()}


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width: int, height: int, pixels: bytes, *chunks: tuple[bytes, bytes], kind=(8, 2, 0)) -> bytes:
    """A PNG of deflated `pixels`; kind: bits, colour type, interlace."""
    header = struct.pack(">IIBBBBB", width, height, kind[0], kind[1], 0, 0, kind[2])
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def _odd_pngs() -> dict[str, bytes]:
    whole = pictures()["png rgb"]
    width, height = SIZE
    pixels = _deflated(picture())
    bomb = zlib.compress(bytes(64 * MIB), 9)
    frame = struct.pack(">IIIIIHHBB", 1, width, height, 0, 0, 1, 10, 0, 0)
    later = [
        chunk(b"fcTL", frame),
        chunk(b"fdAT", struct.pack(">I", 2) + _deflated(picture(seed=3))),
        chunk(b"IEND", b""),
    ]
    first = chunk(b"fcTL", struct.pack(">I", 0) + frame[4:])
    still = png_of(width, height, pixels, (b"acTL", struct.pack(">II", 2, 0)))
    at = still.index(b"IDAT") - 4
    return {
        "png and one byte": whole + b"x",
        "png and a MB of zeros": whole + bytes(MIB),
        "png without its end": whole[:-12],
        "png cut in its last checksums": whole[:-20],
        "png with a bad checksum of its end": whole[:-1] + b"x",
        "png of more rows than it claims": png_of(width, 12, pixels),
        "png whose pixels inflate to 64 MB": png_of(width, height, bomb),
        "png with a profile of 64 MB": png_of(width, height, pixels, (b"iCCP", b"x\0\0" + bomb)),
        "png with a text of 64 MB": png_of(width, height, pixels, (b"zTXt", b"x\0\0" + bomb)),
        "png with an international text of 64 MB": png_of(
            width, height, pixels, (b"iTXt", b"x\0\1\0\0\0" + bomb)
        ),
        "png with 99 texts of a MB": png_of(
            width, height, pixels, *[(b"zTXt", b"x\0\0" + zlib.compress(bytes(MIB - 1)))] * 99
        ),
        "png with 9999 texts": png_of(width, height, pixels, *[(b"tEXt", b"x\0")] * 9999),
        "png animated": still[:at] + first + still[at:-12] + b"".join(later),
        "png interlaced": png_of(7, 6, _adam7(picture(7, 6)), kind=(8, 2, 1)),
        "png black": encode(np.zeros((9, 9, 3), np.uint8), "PNG"),
        "png black from the middle": encode(picture() * (np.arange(SIZE[1]) < 11)[:, None, None], "PNG"),
        "png with an index outside its palette": png_of(
            4, 1, zlib.compress(b"\0\0\1\2\3"), (b"PLTE", b"abcdef"), kind=(8, 3, 0)
        ),
    }


def _odd_others() -> dict[str, bytes]:
    gif = pictures()["gif"]
    animated = pictures()["webp animated"]
    files = {
        f"{name} and junk": pictures()[name] + b"junk" * 99
        for name in ("gif", "webp lossy", "webp lossless", "bmp 24", "tiff rgb", "ppm")
    }
    return files | {
        "gif with a frame larger than its screen": gif[:6] + struct.pack("<HH", 3, 3) + gif[10:],
        "gif with a screen of no pixels": gif[:6] + bytes(4) + gif[10:],
        "gif without its trailer": gif[:-2],
        "webp with a canvas larger than its frames": animated[:24] + b"\x63\0\0\x63\0\0" + animated[30:],
        "bmp without its last padding": pictures()["bmp 24"][:-1],
    }


def _refused_pngs() -> dict[str, tuple[bytes, str]]:
    whole, (width, height) = pictures()["png rgb"], SIZE
    pixels, row = _deflated(picture()), 1 + 3 * SIZE[0]
    short = zlib.compress(zlib.decompress(pixels)[: 11 * row])
    header, ends = "its header is damaged or cut", "its pixels end after {} of {} bytes"
    return {
        "png cut in its header": (whole[:20], header),
        "png that is a header": (whole[:33], header),
        "png of fewer rows than it claims": (
            png_of(width, height * 2, pixels),
            ends.format(height * row, 2 * height * row),
        ),
        "png whose pixels end early": (
            png_of(width, height, short),
            ends.format(11 * row, height * row),
        ),
        "png interlaced whose pixels end early": (
            png_of(7, 6, zlib.compress(zlib.decompress(_adam7(picture(7, 6)))[:-22]), kind=(8, 2, 1)),
            ends.format(116, 138),
        ),
        "png of fewer columns than it claims": (
            png_of(width * 2, height, pixels),
            "unrecognized data stream contents",
        ),
        "png of more columns than it claims": (
            png_of(width // 2, height, pixels),
            "unrecognized data stream contents",
        ),
        "png whose pixels are cut": (png_of(width, height, pixels[: len(pixels) // 2]), "truncated"),
        "png with damaged pixels": (png_of(width, height, pixels[:-1] + b"?"), "broken data stream"),
        "png with an unknown filter": (
            png_of(width, height, zlib.compress(b"\x09" + bytes(3 * width))),
            "unrecognized data stream contents",
        ),
        "png with a bad checksum of its header": (whole[:29] + b"????" + whole[33:], "bad header checksum"),
        "png without its palette": (
            png_of(4, 1, zlib.compress(b"\0\0\1\2\3"), kind=(8, 3, 0)),
            "it has no palette",
        ),
    }


def _refused_others() -> dict[str, tuple[bytes, str]]:
    lossy, alpha = pictures()["webp lossy"], pictures()["webp lossy alpha"]
    animated, bmp = pictures()["webp animated"], pictures()["bmp 24"]
    gif, lzw = pictures()["gif"], encode(picture(), "TIFF", compression="tiff_lzw")
    truncated, chunks, pixels = "truncated", "its chunks are damaged or cut", "its pixels are damaged or cut"
    half = bytearray(lossy[: len(lossy) // 2])
    half[4:8] = struct.pack("<I", len(half) - 8)
    return {
        "gif cut in its pixels": (gif[: len(gif) // 2], truncated),
        "gif whose codes end early": (_gif([4, 1] * 8 + [5]), truncated),
        "gif with a bad code": (_gif([4, 1] * 8 + [4, 7, 7, 7, 5]), "broken data stream"),
        "webp without its last byte": (lossy[:-1], chunks),
        "webp cut, of the size that it says": (bytes(half), chunks),
        "webp of another size inside": (lossy[:26] + struct.pack("<HH", 200, 200) + lossy[30:], pixels),
        "webp with a larger canvas": (alpha[:24] + b"\xff\0\0\xff\0\0" + alpha[30:], chunks),
        "webp with a smaller canvas": (alpha[:24] + b"\x03\0\0\x03\0\0" + alpha[30:], chunks),
        "webp animated with a smaller canvas": (animated[:24] + b"\x03\0\0\x03\0\0" + animated[30:], chunks),
        "bmp of fewer rows than it claims": (bmp[:22] + struct.pack("<i", 230) + bmp[26:], truncated),
        "ppm of fewer rows than it claims": (b"P6 37 230 255\n" + bytes(37 * 23 * 3), truncated),
        "ppm of a size without end": (b"P6 99999999999 2 255\n" + bytes(99), "Token too long"),
        "tiff cut in its pixels": (pictures()["tiff rgb"][:-1], truncated),
        "tiff with damaged codes": (
            lzw[: len(lzw) // 2] + bytes(200) + lzw[len(lzw) // 2 + 200 :],
            pixels,
        ),
    }


def _deflated(levels: np.ndarray) -> bytes:
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in levels))


def _adam7(levels: np.ndarray) -> bytes:
    rows = b""
    for left, top, right, down in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        part = levels[top::down, left::right]
        rows += b"".join(b"\0" + row.tobytes() for row in part if row.size)
    return zlib.compress(rows)


def _gif(codes: list[int]) -> bytes:
    """A GIF of 4 x 4 pixels from LZW codes of 3 bits: 4 clears, 5 ends."""
    bits = sum(code << 3 * i for i, code in enumerate(codes))
    packed = bits.to_bytes(-(-3 * len(codes) // 8), "little")
    head = b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0xF0, 0, 0) + bytes([255, 0, 0, 0, 255, 0])
    return head + b"," + struct.pack("<HHHHBB", 0, 0, 4, 4, 0, 2) + bytes([len(packed)]) + packed + b"\0;"
