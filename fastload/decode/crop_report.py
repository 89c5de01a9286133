"""Which part of its original each image of a batch shows; SDXL and other models are conditioned on it.

In: the geometry of each image, row by row. Out: torch tensors named after the field. Promised: the same
numbers with every decoder, on every rank and machine.
"""

import numpy as np

from fastload.decode.pillow import DecodedImage
from fastload.decode.spec import ImageSpec


def empty_rows(samples: int) -> dict[str, np.ndarray]:
    """Rows in the native decoder's format: sizes, resized (height, width), corners (top, left), boxes."""
    rows = {part: np.zeros((samples, 2), np.int32) for part in ("sizes", "resized", "corners")}
    return {**rows, "boxes": np.zeros((samples, 4))}


def enter(rows: dict[str, np.ndarray], i: int, image: DecodedImage) -> None:
    """Writes row i, for an image that was decoded in Python."""
    rows["sizes"][i] = image.size[::-1]
    rows["boxes"][i] = image.geometry.box
    rows["resized"][i] = image.geometry.resized[::-1]
    rows["corners"][i] = image.geometry.crop[1], image.geometry.crop[0]


def take(rows: dict, to: np.ndarray, other: dict, samples: np.ndarray) -> None:
    """Copies rows `samples` of another batch to the rows `to`."""
    for part, column in rows.items():
        column[to] = other[part][samples]


def crop_report(name: str, spec: ImageSpec, rows: dict[str, np.ndarray]) -> dict:
    """The entries of the batch for field `name`.

    "NAME.original_size" [N, 2] int32: height and width of the upright original, in pixels. "NAME.crop_box"
    [N, 4] float32: left, top, right, bottom of the visible part, in pixels of the original.
    "NAME.crop_top_left" [N, 2] int32: top and left of the same, in pixels of the resized original.
    "NAME.target_size" [N, 2] int32: height and width of the output. For a sample without an image all but the
    target size are zeros.
    """
    import torch

    target = np.broadcast_to(np.array([spec.height, spec.width], np.int32), rows["sizes"].shape)
    left_top, right_bottom = rows["boxes"][:, :2], rows["boxes"][:, 2:]
    # Pixels of the original per pixel of the resized box, (x, y); 0 if there is no image.
    step = (right_bottom - left_top) / np.maximum(rows["resized"][:, ::-1], 1)
    start = left_top + rows["corners"][:, ::-1] * step
    crop_box = np.concatenate([start, start + target[:, ::-1] * step], 1)
    box_corner = np.divide(left_top, step, out=np.zeros_like(step), where=step > 0)
    entries = {
        "original_size": rows["sizes"],
        "crop_box": crop_box.astype(np.float32),
        "crop_top_left": np.rint(box_corner[:, ::-1]).astype(np.int32) + rows["corners"],
        "target_size": target,
    }
    return {f"{name}.{part}": torch.from_numpy(np.array(value)) for part, value in entries.items()}
