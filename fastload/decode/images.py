"""The images of a batch, through the backend of this machine: bytes in, pixels in the batch out.

In: a `ByteBatch`, the image fields and how their pixels are to be written. Out: tensors, and a report of
sizes and crops. Promised: JPEGs are decoded, resized and written by native threads, and Python is entered
once a batch. What native threads do not take (other formats, CMYK, 12 bits) is decoded by Pillow on worker
threads and written by the same kernels into the same batch. Whoever decodes an image, its geometry and its
random draws are those of spec.py. The backend "pillow" does everything with Pillow and NumPy; it is the
reference of the tests.
"""

import math
import threading

import numpy as np

from fastload import _native
from fastload.decode import crop_report, pillow, simplejpeg_fallback
from fastload.decode.backend import choose_backend
from fastload.decode.image_decoder import BatchImages, DecodeSpec, ImageDecoder, missing_guide
from fastload.decode.image_header import image_header
from fastload.decode.spec import geometry
from fastload.errors import SampleError
from fastload.normalize import normalize
from fastload.shortage import no_memory
from fastload.threads import native_threads

_OK = int(_native.ImageStatus.OK)
_UNSUPPORTED = int(_native.ImageStatus.UNSUPPORTED)
_MISSING = int(_native.ImageStatus.MISSING)
_OUT_OF_MEMORY = int(_native.ImageStatus.OUT_OF_MEMORY)
_FAILED = int(_native.ImageStatus.FAILED)
_NEAREST = 0
# NumPy has no bfloat16: its bits are stored as uint16.
_NUMPY_DTYPE = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16, "uint8": np.uint8}


class ImageStage(ImageDecoder):
    """Decodes on native threads, which all loaders of the process that ask for the same number share.

    threads: native decoder threads. as_uint8: leave the images as uint8 pixels, channels last, for a GPU to
    finish; else they are normalized, in the dtype and layout of `spec`.
    """

    def __init__(self, spec: DecodeSpec, threads: int, as_uint8: bool = False):
        self.spec = spec
        self.backend = choose_backend("native" if spec.decode == "auto" else spec.decode)
        self.by_batch = as_uint8
        self.dtype, self.layout = ("uint8", "channels_last") if as_uint8 else (spec.dtype, spec.layout)
        self.fields, self.specs = spec.image_fields, spec.image_specs()
        self.writers = {name: self._writer(name) for name in self.fields}
        self.bytes_of = {name: writer.sample_bytes for name, writer in self.writers.items()}
        self.sample_bytes = sum(self.bytes_of.values())
        self._decoder = None
        if self.backend.name == "native":
            self._decoder = native_threads("decoder", threads, _native.ImageDecoder)

    def submit(self, content, first_blob, buffers, positions, augments, urgent=False) -> "NativeImages":
        pending = None
        if self._decoder is not None:
            requests = []
            for name, field in self.fields.items():
                blobs = first_blob[name], first_blob[field.like or name]
                augmenter = augments[name].native if name in augments else None
                request = self.specs[name].native, *blobs, self.writers[name], buffers[name], augmenter
                requests.append(_native.ImageFieldRequest(*request))
            pending = self._decoder.submit(
                content, requests, self.spec.seed, positions, self.spec.max_pixels, urgent=urgent
            )
        return NativeImages(self, content, first_blob, buffers, positions, pending, augments)

    def _writer(self, name: str) -> "_native.PixelWriter":
        spec, preset = self.specs[name], self.spec.normalizations[name]
        layout = getattr(_native.Dtype, self.dtype), self.layout == "channels_last", spec.height, spec.width
        return _native.PixelWriter(*layout, preset.divisor, preset.mean, preset.std)


class NativeImages(BatchImages):
    """The images of one batch of an ImageStage. pending: what native threads do of it; None without them."""

    def __init__(self, stage: ImageStage, content, first_blob, buffers, positions, pending, augments):
        self._stage, self._content, self._first_blob, self._buffers = stage, content, first_blob, buffers
        self._positions, self._pending, self._augments = positions, pending, augments
        self._names = list(stage.fields)
        self._status: np.ndarray | None = None
        self._rows: dict[str, dict[str, np.ndarray]] = {}  # field -> rows of crop_report.py
        self._errors: dict[tuple[str, int], str] = {}
        self._lock = threading.Lock()

    def wait(self, timeout_seconds: float) -> bool:
        pending = self._content if self._pending is None else self._pending
        return pending.wait(timeout_seconds)

    def cancel(self) -> None:
        if self._pending is not None:
            self._pending.cancel()

    @property
    def busy_seconds(self) -> float:
        """Summed over the native threads."""
        return 0.0 if self._pending is None else self._pending.busy_seconds

    def others(self) -> list[tuple[str, int]]:
        return [(self._names[f], int(i)) for f, i in np.argwhere(self._statuses() == _UNSUPPORTED)]

    def render_other(self, name: str, i: int) -> None:
        try:
            self._render(name, i)
        except SampleError as error:
            self._errors[name, i] = str(error)

    def settle(self) -> dict[tuple[str, int], str]:
        """Raises RuntimeError for an error in fastload itself."""
        status = self._statuses()
        for f, i in np.argwhere((status != _OK) & (status != _UNSUPPORTED)):
            name, i = self._names[f], int(i)
            if status[f, i] == _MISSING and not self._stage.fields[name].required:
                self._fill(name, i)
            else:
                self._errors[name, i] = self._reason(name, f, i)
        return self._errors

    def adopt(self, to: np.ndarray, other: "NativeImages", samples: np.ndarray) -> None:
        for name in self._stage.fields:
            self._images(name)[to] = other._images(name)[samples]
            crop_report.take(self._rows_of(name), to, other._rows_of(name), samples)

    def tensor(self, name: str):
        """Nothing is copied. The buffer returns to its pool when the last tensor or view over it dies."""
        spec, stage = self._stage.specs[name], self._stage
        shape = len(self._positions), spec.height, spec.width
        return tensor_over(self._buffers[name], *shape, stage.dtype, stage.layout)

    def report(self, name: str) -> dict:
        return crop_report.crop_report(name, self._stage.specs[name], self._rows_of(name))

    def _images(self, name: str) -> np.ndarray:
        """[N, bytes of an image] uint8"""
        size_bytes = self._stage.bytes_of[name]
        content = np.frombuffer(self._buffers[name], np.uint8)[: len(self._positions) * size_bytes]
        return content.reshape(-1, size_bytes)

    def _statuses(self) -> np.ndarray:
        """[fields, N]; without native threads every image that is present is left to `render_other`."""
        if self._status is None:
            n = len(self._positions)
            if self._pending is not None:
                self._status = self._pending.status.reshape(len(self._names), n)
            else:
                missing = [[self._is_missing(name, i) for i in range(n)] for name in self._names]
                self._status = np.where(missing, _MISSING, _UNSUPPORTED).astype(np.int32)
        return self._status

    def _is_missing(self, name: str, i: int) -> bool:
        blobs = {self._first_blob[name] + i, self._first_blob[self._stage.fields[name].like or name] + i}
        return any(self._content.missing(blob) for blob in blobs)

    def _reason(self, name: str, f: int, i: int) -> str:
        message = self._pending.message(f * len(self._positions) + i)
        if self._status[f, i] == _OUT_OF_MEMORY:
            raise no_memory(f"to decode an image of field {name!r}", "")
        if self._status[f, i] == _FAILED:
            raise RuntimeError(f"internal error of fastload in an image of field {name!r}: {message}")
        if message:
            return message
        if self._status[f, i] == _MISSING:
            return missing_guide(self._stage.fields[name])
        height, width = (int(side) for side in self._rows_of(name)["sizes"][i])
        try:
            geometry(self._stage.specs[name], width, height, self._stage.spec.seed, int(self._positions[i]))
        except SampleError as error:
            return str(error)
        raise AssertionError(f"the native geometry refused {width} x {height}, the reference does not")

    def _render(self, name: str, i: int) -> None:
        stage, like = self._stage, self._stage.fields[name].like
        content = self._bytes(name, i)
        limit = stage.spec.max_pixels
        guide = None if like is None else pillow.upright_size(self._bytes(like, i), max_pixels=limit)
        by_simplejpeg = stage.backend.name == "simplejpeg" and image_header(content).format == "jpeg"
        decode_image = simplejpeg_fallback.decode_image if by_simplejpeg else pillow.decode_image
        spec, position = stage.specs[name], int(self._positions[i])
        image = decode_image(content, spec, stage.spec.seed, position, max_pixels=limit, guide=guide)
        crop_report.enter(self._rows_of(name), i, image)
        self._store(name, i, image.pixels)

    def _bytes(self, name: str, i: int) -> memoryview:
        return memoryview(self._content.blob(self._first_blob[name] + i))

    def _fill(self, name: str, i: int) -> None:
        spec, colour = self._stage.specs[name], self._stage.fields[name].default
        self._store(name, i, np.broadcast_to(np.array(colour, np.uint8), (spec.height, spec.width, 3)))

    def _store(self, name: str, i: int, pixels: np.ndarray) -> None:
        """Writes `pixels` [height, width, 3] uint8 as sample i of the batch, augmented and normalized."""
        stage, pixels = self._stage, np.ascontiguousarray(pixels)
        out = np.frombuffer(self._buffers[name], np.uint8)
        if stage.backend.name == "pillow" and name in self._augments:
            self._augments[name].reference(pixels, i, self.tensor(name)[i])
        elif stage.backend.name == "pillow":
            _write_reference(self.tensor(name)[i], pixels, stage.spec.normalizations[name])
        elif name in self._augments:
            self._augments[name].native.write(pixels, i, out)
        else:
            height, width = pixels.shape[:2]
            view = {"box": (0, 0, width, height), "resized": (width, height), "crop": (0, 0, width, height)}
            writer = stage.writers[name]
            _native.write_image(pixels, **view, flip=False, filter=_NEAREST, writer=writer, out=out, sample=i)

    def _rows_of(self, name: str) -> dict[str, np.ndarray]:
        with self._lock:  # two workers may ask at once
            if name not in self._rows:
                native = None if self._pending is None else self._pending.report(self._names.index(name))
                self._rows[name] = native or crop_report.empty_rows(len(self._positions))
            return self._rows[name]


def tensor_over(buffer, n: int, height: int, width: int, dtype: str, layout: str):
    """A tensor [n, 3, height, width] over a buffer, which stays out of its pool while the tensor lives."""
    import torch

    channels_last = layout == "channels_last"
    shape = (n, height, width, 3) if channels_last else (n, 3, height, width)
    tensor = torch.from_numpy(np.frombuffer(buffer, _NUMPY_DTYPE[dtype], math.prod(shape)).reshape(shape))
    if dtype == "bfloat16":
        tensor = tensor.view(torch.bfloat16)
    return tensor.permute(0, 3, 1, 2) if channels_last else tensor


def _write_reference(out, pixels: np.ndarray, rule) -> None:
    """The reference of the native writer: `pixels` [height, width, 3] uint8 into `out` [3, height, width]."""
    import torch

    image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    out.copy_(image if out.dtype == torch.uint8 else normalize(image, rule, out.dtype))
