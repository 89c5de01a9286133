"""Corpora made on the spot: JPEGs of one size as files, as tar shards, with what Pillow makes of them.

The photos at hand are small, and enlarged ones would be too smooth to decode at a usual price: an image is a
window of a mosaic of photos in their own size (shrunk where that is smaller), so that its bytes per pixel are
those of photos. Quality 90, 4:2:0, baseline. Made in worker processes; the seconds are in the result.
"""

import functools
import io
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from benchmarks.end_to_end.corpora import PHOTO_SUFFIXES, QUALITY, pillow_pixels, write_shard
from benchmarks.gpu.cases import Context, cpus
from benchmarks.gpu.shapes import CORPORA

TARGET = 256
SHARDS = 8
TINY_COUNT, TINY_TARGET = 24, 32


@dataclass(frozen=True)
class Corpus:
    """files/*.jpg, shards/*.tar and reference.npy in `folder`."""

    folder: Path
    name: str
    width: int
    height: int
    count: int
    target: int
    jpeg_bytes: int
    seconds: float  # to make it

    @property
    def files(self) -> list[str]:
        return sorted(str(path) for path in (self.folder / "files").glob("*.jpg"))

    @property
    def shards(self) -> list[str]:
        return sorted(str(path) for path in (self.folder / "shards").glob("*.tar"))

    def contents(self) -> list[np.ndarray]:
        """The bytes of every file."""
        return [np.fromfile(path, np.uint8) for path in self.files]

    def reference(self) -> np.ndarray:
        """[count, target, target, 3] uint8: Pillow's resize of the short side, centre crop."""
        return np.load(self.folder / "reference.npy", mmap_mode="r")


def of(context: Context, name: str) -> Corpus:
    """The corpus of this name; made on first use, and found again by a process that was started anew."""
    return context.once(f"corpus {name}", lambda: _open_or_make(context, name))


def _open_or_make(context: Context, name: str) -> Corpus:
    folder = context.scratch / name
    manifest = folder / "manifest.json"
    if not manifest.exists():
        width, height, count = CORPORA[name]
        if not context.on_gpu:
            width, height, count = width // 4, height // 4, TINY_COUNT
        made = _make(context, folder, width, height, count, context.of(min(cpus(), 16), 1))
        manifest.write_text(
            json.dumps(made | {"name": name, "width": width, "height": height, "count": count})
        )
    return Corpus(folder=folder, **json.loads(manifest.read_text()))


def _make(context: Context, folder: Path, width: int, height: int, count: int, workers: int) -> dict:
    begun = time.perf_counter()
    target = context.of(TARGET, TINY_TARGET)
    for sub in ("files", "shards"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    draw = functools.partial(_draw, context.photos, context.seed, width, height, target)
    if workers == 1:
        drawn = list(map(draw, range(count)))
    else:
        # Not forked: this process may hold a GPU and the threads of DALI already.
        with ProcessPoolExecutor(workers, multiprocessing.get_context("forkserver")) as pool:
            drawn = list(pool.map(draw, range(count), chunksize=4))
    reference = np.stack([pixels for _, pixels in drawn])
    for i, (jpeg, _) in enumerate(drawn):
        (folder / "files" / f"{i:06d}.jpg").write_bytes(jpeg)
    for shard, members in enumerate(np.array_split(np.arange(count), SHARDS)):
        write_shard(folder / "shards" / f"{shard:05d}.tar", {int(i): drawn[i][0] for i in members})
    np.save(folder / "reference.npy", reference)
    jpeg_bytes = sum(len(jpeg) for jpeg, _ in drawn)
    return {"target": target, "jpeg_bytes": jpeg_bytes, "seconds": round(time.perf_counter() - begun, 2)}


def _draw(
    photos: Path, seed: int, width: int, height: int, target: int, number: int
) -> tuple[bytes, np.ndarray]:
    """One JPEG, and the reference of it."""
    dice = np.random.default_rng([seed, width, height, number])
    image = mosaic(_photos(photos), width, height, dice)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return out.getvalue(), pillow_pixels(Image.open(io.BytesIO(out.getvalue())), target)


def mosaic(photos: list[Image.Image], width: int, height: int, dice: np.random.Generator) -> Image.Image:
    """Windows of photos beside each other, mirrored or not; one window where it is as large as a photo."""
    image = Image.new("RGB", (width, height))
    top = 0
    while top < height:
        left, row = 0, height
        while left < width:
            photo = photos[dice.integers(len(photos))]
            if dice.random() < 0.5:
                photo = ImageOps.mirror(photo)
            if width <= photo.width and height <= photo.height:
                scale = dice.uniform(1.0, min(photo.width / width, photo.height / height))
                photo = photo.resize((round(photo.width / scale), round(photo.height / scale)))
                place = (dice.integers(photo.width - width + 1), dice.integers(photo.height - height + 1))
                photo = photo.crop((*place, place[0] + width, place[1] + height))
            image.paste(photo, (left, top))
            left, row = left + photo.width, min(row, photo.height)
        top += row
    return image


@functools.cache
def _photos(folder: Path) -> list[Image.Image]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES)
    if not paths:
        raise FileNotFoundError("no photo in the folder of --photos")
    return [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in paths]
