"""Files by hand that no encoder writes: lies, damage, bombs, and kinds of JPEG and PNG that are rare.

`odd()` are files that must decode, by name; `refused()` are files that must not, each with a pattern of the
reason. Those in `DALI_FILLS_IN` are refused by all backends but DALI. All are made once a process; corpus.py
makes the ordinary ones.
"""

import functools
import re
import struct
import zlib

import numpy as np

from tests.corpus import PHOTOS, SIZE, encode, picture, pictures

JPEGS = PHOTOS.parent / "jpegs"
PREMATURE = "Corrupt JPEG data: premature end of data segment"
END = b"\xff\xd9"
MIB = 1 << 20
# Damage between the header and the end marker of a JPEG: see dali_gate.py.
DALI_FILLS_IN = frozenset(
    {
        "jpeg cut and closed",
        "jpeg cut in its last bytes and closed",
        "jpeg progressive cut and closed",
        "jpeg of fewer rows than it claims",
        "jpeg of fewer columns than it claims",
        "jpeg progressive of fewer rows than it claims",
        "jpeg with a bad code",
        "jpeg that lost a restart marker",
        "jpeg that lost a restart interval",
    }
)


@functools.cache
def odd() -> dict[str, bytes]:
    """Files that must decode, by name."""
    return {**_odd_jpegs(), **_odd_pngs(), **_odd_others()}


@functools.cache
def refused() -> dict[str, tuple[bytes, str]]:
    """Name -> (file, pattern of the reason)."""
    return {**_refused_jpegs(), **_refused_pngs(), **_refused_others()}


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_size(jpeg: bytes, width: int, height: int) -> bytes:
    """The JPEG with another size in its frame header."""
    at = re.search(rb"\xff[\xc0\xc2]", jpeg).start() + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def with_adobe(jpeg: bytes, transform: int) -> bytes:
    """The JPEG with Adobe's marker, which says how its colours are stored."""
    at = jpeg.find(b"Adobe")
    if at >= 0:
        return jpeg[: at + 11] + bytes([transform]) + jpeg[at + 12 :]
    return jpeg[:2] + segment(0xEE, b"Adobe\0d\0\0\0\0" + bytes([transform])) + jpeg[2:]


def flat_blocks(levels: np.ndarray, bits: int) -> bytes:
    """A gray JPEG of `bits` a sample; each of `levels` [h, w] becomes a block of 8 x 8."""
    height, width = levels.shape
    last, codes = 0, ""
    for level in levels.ravel().astype(int) - (1 << (bits - 1)):
        codes += _difference(int(level) - last) + "0"
        last = int(level)
    frame = struct.pack(">BHHB", bits, height * 8, width * 8, 1) + b"\1\x11\0"
    tables = segment(0xDB, bytes([0, *[8] * 64])) + _DC_TABLE + _AC_TABLE
    scan = segment(0xDA, b"\1\1\0\0\x3f\0") + _packed(codes)
    return b"\xff\xd8" + tables + segment(0xC1, frame) + scan + END


def lossless(levels: np.ndarray) -> bytes:
    """A lossless JPEG of `levels` [h, w, channels] uint8: differences to the left neighbour."""
    height, width, channels = levels.shape
    padded = levels.astype(int)
    codes = ""
    for y, x, k in np.ndindex(levels.shape):
        guess = padded[y, x - 1, k] if x else padded[y - 1, x, k] if y else 128
        codes += _difference(int(padded[y, x, k] - guess))
    frame = struct.pack(">BHHB", 8, height, width, channels)
    frame += b"".join(bytes([k + 1, 0x11, 0]) for k in range(channels))
    scan = bytes([channels]) + b"".join(bytes([k + 1, 0]) for k in range(channels)) + b"\1\0\0"
    return b"\xff\xd8" + segment(0xC3, frame) + _DC_TABLE + segment(0xDA, scan) + _packed(codes) + END


def many_scans(side: int, scans: int) -> bytes:
    """A progressive gray JPEG that is valid, of `scans` scans at most 882, each next to nothing to store."""
    blocks = (-(-side // 8)) ** 2
    runs = [32767] * (blocks // 32767) + [16384] * (blocks % 32767 > 0)  # of blocks without a coefficient
    empty = _packed("".join("0" + format(run - 16384, "014b") for run in runs))
    content = b"\xff\xd8" + segment(0xDB, bytes([0, *[1] * 64]))
    content += segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0")
    content += _one_code(0x00, 0x00) + _one_code(0x10, 0xE0)
    content += segment(0xDA, b"\1\1\0\0\0\0") + bytes(-(-blocks // 8))
    parts = [(k, bit) for k in range(1, 64) for bit in range(13, -1, -1)]
    for k, bit in parts[: scans - 1]:
        before = 0 if bit == 13 else bit + 1
        content += segment(0xDA, bytes([1, 1, 0, k, k, before << 4 | bit])) + empty
    return content + END


def empty_scans(side: int, scans: int) -> bytes:
    """A JPEG of three channels, a scan each, and of further scans that hold nothing."""
    blocks = (-(-side // 8)) ** 2
    frame = struct.pack(">BHHB", 8, side, side, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
    content = b"\xff\xd8" + segment(0xDB, bytes([0, *[1] * 64])) + segment(0xC0, frame)
    content += _one_code(0x00, 0) + _one_code(0x10, 0)
    for i in range(scans):
        content += segment(0xDA, bytes([1, i % 3 + 1, 0, 0, 63, 0])) + bytes(-(-blocks // 4) * (i < 3))
    return content + END


def png_of(width: int, height: int, pixels: bytes, *chunks: tuple[bytes, bytes], kind=(8, 2, 0)) -> bytes:
    """A PNG of deflated `pixels`; kind: bits, colour type, interlace."""
    header = struct.pack(">IIBBBBB", width, height, kind[0], kind[1], 0, 0, kind[2])
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def _odd_jpegs() -> dict[str, bytes]:
    jpeg, cmyk, gray = (pictures()[name] for name in ("jpeg 420", "jpeg cmyk", "jpeg gray"))
    small = encode(picture(24, 16, seed=4), "JPEG")
    files = {
        "jpeg and one byte": jpeg + b"x",
        "jpeg and half a marker": jpeg + b"\xff",
        "jpeg and a MB of zeros": jpeg + bytes(MIB),
        "jpeg and a MB of fill bytes": jpeg + b"\xff" * MIB,
        "two jpegs": jpeg + small,
        "jpeg with a thumbnail": jpeg[:2] + segment(0xE1, b"Exif\0\0" + _thumbnail(small)) + jpeg[2:],
        "jpeg padded before its end": jpeg[:-2] + bytes(7) + END,
        "jpeg with a segment of length 0": jpeg[:2] + b"\xff\xe1\0\0" + jpeg[2:],
        "jpeg with a segment that runs out of it": jpeg[:-2] + b"\xff\xe1\xff\xff" + END,
        "jpeg with exif that points outside": jpeg[:2]
        + segment(0xE1, b"Exif\0\0II*\0" + struct.pack("<I", 1 << 31))
        + jpeg[2:],
        "jpeg with exif of 65535 entries": jpeg[:2]
        + segment(0xE1, b"Exif\0\0II*\0\10\0\0\0\xff\xff" + bytes(40))
        + jpeg[2:],
        "jpeg extended sequential": jpeg.replace(b"\xff\xc0", b"\xff\xc1", 1),
        "jpeg without huffman tables": _without(jpeg, 0xC4),  # Pillow writes the standard ones, as cameras do
        "jpeg of more rows than it claims": with_size(jpeg, SIZE[0], 16),
        "jpeg arithmetic": (JPEGS / "arithmetic.jpg").read_bytes(),
        "jpeg arithmetic progressive": (JPEGS / "arithmetic-progressive.jpg").read_bytes(),
        "jpeg lossless gray": lossless(picture()[..., :1]),
        "jpeg lossless rgb": with_adobe(lossless(picture()), 0),
        "jpeg of flat blocks": flat_blocks(picture(5, 3)[..., 0], 8),
        "jpeg of 256 scans": many_scans(40, 256),
        "jpeg ycck": with_adobe(cmyk, 2),
        "jpeg cmyk without adobe": _without(cmyk, 0xEE),
    }
    for transform in (0, 1, 2, 200):  # 200, and 2 for three channels and 1 for four, mean nothing
        files[f"jpeg rgb adobe {transform}"] = with_adobe(jpeg, transform)
        files[f"jpeg gray adobe {transform}"] = with_adobe(gray, transform)
        files[f"jpeg cmyk adobe {transform}"] = with_adobe(cmyk, transform)
    return files


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


def _refused_jpegs() -> dict[str, tuple[bytes, str]]:
    jpeg, progressive = pictures()["jpeg 420"], pictures()["jpeg progressive"]
    width, height = SIZE
    restarts = encode(picture(200, 16), "JPEG", subsampling=0, restart_marker_blocks=4)
    first, third = restarts.rindex(b"\xff\xd1"), restarts.rindex(b"\xff\xd3")
    frame = jpeg.index(b"\xff\xc0")
    stop = frame + 2 + struct.unpack_from(">H", jpeg, frame + 2)[0]
    blocks = flat_blocks(picture(50, 30)[..., 0], 8)
    header = "its header is damaged or cut"
    no_end = "the file is cut: it has no end marker"
    two_frames = "two SOF markers"
    return {
        "jpeg without its end": (jpeg[:-2], no_end),
        "jpeg with half its end": (jpeg[:-1], no_end),
        "jpeg cut": (jpeg[: len(jpeg) * 3 // 4], no_end),
        "jpeg with a thumbnail cut": (odd()["jpeg with a thumbnail"][:-90], no_end),
        "jpeg cmyk cut": (pictures()["jpeg cmyk"][:-60], no_end),
        "jpeg cmyk cut and closed": (pictures()["jpeg cmyk"][:-60] + END, PREMATURE),
        "jpeg arithmetic cut": (odd()["jpeg arithmetic"][:-60], no_end),
        "jpeg cut and closed": (jpeg[: len(jpeg) * 3 // 4] + END, PREMATURE),
        "jpeg cut in its last bytes and closed": (jpeg[:-12] + END, PREMATURE),
        "jpeg progressive cut and closed": (progressive[:-40] + END, PREMATURE),
        "jpeg of fewer rows than it claims": (with_size(jpeg, width, height * 2), PREMATURE),
        "jpeg of fewer columns than it claims": (with_size(jpeg, width * 2, height), PREMATURE),
        "jpeg progressive of fewer rows than it claims": (
            with_size(progressive, width, height * 2),
            PREMATURE,
        ),
        "jpeg with a bad code": (
            blocks[:-22] + b"\xff\0" * 10 + END,
            "Corrupt JPEG data: bad Huffman code",
        ),
        "jpeg that lost a restart marker": (restarts[:third] + restarts[third + 2 :], "instead of RST3"),
        "jpeg that lost a restart interval": (restarts[:first] + restarts[third:], "instead of RST1"),
        "jpeg of 12 bits": (flat_blocks(picture(5, 3)[..., 0].astype(int) * 16, 12), "12"),
        "jpeg of 16 bits": (jpeg[: frame + 4] + b"\x10" + jpeg[frame + 5 :], "16"),
        "jpeg of 7 bits": (jpeg[: frame + 4] + b"\x07" + jpeg[frame + 5 :], "7"),
        "jpeg hierarchical": (jpeg[: frame + 1] + b"\xc5" + jpeg[frame + 2 :], "SOF type 0xc5"),
        "jpeg lossless cut and closed": (lossless(picture()[..., :1])[:100] + END, PREMATURE),
        "jpeg of no rows": (with_size(jpeg, width, 0), header),
        "jpeg of no columns": (with_size(jpeg, 0, height), header),
        "jpeg whose height comes behind its pixels": (
            with_size(jpeg, width, 0)[:-2] + segment(0xDC, struct.pack(">H", height)) + END,
            header,
        ),
        "jpeg with two frame headers": (jpeg[:stop] + jpeg[frame:], two_frames),
        "jpeg with two frame headers that differ": (
            jpeg[:stop] + with_size(jpeg, 20, 20)[frame:],
            two_frames,
        ),
        "jpeg with its frame header behind the pixels": (
            jpeg[:frame] + jpeg[stop:-2] + jpeg[frame:stop] + END,
            header,
        ),
        "jpeg without a scan": (jpeg[: jpeg.index(b"\xff\xda")] + END, "missing SOS marker"),
        "jpeg without quantization tables": (_without(jpeg, 0xDB), "Quantization table 0x00 was not defined"),
        "jpeg that is one segment": (b"\xff\xd8\xff\xe1\xff\xff", header),
        "jpeg of 257 scans": (many_scans(40, 257), "more than 256 scans"),
        "jpeg of scans that hold nothing": (empty_scans(40, 300), PREMATURE),
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


_DC_TABLE = segment(0xC4, bytes([0x00, 0, 0, 0, 0, 16, *[0] * 11, *range(16)]))  # category n is the code n


def _one_code(table: int, symbol: int) -> bytes:
    """A Huffman table of one symbol, whose code is 0."""
    return segment(0xC4, bytes([table, 1, *[0] * 15, symbol]))


_AC_TABLE = _one_code(0x10, 0)  # "the rest of the block is zero"


def _difference(value: int) -> str:
    """The code of a difference: its number of bits by _DC_TABLE, then those bits."""
    count = abs(value).bit_length()
    bits = value if value > 0 else value + (1 << count) - 1
    return format(count, "05b") + (format(bits, f"0{count}b") if count else "")


def _packed(codes: str) -> bytes:
    codes += "1" * (-len(codes) % 8)
    return int(codes, 2).to_bytes(len(codes) // 8, "big").replace(b"\xff", b"\xff\0")


def _without(jpeg: bytes, marker: int) -> bytes:
    """The JPEG with these segments turned into comments."""
    start = jpeg.index(b"\xff\xda")
    return jpeg[:start].replace(bytes([0xFF, marker]), b"\xff\xfe") + jpeg[start:]


def _thumbnail(jpeg: bytes) -> bytes:
    """An EXIF block whose second directory names a JPEG behind it."""
    first = struct.pack("<HI", 0, 14)
    second = (
        struct.pack("<H", 2)
        + struct.pack("<HHII", 513, 4, 1, 44)
        + struct.pack("<HHII", 514, 4, 1, len(jpeg))
    )
    return b"II*\0" + struct.pack("<I", 8) + first + second + bytes(4) + jpeg


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
