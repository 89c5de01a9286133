"""What is wrong with the samples of a source, without replacing or delivering any.

In: a config, a dataset, sample_ids. Out: their faults, sample by sample. Promised: bytes and pixels go
through the very stages that a training uses, so that what is found here is what it would meet; a sample that
cannot be read is a fault like any other, and does not hide the samples beside it; one chunk is decoded while
the next is read.
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
from fastload.loader.stats import Stats
from fastload.order.plan import Sequential
from fastload.order.sample_order import OrderState, PlanSampleOrder, RankBatch
from fastload.read.ledger import BadSample, Ledger

_AHEAD = 2  # chunks


def examine(
    config: LoaderConfig, dataset, sample_ids: np.ndarray, threads: int
) -> Iterator[tuple[int, list[BadSample]]]:
    """(how many samples more are done, what is wrong with them), chunk by chunk, in order.

    config: its batch_size is that of a chunk; `position` of what is found is the sample_id.
    """
    memory = _native.BufferPool(config.max_bytes)
    walk = PlanSampleOrder(Sequential(dataset.n))
    stages = Pipeline(config, dataset, walk, 0, threads, memory, Stats(), Ledger(None, 1.0, 0), {})
    chunks = deque(np.array_split(sample_ids, range(config.batch_size, len(sample_ids), config.batch_size)))
    under_way = InFlight(stages)
    try:
        while chunks or under_way.trips:
            while chunks and len(under_way.trips) < _AHEAD:
                under_way.trips.append(_launched(stages, chunks.popleft()))
            found = _faults(stages, under_way.trips[0])
            yield len(under_way.trips.popleft().positions), found
    except GeneratorExit:  # raised also where a forgotten generator is collected as garbage
        under_way.give_up()
        raise
    except BaseException:
        under_way.end(CLOSE_SECONDS)
        raise
    under_way.end(CLOSE_SECONDS)


def _launched(stages: Pipeline, sample_ids: np.ndarray, patient: bool = True) -> PendingBatch:
    trip = stages.plan(None, RankBatch(sample_ids, sample_ids.copy(), None, sample_ids, OrderState(0)))
    stages.launch(trip, patient)
    return trip


def _faults(stages: Pipeline, trip: PendingBatch) -> list[BadSample]:
    try:
        return stages.faults(trip)
    except ShardError as error:
        trip.wait()
        if len(trip.positions) == 1:
            return [stages.unreadable(trip, error)]
    # The disk had its time: each of many samples would take as long again.
    alone = (_launched(stages, one[None], patient=False) for one in trip.positions)
    return [found for one in alone for found in _faults(stages, one)]
