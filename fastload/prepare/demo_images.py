"""The sample set of `fastload demo`: some hundred drawn photographs, packed as shards once and kept in the
cache.

In: a seed. Out: a folder of tar shards whose samples have `jpg`, `cls` (the number of the kind of scene, see
KINDS) and `txt` (a caption). Promised: the same seed gives the same pictures; the folder appears whole or not
at all; sizes, proportions and JPEG flavours vary as in collected data: landscape, portrait and square, 320 to
1600 pixels, progressive ones, gray ones, and some that are stored turned, with an EXIF orientation.
"""

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fastload.backends import cache_dir
from fastload.prepare.scenes import lights, plants, sky, still, surfaces, terrain, woods
from fastload.prepare.scenes.canvas import Canvas, noise_tile, to_pillow
from fastload.shards.writer import ShardWriter

# A new kind goes to the end: `cls` is the place in this table.
KINDS: dict[str, Callable] = {
    "mountains": terrain.mountains,
    "sea": sky.sea,
    "forest": woods.forest,
    "city": lights.city,
    "flower": plants.flower,
    "clouds": sky.clouds,
    "still life": still.still_life,
    "night sky": sky.night,
    "dunes": terrain.dunes,
    "leaves": plants.leaves,
    "bokeh": lights.bokeh,
    "hills": terrain.hills,
    "surface": surfaces.surface,
}
DRAWINGS_PER_KIND = 6
CUTS_PER_DRAWING = 4
SHARDS = 4
VERSION = 1  # part of the folder's name: raise it when the pictures change

DRAWN_SIZES = ((816, 544), (544, 816), (672, 672), (896, 504))
PROPORTIONS = (3 / 2, 4 / 3, 2 / 3, 3 / 4, 1.0, 16 / 9)
LONG_SIDES = (320, 500, 640, 800, 1024, 1280, 1600)
LONG_SIDE_SHARES = (0.12, 0.27, 0.23, 0.16, 0.13, 0.05, 0.04)
TURNED_BACK = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Picture:
    """One sample of the set: its JPEG file, the number of its kind, and its caption."""

    jpg: bytes
    kind: int
    caption: str


def sample_set(seed: int = 0, progress: Callable[[float, str], None] | None = None) -> str:
    """The folder with the shards of the sample set, drawn first if this machine does not have them yet.

    `progress` is called with the share that is done (0..1) and what is being drawn.
    """
    folder = cache_dir() / "demo" / f"drawn-v{VERSION}-seed{seed}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            pack(draw_pictures(seed, progress), scratch)
            _publish(scratch, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return str(folder)


def draw_pictures(seed: int = 0, progress: Callable[[float, str], None] | None = None) -> Iterator[Picture]:
    """Draws the whole set: every kind several times, every drawing cut several times."""
    total = len(KINDS) * DRAWINGS_PER_KIND
    for drawing in range(total):
        kind = drawing % len(KINDS)
        name = list(KINDS)[kind]
        if progress is not None:
            progress(drawing / total, name)
        rng = np.random.default_rng([seed, drawing])
        canvas = Canvas(*DRAWN_SIZES[(drawing // len(KINDS) + kind) % len(DRAWN_SIZES)], rng)
        picture, caption = KINDS[name](canvas)
        image = to_pillow(picture)
        for cut in range(CUTS_PER_DRAWING):
            jpg, remark = encode(cut_out(image, rng, whole=cut == 0), rng)
            yield Picture(jpg, kind, caption + remark)


def pack(pictures, folder: Path) -> None:
    """Writes the pictures into SHARDS shards in a folder, the kinds mixed."""
    pictures = list(pictures)
    pattern = str(folder).replace("%", "%%") + "/drawn-%05d.tar"
    with ShardWriter(pattern, max_samples=-(-len(pictures) // SHARDS)) as writer:
        for number in np.random.default_rng(len(pictures)).permutation(len(pictures)).tolist():
            one = pictures[number]
            writer.write({"__key__": f"{number:06d}", "jpg": one.jpg, "cls": one.kind, "txt": one.caption})


def cut_out(image: Image.Image, rng: np.random.Generator, whole: bool) -> Image.Image:
    """The whole drawing or a part of it in other proportions, at a size of its own, graded and with grain."""
    width, height = image.size
    box = (0.0, 0.0, float(width), float(height))
    if not whole:
        proportion = float(rng.choice(PROPORTIONS))
        part_height = min(height, width / proportion) * rng.uniform(0.7, 1.0)
        part_width = part_height * proportion
        # beta(2, 2) stays near the middle, where the scenes have their subject
        left, top = rng.beta(2, 2) * (width - part_width), rng.beta(2, 2) * (height - part_height)
        box = (left, top, left + part_width, top + part_height)
        if rng.uniform() < 0.5:
            image, box = (
                image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
                (width - box[2], top, width - left, box[3]),
            )
    scale = float(rng.choice(LONG_SIDES, p=LONG_SIDE_SHARES)) / max(box[2] - box[0], box[3] - box[1])
    # Odd sizes on purpose: collected photos are rarely multiples of the 8 or 16 pixels of a JPEG block.
    size = tuple(
        max(round((box[i + 2] - box[i]) * scale) - int(rng.integers(0, 3)), 320 // 2) for i in (0, 1)
    )
    return _grain(_grade(image.resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=2.0), rng), rng)


def encode(image: Image.Image, rng: np.random.Generator) -> tuple[bytes, str]:
    """The image as a JPEG file in one of the flavours found in the wild, and what to add to its caption."""
    remark = ""
    options = {
        "quality": int(rng.integers(80, 96)),
        "subsampling": "4:2:0" if rng.uniform() < 0.8 else "4:4:4",
    }
    if rng.uniform() < 0.07:
        image, remark = image.convert("L"), ", in black and white"
        del options["subsampling"]
    if rng.uniform() < 0.10:
        orientation = int(rng.choice(list(TURNED_BACK)))
        image = image.transpose(TURNED_BACK[orientation])
        options["exif"] = Image.Exif()
        options["exif"][EXIF_ORIENTATION] = orientation
    options["progressive"] = bool(rng.uniform() < 0.15)
    target = io.BytesIO()
    image.save(target, "JPEG", **options)
    return target.getvalue(), remark


def _grade(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Another exposure, saturation and white balance, as other cameras would have it."""
    exposure, saturation, warmth = rng.uniform(0.9, 1.15), rng.uniform(0.75, 1.15), rng.uniform(-0.06, 0.06)
    luma = np.array((0.299, 0.587, 0.114))
    matrix = np.eye(3) * saturation + luma * (1 - saturation)
    matrix *= exposure * np.array((1 + warmth, 1.0, 1 - warmth))[:, None]
    return image.convert("RGB", tuple(np.hstack((matrix, np.zeros((3, 1)))).ravel()))


def _grain(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Film grain: the same little noise on all three channels."""
    strength = rng.uniform(0, 5)
    tile = np.roll(noise_tile(0.2, 0), tuple(rng.integers(0, 512, 2)), (0, 1))
    tile = np.rint(np.clip(tile, -3, 3) * strength).astype(np.int16)
    repeats = (-(-image.height // 512), -(-image.width // 512))
    noise = np.tile(tile, repeats)[: image.height, : image.width, None]
    return Image.fromarray(np.clip(np.asarray(image, np.int16) + noise, 0, 255).astype(np.uint8))


def _publish(scratch: Path, folder: Path) -> None:
    """Gives the finished folder its name; if another process was faster, its pictures are the same."""
    scratch.chmod(0o755)  # mkdtemp makes it private
    try:
        os.rename(scratch, folder)
    except OSError:
        if not folder.is_dir():
            raise
