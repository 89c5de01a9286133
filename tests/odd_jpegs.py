"""JPEGs by hand that no encoder writes: lies, damage, bombs, and processes that are rare.

`odd_jpegs()` must decode, `refused_jpegs()` must not; those in `DALI_FILLS_IN` are refused by all backends
but DALI. odd_images.py joins them with files of other formats.
"""

import functools
import re
import struct

import numpy as np

from tests.corpus import PHOTOS, SIZE, encode, picture, pictures

JPEGS = PHOTOS.parent / "jpegs"
PREMATURE = "Corrupt JPEG data: premature end of data segment"
END = b"\xff\xd9"
MIB = 1 << 20
# Damage between the header and the end marker of a JPEG: see dali/gate.py.
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
def odd_jpegs() -> dict[str, bytes]:
    """Files that must decode, by name."""
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


def refused_jpegs() -> dict[str, tuple[bytes, str]]:
    """Name -> (file, pattern of the reason)."""
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
        "empty": (b"", "^(sample 0: field 'image': )?the file is empty$"),
        "jpeg without its end": (jpeg[:-2], no_end),
        "jpeg with half its end": (jpeg[:-1], no_end),
        "jpeg cut": (jpeg[: len(jpeg) * 3 // 4], no_end),
        "jpeg with a thumbnail cut": (odd_jpegs()["jpeg with a thumbnail"][:-90], no_end),
        "jpeg cmyk cut": (pictures()["jpeg cmyk"][:-60], no_end),
        "jpeg cmyk cut and closed": (pictures()["jpeg cmyk"][:-60] + END, PREMATURE),
        "jpeg arithmetic cut": (odd_jpegs()["jpeg arithmetic"][:-60], no_end),
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


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


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


def _one_code(table: int, symbol: int) -> bytes:
    """A Huffman table of one symbol, whose code is 0."""
    return segment(0xC4, bytes([table, 1, *[0] * 15, symbol]))


_DC_TABLE = segment(0xC4, bytes([0x00, 0, 0, 0, 0, 16, *[0] * 11, *range(16)]))  # category n is the code n
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
