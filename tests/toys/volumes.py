"""A toy: a field of 3-D data with a stage of its own, which decodes on threads of its own.

In: entries of `side`^3 little-endian float16 numbers. Out: a column, float32 [N, side, side, side]. A volume
that has another size is a bad sample.
"""

import time
from collections.abc import Callable, Mapping
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import fastload as fl
from fastload.errors import FastloadError, SampleError
from fastload.fields import REQUIRED, Field
from fastload.loader.field_stage import (
    FieldBatch,
    FieldStage,
    StageContext,
    StoredBytes,
    result_of,
    wait_for,
)


@dataclass(frozen=True)
class Volume(Field):
    """side: voxels along each axis."""

    side: int
    ext: str = "vol"
    default: Any = REQUIRED


class VolumeStage(FieldStage):
    def __init__(self, fields: Mapping[str, Volume], context: StageContext):
        self.fields, self.names, self.context = fields, list(fields), context
        self.sample_bytes = sum(4 * field.side**3 for field in fields.values())
        self.pool = futures.ThreadPoolExecutor(context.threads, "toy-volumes")

    def submit(self, stored: StoredBytes, urgent: bool) -> "VolumeBatch":
        return VolumeBatch(self, stored)

    def give_up(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)

    def join(self, deadline: float) -> bool:
        self.pool.shutdown()
        return True


class VolumeBatch(FieldBatch):
    def __init__(self, stage: VolumeStage, stored: StoredBytes):
        self.names, self._stage, self._stored, self._cancelled = stage.names, stage, stored, False
        n = len(stored.positions)
        self._columns = {
            name: torch.empty(n, field.side, field.side, field.side) for name, field in stage.fields.items()
        }
        self._made = [stage.pool.submit(self._make, name, i) for name in self.names for i in range(n)]

    def settle(self, deadline: float) -> dict[tuple[int, str], FastloadError]:
        results = [result_of(made, deadline) for made in self._made]
        if self._cancelled:
            raise futures.CancelledError
        return {sample: fault for sample, fault in results if fault is not None}

    def adopt(self, to: np.ndarray, other: "VolumeBatch", samples: np.ndarray) -> None:
        for name, column in self._columns.items():
            column[to] = other._columns[name][samples]

    def column(self, name: str, where: Callable[[int], str]) -> dict[str, Any]:
        return {name: self._columns[name]}

    def cancel(self) -> None:
        self.give_up()
        for made in self._made:
            made.cancel()

    def give_up(self) -> None:
        self._cancelled = True

    def _make(self, name: str, i: int) -> tuple[tuple[int, str], SampleError | None]:
        wait_for(self._stored.content, lambda: self._cancelled)
        begun = time.perf_counter()
        content = self._stored.content.bytes(self._stored.first_blob[name] + i)
        column = self._columns[name]
        if len(content) != 2 * column[i].numel():
            return (i, name), SampleError(f"{len(content)} bytes are no volume of side {len(column[i])}")
        column[i] = torch.from_numpy(
            np.frombuffer(content, "<f2").reshape(column[i].shape).astype(np.float32)
        )
        self._stage.context.busy("decode", time.perf_counter() - begun)
        return (i, name), None


fl.register_field_stage(Volume, VolumeStage)
