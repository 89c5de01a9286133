"""DALI itself: one pipeline of a field, and a decoder that finds bad samples. Nothing else imports `nvidia`.

In: encoded images and their `Arguments`. Out: tensors uint8 [n, height, width, 3] on the device, in the order
of scheduling. Promised: DALI's dynamic executor, with which a failed run neither stops other runs nor
overwrites an output in use; no random operator and no state between two runs; a pipeline from before a fork
is not destroyed, which would wait for threads that do not exist.
"""

import atexit
import contextlib
import ctypes
import functools
import os
import re
import threading
import weakref
from types import SimpleNamespace

import numpy as np
import torch

from fastload import _native
from fastload.decode.dali.gate import Arguments
from fastload.decode.spec import ImageSpec
from fastload.errors import BackendError
from fastload.shortage import is_of_memory, is_of_threads, no_memory, shortage
from fastload.threads import end_everything

_INTERP = {
    "nearest": "INTERP_NN",
    "bilinear": "INTERP_LINEAR",
    "bicubic": "INTERP_CUBIC",
    "lanczos": "INTERP_LANCZOS3",
}
_OF_THE_MACHINE = re.compile(
    r"CUDA (runtime|driver) API error|out of memory|illegal memory access|CUDA allocation failed", re.I
)
# A pipeline has two threads for each of `threads`, and some of its own. If it gets only some of them, DALI
# aborts the process.
_OWN_THREADS = 8
_alive: "weakref.WeakSet[Pipe]" = weakref.WeakSet()
_of_thread = threading.local()


@functools.cache
def load() -> SimpleNamespace:
    """DALI's modules. Raises BackendError if DALI is not installed or does not load."""
    try:
        from nvidia import nvimgcodec
        from nvidia.dali import Pipeline, fn, types
    except (ImportError, OSError) as error:
        if is_of_memory(error):
            raise no_memory("to import DALI", error) from error
        raise BackendError(
            f'decode="dali": DALI cannot be imported ({error}). Install it with pip install "fastload[cu13]" '
            '(or "fastload[cu12]"), on Linux, or use decode="native".'
        ) from error
    os.register_at_fork(after_in_child=_keep_inherited)
    atexit.register(end_everything)  # runs before DALI's own handler, which destroys pipelines in use
    return SimpleNamespace(nvimgcodec=nvimgcodec, Pipeline=Pipeline, fn=fn, types=types)


class Pipe:
    """One DALI pipeline of a field: decode a region, and resize a box of it unless `aligned`."""

    def __init__(self, spec: ImageSpec, aligned: bool, has_margin: bool, settings: tuple):
        """settings: the GPU's number or None, threads, samples of a batch, share of the hardware decoder."""
        self._inputs = _inputs(spec, aligned, has_margin)
        try:
            _native.check_threads(2 * settings[1] + _OWN_THREADS)
            self._pipeline = _pipeline(spec, self._inputs, *settings)
        except (RuntimeError, MemoryError) as error:
            short = shortage("to build a pipeline of DALI", error)
            raise short or BackendError(f"DALI cannot build its pipeline: {reason_of(error)}.") from error
        _alive.add(self)

    def schedule(self, content: list[np.ndarray], arguments: Arguments) -> None:
        """Schedules n >= 1 samples; the bytes must not change until their output was taken."""
        assert content, "an empty batch would break every later run"
        self._pipeline.feed_input("content", content)
        for name in self._inputs:
            self._pipeline.feed_input(name, getattr(arguments, name))
        # One thread feeds, another takes outputs. DALI's C++ allows that, and the counters of its Python part
        # are single += and -=, within which CPython 3.10 or later does not release the GIL.
        self._pipeline.schedule_run()

    def output(self, stream: "torch.cuda.Stream | None") -> torch.Tensor:
        """Waits for the oldest scheduled batch whose output was not taken: [n, height, width, 3] uint8.

        On a GPU the result is ordered on `stream`, and the host waits for no kernel. Raises RuntimeError if a
        sample cannot be decoded; the next call still gives the next batch.
        """
        (images,) = self._pipeline.outputs(**({} if stream is None else {"cuda_stream": stream}))
        with on(stream):
            return torch.from_dlpack(images.as_tensor())


def on(stream: "torch.cuda.Stream | None"):
    """The context in which torch uses `stream`; no context on the CPU."""
    return contextlib.nullcontext() if stream is None else torch.cuda.stream(stream)


def is_of_the_machine(error: Exception) -> bool:
    """Whether a run failed for want of memory, threads or a working GPU, and not because of a sample."""
    return is_of_memory(error) or is_of_threads(error) or _OF_THE_MACHINE.search(str(error)) is not None


def reason_of(error: Exception) -> str:
    """The message of a failed run, without the traceback of the graph's definition."""
    said = str(error).split("encountered:")[-1].replace("Current pipeline object is no longer valid.", "")
    return " ".join(said.split()) or type(error).__name__


def decodes(content: np.ndarray, out: np.ndarray | None = None, start=(0, 0), flip: bool = False) -> bool:
    """Whether DALI's decoder can decode one image, in this thread and on the CPU.

    out: [height, width, 3] uint8, which receives the region of that size at `start` (y, x), in pixels of the
    upright image, flipped horizontally if `flip`. One image at a time, so that a batch of large photos is
    never held decoded; one decoder per thread, because a decoder with two threads uses only one of two cores.
    On the CPU even if a GPU decodes: DALI falls back to this decoder there, so an image that fails on the GPU
    fails here too.
    """
    library = load()
    decoder = getattr(_of_thread, "decoder", None)
    if decoder is None:
        codec = library.nvimgcodec
        decoder = _of_thread.decoder = codec.Decoder(
            device_id=codec.NVIMGCODEC_DEVICE_CPU_ONLY,
            max_num_cpu_threads=1,
            backends=[codec.Backend(codec.BackendKind.CPU_ONLY)],
        )
    image = decoder.decode([content])[0]
    if image is None:
        return False
    if out is not None:
        (top, left), (height, width, _) = start, out.shape
        region = np.asarray(image)[top : top + height, left : left + width]
        out[...] = region[:, ::-1] if flip else region
    return True


def _inputs(spec: ImageSpec, aligned: bool, has_margin: bool) -> tuple[str, ...]:
    if not aligned:
        return "start", "shape", "roi_start", "roi_end"
    return ("start", "shape", *["inner"] * has_margin, *["flip"] * (spec.xflip > 0))


def _pipeline(
    spec: ImageSpec, inputs: tuple[str, ...], device_id: int | None, threads: int, max_batch: int, load_hint
):
    fn, types = load().fn, load().types
    kinds = dict.fromkeys(("start", "shape", "inner", "flip"), types.INT32)
    # A queue of one: the dynamic executor runs ahead of the consumer in any case, and the first schedule_run
    # would launch as many runs as the queue is long.
    pipeline = load().Pipeline(
        batch_size=max_batch,
        num_threads=threads,
        device_id=device_id,
        exec_dynamic=True,
        prefetch_queue_depth=1,
        seed=0,
    )
    with pipeline:
        content = fn.external_source(name="content", dtype=types.UINT8, ndim=1, no_copy=True)
        given = {
            name: fn.external_source(
                name=name, dtype=kinds.get(name, types.FLOAT), ndim=0 if name == "flip" else 1
            )
            for name in inputs
        }
        # Always RGB: ANY_DATA on a gray JPEG kills the process. Fancy upsampling, as in libjpeg and Pillow;
        # it is not nvJPEG's default.
        images = fn.decoders.image_slice(
            content,
            device="cpu" if device_id is None else "mixed",
            start=given["start"],
            shape=given["shape"],
            axes=[0, 1],
            output_type=types.RGB,
            jpeg_fancy_upsampling=True,
            **({} if device_id is None else {"hw_decoder_load": load_hint}),
        )
        if "roi_start" in given:
            images = fn.resize(
                images,
                size=[spec.height, spec.width],
                roi_start=given["roi_start"],
                roi_end=given["roi_end"],
                interp_type=getattr(types, _INTERP[spec.filter]),
                antialias=True,
                subpixel_scale=False,
            )
        if "inner" in given:
            images = fn.slice(images, start=given["inner"], shape=[spec.height, spec.width], axes=[0, 1])
        if "flip" in given:
            images = fn.flip(images, horizontal=given["flip"])
        pipeline.set_outputs(images)
    pipeline.build()
    return pipeline


def _keep_inherited() -> None:
    """In a forked child: keeps the parent's pipelines for ever, as destroying one joins missing threads."""
    for pipe in list(_alive):
        engine = pipe._pipeline._pipe
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))
        pipe._pipeline._pipe = None  # which `__del__` and DALI's exit handler would shut down
        _alive.discard(pipe)
