"""The corpora that the fuzz targets begin with, made in code from what the other tests make.

`seeds(target)` are inputs by name. Small: a fuzzer runs small inputs more often, and tarfile's padding to
10 KiB would be most of each. What once broke something lies in regressions/TARGET and is among them.
"""

import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests import corpus
from tests.shards import shard_corpus as shards

REGRESSIONS = Path(__file__).parent / "regressions"
BLOCK = shards.BLOCK
RECIPE_BYTES = 8  # of fuzz_jpeg.cpp


def seeds(target: str) -> dict[str, bytes]:
    """Inputs of a target by name, what once broke it among them."""
    kept = {path.name: path.read_bytes() for path in sorted((REGRESSIONS / target).glob("*"))}
    return {**SEEDS[target](), **kept}


def write_seeds(target: str, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, content in seeds(target).items():
        (folder / name.replace(" ", "-")).write_bytes(content)
    return folder


def tars() -> dict[str, bytes]:
    link, folder = tarfile.TarInfo("link.jpg"), tarfile.TarInfo("folder/")
    link.type, link.linkname, folder.type = tarfile.SYMTYPE, "x" * 120, tarfile.DIRTYPE
    short, end = ["a.jpg", "a.cls", "dir/b.jpg", "__index__/a.jpg", ".hidden.jpg", "none"], bytes(2 * BLOCK)
    long = ["x" * 90 + "/" + "y" * 60 + ".jpg", "x" * 90 + "/" + "z" * 120 + ".jpg", "sché.txt"]

    def tar(names: list[str], tar_format: int = tarfile.PAX_FORMAT, special: tuple = ()) -> bytes:
        small = dict.fromkeys(name for name in names if len(shards.content_of(name)) < 2000)
        return trimmed(shards.tar_bytes(list(small), tar_format, special))

    def member(
        name: bytes = b"a.jpg", size: int | bytes = 3, kind: bytes = b"0", magic=b"ustar\x0000"
    ) -> bytes:
        return shards.header_block(name, size, kind, magic) + shards.padded(b"abc")

    return {
        "empty": b"",
        "end": end,
        "short": tar(short),
        "links and folders": tar(short, special=(link, folder)),
        "long names pax": tar(long),
        "long names gnu": tar(long, tarfile.GNU_FORMAT, (link,)),
        "ustar": tar([*short, "x" * 90 + "/" + "y" * 60 + ".jpg"], tarfile.USTAR_FORMAT),
        "base 256": member(size=b"\x80" + bytes(10) + b"\3") + end,
        "old": member(magic=bytes(8)) + end,
        "gnu magic": member(magic=b"ustar  \0") + end,
        "pax size": shards.pax_header({"path": "b.png", "size": "3"}) + member() + end,
        "pax empty": shards.pax_header({"path": "", "size": ""}) + member() + end,
        "pax global": shards.pax_header({"comment": "x"}, b"g") + member() + end,
        "sparse": shards.pax_header({"GNU.sparse.major": "1"}) + member() + end,
        "kinds": b"".join(
            member(b"m%d.jpg" % i, 0, kind)[:BLOCK] for i, kind in enumerate((b"1", b"3", b"5", b"V"))
        )
        + end,
        "keys out of order": member(b"b.jpg") + member(b"a.jpg") + member(b"c.jpg") + end,
        "key comes back": member(b"a.jpg") + member(b"b.jpg") + member(b"a.txt") + end,
        "no end marker": member(),
    }


def trimmed(tar: bytes) -> bytes:
    """Without the padding behind the first two blocks of zeros."""
    content = tar.rstrip(b"\0")
    return shards.padded(content) + bytes(2 * BLOCK)


def zips() -> dict[str, bytes]:
    names = ["a.jpg", "a.txt", "folder/b.jpg", "dataset.json"]

    def packed(*members: tuple[str, bytes], force_zip64: bool = False, **options) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", **options) as archive:
            for name, content in members:
                with archive.open(zipfile.ZipInfo(name), "w", force_zip64=force_zip64) as member:
                    member.write(content)
        return out.getvalue()

    def small(names: list[str], comment: bytes = b"") -> bytes:
        return shards.zip_bytes([name for name in names if len(shards.content_of(name)) < 1500], comment)

    encrypted = bytearray(packed(("a.jpg", b"abc"), ("b.jpg", b"")))
    encrypted[encrypted.rfind(b"PK\1\2") + 8] |= 1
    link = zipfile.ZipInfo("link.jpg")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("folder/", b"")
        archive.writestr(link, b"a.jpg")
        archive.writestr(zipfile.ZipInfo("folder/a.jpg"), b"abc")
    return {
        "empty": b"",
        "no members": packed(),
        "small": small(names),
        "comment": small(names, b"a comment"),
        "zip64 member": packed(("a.jpg", b"abc"), force_zip64=True),
        "zip64": zip64(),
        "zip64 numbers": zip64(classic_end=True),
        "zip64 field that is cut": zip64(struct.pack("<2H2Q", 1, 24, 3, 3), classic_end=True),
        "zip64 field behind another": zip64(
            struct.pack("<2H4s2H3Q", 7, 4, b"text", 1, 24, 3, 3, 0), classic_end=True
        ),
        "deflated": packed(("a.jpg", b"abc" * 20), compression=zipfile.ZIP_DEFLATED),
        "encrypted": bytes(encrypted),
        "links and folders": out.getvalue(),
    }


def zip64(extra: bytes = struct.pack("<2H3Q", 1, 24, 3, 3, 0), classic_end: bool = False) -> bytes:
    """One member whose numbers stand in a zip64 field; a zip64 end record, or the plain one."""
    name, content, full = b"a.jpg", b"abc", 2**32 - 1
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 45, 0, 0, 0, 0, 0, 3, 3, len(name), 0) + name + content
    versions = struct.pack("<4s4B4H", b"PK\1\2", 45, 3, 45, 0, 0, 0, 0, 0)
    entry = versions + struct.pack("<3L5H2L", 0, full, full, len(name), len(extra), 0, 0, 0, 0, full)
    entry += name + extra
    start, stop = len(local), len(local) + len(entry)
    if classic_end:
        return local + entry + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(entry), start, 0)
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(entry), start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, stop, 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, full, full, 0)
    return local + entry + end64 + locator + end


def image_headers() -> dict[str, bytes]:
    """The first KiB of every picture: its header is what counts."""
    return {name: content[:1024] for name, content in {**corpus.pictures(), **corpus.broken()}.items()}


def jpegs() -> dict[str, bytes]:
    """Small JPEGs of every kind that libjpeg takes, each behind a recipe of its own."""
    rng = np.random.default_rng(0)
    pixels = corpus.picture(29, 19)
    files = {
        f"{name} {kind}": corpus.encode(pixels, "JPEG", quality=70, subsampling=i, **options)
        for i, name in enumerate(("444", "422", "420"))
        for kind, options in (
            ("baseline", {}),
            ("progressive", {"progressive": True}),
            ("restarts", {"restart_marker_blocks": 2}),
        )
    }
    files |= {f"exif-{turn}": corpus.encode(pixels, "JPEG", turn, quality=70) for turn in range(2, 9)}
    files |= {
        "gray": corpus.encode(pixels[..., 0], "JPEG"),
        "rgb": corpus.encode(pixels, "JPEG", keep_rgb=True),
        "1 x 1": corpus.encode(pixels[:1, :1], "JPEG"),
        "large 420": corpus.encode(corpus.picture(150, 100), "JPEG", quality=30),
        "large 420 progressive": corpus.encode(
            corpus.picture(150, 100), "JPEG", quality=30, progressive=True
        ),
        "cmyk": corpus.pictures()["jpeg cmyk"],
        "cut": files["420 baseline"][:-60],
    }
    return {name: rng.bytes(RECIPE_BYTES) + content for name, content in files.items()}


SEEDS: dict[str, Callable[[], dict[str, bytes]]] = {
    "tar": tars,
    "zip": zips,
    "image_header": image_headers,
    "jpeg": jpegs,
}
