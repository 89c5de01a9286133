"""Plants close by: a flower before a blurred garden, autumn leaves on the ground.

In: a Canvas. Out of a scene: (picture [H, W, 3] float32, caption). Flowers and leaves are made of small
patches, so that their cost follows the area that they cover.
"""

import numpy as np
from PIL import Image, ImageFilter

from fastload.prepare.scenes.canvas import (
    Canvas,
    bloom,
    blur,
    develop,
    from_pillow,
    lighten,
    mix,
    noise_tile,
    sample_grid,
    soft,
    to_pillow,
)

FLOWERS = (
    ("daisy", (0.97, 0.97, 0.95), (0.93, 0.93, 0.88), (0.95, 0.72, 0.10), 21, 1),
    ("sunflower", (0.98, 0.78, 0.10), (0.92, 0.52, 0.04), (0.24, 0.13, 0.05), 24, 2),
    ("dahlia", (0.86, 0.16, 0.34), (0.55, 0.04, 0.18), (0.70, 0.10, 0.22), 15, 5),
    ("cosmos", (0.93, 0.55, 0.78), (0.78, 0.26, 0.56), (0.93, 0.74, 0.18), 8, 1),
    ("gerbera", (0.96, 0.42, 0.20), (0.85, 0.22, 0.10), (0.30, 0.22, 0.10), 26, 3),
    ("aster", (0.58, 0.46, 0.90), (0.40, 0.26, 0.75), (0.95, 0.78, 0.22), 30, 2),
    ("water lily", (0.98, 0.86, 0.92), (0.92, 0.60, 0.76), (0.98, 0.80, 0.25), 12, 4),
)


def flower(canvas: Canvas):
    """Flowers of one kind, one of them sharp, before a blurred garden."""
    name, tip, root, heart, petals, rings = canvas.pick(*FLOWERS)
    dark, light = canvas.pick(
        ((0.05, 0.12, 0.05), (0.45, 0.58, 0.22)),
        ((0.04, 0.09, 0.09), (0.30, 0.48, 0.40)),
        ((0.14, 0.12, 0.06), (0.72, 0.66, 0.36)),
    )
    picture = mix(dark, light, soft(canvas.noise(1.9, 1.5) * 0.6 - canvas.y * 0.7, -1.8, 2.2))
    for _ in range(7):
        far = (
            canvas.between(-canvas.aspect, canvas.aspect),
            canvas.between(-0.9, 0.9),
            canvas.between(0.10, 0.22),
        )
        _stem(canvas, picture, far, dark, light)
        _blossom(canvas, picture, far, (tip, root, heart, petals, min(rings, 2)))
    picture = blur(picture, canvas.height * 0.028)
    for _ in range(int(canvas.rng.integers(6, 18))):
        spot = (
            canvas.between(-canvas.aspect, canvas.aspect),
            canvas.between(-1, 0.9),
            canvas.between(0.03, 0.10),
        )
        rows, columns = canvas.window(*spot)
        distance = np.hypot(canvas.x[:, columns] - spot[0], canvas.y[rows] - spot[1])
        disc = (
            soft(distance, spot[2], spot[2] * 0.86)[..., None] * np.float32(light) * canvas.between(0.08, 0.3)
        )
        picture[rows, columns] = lighten(picture[rows, columns], disc)
    near = (
        canvas.between(-0.25, 0.25) * canvas.aspect,
        canvas.between(-0.2, 0.15),
        canvas.between(0.5, 0.75) * min(1.0, canvas.aspect * 1.1),
    )
    _stem(canvas, picture, near, dark, light)
    _blossom(canvas, picture, near, (tip, root, heart, petals, rings))
    return develop(bloom(picture, 0.88, 0.2), canvas, 0.45, 0.4), f"a {name} in a garden"


def _stem(canvas: Canvas, picture, place, dark, light):
    """A green stem from a blossom to the bottom, in place."""
    x, y, reach = place
    bend = canvas.between(-0.15, 0.15)
    half = reach * 0.055
    columns = canvas.window(x + bend / 2, 0, abs(bend) + half * 2 + 0.1)[1]
    middle = x + bend * np.clip(canvas.y - y, 0, 2) ** 2
    across = (canvas.x[:, columns] - middle) / np.float32(half)
    body = mix(np.float32(dark) * 1.4, np.float32(light) * 0.9, soft(across, 1.2, -1.0)[..., None])
    alpha = soft(np.abs(across), 1.0, 0.75) * soft(canvas.y, y, y + 0.02)
    picture[:, columns] = mix(picture[:, columns], body, alpha)


def _blossom(canvas: Canvas, picture, place, kind):
    """Rings of petals from the outside in, then the heart, in place; a petal darkens what is under it."""
    x, y, reach = place
    tip, root, heart, count, rings = kind
    squeeze, tilt = canvas.between(0.72, 1.0), canvas.between(-0.4, 0.4)
    for ring in range(rings):
        length = reach * (1 - 0.62 * ring / max(rings, 2))
        turn = canvas.between(0, 6.28)
        for petal in range(count):
            angle = turn + petal * 2 * np.pi / count + canvas.between(-0.06, 0.06)
            shade = 0.86 + 0.1 * ring / rings + canvas.between(-0.05, 0.08)
            width = 3.4 / count * canvas.between(0.9, 1.15) * (1 + 0.1 * ring)
            _petal(
                canvas,
                picture,
                (x, y, length * canvas.between(0.92, 1.04)),
                (angle, width, squeeze, tilt),
                np.float32(tip) * 1.06 * shade,
                np.float32(root) * 1.06 * shade,
            )
    _heart(canvas, picture, (x, y, reach * (0.26 if rings < 4 else 0.12)), squeeze, tilt, np.float32(heart))


def _petal(canvas: Canvas, picture, place, pose, tip, root):
    x, y, length = place
    angle, width, squeeze, tilt = pose
    to_x, to_y = np.cos(angle), np.sin(angle) * squeeze
    to_x, to_y = to_x * np.cos(tilt) - to_y * np.sin(tilt), to_x * np.sin(tilt) + to_y * np.cos(tilt)
    rows, columns = canvas.window(
        x + to_x * length / 2, y + to_y * length / 2, length * (0.52 + 0.35 * width) + 0.01
    )
    if rows.start == rows.stop or columns.start == columns.stop:
        return
    size = float(np.hypot(to_x, to_y)) * length
    to_x, to_y = to_x * length / size, to_y * length / size
    dx, dy = canvas.x[:, columns] - np.float32(x), canvas.y[rows] - np.float32(y)
    along, across = (dx * to_x + dy * to_y) / size, (dy * to_x - dx * to_y) / size
    outline = (
        np.float32(width * 0.62) * np.sqrt(np.clip(along, 0, 1)) * (1 - np.clip(along, 0, 1) ** 3) ** 0.6
    )
    inside = outline - np.abs(across)
    share = across / np.maximum(outline, 1e-3)
    veins = 0.05 * np.sin(share * 9 + angle) + 0.03 * np.sin(share * 23)
    light = 0.93 + 0.16 * (across * np.cos(angle) - 0.4 * np.abs(share)) + veins * (along < 0.97)
    color = mix(root, tip, soft(along, 0.15, 0.95)[..., None]) * light[..., None]
    between_ends = (along > 0) & (along < 1)  # beyond them the outline is a line without width
    under = soft(inside, -0.05, 0.0) * 0.35 * between_ends
    edge = canvas.pixel / size
    patch = picture[rows, columns] * (1 - under[..., None])
    picture[rows, columns] = mix(patch, color, soft(inside, -edge, edge) * between_ends)


def _heart(canvas: Canvas, picture, place, squeeze: float, tilt: float, color):
    """The round middle, covered with florets in the spiral of a sunflower, in place."""
    x, y, reach = place
    rows, columns = canvas.window(x, y, reach * 1.15)
    dx, dy = canvas.x[:, columns] - np.float32(x), canvas.y[rows] - np.float32(y)
    along, across = dx * np.cos(tilt) + dy * np.sin(tilt), (dy * np.cos(tilt) - dx * np.sin(tilt)) / squeeze
    distance = np.hypot(along, across) / np.float32(reach)
    spiral = np.sin(np.arctan2(across, along) * 13 + np.sqrt(distance) * 40) * np.sin(
        np.arctan2(across, along) * -21 + np.sqrt(distance) * 40
    )
    light = (1.05 - 0.45 * distance**2 - 0.22 * across / reach) * (1 + 0.3 * spiral)
    patch = picture[rows, columns] * (1 - 0.4 * soft(distance, 1.14, 0.95)[..., None])
    picture[rows, columns] = mix(patch, color * light[..., None], soft(distance, 1.02, 0.96))


def leaves(canvas: Canvas):
    """Autumn leaves, many and of several kinds, on dark ground."""
    palette, when = canvas.pick(
        (((0.80, 0.20, 0.06), (0.93, 0.55, 0.08), (0.62, 0.10, 0.06), (0.85, 0.70, 0.16)), "autumn leaves"),
        (
            ((0.86, 0.66, 0.12), (0.95, 0.80, 0.25), (0.66, 0.50, 0.12), (0.50, 0.50, 0.14)),
            "yellow birch leaves",
        ),
        (((0.16, 0.36, 0.10), (0.30, 0.52, 0.14), (0.10, 0.26, 0.12), (0.44, 0.60, 0.22)), "green foliage"),
        (
            ((0.56, 0.36, 0.20), (0.70, 0.48, 0.27), (0.44, 0.28, 0.19), (0.82, 0.58, 0.30)),
            "brown oak leaves",
        ),
    )
    ground = mix((0.05, 0.04, 0.03), (0.16, 0.12, 0.08), soft(canvas.noise(1.0, 6), -2, 2))
    sheet = to_pillow(ground)
    sprites = [
        _leaf_sprite(canvas, np.float32(color), lobes)
        for color in palette
        for lobes in (1, canvas.pick(3, 5))
    ]
    for number in range(150):
        share = number / 150
        side = int(canvas.height * canvas.between(0.16, 0.30) * (0.8 + 0.5 * share))
        leaf = (
            canvas.pick(*sprites)
            .rotate(canvas.between(0, 360), Image.Resampling.BILINEAR)
            .resize((side, int(side * canvas.between(0.6, 1.0))), reducing_gap=2.0)
        )
        place = (
            int(canvas.rng.integers(-side // 2, canvas.width - side // 2)),
            int(canvas.rng.integers(-side // 2, canvas.height - side // 2)),
        )
        alpha = leaf.getchannel("A")
        shadow = alpha.filter(ImageFilter.BoxBlur(side * 0.03)).point(lambda value: value * 0.6)
        offset = max(side // 22, 1)
        sheet.paste((8, 6, 4), (place[0] + offset, place[1] + offset * 2), shadow)
        dim = int(255 * (0.62 + 0.38 * share) * canvas.between(0.85, 1.0))
        tinted = leaf.convert("RGB").point(lambda value, dim=dim: value * dim // 255)
        sheet.paste(tinted, place, alpha)
    picture = from_pillow(sheet)
    picture *= (0.92 + 0.22 * soft(canvas.noise(2.2, 1.0), -1.5, 1.5))[..., None]
    return develop(picture, canvas, 0.5, 0.35), f"{when} on the ground"


def _leaf_sprite(canvas: Canvas, color, lobes: int) -> Image.Image:
    """One leaf as an RGBA image of 144 pixels: an outline in polar coordinates, veins, blotches."""
    side = 144
    line = np.linspace(-1, 1, side, dtype=np.float32)
    x, y = line[None, :], line[:, None]
    angle = np.arctan2(x, -y)
    radius = np.hypot(x, y)
    if lobes == 1:
        outline = 0.92 * np.abs(np.cos(angle / 2)) ** 0.7 * (
            0.5 + 0.5 * np.abs(np.cos(angle)) ** 1.3
        ) + 0.015 * np.sin(angle * 40)
    else:
        wave = np.abs(np.cos(angle * lobes / 2 * (0.92 if lobes == 5 else 0.8)))
        outline = (0.38 + 0.52 * wave**1.4) * (0.62 + 0.38 * np.cos(angle / 2)) + 0.03 * np.sin(angle * 23)
    inside = outline - radius
    vein = np.zeros_like(radius)
    for turn in np.linspace(-1.9, 1.9, 3 if lobes == 1 else lobes):
        off = np.abs(x * np.cos(turn * (lobes > 1)) + y * np.sin(turn * (lobes > 1)))
        vein = np.maximum(vein, soft(off, 0.03, 0.008) * (inside > 0))
    ribs = np.sin((y - np.abs(x) * 0.9) * 34) * 0.5 + 0.5
    vein = np.maximum(vein, soft(ribs, 0.90, 1.0) * 0.5)
    spots = sample_grid(
        noise_tile(1.5, 1),
        np.arange(side, dtype=np.float32) + canvas.between(0, 400),
        np.arange(side, dtype=np.float32),
    )
    light = 0.92 + 0.14 * spots + 0.22 * (ribs - 0.5) * (1 - vein) + 0.25 * vein
    fade = mix(color, color * (0.72, 0.55, 0.4), soft(inside, 0.16, 0.0) * soft(spots, -1, 1))
    stalk = soft(np.abs(x), 0.025, 0.012) * (y > 0) * (y < 0.98)
    rgb = to_pillow(fade * light[..., None])
    rgb.putalpha(Image.fromarray((np.maximum(soft(inside, -0.01, 0.015), stalk) * 255).astype(np.uint8)))
    return rgb
