"""Where the bytes of a batch are, and how much memory it will hold, before any of them is read.

In: a step and the samples that it takes. Out: a PendingBatch. Promised: nothing waits; a field that a sample
lacks and an image that is too large to be one are faults of their samples; an error is that of its batch, so
that those before it come first.
"""

from collections.abc import Mapping

import numpy as np

from fastload.errors import FastloadError, SampleError
from fastload.fields import Field, Image
from fastload.loader.field_check import missing_error
from fastload.loader.pending_batch import Fault, PendingBatch
from fastload.order.sample_order import RankBatch
from fastload.order.steps import Step
from fastload.shortage import raising_shortage

# What no image file exceeds: RGBA of 32-bit floats, uncompressed, with previews and profiles.
MAX_BYTES_PER_PIXEL, MAX_METADATA_BYTES = 16, 16 << 20


class Planner:
    """Plans batches. fields: those that are stored. sample_bytes: memory of the stages for one sample."""

    def __init__(self, fields: Mapping[str, Field], dataset, max_pixels: int, sample_bytes: int):
        self._fields, self._dataset, self._sample_bytes = fields, dataset, sample_bytes
        self._max_image_bytes = MAX_BYTES_PER_PIXEL * max_pixels + MAX_METADATA_BYTES

    def plan(self, step: Step | None, rank_batch: RankBatch) -> PendingBatch:
        """The batch of these samples; step: None for replacement samples."""
        held_bytes = len(rank_batch.positions) * self._sample_bytes
        batch = PendingBatch(step, rank_batch, self._dataset.where, held_bytes)
        try:
            with raising_shortage("to plan a batch"):
                for name, field in self._fields.items():
                    self._locate(batch, name, field)
        except FastloadError as error:
            batch.fail(error)
        return batch

    def _locate(self, batch: PendingBatch, name: str, field: Field) -> None:
        located = self._dataset.locate(batch.sample_ids, field.extensions)
        size_bytes = located.size_bytes
        if isinstance(field, Image):
            for i in np.flatnonzero(size_bytes > self._max_image_bytes).tolist():
                reason = f"{size_bytes[i]:,} bytes are more than an image of max_pixels can need"
                batch.note(i, name, Fault.of(batch.where_of(i), name, SampleError(reason)))
                size_bytes[i] = -1  # not read
        missing = size_bytes < 0
        if field.required:
            for i in np.flatnonzero(missing).tolist():
                error = missing_error(name, field, self._dataset, int(batch.sample_ids[i]))
                batch.note(i, name, Fault(f"no {' or '.join(field.extensions)}", error))
        batch.add_field(name, located, missing)
