"""The trip of one batch: launched ahead of need, finished when the training asks for it.

In: a `Step` of the order. Out: a batch, a dict of tensors and lists. Promised: everything that takes long happens on
other threads between `launch` and `finish`; native threads read and decode, Python's worker threads do only what
must be Python (npy, json, your own functions, formats other than JPEG); an error is raised by the `finish` of its
own batch; what the launched batches hold is known in bytes before they are launched.
"""

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from fastload import _native
from fastload.decode import values
from fastload.decode.images import BatchImages, ImageStage
from fastload.errors import FieldError, SampleError
from fastload.fields import Bytes, Field, Image, Int, Text
from fastload.loader.device import device_copy
from fastload.loader.stats import Stats
from fastload.order.steps import Step
from fastload.read.shard_reader import ShardReader

# Ctrl-C is seen between two waits; a wait that ends in time costs nothing.
WAIT_SECONDS = 0.2
LEAST_READERS, MOST_READERS = 4, 16  # reads under way at once: a disk wants several, a page cache does not mind
_IN_PLACE = (Int, Text, Bytes)  # microseconds a sample: a change of threads would cost more


@dataclass
class Trip:
    """One batch on its way."""

    step: Step
    positions: np.ndarray
    sample_ids: np.ndarray
    first_blob: dict[str, int] = field(default_factory=dict)  # field -> its first blob in `bytes`
    missing: dict[str, np.ndarray] = field(default_factory=dict)  # field -> [N] bool
    bytes: "_native.ByteBatch | None" = None
    images: BatchImages | None = None
    work: list[Future] = field(default_factory=list)
    decoded: dict[str, list] = field(default_factory=dict)  # field -> values made on worker threads
    error: Exception | None = None

    def cancel(self) -> None:
        """Stops what has not begun."""
        for future in self.work:
            future.cancel()
        for native in (self.bytes, self.images):
            if native is not None:
                native.cancel()


class Stages:
    """Everything between the order and the batch, for one dataset and one config."""

    def __init__(self, config, dataset, plan, rank: int, threads: int, memory: "_native.BufferPool", stats: Stats):
        self._config, self._dataset, self._plan, self._rank = config, dataset, plan, rank
        self._memory, self._stats, self._threads = memory, stats, threads
        fields = config.fields
        self._from_labels = label_fields(fields, dataset)
        check_fields(fields, dataset)
        self._stored = [name for name in fields if name not in self._from_labels]
        self._on_workers = [name for name in self._stored if not isinstance(fields[name], (*_IN_PLACE, Image))]
        self._reader = ShardReader(dataset, threads=min(MOST_READERS, max(LEAST_READERS, threads)))
        self._images = ImageStage(config, threads) if config.image_fields else None
        self._copy = device_copy(config.device)
        self._workers: ThreadPoolExecutor | None = None
        self._expect_others = False  # images for Python were among the last ones
        stats.threads = {"read": self._reader.threads, "decode": threads, "values": threads, "training": 1}

    @property
    def batch_bytes(self) -> int:
        """Bytes of image buffers that a full batch holds."""
        return self._config.batch_size * self._images.sample_bytes if self._images else 0

    def launch(self, step: Step) -> Trip:
        """Sends a batch on its way; nothing here waits."""
        positions = step.positions(self._rank)
        trip = Trip(step, positions, self._plan.sample_ids(positions))
        try:
            self._launch_reads(trip)
        except FieldError as error:  # of this batch: those before it come first
            trip.error = error
            return trip
        if self._images is not None:
            buffers = {name: self._acquire(len(positions) * size) for name, size in self._images.bytes_of.items()}
            trip.images = self._images.submit(trip.bytes, trip.first_blob, buffers, positions)
        if self._on_workers or self._expect_others:
            self._launch_work(trip)
        return trip

    def finish(self, trip: Trip) -> dict:
        """Waits for a batch and makes it: field -> tensor [N, ...] or list of N, and "__key__", "__position__"."""
        if trip.error is not None:
            raise trip.error
        self._wait_for(trip)
        begun = time.perf_counter()
        batch = {}
        for name in self._config.fields:
            batch[name] = self._field(trip, name)
            if name in self._config.image_fields and self._config.fields[name].report:
                batch.update(trip.images.report(name))
        batch["__key__"] = self._dataset.keys(trip.sample_ids)
        batch["__position__"] = _as_tensor(trip.positions)
        if self._config.last == "pad":
            batch["__mask__"] = _as_tensor(trip.step.valid(self._rank))
        self._count(trip, time.perf_counter() - begun)
        return self._copy(batch)

    def close(self) -> None:
        """Ends the worker threads; native threads are the process's."""
        if self._workers is not None:
            self._workers.shutdown(wait=True, cancel_futures=True)
            self._workers = None

    def _acquire(self, size_bytes: int):
        return self._copy.pinned(size_bytes) if self._copy.pins else self._memory.acquire(size_bytes)

    def _launch_reads(self, trip: Trip) -> None:
        located = []
        for name in self._stored:
            one = self._dataset.locate(trip.sample_ids, self._config.fields[name].extensions)
            missing = one.size_bytes < 0
            if self._config.fields[name].required and missing.any():
                raise self._missing_error(trip, name, int(np.argmax(missing)))
            trip.missing[name] = missing
            trip.first_blob[name] = len(located) * len(trip.positions)
            located.append(one)
        if located:
            trip.bytes = self._reader.submit(located, self._memory)

    def _missing_error(self, trip: Trip, name: str, i: int) -> FieldError:
        sample_id = int(trip.sample_ids[i])
        wanted, there = self._config.fields[name].extensions, self._dataset.row(sample_id).extensions
        return FieldError(
            f"{self._dataset.where(sample_id)} has no {' or '.join(wanted)} for the field {name!r}, only "
            f"{', '.join(there)}. Give the field a default=, or leave the sample out with select=."
        )

    def _launch_work(self, trip: Trip) -> None:
        """Hands the batch's Python work to the worker threads, in as many parts as there are threads."""
        if self._workers is None:
            self._workers = ThreadPoolExecutor(self._threads, thread_name_prefix="fastload-values")
        for name in self._on_workers:
            trip.decoded[name] = [None] * len(trip.positions)
        parts = min(self._threads, len(trip.positions))
        trip.work = [self._workers.submit(self._work, trip, part, parts) for part in range(parts)]

    def _work(self, trip: Trip, part: int, parts: int) -> None:
        """Every `parts`-th sample from `part` on: its values, then its images that are not for native threads."""
        _wait(trip.bytes)
        if trip.bytes.first_error is not None:
            return  # finish raises it
        begun = time.perf_counter()
        for name in self._on_workers:
            for i in range(part, len(trip.positions), parts):
                trip.decoded[name][i] = self._value(trip, name, i)
        self._stats.add("values", time.perf_counter() - begun)
        if trip.images is None:
            return
        _wait(trip.images)
        begun = time.perf_counter()
        for name, i in trip.images.others():
            if i % parts == part:
                trip.images.render_other(name, i)
        self._stats.add("decode", time.perf_counter() - begun)

    def _wait_for(self, trip: Trip) -> None:
        """Until the batch's bytes are read and its pixels and values made; raises what went wrong with them."""
        if trip.bytes is None:
            return
        _wait(trip.bytes)
        self._reader.raise_error(trip.bytes, trip.sample_ids)
        if trip.images is not None:
            _wait(trip.images)
            self._expect_others = bool(trip.images.others())
            if self._expect_others and not trip.work:
                self._launch_work(trip)
        for future in trip.work:
            future.result()
        if trip.images is not None:
            trip.images.settle(lambda i: self._dataset.where(int(trip.sample_ids[i])))

    def _field(self, trip: Trip, name: str):
        one = self._config.fields[name]
        if name in self._from_labels:
            return _as_tensor(self._dataset.labels(trip.sample_ids))
        if isinstance(one, Image):
            return trip.images.tensor(name)
        if name in trip.decoded:
            made = trip.decoded[name]
        else:
            made = [self._value(trip, name, i) for i in range(len(trip.positions))]
        return values.collate(name, one, made, lambda i: self._dataset.where(int(trip.sample_ids[i])))

    def _value(self, trip: Trip, name: str, i: int):
        one = self._config.fields[name]
        if trip.missing[name][i]:
            return one.default
        try:
            return values.decode(one, trip.bytes.bytes(trip.first_blob[name] + i))
        except SampleError as error:
            where = self._dataset.where(int(trip.sample_ids[i]))
            raise SampleError(f"{where}: field {name!r}: {error}") from error

    def _count(self, trip: Trip, in_place_seconds: float) -> None:
        self._stats.add("values", in_place_seconds)
        if trip.bytes is not None:
            self._stats.add("read", trip.bytes.busy_seconds)
            self._stats.bytes_read += trip.bytes.bytes_read
        if trip.images is not None:
            self._stats.add("decode", trip.images.busy_seconds)


def label_fields(fields: Mapping[str, Field], dataset) -> set[str]:
    """The fields that the dataset's labels answer: `cls` where no file holds it (class folders, EDM's dataset.json)."""
    if dataset.n == 0 or dataset.labels(np.zeros(1, np.int64)) is None:
        return set()
    return {name for name, one in fields.items() if isinstance(one, Int) and one.extensions == ("cls",) and "cls" not in dataset.extensions}


def check_fields(fields: Mapping[str, Field], dataset) -> None:
    """Raises FieldError for a field that no sample has, default or not: a misspelt extension must not pass."""
    from_labels = label_fields(fields, dataset)
    for name, one in fields.items():
        if name in from_labels or any(extension in dataset.extensions for extension in one.extensions):
            continue
        there = ", ".join(sorted(dataset.extensions, key=dataset.extensions.get, reverse=True)[:12])
        raise FieldError(
            f"fields[{name!r}]: no sample of {dataset.names[0]}{' ...' if len(dataset.names) > 1 else ''} has "
            f"{' or '.join(one.extensions)}; the extensions there are: {there}."
        )


def _wait(native) -> None:
    while not native.wait(WAIT_SECONDS):
        pass


def _as_tensor(array: np.ndarray):
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))
