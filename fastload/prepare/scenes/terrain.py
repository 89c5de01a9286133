"""Land in perspective: a height map of noise, lit by the sun, seen through haze; mountains, dunes and green
hills.

In: a Canvas. Out of a scene: (picture [H, W, 3] float32, caption). A column of the picture is a ray over the
map: the map is read at growing distances, each reading hides what lies lower behind it, and the count of
readings that a pixel lies above is its distance.
"""

from dataclasses import dataclass

import numpy as np

from fastload.prepare.scenes.canvas import TILE, Canvas, bloom, develop, mix, noise_tile, sample, soft
from fastload.prepare.scenes.sky import HOURS, Hour, add_clouds, conifers, paint_sky


@dataclass(frozen=True)
class View:
    """Per pixel: the place on the map (u, v), the distance in cells, and the share that is land."""

    u: np.ndarray
    v: np.ndarray
    distance: np.ndarray
    land: np.ndarray


def look(canvas: Canvas, heights, eye: float, horizon: float, far: float = 420.0, near: float = 3.0) -> View:
    """Looks over the map [TILE, TILE] from `eye` cells above the ground below, towards falling v."""
    start_u, start_v = canvas.rng.uniform(0, TILE, 2).astype(np.float32)
    steps = np.geomspace(near, far, 360).astype(np.float32)[:, None]
    u = start_u + canvas.x * steps * 0.6
    v = np.broadcast_to(start_v - steps, u.shape)
    ground = sample(heights, u, v)
    base = float(ground[:60].max())
    raw = horizon + (eye + base - ground) / (steps * 0.6)
    skyline = np.minimum.accumulate(raw, axis=0)
    rows = np.clip(np.ceil((skyline + 1) / canvas.pixel - 0.5), 0, canvas.height).astype(np.int64)
    places = rows * canvas.width + np.arange(canvas.width)
    counts = np.bincount(places.ravel(), minlength=(canvas.height + 1) * canvas.width)
    passed = len(steps) - np.cumsum(counts.reshape(-1, canvas.width), axis=0)[: canvas.height]
    index = np.clip(passed, 1, len(steps) - 1)
    columns = np.arange(canvas.width)[None, :]
    before, after = raw[index - 1, columns], skyline[index, columns]
    share = np.clip((before - canvas.y) / np.maximum(before - after, 1e-4), 0, 1)
    distance = steps[index - 1, 0] * (1 - share) + steps[index, 0] * share
    land = np.clip((canvas.y - skyline[-1]) / canvas.pixel + 0.5, 0, 1)
    return View(start_u + canvas.x * distance * 0.6, start_v - distance, distance, land)


def sunlight(heights, azimuth: float, elevation: float):
    """How much sun every cell gets, 0..1 with cast shadows, and how steep it is: two maps [TILE, TILE]."""
    slope_u = (np.roll(heights, -1, 1) - np.roll(heights, 1, 1)) * 0.5
    slope_v = (np.roll(heights, -1, 0) - np.roll(heights, 1, 0)) * 0.5
    to_u, to_v = np.cos(azimuth), np.sin(azimuth)
    length = np.sqrt(1 + slope_u**2 + slope_v**2)
    facing = (np.sin(elevation) - np.cos(elevation) * (slope_u * to_u + slope_v * to_v)) / length
    hidden = np.full_like(heights, -9.0)
    for reach in np.geomspace(1.5, 70, 16):
        ahead = np.roll(heights, (-round(reach * to_v), -round(reach * to_u)), (0, 1))
        hidden = np.maximum(hidden, (ahead - heights - reach * np.tan(elevation)) / (0.6 + 0.05 * reach))
    return (np.clip(facing, 0, 1) * soft(hidden, 0.8, -0.4)).astype(np.float32), (1 / length).astype(
        np.float32
    )


def ground_detail(view: View) -> np.ndarray:
    """Texture of the ground, [H, W], mean 0, finer close by, nothing far away, where it would alias."""
    coarse = sample(noise_tile(0.9, 1), view.u * 5, view.v * 5) * soft(view.distance, 170, 10)
    return coarse + sample(noise_tile(0.5, 2), view.u * 37, view.v * 37) * soft(view.distance, 34, 2) * 0.8


def haze(canvas: Canvas, land, sky, view: View, hour: Hour, reach: float):
    """Land that fades with its distance into the colour of the air, over the sky where there is no land."""
    share = 1 - np.exp(-((view.distance / np.float32(reach)) ** 1.3))
    air = mix(np.float32(hour.horizon), np.float32(hour.middle), 0.35)
    return mix(sky, mix(land, air, np.clip(share, 0, 0.97)), view.land)


def _begin(canvas: Canvas, hours, horizon: float, cover: float):
    """An hour, its sky with clouds, and the direction (azimuth, elevation) of its sun."""
    hour = canvas.pick(*hours)
    side = canvas.between(0.3, 1.3) * canvas.pick(-1, 1)
    sun_y = horizon - canvas.between(0.12, 0.4) if hour.low_sun else -1.2
    sky = paint_sky(canvas, hour, horizon, side, sun_y)
    sky = add_clouds(canvas, sky, hour, horizon, side, sun_y, cover)
    azimuth = np.pi * (1.5 + side * 0.42)
    return hour, sky, azimuth, canvas.between(0.3, 0.42) if hour.low_sun else canvas.between(0.6, 0.95)


def mountains(canvas: Canvas):
    """Ridged peaks of rock, forest and snow."""
    ridge = 1 - np.abs(noise_tile(1.9, int(canvas.rng.integers(3)))) * 0.8
    broad, fine = noise_tile(2.2, int(canvas.rng.integers(3))), noise_tile(1.2, int(canvas.rng.integers(3)))
    heights = 26 * np.clip(ridge, -0.4, 1) * (0.75 + 0.5 * soft(broad, -1.2, 1.4)) + broad * 9 + fine * 0.55
    horizon = canvas.between(-0.35, 0.0)
    hour, sky, azimuth, elevation = _begin(canvas, HOURS, horizon, canvas.between(0.1, 0.5))
    sun, level = sunlight(heights, azimuth, elevation)
    view = look(canvas, heights, canvas.between(8, 20), horizon)
    lit, flat, high = (sample(grid, view.u, view.v) for grid in (sun, level, heights))
    detail = ground_detail(view)
    snow_line = canvas.pick(8.0, 15.0, 24.0, 60.0)
    rock = mix((0.30, 0.28, 0.27), (0.46, 0.42, 0.38), soft(detail + flat, -0.8, 1.6))
    green = mix((0.10, 0.15, 0.07), (0.26, 0.28, 0.12), soft(detail, -1.2, 1.4))
    ground = mix(
        rock, green, soft(flat + detail * 0.05, 0.62, 0.8) * soft(high, snow_line - 1, snow_line - 12)
    )
    ground = mix(
        ground, (0.94, 0.95, 0.98), soft(high + detail * 2 + flat * 14, snow_line + 7, snow_line + 13)
    )
    land = ground * (lit[..., None] * np.float32(hour.sun) * 1.3 + np.float32(hour.shade) * 1.15)
    picture = haze(canvas, land, sky, view, hour, canvas.between(110, 330))
    look_of = "snow-capped mountains" if snow_line < 20 else "mountains"
    return develop(bloom(picture, 0.85, 0.3), canvas, 0.3, 0.45), f"{look_of} {hour.name}"


def dunes(canvas: Canvas):
    """Sand dunes with sharp crests and ripples."""
    wide, narrow = noise_tile(2.6, int(canvas.rng.integers(3))), noise_tile(2.2, int(canvas.rng.integers(3)))
    places = np.arange(TILE, dtype=np.float32) * (2 * np.pi / TILE)
    phase = (places[None, :] * 3 + places[:, None] * 5 + wide * 1.5) / (2 * np.pi)
    saw = phase * 2 % 1.0
    crest = np.where(saw < 0.72, soft(saw, -0.25, 0.72) ** 1.4, (1 - (saw - 0.72) / 0.28) ** 1.1)
    crest = _smooth(crest.astype(np.float32))
    heights = (crest * 12 + np.clip(narrow, -2, 2) * 2.5).astype(np.float32)
    horizon = canvas.between(-0.3, 0.0)
    hour, sky, azimuth, elevation = _begin(canvas, (*HOURS[:5], HOURS[3]), horizon, canvas.between(0.0, 0.3))
    sun, _ = sunlight(heights, azimuth, min(elevation, 0.5))
    view = look(canvas, heights, canvas.between(5, 14), horizon)
    lit = sample(sun, view.u, view.v)
    bend = sample(wide, view.u * 2, view.v * 2)
    ripple = np.sin(view.v * 5.0 + bend * 6 + np.sin(view.u * 1.7) * 0.8) * soft(view.distance, 45, 4)
    grain = sample(noise_tile(0.6, 0), view.u * 19, view.v * 19) * soft(view.distance, 70, 5)
    sand = mix((0.80, 0.52, 0.30), (0.93, 0.76, 0.50), soft(bend, -1.5, 1.5)) * (1 + 0.03 * grain[..., None])
    lit = np.clip(lit * (1 + 0.28 * ripple), 0, 1.2)
    land = sand * (lit[..., None] * np.float32(hour.sun) * 1.35 + np.float32(hour.shade) * 1.15)
    picture = haze(canvas, land, sky, view, hour, canvas.between(200, 420))
    return develop(bloom(picture, 0.88, 0.25), canvas, 0.3, 0.4), f"desert dunes {hour.name}"


def _smooth(grid):
    """A 5-cell box blur that wraps, so that crests are sharp but not torn."""
    for axis in (0, 1):
        grid = (grid * 2 + np.roll(grid, 1, axis) * 1.5 + np.roll(grid, -1, axis) * 1.5) / 5
    return grid


def hills(canvas: Canvas):
    """Green rolling hills with fields, hedges and mist in the valleys."""
    broad, fields = noise_tile(2.6, int(canvas.rng.integers(3))), noise_tile(1.6, int(canvas.rng.integers(3)))
    heights = broad * 7 + fields * 0.5
    horizon = canvas.between(-0.4, -0.1)
    hour, sky, azimuth, elevation = _begin(canvas, HOURS, horizon, canvas.between(0.2, 0.55))
    kind = noise_tile(2.0, int(canvas.rng.integers(3)))
    woods = soft(kind, 0.55, 0.75) * (1.0 + 0.5 * noise_tile(0.5, 1))
    heights = heights + np.clip(woods, 0, 2) * 1.3
    sun, _ = sunlight(heights, azimuth, elevation)
    view = look(canvas, heights, canvas.between(7, 15), horizon)
    lit, wood, tone = (sample(grid, view.u, view.v) for grid in (sun, woods, fields))
    detail = ground_detail(view)
    furrow = np.sin(view.u * 4 + tone * 5) * soft(view.distance, 60, 8) * soft(tone, 0.3, 0.6)
    near, dry = canvas.pick(
        ((0.20, 0.28, 0.10), (0.55, 0.50, 0.24)),
        ((0.25, 0.33, 0.13), (0.38, 0.42, 0.18)),
        ((0.34, 0.26, 0.12), (0.62, 0.44, 0.16)),
    )
    ground = mix(near, dry, soft(tone + detail * 0.45 + furrow * 0.3, -1.0, 1.2)) * (
        1 + 0.10 * detail[..., None]
    )
    ground = mix(ground, np.float32((0.07, 0.12, 0.05)) * (1 + detail[..., None] * 0.35), np.clip(wood, 0, 1))
    land = ground * (lit[..., None] * np.float32(hour.sun) * 1.3 + np.float32(hour.shade) * 1.1)
    low = soft(sample(heights, view.u, view.v), 2, -9) * soft(view.distance, 15, 90)
    misty = canvas.rng.uniform() < 0.5
    land = mix(land, np.float32(hour.horizon), low * (0.8 if misty else 0.25))
    picture = haze(canvas, land, sky, view, hour, canvas.between(90, 260))
    if canvas.rng.uniform() < 0.4:
        line = 0.85 - canvas.profile(1.5, 1) * 0.06 - conifers(canvas, 26) * 0.45
        picture = mix(
            picture, np.float32(hour.shade) * 0.16, soft(canvas.y - line, -canvas.pixel, canvas.pixel)
        )
    return develop(
        bloom(picture, 0.85, 0.3), canvas, 0.3, 0.4
    ), f"{'misty ' if misty else ''}green hills {hour.name}"
