"""What a decoder of image fields needs to know, and what it has to answer.

In: a `DecodeSpec`, made once from the loader's arguments. Out: an `ImageDecoder`, which turns the bytes of
each batch into `BatchImages`. Promised by a decoder: `submit` does not wait; the geometry and the random
draws are those of spec.py; a bad image is named by `settle` and affects no other image.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fastload import _native
from fastload.decode.spec import ImageSpec
from fastload.fields import Image
from fastload.normalize import Normalization


@dataclass(frozen=True)
class DecodeSpec:
    """The arguments of a loader that decide how its images are decoded.

    normalizations: of each image field. xflip: probability of a flip. max_batch: samples, or None if unknown.
    """

    image_fields: Mapping[str, Image]
    normalizations: Mapping[str, Normalization]
    xflip: float = 0.0
    dtype: str = "float32"
    layout: str = "nchw"
    decode: str = "auto"
    seed: int = 0
    max_pixels: int = 0
    max_batch: int | None = None
    hw_decoder_load: float | None = None
    deterministic: bool = True

    def image_specs(self) -> dict[str, ImageSpec]:
        """The geometry of each image field."""
        fields, xflip = self.image_fields, self.xflip
        return {name: ImageSpec.of(field, xflip, fields.get(field.like)) for name, field in fields.items()}


class BatchImages(Protocol):
    """The images of one batch, pending or done. busy_seconds: of the threads that decoded them."""

    busy_seconds: float = 0.0

    def wait(self, timeout_seconds: float) -> bool:
        """Whether no native thread works on this batch any more; waits at most this long."""

    def cancel(self) -> None:
        """Stops what has not begun. A finalizer may call it: it takes no lock and does not wait."""

    def others(self) -> list[tuple[str, int]]:
        """The (field, sample) pairs that are left to `render_other`; to be called after `wait`."""
        return []

    def render_other(self, name: str, i: int) -> None:
        """Decodes one of `others` in this thread. If it is bad, `settle` says so."""

    def settle(self) -> dict[tuple[str, int], str]:
        """Fills in the defaults of missing images; returns (field, sample) -> why there is no image.

        Raises ResourceError or BackendError if the machine failed, and not an image.
        """

    def adopt(self, to: np.ndarray, other: "BatchImages", samples: np.ndarray) -> None:
        """Copies images `samples` of another settled batch of the same decoder to the indices `to`."""

    def tensor(self, name: str) -> Any:
        """The images of a field: [N, 3, height, width]."""

    def report(self, name: str) -> dict:
        """The entries of `report=True` for a field; see crop_report.py."""

    def release(self, done: Any) -> None:
        """The tensors were used once `done`, an event (None: now), has passed."""


class ImageDecoder(Protocol):
    """Decodes the image fields of a loader.

    by_batch: whether it leaves uint8 pixels for the caller to finish by whole batches. bytes_of: field ->
    bytes of one sample in `buffers`. sample_bytes: memory of all images of one sample.
    """

    fields: Mapping[str, Image]
    by_batch: bool
    bytes_of: Mapping[str, int]
    sample_bytes: int

    def submit(
        self,
        content: "_native.ByteBatch",
        first_blob: Mapping[str, int],
        buffers: Mapping[str, Any],
        positions: np.ndarray,
        augments: Mapping[str, Any],
        urgent: bool = False,
    ) -> BatchImages:
        """Decodes as soon as `content` is read. `buffers` hold [N] samples of each field of `bytes_of`.

        augments: field -> its random augmentation, with `native` (an Augmenter of this batch) and
        `reference(pixels, i, out)`; other fields are only normalized. urgent: before all pending batches.
        """

    def counters(self) -> dict:
        """Numbers for `loader.stats()["device"]`."""
        return {}

    def give_up(self) -> None:
        """Ends threads of its own after their current work. A finalizer may call it."""

    def join(self, deadline: float) -> bool:
        """Whether all threads of its own have ended; waits until `deadline` of time.monotonic."""
        return True


def missing_guide(field: Image) -> str:
    """Why a required image that is present cannot be decoded."""
    return f"the image that like={field.like!r} names is missing"
