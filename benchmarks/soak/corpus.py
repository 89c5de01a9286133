"""A few thousand odd samples: what a training of weeks meets, in small."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from fastload.shards.writer import ShardWriter

SAMPLES, PER_SHARD = 3000, 250
VERSION = 1  # of what is drawn: another one is drawn anew
# (share of the samples, longest side in pixels, format, its options)
KINDS = (
    (0.50, 500, "JPEG", {"quality": 90}),
    (0.20, 256, "JPEG", {"quality": 85}),
    (0.10, 64, "JPEG", {"quality": 95, "subsampling": 0}),
    (0.08, 1600, "JPEG", {"quality": 90}),
    (0.04, 900, "JPEG", {"quality": 85, "progressive": True}),
    (0.02, 4000, "JPEG", {"quality": 80}),
    (0.03, 400, "PNG", {}),
    (0.03, 400, "WEBP", {"quality": 80}),
)
BROKEN_EVERY = 50
EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


def make_corpus(photos: Path, folder: Path) -> Path:
    """Draws the shards where they are not there yet; returns their folder."""
    done = folder / f"version-{VERSION}.json"
    if done.exists():
        return folder / "shards"
    rng = np.random.default_rng(7)
    paths = sorted(photos.glob("*.jpg"))
    kinds = rng.choice(len(KINDS), SAMPLES, p=[share for share, *_ in KINDS])
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    with ShardWriter(str(folder / "shards" / "%05d.tar"), max_samples=PER_SHARD) as writer:
        for number, kind in enumerate(kinds.tolist()):
            writer.write(_sample(number, paths[number % len(paths)], KINDS[kind], rng))
    done.write_text(json.dumps({"samples": SAMPLES}))
    return folder / "shards"


def _sample(number: int, photo: Path, kind: tuple, rng: np.random.Generator) -> dict:
    _, side, format, options = kind
    picture = Image.open(photo).convert("RGB")
    scale = side / max(picture.size)
    picture = picture.resize([max(1, round(edge * scale * rng.uniform(0.7, 1))) for edge in picture.size])
    stream = io.BytesIO()
    picture.save(stream, format, **options)
    content = stream.getvalue()
    if number % BROKEN_EVERY == 0:
        content = (b"", content[: len(content) // 2], b"<html>404</html>" * 40)[number // BROKEN_EVERY % 3]
    array = io.BytesIO()
    np.save(array, rng.standard_normal((4, 16, 16)).astype(np.float16))
    words = " ".join(f"word{word}" for word in rng.integers(0, 1000, rng.integers(3, 60)))
    return {
        "__key__": f"{number:06d}",
        EXTENSIONS[format]: content,
        "cls": number % 10,
        "txt": words,
        "latent.npy": array.getvalue(),
        "json": {"number": number, "words": words.split()},
    }
