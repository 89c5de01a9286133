"""The random draws of adaptive augmentation on the host: gates, uniforms and normals of one call, in float32.

In: (seed, calls, row, purpose). Generated images have no position in a data set. Instead, Philox of rng.py is
evaluated at position calls * 2^32 + row: `calls` counts the draws made so far, `row` is the image's index in
the global batch. Word 0 of a block is a gate, open where (w0 >> 8) 2^-24 < chance; words 1 and 2 are two
uniforms u = (w >> 8) 2^-24, or by Box and Muller two normals: sqrt(-2 ln(u1 + 2^-24)) times cos and sin of
2 pi u2.

A percentile q replaces all of them, as the published pipe's debug_percentile does: gates are open, uniforms
are q and normals erfinv(2 q - 1) (without the factor sqrt(2) of a true quantile), all in float32.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastload.rng import as_uniforms, bits

Arrays = tuple[np.ndarray, np.ndarray]


class Percentile(NamedTuple):
    """The numbers that replace random draws for a percentile q."""

    uniform: float  # q
    normal: float  # erfinv(2 q - 1)
    positive_normal: float  # erfinv(q)

    @classmethod
    def of(cls, q: float | None) -> "Percentile | None":
        import torch

        if q is None:
            return None
        uniform = torch.tensor(q, dtype=torch.float32)
        return cls(uniform.item(), torch.erfinv(2 * uniform - 1).item(), torch.erfinv(uniform).item())


class RandomDraws:
    """The draws of one call for the rows [first_row, first_row + n)."""

    def __init__(self, seed: int, calls: int, first_row: int, n: int, q: float | None = None):
        self.n, self.percentile, self._seed = n, Percentile.of(q), seed
        rows = np.arange(first_row, first_row + n, dtype=np.int64)
        self._positions = (np.int64(calls) << np.int64(32)) + rows

    def words(self, purpose: int, block: int = 0) -> np.ndarray:
        """[n, 4] uint32."""
        return bits(self._seed, self._positions, purpose, block)

    def gate(self, purpose: int, chance: np.float32, block: int = 0) -> np.ndarray:
        """[n] bool: u < chance."""
        if self.percentile is not None:
            return np.ones(self.n, bool)
        return as_uniforms(self.words(purpose, block)[:, 0]) < chance

    def uniforms(self, purpose: int, block: int = 0) -> Arrays:
        """Two of [n] float32 in [0, 1)."""
        if self.percentile is not None:
            return self._both(self.percentile.uniform)
        u = as_uniforms(self.words(purpose, block)[:, 1:3])
        return u[:, 0], u[:, 1]

    def normals(self, purpose: int, block: int = 0) -> Arrays:
        """Two of [n] float32."""
        if self.percentile is not None:
            return self._both(self.percentile.normal)
        u = as_uniforms(self.words(purpose, block)[:, 1:3])
        radius = np.sqrt(np.float32(-2) * np.log(u[:, 0] + np.float32(2.0**-24)))
        angle = np.float32(math.tau) * u[:, 1]
        return radius * np.cos(angle), radius * np.sin(angle)

    def floored(self, purpose: int, chance: np.float32, values: int) -> np.ndarray:
        """floor(values u) where the gate is open, else 0."""
        floored = np.floor(values * self.uniforms(purpose)[0])
        return np.where(self.gate(purpose, chance), floored, np.float32(0))

    def angle(self, purpose: int, chance: np.float32, largest: np.float32) -> np.ndarray:
        """(2 u - 1) pi largest where the gate is open, else 0."""
        angle = (2 * self.uniforms(purpose)[0] - 1) * (np.float32(np.pi) * largest)
        return np.where(self.gate(purpose, chance), angle, np.float32(0))

    def normal(self, purpose: int, chance: np.float32, block: int = 0) -> np.ndarray:
        """z where the gate is open, else 0."""
        return np.where(self.gate(purpose, chance, block), self.normals(purpose, block)[0], np.float32(0))

    def power(self, purpose: int, chance: np.float32, std: np.float32, block: int = 0) -> np.ndarray:
        """2^(z std) where the gate is open, else 1."""
        return np.exp2(self.normal(purpose, chance, block) * std)

    def _both(self, number: float) -> Arrays:
        return (np.full(self.n, number, np.float32),) * 2


class Geometry:
    """G_inv of n images, [a b tx; c d ty], that grows to the right: each step multiplies one matrix to it."""

    def __init__(self, n: int):
        self.a, self.d = np.ones(n, np.float32), np.ones(n, np.float32)
        self.b, self.c, self.tx, self.ty = (np.zeros(n, np.float32) for _ in range(4))

    def scale(self, x: np.ndarray, y: np.ndarray) -> None:
        """diag(x, y)"""
        self.a, self.b, self.c, self.d = self.a * x, self.b * y, self.c * x, self.d * y

    def turn(self, cosine: np.ndarray, sine: np.ndarray) -> None:
        """[cos -sin; sin cos]"""
        self.a, self.b = self.a * cosine + self.b * sine, self.b * cosine - self.a * sine
        self.c, self.d = self.c * cosine + self.d * sine, self.d * cosine - self.c * sine

    def rotate(self, angle: np.ndarray) -> None:
        self.turn(np.cos(angle), np.sin(angle))

    def translate(self, x: np.ndarray, y: np.ndarray) -> None:
        self.tx = self.tx + (self.a * x + self.b * y)
        self.ty = self.ty + (self.c * x + self.d * y)

    def matrix(self) -> np.ndarray:
        """[n, 9]"""
        zero, one = np.zeros_like(self.a), np.ones_like(self.a)
        return np.stack([self.a, self.b, self.tx, self.c, self.d, self.ty, zero, zero, one], 1)


@dataclass
class Colour:
    """The colour matrix of n images: brightness, contrast, luma flip, hue, saturation, in this order.

    With P the projection on gray and K the cross product with its axis, the product of the five is
    contrast [(1 - 2 luma) P + saturation (cos hue (1 - P) + sin hue K)], plus brightness contrast (1 - 2
    luma)."""

    brightness: np.ndarray
    contrast: np.ndarray
    luma: np.ndarray
    hue: np.ndarray
    saturation: np.ndarray

    @classmethod
    def neutral(cls, n: int) -> "Colour":
        zero, one = np.zeros(n, np.float32), np.ones(n, np.float32)
        return cls(zero, one, zero, zero, one)

    def matrix(self) -> np.ndarray:
        """[n, 16]"""
        third, of_sine = np.float32(1 / 3), np.float32(3**-0.5)
        gray = self.contrast * (1 - 2 * self.luma)
        chroma = self.contrast * self.saturation
        along, across = chroma * np.cos(self.hue), chroma * np.sin(self.hue) * of_sine
        own = third * gray + third * (2 * along)
        after, before = third * gray - third * along - across, third * gray - third * along + across
        offset, zero, one = self.brightness * gray, np.zeros_like(gray), np.ones_like(gray)
        rows = [own, after, before, offset, before, own, after, offset, after, before, own, offset]
        return np.stack([*rows, zero, zero, zero, one], 1)
