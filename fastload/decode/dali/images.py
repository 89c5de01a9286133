"""The images of a loader's batches through DALI: the ImageDecoder of a `DaliStage`.

In: a `ByteBatch`, the image fields, positions. Out: uint8 pixels, channels last, on the loader's device,
which whole batches finish there, and the crop report. Promised: a thread of its own hands bytes to DALI as
soon as they are read, in order; at most `in_flight` batches are with DALI; a bad sample is named by `settle`
and affects no other.
"""

from concurrent import futures
from contextlib import nullcontext

import numpy as np

from fastload.decode import crop_report
from fastload.decode.dali.stage import DaliBatch, DaliStage
from fastload.decode.image_decoder import BatchImages, DecodeSpec, ImageDecoder, missing_guide
from fastload.decode.image_header import image_header
from fastload.errors import ConfigError
from fastload.threads import WorkerThreads


class DaliImageStage(ImageDecoder):
    """Sends batches of images to a `DaliStage`.

    stage: made by `make_stage`; it outlives this object. stream: that uses the images; None on the CPU.
    """

    by_batch = True

    def __init__(self, spec: DecodeSpec, stage: DaliStage, stream):
        self.fields, self.bytes_of = spec.image_fields, {}  # DALI has buffers of its own
        self.stage, self.stream = stage, stream
        self.sample_bytes = sum(3 * geometry.height * geometry.width for geometry in stage.specs.values())
        self._feeder = WorkerThreads(1, "fastload-dali-feeder")
        self._counted_seconds = stage.stats.busy_seconds

    def submit(self, content, first_blob, buffers, positions, augments, urgent=False) -> "DaliImages":
        """`urgent` has no effect: DALI decodes in the order of submission."""
        assert not buffers and not augments
        images = DaliImages(self, content, first_blob, positions)
        images.begin(self._feeder)
        return images

    def new_busy_seconds(self) -> float:
        """How long DALI and Pillow were busy since the last call."""
        before, self._counted_seconds = self._counted_seconds, self.stage.stats.busy_seconds
        return self._counted_seconds - before

    def counters(self) -> dict:
        """How many images each decoder got since the loader began, and how many runs bad samples cost."""
        names = ("dali_samples", "pillow_samples", "reruns")
        return {name: getattr(self.stage.stats, name) for name in names}

    def give_up(self) -> None:
        self._feeder.stop()

    def join(self, deadline: float) -> bool:
        return self._feeder.join(deadline)


def make_stage(spec: DecodeSpec, threads: int, device, in_flight: int) -> DaliStage:
    """The DaliStage of a loader. Building pipelines is slow, so all iterations share it."""
    if spec.max_batch is None:
        raise ConfigError(
            "DALI needs to know the size of the largest batch: give batch_sampler= an attribute "
            'batch_size, or use decode="native".'
        )
    return DaliStage(
        spec.image_specs(),
        device=device,
        threads=threads,
        max_batch=spec.max_batch,
        seed=spec.seed,
        max_pixels=spec.max_pixels,
        in_flight=in_flight,
        hw_decoder_load=spec.hw_decoder_load,
        deterministic=spec.deterministic,
    )


class DaliImages(BatchImages):
    """The images of one batch of a DaliImageStage."""

    def __init__(self, stage: DaliImageStage, content, first_blob: dict[str, int], positions: np.ndarray):
        self._stage, self._content, self._first_blob, self._positions = stage, content, first_blob, positions
        self.busy_seconds = 0.0  # of DALI and Pillow since the batch before
        self._fed: futures.Future[DaliBatch | None] | None = None
        self._sent: DaliBatch | None = None  # the result of _fed, set before that is done
        self._cancelled = False
        self._missing: dict[str, list[int]] = {}  # field -> samples without an image or a guide
        self._decoded: dict = {}

    def begin(self, feeder: WorkerThreads) -> None:
        self._fed = feeder.submit(self._feed)

    def wait(self, timeout_seconds: float) -> bool:
        # A future that was cancelled before it ran is done, but `futures.wait` never reports it.
        if not (self._fed.done() or futures.wait([self._fed], timeout_seconds).done):
            return False
        batch = self._batch()
        return batch is None or batch.wait(timeout_seconds)

    def cancel(self) -> None:
        self._cancelled = True
        if self._sent is not None:
            self._sent.cancel()

    def _batch(self) -> DaliBatch | None:
        """What was sent to DALI; None if feeding it was cancelled or failed, which `settle` raises."""
        failed = self._fed.cancelled() or self._fed.exception() is not None
        return None if failed else self._fed.result()

    def settle(self) -> dict[tuple[str, int], str]:
        batch = self._fed.result()
        if batch is None or self._cancelled:
            raise futures.CancelledError
        with self._on_stream():
            self._decoded = batch.finish()
            errors = self._fill_missing()
        self.busy_seconds = self._stage.new_busy_seconds()
        for name, field in self._decoded.items():
            errors |= {(name, i): reason for i, reason in field.errors.items()}
        return errors

    def adopt(self, to: np.ndarray, other: "DaliImages", samples: np.ndarray) -> None:
        """`release` the other batch afterwards."""
        with self._on_stream():
            for name, field in self._decoded.items():
                other_field = other._decoded[name]
                for i, sample in zip(to.tolist(), samples.tolist(), strict=True):
                    field.pixels[i].copy_(other_field.pixels[sample])
                crop_report.take(field.rows, to, other_field.rows, samples)

    def tensor(self, name: str):
        """uint8 pixels [N, 3, height, width], channels last, on the device."""
        return self._decoded[name].pixels.permute(0, 3, 1, 2)

    def report(self, name: str) -> dict:
        return crop_report.crop_report(name, self._stage.stage.specs[name], self._decoded[name].rows)

    def release(self, done) -> None:
        import torch

        if done is None and self._stage.stream is not None:
            done = torch.cuda.Event()
            done.record(self._stage.stream)
        if (batch := self._batch()) is not None:
            batch.release(done)

    def _feed(self) -> DaliBatch | None:
        while not self._content.wait(0.2) and not self._cancelled:
            pass
        if self._cancelled or self._content.first_error is not None:  # the loader raises the reader's error
            return None
        content = {name: self._images(name) for name in self._stage.fields}
        guides = {}
        for name, field in self._stage.fields.items():
            if field.like is not None:
                likes = content[field.like]
                guides[name] = [None if image is None else image_header(image).upright for image in likes]
                pairs = zip(content[name], likes, strict=True)
                content[name] = [None if guide is None else image for image, guide in pairs]
        for name, images in content.items():
            self._missing[name] = [i for i, image in enumerate(images) if image is None]
        self._sent = self._stage.stage.submit(content, self._positions, guides)
        if self._cancelled:  # while it was submitted
            self._sent.cancel()
        return self._sent

    def _images(self, name: str) -> list:
        first = self._first_blob[name]
        blobs = range(first, first + len(self._positions))
        missing = self._content.missing
        return [None if missing(blob) else memoryview(self._content.blob(blob)) for blob in blobs]

    def _fill_missing(self) -> dict[tuple[str, int], str]:
        """Writes the default colours; returns the errors of missing images without a default."""
        errors = {}
        for name, field in self._stage.fields.items():
            for i in self._missing[name]:
                if field.required:
                    errors[name, i] = missing_guide(field)
                else:
                    for channel, value in enumerate(field.default):
                        self._decoded[name].pixels[i, :, :, channel] = value
        return errors

    def _on_stream(self):
        import torch

        return nullcontext() if self._stage.stream is None else torch.cuda.stream(self._stage.stream)
