"""The dice of `AdaPipe`: (seed, calls, row) in, the rows of `ada_augment` out, drawn on the device in one
launch.

settings: as many numbers as SETTINGS has names, multipliers and strengths under the published names; a
multiplier of 0 leaves its transform out. A transform is active where a uniform is below multiplier * p;
strengths do not depend on p. What each draws, with W and H the image's sides (random_draws.py says what
uniforms and normals are; the words of each purpose are those of block 0 unless said otherwise):

- xflip floor(2 u) in {0, 1}; rotate90 floor(4 u); xint (2 u - 1) xint_max of either side, rounded to pixels
- scale 2^(z scale_std); rotate (2 u - 1) pi rotate_max, twice, before and after aniso, each with the chance
  1 - sqrt(1 - multiplier p), so that the chance of at least one is multiplier p; aniso 2^(z aniso_std); xfrac
  (z, z') xfrac_std of either side
- brightness z brightness_std; contrast 2^(z contrast_std); lumaflip floor(2 u); of colour images hue (2 u -
  1) pi hue_max and saturation 2^(z saturation_std)
- imgfilter: block b is band b, 2^(z imgfilter_std) with the chance multiplier p imgfilter_band[b]; each is
  normalized by the energy that natural images have in the bands, and they are multiplied
- noise |z| noise_std; block 1, words 0 and 1: the key that the noise is made of
- cutout: the side cutout_size, centre (u, u')

Composed as G_inv = Flip R(90 degrees * rotate90) T(-xint) diag(1 / scale) R(rotate) diag(1 / aniso, aniso)
R(rotate') T(-xfrac), first in time on the left. Drawing increments `calls` on the device. Gates and integers
are equal on both twins, numbers within 4 units in the last place, matrices within 2e-6 of their largest
entry.
"""

import numpy as np

from fastload.ops.ada.ada_params import (
    COLUMNS,
    CUT_CENTER,
    CUT_SIZE,
    G_INV,
    GAINS,
    NOISE_KEY,
    SIGMA,
    AdaStage,
    C,
)
from fastload.ops.ada.draw.random_draws import Colour, Dice, Geometry
from fastload.ops.ada.stages.wavelets import BAND_ENERGY
from fastload.rng import Purpose

BLIT, GEOM = ("xflip", "rotate90", "xint"), ("scale", "rotate", "aniso", "xfrac")
COLOR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
BANDS = tuple(f"imgfilter_band{band}" for band in range(4))
STRENGTHS = (
    "xint_max", "scale_std", "rotate_max", "aniso_std", "xfrac_std", "brightness_std", "contrast_std",
    "hue_max", "saturation_std", "imgfilter_std", "noise_std", "cutout_size",
)  # fmt: skip
SETTINGS = (*BLIT, *GEOM, *COLOR, "imgfilter", "noise", "cutout", *BANDS, *STRENGTHS)
Settings = dict[str, np.float32]


def stages_for(settings: dict[str, float], channels: int) -> AdaStage:
    """The stages that these settings have for images of so many channels: hue and saturation are of three."""
    colors = COLOR if channels > 1 else COLOR[:3]
    stages = AdaStage(0)
    for stage, names in (
        (AdaStage.WARP, BLIT + GEOM),
        (AdaStage.COLOR, colors),
        (AdaStage.FILTER, ("imgfilter",)),
        (AdaStage.NOISE, ("noise",)),
        (AdaStage.CUTOUT, ("cutout",)),
    ):
        if any(settings[name] > 0 for name in names):
            stages |= stage
    return stages


def draw_reference(
    settings: Settings, p: float, dice: Dice, channels: int, height: int, width: int
) -> np.ndarray:
    """The rows [n, 40] float32 of one call, drawn with NumPy."""
    p = np.float32(p)
    rows = np.zeros((dice.n, COLUMNS), np.float32)
    rows[:, G_INV : G_INV + 9] = _geometry(settings, p, dice, height, width).matrix()
    rows[:, C : C + 16] = _colour(settings, p, dice, channels).matrix()
    rows[:, GAINS : GAINS + 4] = _gains(settings, p, dice)
    rows[:, SIGMA] = _sigma(settings, p, dice)
    rows[:, NOISE_KEY : NOISE_KEY + 2] = dice.words(Purpose.ADA_NOISE, 1)[:, :2].view(np.float32)
    if settings["cutout"] > 0:
        on = dice.gate(Purpose.ADA_CUTOUT, settings["cutout"] * p)
        rows[:, CUT_SIZE] = np.where(on, settings["cutout_size"], np.float32(0))
        rows[:, CUT_CENTER : CUT_CENTER + 2] = np.stack(dice.uniforms(Purpose.ADA_CUTOUT), 1)
    return rows


def _geometry(settings: Settings, p: np.float32, dice: Dice, height: int, width: int) -> Geometry:
    zero, geometry = np.float32(0), Geometry(dice.n)
    if settings["xflip"] > 0:
        on = dice.gate(Purpose.ADA_XFLIP, settings["xflip"] * p)
        flipped = np.where(on, np.floor(2 * dice.uniforms(Purpose.ADA_XFLIP)[0]), zero)
        geometry.scale(1 - 2 * flipped, np.ones_like(flipped))
    if settings["rotate90"] > 0:
        on = dice.gate(Purpose.ADA_ROTATE90, settings["rotate90"] * p)
        turns = np.where(on, np.floor(4 * dice.uniforms(Purpose.ADA_ROTATE90)[0]), zero)
        geometry.turn(*quarter(turns))
    if settings["xint"] > 0:
        on = dice.gate(Purpose.ADA_XINT, settings["xint"] * p)
        tx, ty = ((2 * u - 1) * settings["xint_max"] for u in dice.uniforms(Purpose.ADA_XINT))
        tx, ty = np.rint(tx * np.float32(width)), np.rint(ty * np.float32(height))
        geometry.translate(np.where(on, -tx, zero), np.where(on, -ty, zero))
    if settings["scale"] > 0:
        factor = power(dice, Purpose.ADA_SCALE, settings["scale"] * p, settings["scale_std"])
        geometry.scale(1 / factor, 1 / factor)
    one = np.float32(1)
    chance = one - np.sqrt(np.clip(one - settings["rotate"] * p, zero, one))
    if settings["rotate"] > 0:
        geometry.rotate(angle(dice, Purpose.ADA_ROTATE, chance, settings["rotate_max"]))
    if settings["aniso"] > 0:
        factor = power(dice, Purpose.ADA_ANISO, settings["aniso"] * p, settings["aniso_std"])
        geometry.scale(1 / factor, factor)
    if settings["rotate"] > 0 and dice.percentile is None:
        geometry.rotate(angle(dice, Purpose.ADA_ROTATE_AFTER, chance, settings["rotate_max"]))
    if settings["xfrac"] > 0:
        on = dice.gate(Purpose.ADA_XFRAC, settings["xfrac"] * p)
        fx, fy = (z * settings["xfrac_std"] for z in dice.normals(Purpose.ADA_XFRAC))
        geometry.translate(
            np.where(on, -(fx * np.float32(width)), zero), np.where(on, -(fy * np.float32(height)), zero)
        )
    return geometry


def _colour(settings: Settings, p: np.float32, dice: Dice, channels: int) -> Colour:
    zero, colour = np.float32(0), Colour.neutral(dice.n)
    if settings["brightness"] > 0:
        on = dice.gate(Purpose.ADA_BRIGHTNESS, settings["brightness"] * p)
        z = dice.normals(Purpose.ADA_BRIGHTNESS)[0]
        colour.brightness = np.where(on, z * settings["brightness_std"], zero)
    if settings["contrast"] > 0:
        chance = settings["contrast"] * p
        colour.contrast = power(dice, Purpose.ADA_CONTRAST, chance, settings["contrast_std"])
    if settings["lumaflip"] > 0:
        on = dice.gate(Purpose.ADA_LUMAFLIP, settings["lumaflip"] * p)
        colour.luma = np.where(on, np.floor(2 * dice.uniforms(Purpose.ADA_LUMAFLIP)[0]), zero)
    if settings["hue"] > 0 and channels > 1:
        colour.hue = angle(dice, Purpose.ADA_HUE, settings["hue"] * p, settings["hue_max"])
    if settings["saturation"] > 0 and channels > 1:
        chance = settings["saturation"] * p
        colour.saturation = power(dice, Purpose.ADA_SATURATION, chance, settings["saturation_std"])
    return colour


def _gains(settings: Settings, p: np.float32, dice: Dice) -> np.ndarray:
    """[n, 4]: band b alone scaled by t_b has the energy 1 + w_b (t_b^2 - 1), which is divided out."""
    one = np.float32(1)
    factors, scale = [], np.ones(dice.n, np.float32)
    for band, energy in enumerate(BAND_ENERGY):
        factor = np.ones(dice.n, np.float32)
        strength = settings["imgfilter"] * settings[BANDS[band]]
        if strength > 0:
            factor = power(dice, Purpose.ADA_IMGFILTER, strength * p, settings["imgfilter_std"], band)
        factors.append(factor)
        scale = scale / np.sqrt(one + np.float32(energy) * (factor * factor - one))
    return np.stack(factors, 1) * scale[:, None]


def _sigma(settings: Settings, p: np.float32, dice: Dice) -> np.ndarray:
    if not settings["noise"] > 0:
        return np.zeros(dice.n, np.float32)
    if dice.percentile is not None:
        return np.full(dice.n, dice.percentile.positive_normal, np.float32) * settings["noise_std"]
    on = dice.gate(Purpose.ADA_NOISE, settings["noise"] * p)
    z = np.abs(dice.normals(Purpose.ADA_NOISE)[0])
    return np.where(on, z * settings["noise_std"], np.float32(0))


def quarter(turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of so many quarter turns, exactly."""
    turns = turns - 4 * np.floor(turns / 4)  # a percentile of 1 makes it 4
    odd = turns - 2 * np.floor(turns / 2)
    sign = 1 - 2 * (turns >= 2).astype(np.float32)
    return (1 - odd) * sign, odd * sign


def angle(dice: Dice, purpose: int, chance: np.float32, most: np.float32) -> np.ndarray:
    """(2 u - 1) pi most where the gate is open, else 0."""
    on = dice.gate(purpose, chance)
    return np.where(on, (2 * dice.uniforms(purpose)[0] - 1) * (np.float32(np.pi) * most), np.float32(0))


def power(dice: Dice, purpose: int, chance: np.float32, std: np.float32, block: int = 0) -> np.ndarray:
    """2^(z std) where the gate is open, else 1."""
    on = dice.gate(purpose, chance, block)
    return np.where(on, np.exp2(dice.normals(purpose, block)[0] * std), np.float32(1))


def named(names: tuple[str, ...], table: list[float]) -> Settings:
    """A table [len(names)] of settings as a dictionary of float32."""
    return dict(zip(names, np.asarray(table, np.float32), strict=True))
