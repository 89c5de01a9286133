"""The peer of `fastload bench`: torch's DataLoader with Pillow in worker processes, as most people write it.

In: a dataset and an endless order of sample ids. Out: batches of normalized images, float32 [N, 3, H, W],
each with the process id of its worker and the CPU seconds that this worker has used so far. The work is the
same as fastload's: decode, upright, RGB, short side to the size, center crop, flip, [-1, 1].
"""

import io
import os
import random
import time
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, default_collate

from fastload.prepare.common.pipeline import image_extensions, samples_at
from fastload.prepare.common.stored import read_bytes


class PillowImages:
    """A map-style dataset for DataLoader: sample id -> image [3, size, size] float32 in [-1, 1]."""

    def __init__(self, dataset, size: int, xflip: float):
        self.dataset, self.size, self.xflip = dataset, size, xflip
        self.extensions = image_extensions(dataset)

    def __len__(self) -> int:
        return self.dataset.n

    def __getitem__(self, sample_id: int) -> torch.Tensor:
        encoded = read_bytes(self.dataset, sample_id, self.extensions)
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB")
        image = short_side_center_crop(image, self.size)
        if random.random() < self.xflip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return pixels.to(torch.float32).div_(127.5).sub_(1.0)


class EndlessOrder:
    """The sample ids of fastload's own shuffled order: both sides read the same samples."""

    def __init__(self, dataset, seed: int):
        self.dataset, self.seed = dataset, seed

    def __iter__(self) -> Iterator[int]:
        start = 0
        while True:
            positions = np.arange(start, start + 1024, dtype=np.int64)
            yield from samples_at(self.dataset, positions, seed=self.seed).tolist()
            start += 1024


def short_side_center_crop(image: Image.Image, size: int) -> Image.Image:
    """Bicubic, antialiased resize of the short side to `size`, then the square in the center."""
    scale = max(size / image.width, size / image.height)
    width, height = max(round(image.width * scale), size), max(round(image.height * scale), size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + size, top + size))


def open_peer(dataset, *, size: int, batch_size: int, workers: int, seed: int):
    """An endless DataLoader; its batches are (images, worker's process id, worker's CPU seconds)."""
    return DataLoader(
        PillowImages(dataset, size, xflip=0.5),
        batch_size=batch_size,
        sampler=EndlessOrder(dataset, seed),
        num_workers=workers,
        collate_fn=_collate_with_cpu_time,
    )


def _collate_with_cpu_time(samples):
    """Runs in the worker, which alone knows its CPU time."""
    images = default_collate(samples)
    return images, os.getpid(), time.process_time()
