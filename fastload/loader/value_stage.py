"""The fields that are not images: bytes to values, on Python's worker threads or in the calling one.

In: the bytes of a batch. Out: a column for each field (decode/values.py). Promised: only slow work goes to
worker threads (npy, json, your own functions); integers, text and bytes are made where the batch is
assembled, because a change of threads would cost more.
"""

import copy
import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from fastload.decode import values
from fastload.errors import FastloadError, FunctionError, SampleError
from fastload.fields import Bytes, Custom, Field, Int, Json, Text
from fastload.loader.field_stage import FieldBatch, FieldStage, StageContext, StoredBytes, ThreadWork
from fastload.rng import Draw, draws, purpose_of

_IN_PLACE = (Int, Text, Bytes)  # microseconds a sample


class ValueStage(FieldStage):
    """Makes `fields` on the worker threads of the context."""

    def __init__(self, fields: Mapping[str, Field], context: StageContext):
        self.fields, self.names, self.seed = dict(fields), list(fields), context.seed
        drawing = [name for name, field in fields.items() if isinstance(field, Custom) and field.draws]
        self.purposes = {name: purpose_of(f"field {name}") for name in drawing}
        self.workers, self.busy = context.workers, context.busy
        self.in_place = [name for name, field in fields.items() if isinstance(field, _IN_PLACE)]
        self.on_workers = [name for name in fields if name not in self.in_place]
        values.import_parsers(fields.values())

    def submit(self, stored: StoredBytes, urgent: bool) -> "BatchValues":
        """Urgent batches are made by the thread that settles them."""
        batch = BatchValues(self, stored)
        if self.on_workers and not urgent:
            batch.begin()
        return batch


class BatchValues(FieldBatch):
    """The values of one batch."""

    def __init__(self, stage: ValueStage, stored: StoredBytes):
        self._stage, self._stored = stage, stored
        self._columns: dict[str, Any] = {}
        self._faults: dict[tuple[int, str], FastloadError] = {}
        self._work = ThreadWork(stage.workers, stored)
        self.names = stage.names

    def begin(self) -> None:
        self._work.begin(self._make_part)

    def settle(self, deadline: float) -> dict[tuple[int, str], FastloadError]:
        samples = range(len(self._stored.positions))
        if not self._work.begun:
            self._make(self._stage.on_workers, samples)
        self._work.settle(deadline)
        begun = time.perf_counter()
        self._make(self._stage.in_place, samples)
        self._stage.busy("batch", time.perf_counter() - begun)
        return self._take_faults()

    def _take_faults(self) -> dict[tuple[int, str], FastloadError]:
        """A method of its own: the frame that their tracebacks hold must not hold them."""
        faults, self._faults = self._faults, {}
        return faults

    def adopt(self, to: np.ndarray, other: "BatchValues", samples: np.ndarray) -> None:
        for name, column in self._columns.items():
            for i, sample in zip(to.tolist(), samples.tolist(), strict=True):
                column[i] = other._columns[name][sample]

    def column(self, name: str, where: Callable[[int], str]) -> dict[str, Any]:
        return {name: values.collate(name, self._stage.fields[name], self._columns[name], where)}

    def cancel(self) -> None:
        self._work.cancel()

    def give_up(self) -> None:
        self._work.give_up()

    def _make_part(self, part: int, parts: int) -> None:
        """Every `parts`-th sample from `part` on."""
        if not self._work.has_bytes():
            return
        begun = time.perf_counter()
        self._make(self._stage.on_workers, range(part, len(self._stored.positions), parts))
        self._stage.busy("values", time.perf_counter() - begun)

    def _make(self, names: list[str], samples: range) -> None:
        n = len(self._stored.positions)
        for name in names:
            if isinstance(self._stage.fields[name], Int):
                labels = self._stored.content.integers(self._stored.first_blob[name], n)
                if labels is not None:  # otherwise a label is missing or invalid, and is found below
                    self._columns[name] = labels
                    continue
            made = self._columns.setdefault(name, [None] * n)
            for i, draw in zip(samples, self._draws(name, samples), strict=False):
                if self._work.cancelled:
                    return
                try:
                    made[i] = self._value(name, i, draw)
                except (SampleError, FunctionError) as error:
                    self._faults[i, name] = error

    def _draws(self, name: str, samples: range) -> Iterable[Draw | None]:
        """The random numbers of the samples; here, so that the thread that makes the values makes them."""
        purpose = self._stage.purposes.get(name)
        if purpose is None:
            return itertools.repeat(None)
        return draws(self._stage.seed, self._stored.positions[samples], purpose)

    def _value(self, name: str, i: int, draw: Draw | None) -> Any:
        field = self._stage.fields[name]
        if self._stored.missing[name][i]:
            # A copy: changing the document of one sample must not change the next.
            return copy.deepcopy(field.default) if isinstance(field, Json) else field.default
        return values.decode(field, self._stored.content.bytes(self._stored.first_blob[name] + i), draw)
