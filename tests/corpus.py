"""Odd inputs, made in code: every kind of image file that a dataset may hold, and the broken ones.

`pictures()` are files that must decode, by name; `broken()` are files that must be refused with a reason.
Both are made once a process. `picture(width, height, seed)` is a photo-like image, smooth with edges and a
little noise, so that resize filters and JPEG have something to get wrong. `photos()` are the real ones in
tests/data/photos. What no encoder writes is made by hand in odd_images.py.
"""

import functools
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

PHOTOS = Path(__file__).parent / "data" / "photos"
SIZE = (37, 23)  # width, height of most pictures: odd, prime, not square
ORIENTATION = 0x0112


def photos() -> dict[str, bytes]:
    """The real photographs, by file name."""
    return {path.name: path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg"))}


def picture(width: int = SIZE[0], height: int = SIZE[1], seed: int = 0) -> np.ndarray:
    """A photo-like image: [height, width, 3] uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = []
    for _ in range(3):
        fx, fy, phase = rng.uniform(0.5, 3.0, 3)
        wave = np.sin(x / max(width, 1) * 6.0 * fx + y / max(height, 1) * 6.0 * fy + phase)
        edge = (x * rng.uniform(-1, 1) + y * rng.uniform(-1, 1)) > rng.uniform(-1, 1) * width / 2
        planes.append(128 + 70 * wave + 40 * edge - 20)
    levels = np.stack(planes, axis=-1) + rng.normal(0, 4, (height, width, 3))
    return np.clip(np.round(levels), 0, 255).astype(np.uint8)


def encode(image: np.ndarray | Image.Image, format: str, orientation: int = 0, **options) -> bytes:
    """The image as a file of Pillow's `format`; orientation 1..8 is written as EXIF, 0 writes none."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    if orientation:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options["exif"] = exif
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def png(colour_type: int, bits: int, rows: list[bytes], width: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file from unfiltered rows, for kinds that Pillow does not write; `chunks` precede the pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    body = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in body)


def tiff(*entries: tuple[int, int, int, int]) -> bytes:
    """A TIFF of 8-bit gray zeros; entries (tag, type, count, value) come before the usual ones."""
    entries = (*entries, (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 4))
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return (
        b"II*\0" + struct.pack("<I", 14) + bytes(6) + struct.pack("<H", len(entries)) + directory + bytes(4)
    )


@functools.cache
def pictures() -> dict[str, bytes]:
    """Files that must decode, by name; those named exif-N are `picture()` stored with orientation N."""
    return {**_jpegs(), **_pngs(), **_other_formats(), **_sizes()}


@functools.cache
def broken() -> dict[str, bytes]:
    """Files that must be refused, by name."""
    jpeg, whole_png = pictures()["jpeg 420"], pictures()["png rgb"]
    return {
        "empty": b"",
        "one byte": b"\xff",
        "text": b"<html><body>404 not found</body></html>",
        "zeros": bytes(1000),
        "jpeg cut in the header": jpeg[:100],
        "jpeg cut in the middle": jpeg[: len(jpeg) // 2],
        "jpeg without its last quarter": jpeg[: len(jpeg) * 3 // 4],
        "jpeg magic and garbage": b"\xff\xd8\xff" + bytes(range(256)) * 4,
        "png cut in the middle": whole_png[: len(whole_png) // 2],
        "png with a bad checksum": whole_png[:40] + bytes([whole_png[40] ^ 1]) + whole_png[41:],
        "png of no rows": png(2, 8, [], 5),
        "gif cut": pictures()["gif"][:20],
        "webp cut": pictures()["webp lossy"][:-20],
        "tiff cut": pictures()["tiff rgb"][:8],
        "bmp cut": pictures()["bmp 24"][:60],
        "ppm cut": pictures()["ppm"][:-1],
    }


def _jpegs() -> dict[str, bytes]:
    rgb, gray = picture(), picture()[..., 0]
    cmyk = Image.fromarray(rgb).convert("CMYK")
    files = {
        f"jpeg {name}": encode(rgb, "JPEG", subsampling=i) for i, name in enumerate(("444", "422", "420"))
    }
    files |= {
        "jpeg progressive": encode(rgb, "JPEG", progressive=True),
        "jpeg gray": encode(gray, "JPEG"),
        "jpeg progressive gray": encode(gray, "JPEG", progressive=True),
        "jpeg cmyk": encode(cmyk, "JPEG"),
        "jpeg rgb inside": encode(rgb, "JPEG", keep_rgb=True),
        "jpeg with restarts": encode(rgb, "JPEG", restart_marker_blocks=2),
        "jpeg with trailing garbage": encode(rgb, "JPEG") + b"garbage" * 9,
    }
    for orientation in range(1, 9):
        files[f"jpeg exif-{orientation}"] = encode(rgb, "JPEG", orientation, quality=95, subsampling=0)
    return files


def _pngs() -> dict[str, bytes]:
    rgb, alpha = picture(), picture(seed=1)[..., 0]
    image = Image.fromarray(rgb)
    rgba = np.dstack([rgb, alpha])
    palette = image.quantize(17)
    gray16 = picture().astype(np.uint16)[..., 0] * 256 + picture(seed=2)[..., 0]
    deep = (rgb.astype(np.uint16) * 256 + 77).astype(">u2")
    files = {
        "png rgb": encode(rgb, "PNG"),
        "png gray": encode(rgb[..., 0], "PNG"),
        "png gray alpha": encode(Image.fromarray(rgba).convert("LA"), "PNG"),
        "png rgba": encode(rgba, "PNG"),
        "png palette": encode(palette, "PNG"),
        "png palette 4 bits": encode(image.quantize(11), "PNG", bits=4),
        "png palette transparent": encode(palette, "PNG", transparency=3),
        "png palette with alphas": encode(palette, "PNG", transparency=bytes(range(0, 170, 10))),
        "png rgb with a transparent colour": encode(
            rgb, "PNG", transparency=tuple(int(v) for v in rgb[3, 4])
        ),
        "png 1 bit": encode(image.convert("1"), "PNG"),
        "png gray 16 bits": encode(gray16, "PNG"),
        "png rgb 16 bits": png(2, 16, [row.tobytes() for row in deep], SIZE[0]),
    }
    for orientation in range(1, 9):
        files[f"png exif-{orientation}"] = encode(rgb, "PNG", orientation)
    return files


def _other_formats() -> dict[str, bytes]:
    rgb = picture()
    image, other = Image.fromarray(rgb), Image.fromarray(picture(seed=3))
    rgba = Image.fromarray(np.dstack([rgb, picture(seed=1)[..., 0]]))
    gray16 = picture().astype(np.uint16)[..., 0] * 256 + 5
    files = {
        "gif": encode(image.quantize(31), "GIF"),
        "gif gray": encode(image.convert("L"), "GIF"),
        "gif transparent": encode(image.quantize(31), "GIF", transparency=4),
        "gif animated": encode(image, "GIF", save_all=True, append_images=[other]),
        "webp lossy": encode(image, "WEBP", quality=80),
        "webp lossless": encode(image, "WEBP", lossless=True),
        "webp alpha": encode(rgba, "WEBP", lossless=True, exact=True),
        "webp lossy alpha": encode(rgba, "WEBP"),
        "webp animated": encode(image, "WEBP", save_all=True, append_images=[other], lossless=True),
        "bmp 24": encode(image, "BMP"),
        "bmp 8": encode(image.quantize(200), "BMP"),
        "bmp gray": encode(image.convert("L"), "BMP"),
        "bmp 1": encode(image.convert("1"), "BMP"),
        "bmp 32": encode(rgba, "BMP"),
        "tiff rgb": encode(image, "TIFF"),
        "tiff lzw": encode(image, "TIFF", compression="tiff_lzw"),
        "tiff jpeg": encode(image, "TIFF", compression="jpeg"),
        "tiff cmyk": encode(image.convert("CMYK"), "TIFF"),
        "tiff palette": encode(image.quantize(31), "TIFF"),
        "tiff rgba": encode(rgba, "TIFF"),
        "tiff gray 16 bits": encode(gray16, "TIFF"),
        "tiff float": encode(rgb[..., 0].astype(np.float32) / 255, "TIFF"),
        "tiff big": encode(image, "TIFF", big_tiff=True),
        "tiff of two pages": encode(image, "TIFF", save_all=True, append_images=[other]),
        "ppm": encode(image, "PPM"),
        "pgm": encode(image.convert("L"), "PPM"),
        "pbm": encode(image.convert("1"), "PPM"),
        "pgm 16 bits": encode(gray16, "PPM"),
        "pgm in words": b"P2\n# a comment\n3 # another\n2\n255\n0 1 2\n3 4 255\n",
    }
    for orientation in range(1, 9):
        files[f"webp exif-{orientation}"] = encode(rgb, "WEBP", orientation, lossless=True)
        files[f"tiff exif-{orientation}"] = encode(rgb, "TIFF", orientation)
    return files


def _sizes() -> dict[str, bytes]:
    files = {}
    for width, height in ((1, 1), (1, 2), (2, 1), (7, 8), (8, 7), (16, 16), (17, 15), (64, 900), (900, 64)):
        for format in ("JPEG", "PNG"):
            files[f"{format.lower()} {width} x {height}"] = encode(picture(width, height), format)
    return files
