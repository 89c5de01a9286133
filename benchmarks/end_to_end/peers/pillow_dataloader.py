"""torch DataLoader, worker processes, Pillow: what most training code does, and the reference's pixels."""

import numpy as np

from benchmarks.end_to_end.corpora import pillow_pixels
from benchmarks.end_to_end.peers.dataloader_parts import Files, batches


class PillowTransform:
    """A path or an open file -> uint8 tensor [3, target, target], mirrored by torch's dice of the worker."""

    def __init__(self, target: int, draft: bool):
        self.target, self.draft = target, draft

    def __call__(self, file):
        from PIL import Image

        with Image.open(file) as image:
            return self.of_image(image)

    def of_image(self, image):
        import torch

        if self.draft:
            short = min(image.size)
            image.draft("RGB", tuple(round(side * self.target / short) for side in image.size))
        pixels = pillow_pixels(image, self.target)
        if torch.rand(()) < 0.5:
            pixels = pixels[:, ::-1]
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def make(corpus, batch_size: int, threads: int, seed: int, draft: bool = False):
    return batches(Files(corpus.files, PillowTransform(corpus.target, draft)), batch_size, threads, seed)
