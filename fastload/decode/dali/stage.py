"""The images of a batch through DALI, on the CPU or a GPU: encoded bytes in, uint8 pixels on the device out.

In: the encoded images of N samples for each field, and positions. Out: `DecodedField`s: pixels
[N, height, width, 3], the samples that could not be decoded with their reasons, and the rows of the crop
report. Promised: geometry and random draws are those of spec.py; a sample's pixels do not depend on its
batch; a bad sample costs its batch at most a second run, and affects neither other batches nor the process
(dali/gate.py); images that DALI does not take are decoded by Pillow, on threads, into the same batch, and
counted.

Agreement with the reference on the CPU. Decoding is bit-identical. Resizing: the photos of tests/data in 5
geometries, against Pillow at scaled=None (DALI has no scaled decoding, and decodes at full size whatever the
spec says): the median and the worst PSNR of a photo in dB, the mean difference in uint8 steps, the share of
equal values, and the worst PSNR without the outermost 4 pixels, because at the border of an image DALI
repeats pixels that Pillow leaves out (benchmarks/results/dali-2026-11-21-10b6554ab7.json, made by
benchmarks/bench_dali.py):

    bilinear  55.9  34.4  0.173  86.4 %  54.5        against scaled="half":  55.9  35.0
    bicubic   56.0  38.1  0.168  85.5 %  54.0                                55.9  39.3
    lanczos   55.6  39.4  0.179  84.4 %  51.5                                55.3  38.4

"nearest" takes the same pixels as Pillow, except if a centre lies on the edge between two pixels and Pillow,
which sums up its steps, takes one or the other (512 pixels to 96): see dali/gate.py.
"""

import queue
import threading
import time
from collections import deque
from concurrent import futures
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from fastload.backends import process
from fastload.decode.dali import pipeline
from fastload.decode.dali.field import DecodedField, FieldShare
from fastload.decode.dali.gate import MARGIN, hardware_share
from fastload.decode.dali.pipeline import Pipe
from fastload.decode.spec import ImageSpec
from fastload.errors import BackendError, ConfigError
from fastload.threads import WorkerThreads

MAX_WORKERS = 4  # threads for Pillow and for finding bad samples; mostly idle
_THREADS = "fastload-dali"  # the prefix of the names of a stage's threads
_CLOSE_SECONDS = 5.0  # that `close` waits for pending batches


@dataclass
class DaliStats:
    """What a stage has done so far."""

    batches: int = 0
    reruns: int = 0  # runs that failed because of bad samples, and were repeated without them
    dali_samples: int = 0
    pillow_samples: int = 0  # that DALI did not take, refused ones included
    bad_samples: int = 0
    # Parsing headers, DALI's time with a batch to decode, and Pillow's on each of its threads.
    busy_seconds: float = 0.0


class DaliStage:
    """Sends batches of images through DALI.

    specs: field -> geometry. threads: of each pipeline; a field has one pipeline, and a second if batches
    need no resizing. max_batch: samples. in_flight: batches submitted and not finished; on a GPU a batch
    counts until it is released. hw_decoder_load: share of the JPEGs for the GPU's NVJPG engine, 0 to 1;
    `deterministic` allows only 0 and 1, because otherwise a sample's decoder would depend on its batch.
    Raises BackendError if DALI is not installed.
    """

    def __init__(
        self,
        specs: dict[str, ImageSpec],
        *,
        device: "torch.device | str",
        threads: int,
        max_batch: int,
        seed: int,
        max_pixels: int,
        in_flight: int,
        hw_decoder_load: float | None = None,
        deterministic: bool = True,
    ):
        assert specs and threads >= 1 and max_batch >= 1 and in_flight >= 1
        self.library = pipeline.load()
        self.specs = {name: replace(spec, scaled=None) for name, spec in specs.items()}
        self.seed, self.max_pixels = seed, max_pixels
        self.device, self.max_batch, self.in_flight = _device(device), max_batch, in_flight
        self.stats = DaliStats()
        # libjpeg-turbo reads chroma outside a region at its edge; for nvJPEG that is not documented.
        self.margin = MARGIN if self.device.type == "cuda" else 0
        load = hardware_share(hw_decoder_load, deterministic)
        self._settings = (self.device.index, threads, max_batch, load)
        self.stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self._pipes: dict[tuple, Pipe] = {}
        # Reentrant: garbage collection under the lock may finalize an iteration, which cancels its batches.
        self.lock = threading.RLock()
        self._process = process()
        self._counted = 0  # of `in_flight`
        # An item for each batch that no longer counts.
        self.left: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.held: deque = deque()  # (event, memory that a stream may read until the event has passed)
        self._free_since = 0.0  # when DALI finished its last batch
        self.workers = WorkerThreads(min(MAX_WORKERS, threads), _THREADS)
        # It outlives this object and destroys DALI's pipelines: dropping the last reference to the stage must
        # not wait for DALI's threads.
        end = partial(_end, self._pipes, self.held)
        self._collector = WorkerThreads(1, f"{_THREADS}-outputs", at_end=end)
        self._closed = False
        for name in self.specs:  # now, because DALI loads its libraries with the first pipeline
            self.pipe(name, aligned=False)
        self._collector.start()  # now: scheduled outputs must be taken, even if no thread can be had later

    def submit(
        self, content: dict[str, list], positions, guides: dict[str, list] | None = None
    ) -> "DaliBatch":
        """Schedules a batch; parses headers and decodes nothing.

        content: field -> N encoded images, uint8 arrays or buffers, None for a missing one; they must not
        change until the batch is finished. positions: [N]. guides: for a field that is like another, the N
        upright sizes (width, height) of the other's images, whose geometry is stretched to this field's; None
        for an image that is its own guide.
        """
        self.check_process()
        begun = time.perf_counter()
        positions = np.asarray(positions, np.int64)
        assert 1 <= len(positions) <= self.max_batch, f"{len(positions)} samples, at most {self.max_batch}"
        assert content.keys() == self.specs.keys(), "each field needs a list of images"
        shares = [
            FieldShare(self, name, content[name], positions, (guides or {}).get(name)) for name in self.specs
        ]
        with self.lock:  # the collector takes outputs in the order of this queue
            if self._closed:  # after the end of the queue no batch would be settled
                raise futures.CancelledError("the DaliStage was closed")
            self._drop_released()
            assert self.pending() < self.in_flight, (
                f"more than {self.in_flight} batches: finish or release one"
            )
            self._counted += 1
            batch = DaliBatch(self, shares)
            for share in shares:
                share.begin()  # never raises: scheduled outputs must be taken, in this order
            try:
                self._collector.submit(batch.settle)
            except BaseException:  # no memory; an output that is not taken would be the next batch's
                for share in shares:
                    if share.scheduled:
                        self.discard(share.pipe)
                batch.cancel()
                raise
            self.stats.batches += 1
            self.stats.busy_seconds += time.perf_counter() - begun
        return batch

    def close(self) -> None:
        """Ends all threads after the pending batches; results that were handed out stay valid."""
        self.check_process()
        with self.lock:
            self._closed = True
        self._collector.stop()
        deadline = time.monotonic() + _CLOSE_SECONDS
        self._collector.join(deadline)
        self.workers.stop()
        self.workers.join(deadline)

    def pipe(self, name: str, aligned: bool, repair: bool = False) -> Pipe:
        """The pipeline of a field, made on first use; repairs have their own, which bypasses the queue."""
        key = name, aligned, repair
        if key not in self._pipes:
            self._pipes[key] = Pipe(self.specs[name], aligned, self.margin > 0, self._settings)
        return self._pipes[key]

    def discard(self, pipe: Pipe) -> None:
        """Drops a pipeline that was fed in part: each later batch would get the images of another one."""
        for key in [key for key, known in self._pipes.items() if known is pipe]:
            del self._pipes[key]

    def check_process(self) -> None:
        if self._process != process():
            raise BackendError(
                "this DaliStage was made before a fork, and DALI does not survive forks: create the loader "
                "again in this process."
            )

    def pending(self) -> int:
        """How many batches count as `in_flight`."""
        with self.lock:
            while not self.left.empty():
                self.left.get()
                self._counted -= 1
            return self._counted

    def _drop_released(self) -> None:
        """Drops memory that was released and that no stream reads any more."""
        while self.held and self.held[0][0].query():
            self.held.popleft()


class DaliBatch:
    """One batch, pending or done."""

    def __init__(self, stage: DaliStage, shares: list[FieldShare]):
        self._stage, self._shares = stage, shares
        self._submitted_at = time.perf_counter()
        self._settled = threading.Event()
        self._cancelled = False
        self._count = [None]  # of the stage's `in_flight`; the first call of `_leave` pops it
        self._error: BaseException | None = None
        self._fields: dict[str, DecodedField] = {}
        self._event: torch.cuda.Event | None = None

    def wait(self, timeout_seconds: float) -> bool:
        """Whether nothing works on this batch any more; waits at most this long."""
        self._stage.check_process()
        return self._settled.wait(timeout_seconds)

    def finish(self) -> dict[str, DecodedField]:
        """Waits for the batch. On a GPU the current stream waits, not the host; call `release` afterwards.

        Raises BackendError if DALI or the GPU failed, and not a sample.
        """
        self._stage.check_process()
        assert not self._cancelled, "the batch was cancelled"
        self._settled.wait()
        if self._error is not None:
            self._leave()
            raise self._error
        if self._event is None:
            self._leave()
        else:
            torch.cuda.current_stream(self._stage.device).wait_event(self._event)
        return self._fields

    def release(self, event: "torch.cuda.Event | None" = None) -> None:
        """The consumer is done with the pixels once `event`, recorded after their last use, has passed.

        torch's `record_stream` cannot be used for DALI's memory, so the stage keeps it until then. On the CPU
        no event is needed.
        """
        if self._event is not None and self._fields:
            assert event is not None, "on a GPU, pass an event that was recorded after the last use"
            with self._stage.lock:
                self._stage.held.append((event, [field.pixels for field in self._fields.values()]))
        self._fields = {}
        self._leave()

    def cancel(self) -> None:
        """Stops what has not begun, drops the output. For finalizers too: takes no lock, does not wait."""
        self._cancelled = True
        for share in self._shares:
            share.cancelled = True
        self._leave()

    def settle(self) -> None:
        """Takes the results of DALI and Pillow. Called by the collector's thread, batch after batch."""
        try:
            for share in self._shares:
                share.take_output()
            self._count_dali()
            if not self._cancelled:
                self._fields = {share.name: share.decoded() for share in self._shares}
                self._record()
        except BaseException as error:  # of a cancelled batch, too; `finish` raises it
            self._error = error
        self._shares = []
        self._settled.set()

    def _record(self) -> None:
        if self._stage.stream is not None:
            self._event = torch.cuda.Event()
            self._event.record(self._stage.stream)
            with self._stage.lock:
                self._stage.held.append((self._event, [share.read_later for share in self._shares]))

    def _count_dali(self) -> None:
        now, stage = time.perf_counter(), self._stage
        with stage.lock:
            stage.stats.busy_seconds += now - max(self._submitted_at, stage._free_since)
            stage._free_since = now

    def _leave(self) -> None:
        """From now on the batch does not count as in flight."""
        try:
            self._count.pop()
        except IndexError:
            return
        self._stage.left.put(None)


def _end(pipes: dict, held: deque) -> None:
    """Destroys a stage's pipelines, on its collector's thread, when no batch is pending any more."""
    for event, _ in held:  # otherwise DALI gives the memory to the next loader while a stream still reads it
        event.synchronize()
    held.clear()
    pipes.clear()


def _device(device: "torch.device | str") -> torch.device:
    device = torch.device(device)
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device must be the CPU or a CUDA GPU for DALI, got {str(device)!r}.")
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu") if device.type == "cpu" else device
