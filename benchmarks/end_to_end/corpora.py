"""Photos in, benchmark corpora out: the same JPEGs as tar shards, as single files and as a .beton file.

A corpus is a folder in the cache: `shards/*.tar` (`jpg` and `cls`), `files/*.jpg`, `reference.npy` (what
Pillow makes of every image, [N, 256, 256, 3] uint8) and `manifest.json`, which is written last. The images
are windows of real photos, of a random place and of a random size between the image's and the whole photo,
shrunk to the image's size (Lanczos), half of them mirrored, and saved as baseline JPEG, quality 90, 4:2:0.
Promised: the same photos and arguments give the same pixels; a folder without a manifest is never used; a
photo is enlarged only where no photo is large enough, and the manifest counts it (`enlarged`).
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

RECIPE = 1  # a change of the recipe below counts it up, so that cached corpora of the old one are not taken
QUALITY = 90
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")
SHARDS = 8  # at least one for each worker of a peer that divides its work by shards


@dataclass(frozen=True)
class Kind:
    """One corpus to make: its name, the size of its images in pixels, and how many there are."""

    name: str
    width: int
    height: int
    count: int = 512


KINDS = {
    kind.name: kind for kind in (Kind("in500", 500, 375), Kind("sq256", 256, 256), Kind("sq1024", 1024, 1024))
}


@dataclass(frozen=True)
class Corpus:
    """A corpus on disk; `target` is the side of the square that every peer makes of it."""

    folder: Path
    name: str
    count: int
    width: int
    height: int
    jpeg_bytes: int
    photos: int
    enlarged: int
    target: int = 256

    @property
    def shards(self) -> list[str]:
        return sorted(str(path) for path in (self.folder / "shards").glob("*.tar"))

    @property
    def files(self) -> list[str]:
        return sorted(str(path) for path in (self.folder / "files").glob("*.jpg"))

    @property
    def beton(self) -> Path:
        return self.folder / "corpus.beton"

    def reference(self) -> np.ndarray:
        """[N, 256, 256, 3] uint8, mapped from disk: `pillow_pixels` of every image."""
        return np.load(self.folder / "reference.npy", mmap_mode="r")

    def warm(self) -> None:
        """Read every file once, so that all competitors read from the page cache."""
        for path in [*self.shards, *self.files, str(self.beton)]:
            if os.path.exists(path):
                with open(path, "rb") as file:
                    while file.read(1 << 20):
                        pass


def make(kind: Kind, photos: Path, cache: Path, seed: int = 0) -> Corpus:
    """Open the corpus of these photos in the cache folder, or draw it first (about 10 s for 512 images).

    Raises FileNotFoundError if `photos` holds no image.
    """
    sources = sorted(path for path in Path(photos).rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES)
    if not sources:
        raise FileNotFoundError(f"{photos}: no photo there ({', '.join(PHOTO_SUFFIXES)}). Give --photos DIR.")
    fingerprint = _fingerprint(kind, sources, seed)
    folder = Path(cache) / f"{kind.name}-{kind.count}-{fingerprint}"
    if not (folder / "manifest.json").exists():
        draft = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
        shutil.rmtree(draft, ignore_errors=True)
        _draw(kind, sources, draft, seed)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    return load(folder)


def load(folder: Path) -> Corpus:
    """The corpus in `folder`, as its manifest describes it."""
    return Corpus(folder=Path(folder), **json.loads((Path(folder) / "manifest.json").read_text()))


def pillow_pixels(image: Image.Image, target: int) -> np.ndarray:
    """The reference: short side to `target` (bicubic, antialiased), centre crop, not mirrored.

    Returns [target, target, 3] uint8.
    """
    width, height = image.size
    short = min(width, height)
    size = tuple(max(target, round(side * target / short)) for side in (width, height))
    image = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - target) // 2, (size[1] - target) // 2
    return np.asarray(image.crop((left, top, left + target, top + target)))


def _fingerprint(kind: Kind, sources: list[Path], seed: int) -> str:
    digest = hashlib.sha256(f"{RECIPE} {kind} {QUALITY} {SHARDS} {seed}".encode())
    for path in sources:
        digest.update(path.name.encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def _draw(kind: Kind, sources: list[Path], folder: Path, seed: int) -> None:
    (folder / "files").mkdir(parents=True)
    (folder / "shards").mkdir()
    jpegs, enlarged = _encode_all(kind, sources, seed)
    reference = np.empty((kind.count, 256, 256, 3), np.uint8)
    for index, jpeg in enumerate(jpegs):
        (folder / "files" / f"{index:06d}.jpg").write_bytes(jpeg)
        reference[index] = pillow_pixels(Image.open(io.BytesIO(jpeg)), 256)
    for shard, members in enumerate(np.array_split(np.arange(kind.count), min(SHARDS, kind.count))):
        write_shard(folder / "shards" / f"{shard:05d}.tar", {int(i): jpegs[i] for i in members})
    np.save(folder / "reference.npy", reference)
    manifest = {"name": kind.name, "count": kind.count, "width": kind.width, "height": kind.height}
    manifest |= {"jpeg_bytes": sum(map(len, jpegs)), "photos": len(sources), "enlarged": enlarged}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))


def _encode_all(kind: Kind, sources: list[Path], seed: int) -> tuple[list[bytes], int]:
    """All JPEGs, in order, and how many of them had to be enlarged; each photo is decoded once."""
    sizes = [_upright_size(path) for path in sources]
    fitting = [i for i, size in enumerate(sizes) if size[0] >= kind.width and size[1] >= kind.height]
    dice = np.random.default_rng([seed, kind.width, kind.height])
    choice = dice.choice(fitting or len(sources), kind.count)
    jpegs = [b""] * kind.count
    for source in np.unique(choice):
        photo = ImageOps.exif_transpose(Image.open(sources[source])).convert("RGB")
        for index in np.flatnonzero(choice == source):
            jpegs[index] = _encode(photo, kind, np.random.default_rng([seed, int(index)]))
    return jpegs, 0 if fitting else kind.count


def _upright_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        return (image.height, image.width) if turned else image.size


def _encode(photo: Image.Image, kind: Kind, dice: np.random.Generator) -> bytes:
    whole = min(photo.width / kind.width, photo.height / kind.height)
    scale = dice.uniform(1.0, whole) if whole > 1 else whole
    width, height = kind.width * scale, kind.height * scale
    left, top = dice.uniform(0, photo.width - width), dice.uniform(0, photo.height - height)
    box = (left, top, min(left + width, photo.width), min(top + height, photo.height))
    image = photo.resize((kind.width, kind.height), Image.Resampling.LANCZOS, box=box)
    if dice.random() < 0.5:
        image = ImageOps.mirror(image)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return out.getvalue()


def write_shard(path: Path, jpegs: dict[int, bytes]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for index, jpeg in jpegs.items():
            for extension, payload in (("jpg", jpeg), ("cls", str(index % 1000).encode())):
                member = tarfile.TarInfo(f"{index:06d}.{extension}")
                member.size = len(payload)
                tar.addfile(member, io.BytesIO(payload))
