"""The images of a batch, through the backend that this machine has: bytes in, pixels in the batch out.

In: a `ByteBatch`, the image fields and how their pixels are to be written. Out: tensors, and a report of
sizes and crops. Promised: JPEGs are decoded, resized and written by native threads, and Python is entered
once a batch; what that path does not take (other formats, CMYK, 12 bits) is decoded by Pillow on worker
threads and written by the same kernels, into the same batch; geometry and random draws are those of spec.py for every
image, whoever decodes it. The backend "pillow" does everything with Pillow and NumPy and is the reference of
the tests.
"""

import math
import threading

import numpy as np

from fastload import _native
from fastload.decode import crop_report, pillow, simplejpeg_fallback
from fastload.decode.backend import choose_backend
from fastload.decode.image_header import image_header
from fastload.decode.spec import ImageSpec, geometry
from fastload.errors import SampleError
from fastload.fields import Image
from fastload.normalize import normalization, normalize
from fastload.shortage import no_memory
from fastload.threads import native_threads

_OK = int(_native.ImageStatus.OK)
_UNSUPPORTED = int(_native.ImageStatus.UNSUPPORTED)
_MISSING = int(_native.ImageStatus.MISSING)
_OUT_OF_MEMORY = int(_native.ImageStatus.OUT_OF_MEMORY)
_FAILED = int(_native.ImageStatus.FAILED)
_NEAREST = 0
# NumPy has no bfloat16: its bits travel as uint16.
_NUMPY_DTYPE = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16, "uint8": np.uint8}


def specs_of(config) -> dict[str, ImageSpec]:
    """The geometry of each image field, whoever decodes it."""
    fields: dict[str, Image] = config.image_fields
    likes = {name: None if one.like is None else fields[one.like] for name, one in fields.items()}
    return {name: ImageSpec.of(one, config.augment.xflip, likes[name]) for name, one in fields.items()}


class ImageStage:
    """Sends batches of images on their way.

    config: what the loader was asked for (`image_fields`, `augment`, `normalize`, `dtype`, `layout`,
    `decode`, `seed`, `max_pixels`). threads: native decoder threads, shared by all loaders that ask for the
    same number. levels: leave the images as levels, uint8 and channels last, for a GPU to finish; else they
    are normalized and in the config's dtype and layout.
    """

    def __init__(self, config, threads: int, levels: bool = False):
        self.config = config
        self.backend = choose_backend("native" if config.decode == "auto" else config.decode)
        self.by_batch = levels  # images are finished by whole batches, not by decoder threads
        self.dtype, self.layout = ("uint8", "channels_last") if levels else (config.dtype, config.layout)
        self.fields: dict[str, Image] = config.image_fields
        self.specs = specs_of(config)
        self.normalizations = {
            name: normalization(config.normalize if one.normalize is None else one.normalize)
            for name, one in self.fields.items()
        }
        self.writers = {name: self._writer(name) for name in self.fields}
        self.bytes_of = {name: writer.sample_bytes for name, writer in self.writers.items()}
        self.threads = threads
        self._decoder = None
        if self.backend.name == "native":
            self._decoder = native_threads("decoder", threads, _native.ImageDecoder)

    def counters(self) -> dict:
        """Nothing that `loader.stats()` does not count by itself."""
        return {}

    def give_up(self) -> None:
        """The decoder threads are the process's, and stay."""

    def join(self, deadline: float) -> bool:
        """Whether no thread of its own works any more: it has none."""
        return True

    @property
    def sample_bytes(self) -> int:
        """Bytes of all images of one sample."""
        return sum(self.bytes_of.values())

    def submit(
        self,
        content: "_native.ByteBatch",
        first_blob: dict[str, int],
        buffers: dict,
        positions: np.ndarray,
        augments: dict | None = None,
        urgent: bool = False,
    ) -> "BatchImages":
        """Begins to decode, as soon as `content` is read; `buffers` hold [N] samples of each field.

        augments: field -> what is drawn for it, with `native` (an Augmenter of this batch) and
        `reference(levels, i, out)`; fields without are normalized only. urgent: before all that waits.
        """
        augments = augments or {}
        pending = None
        if self._decoder is not None:
            requests = [
                _native.ImageFieldRequest(
                    self.specs[name].native,
                    first_blob[name],
                    first_blob[one.like or name],
                    self.writers[name],
                    buffers[name],
                    augments[name].native if name in augments else None,
                )
                for name, one in self.fields.items()
            ]
            pending = self._decoder.submit(
                content, requests, self.config.seed, positions, self.config.max_pixels, urgent=urgent
            )
        return BatchImages(self, content, first_blob, buffers, positions, pending, augments)

    def _writer(self, name: str) -> "_native.PixelWriter":
        spec, preset = self.specs[name], self.normalizations[name]
        return _native.PixelWriter(
            getattr(_native.Dtype, self.dtype),
            self.layout == "channels_last",
            spec.height,
            spec.width,
            preset.divisor,
            preset.mean,
            preset.std,
        )


class BatchImages:
    """The images of one batch, on their way or done."""

    def __init__(self, stage: ImageStage, content, first_blob, buffers, positions, pending, augments):
        self._stage, self._content, self._first_blob, self._buffers = stage, content, first_blob, buffers
        self._positions, self._pending, self._augments = positions, pending, augments
        self._names = list(stage.fields)
        self._status: np.ndarray | None = None
        self._rows: dict[str, dict[str, np.ndarray]] = {}  # field -> rows of crop_report.py
        self._errors: dict[tuple[str, int], str] = {}
        self._lock = threading.Lock()

    def wait(self, timeout_seconds: float) -> bool:
        """True when the native threads are done with this batch."""
        on_its_way = self._content if self._pending is None else self._pending
        return on_its_way.wait(timeout_seconds)

    def cancel(self) -> None:
        if self._pending is not None:
            self._pending.cancel()

    @property
    def busy_seconds(self) -> float:
        """Seconds that native threads worked on this batch, summed over them."""
        return 0.0 if self._pending is None else self._pending.busy_seconds

    def others(self) -> list[tuple[str, int]]:
        """The (field, sample) pairs that native threads left to `render_other`; call it after `wait`."""
        return [(self._names[f], int(i)) for f, i in np.argwhere(self._statuses() == _UNSUPPORTED)]

    def render_other(self, name: str, i: int) -> None:
        """Decodes and writes one image in this thread. A bad one is remembered, for `settle`."""
        try:
            self._render(name, i)
        except SampleError as error:
            self._errors[name, i] = str(error)

    def settle(self) -> dict[tuple[str, int], str]:
        """Fills in the defaults of missing images; returns (field, sample) -> why there is no picture.

        Raises OutOfMemoryError where there was none for an image, and RuntimeError for a fault of ours.
        """
        status = self._statuses()
        for f, i in np.argwhere((status != _OK) & (status != _UNSUPPORTED)):
            name, i = self._names[f], int(i)
            if status[f, i] == _MISSING and not self._stage.fields[name].required:
                self._fill(name, i)
            else:
                self._errors[name, i] = self._reason(name, f, i)
        return self._errors

    def adopt(self, places: np.ndarray, others: "BatchImages", theirs: np.ndarray) -> None:
        """Images `theirs` of another batch of the same stage take places in this one."""
        for name, size_bytes in self._stage.bytes_of.items():
            images, other_images = (
                np.frombuffer(one._buffers[name], np.uint8)[: len(one._positions) * size_bytes].reshape(
                    -1, size_bytes
                )
                for one in (self, others)
            )
            images[places] = other_images[theirs]
            crop_report.take(self._rows_of(name), places, others._rows_of(name), theirs)

    def tensor(self, name: str):
        """The images of a field: a torch tensor [N, 3, height, width] over the buffer, in the loader's
        layout.

        Nothing is copied; the buffer goes back to its pool when the last tensor over it dies, views included.
        """
        spec, stage = self._stage.specs[name], self._stage
        shape = len(self._positions), spec.height, spec.width
        return tensor_over(self._buffers[name], *shape, stage.dtype, stage.layout)

    def release(self, done) -> None:
        """The levels have been used; their memory is held by the tensors over it."""

    def report(self, name: str) -> dict:
        """The entries of `report=True` for a field; see crop_report.py."""
        return crop_report.crop_report(name, self._stage.specs[name], self._rows_of(name))

    def _statuses(self) -> np.ndarray:
        """[fields, N]; without native threads every image that is there is for `render_other`."""
        if self._status is None:
            n = len(self._positions)
            if self._pending is not None:
                self._status = self._pending.status.reshape(len(self._names), n)
            else:
                rows = [
                    [_MISSING if self._is_missing(name, i) else _UNSUPPORTED for i in range(n)]
                    for name in self._names
                ]
                self._status = np.array(rows, np.int32)
        return self._status

    def _is_missing(self, name: str, i: int) -> bool:
        blobs = {self._first_blob[name] + i, self._first_blob[self._stage.fields[name].like or name] + i}
        return any(self._content.missing(blob) for blob in blobs)

    def _reason(self, name: str, f: int, i: int) -> str:
        message = self._pending.message(f * len(self._positions) + i)
        if self._status[f, i] == _OUT_OF_MEMORY:
            raise no_memory(f"to decode an image of field {name!r}", "")
        if self._status[f, i] == _FAILED:
            raise RuntimeError(f"a fault of fastload's, in an image of field {name!r}: {message}")
        if message:
            return message
        if self._status[f, i] == _MISSING:
            return missing_guide(self._stage.fields[name])
        height, width = (int(side) for side in self._rows_of(name)["sizes"][i])
        try:
            geometry(self._stage.specs[name], width, height, self._stage.config.seed, int(self._positions[i]))
        except SampleError as error:
            return str(error)
        raise AssertionError(f"the native geometry refused {width} x {height}, the plain one does not")

    def _render(self, name: str, i: int) -> None:
        stage, like = self._stage, self._stage.fields[name].like
        content = self._bytes(name, i)
        limit = stage.config.max_pixels
        guide = None if like is None else pillow.upright_size(self._bytes(like, i), max_pixels=limit)
        by_simplejpeg = stage.backend.name == "simplejpeg" and image_header(content).format == "jpeg"
        decode_image = simplejpeg_fallback.decode_image if by_simplejpeg else pillow.decode_image
        spec, position = stage.specs[name], int(self._positions[i])
        image = decode_image(content, spec, stage.config.seed, position, max_pixels=limit, guide=guide)
        crop_report.enter(self._rows_of(name), i, image)
        self._place(name, i, image.pixels)

    def _bytes(self, name: str, i: int) -> memoryview:
        return memoryview(self._content.blob(self._first_blob[name] + i))

    def _fill(self, name: str, i: int) -> None:
        """The default colour of a field where a sample has no image."""
        spec, colour = self._stage.specs[name], self._stage.fields[name].default
        self._place(name, i, np.broadcast_to(np.array(colour, np.uint8), (spec.height, spec.width, 3)))

    def _place(self, name: str, i: int, levels: np.ndarray) -> None:
        """`levels` [height, width, 3] uint8 into sample i of the batch, with what was drawn for it."""
        if name not in self._augments:
            self._write(name, i, levels)
        elif self._stage.backend.name == "pillow":
            self._augments[name].reference(levels, i, self.tensor(name)[i])
        else:
            out = np.frombuffer(self._buffers[name], np.uint8)
            self._augments[name].native.write(np.ascontiguousarray(levels), i, out)

    def _write(self, name: str, i: int, levels: np.ndarray) -> None:
        """`levels` [height, width, 3] uint8 into sample i of the batch, normalized and laid out."""
        stage = self._stage
        if stage.backend.name == "pillow":
            _write_reference(self.tensor(name)[i], levels, stage.normalizations[name])
            return
        height, width = levels.shape[:2]
        view = {"box": (0, 0, width, height), "resized": (width, height), "crop": (0, 0, width, height)}
        out = np.frombuffer(self._buffers[name], np.uint8)
        writer = stage.writers[name]
        levels = np.ascontiguousarray(levels)
        _native.write_image(levels, **view, flip=False, filter=_NEAREST, writer=writer, out=out, sample=i)

    def _rows_of(self, name: str) -> dict[str, np.ndarray]:
        with self._lock:  # made by whichever worker comes first
            if name not in self._rows:
                native = None if self._pending is None else self._pending.report(self._names.index(name))
                self._rows[name] = native or crop_report.empty_rows(len(self._positions))
            return self._rows[name]


def missing_guide(field: Image) -> str:
    """Why a required image is missing although it is there."""
    return f"the image that like={field.like!r} names is missing"


def tensor_over(buffer, n: int, height: int, width: int, dtype: str, layout: str):
    """A torch tensor [n, 3, height, width] over a buffer, which it keeps from its pool."""
    import torch

    channels_last = layout == "channels_last"
    shape = (n, height, width, 3) if channels_last else (n, 3, height, width)
    tensor = torch.from_numpy(np.frombuffer(buffer, _NUMPY_DTYPE[dtype], math.prod(shape)).reshape(shape))
    if dtype == "bfloat16":
        tensor = tensor.view(torch.bfloat16)
    return tensor.permute(0, 3, 1, 2) if channels_last else tensor


def _write_reference(out, levels: np.ndarray, rule) -> None:
    """The plain twin of the native writer: `levels` [height, width, 3] uint8 into `out` [3, height,
    width]."""
    import torch

    image = torch.from_numpy(np.ascontiguousarray(levels.transpose(2, 0, 1)))
    out.copy_(image if out.dtype == torch.uint8 else normalize(image, rule, out.dtype))
