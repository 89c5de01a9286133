"""One loader per file, all with one contract, so that the harness can time any of them without knowing it.

`make(corpus, batch_size, threads, seed, **options)` returns an endless iterator of float32 tensors
[batch_size, 3, 256, 256] in [-1, 1], of any strides: JPEG decode, resize of the short side to 256 (bicubic
and antialiased, or what comes nearest to it), centre crop, mirroring with probability 1/2, normalisation;
images in shuffled order, `threads` threads or worker processes. An iterator may have `described`, one line
for the results. A peer that only decodes yields `Decoded` instead, one that augments `Augmented`. The modules
import their libraries inside `make`, so that all of them can be listed where some are not installed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Decoded:
    """`count` images were decoded; `sample` is one of them, [height, width, 3] uint8, to be checked."""

    count: int
    sample: np.ndarray


@dataclass(frozen=True)
class Augmented:
    """A batch after random changes that can be repeated; `expected()` is what it should be, [N, 3, H, W]
    float."""

    images: object  # a tensor
    expected: Callable[[], object]

    def __len__(self) -> int:
        return len(self.images)

    def clone(self) -> "Augmented":
        return Augmented(self.images.clone(), self.expected)
