"""Skies: the light of an hour of the day, clouds in perspective, stars; and the scenes that are mostly sky.

In: a Canvas. Out of a scene: (picture [H, W, 3] float32, caption). `paint_sky` is what the other outdoor
scenes begin with. Heights are in the units of the canvas: `horizon` is the y of the horizon, -1 at the top, 1
at the bottom.
"""

from dataclasses import dataclass

import numpy as np

from fastload.prepare.scenes.canvas import Canvas, bloom, develop, lighten, mix, noise_tile, sample, soft


@dataclass(frozen=True)
class Hour:
    """The light of one hour: colours of sky, sun and shade; `low_sun` says that the sun is in view."""

    name: str
    zenith: tuple
    middle: tuple
    horizon: tuple
    sun: tuple
    shade: tuple
    low_sun: bool


HOURS = (
    Hour(
        "at noon",
        (0.16, 0.36, 0.68),
        (0.38, 0.60, 0.85),
        (0.76, 0.86, 0.93),
        (1.0, 0.97, 0.9),
        (0.32, 0.4, 0.52),
        False,
    ),
    Hour(
        "on a bright morning",
        (0.25, 0.47, 0.74),
        (0.5, 0.7, 0.88),
        (0.9, 0.9, 0.87),
        (1.0, 0.92, 0.78),
        (0.34, 0.4, 0.5),
        False,
    ),
    Hour(
        "at sunrise",
        (0.32, 0.43, 0.66),
        (0.72, 0.66, 0.72),
        (1.0, 0.78, 0.58),
        (1.0, 0.8, 0.52),
        (0.34, 0.32, 0.44),
        True,
    ),
    Hour(
        "at sunset",
        (0.2, 0.22, 0.45),
        (0.72, 0.42, 0.45),
        (1.0, 0.6, 0.28),
        (1.0, 0.62, 0.26),
        (0.26, 0.2, 0.32),
        True,
    ),
    Hour(
        "in golden light",
        (0.3, 0.45, 0.66),
        (0.66, 0.68, 0.7),
        (1.0, 0.84, 0.56),
        (1.0, 0.78, 0.42),
        (0.3, 0.3, 0.4),
        True,
    ),
    Hour(
        "under an overcast sky",
        (0.52, 0.57, 0.63),
        (0.66, 0.7, 0.74),
        (0.82, 0.84, 0.85),
        (0.8, 0.81, 0.82),
        (0.4, 0.43, 0.47),
        False,
    ),
    Hour(
        "at dusk",
        (0.08, 0.11, 0.28),
        (0.28, 0.26, 0.46),
        (0.78, 0.45, 0.45),
        (0.8, 0.5, 0.5),
        (0.13, 0.14, 0.26),
        True,
    ),
)


def paint_sky(canvas: Canvas, hour: Hour, horizon: float, sun_x: float, sun_y: float) -> np.ndarray:
    """The sky down to the bottom of the picture: a gradient, the sun with its glow, [H, W, 3]."""
    height = np.clip((horizon - canvas.y) / np.float32(max(horizon + 1.0, 0.4)), 0, 1)
    low = mix(np.float32(hour.horizon), np.float32(hour.middle), soft(height, 0.0, 0.5)[..., None])
    sky = mix(low, np.float32(hour.zenith), soft(height, 0.25, 1.15)[..., None])
    sky = np.broadcast_to(sky, (canvas.height, canvas.width, 3)).copy()
    distance = np.hypot(canvas.x - np.float32(sun_x), canvas.y - np.float32(sun_y))
    glow = 0.5 * np.exp(-distance * 1.8) + 0.35 * np.exp(-distance * 7)
    sky = lighten(sky, (glow * (1.0 if hour.low_sun else 0.5))[..., None] * np.float32(hour.sun))
    return sky


def add_clouds(canvas: Canvas, sky, hour: Hour, horizon: float, sun_x: float, sun_y: float, cover: float):
    """Clouds on a plane high above, bright-edged towards the sun; cover 0 is none, 1 is overcast."""
    above = np.maximum(horizon - canvas.y, 0.02) + 0.10
    scale = np.float32(canvas.between(1.0, 2.4))
    u = (canvas.x / above) * 36 * scale + np.zeros_like(above)
    v = np.broadcast_to(40 * scale / above, u.shape)
    tile, shift = (
        noise_tile(canvas.pick(1.55, 1.8), int(canvas.rng.integers(3))),
        canvas.rng.uniform(0, 512, 2).astype(np.float32),
    )
    thickness = sample(tile, u + shift[0], v + shift[1])
    toward_x, toward_y = (sun_x - canvas.x) * 5, (sun_y - canvas.y) * 5
    behind = sample(tile, u + shift[0] + toward_x, v + shift[1] - toward_y)
    edge = 1.1 - 2.2 * cover
    alpha = soft(thickness, edge - 0.15, edge + 0.9)
    lit = np.clip(0.62 + (thickness * 0.4 - behind) * 0.22, 0.0, 1.0) - 0.3 * soft(
        thickness, edge + 0.7, edge + 2.6
    )
    light = mix(np.float32(hour.sun), np.float32((1, 1, 1)), 0.25 if hour.low_sun else 0.8)
    dark = mix(np.float32(hour.shade), np.float32(hour.horizon), 0.35)
    color = mix(dark, light, np.clip(lit, 0, 1)[..., None])
    alpha = alpha * soft(canvas.y, horizon, horizon - 0.35) * 0.94
    sky = mix(sky, color, alpha)
    if hour.low_sun:
        distance = np.hypot(canvas.x - np.float32(sun_x), canvas.y - np.float32(sun_y))
        disc = soft(distance, 0.062, 0.05) + 0.35 * np.exp(-distance * 9)
        sky = lighten(sky, (disc * (1 - 0.75 * alpha))[..., None] * mix(hour.sun, (1.0, 1.0, 0.95), 0.75))
    return sky


def add_stars(canvas: Canvas, sky, horizon: float, count: int):
    """Stars above the horizon, few bright and many faint, in place."""
    rng = canvas.rng
    columns = rng.integers(1, canvas.width - 1, count)
    rows = (
        (rng.uniform(0, 1, count) * (horizon + 1) / 2 * canvas.height).astype(int).clip(1, canvas.height - 2)
    )
    power = np.minimum(rng.pareto(1.5, count) * 0.14 + 0.05, 1.6).astype(np.float32)
    tint = np.float32((0.75, 0.85, 1.0)) + np.float32((0.25, 0.05, -0.25)) * rng.random(
        (count, 1), np.float32
    )
    light = np.zeros_like(sky)
    np.add.at(light, (rows, columns), tint * power[:, None])
    for row, column, share in ((0, 1, 0.35), (0, -1, 0.35), (1, 0, 0.35), (-1, 0, 0.35)):
        np.add.at(light, (rows + row, columns + column), tint * (power[:, None] * share))
    return lighten(sky, light)


def clouds(canvas: Canvas):
    """A wide sky over low land or fields."""
    hour = canvas.pick(*HOURS[:5], HOURS[6])
    horizon = canvas.between(0.55, 0.9)
    sun_x, sun_y = canvas.between(-0.8, 0.8), canvas.between(horizon - 0.5, horizon - 0.05)
    if not hour.low_sun:
        sun_y = -1.3
    cover = canvas.between(0.38, 0.68)
    picture = add_clouds(
        canvas, paint_sky(canvas, hour, horizon, sun_x, sun_y), hour, horizon, sun_x, sun_y, cover
    )
    for layer in range(3):
        share = (layer + 1) / 3
        line = horizon + 0.03 + 0.10 * share**2 + canvas.profile(1.4, 2 + layer) * 0.016 * (1 + layer)
        line = line + canvas.profile(0.6, 14) * 0.004 * (1 + layer)
        ground = mix(np.float32(hour.horizon), np.float32(hour.shade) * (0.5, 0.62, 0.36), 0.3 + 0.7 * share)
        rough = canvas.noise(1.0, 6, 30)[..., None] * 0.03 * share
        picture = mix(picture, ground + rough, soft(canvas.y - line, -canvas.pixel, canvas.pixel))
    amount = "scattered clouds" if cover < 0.5 else "heavy clouds"
    return develop(bloom(picture, 0.86, 0.35), canvas, 0.3, 0.35), f"{amount} over open country {hour.name}"


def sea(canvas: Canvas):
    """Open water that mirrors the sky, and the path of light below the sun."""
    hour = canvas.pick(*HOURS[1:5], *HOURS[2:4], HOURS[5], HOURS[6])
    horizon = canvas.between(-0.25, 0.25)
    sun_x, sun_y = canvas.between(-0.7, 0.7) * canvas.aspect, horizon - canvas.between(0.08, 0.4)
    sky = paint_sky(canvas, hour, horizon, sun_x, sun_y)
    sky = add_clouds(canvas, sky, hour, horizon, sun_x, sun_y, canvas.between(0.15, 0.5))
    far_coast(canvas, sky, hour, horizon)
    picture = add_water(canvas, sky, hour, horizon, sun_x, canvas.between(0.5, 1.1))
    what = canvas.pick("the sea", "a calm bay", "the open ocean", "a wide lake")
    return develop(bloom(picture, 0.82, 0.4), canvas, 0.35, 0.4), f"{what} {hour.name}"


def far_coast(canvas: Canvas, sky, hour: Hour, horizon: float):
    """Two thin, hazy lines of land on the horizon, in place."""
    for layer in range(2):
        line = (
            horizon
            - 0.02
            - np.clip(canvas.profile(1.6, 1.5) * 0.05 + canvas.profile(1.0, 6) * 0.008, -0.02, 1)
            / (1 + layer)
        )
        color = mix(np.float32(hour.horizon), np.float32(hour.shade), 0.45 + 0.3 * layer)
        sky[:] = mix(sky, color, soft(canvas.y - line, -canvas.pixel, canvas.pixel))


def add_water(canvas: Canvas, sky, hour: Hour, horizon: float, sun_x: float, rough: float) -> np.ndarray:
    """The picture with water below the horizon: mirrored sky, broken by waves, and the glitter of the sun."""
    below = np.maximum(canvas.y - horizon, canvas.pixel)
    u = (canvas.x / (below + 0.04)) * 22 + np.zeros_like(below)
    v = np.broadcast_to(70 / (below + 0.04), u.shape)
    shift = canvas.rng.uniform(0, 512, 4).astype(np.float32)
    wave = sample(noise_tile(1.2, 0), u + shift[0], v + shift[1])
    ripple = sample(noise_tile(0.8, 1), u * 2.3 + shift[2], v * 2.1 + shift[3])
    slope = (wave * 0.6 + ripple * 0.4) * np.float32(rough)
    calm = soft(below, 0.0, 0.5) * 0.16 + 0.02
    rows = ((2 * horizon - canvas.y + slope * calm + 1.0) / 2 * canvas.height).astype(np.int32)
    rows = np.clip(rows, 0, max(int((horizon + 1) / 2 * canvas.height) - 1, 0))
    mirrored = sky[rows, np.arange(canvas.width)[None, :]]
    deep = mix(np.float32(hour.shade) * (0.45, 0.62, 0.7), np.float32(hour.zenith) * 0.5, 0.4)
    water = mix(mirrored * 0.93, deep, np.clip(0.16 + 0.34 * soft(below, 0, 1.1) - slope * 0.16, 0.05, 0.8))
    if hour.low_sun:
        path = np.exp(-(((canvas.x - sun_x) / (0.07 + below * 0.38)) ** 2))
        glitter = soft(slope / np.float32(rough), 0.35, 1.1) * path * (0.95 - 0.35 * soft(below, 0, 1.2))
        water = lighten(water, glitter[..., None] * np.float32(hour.sun) * 1.1)
    return mix(sky, water, np.broadcast_to(soft(canvas.y - horizon, -canvas.pixel, canvas.pixel), wave.shape))


def night(canvas: Canvas):
    """Stars and the Milky Way or an aurora over dark hills."""
    horizon = canvas.between(0.55, 0.8)
    tint = canvas.pick((0.06, 0.13, 0.26), (0.10, 0.10, 0.22), (0.04, 0.16, 0.22))
    rise = soft(canvas.y, -1.0, horizon + 0.15)
    sky = np.broadcast_to(
        mix((0.012, 0.02, 0.06), tint, rise[..., None]), (canvas.height, canvas.width, 3)
    ).copy()
    aurora = canvas.rng.uniform() < 0.5
    sky = (_aurora if aurora else _milky_way)(canvas, sky, horizon)
    sky = add_stars(canvas, sky, horizon, int(1500 * canvas.aspect))
    sky = lighten(
        sky,
        (np.exp(-np.abs(canvas.y - horizon) * 5) * 0.35)[..., None]
        * np.float32(canvas.pick((0.5, 0.35, 0.2), tint)),
    )
    lake = canvas.rng.uniform() < 0.45
    ridge = horizon - 0.08 - canvas.profile(1.5, 1.6) * 0.1
    picture = mix(sky, np.float32(tint) * 0.22, soft(canvas.y - ridge, -canvas.pixel, canvas.pixel))
    if lake:
        still = Hour("", tint, tint, tint, tint, (0.02, 0.03, 0.05), False)
        picture = add_water(canvas, picture, still, horizon + 0.02, 0.0, 0.25)
    else:
        front = horizon + 0.12 - canvas.profile(1.4, 1.2) * 0.05 - conifers(canvas, 90) * 0.16
        picture = mix(picture, (0.006, 0.008, 0.012), soft(canvas.y - front, -canvas.pixel, canvas.pixel))
    what = "an aurora" if aurora else "the Milky Way"
    return develop(
        bloom(picture * 1.35, 0.5, 0.35), canvas, 0.35, 0.15
    ), f"{what} {'over a still lake' if lake else 'over dark hills'} at night"


def _aurora(canvas: Canvas, sky, horizon: float):
    """Curtains of green and violet light: bright at the lower hem, streaked upwards, in place."""
    for _ in range(int(canvas.rng.integers(2, 4))):
        hem = canvas.between(-0.5, horizon - 0.35) + canvas.profile(2.0, 1.3) * 0.16
        up = (hem - canvas.y) / canvas.between(0.5, 0.9)
        streaks = np.clip(0.65 + canvas.profile(0.9, 16) * 0.3 + canvas.profile(1.4, 2) * 0.3, 0, 2)
        body = np.exp(-np.clip(up, 0, None) * 2.6) * soft(up, -0.07, 0.03) * streaks
        color = mix((0.15, 0.95, 0.5), (0.55, 0.2, 0.85), soft(up, 0.15, 1.1)[..., None])
        sky = lighten(sky, body[..., None] * color * 0.62)
    return sky


def _milky_way(canvas: Canvas, sky, horizon: float):
    """A slanted band of star clouds with dark lanes, in place."""
    angle = canvas.between(0.5, 2.6)
    across = (canvas.x - canvas.between(-0.4, 0.4)) * np.float32(np.sin(angle)) + canvas.y * np.float32(
        np.cos(angle)
    )
    across = across + canvas.noise(1.8, 2) * 0.06
    cloudy = np.clip(0.7 + canvas.noise(1.5, 4) * 0.4, 0, 2)
    lanes = 1 - 0.75 * np.exp(-((across / 0.07) ** 2)) * soft(canvas.noise(1.6, 4), -0.5, 0.7)
    band = np.exp(-((across / 0.3) ** 2)) * cloudy * lanes
    color = mix((0.4, 0.42, 0.62), (0.85, 0.68, 0.6), soft(band, 0.3, 1.2)[..., None])
    sky = lighten(sky, band[..., None] * color * 0.5)
    grains = (canvas.rng.random(band.shape, dtype=np.float32) < band * 0.035) * canvas.rng.random(
        band.shape, dtype=np.float32
    )
    return lighten(sky, grains[..., None] * np.float32((0.7, 0.72, 0.8)))


def conifers(canvas: Canvas, count: float) -> np.ndarray:
    """The tops of a row of conifers, [width], 0 at the ground, about 1 at the highest tip."""
    tops = np.zeros(canvas.width, np.float32)
    for place in canvas.rng.uniform(-canvas.aspect, canvas.aspect, int(count * canvas.aspect)):
        height, half = canvas.between(0.35, 1.0), canvas.between(0.018, 0.035)
        share = 1 - np.abs(canvas.x[0] - place) / (half * height * 2)
        steps = share + 0.10 * np.abs(np.sin(share * 30)) * (share > 0)
        tops = np.maximum(tops, np.clip(steps, 0, 1.1) * height)
    return tops
