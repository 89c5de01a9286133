"""Want of memory, and what the environment says of memory, is never damage of an image."""

import functools
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from fastload import _native, backends
from fastload.decode import reasons
from fastload.errors import SampleError

ROOT = Path(__file__).resolve().parents[2]
LARGE = {  # what is to be written, but for the plain files -> how
    "progressive.jpg": {"progressive": True},
    "cmyk.jpg": {},
    "cmyk progressive.jpg": {"progressive": True},
    "lossless.webp": {"lossless": True, "method": 0},
    "lzw.tif": {"compression": "tiff_lzw"},
    "jpeg.tif": {"compression": "jpeg"},
    "deflate.tif": {"compression": "tiff_adobe_deflate"},
}
FORMATS = {"jpg": "jpg", "png": "zlib", "webp": "webp", "tif": "libtiff", "gif": "", "bmp": "", "ppm": ""}
OPTIONAL = {"simplejpeg": "simplejpeg", "dali": "nvidia.dali"}
FORMATS |= {"jp2": "jpg_2000", "avif": "avif"}


@functools.cache
def picture(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(3).integers(0, 255, (75, 100, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BILINEAR)


def save(path: Path, width: int, height: int, **how) -> None:
    image = picture(width, height)
    (image.convert("CMYK") if "cmyk" in path.name else image).save(path, **how)


def lines_of(module: str, *arguments: str, **variables: str) -> list[str]:
    surroundings = {name: value for name, value in os.environ.items() if name != "JPEGMEM"}
    surroundings |= {"PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-m", f"tests.scarce.{module}", *arguments]
    ran = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


SLACKS_MIB = (0.3, 1, 2, 4, 6, 8, 11, 14, 18, 23, 29, 36, 44, 53, 64, 80, 100, 130, 200)


def assert_no_image_is_called_damaged(folder, formats, large, slacks_mib) -> None:
    """A try with each slack for each format and decoder; some have memory enough, some have not."""
    pytest.importorskip("simplejpeg")
    for suffix in formats:
        save(folder / f"small.{suffix}", 100, 75)
        save(folder / f"large.{suffix}", 2400, 1800)
    for name in large:
        save(folder / f"large {name}", 2400, 1800, **LARGE[name])
    lines = lines_of("decoding", str(folder), *map(str, slacks_mib))
    outcomes = Counter(line.split(": ", 1)[1] for line in lines)
    assert set(outcomes) == {"fine", "MemoryError"}, [line for line in lines if "Sample" in line]
    assert min(outcomes.values()) > len(lines) // 10, outcomes


on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS and /proc/self/statm")


@on_linux
def test_an_image_that_memory_does_not_suffice_for_is_no_damaged_one(tmp_path):
    assert_no_image_is_called_damaged(tmp_path, ["jpg", "png"], ["progressive.jpg"], (1, 14, 36, 200))


@on_linux
@pytest.mark.slow
def test_an_image_of_any_format_that_memory_does_not_suffice_for_is_no_damaged_one(tmp_path):
    formats = [suffix for suffix, needed in FORMATS.items() if not needed or features.check(needed)]
    assert_no_image_is_called_damaged(tmp_path, formats, LARGE, SLACKS_MIB)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for name in ("progressive.jpg", "cmyk progressive.jpg", "jpeg.tif"):
        for number in range(2):
            save(folder / f"{number} {name}", 640, 480 + number, **LARGE[name])
    return folder


def pixels(folder: Path, **variables: str) -> list[str]:
    decoders = ["native", "pillow"]
    decoders += [name for name, module in OPTIONAL.items() if backends.has(module)]
    return lines_of("pixels", str(folder), *decoders, **variables)


@pytest.fixture(scope="module")
def expected(folder) -> list[str]:
    lines = pixels(folder)
    assert all("6 images, 0 bad" in line for line in lines), lines
    return lines


@pytest.mark.parametrize(
    "value", ["1", *(pytest.param(one, marks=pytest.mark.slow) for one in ("100", "1m"))]
)
def test_jpegmem_in_the_environment_changes_nothing(folder, expected, value):
    assert pixels(folder, JPEGMEM=value) == expected


KERNELS = ["JSIMD_FORCENONE", "JSIMD_FORCESSE2", "JSIMD_FORCEAVX2", "JSIMD_NOHUFFENC"]
OTHERS = {
    "OPJ_NUM_THREADS": "3",
    "PILLOW_ALIGNMENT": "64",
    "PILLOW_BLOCK_SIZE": "4096",
    "PILLOW_BLOCKS_MAX": "1",
}


@pytest.mark.slow
@pytest.mark.parametrize("variables", [*({name: "1"} for name in KERNELS), OTHERS], ids=min)
def test_variables_of_decoders_change_no_pixel(folder, expected, variables):
    assert pixels(folder, **variables) == expected


@pytest.mark.parametrize(
    ("message", "is_shortage"),
    [
        ("Insufficient memory (case 4)", True),
        ("Memory limit exceeded", True),
        ("Backing store not supported", True),
        ("Failed to create temporary file x", True),
        ("Write failed on temporary file --- out of disk space?", True),
        ("Image too wide for this implementation", False),
        ("Insufficient memory (case 1)", False),
        ("Corrupt JPEG data: premature end of data segment", False),
    ],
)
def test_what_a_libjpeg_says_of_memory_is_told_from_damage(message, is_shortage):
    assert _native.jpeg_tells_of_memory(message) == is_shortage


def test_what_fails_once_and_not_again_is_no_damage():
    """Another thread had the memory for a moment."""
    calls = []

    def call():
        calls.append(1)
        if len(calls) == 1:
            with reasons.reasons("webp", 100):
                raise ValueError("failed to read next frame")
        return "pixels"

    assert reasons.twice(call) == "pixels"
    with pytest.raises(SampleError, match="its pixels are damaged"), reasons.reasons("webp", 100):
        raise ValueError("failed to read next frame")
    with pytest.raises(MemoryError), reasons.reasons("webp", 1 << 56):
        raise ValueError("failed to read next frame")
