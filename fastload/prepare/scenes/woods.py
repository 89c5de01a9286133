"""A forest in mist: trunks, leaves and undergrowth in layers, the farther the paler.

In: a Canvas. Out: (picture [H, W, 3] float32, caption).
"""

import numpy as np

from fastload.prepare.scenes.canvas import Canvas, bloom, develop, lighten, mix, noise_tile, sample_grid, soft


def forest(canvas: Canvas):
    """Trunks in layers that fade into mist, shafts of light, leaves above and ferns below."""
    mist, bark, leaf, when = canvas.pick(
        ((0.80, 0.86, 0.84), (0.10, 0.10, 0.09), (0.12, 0.24, 0.10), "on a misty morning"),
        ((0.98, 0.90, 0.66), (0.13, 0.08, 0.05), (0.38, 0.36, 0.08), "in golden light"),
        ((0.74, 0.84, 0.90), (0.08, 0.10, 0.12), (0.10, 0.22, 0.22), "in blue mist"),
        ((0.97, 0.86, 0.70), (0.15, 0.09, 0.06), (0.62, 0.30, 0.06), "in autumn"),
        ((0.86, 0.93, 0.70), (0.12, 0.11, 0.07), (0.24, 0.42, 0.08), "in spring"),
    )
    sun_x = canvas.between(-0.6, 0.6) * canvas.aspect
    center = np.exp(-((canvas.x - sun_x) ** 2) * 1.1 - (canvas.y + 0.25) ** 2 * 1.2)
    picture = mix(np.float32(mist) * 0.72, np.float32(mist) * 1.08, center)
    layers = 6
    for layer in range(layers):
        depth = layer / (layers - 1)
        color = mix(np.float32(mist) * 0.8, bark, 0.12 + 0.88 * depth**1.3)
        foliage = mix(np.float32(mist) * 0.85, leaf, 0.15 + 0.85 * depth**1.2)
        _ground(canvas, picture, foliage, color, depth)
        _trunks(canvas, picture, color, depth)
        _canopy(canvas, picture, foliage, depth)
        if layer < layers - 1:
            fog = np.float32(0.34) * (1 - depth) * soft(canvas.noise(1.9, 1.2, 2.0), -1.5, 1.8)
            picture = mix(picture, mist, fog)
    angle = np.arctan2(canvas.x - sun_x, canvas.y + 1.5)
    shafts = np.interp(angle * 14, np.arange(-64, 64), noise_tile(0.8, 2)[7, :128]).astype(np.float32)
    shafts = np.clip(shafts, 0, 2) * soft(canvas.y, 1.0, -0.8) * center
    picture = lighten(picture, shafts[..., None] * np.float32(mist) * 0.22)
    return develop(bloom(picture, 0.8, 0.35), canvas, 0.4, 0.35), f"a forest {when}"


def _ground(canvas: Canvas, picture, foliage, color, depth: float):
    """Undergrowth of one layer, in place."""
    line = (
        0.28
        + 0.5 * depth**1.4
        + canvas.profile(1.4, 2) * 0.03
        + canvas.profile(0.6, 16) * 0.012 * (0.4 + depth)
    )
    rows = slice(max(int((float(line.min()) + 1) / canvas.pixel) - 4, 0), canvas.height)
    rough = canvas.noise(0.8, 6 + 3 * depth, 12, rows)
    ground = mix(foliage, color, soft(rough, -1.3, 1.3) * 0.8) * (1 + 0.12 * rough[..., None])
    picture[rows] = mix(picture[rows], ground, soft(canvas.y[rows] - line, -0.006, 0.012))


def _trunks(canvas: Canvas, picture, color, depth: float):
    """Trunks of one layer, each in its own band of columns, in place."""
    for _ in range(int((9 - 6 * depth) * canvas.aspect) + 1):
        half = canvas.between(0.7, 1.3) * (0.012 + 0.085 * depth**1.8)
        foot, lean = canvas.between(-canvas.aspect, canvas.aspect), canvas.between(-0.05, 0.05)
        band = slice(
            *(
                int(
                    np.clip(
                        (foot + side * (half * 1.6 + 0.1) + canvas.aspect) / canvas.pixel, 0, canvas.width
                    )
                )
                for side in (-1, 1)
            )
        )
        if band.start == band.stop:
            continue
        across = (canvas.x[:, band] - foot - lean * canvas.y) / np.float32(half * (1 + 0.12 * canvas.y))
        edge = np.float32(canvas.pixel / half + 0.03)
        round_light = 0.72 + 0.55 * np.sqrt(np.clip(1 - across**2, 0, 1)) * (0.7 - 0.35 * across)
        u = np.arange(band.start, band.stop, dtype=np.float32) * np.float32(
            0.9 + 40 * (1 - depth) / canvas.height
        )
        rough = sample_grid(noise_tile(0.8, 1), u, np.arange(canvas.height, dtype=np.float32) * 0.12)
        bark = np.float32(color) * (round_light * (1 + 0.2 * depth * rough))[..., None]
        foot_line = 0.34 + 0.55 * depth**1.4
        alpha = soft(np.abs(across), 1, 1 - edge) * soft(canvas.y, foot_line + 0.05, foot_line)
        picture[:, band] = mix(picture[:, band], bark, alpha)


def _canopy(canvas: Canvas, picture, foliage, depth: float):
    """Leaves of one layer, hanging from above, in place."""
    rows = slice(0, int(0.55 * canvas.height))
    clumps = canvas.noise(1.15, 5 - 2 * depth, rows=rows) + canvas.noise(0.5, 14, rows=rows) * 0.35
    hang = (canvas.y[rows] + 0.72 - 0.25 * (1 - depth)) * 3.2
    alpha = soft(clumps - hang, 0.0, 0.25) * (0.55 + 0.4 * depth)
    picture[rows] = mix(picture[rows], np.float32(foliage) * (1 + 0.16 * clumps[..., None]), alpha)
