"""The image fields of a loader: a decoder, Python's threads beside it, and the work on whole batches.

In: the bytes of a batch. Out: for each field a tensor, finished by decoder threads, or uint8 pixels that
`finish` turns into tensors, and what report=True adds. Promised: images that no native thread takes (formats
other than JPEG) are rendered by Python's worker threads, ahead of need as long as batches have some.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fastload import backends
from fastload.errors import FastloadError, SampleError
from fastload.loader.field_stage import (
    FieldBatch,
    FieldStage,
    StageContext,
    StoredBytes,
    ThreadWork,
    wait_for,
)
from fastload.loader.pixels import Pixels


class ImageFields(FieldStage):
    """Makes the fields of `decoder`, an ImageStage or a DaliImageStage.

    always_ahead: Python's part of each batch is begun ahead, because otherwise it would queue behind the
    values of later batches.
    """

    def __init__(self, decoder: Any, pixels: Pixels, context: StageContext, always_ahead: bool):
        self.decoder, self.pixels = decoder, pixels
        self.workers, self.busy, self._acquire = context.workers, context.busy, context.acquire
        self.fields, self.names = decoder.fields, list(decoder.fields)
        self.by_batch, self.counters = decoder.by_batch or pixels.mixes, decoder.counters
        # The finished images too, where whole batches are finished.
        self.sample_bytes = decoder.sample_bytes + (pixels.sample_bytes if decoder.by_batch else 0)
        self.always_ahead = always_ahead
        self.expects_others = always_ahead  # or the last batch had images for Python

    def submit(self, stored: StoredBytes, urgent: bool) -> "BatchImageFields":
        backends.ignore_jpegmem()  # it may have been set since
        n = len(stored.positions)
        buffers = {name: self._acquire(n * size) for name, size in self.decoder.bytes_of.items()}
        augments = {} if self.decoder.by_batch else self.pixels.augments(stored.positions)
        images = self.decoder.submit(
            stored.content, stored.first_blob, buffers, stored.positions, augments, urgent
        )
        batch = BatchImageFields(self, stored, images, urgent)
        if self.expects_others and not urgent:
            batch.begin()
        return batch

    def finish(self, batch: dict, positions: np.ndarray) -> dict:
        """uint8 pixels to tensors where that was left to whole batches; mixup and CutMix."""
        if self.decoder.by_batch:
            for name in self.names:
                batch[name] = self.pixels.finished(name, batch[name], positions)
        return self.pixels.mixed(batch, positions) if self.pixels.mixes else batch

    def give_up(self) -> None:
        self.decoder.give_up()

    def join(self, deadline: float) -> bool:
        return self.decoder.join(deadline)


class BatchImageFields(FieldBatch):
    """The images of one batch."""

    def __init__(self, stage: ImageFields, stored: StoredBytes, images: Any, urgent: bool):
        self._stage, self._images, self._urgent = stage, images, urgent
        self._work = ThreadWork(stage.workers, stored)
        self.names = stage.names

    def begin(self) -> None:
        """Worker threads render the images that native threads do not take."""
        self._work.begin(self._render_part)

    @property
    def busy_seconds(self) -> float:
        return self._images.busy_seconds

    def wait(self, timeout_seconds: float) -> bool:
        return self._images.wait(timeout_seconds)

    def settle(self, deadline: float) -> dict[tuple[int, str], FastloadError]:
        wait_for(self._images, lambda: self._work.cancelled, deadline)
        others = bool(self._images.others())
        if self._urgent:
            self._render_part(0, 1)
        else:
            self._stage.expects_others = others or self._stage.always_ahead
            if others:
                self.begin()
        self._work.settle(deadline)
        return {(i, name): SampleError(reason) for (name, i), reason in self._images.settle().items()}

    def adopt(self, to: np.ndarray, other: "BatchImageFields", samples: np.ndarray) -> None:
        self._images.adopt(to, other._images, samples)

    def column(self, name: str, where: Callable[[int], str]) -> dict[str, Any]:
        report = self._images.report(name) if self._stage.fields[name].report else {}
        return {name: self._images.tensor(name), **report}

    def release(self, done: Any) -> None:
        self._images.release(done)

    def cancel(self) -> None:
        self._images.cancel()
        self._work.cancel()

    def give_up(self) -> None:
        self._images.cancel()
        self._work.give_up()

    def _render_part(self, part: int, parts: int) -> None:
        """Every `parts`-th sample from `part` on."""
        if not self._work.has_bytes():
            return
        wait_for(self._images, lambda: self._work.cancelled)
        begun = time.perf_counter()
        for name, i in self._images.others():
            if self._work.cancelled:
                return
            if i % parts == part:
                self._images.render_other(name, i)
        self._stage.busy("decode", time.perf_counter() - begun)
