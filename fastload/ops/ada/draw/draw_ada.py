"""The random draws of `AdaPipe`: (seed, calls, row) in, the rows of `ada_augment` out, drawn on the device in
one launch.

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

from fastload.ops.ada.ada_params import COLUMNS, COLUMNS_OF, CUT_SIZE, SIGMA, AdaStage
from fastload.ops.ada.draw.random_draws import Colour, Geometry, RandomDraws
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
Labels = list[np.ndarray]


def stages_for(settings: dict[str, float], channels: int) -> AdaStage:
    """The stages that these settings have for images of so many channels: hue and saturation are of three."""
    colors = COLOR if channels > 1 else COLOR[:3]
    rest = {AdaStage.FILTER: ("imgfilter",), AdaStage.NOISE: ("noise",), AdaStage.CUTOUT: ("cutout",)}
    return stages_with(settings, {AdaStage.WARP: BLIT + GEOM, AdaStage.COLOR: colors, **rest})


def stages_with(settings: dict[str, float], names_of: dict[AdaStage, tuple[str, ...]]) -> AdaStage:
    """The stages of which some transform is on."""
    stages = AdaStage(0)
    for stage, names in names_of.items():
        if any(settings[name] > 0 for name in names):
            stages |= stage
    return stages


def draw_reference(
    settings: Settings, p: float, draws: RandomDraws, channels: int, height: int, width: int
) -> np.ndarray:
    """The rows [n, 40] float32 of one call, drawn with NumPy."""
    p = np.float32(p)
    rows = np.zeros((draws.n, COLUMNS), np.float32)
    rows[:, COLUMNS_OF["G_inv"]] = _geometry(settings, p, draws, height, width).matrix()
    rows[:, COLUMNS_OF["C"]] = colours(settings, p, draws, [], channels).matrix()
    rows[:, COLUMNS_OF["gains"]] = _gains(settings, p, draws)
    rows[:, SIGMA] = _sigma(settings, p, draws)
    rows[:, COLUMNS_OF["noise_key"]] = draws.words(Purpose.ADA_NOISE, 1)[:, :2].view(np.float32)
    if settings["cutout"] > 0:
        on = draws.gate(Purpose.ADA_CUTOUT, settings["cutout"] * p)
        rows[:, CUT_SIZE] = np.where(on, settings["cutout_size"], np.float32(0))
        rows[:, COLUMNS_OF["cut_center"]] = np.stack(draws.uniforms(Purpose.ADA_CUTOUT), 1)
    return rows


def _geometry(settings: Settings, p: np.float32, draws: RandomDraws, height: int, width: int) -> Geometry:
    zero, geometry = np.float32(0), Geometry(draws.n)
    if settings["xflip"] > 0:
        flipped = draws.floored(Purpose.ADA_XFLIP, settings["xflip"] * p, 2)
        geometry.scale(1 - 2 * flipped, np.ones_like(flipped))
    if settings["rotate90"] > 0:
        geometry.turn(*quarter(draws.floored(Purpose.ADA_ROTATE90, settings["rotate90"] * p, 4)))
    if settings["xint"] > 0:
        on = draws.gate(Purpose.ADA_XINT, settings["xint"] * p)
        tx, ty = ((2 * u - 1) * settings["xint_max"] for u in draws.uniforms(Purpose.ADA_XINT))
        tx, ty = np.rint(tx * np.float32(width)), np.rint(ty * np.float32(height))
        geometry.translate(np.where(on, -tx, zero), np.where(on, -ty, zero))
    if settings["scale"] > 0:
        factor = draws.power(Purpose.ADA_SCALE, settings["scale"] * p, settings["scale_std"])
        geometry.scale(1 / factor, 1 / factor)
    one = np.float32(1)
    chance = one - np.sqrt(np.clip(one - settings["rotate"] * p, zero, one))  # of each of the two rotations
    if settings["rotate"] > 0:
        geometry.rotate(draws.angle(Purpose.ADA_ROTATE, chance, settings["rotate_max"]))
    if settings["aniso"] > 0:
        factor = draws.power(Purpose.ADA_ANISO, settings["aniso"] * p, settings["aniso_std"])
        geometry.scale(1 / factor, factor)
    if settings["rotate"] > 0 and draws.percentile is None:
        geometry.rotate(draws.angle(Purpose.ADA_ROTATE_AFTER, chance, settings["rotate_max"]))
    if settings["xfrac"] > 0:
        on = draws.gate(Purpose.ADA_XFRAC, settings["xfrac"] * p)
        fx, fy = (z * settings["xfrac_std"] for z in draws.normals(Purpose.ADA_XFRAC))
        geometry.translate(
            np.where(on, -(fx * np.float32(width)), zero), np.where(on, -(fy * np.float32(height)), zero)
        )
    return geometry


def colours(
    settings: Settings, p: np.float32, draws: RandomDraws, labels: Labels, channels: int = 3
) -> Colour:
    """The colours' draws; appends the labels that EDM gives them."""
    one, colour = np.float32(1), Colour.neutral(draws.n)
    if settings["brightness"] > 0:
        w = draws.normal(Purpose.ADA_BRIGHTNESS, settings["brightness"] * p)
        colour.brightness = w * settings["brightness_std"]
        labels.append(w)
    if settings["contrast"] > 0:
        w = draws.normal(Purpose.ADA_CONTRAST, settings["contrast"] * p)
        colour.contrast = np.exp2(w * settings["contrast_std"])
        labels.append(w)
    if settings["lumaflip"] > 0:
        colour.luma = draws.floored(Purpose.ADA_LUMAFLIP, settings["lumaflip"] * p, 2)
        labels.append(colour.luma)
    if settings["hue"] > 0 and channels > 1:
        colour.hue = draws.angle(Purpose.ADA_HUE, settings["hue"] * p, settings["hue_max"])
        labels += [np.cos(colour.hue) - one, np.sin(colour.hue)]
    if settings["saturation"] > 0 and channels > 1:
        w = draws.normal(Purpose.ADA_SATURATION, settings["saturation"] * p)
        colour.saturation = np.exp2(w * settings["saturation_std"])
        labels.append(w)
    return colour


def _gains(settings: Settings, p: np.float32, draws: RandomDraws) -> np.ndarray:
    """[n, 4]: band b alone scaled by t_b has the energy 1 + w_b (t_b^2 - 1), which is divided out."""
    one = np.float32(1)
    factors, scale = [], np.ones(draws.n, np.float32)
    for band, energy in enumerate(BAND_ENERGY):
        factor = np.ones(draws.n, np.float32)
        strength = settings["imgfilter"] * settings[BANDS[band]]
        if strength > 0:
            factor = draws.power(Purpose.ADA_IMGFILTER, strength * p, settings["imgfilter_std"], band)
        factors.append(factor)
        scale = scale / np.sqrt(one + np.float32(energy) * (factor * factor - one))
    return np.stack(factors, 1) * scale[:, None]


def _sigma(settings: Settings, p: np.float32, draws: RandomDraws) -> np.ndarray:
    if not settings["noise"] > 0:
        return np.zeros(draws.n, np.float32)
    if draws.percentile is not None:
        return np.full(draws.n, draws.percentile.positive_normal, np.float32) * settings["noise_std"]
    return np.abs(draws.normal(Purpose.ADA_NOISE, settings["noise"] * p)) * settings["noise_std"]


def quarter(turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of so many quarter turns, exactly."""
    turns = turns - 4 * np.floor(turns / 4)  # a percentile of 1 makes it 4
    odd = turns - 2 * np.floor(turns / 2)
    sign = 1 - 2 * (turns >= 2).astype(np.float32)
    return (1 - odd) * sign, odd * sign


def named(names: tuple[str, ...], table: list[float]) -> Settings:
    """A table [len(names)] of settings as a dictionary of float32."""
    return dict(zip(names, np.asarray(table, np.float32), strict=True))
