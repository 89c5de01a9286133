"""The images of one field of a batch: decoded by DALI and Pillow.

In: N encoded images of a `DaliStage`. Out: a `DecodedField`. Promised: DALI gets what its gate admits, Pillow
the rest; if DALI's run fails because of bad samples, these are found and given to Pillow, and the others run
again; pixels are copied only if DALI did not decode all of them.
"""

import itertools
import time
from concurrent import futures
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from fastload.decode import crop_report
from fastload.decode.dali import pipeline
from fastload.decode.dali.gate import Arguments, admits, arguments
from fastload.decode.dali.pipeline import Pipe
from fastload.decode.image_header import image_header
from fastload.decode.pillow import DecodedImage, decode_image
from fastload.decode.spec import ImageSpec, geometries
from fastload.errors import BackendError, FastloadError, SampleError
from fastload.shortage import shortage

if TYPE_CHECKING:
    from fastload.decode.dali.stage import DaliStage


@dataclass
class DecodedField:
    """The images of one field of a batch.

    pixels: [N, height, width, 3] uint8 on the stage's device, in DALI's own memory if it decoded all of them;
    undefined for a sample that is missing or in `errors`. rows: as crop_report.py takes them, and "flips" [N]
    bool; zeros for a sample without an image.
    """

    pixels: torch.Tensor
    errors: dict[int, str]  # sample -> why it cannot be decoded
    rows: dict[str, np.ndarray]


class FieldShare:
    """The images of one field of a batch: which DALI decodes, which Pillow, and the results."""

    def __init__(
        self, stage: "DaliStage", name: str, content: list, positions: np.ndarray, guides: list | None
    ):
        assert len(content) == len(positions), f"{len(content)} images for {len(positions)} positions"
        self.stage, self.name = stage, name
        self.spec: ImageSpec = stage.specs[name]
        self.content = [None if image is None else _bytes(image) for image in content]
        self.positions, self.guides = positions, guides or [None] * len(content)
        self.rows = {**crop_report.empty_rows(len(content)), "flips": np.zeros(len(content), bool)}
        self.by_pillow: dict[int, futures.Future] = {}
        self.cancelled = False  # Pillow begins no more images
        self.output: torch.Tensor | None = None  # DALI's, of the samples that it took
        self.pixels: torch.Tensor | None = None  # of all samples, if some are written before the others
        # On a GPU: what its stream may still read after `decoded` has returned, besides torch's own memory.
        self.read_later: list = [self.content]
        self.failure: Exception | None = None
        self.scheduled = False
        self.pipe: Pipe | None = None
        self.taken, self.arguments, self.aligned = self._admit()

    def begin(self) -> None:
        """Hands the images to DALI, and to Pillow those that DALI does not take."""
        try:
            taken = set(self.taken.tolist())
            for i, image in enumerate(self.content):
                if image is not None and i not in taken:
                    self._give_to_pillow(i)
            if not taken:
                return
            self.pipe = self.stage.pipe(self.name, self.aligned)
            self._schedule(self.pipe, self.taken, self.arguments)
            self.scheduled = True
        except Exception as error:  # not because of a sample: nothing was decoded yet
            self.failure = _machine_error(error, self.stage.device)

    def _schedule(self, pipe: Pipe, samples: np.ndarray, arguments: Arguments) -> None:
        try:
            pipe.schedule([self.content[i] for i in samples], arguments)
        except BaseException:
            self.stage.discard(pipe)
            raise

    def take_output(self) -> None:
        """Waits for DALI's run. Each scheduled run's output must be taken once, in order, failed or not."""
        if not self.scheduled:
            return
        try:
            self.output = self.pipe.output(self.stage.stream)
        except Exception as error:  # any: the outputs of the other fields must be taken, too
            self.failure = error

    def decoded(self) -> DecodedField:
        """The whole field. Raises BackendError or ResourceError if the machine failed, and not a sample."""
        if isinstance(self.failure, FastloadError):  # not because of a sample
            raise self.failure
        parts = [(self.taken, self.output)] if self.failure is None and len(self.taken) else []
        if self.failure is not None:
            parts = self._repaired()
        images, errors = self._others()
        for i in errors:
            for column in self.rows.values():
                column[i] = 0
        with self.stage.lock:
            self.stage.stats.dali_samples += sum(len(samples) for samples, _ in parts)
            self.stage.stats.bad_samples += len(errors)
        with pipeline.on(self.stage.stream):
            return DecodedField(self._composed(parts, images), errors, self.rows)

    def _admit(self) -> tuple[np.ndarray, Arguments | None, bool]:
        """The samples that DALI takes, their arguments, and whether they are aligned; fills in their rows."""
        stage = self.stage
        headers = {i: image_header(image) for i, image in enumerate(self.content) if image is not None}
        library, limit = stage.library, stage.max_pixels
        known = [i for i, header in headers.items() if admits(library, self.content[i], header, limit)]
        if not known:
            return np.zeros(0, np.int64), None, False
        own = np.array([headers[i].upright for i in known], np.int64)
        sizes = np.array([self.guides[i] or headers[i].upright for i in known], np.int64)
        chosen = geometries(self.spec, *sizes.T, stage.seed, self.positions[known])
        fits = np.flatnonzero(chosen.status == 0)  # for the others Pillow's attempt gives the reason
        taken = np.array(known, np.int64)[fits]
        if not len(taken):
            return taken, None, False
        chosen = type(chosen)(*(column[fits] for column in chosen))
        self.rows["sizes"][taken] = sizes[fits, ::-1]
        self.rows["resized"][taken] = chosen.resized[:, ::-1]
        self.rows["corners"][taken] = chosen.crop[:, 1::-1]
        self.rows["boxes"][taken], self.rows["flips"][taken] = chosen.box, chosen.flip
        return taken, *arguments(self.spec, chosen, sizes[fits], own[fits], stage.margin)

    def _give_to_pillow(self, i: int) -> None:
        self.by_pillow[i] = self.stage.workers.submit(self._by_pillow, i)

    def _by_pillow(self, i: int) -> tuple[DecodedImage | str, float]:
        """Pillow's image, or why there is none, and the time it took in seconds."""
        if self.cancelled:
            return "cancelled", 0.0
        begun, position = time.perf_counter(), int(self.positions[i])
        options = {"max_pixels": self.stage.max_pixels, "guide": self.guides[i]}
        try:
            outcome = decode_image(
                memoryview(self.content[i]), self.spec, self.stage.seed, position, **options
            )
        except SampleError as error:
            outcome = str(error)
        return outcome, time.perf_counter() - begun

    def _others(self) -> tuple[dict[int, np.ndarray], dict[int, str]]:
        """The results of Pillow: the pixels of each of its samples, or the reason of the failure."""
        images, errors, stats = {}, {}, self.stage.stats
        for i, future in self.by_pillow.items():
            outcome, seconds = future.result()
            with self.stage.lock:
                stats.pillow_samples += 1
                stats.busy_seconds += seconds
            if isinstance(outcome, str):
                errors[i] = outcome
                continue
            images[i] = outcome.pixels
            crop_report.enter(self.rows, i, outcome)
            self.rows["flips"][i] = outcome.geometry.flip
        return images, errors

    def _repaired(self) -> list[tuple[np.ndarray, torch.Tensor]]:
        """The parts of a batch whose run failed: its bad samples go to Pillow, the others run again.

        On the CPU and without a resize there is no second run: finding the bad samples decodes the others.
        """
        if pipeline.is_of_the_machine(self.failure):
            raise _machine_error(self.failure, self.stage.device)
        with self.stage.lock:
            self.stage.stats.reruns += 1
        columns: list = [[self.content[i] for i in self.taken]]
        decodes_all = self.aligned and self.stage.device.type == "cpu"
        if decodes_all:
            self.pixels = self._empty()
            rows = self.pixels.numpy()
            begin = self.arguments.start + self.arguments.inner
            columns += [[rows[i] for i in self.taken], begin.tolist(), self.arguments.flip.tolist()]
        good = np.array(self.stage.workers.map(pipeline.decodes, *columns), bool)
        for i in self.taken[~good]:
            self._give_to_pillow(int(i))
        if not decodes_all:
            return self._run_again(np.flatnonzero(good))
        with self.stage.lock:
            self.stage.stats.dali_samples += int(good.sum())
        return []

    def _run_again(self, indices: np.ndarray) -> list[tuple[np.ndarray, torch.Tensor]]:
        """Runs `taken[indices]` again; if that fails too, in halves: a sample that fails alone is bad."""
        if not len(indices):
            return []
        samples = self.taken[indices]
        pipe = self.stage.pipe(self.name, self.aligned, repair=True)
        try:
            self._schedule(pipe, samples, self.arguments.of(indices))
            return [(samples, pipe.output(self.stage.stream))]
        except (RuntimeError, MemoryError) as error:
            if pipeline.is_of_the_machine(error):
                raise _machine_error(error, self.stage.device) from error
        if len(indices) == 1:
            self._give_to_pillow(int(samples[0]))
            return []
        middle = len(indices) // 2
        return self._run_again(indices[:middle]) + self._run_again(indices[middle:])

    def _empty(self) -> torch.Tensor:
        shape = (len(self.content), self.spec.height, self.spec.width, 3)
        return torch.empty(shape, dtype=torch.uint8, device=self.stage.device)

    def _composed(self, parts: list, images: dict[int, np.ndarray]) -> torch.Tensor:
        """One tensor of all samples: DALI's own if it has all of them, else a copy on the device."""
        n, device = len(self.content), self.stage.device
        if len(parts) == 1 and len(parts[0][0]) == n:
            return parts[0][1]
        pixels = self._empty() if self.pixels is None else self.pixels
        for samples, output in parts:
            self.read_later.append(output)
            for start, stop in _runs(samples):
                _copy(output[start:stop], pixels[samples[start] : samples[stop - 1] + 1])
        shape, pinned = (len(images), *pixels.shape[1:]), device.type == "cuda"
        staged = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        for row, (i, image) in zip(staged, images.items(), strict=True):
            row.numpy()[...] = image
            pixels[i].copy_(row, non_blocking=True)
        return pixels


def _copy(source: torch.Tensor, target: torch.Tensor) -> None:
    if target.device.type == "cpu":
        # In this thread alone: torch's threads would spin beside DALI's and take longer than the rest.
        target.numpy()[...] = source.numpy()
    else:
        target.copy_(source)


def _bytes(content) -> np.ndarray:
    """[bytes] uint8, over the same memory."""
    if isinstance(content, np.ndarray):
        assert content.dtype == np.uint8 and content.ndim == 1, "encoded bytes must be [bytes] uint8"
        return np.ascontiguousarray(content)
    return np.frombuffer(content, np.uint8)


def _runs(samples: np.ndarray):
    """The ranges (start, stop) of `samples` that hold consecutive numbers."""
    edges = [0, *(np.flatnonzero(np.diff(samples) != 1) + 1).tolist(), len(samples)]
    return itertools.pairwise(edges)


def _machine_error(error: Exception, device: torch.device) -> FastloadError:
    if isinstance(error, FastloadError):
        return error
    return shortage(f"for DALI on {device}", error) or BackendError(
        f"DALI failed on {device}, not because of an image: {pipeline.reason_of(error)}. "
        'If memory is short, use a smaller batch_size or prefetch, or decode="native".'
    )
