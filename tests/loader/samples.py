"""Small datasets made in code, and short ways to load them.

Sample i of `write_shards` has key "0000i", cls i, txt "caption i" and a JPEG of its own size and content.
"""

from pathlib import Path

import fastload as fl
from fastload.shards.writer import ShardWriter
from tests import corpus


def jpeg(i: int, width: int = 0, height: int = 0) -> bytes:
    """A JPEG that is told from all others: 24..30 pixels wide, 20..24 high unless said otherwise."""
    return corpus.encode(corpus.picture(width or 24 + i % 7, height or 20 + i % 5, i), "JPEG", quality=90)


def sample(i: int, **more) -> dict:
    return {"__key__": f"{i:05d}", "jpg": jpeg(i), "cls": i, "txt": f"caption {i}", **more}


def write(folder, samples, per_shard: int = 100) -> list[str]:
    """Shards 000.tar, 001.tar, ... of these samples; returns their paths."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    with ShardWriter(str(Path(folder) / "%03d.tar"), max_samples=per_shard) as writer:
        for one in samples:
            writer.write(one)
    return writer.paths


def write_shards(folder, n: int, per_shard: int) -> list[str]:
    return write(folder, (sample(i) for i in range(n)), per_shard)


def write_photo_shards(folder, per_shard: int) -> list[str]:
    photos = corpus.photos()
    return write(folder, ({"__key__": name[:-4], "jpg": photos[name]} for name in photos), per_shard)


def labels(source, batch_size=4, **arguments) -> fl.Loader:
    """A loader of labels only, which are the samples' numbers: the quickest way to see an order."""
    return fl.Loader(source, batch_size, {"label": fl.Int("cls")}, **arguments)


def pictures(source, batch_size=4, **arguments) -> fl.Loader:
    """A loader of 8 x 8 images and labels."""
    return fl.Loader(source, batch_size, {"image": fl.Image(size=8), "label": fl.Int("cls")}, **arguments)


def numbers(batches) -> list[list[int]]:
    """The labels of each batch."""
    return [batch["label"].tolist() for batch in batches]


def flat(batches) -> list[int]:
    return [number for batch in numbers(batches) for number in batch]
