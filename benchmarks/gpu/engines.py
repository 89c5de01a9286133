"""How fast the decoders alone are: DALI's mixed decoder, and nvimgcodec, with nothing before or behind them.

In: encoded images in memory. Out: images a second. Both decode to whole RGB images on the device, with the
upsampling that fastload asks for. No loader that decodes whole images with these libraries can be faster.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.gpu.cases import Context, Skipped
from benchmarks.gpu.corpus import Corpus

AHEAD = 3  # batches that are on their way at once
DECODERS = 2  # of nvimgcodec, each with a Python thread: one by itself waits between two batches


@dataclass(frozen=True)
class Setting:
    """One engine with its knobs."""

    engine: str  # "DALI" or "nvimgcodec"
    load: float  # of the hardware decoder
    threads: int


class DaliEngine:
    """`next` decodes one batch more, and returns how many images; `sample` is the first image of all."""

    buffered = AHEAD

    def __init__(self, context: Context, corpus: Corpus, setting: Setting, batch_size: int):
        from nvidia.dali import Pipeline, fn, types

        contents = corpus.contents()
        self._batches = _in_turn(contents, batch_size)
        gpu = {"device": "mixed", "hw_decoder_load": setting.load} if context.on_gpu else {"device": "cpu"}
        self._pipeline = Pipeline(
            batch_size=batch_size,
            num_threads=setting.threads,
            device_id=0 if context.on_gpu else None,
            exec_dynamic=True,
            prefetch_queue_depth=1,  # what is ahead is said by how often `schedule_run` was called
        )
        with self._pipeline:
            encoded = fn.external_source(name="content", dtype=types.UINT8, ndim=1, no_copy=True)
            how = {"output_type": types.RGB, "jpeg_fancy_upsampling": True}
            self._pipeline.set_outputs(fn.decoders.image(encoded, **how, **gpu))
        self._pipeline.build()
        for _ in range(AHEAD):
            self._schedule()
        self.sample: np.ndarray | None = None

    def __next__(self) -> int:
        (images,) = self._pipeline.outputs()  # waits until they are decoded; the next ones are on their way
        self._schedule()
        if self.sample is None:
            self.sample = np.array(images.as_cpu().at(0) if hasattr(images, "as_cpu") else images.at(0))
        return len(images)

    def _schedule(self) -> None:
        self._pipeline.feed_input("content", next(self._batches))
        self._pipeline.schedule_run()

    def close(self) -> None:
        for _ in range(AHEAD):
            self._pipeline.outputs()
        del self._pipeline


class NvimgcodecEngine:
    """Two decoders in two threads; `next` waits for a batch of either."""

    buffered = 2 * DECODERS

    def __init__(self, context: Context, corpus: Corpus, setting: Setting, batch_size: int):
        from nvidia import nvimgcodec

        self._contents, self._batch_size = corpus.contents(), batch_size
        self._on_gpu, self._done, self._stop = context.on_gpu, 0, False
        self._error: BaseException | None = None
        self.sample: np.ndarray | None = None
        self._changed = threading.Condition()
        kinds = nvimgcodec.BackendKind
        backends = [nvimgcodec.Backend(kinds.CPU_ONLY)]
        if context.on_gpu:
            gpu = [nvimgcodec.Backend(kinds.GPU_ONLY), nvimgcodec.Backend(kinds.HYBRID_CPU_GPU)]
            if setting.load > 0:
                gpu.insert(0, nvimgcodec.Backend(kinds.HW_GPU_ONLY, load_hint=setting.load))
            backends = gpu + backends
        made = {
            "device_id": 0 if context.on_gpu else nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY,
            "max_num_cpu_threads": max(1, setting.threads // DECODERS),
            "backends": backends,
            "options": ":fancy_upsampling=1",
        }
        decoders = [nvimgcodec.Decoder(**made) for _ in range(DECODERS)]
        self._threads = [threading.Thread(target=self._run, args=(one,), daemon=True) for one in decoders]
        self._taken = 0
        for thread in self._threads:
            thread.start()

    def __next__(self) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self._done > self._taken or self._error is not None, 60)
            if self._error is not None:
                raise self._error
            if self._done == self._taken:
                raise RuntimeError("nvimgcodec decoded nothing in 60 s")
            self._taken += 1
            self._changed.notify_all()
        return self._batch_size

    def _run(self, decoder: Any) -> None:
        try:
            stream = None
            if self._on_gpu:
                import torch

                stream = torch.cuda.Stream()
            for batch in _in_turn(self._contents, self._batch_size):
                images = decoder.decode(batch, cuda_stream=stream.cuda_stream if stream else 0)
                if stream is not None:
                    stream.synchronize()
                if any(image is None for image in images):
                    raise RuntimeError("nvimgcodec refused an image")
                if self.sample is None:
                    self.sample = np.asarray(images[0].cpu()).copy()
                with self._changed:
                    # One batch ahead for each decoder: none runs on for ever when nobody asks.
                    self._changed.wait_for(lambda: self._done - self._taken < DECODERS or self._stop)
                    if self._stop:
                        return
                    self._done += 1
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._stop = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(30)


ENGINES = {"DALI": DaliEngine, "nvimgcodec": NvimgcodecEngine}


def make(context: Context, corpus: Corpus, setting: Setting, batch_size: int):
    """A running engine. Raises Skipped where its library is not there."""
    try:
        return ENGINES[setting.engine](context, corpus, setting, batch_size)
    except ImportError as error:
        raise Skipped(f"{setting.engine} cannot be imported: {error}") from error


def rate(stream: Any, seconds: float, context: Context, least_batches: int = 4) -> float:
    """Images a second of a stream whose `next` is a count or a batch, once what lies ready is gone."""
    for _ in range(stream.buffered + 1):
        next(stream)
    context.synchronize()
    begun, images, batches = time.perf_counter(), 0, 0
    while batches < least_batches or time.perf_counter() - begun < seconds:
        batch = next(stream)
        images += batch if isinstance(batch, int) else len(batch)
        batches += 1
    context.synchronize()
    return images / (time.perf_counter() - begun)


def _in_turn(contents: list[np.ndarray], batch_size: int) -> Iterator[list[np.ndarray]]:
    start = 0
    while True:
        yield [contents[(start + i) % len(contents)] for i in range(batch_size)]
        start += batch_size
