"""Pictures that are made of lights: a city at night and the discs of lights out of focus.

In: a Canvas. Out of a scene: (picture [H, W, 3] float32, caption).
"""

import numpy as np

from fastload.prepare.scenes.canvas import Canvas, bloom, blur, develop, lighten, mix, soft
from fastload.prepare.scenes.sky import Hour, add_water

WINDOW_COLORS = np.float32([(1.0, 0.80, 0.45), (1.0, 0.90, 0.68), (0.80, 0.90, 1.0), (1.0, 0.66, 0.30)])


def city(canvas: Canvas):
    """A skyline with lit windows at dusk or at night, often over a river."""
    top, low, when = canvas.pick(
        ((0.03, 0.04, 0.12), (0.30, 0.22, 0.32), "at night"),
        ((0.06, 0.08, 0.24), (0.75, 0.42, 0.36), "at dusk"),
        ((0.03, 0.06, 0.14), (0.30, 0.30, 0.40), "in a hazy night"),
        ((0.10, 0.16, 0.36), (0.88, 0.62, 0.42), "at the blue hour"),
    )
    river = canvas.rng.uniform() < 0.65
    shore = canvas.between(0.25, 0.5) if river else 1.1
    rise = soft(canvas.y, -1.0, shore + 0.1)[..., None]
    picture = np.broadcast_to(mix(top, low, rise), (canvas.height, canvas.width, 3)).copy()
    clouds = canvas.noise(1.8, 1.5, 2.5)
    picture *= (1 + 0.14 * clouds * soft(canvas.y, shore, -0.9))[..., None]
    for layer in range(4):
        depth = layer / 3
        body = mix(np.float32(low) * 0.8, (0.025, 0.03, 0.05), 0.3 + 0.65 * depth)
        _row_of_buildings(canvas, picture, shore, depth, body)
        glow = np.exp(-np.clip(shore - canvas.y, 0, 9) * 3.2) * (0.17 * (1 - depth))
        picture = mix(picture, np.float32(low) * 1.1, np.broadcast_to(glow, picture.shape[:2]))
    if river:
        _promenade(canvas, picture, shore)
        still = Hour("", top, low, low, low, (0.02, 0.03, 0.05), False)
        picture = add_water(canvas, picture, still, shore, 0.0, canvas.between(0.5, 1.0))
    where = "across the river" if river else "from above"
    return develop(bloom(picture, 0.45, 1.2, 0.015), canvas, 0.35, 0.3), f"a city skyline {where} {when}"


def _row_of_buildings(canvas: Canvas, picture, shore: float, depth: float, body):
    """One row of buildings from left to right, in place."""
    left = -canvas.aspect - canvas.between(0, 0.1)
    while left < canvas.aspect:
        wide = canvas.between(0.09, 0.24) * (0.6 + 0.7 * depth)
        hill = 0.75 + 0.5 * np.cos(left * 1.3 / canvas.aspect)
        tall = canvas.between(0.25, 1.0) ** 1.5 * (1.35 - 0.85 * depth) * hill + 0.08
        if canvas.rng.uniform() < 0.9:
            _building(canvas, picture, (left, wide, shore - tall, shore), depth, body)
        left += wide * canvas.between(0.85, 1.15)


def _building(canvas: Canvas, picture, box, depth: float, body):
    left, wide, top, bottom = box
    columns = slice(
        *(int(np.clip((v + canvas.aspect) / canvas.pixel, 0, canvas.width)) for v in (left, left + wide))
    )
    rows = slice(*(int(np.clip((v + 1) / canvas.pixel, 0, canvas.height)) for v in (top, bottom)))
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if height < 3 or width < 3:
        return
    tone = canvas.between(0.75, 1.3)
    side = np.linspace(1.12, 0.88, width, dtype=np.float32)[None, :, None]
    wall = np.float32(body) * tone * side * np.ones((height, 1, 1), np.float32)
    floor = max(round((0.016 + 0.022 * depth) * canvas.between(0.8, 1.3) / canvas.pixel), 3)
    bay = max(round(floor * canvas.between(0.6, 1.4)), 3)
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    lit = canvas.rng.random((height // floor + 1, width // bay + 1)) < canvas.between(0.15, 0.6)
    lit = lit | (canvas.rng.random((height // floor + 1, 1)) < 0.05)
    power = canvas.rng.uniform(0.35, 1.0, lit.shape) * lit
    color = WINDOW_COLORS[canvas.rng.choice(4, lit.shape, p=(0.45, 0.25, 0.15, 0.15))] * power[..., None]
    pane = (y % floor >= max(floor // 3, 1)) & (x % bay >= max(bay // 4, 1)) & (y > floor // 2)
    light = color.astype(np.float32)[y // floor, x // bay] * pane[..., None] * np.float32(0.5 + 0.5 * depth)
    picture[rows, columns] = lighten(wall, light)
    if canvas.rng.uniform() < 0.25:
        mast = min(columns.start + width // 2, canvas.width - 1)
        picture[max(rows.start - height // 5, 0) : rows.start, mast] = np.float32(body) * tone
        picture[max(rows.start - height // 5, 0), mast] = (1.0, 0.15, 0.1)


def _promenade(canvas: Canvas, picture, shore: float):
    """A line of street lamps along the water, in place."""
    row = min(int((shore - 0.012 + 1) / canvas.pixel), canvas.height - 3)
    step = max(int(canvas.between(0.05, 0.1) / canvas.pixel), 6)
    for column in range(int(canvas.rng.integers(step)), canvas.width - 2, step):
        picture[row : row + 2, column : column + 2] = canvas.pick(
            (1.0, 0.85, 0.55), (1.0, 0.95, 0.85), (1.0, 0.75, 0.4)
        )


def bokeh(canvas: Canvas):
    """Lights far out of focus: bright-rimmed discs or hexagons of a few colours over a dark ground."""
    colors, what = canvas.pick(
        (((1.0, 0.72, 0.30), (1.0, 0.50, 0.16), (1.0, 0.88, 0.62), (0.95, 0.25, 0.12)), "warm street lights"),
        (((0.25, 0.55, 1.0), (0.35, 0.95, 1.0), (0.70, 0.40, 1.0), (1.0, 0.45, 0.80)), "neon lights"),
        (((1.0, 0.84, 0.45), (0.90, 0.20, 0.15), (0.25, 0.80, 0.35), (0.35, 0.55, 1.0)), "fairy lights"),
        (((1.0, 0.92, 0.72), (0.98, 0.78, 0.80), (0.72, 0.86, 0.78), (0.95, 0.95, 1.0)), "morning dew"),
        (
            ((1.0, 0.30, 0.18), (1.0, 0.75, 0.35), (0.95, 0.95, 0.9), (0.3, 0.6, 0.9)),
            "car lights in the rain",
        ),
    )
    base = np.float32(canvas.pick(*colors)) * 0.12
    picture = mix(base * 0.25, base * 1.5 + 0.02, soft(canvas.noise(2.2, 0.8) - canvas.y * 0.5, -1.8, 1.8))
    blades = canvas.pick(0, 0, 6)
    largest = canvas.between(0.07, 0.20)
    crowd = canvas.between(-0.3, 0.5)
    for sharpness in (0.05, 0.35):
        for _ in range(int(canvas.between(26, 60) * canvas.aspect)):
            y = np.clip(crowd + canvas.rng.normal() * 0.45, -1.1, 1.1)
            place = canvas.between(-canvas.aspect, canvas.aspect), y, largest * canvas.between(0.45, 1.15)
            _disc(
                canvas, picture, place, np.float32(canvas.pick(*colors)) * canvas.between(0.1, 0.75), blades
            )
        if sharpness == 0.05:
            picture = blur(picture, canvas.height * 0.022)
    return develop(picture, canvas, 0.35, 0.3), f"{what}, out of focus"


def _disc(canvas: Canvas, picture, place, color, blades: int):
    x, y, reach = place
    rows, columns = canvas.window(x, y, reach)
    if rows.start == rows.stop or columns.start == columns.stop:
        return
    dx, dy = canvas.x[:, columns] - np.float32(x), canvas.y[rows] - np.float32(y)
    distance = np.hypot(dx, dy) / np.float32(reach)
    if blades:
        angle = (np.arctan2(dy, dx) + 0.3) % (2 * np.pi / blades) - np.pi / blades
        straight = distance * np.cos(angle) / np.cos(np.pi / blades)
        distance = distance * 0.45 + straight * 0.55
    rim = soft(distance, 1.0, 0.94) * (0.55 + 0.45 * soft(distance, 0.55, 0.96))
    picture[rows, columns] = lighten(picture[rows, columns], rim[..., None] * color)
