"""The sample set of `fastload demo`: crops of a dozen photographs, written as shards into the cache once.

In: a seed. Out: a folder of tar shards whose samples have `jpg`, `cls` (an index into CLASSES) and `txt` (a
caption). Promised: the same seed gives the same pictures; the folder appears whole or not at all; sizes,
proportions and kinds of JPEG vary as in collected data: landscape, portrait and square, some progressive,
some gray, some stored turned with an EXIF orientation.
"""

import io
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fastload.backends import cache_dir, usable_cpus
from fastload.prepare.common.stored import EXIF_ORIENTATION
from fastload.shards.writer import ShardWriter
from fastload.threads import for_all

CLASSES = ("animal", "boat", "building", "flower", "food", "aircraft")
PHOTOS_FOLDER = Path(__file__).parents[1] / "demo_photos"  # with their licence
CROPS_PER_PHOTO = 19
CROPS_PER_GRAY_PHOTO = 9  # so that a fifth of the samples is gray
SHARDS = 2
ORDER_SEED = 268  # with it, all photos are among the first 24 samples of the demo
VERSION = 1  # part of the folder's name: raise it when the samples change

PROPORTIONS = (16 / 9, 3 / 2, 4 / 3, 1.0, 3 / 4, 2 / 3)
MAX_PROPORTION_CHANGE = 1.55  # a wide crop of a tall photo would be tiny
MIN_CROP = 0.75  # of the largest crop of these proportions: a smaller one may miss what the caption says
TURNED_BACK = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


@dataclass(frozen=True)
class Photo:
    """A photograph of PHOTOS_FOLDER: its file's name without .jpg, its class and its caption."""

    name: str
    label: str
    caption: str


PHOTOS = (
    Photo("butterfly", "animal", "a monarch butterfly on pink blossoms"),
    Photo("church", "building", "a white steeple above a brick building, in black and white"),
    Photo("fishing-boats", "boat", "fishing boats aground at low tide, in black and white"),
    Photo("grapes", "food", "green grapes and a yellow apple on a cloth"),
    Photo("jet", "aircraft", "a fighter jet over snowy mountains"),
    Photo("kitten", "animal", "a ginger kitten in a straw hat"),
    Photo("mandrill", "animal", "the red and blue face of a mandrill"),
    Photo("peppers", "food", "red, green and yellow peppers"),
    Photo("skyline", "building", "a tower and skyscrapers behind trees, in black and white"),
    Photo("tulips", "flower", "red and white tulips with yellow centers"),
    Photo("village", "building", "old cottages along a steep street, in black and white"),
    Photo("windsurfers", "boat", "windsurfers with blue and yellow sails"),
)


@dataclass(frozen=True)
class Sample:
    """One sample of the set: its JPEG file, its class as an index into CLASSES, and its caption."""

    jpg: bytes
    label: int
    caption: str


def demo_set(seed: int = 0, progress: Callable[[float, str], None] | None = None) -> str:
    """The folder with the shards of the sample set, made first if it is not in the cache yet.

    progress: called in this thread with the share that is done (0..1) and the name of a photo.
    """
    folder = cache_dir() / "demo" / f"photos-v{VERSION}-seed{seed}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            _write_shards(make_samples(seed, progress), scratch)
            _publish(scratch, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return str(folder)


def make_samples(seed: int = 0, progress: Callable[[float, str], None] | None = None) -> list[Sample]:
    """All samples of the set, photo by photo; the photos are cropped in parallel."""
    samples = []

    def done(number: int, made: list[Sample]) -> None:
        samples.extend(made)
        if progress is not None:
            progress((number + 1) / len(PHOTOS), PHOTOS[number].name)

    for_all(range(len(PHOTOS)), lambda number: _crops(number, seed), done, usable_cpus(), "fastload-demo")
    return samples


def _crops(number: int, seed: int) -> list[Sample]:
    """The photo's file as it is, and crops of the photo."""
    photo, rng = PHOTOS[number], np.random.default_rng([seed, number])
    whole = (PHOTOS_FOLDER / f"{photo.name}.jpg").read_bytes()
    image = Image.open(io.BytesIO(whole))
    image.load()
    count = CROPS_PER_GRAY_PHOTO if image.mode == "L" else CROPS_PER_PHOTO
    files = [whole, *(_encode(_crop(image, rng), rng) for _ in range(count))]
    return [Sample(jpg, CLASSES.index(photo.label), photo.caption) for jpg in files]


def _crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A crop of random proportions. A third of them is scaled down: scaling takes the most time."""
    width, height = image.size
    tall, wide = width / height / MAX_PROPORTION_CHANGE, width / height * MAX_PROPORTION_CHANGE
    proportion = float(rng.choice([each for each in PROPORTIONS if tall < each < wide]))
    crop_height = min(height, width / proportion) * rng.uniform(MIN_CROP, 1.0)
    size = round(crop_height * proportion), round(crop_height)
    # beta(2, 2) stays near the center, where the photos have their subject.
    left, top = round(rng.beta(2, 2) * (width - size[0])), round(rng.beta(2, 2) * (height - size[1]))
    image = image.crop((left, top, left + size[0], top + size[1]))
    scale = rng.uniform(0.6, 1.8)
    if scale < 1:
        image = image.resize((round(size[0] * scale), round(size[1] * scale)), Image.Resampling.BILINEAR)
    return image


def _encode(image: Image.Image, rng: np.random.Generator) -> bytes:
    """The image as a JPEG file: progressive, subsampled and turned as often as in collected data."""
    options = {"quality": int(rng.integers(80, 96)), "progressive": bool(rng.uniform() < 0.10)}
    if image.mode == "RGB":
        options["subsampling"] = "4:2:0" if rng.uniform() < 0.8 else "4:4:4"
    if rng.uniform() < 0.10:
        orientation = int(rng.choice(list(TURNED_BACK)))
        image = image.transpose(TURNED_BACK[orientation])
        options["exif"] = Image.Exif()
        options["exif"][EXIF_ORIENTATION] = orientation
    target = io.BytesIO()
    image.save(target, "JPEG", **options)
    return target.getvalue()


def _write_shards(samples: list[Sample], folder: Path) -> None:
    """Writes the samples into SHARDS shards, in random order."""
    pattern = str(folder).replace("%", "%%") + "/demo-%05d.tar"
    with ShardWriter(pattern, max_samples=-(-len(samples) // SHARDS)) as writer:
        order = np.random.default_rng(ORDER_SEED).permutation(len(samples)).tolist()
        for key, number in enumerate(order):
            sample = samples[number]
            members = {"jpg": sample.jpg, "cls": sample.label, "txt": sample.caption}
            writer.write({"__key__": f"{key:06d}", **members})


def _publish(scratch: Path, folder: Path) -> None:
    """Renames the finished folder; if another process was faster, its samples are the same."""
    scratch.chmod(0o755)  # mkdtemp makes it private
    try:
        os.rename(scratch, folder)
    except OSError:
        if not folder.is_dir():
            raise
