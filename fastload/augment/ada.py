"""`AdaPipe`: the adaptive discriminator augmentation of StyleGAN2-ADA (arXiv 2006.06676), differentiable,
fused.

In: images, real or generated, and p, the strength that `AdaController` steers. Out: the images as a
discriminator is to see them. Promised: names, defaults and meaning of the published pipe's arguments; the
random draws of device_draws.py, in one launch; pixels by `fastload.ops.ada_augment`, which says exactly what
each stage does, with gradients of any order.

What differs from the published pipe, by design: an image does not depend on its batch mates (the margin of
reflection is always the largest), translations by whole pixels and images that no geometry touches are exact
copies, and the random numbers are others.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

import torch

from fastload.augment.device_draws import DeviceDraws, strength, strengths
from fastload.errors import ConfigError
from fastload.ops.ada.ada_augment import ada_augment
from fastload.ops.ada.ada_params import AdaParams
from fastload.ops.ada.draw.draw_ada import BANDS, BLIT, COLOR, GEOM, SETTINGS, stages_for

GROUPS = {
    "blit": BLIT,
    "geom": GEOM,
    "color": COLOR,
    "filter": ("imgfilter",),
    "noise": ("noise",),
    "cutout": ("cutout",),
}
PIPES = {name: (name,) for name in GROUPS} | {
    "bg": ("blit", "geom"),
    "bgc": ("blit", "geom", "color"),
    "bgcf": ("blit", "geom", "color", "filter"),
    "bgcfn": ("blit", "geom", "color", "filter", "noise"),
    "bgcfnc": ("blit", "geom", "color", "filter", "noise", "cutout"),
}


class AdaPipe(DeviceDraws):
    """Random changes of images for a discriminator. The defaults change nothing: multipliers of 0 leave out.

    Each multiplier (xflip, rotate90, xint, scale, rotate, aniso, xfrac, brightness, contrast, lumaflip, hue,
    saturation, imgfilter, noise, cutout) times `p` is the probability of its transform; each strength
    (`*_max`, `*_std`, imgfilter_bands, cutout_size) says how far it goes. p is a buffer, float32, shape []:
    change it by `pipe.p.copy_(...)`, or let an AdaController do so. All else is fixed, and can be read.
    seed, rank, impl: see DeviceDraws.

    Images are [N, C, H, W] floats, nominally in [-1, 1] (cutout fills with 0, contrast is about 0), any C for
    geometry, noise, filter and cutout, 1 or 3 for colour, H and W from 2, from 22 with imgfilter.
    """

    fixed_dtypes: ClassVar[dict[str, torch.dtype]] = DeviceDraws.fixed_dtypes | {"p": torch.float32}
    p: torch.Tensor  # [] float32

    def __init__(
        self,
        xflip: float = 0,
        rotate90: float = 0,
        xint: float = 0,
        xint_max: float = 0.125,
        scale: float = 0,
        rotate: float = 0,
        aniso: float = 0,
        xfrac: float = 0,
        scale_std: float = 0.2,
        rotate_max: float = 1,
        aniso_std: float = 0.2,
        xfrac_std: float = 0.125,
        brightness: float = 0,
        contrast: float = 0,
        lumaflip: float = 0,
        hue: float = 0,
        saturation: float = 0,
        brightness_std: float = 0.2,
        contrast_std: float = 0.5,
        hue_max: float = 1,
        saturation_std: float = 1,
        imgfilter: float = 0,
        imgfilter_bands: Any = (1, 1, 1, 1),
        imgfilter_std: float = 1,
        noise: float = 0,
        cutout: float = 0,
        noise_std: float = 0.1,
        cutout_size: float = 0.5,
        p: float = 1.0,
        *,
        seed: int = 0,
        rank: int | None = None,
        impl: str = "auto",
    ):
        given = {name: value for name, value in locals().items() if name in SETTINGS}
        super().__init__(seed, rank, impl)
        bands = tuple(imgfilter_bands) if isinstance(imgfilter_bands, Iterable) else ()
        if len(bands) != len(BANDS) or any(strength(band) is None for band in bands):
            raise ConfigError(
                f"AdaPipe(imgfilter_bands={imgfilter_bands!r}): give four multipliers, numbers of 0 or more."
            )
        settings = strengths("AdaPipe", given | dict(zip(BANDS, bands, strict=True)))
        self.fix(**{name: settings[name] for name in given})
        self.fix(imgfilter_bands=tuple(settings[name] for name in BANDS), _settings=settings)
        self._stages = [int(stages_for(settings, channels)) for channels in (1, 3)]
        self._numbers = [settings[name] for name in SETTINGS]
        self.register_buffer("p", torch.tensor(strengths("AdaPipe", {"p": p})["p"], dtype=torch.float32))

    @classmethod
    def named(cls, name: str, p: float = 1.0, **options: Any) -> "AdaPipe":
        """The published pipe of this name: blit, geom, color, filter, noise, cutout, bg, bgc (the usual one),
        bgcf, bgcfn, bgcfnc; all multipliers in it are 1. options: any other argument of AdaPipe."""
        if name not in PIPES:
            raise ConfigError(f"AdaPipe.named({name!r}): give one of {', '.join(PIPES)}.")
        multipliers = {transform: 1.0 for group in PIPES[name] for transform in GROUPS[group]}
        return cls(**(multipliers | options), p=p)

    def forward(self, images: torch.Tensor, debug_percentile: float | None = None) -> torch.Tensor:
        """The images [N, C, H, W] changed by a new draw; shape and dtype as they came.

        debug_percentile: a number q in (0, 1) that replaces every draw, for tests and pictures: all
        transforms are active for any p, uniform draws are q, normal ones erfinv(2 q - 1), and there is no
        second rotation.
        """
        self.check(images)
        return self.apply_params(images, self.draw(*images.shape, debug_percentile))

    def draw(
        self, n: int, channels: int, height: int, width: int, debug_percentile: float | None = None
    ) -> AdaParams:
        """New parameters for n images, on the device of the pipe; the call counter goes up by one."""
        from fastload.ops.ada import registered

        percentile = None
        if debug_percentile is not None:
            percentile = strengths("draw", {"debug_percentile": debug_percentile})["debug_percentile"]
            if not 0.0 < percentile < 1.0:  # at its ends a normal draw is infinite
                raise ConfigError(
                    f"debug_percentile={debug_percentile!r}: give a number between 0 and 1, or None."
                )
        rows = registered.draw_ada(
            self._numbers, self.p, self.calls, self.ticket, *self.key(n), n, channels, height, width,
            percentile, self.drawing(),
        )  # fmt: skip
        return AdaParams.from_rows(rows, self._stages[channels > 1])

    def apply_params(self, images: torch.Tensor, params: AdaParams) -> torch.Tensor:
        """The images [N, C, H, W] changed as `params` say: `ada_augment` with this pipe's impl."""
        return ada_augment(images, params, self.impl)

    def extra_repr(self) -> str:
        on = {name: value for group in GROUPS.values() for name in group if (value := getattr(self, name))}
        return ", ".join(f"{name}={value:g}" for name, value in on.items())
