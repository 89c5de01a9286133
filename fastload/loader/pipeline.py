"""The trip of one batch: planned, launched ahead of need, finished when the training asks for it.

In: a `Step` of the order. Out: a batch, a dict of tensors and lists. Promised: everything that takes long
happens on other threads between `launch` and `finish`; native threads read and decode, Python's worker
threads do only what must be Python (npy, json, your own functions, formats other than JPEG); bad samples are
replaced (replacements.py) without queueing behind other batches; an error is raised by the `finish` of its
own batch, and of several bad samples it is always the same that is named; what a batch will hold is known in
bytes before it is launched; nothing is made of bytes that a cancelled batch did not read. It is one file,
because what is launched, waited for, cancelled and counted must be the same things.
"""

import copy
import time
from concurrent import futures

import numpy as np

from fastload import _native, backends
from fastload.decode import values
from fastload.decode.images import ImageStage
from fastload.errors import (
    ConfigError,
    FastloadError,
    FunctionError,
    ResourceError,
    SampleError,
    ShardError,
)
from fastload.fields import Bytes, Image, Int, Json, Text
from fastload.loader.describe import backend_of
from fastload.loader.device import Delivered, delivery, resolve_device
from fastload.loader.field_check import check_fields, label_fields, missing_error
from fastload.loader.pending_batch import Fault, PendingBatch, wait_seconds
from fastload.loader.pixels import Pixels
from fastload.loader.replacements import Replacements
from fastload.loader.stats import Stats
from fastload.order.sample_order import RankBatch, SampleOrder
from fastload.order.steps import Step
from fastload.read.ledger import MAX_REASON, BadSample, Ledger
from fastload.read.shard_reader import ShardReader
from fastload.shards.mixture import Mixture
from fastload.shortage import told
from fastload.threads import WorkerThreads

LEAST_READERS, MOST_READERS = 4, 16  # reads at once: a disk wants several, a page cache does not mind
# What no image file exceeds: RGBA of 32-bit floats, uncompressed, with previews and profiles.
MOST_BYTES_PER_PIXEL, MOST_METADATA_BYTES = 16, 16 << 20
WORKER_NAME = "fastload-"  # what the names of all of Python's worker threads begin with
_IN_PLACE = (Int, Text, Bytes)  # microseconds a sample: a change of threads would cost more


class Pipeline:
    """Everything between the order and the batch, for one dataset and one config."""

    def __init__(
        self,
        config,
        dataset,
        walk: SampleOrder,
        rank: int,
        threads: int,
        memory: "_native.BufferPool",
        stats: Stats,
        ledger: Ledger,
        kept: dict,
    ):
        self._config, self._dataset, self._rank, self._ledger = config, dataset, rank, ledger
        self._memory, self._stats, self._threads = memory, stats, threads
        self._kept = kept  # what serves the iterations to come, too
        self._source_names = config.source.names if isinstance(config.source, Mixture) else []
        self._stand_ins = Replacements(config, dataset, self._source_names, walk)
        fields = config.fields
        check_fields(fields, dataset)
        self._from_labels = label_fields(fields, dataset)
        self._stored = [name for name in fields if name not in self._from_labels]
        valued = [name for name in self._stored if not isinstance(fields[name], Image)]
        self._in_place = [name for name in valued if isinstance(fields[name], _IN_PLACE)]
        self._on_workers = [name for name in valued if not isinstance(fields[name], _IN_PLACE)]
        values.import_parsers(fields.values())
        self._reader = ShardReader(dataset, threads=min(MOST_READERS, max(LEAST_READERS, threads)))
        self._pixels = Pixels(config, threads, memory)
        device = resolve_device(config.device)
        if (
            "delivery" not in kept
        ):  # with its stream: torch keeps freed memory for the stream that it was made on
            kept["delivery"] = delivery(device)
        self._delivery = kept["delivery"]
        self._images = self._image_stage(device) if config.image_fields else None
        # What is done with whole batches, a thread does ahead of need.
        by_batch = self._images is not None and self._images.by_batch
        self._delivers_ahead = self._delivery.pins or by_batch or config.augment.mixes
        self._workers = WorkerThreads(threads, f"{WORKER_NAME}values")
        self._deliverer = WorkerThreads(1, f"{WORKER_NAME}delivery")
        self._expect_others = False  # images for Python were among the last ones
        own = {"batch": 1, "training": 1}
        counting = [one for one in (self._delivery, self._images) if one is not None]
        # Not a method: the statistics outlive this object, and would keep its files open.
        stats.device = lambda: {name: count for one in counting for name, count in one.counters().items()}
        stats.threads = {"read": self._reader.threads, "decode": threads, "values": threads, **own}

    def _image_stage(self, device):
        if backend_of(self._config).name == "dali":
            from fastload.decode.dali.images import DaliImageStage, make_stage

            if "dali" not in self._kept:
                ahead = self._config.prefetch + 3  # one of stand-ins, one of an iteration that was given up
                self._kept["dali"] = make_stage(self._config, self._threads, device, ahead)
            return DaliImageStage(self._config, self._kept["dali"], self._delivery.stream)
        return ImageStage(self._config, self._threads, levels=device.type == "cuda")

    def plan(self, step: Step | None, taken: RankBatch) -> PendingBatch:
        """The trip of a step's samples: where they lie, how much memory it will hold. Nothing waits."""
        trip = PendingBatch(step, taken)
        try:
            with told("to plan a batch"):
                for place, name in enumerate(self._stored):
                    self._locate(trip, place, name)
        except FastloadError as error:  # of this batch: those before it come first
            trip.error = error
            return trip
        trip.held_bytes = sum(int(one.size_bytes.clip(min=0).sum()) for one in trip.located)
        if self._images is not None:
            trip.held_bytes += len(trip.positions) * self._sample_bytes()
        return trip

    def launch(self, trip: PendingBatch, patient: bool = True) -> None:
        """Sends a batch on its way; nothing here waits. patient: reads that may pass are tried again."""
        if trip.error is not None or not trip.located:
            return
        try:
            self._submit(trip, urgent=False, patient=patient)
            if self._on_workers or self._expect_others:
                self._launch_work(trip)
            if self._delivers_ahead:
                trip.delivered = self._deliverer.submit(self._deliver, trip)
        except ResourceError as error:  # of this batch: those before it come first
            trip.error = error

    def finish(self, trip: PendingBatch) -> dict:
        """Waits for a batch: field -> tensor [N, ...] or list of N, "__key__", "__id__", "__position__".

        Raises what went wrong with it.
        """
        if trip.error is not None:
            raise trip.error
        if self._config.timeout_seconds is not None:
            trip.deadline = time.monotonic() + self._config.timeout_seconds
        try:
            with told("for a batch"):
                delivered = (
                    self._result_of(trip.delivered, trip.deadline) if trip.delivered else self._deliver(trip)
                )
        except FastloadError:
            self._ledger.write(trip.bad)  # the run ends, and what was found may say why
            raise
        self._ledger.enter(trip.bad, len(trip.positions))
        begun = time.perf_counter()
        batch = self._delivery.hand_over(delivered)
        if self._config.map_batch is not None:
            batch = self._config.map_batch(batch)
            if batch is None:
                raise ConfigError(
                    "map_batch returned None: return the batch, also where it was changed in place."
                )
        self._count(trip, time.perf_counter() - begun)
        return batch

    def faults(self, trip: PendingBatch) -> list[BadSample]:
        """All that is wrong with the samples of a launched batch, which is delivered to nobody.

        Raises ShardError for what cannot be read.
        """
        if trip.error is not None:
            raise trip.error
        if trip.bytes is None:  # labels of folders alone
            return []
        if not trip.work:
            self._launch_work(trip)
        self._settle(trip)
        return [
            self._stand_ins.entry(trip, i, 0, name, trip.wrong[i, name]) for i, name in sorted(trip.wrong)
        ]

    def unreadable(self, trip: PendingBatch, error: ShardError) -> BadSample:
        """The fault of a batch of one sample, of which bytes cannot be read."""
        name = self._stored[trip.bytes.first_error]
        return self._stand_ins.entry(trip, 0, 0, name, Fault(str(error)[:MAX_REASON], error))

    def _deliver(self, trip: PendingBatch) -> Delivered:
        """Waits for the parts of a batch and makes it, on its device."""
        if trip.bytes is not None:
            self._settle(trip)
        if trip.wrong:
            self._stand_ins.replace(trip, self._make_stand_ins)
        begun = time.perf_counter()
        assembled = self._assemble(trip)
        delivered = self._delivery.deliver(assembled, lambda batch: self._finished(batch, trip))
        if trip.images is not None:
            trip.images.release(delivered.done)
        self._stats.add("batch", time.perf_counter() - begun)
        return delivered

    def _finished(self, batch: dict, trip: PendingBatch) -> dict:
        """Levels to tensors where that was left to whole batches; mixup and CutMix."""
        if self._images is not None and self._images.by_batch:
            for name in self._pixels.fields:
                batch[name] = self._pixels.finished(name, batch[name], trip.positions)
        return self._pixels.mixed(batch, trip.positions) if self._config.augment.mixes else batch

    def _result_of(self, future: futures.Future, deadline: float):
        """The future's result; Ctrl-C is seen between two waits."""
        # One that was cancelled before it ran is done, but no wait ever says so.
        while not (future.done() or futures.wait([future], wait_seconds(deadline)).done):
            pass
        return future.result()

    def give_up(self) -> None:
        """Lets the worker threads end when they have done what they are at. A finalizer may call it."""
        # In this order: the first gives work to the second.
        for threads in (self._deliverer, self._workers):
            threads.stop()
        if self._images is not None:
            self._images.give_up()

    def close(self, deadline: float) -> bool:
        """Ends the worker threads; native threads are the process's. May be called again, to wait on.

        deadline: of time.monotonic, until when it waits for them; False where they still work then.
        """
        self.give_up()
        ended = [threads.join(deadline) for threads in (self._deliverer, self._workers)]
        if self._images is not None:
            ended.append(self._images.join(deadline))
        return all(ended)

    def close_files(self, deadline: float) -> bool:
        """Closes the files, when nothing is read any more; False where they are open at the deadline."""
        return self._reader.close_files(max(0.0, deadline - time.monotonic()))

    def leave_behind(self, trip: PendingBatch) -> None:
        """Gives up a cancelled batch on which a read or a function hangs."""
        for one in (trip, trip.stand_ins):
            if one is not None and one.bytes is not None and not one.bytes.wait(0):
                self._reader.leave_behind(one.bytes)

    def _sample_bytes(self) -> int:
        """Bytes of one sample's images on their way: as levels too, where whole batches are finished."""
        finished = self._pixels.sample_bytes if self._images.by_batch else 0
        return self._images.sample_bytes + finished

    def _locate(self, trip: PendingBatch, place: int, name: str) -> None:
        one = self._config.fields[name]
        located = self._dataset.locate(trip.sample_ids, one.extensions)
        size_bytes = located.size_bytes
        if isinstance(one, Image):
            most_bytes = MOST_BYTES_PER_PIXEL * self._config.max_pixels + MOST_METADATA_BYTES
            for i in np.flatnonzero(size_bytes > most_bytes).tolist():
                reason = f"{size_bytes[i]:,} bytes are more than an image of max_pixels can need"
                self._note(trip, i, name, SampleError(reason))
                size_bytes[i] = -1  # not read
        trip.missing[name] = size_bytes < 0
        if one.required:
            for i in np.flatnonzero(trip.missing[name]).tolist():
                error = missing_error(name, one, self._dataset, int(trip.sample_ids[i]))
                trip.wrong.setdefault((i, name), Fault(f"no {' or '.join(one.extensions)}", error))
        trip.located.append(located)
        trip.first_blob[name] = place * len(trip.positions)

    def _submit(self, trip: PendingBatch, urgent: bool, patient: bool = True) -> None:
        """Hands a batch to the native threads. urgent: before all that waits there. Raises ResourceError."""
        with told(f"for a batch of {trip.held_bytes:,} bytes ({len(trip.positions)} samples)"):
            trip.bytes = self._reader.submit(trip.located, self._memory, urgent, patient)
            if self._images is not None:
                backends.ignore_jpegmem()  # whoever has set it since
                n, sizes = len(trip.positions), self._images.bytes_of
                buffers = {name: self._acquire(n * size) for name, size in sizes.items()}
                augments = {} if self._images.by_batch else self._pixels.augments(trip.positions)
                trip.images = self._images.submit(
                    trip.bytes, trip.first_blob, buffers, trip.positions, augments, urgent
                )

    def _make_stand_ins(self, trip: PendingBatch, taken: RankBatch) -> PendingBatch:
        """Other samples for some places of a batch, made at once; Python's part in this thread."""
        made = self.plan(None, taken)
        made.deadline = trip.deadline
        trip.stand_ins = made  # from here on, who cancels the one cancels the other
        if trip.cancelled:
            raise futures.CancelledError
        if made.error is not None:
            raise made.error
        self._submit(made, urgent=True)
        if trip.cancelled:  # while it was submitted
            made.cancel()
        self._work(made, 0, 1)
        self._settle(made)
        self._count_native(made)
        return made

    def _acquire(self, size_bytes: int):
        delivery = self._delivery
        return delivery.pinned(size_bytes) if delivery.pins else self._memory.acquire(size_bytes)

    def _launch_work(self, trip: PendingBatch) -> None:
        """Hands the batch's Python work to the worker threads, in as many parts as there are threads."""
        parts = min(self._threads, len(trip.positions))
        trip.work = [self._workers.submit(self._work, trip, part, parts) for part in range(parts)]

    def _work(self, trip: PendingBatch, part: int, parts: int) -> None:
        """Every `parts`-th sample from `part` on: its values, then its images that no native thread takes."""
        trip.wait_for(trip.bytes)
        if trip.cancelled or trip.bytes.first_error is not None:
            return  # finish raises it
        begun = time.perf_counter()
        self._make_values(trip, self._on_workers, range(part, len(trip.positions), parts))
        self._stats.add("values", time.perf_counter() - begun)
        if trip.images is None:
            return
        trip.wait_for(trip.images)
        begun = time.perf_counter()
        for name, i in trip.images.others():
            if trip.cancelled:
                return
            if i % parts == part:
                trip.images.render_other(name, i)
        self._stats.add("decode", time.perf_counter() - begun)

    def _make_values(self, trip: PendingBatch, names: list[str], samples: range) -> None:
        for name in names:
            if isinstance(self._config.fields[name], Int):
                labels = trip.bytes.integers(trip.first_blob[name], len(trip.positions))
                if labels is not None:  # else one is missing or odd, and is found below
                    trip.values[name] = labels
                    continue
            made = trip.values.setdefault(name, [None] * len(trip.positions))
            for i in samples:
                if trip.cancelled:
                    return
                try:
                    made[i] = self._value(trip, name, i)
                except (SampleError, FunctionError) as error:
                    self._note(trip, i, name, error)

    def _value(self, trip: PendingBatch, name: str, i: int):
        one = self._config.fields[name]
        if trip.missing[name][i]:
            # A document is a sample's own: who changes one must not change the next one's.
            return copy.deepcopy(one.default) if isinstance(one, Json) else one.default
        return values.decode(one, trip.bytes.bytes(trip.first_blob[name] + i))

    def _note(self, trip: PendingBatch, i: int, name: str, error: FastloadError) -> None:
        """Something is wrong with a sample; of several for one field, the first counts."""
        reason = str(error)
        kind = FunctionError if isinstance(error, FunctionError) else SampleError  # of which yours may be one
        full = kind(f"{self._where(trip, i)}: field {name!r}: {reason}")
        # The cause is the exception of the user's own function, or of the parser, with its traceback.
        full.__cause__ = error.__cause__ or error
        trip.wrong.setdefault((i, name), Fault(reason[:MAX_REASON], full))

    def _settle(self, trip: PendingBatch) -> None:
        """Waits until all is made of a batch's bytes that can be, and notes what is wrong with its samples.

        Raises what is no sample's fault.
        """
        trip.wait_for(trip.bytes, trip.deadline)
        self._reader.raise_error(trip.bytes, trip.sample_ids)
        if trip.images is not None:
            trip.wait_for(trip.images, trip.deadline)
            if trip.step is not None:
                self._expect_others = bool(trip.images.others())
                if self._expect_others and not trip.work:
                    self._launch_work(trip)
        for future in trip.work:
            self._result_of(future, trip.deadline)
        if trip.cancelled:
            raise futures.CancelledError
        if trip.images is not None:
            for (name, i), reason in trip.images.settle().items():
                self._note(trip, i, name, SampleError(reason))
        begun = time.perf_counter()
        self._make_values(trip, self._in_place, range(len(trip.positions)))
        self._stats.add("batch", time.perf_counter() - begun)

    def _assemble(self, trip: PendingBatch) -> dict:
        batch = {}
        for name, one in self._config.fields.items():
            if name in self._from_labels:
                batch[name] = _as_tensor(self._dataset.labels(trip.sample_ids))
            elif isinstance(one, Image):
                batch[name] = trip.images.tensor(name)
                batch.update(trip.images.report(name) if one.report else {})
            else:
                batch[name] = values.collate(name, one, trip.values[name], lambda i: self._where(trip, i))
        batch["__key__"] = self._dataset.keys(trip.sample_ids)
        batch["__id__"] = _as_tensor(self._dataset.rows_of(trip.sample_ids))
        batch["__position__"] = _as_tensor(trip.positions)
        if trip.taken.sources is not None:
            batch["__source__"] = [self._source_names[source] for source in trip.taken.sources.tolist()]
        if self._config.last == "pad":
            batch["__mask__"] = _as_tensor(trip.step.valid(self._rank))
        return batch

    def _where(self, trip: PendingBatch, i: int) -> str:
        return self._dataset.where(int(trip.sample_ids[i]))

    def _count(self, trip: PendingBatch, own_seconds: float) -> None:
        self._stats.add("batch", own_seconds)
        self._count_native(trip)

    def _count_native(self, trip: PendingBatch) -> None:
        if trip.bytes is not None:
            self._stats.add("read", trip.bytes.busy_seconds)
            self._stats.bytes_read += trip.bytes.bytes_read
            self._stats.read_retries += trip.bytes.retries
        if trip.images is not None:
            self._stats.add("decode", trip.images.busy_seconds)


def _as_tensor(array: np.ndarray):
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))
