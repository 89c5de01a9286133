"""What is random in an augmentation: a plan, and its tables as the kernels read them."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastload.caching import cached_property
from fastload.ops.fused.augment_params import Stage

# The numbers that a LinearDraw may use as factors of its matrices.
TERMS = ("1", "v0", "v1", "1/v0", "cos v0", "sin v0")
ORDERS = tuple(itertools.permutations(range(4)))
# A LinearDraw as a row of float32: color (1) or geometry (0), the lower 16 bits of the purpose, gate, low and
# span of v0 and v1, the upper 16 bits of the purpose (all 32 would be rounded), then 12 entries for each of
# TERMS: a geometry's 2 x 3 (and 6 zeros), a colour's 3 x 4.
LINEAR_HEADER, TERM_ENTRIES = 8, 12
LINEAR_COLUMNS = LINEAR_HEADER + len(TERMS) * TERM_ENTRIES
# The rest as one vector: low and span of the four jitter factors, of hue and saturation, gate and size of
# cutout, a gap of two, then ORDERS.
JITTER_RANGES, HSV_RANGES, CUTOUT_GATE, CUTOUT_SIZE, ORDER_TABLE = 0, 8, 12, 13, 16
CONSTANTS = ORDER_TABLE + 4 * len(ORDERS)


@dataclass(frozen=True)
class LinearDraw:
    """A random matrix: with `probability` the sum of terms[name] * name, else the identity.

    color: False: a 3 x 3 that maps points of the output to points of the input (so the inverse of what the
    image does), in centred pixels; True: a 4 x 4 on (r, g, b, 1). first, second: (low, high) of v0 and v1.
    """

    purpose: int
    color: bool
    terms: Mapping[str, Sequence[Sequence[float]]]
    probability: float = 1.0
    first: tuple[float, float] = (0.0, 0.0)
    second: tuple[float, float] = (0.0, 0.0)

    def row(self) -> np.ndarray:
        """[LINEAR_COLUMNS] float32."""
        row = np.zeros(LINEAR_COLUMNS, np.float32)
        upper, lower = divmod(int(self.purpose), 1 << 16)
        row[:8] = self.color, lower, gate(self.probability), *_spans(self.first, self.second), upper
        for name, matrix in self.terms.items():
            rows = np.asarray(matrix, np.float64)[: 3 if self.color else 2]
            start = LINEAR_HEADER + TERMS.index(name) * TERM_ENTRIES
            row[start : start + rows.size] = rows.ravel()
        return row


@dataclass(frozen=True)
class DrawPlan:
    """What is random in an image. None: absent.

    linear: of geometry and colour, in the order in which the image goes through them. jitter: (low, high) of
    brightness, contrast, saturation, hue. hsv: (low, high) of hue shift and saturation factor. cutout:
    (probability, side as a share of the image's sides).
    """

    linear: tuple[LinearDraw, ...] = ()
    jitter: tuple[tuple[float, float], ...] | None = None
    hsv: tuple[tuple[float, float], ...] | None = None
    cutout: tuple[float, float] | None = None
    _on_device: dict = field(default_factory=dict, compare=False, repr=False)

    @property
    def stages(self) -> Stage:
        stages = Stage(0)
        if any(not draw.color for draw in self.linear):
            stages |= Stage.WARP
        if any(draw.color for draw in self.linear):
            stages |= Stage.COLOR
        if self.jitter is not None:
            stages |= Stage.JITTER
            if self.jitter[1] != (1.0, 1.0):
                stages |= Stage.MEAN
        if self.hsv is not None:
            stages |= Stage.HSV
        if self.cutout is not None:
            stages |= Stage.CUTOUT
        return stages

    @cached_property
    def table(self) -> np.ndarray:
        """[draws, LINEAR_COLUMNS] float32."""
        return np.array([draw.row() for draw in self.linear], np.float32).reshape(-1, LINEAR_COLUMNS)

    @cached_property
    def constants(self) -> np.ndarray:
        """[CONSTANTS] float32."""
        constants = np.zeros(CONSTANTS, np.float32)
        if self.jitter is not None:
            constants[JITTER_RANGES : JITTER_RANGES + 8] = _spans(*self.jitter)
        if self.hsv is not None:
            constants[HSV_RANGES : HSV_RANGES + 4] = _spans(*self.hsv)
        if self.cutout is not None:
            constants[CUTOUT_GATE : CUTOUT_GATE + 2] = gate(self.cutout[0]), self.cutout[1]
        constants[ORDER_TABLE:] = np.ravel(ORDERS)
        return constants

    def on(self, device: Any) -> tuple:
        """`table` and `constants` as tensors on `device`, copied there once."""
        import torch

        key = str(device)
        if key not in self._on_device:
            arrays = (self.table, self.constants)
            self._on_device[key] = tuple(torch.from_numpy(array).to(device) for array in arrays)
        return self._on_device[key]


def gate(probability: float) -> float:
    """The threshold of a gate: u < probability is the same as (bits >> 8) < gate, exactly."""
    return float(math.ceil(probability * 2.0**24))


def _spans(*ranges: tuple[float, float]) -> list[float]:
    return [number for low, high in ranges for number in (low, high - low)]
