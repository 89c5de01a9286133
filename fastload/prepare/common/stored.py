"""Samples as stored, read without the Loader: their bytes, and their pictures through Pillow.

In: a dataset and a sample id. Out: bytes; an upright RGB picture with its size and format.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from fastload.errors import SampleError
from fastload.shards.dataset import Dataset

EXIF_ORIENTATION = 0x0112
SWAPS_SIDES = (5, 6, 7, 8)  # the orientations that turn by 90 degrees


@dataclass(frozen=True)
class Stored:
    """An image as stored: its upright size, its format, and the decoded picture, upright RGB."""

    width: int
    height: int
    format: str
    picture: Image.Image


def read_stored(
    dataset: Dataset, sample_id: int, extensions: tuple[str, ...], limit: int | None = None
) -> Stored:
    """The image of a sample, read with Pillow; with `limit`, its picture may be scaled down to sides of that
    many pixels or more, which is faster.

    Raises SampleError where the sample has no image or Pillow cannot decode it.
    """
    encoded = read_bytes(dataset, sample_id, extensions)
    try:
        image = Image.open(io.BytesIO(encoded))
        width, height = image.size
        if image.getexif().get(EXIF_ORIENTATION, 1) in SWAPS_SIDES:
            width, height = height, width
        if limit is not None:
            image.draft("RGB", (limit, limit))
        picture = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SampleError(f"{dataset.where(sample_id)}: Pillow cannot decode this image: {error}.") from error
    return Stored(width, height, image.format or "?", picture)


def read_bytes(dataset: Dataset, sample_id: int, extensions: tuple[str, ...]) -> bytes:
    """The stored bytes of the first of `extensions` that the sample has."""
    located = dataset.locate(np.array([sample_id], np.int64), extensions)
    size = int(located.size_bytes[0])
    if size < 0:
        raise SampleError(
            f"{dataset.where(sample_id)}: no image. Add an image, or leave the sample out with exclude=."
        )
    with open(located.path_of(0), "rb") as file:
        file.seek(int(located.offset_bytes[0]))
        return file.read(size)
