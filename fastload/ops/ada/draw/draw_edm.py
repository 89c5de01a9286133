"""The random draws of `AugmentPipe` (EDM): (seed, calls, row) in, rows and labels out, drawn on the device in
one launch.

settings: as many numbers as EDM_SETTINGS has names, multipliers and strengths under the published names
(arXiv 2206.00364); a multiplier of 0 leaves its transform and its labels out. A transform is active where a
uniform is below multiplier * p; one that is not counts as w = 0, in the labels too. What each draws, with W
and H the image's sides (random_draws.py says what uniforms and normals are), its effect, and its labels in
this order:

- xflip, yflip: w = floor(2 u); columns, rows reversed; w
- rotate_int: w = floor(4 u) quarter turns; [w in {1, 2}], [w in {2, 3}]
- translate_int: w = (2 u - 1, 2 u' - 1); (w translate_int_max) of the sides, rounded to pixels; these over W
  and H times translate_int_max
- scale: w = z; 2^(w scale_std); w
- rotate_frac: w = (2 u - 1) pi rotate_frac_max; cos w - 1, sin w
- aniso: w = z, and in block 1 r = (2 u - 1) pi, active with the chance aniso_rotate_prob; 2^(w aniso_std)
  along the axis r; w cos r, w sin r
- translate_frac: w = (z, z'); w translate_frac_std of the sides; w
- brightness, contrast, lumaflip, hue, saturation: as `draw_ada` has them; w, w, w, (cos w - 1, sin w), w

The first four are exact moves of pixels, then G_inv = diag(1 / scale) R(rotate_frac) R(-r) diag(1 / aniso,
aniso) R(r) T(-translate_frac), then the colours. Promised is what `draw_ada` promises.
"""

import numpy as np

from fastload.ops.ada.ada_params import COLUMNS, G_INV, MOVES, AdaStage, C
from fastload.ops.ada.draw.draw_ada import COLOR, Labels, Settings, colours, stages_with
from fastload.ops.ada.draw.random_draws import Geometry, RandomDraws
from fastload.rng import Purpose

MOVING = ("xflip", "yflip", "rotate_int", "translate_int")
WARPING = ("scale", "rotate_frac", "aniso", "translate_frac")
EDM_STRENGTHS = (
    "translate_int_max", "scale_std", "rotate_frac_max", "aniso_std", "aniso_rotate_prob",
    "translate_frac_std", "brightness_std", "contrast_std", "hue_max", "saturation_std",
)  # fmt: skip
EDM_SETTINGS = (*MOVING, *WARPING, *COLOR, *EDM_STRENGTHS)
LABELS = {  # how many labels each transform has, in their order
    "xflip": 1, "yflip": 1, "rotate_int": 2, "translate_int": 2, "scale": 1, "rotate_frac": 2, "aniso": 2,
    "translate_frac": 2, "brightness": 1, "contrast": 1, "lumaflip": 1, "hue": 2, "saturation": 1,
}  # fmt: skip


def edm_stages(settings: dict[str, float]) -> AdaStage:
    """The stages after the moves of pixels."""
    return stages_with(settings, {AdaStage.WARP: WARPING, AdaStage.COLOR: COLOR})


def label_count(settings: dict[str, float]) -> int:
    """K, of the transforms that are on."""
    return sum(count for name, count in LABELS.items() if settings[name] > 0)


def draw_edm_reference(
    settings: Settings, p: float, draws: RandomDraws, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """The rows [n, 40] and labels [n, K], float32, of one call, drawn with NumPy."""
    p, labels = np.float32(p), []
    rows = np.zeros((draws.n, COLUMNS), np.float32)
    rows[:, MOVES : MOVES + 5] = _moves(settings, p, draws, height, width, labels).view(np.float32)
    rows[:, G_INV : G_INV + 9] = _geometry(settings, p, draws, height, width, labels).matrix()
    rows[:, C : C + 16] = colours(settings, p, draws, labels).matrix()
    return rows, np.stack(labels, 1) if labels else np.zeros((draws.n, 0), np.float32)


def _moves(
    settings: Settings, p: np.float32, draws: RandomDraws, height: int, width: int, labels: Labels
) -> np.ndarray:
    """[n, 5] int32: xflip, yflip, quarter turns, and pixels right and up."""
    moves = np.zeros((draws.n, 5), np.int32)
    for column, name in enumerate(("xflip", "yflip")):
        if settings[name] > 0:
            labels.append(draws.floored(Purpose[f"ADA_{name.upper()}"], settings[name] * p, 2))
            moves[:, column] = labels[-1]
    if settings["rotate_int"] > 0:
        w = draws.floored(Purpose.ADA_ROTATE90, settings["rotate_int"] * p, 4)
        moves[:, 2] = w
        labels += [((w == 1) | (w == 2)).astype(np.float32), (w >= 2).astype(np.float32)]
    if settings["translate_int"] > 0:
        on = draws.gate(Purpose.ADA_XINT, settings["translate_int"] * p)
        largest = settings["translate_int_max"]
        both = zip(draws.uniforms(Purpose.ADA_XINT), (width, height), strict=True)
        for column, (u, side) in enumerate(both):
            share = (2 * u - 1) * largest
            pixels = np.where(on, np.rint(share * np.float32(side)), np.float32(0))
            moves[:, 3 + column] = pixels
            labels.append(pixels / (np.float32(side) * largest))
    return moves


def _geometry(
    settings: Settings, p: np.float32, draws: RandomDraws, height: int, width: int, labels: Labels
) -> Geometry:
    one, geometry = np.float32(1), Geometry(draws.n)
    if settings["scale"] > 0:
        w = draws.normal(Purpose.ADA_SCALE, settings["scale"] * p)
        factor = one / np.exp2(w * settings["scale_std"])
        geometry.scale(factor, factor)
        labels.append(w)
    if settings["rotate_frac"] > 0:
        w = draws.angle(Purpose.ADA_ROTATE, settings["rotate_frac"] * p, settings["rotate_frac_max"])
        geometry.rotate(w)
        labels += [np.cos(w) - one, np.sin(w)]
    if settings["aniso"] > 0:
        w = draws.normal(Purpose.ADA_ANISO, settings["aniso"] * p)
        # Where nothing is stretched, turning there and back would leave rounding in what should be a copy.
        on = draws.gate(Purpose.ADA_ANISO, settings["aniso_rotate_prob"], 1) & (w != 0)
        r = np.where(on, (2 * draws.uniforms(Purpose.ADA_ANISO, 1)[0] - 1) * np.float32(np.pi), np.float32(0))
        factor, cosine, sine = np.exp2(w * settings["aniso_std"]), np.cos(r), np.sin(r)
        geometry.turn(cosine, -sine)
        geometry.scale(one / factor, factor)
        geometry.turn(cosine, sine)
        labels += [w * cosine, w * sine]
    if settings["translate_frac"] > 0:
        on = draws.gate(Purpose.ADA_XFRAC, settings["translate_frac"] * p)
        x, y = (np.where(on, z, np.float32(0)) for z in draws.normals(Purpose.ADA_XFRAC))
        std = settings["translate_frac_std"]
        geometry.translate(-(x * np.float32(width) * std), -(y * np.float32(height) * std))
        labels += [x, y]
    return geometry
