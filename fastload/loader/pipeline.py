"""A batch is planned, launched ahead of need, and finished when the training loop asks for it.

In: a `Step` of the order. Out: a batch, a dict of tensors and lists. Promised: everything that takes long
happens on other threads between `launch` and `finish`; native threads read and decode, Python's worker
threads do only what needs Python (npy, json, your own functions, formats other than JPEG); bad samples are
replaced (replacements.py) without queueing behind other batches; an error is raised by the `finish` of its
own batch, and of several bad samples the same is always named; the memory of a batch is known before it is
launched; bytes that a cancelled batch did not read are never decoded.
"""

import time
from collections.abc import Callable
from typing import Any

from fastload import _native
from fastload.decode.images import ImageStage
from fastload.errors import ConfigError, FastloadError, ResourceError, ShardError
from fastload.fields import Image
from fastload.loader.assembly import Assembly
from fastload.loader.device import Delivered, delivery, resolve_device
from fastload.loader.field_check import check_fields, label_fields
from fastload.loader.field_stage import FieldStage, StageContext, registered_class, registered_stages
from fastload.loader.image_stage import ImageFields
from fastload.loader.pending_batch import Fault, PendingBatch
from fastload.loader.pixels import Pixels
from fastload.loader.planner import Planner
from fastload.loader.replacements import Replacements
from fastload.loader.specs import PipelineSpec
from fastload.loader.stats import Stats
from fastload.loader.value_stage import ValueStage
from fastload.order.sample_order import RankBatch, SampleOrder
from fastload.order.steps import Step
from fastload.read.ledger import MAX_REASON, BadSample, Ledger
from fastload.read.shard_reader import ShardReader
from fastload.shortage import raising_shortage
from fastload.threads import WorkerThreads

MIN_READERS, MAX_READERS = 4, 16  # reads at once: a disk wants several, a page cache does not mind
WORKER_NAME = "fastload-"  # what the names of all of Python's worker threads begin with


class Pipeline:
    """Everything between the order and the batch, for one dataset.

    kept: name -> what is costly to make and shared with later iterations; it is closed with the loader.
    """

    def __init__(
        self,
        spec: PipelineSpec,
        dataset,
        sample_order: SampleOrder,
        rank: int,
        threads: int,
        memory: "_native.BufferPool",
        stats: Stats,
        ledger: Ledger,
        kept: dict[str, Any],
    ):
        self._spec, self._memory, self._stats, self._ledger = spec, memory, stats, ledger
        check_fields(spec.fields, dataset)
        labelled = label_fields(spec.fields, dataset)
        stored = {name: field for name, field in spec.fields.items() if name not in labelled}
        self._replacements = Replacements(spec, dataset, sample_order)
        self._reader = ShardReader(dataset, threads=min(MAX_READERS, max(MIN_READERS, threads)))
        device = resolve_device(spec.device)
        # With its stream: torch keeps freed memory for the stream that it was made on.
        self._delivery = _kept_or_made(kept, "delivery", lambda: delivery(device))
        self._workers = WorkerThreads(threads, f"{WORKER_NAME}values")
        self._deliverer = WorkerThreads(1, f"{WORKER_NAME}delivery")
        self._stages = self._stages_of(stored, threads, device, kept)
        self._delivers_ahead = self._delivery.pins or any(stage.by_batch for stage in self._stages)
        sample_bytes = sum(stage.sample_bytes for stage in self._stages)
        self._planner = Planner(stored, dataset, spec.decode.max_pixels, sample_bytes)
        self._assembly = Assembly(
            spec.fields, labelled, dataset, spec.source_names, rank, masks=spec.last == "pad"
        )
        counters = [self._delivery.counters, *(stage.counters for stage in self._stages)]
        # Not a method: the statistics outlive this object, and would keep its files open.
        stats.begin(
            {"read": self._reader.threads, "decode": threads, "values": threads, "batch": 1, "training": 1},
            lambda: {name: number for counted in counters for name, number in counted().items()},
        )

    def _stages_of(self, stored: dict, threads: int, device, kept: dict) -> list[FieldStage]:
        """Values first: they are made before images are waited for."""
        acquire = self._delivery.pinned if self._delivery.pins else self._memory.acquire
        seed, prefetch = self._spec.decode.seed, self._spec.prefetch
        context = StageContext(threads, self._workers, acquire, self._stats.add, seed, device, prefetch)
        own = {name: field for name, field in stored.items() if registered_class(field) is None}
        valued = {name: field for name, field in own.items() if not isinstance(field, Image)}
        values = ValueStage(valued, context)
        stages: list[FieldStage] = [values] if valued else []
        if len(valued) < len(own):
            pixels = Pixels(self._spec, threads, self._memory)
            decoder = self._decoder(threads, device, kept)
            stages.append(ImageFields(decoder, pixels, context, always_ahead=bool(values.on_workers)))
        return stages + registered_stages(stored, context)

    def _decoder(self, threads: int, device, kept: dict) -> Any:
        spec = self._spec
        if spec.backend_name != "dali":
            return ImageStage(spec.decode, threads, as_uint8=device.type == "cuda")
        from fastload.decode.dali.images import DaliImageStage, make_stage

        ahead = spec.prefetch + 3  # one for replacement samples, one for an iteration that was given up
        stage = _kept_or_made(kept, "dali", lambda: make_stage(spec.decode, threads, device, ahead))
        return DaliImageStage(spec.decode, stage, self._delivery.stream)

    def plan(self, step: Step | None, rank_batch: RankBatch) -> PendingBatch:
        """The batch of a step's samples: where they lie, how much memory it will hold. Nothing waits."""
        return self._planner.plan(step, rank_batch)

    def launch(self, pending: PendingBatch, retry: bool = True) -> None:
        """Sends a batch on its way; nothing here waits. retry: transient errors of reads are tried again."""
        if pending.error is not None or not pending.located:
            return
        try:
            pending.submit(self._reader, self._memory, self._stages, retry=retry)
            if self._delivers_ahead:
                pending.deliver_on(self._deliverer, self._deliver)
        except ResourceError as error:  # of this batch: those before it come first
            pending.fail(error)

    def finish(self, pending: PendingBatch) -> dict:
        """Waits for a batch: field -> tensor [N, ...] or list of N, "__key__", "__id__", "__position__".

        Raises what went wrong with it.
        """
        if pending.error is not None:
            raise pending.error
        pending.wanted_within(self._spec.timeout_seconds)
        try:
            with raising_shortage("for a batch"):
                delivered = pending.result() if pending.delivered else self._deliver(pending)
        except FastloadError:
            self._ledger.write(pending.bad)  # the run ends, and these may say why
            raise
        self._ledger.enter(pending.bad, len(pending.positions))
        begun = time.perf_counter()
        batch = self._delivery.hand_over(delivered)
        if self._spec.map_batch is not None:
            batch = self._spec.map_batch(batch)
            if batch is None:
                raise ConfigError(
                    "map_batch returned None: it must return the batch, even if it changes it in place."
                )
        self._stats.add("batch", time.perf_counter() - begun)
        self._stats.count_native(pending)
        return batch

    def faults(self, pending: PendingBatch) -> list[BadSample]:
        """The faults of a launched batch that is not delivered.

        Raises ShardError for bytes that cannot be read.
        """
        if pending.error is not None:
            raise pending.error
        if pending.content is None:  # labels of folders alone
            return []
        pending.settle(self._reader)
        entry = self._replacements.entry
        return [entry(pending, i, 0, name, pending.wrong[i, name]) for i, name in sorted(pending.wrong)]

    def unreadable(self, pending: PendingBatch, error: ShardError) -> BadSample:
        """The fault of a batch of one sample whose bytes cannot be read."""
        name = list(pending.first_blob)[pending.content.first_error]
        return self._replacements.entry(pending, 0, 0, name, Fault(str(error)[:MAX_REASON], error))

    def give_up(self) -> None:
        """Lets the worker threads end after their current work. A finalizer may call it."""
        for part in (self._deliverer, self._workers):  # in this order: the first gives work to the second
            part.stop()
        for stage in self._stages:
            stage.give_up()

    def close(self, deadline: float) -> bool:
        """Ends the worker threads; native threads belong to the process. May be called again, to wait longer.

        deadline: of time.monotonic; False if they still work then.
        """
        self.give_up()
        return all([part.join(deadline) for part in (self._deliverer, self._workers, *self._stages)])

    def close_files(self, deadline: float) -> bool:
        """Closes the files once nothing reads them; False if some are open at the deadline."""
        return self._reader.close_files(max(0.0, deadline - time.monotonic()))

    def leave_behind(self, pending: PendingBatch) -> None:
        """Gives up a cancelled batch on which a read or a function hangs."""
        for batch in (pending, pending.replacement):
            if batch is not None and batch.content is not None and not batch.content.wait(0):
                self._reader.leave_behind(batch.content)

    def _deliver(self, pending: PendingBatch) -> Delivered:
        """Waits for the fields of a batch and assembles it on its device."""
        if pending.content is not None:
            pending.settle(self._reader)
        if pending.wrong:
            self._replacements.replace(pending, self._make_replacement)
        begun = time.perf_counter()
        delivered = self._delivery.deliver(
            self._assembly.assemble(pending), lambda batch: self._finished(batch, pending)
        )
        pending.release(delivered.done)
        self._stats.add("batch", time.perf_counter() - begun)
        return delivered

    def _finished(self, batch: dict, pending: PendingBatch) -> dict:
        for stage in self._stages:
            batch = stage.finish(batch, pending.positions)
        return batch

    def _make_replacement(self, pending: PendingBatch, rank_batch: RankBatch) -> PendingBatch:
        """Replacements for some samples of a batch, made at once; Python's part in this thread."""
        made = self.plan(None, rank_batch)
        pending.replace_by(made)
        if made.error is not None:
            raise made.error
        made.submit(self._reader, self._memory, self._stages, urgent=True)
        made.settle(self._reader)
        self._stats.count_native(made)
        return made


def _kept_or_made(kept: dict[str, Any], name: str, make: Callable[[], Any]) -> Any:
    if name not in kept:
        kept[name] = make()
    return kept[name]
