"""The faults of the samples of a source, without replacing or delivering any.

In: a config, a dataset, sample_ids. Out: their faults, sample by sample. Promised: bytes and pixels go
through the same stages as in a training run, so the same faults are found; a sample that cannot be read is a
fault like any other, and does not hide the samples beside it; one chunk is decoded while the next is read.
"""

from collections import deque
from collections.abc import Iterator

import numpy as np

from fastload import _native
from fastload.errors import ShardError
from fastload.loader.config import LoaderConfig
from fastload.loader.in_flight import CLOSE_SECONDS, InFlight
from fastload.loader.pending_batch import PendingBatch
from fastload.loader.pipeline import Pipeline
from fastload.loader.specs import pipeline_spec
from fastload.loader.stats import Stats
from fastload.order.plan import Sequential
from fastload.order.sample_order import OrderState, PlanSampleOrder, RankBatch
from fastload.read.ledger import BadSample, Ledger

_AHEAD = 2  # chunks


def examine(
    config: LoaderConfig, dataset, sample_ids: np.ndarray, threads: int
) -> Iterator[tuple[int, list[BadSample]]]:
    """(number of samples, their faults), chunk by chunk, in order.

    config: its batch_size is the size of a chunk. The `position` of a fault is the sample_id.
    """
    memory = _native.BufferPool(config.max_bytes)
    sample_order = PlanSampleOrder(Sequential(dataset.n))
    pipeline = Pipeline(
        pipeline_spec(config), dataset, sample_order, 0, threads, memory, Stats(), Ledger(None, 1.0, 0), {}
    )
    chunks = deque(np.array_split(sample_ids, range(config.batch_size, len(sample_ids), config.batch_size)))
    in_flight = InFlight(pipeline)
    try:
        while chunks or in_flight.batches:
            while chunks and len(in_flight.batches) < _AHEAD:
                in_flight.batches.append(_launched(pipeline, chunks.popleft()))
            found = _faults(pipeline, in_flight.batches[0])
            yield len(in_flight.batches.popleft().positions), found
    except GeneratorExit:  # raised also when a dropped generator is collected as garbage
        in_flight.give_up()
        raise
    except BaseException:
        in_flight.end(CLOSE_SECONDS)
        raise
    in_flight.end(CLOSE_SECONDS)


def _launched(pipeline: Pipeline, sample_ids: np.ndarray, retry: bool = True) -> PendingBatch:
    batch = pipeline.plan(None, RankBatch(sample_ids, sample_ids.copy(), None, sample_ids, OrderState(0)))
    pipeline.launch(batch, retry)
    return batch


def _faults(pipeline: Pipeline, batch: PendingBatch) -> list[BadSample]:
    try:
        return pipeline.faults(batch)
    except ShardError as error:
        batch.wait()
        if len(batch.positions) == 1:
            return [pipeline.unreadable(batch, error)]
    # Reads were retried already; with many samples, retrying each would take too long.
    alone = (_launched(pipeline, sample_id[None], retry=False) for sample_id in batch.positions)
    return [found for single in alone for found in _faults(pipeline, single)]
