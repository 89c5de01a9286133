"""A still life: balls of several materials on a table, traced as rays.

In: a Canvas. Out: (picture [H, W, 3] float32, caption). Rays: the eye looks along +z, x to the right, y up;
the table is the plane y = 0.
"""

from dataclasses import dataclass

import numpy as np

from fastload.prepare.scenes.canvas import Canvas, bloom, develop, mix, noise_tile, sample, soft

SURFACES = (
    ("porcelain", 0.10, 0.9, 0.0),
    ("polished steel", 0.80, 1.0, 0.0),
    ("rubber", 0.02, 0.15, 0.0),
    ("orange peel", 0.04, 0.35, 1.0),
    ("clay", 0.0, 0.05, 0.5),
    ("lacquer", 0.16, 1.0, 0.0),
)
COLORS = (
    (0.86, 0.20, 0.14), (0.95, 0.56, 0.12), (0.96, 0.84, 0.30), (0.26, 0.55, 0.28), (0.16, 0.38, 0.66),
    (0.48, 0.24, 0.55), (0.93, 0.92, 0.88), (0.14, 0.14, 0.16), (0.90, 0.52, 0.58), (0.40, 0.70, 0.72),
)  # fmt: skip


@dataclass(frozen=True)
class Ball:
    """A sphere on the table: its middle, radius, colour, and how mirror-like, glossy and rough it is."""

    middle: np.ndarray
    radius: float
    color: np.ndarray
    mirror: float
    gloss: float
    rough: float


def still_life(canvas: Canvas):
    """Balls of several materials on a table, lit by one large window."""
    balls, names = _arrange(canvas)
    light = np.float32((canvas.between(0.5, 0.9) * canvas.pick(-1, 1), canvas.between(0.7, 1.0), -0.55))
    light /= np.linalg.norm(light)
    table = _table(canvas)
    backdrop = np.float32(canvas.pick(*COLORS)) * 0.35 + canvas.between(0.05, 0.35)
    eye = np.float32((0, 1.5, -5.4))
    ray = np.stack(np.broadcast_arrays(canvas.x * 0.42, -canvas.y * 0.42 - 0.14, np.float32(1.0)), -1)
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    picture = _shade_room(canvas, eye, ray, balls, light, table, backdrop)
    for ball in sorted(balls, key=lambda one: -one.middle[2]):
        _paint_ball(canvas, picture, ball, balls, (eye, ray, light, table, backdrop))
    several = ", ".join(sorted(set(names))[:2])
    return develop(
        bloom(picture, 0.9, 0.3), canvas, 0.4, 0.35
    ), f"a still life of {len(balls)} balls of {several}"


def _arrange(canvas: Canvas):
    """Up to seven balls that do not overlap, and the names of their materials."""
    balls, names = [], []
    for _ in range(60):
        radius = canvas.between(0.25, 0.72)
        middle = np.float32(
            (canvas.between(-1.5, 1.5) * min(canvas.aspect, 1.3), radius, canvas.between(-1.3, 1.8))
        )
        if all(np.linalg.norm(middle - one.middle) > radius + one.radius for one in balls):
            name, mirror, gloss, rough = canvas.pick(*SURFACES)
            color = (
                np.float32((0.8, 0.8, 0.82)) if name == "polished steel" else np.float32(canvas.pick(*COLORS))
            )
            balls.append(Ball(middle, radius, color, mirror, gloss, rough))
            names.append(name)
        if len(balls) == 7:
            break
    return balls, names


def _table(canvas: Canvas):
    """The table's two colours and its pattern: planks, checks, or a plain cloth."""
    return canvas.pick(
        ((0.46, 0.29, 0.16), (0.62, 0.42, 0.24), "wood"),
        ((0.24, 0.15, 0.10), (0.36, 0.23, 0.15), "wood"),
        ((0.86, 0.85, 0.82), (0.93, 0.92, 0.90), "cloth"),
        ((0.30, 0.36, 0.40), (0.38, 0.44, 0.48), "cloth"),
        ((0.88, 0.86, 0.82), (0.24, 0.24, 0.26), "checks"),
    )


def _table_color(table, x, z):
    dark, bright, pattern = table
    if pattern == "checks":
        share = soft(np.sin(x * 3.5) * np.sin(z * 3.5), -0.03, 0.03)
    elif pattern == "wood":
        grain = sample(noise_tile(1.2, 0), x * 6 + np.floor(z * 1.4) * 97, z * 90)
        share = soft(grain, -1.6, 1.6) * soft(np.abs(z * 1.4 % 1.0 - 0.5), 0.5, 0.485)
    else:
        share = soft(sample(noise_tile(0.5, 1), x * 60, z * 60), -2, 2)
    return mix(dark, bright, share)


def _room_light(backdrop, light, way):
    """What a ray that leaves the scene sees: a wall that brightens upwards, and the window."""
    up = way[..., 1]
    wall = np.float32(backdrop) * (0.55 + 0.6 * soft(up, -0.1, 0.9))[..., None]
    window = soft(way @ light, 0.80, 0.86)
    cross = np.minimum(np.abs(way[..., 0] - light[0]), np.abs(up - light[1]))
    return wall + (window * soft(cross, 0.02, 0.035) * 2.4)[..., None]


def _shadows(balls, x, z, light, skip=None):
    """Light that reaches the table at (x, z): soft shadows of the balls, and the dark where they touch it."""
    sun = np.ones_like(x)
    open_sky = np.ones_like(x)
    for ball in balls:
        dx, dz = ball.middle[0] - x, ball.middle[2] - z
        along = dx * light[0] + ball.radius * light[1] + dz * light[2]
        square = dx**2 + ball.radius**2 + dz**2
        off = np.sqrt(np.maximum(square - along**2, 0)) / np.float32(ball.radius)
        width = 0.12 + 0.10 * np.clip(along, 0, None) / np.float32(ball.radius)
        sun *= soft(off, 1 - width, 1 + width)
        open_sky *= 1 - np.clip(np.float32(ball.radius**3) / np.maximum(square, 1e-3) ** 1.5, 0, 0.95)
    return sun, open_sky


def _table_light(balls, table, light, x, z):
    sun, open_sky = _shadows(balls, x, z, light)
    return _table_color(table, x, z) * (0.85 * sun * light[1] + 0.42 * open_sky)[..., None]


def _shade_room(canvas: Canvas, eye, ray, balls, light, table, backdrop):
    """The picture without the balls, but with their shadows on the table."""
    distance = -eye[1] / np.minimum(ray[..., 1], -0.02)
    x, z = eye[0] + ray[..., 0] * distance, eye[2] + ray[..., 2] * distance
    color = _table_light(balls, table, light, x, z)
    wall = (
        np.float32(backdrop)
        * (0.8 + 0.35 * soft(canvas.y, 0.3, -1.0) - 0.25 * np.abs(canvas.x / canvas.aspect - light[0]))[
            ..., None
        ]
    )
    return mix(color, wall, soft(z, 2.4, 4.4))


def _paint_ball(canvas: Canvas, picture, ball: Ball, balls, room):
    """One ball over the picture, in place: diffuse light, reflections, highlight, contact shadow."""
    eye, ray = room[:2]
    depth = ball.middle[2] - eye[2]
    at_x, at_y = ball.middle[0] / depth / 0.42, ((eye[1] - ball.middle[1]) / depth - 0.14) / 0.42
    rows, columns = canvas.window(at_x, at_y, ball.radius / (depth - ball.radius) / 0.42 * 1.25)
    if rows.start == rows.stop or columns.start == columns.stop:
        return
    way = ray[rows, columns]
    to_middle = ball.middle - eye
    along = way @ to_middle
    off = np.sqrt(np.maximum(to_middle @ to_middle - along**2, 0))
    back = np.sqrt(np.maximum(ball.radius**2 - off**2, 0))
    point = eye + way * (along - back)[..., None]
    normal = (point - ball.middle) / np.float32(ball.radius)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-4)
    if ball.rough:
        bumps = [
            sample(noise_tile(0.7, n), normal[..., 0] * 130 + 50 * n, normal[..., 1] * 130) for n in range(2)
        ]
        normal = normal + np.stack([bumps[0], bumps[1], np.zeros_like(bumps[0])], -1) * np.float32(
            0.035 * ball.rough
        )
    color = _ball_color(ball, balls, room, point, normal, way)
    alpha = soft(off, ball.radius + 0.004, ball.radius - 0.008)
    picture[rows, columns] = mix(picture[rows, columns], color, alpha)


def _ball_color(ball: Ball, balls, room, point, normal, way):
    _, _, light, table, backdrop = room
    others = [one for one in balls if one is not ball]
    facing = np.clip(normal @ light, 0, 1)
    for one in others:
        to_other = one.middle - point
        along = to_other @ light
        off = np.sqrt(np.maximum((to_other**2).sum(-1) - along**2, 0)) / np.float32(one.radius)
        facing = facing * np.where(along > 0, soft(off, 0.8, 1.2), 1)
    up = normal[..., 1]
    contact = soft(point[..., 1], -0.05, 0.45 * ball.radius)
    ambient = mix(np.float32(table[1]) * 0.5, np.float32(backdrop) + 0.2, soft(up, -1, 1)) * (
        0.35 + 0.65 * contact[..., None]
    )
    color = ball.color * (facing[..., None] * 0.95 + ambient * 0.75) * (1 - ball.mirror)
    bounce = way - 2 * (way * normal).sum(-1)[..., None] * normal
    reflected = _reflection(ball, others, room, point, bounce)
    fresnel = (
        ball.mirror + (1 - ball.mirror) * 0.5 * ball.gloss * np.clip(1 + (way * normal).sum(-1), 0, 1) ** 4
    )
    color = color + reflected * fresnel[..., None] * (ball.color if ball.mirror > 0.5 else 1)
    shine = np.clip(bounce @ light, 0, 1) ** (12 + 260 * ball.gloss) * ball.gloss * 0.8
    return color + shine[..., None]


def _reflection(ball: Ball, others, room, point, bounce):
    """What the mirrored rays see: the table with its shadows, the other balls, else the room."""
    _, _, light, table, backdrop = room
    seen = _room_light(backdrop, light, bounce)
    down = np.minimum(bounce[..., 1], -0.02)
    far = np.minimum(-point[..., 1] / down, 12)
    x, z = point[..., 0] + bounce[..., 0] * far, point[..., 2] + bounce[..., 2] * far
    seen = mix(seen, _table_light([ball, *others], table, light, x, z), soft(bounce[..., 1], 0.0, -0.06))
    for one in others:
        to_other = one.middle - point
        along = (to_other * bounce).sum(-1)
        off = np.sqrt(np.maximum((to_other**2).sum(-1) - along**2, 0)) / np.float32(one.radius)
        round_light = 0.35 + 0.6 * np.sqrt(np.clip(1 - off**2, 0, 1))
        seen = mix(seen, one.color * round_light[..., None], soft(off, 1.02, 0.97) * (along > 0))
    return seen
