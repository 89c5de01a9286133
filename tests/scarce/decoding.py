"""A program: what comes of decoding an image with so many MiB of memory left, each try in a child of its own.

Arguments: a folder with images, and how many MiB. It prints one line "file, decoder, MiB: outcome" for each.
"""

import os
import resource
import sys
from pathlib import Path

from fastload import _native
from fastload.decode import pillow, simplejpeg_fallback
from fastload.decode.damage import check_jpeg
from fastload.decode.spec import ImageSpec

SPEC = ImageSpec(32, 32)
MOST_PIXELS = 10**8
DECODERS = {
    "pillow": lambda content: pillow.decode_image(content, SPEC, 0, 0),
    "simplejpeg": lambda content: simplejpeg_fallback.decode_image(
        content, SPEC, 0, 0, max_pixels=MOST_PIXELS
    ),
    "damage": _native.jpeg_damage,
}


def address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")


def outcome(decode, content: bytes, slack_mib: float) -> str:
    most = address_space() + int(slack_mib * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
    try:
        said = decode(content)
        return said if isinstance(said, str) and said else "fine"
    except MemoryError:
        return "MemoryError"
    except Exception as error:
        return f"{type(error).__name__} {error}"


def in_a_child(name: str, decoder: str, content: bytes, slack_mib: float) -> None:
    if os.fork() == 0:
        line = f"{name}, {decoder}, {slack_mib}: {outcome(DECODERS[decoder], content, slack_mib)}\n"
        os.write(1, line.encode())
        os._exit(0)
    os.wait()


def decoders_of(path: Path) -> list[str]:
    return sorted(DECODERS) if path.suffix == ".jpg" else ["pillow"]


def main(folder: Path, slacks_mib: list[float]) -> None:
    check_jpeg((folder / "small.jpg").read_bytes())  # loads libjpeg
    for path in sorted(folder.glob("small.*")):  # imports what reads the format
        for decoder in decoders_of(path):
            DECODERS[decoder](path.read_bytes())
    for path in sorted(folder.glob("large*")):
        content = path.read_bytes()
        for decoder in decoders_of(path):
            for slack_mib in slacks_mib:
                in_a_child(path.name, decoder, content, slack_mib)


if __name__ == "__main__":
    main(Path(sys.argv[1]), list(map(float, sys.argv[2:])))
