"""The images of a loader's batches through DALI: the same questions as to `images.ImageStage`, other hands.

In: a `ByteBatch`, the image fields, positions. Out: levels, uint8 and channels last, on the loader's device,
for whole batches to be finished there, and the crop report. Promised: bytes are handed to DALI as soon as
they are read, by a thread of its own, in order; at most `in_flight` batches are with DALI; a bad sample is
named by `settle` and costs no other one.
"""

from concurrent import futures
from contextlib import nullcontext

import numpy as np

from fastload.decode import crop_report
from fastload.decode.dali.stage import DaliBatch, DaliStage
from fastload.decode.image_header import image_header
from fastload.decode.images import missing_guide, specs_of
from fastload.errors import ConfigError
from fastload.fields import Image
from fastload.threads import WorkerThreads

_FEEDER = "fastload-dali-feeder"


class DaliImageStage:
    """Sends batches of images to a `DaliStage`.

    stage: made by `make_stage`; it outlives this one. stream: on which the images are used, None on a CPU.
    """

    by_batch = True  # images are finished by whole batches

    def __init__(self, config, stage: DaliStage, stream):
        self.fields: dict[str, Image] = config.image_fields
        self.stage, self.stream = stage, stream
        self.bytes_of: dict[str, int] = {}  # DALI has buffers of its own
        self.sample_bytes = sum(3 * spec.height * spec.width for spec in stage.specs.values())
        self._feeder = WorkerThreads(1, _FEEDER)
        self._counted_seconds = stage.stats.busy_seconds

    def submit(
        self,
        content,
        first_blob: dict[str, int],
        buffers: dict,
        positions: np.ndarray,
        augments: dict,
        urgent: bool = False,
    ):
        """Begins to decode as soon as `content` is read; `urgent` or not, as DALI keeps to its order."""
        assert not buffers and not augments
        images = DaliImages(self, content, first_blob, positions)
        images.begin(self._feeder)
        return images

    def new_busy_seconds(self) -> float:
        """How long DALI and Pillow were busy since this was asked last."""
        before, self._counted_seconds = self._counted_seconds, self.stage.stats.busy_seconds
        return self._counted_seconds - before

    def counters(self) -> dict:
        """Whom the images went to, since the loader began, and how many runs bad samples cost."""
        stats = self.stage.stats
        names = ("dali_samples", "pillow_samples", "reruns")
        return {name: getattr(stats, name) for name in names}

    def give_up(self) -> None:
        """Lets the feeding thread end when it has done what it is at. A finalizer may call it."""
        self._feeder.stop()

    def join(self, deadline: float) -> bool:
        """Whether the feeding thread has ended; waits until `deadline` of time.monotonic."""
        return self._feeder.join(deadline)


def make_stage(config, threads: int, device, in_flight: int) -> DaliStage:
    """The DaliStage of a loader: pipelines are dear, so that one serves all of its iterations."""
    if config.most_samples is None:
        raise ConfigError(
            f"DALI needs to know how large a batch can be: give {type(config.batch_sampler).__name__} an "
            'attribute batch_size, or use decode="native".'
        )
    return DaliStage(
        specs_of(config),
        device=device,
        threads=threads,
        max_batch=config.most_samples,
        seed=config.seed,
        max_pixels=config.max_pixels,
        in_flight=in_flight,
        hw_decoder_load=config.hw_decoder_load,
        deterministic=config.deterministic,
    )


class DaliImages:
    """The images of one batch, on their way or done; the questions are those of `images.BatchImages`."""

    def __init__(self, stage: DaliImageStage, content, first_blob: dict[str, int], positions: np.ndarray):
        self._stage, self._content, self._first_blob = stage, content, first_blob
        self._positions = positions
        self.busy_seconds = 0.0  # of DALI and Pillow since the batch before
        self._fed: futures.Future[DaliBatch | None] | None = None
        self._sent: DaliBatch | None = None  # what _fed returns, as soon as it is there
        self._cancelled = False
        self._missing: dict[
            str, list[int]
        ] = {}  # field -> samples without an image, or without their guide's
        self._decoded: dict = {}

    def begin(self, feeder: WorkerThreads) -> None:
        self._fed = feeder.submit(self._feed)

    def wait(self, timeout_seconds: float) -> bool:
        """True when nothing works on this batch any more."""
        # One that was cancelled before it ran is done, but no wait ever says so.
        if not (self._fed.done() or futures.wait([self._fed], timeout_seconds).done):
            return False
        batch = self._batch()
        return batch is None or batch.wait(timeout_seconds)

    def cancel(self) -> None:
        """A finalizer may call it: it takes no lock and waits for nothing."""
        self._cancelled = True
        if self._sent is not None:
            self._sent.cancel()

    def _batch(self) -> DaliBatch | None:
        """What was sent to DALI; None where feeding it was cancelled or failed, which `settle` raises."""
        failed = self._fed.cancelled() or self._fed.exception() is not None
        return None if failed else self._fed.result()

    def others(self) -> list:
        """None: DALI's stage has Pillow threads of its own."""
        return []

    def settle(self) -> dict[tuple[str, int], str]:
        """Fills in the defaults of missing images; returns (field, sample) -> why there is no picture."""
        batch = self._fed.result()
        if batch is None or self._cancelled:
            raise futures.CancelledError
        with self._on_stream():
            self._decoded = batch.finish()
            errors = self._fill_missing()
        self.busy_seconds = self._stage.new_busy_seconds()
        for name, one in self._decoded.items():
            errors |= {(name, i): reason for i, reason in one.errors.items()}
        return errors

    def adopt(self, places: np.ndarray, others: "DaliImages", theirs: np.ndarray) -> None:
        """Images `theirs` of another batch of the same stage take places in this one; `release` it then."""
        with self._on_stream():
            for name, one in self._decoded.items():
                other = others._decoded[name]
                for place, their in zip(places.tolist(), theirs.tolist(), strict=True):
                    one.pixels[place].copy_(other.pixels[their])
                crop_report.take(one.rows, places, other.rows, theirs)

    def tensor(self, name: str):
        """The levels of a field: uint8 [N, 3, height, width], channels last, on the device."""
        return self._decoded[name].pixels.permute(0, 3, 1, 2)

    def report(self, name: str) -> dict:
        """The entries of `report=True` for a field; see crop_report.py."""
        return crop_report.crop_report(name, self._stage.stage.specs[name], self._decoded[name].rows)

    def release(self, done) -> None:
        """The levels have been used once `done`, an event (None on a CPU), has passed."""
        import torch

        if done is None and self._stage.stream is not None:
            done = torch.cuda.Event()
            done.record(self._stage.stream)
        if (batch := self._batch()) is not None:
            batch.release(done)

    def _feed(self) -> DaliBatch | None:
        while not self._content.wait(0.2) and not self._cancelled:
            pass
        if self._cancelled or self._content.first_error is not None:  # the reader's error is raised by others
            return None
        content = {name: self._images(name) for name in self._stage.fields}
        guides = {}
        for name, one in self._stage.fields.items():
            if one.like is not None:
                guides[name] = [None if image is None else _upright(image) for image in content[one.like]]
                content[name] = [
                    image if guide is not None else None
                    for image, guide in zip(content[name], content[one.like], strict=True)
                ]
        self._missing = {
            name: [i for i, image in enumerate(images) if image is None] for name, images in content.items()
        }
        self._sent = self._stage.stage.submit(content, self._positions, guides)
        if self._cancelled:  # meanwhile
            self._sent.cancel()
        return self._sent

    def _images(self, name: str) -> list:
        first = self._first_blob[name]
        blobs = range(first, first + len(self._positions))
        missing = self._content.missing
        return [None if missing(blob) else memoryview(self._content.blob(blob)) for blob in blobs]

    def _fill_missing(self) -> dict[tuple[str, int], str]:
        """Writes the default colours; returns what has none."""
        errors = {}
        for name, one in self._stage.fields.items():
            for i in self._missing[name]:
                if one.required:
                    errors[name, i] = missing_guide(one)
                else:
                    for channel, level in enumerate(one.default):
                        self._decoded[name].pixels[i, :, :, channel] = level
        return errors

    def _on_stream(self):
        import torch

        return nullcontext() if self._stage.stream is None else torch.cuda.stream(self._stage.stream)


def _upright(content) -> tuple[int, int]:
    return image_header(content).upright
