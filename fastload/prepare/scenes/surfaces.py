"""A surface that fills the picture: planks, bricks, pebbles or marble.

In: a Canvas. Out: (picture [H, W, 3] float32, caption). Each material is a relief and a colour; the relief is
lit from one side.
"""

import numpy as np

from fastload.prepare.scenes.canvas import TILE, Canvas, develop, mix, noise_tile, sample, soft


def surface(canvas: Canvas):
    """A surface that fills the picture: planks, bricks, pebbles or marble, lit from the side."""
    height, color, name = canvas.pick(_planks, _bricks, _pebbles, _marble)(canvas)
    slope = (np.gradient(height, axis=1) * 0.8 + np.gradient(height, axis=0) * 0.6).astype(np.float32)
    light = 0.92 + np.clip(slope * 9, -0.55, 0.5)
    falloff = 1.12 - 0.22 * soft(canvas.x + canvas.y, -1.5, 2.0)
    return develop(color * (light * falloff)[..., None], canvas, 0.35, 0.35), name


def _planks(canvas: Canvas):
    """Boards side by side with grain and knots."""
    boards = canvas.between(4, 8)
    place = (canvas.y + 1) / 2 * boards
    board = np.floor(place).astype(np.int64)
    tones = canvas.rng.uniform(0.8, 1.12, 12).astype(np.float32)[np.clip(board, 0, 11)]
    shift = canvas.rng.uniform(0, TILE, 12).astype(np.float32)[np.clip(board, 0, 11)]
    u = canvas.x * 26 + shift
    warp = sample(noise_tile(2.0, 0), u * 0.7, place * 60 + np.zeros_like(u))
    rings = np.sin((place * 16 + warp * 5.0 + shift) * 1.7)
    fiber = sample(noise_tile(0.8, 1), u * 1.2, place * 260 + np.zeros_like(u))
    dark, bright = canvas.pick(
        ((0.36, 0.22, 0.12), (0.62, 0.42, 0.25)),
        ((0.44, 0.42, 0.40), (0.66, 0.64, 0.60)),
        ((0.62, 0.46, 0.28), (0.84, 0.68, 0.46)),
    )
    gap = soft(np.abs(place % 1.0 - 0.5), 0.5, 0.478)
    color = mix(dark, bright, soft(rings * 0.5 + fiber * 0.45, -1.3, 1.2)) * (tones * gap)[..., None]
    return gap * 0.10 + fiber * 0.008 + rings * 0.003, color, "weathered wooden planks"


def _bricks(canvas: Canvas):
    """A wall of bricks in running bond, every brick with its own tone."""
    rows = canvas.between(7, 13)
    y = (canvas.y + 1) / 2 * rows + canvas.noise(1.5, 3) * 0.03
    row = np.floor(y)
    x = canvas.x * rows / 4.6 + (row % 2) * 0.5 + 50 + canvas.noise(1.5, 3) * 0.012
    brick = (row.astype(np.int64) * 131 + np.floor(x).astype(np.int64) * 37) & 255
    tones = canvas.rng.uniform(-0.5, 0.5, 256).astype(np.float32)[brick]
    edge = np.minimum(0.5 - np.abs(y % 1.0 - 0.5), (0.5 - np.abs(x % 1.0 - 0.5)) * 2.3)
    raised = soft(edge, 0.045, 0.10)
    rough = canvas.noise(0.7, 10)
    dark, bright = canvas.pick(
        ((0.42, 0.16, 0.11), (0.72, 0.38, 0.26)),
        ((0.55, 0.48, 0.40), (0.82, 0.76, 0.66)),
        ((0.28, 0.26, 0.27), (0.50, 0.47, 0.46)),
    )
    color = mix(dark, bright, np.clip(0.5 + tones + rough * 0.13, 0, 1))
    return (
        raised * 0.10 + rough * 0.006,
        mix(np.float32((0.62, 0.60, 0.56)) * (1 + 0.08 * rough[..., None]), color, raised),
        "an old brick wall",
    )


def _pebbles(canvas: Canvas):
    """Rounded stones: each pixel belongs to the nearest of a jittered grid of points."""
    cells = canvas.between(7, 12)
    warp = canvas.noise(1.8, 3) * 0.12
    x, y = (canvas.x + canvas.aspect) / 2 * cells + warp + 2, (canvas.y + 1) / 2 * cells - warp + 2
    jitter = canvas.rng.uniform(0.12, 0.88, (64, 64, 2)).astype(np.float32)
    column, row = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    first, second, owner = (
        np.full(x.shape, 9, np.float32),
        np.full(x.shape, 9, np.float32),
        np.zeros(x.shape, np.int32),
    )
    for step_y in (-1, 0, 1):
        for step_x in (-1, 0, 1):
            at = ((row + step_y) & 63) * 64 + ((column + step_x) & 63)
            point = jitter.reshape(-1, 2)[at]
            far = np.hypot(column + step_x + point[..., 0] - x, row + step_y + point[..., 1] - y)
            closer = far < first
            second = np.where(closer, first, np.minimum(second, far))
            owner, first = np.where(closer, at, owner), np.minimum(first, far)
    dome = np.sqrt(np.clip((second - first) * 1.6, 0, 1))
    rough = canvas.noise(0.9, 8)
    palette = np.float32(
        [(0.52, 0.50, 0.48), (0.72, 0.68, 0.62), (0.34, 0.35, 0.38), (0.62, 0.50, 0.42), (0.80, 0.78, 0.76)]
    )
    color = palette[canvas.rng.integers(0, 5, 64 * 64)[owner]] * (1 + 0.10 * rough[..., None])
    return (
        dome * 0.16 + rough * 0.004,
        color * (0.25 + 0.75 * soft(dome, 0.05, 0.6))[..., None],
        "rounded pebbles",
    )


def _marble(canvas: Canvas):
    """Polished stone with veins."""
    fold = canvas.noise(2.0, 1.5)
    warp = canvas.noise(1.7, 2.0)
    run = canvas.x * canvas.between(0.6, 1.3) + canvas.y * canvas.between(-1.2, 1.2) + warp * 0.22
    veins = np.abs(np.sin(run * 3.2 + fold * 1.3)) + 0.10 * soft(canvas.noise(1.6, 3), -1, 1)
    thin = np.abs(np.sin(run * 8.0 - fold * 2.1 + warp * 0.9)) + 0.2 * soft(canvas.noise(1.6, 3), -0.5, 1.2)
    base, vein, name = canvas.pick(
        ((0.92, 0.91, 0.89), (0.42, 0.43, 0.46), "white marble"),
        ((0.10, 0.13, 0.12), (0.78, 0.80, 0.74), "black marble"),
        ((0.20, 0.36, 0.30), (0.78, 0.86, 0.74), "green marble"),
        ((0.82, 0.68, 0.58), (0.52, 0.26, 0.20), "red marble"),
    )
    share = np.maximum(soft(veins, 0.20, 0.0) * 0.75, soft(thin, 0.17, 0.0) * 0.5)
    share = np.maximum(share, soft(warp + fold, 0.2, 3.0) * 0.35)
    color = mix(np.float32(base) * (1 + 0.06 * fold[..., None]), vein, share)
    return fold * 0.0005, color, f"polished {name} with veins"
