"""A program: the pixels of a folder's images, by each decoder: "decoder: images, bad samples, hash".

Arguments: a folder, and names of decoders. The environment of the process is what the tests change.
"""

import hashlib
import sys

import fastload as fl
from fastload import _native


def digest(folder: str, decode: str) -> str:
    image = {"x": fl.Image(size=48)}
    how = {"device": "cpu", "threads": 2, "ledger": None, "max_bad_fraction": 1.0, "shuffle": False}
    content, images = hashlib.blake2b(digest_size=8), 0
    with fl.Loader(folder, 1, image, decode=decode, dtype="uint8", **how) as loader:
        for batch in loader:
            images += len(batch["x"])
            content.update(batch["x"].numpy().tobytes())
        return f"{images} images, {loader.stats()['bad_samples']} bad, {content.hexdigest()}"


def without_libjpeg(folder: str) -> str:
    """By simplejpeg, which stands in where no libjpeg can be loaded."""
    load, _native.load_jpeg_library = _native.load_jpeg_library, lambda paths: (None, 0, "not here")
    try:
        return digest(folder, "native")
    finally:
        _native.load_jpeg_library = load


if __name__ == "__main__":
    for name in sys.argv[2:]:
        of_decoder = without_libjpeg(sys.argv[1]) if name == "simplejpeg" else digest(sys.argv[1], name)
        print(f"{name}: {of_decoder}")
