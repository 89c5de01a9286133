"""The random draws of mixup and CutMix: which share of each image of a batch is its own.

In: the strengths (alpha of a symmetric Beta distribution), positions, seed, size. Out: a `Mix`: shares and
boxes. Promised: drawn from (seed, position, Purpose.MIX) alone, block 0: word 0 decides between the two where
both are asked for (CutMix where u < 1/2), word 1 is the share, words 2 and 3 are the centre of the box.

The share is the inverse of Beta(alpha, alpha)'s distribution function at u, so that one uniform is one share
and no position draws a number of times that depends on luck. CutMix as published: the box has sqrt(1 - share)
of either side, its centre is uniform, it is cut at the image's edge, and the share becomes that of the pixels
that are left.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from fastload.ops.transfer import as_positions
from fastload.rng import Purpose, uniforms

MAX_ALPHA = 1000.0  # where nine shares of ten lie within 0.02 of 1/2
STEPS = 1 << 16  # of the integral of a density, up to 1/2


class Mix(NamedTuple):
    """How each image of a batch is mixed with the one before it."""

    share: np.ndarray  # [N] float32: of its own pixels, over both kinds of mixing
    blend: np.ndarray  # [N] float32: its weight in mixup; 1 where it is not blended
    boxes: np.ndarray  # [N, 4] int64: left, top, right, bottom of what CutMix takes from the other, or empty


def draw_mix(mixup: float, cutmix: float, positions: Any, seed: int, height: int, width: int) -> Mix:
    """The shares of the samples at `positions` [N]; mixup, cutmix: alpha, 0 for never."""
    u = uniforms(seed, as_positions(positions), Purpose.MIX).astype(np.float64)
    cut = u[:, 0] < (0.5 if mixup and cutmix else 1.0 if cutmix else 0.0)
    blend = np.where(cut, 1.0, beta_quantile(mixup, u[:, 1]) if mixup else 1.0)
    kept = np.where(cut, beta_quantile(cutmix, u[:, 1]) if cutmix else 1.0, 1.0)
    boxes = np.stack(_box(kept, u[:, 2], width) + _box(kept, u[:, 3], height), 1)[:, [0, 2, 1, 3]]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    share = np.where(cut, 1.0 - area / (width * height), blend)
    return Mix(share.astype(np.float32), blend.astype(np.float32), boxes)


def beta_quantile(alpha: float, u: np.ndarray) -> np.ndarray:
    """The inverse distribution function of Beta(alpha, alpha) at u in [0, 1]."""
    below, x = _distribution(float(alpha))
    lower = np.interp(np.minimum(u, 1.0 - u), below, x)
    if alpha < 1.0:
        lower = lower ** (1.0 / alpha)
    return np.where(u <= 0.5, lower, 1.0 - lower)


@functools.lru_cache(maxsize=16)
def _distribution(alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """The distribution function up to 1/2, and where it has these values, or where alpha < 1 t = x^alpha.

    The density x^(alpha - 1) (1 - x)^(alpha - 1) is infinite at 0 where alpha < 1: there it is integrated
    over t, with which it is (1 - x)^(alpha - 1) / alpha.
    """
    if alpha < 1.0:
        steps = np.linspace(0.0, 0.5**alpha, STEPS + 1)
        density = (1.0 - steps ** (1.0 / alpha)) ** (alpha - 1.0)
    else:
        steps = np.linspace(0.0, 0.5, STEPS + 1)
        density = (4.0 * steps * (1.0 - steps)) ** (alpha - 1.0)  # times a constant, so that 1/2 has 1
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    below = below / below[-1] / 2
    # Where alpha is large, nothing lies near 0 that float64 could tell from 0: of these steps the last is
    # kept.
    first = np.searchsorted(below, 0.0, side="right") - 1
    return below[first:], steps[first:]


def _box(kept: np.ndarray, u: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    cut = np.floor(side * np.sqrt(1.0 - kept)).astype(np.int64)
    start = np.floor(u * side).astype(np.int64) - cut // 2
    return start.clip(0, side), (start + cut).clip(0, side)
