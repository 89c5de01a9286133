"""`AugmentPipe`: the non-leaky augmentation of EDM (arXiv 2206.00364), for training diffusion models on
little data.

In: images. Out: (images, labels): the images changed, and what was done to each as numbers that the network
is conditioned on, so that what it generates with labels of 0 shows nothing of it. Promised: names, defaults
and meaning of the published pipe's arguments, labels in its order; flips, quarter turns and whole-pixel
translations are exact moves of pixels, then one warp and one colour matrix (`fastload.ops.ada_augment`); the
random draws of device_draws.py.
"""

from typing import ClassVar

import torch

from fastload.augment.device_draws import DeviceDraws, strengths
from fastload.errors import ConfigError
from fastload.ops.ada.ada_augment import ada_augment
from fastload.ops.ada.ada_params import EdmParams
from fastload.ops.ada.draw.draw_edm import EDM_SETTINGS, LABELS, MOVING, edm_stages, label_count
from fastload.ops.move.move_pixels import move_pixels
from fastload.ops.twins import check_images


class AugmentPipe(DeviceDraws):
    """Random changes of images, with labels. The defaults change nothing: multipliers of 0 leave out.

    Each multiplier (xflip, yflip, rotate_int, translate_int, scale, rotate_frac, aniso, translate_frac,
    brightness, contrast, lumaflip, hue, saturation) times `p` is the probability of its transform, the others
    are strengths. p is a buffer, float32, shape []; 0.12 is usual: change it by `pipe.p.copy_(...)`. All else
    is fixed, and can be read. seed, rank, impl: see DeviceDraws. `label_count` is K.

    Images are [N, C, H, W] floats in about [-1, 1], H and W from 2; colours need C of 3 or 1, rotate_int
    square images.
    """

    fixed_dtypes: ClassVar[dict[str, torch.dtype]] = DeviceDraws.fixed_dtypes | {"p": torch.float32}
    p: torch.Tensor  # [] float32

    def __init__(
        self,
        p: float = 1,
        xflip: float = 0,
        yflip: float = 0,
        rotate_int: float = 0,
        translate_int: float = 0,
        translate_int_max: float = 0.125,
        scale: float = 0,
        rotate_frac: float = 0,
        aniso: float = 0,
        translate_frac: float = 0,
        scale_std: float = 0.2,
        rotate_frac_max: float = 1,
        aniso_std: float = 0.2,
        aniso_rotate_prob: float = 0.5,
        translate_frac_std: float = 0.125,
        brightness: float = 0,
        contrast: float = 0,
        lumaflip: float = 0,
        hue: float = 0,
        saturation: float = 0,
        brightness_std: float = 0.2,
        contrast_std: float = 0.5,
        hue_max: float = 1,
        saturation_std: float = 1,
        *,
        seed: int = 0,
        rank: int | None = None,
        impl: str = "auto",
    ):
        given = {name: value for name, value in locals().items() if name in EDM_SETTINGS}
        super().__init__(seed, rank, impl)
        settings = strengths("AugmentPipe", given, {"translate_int_max": 1.0})
        if settings["translate_int"] > 0 and not settings["translate_int_max"] > 0:
            raise ConfigError(
                f"AugmentPipe(translate_int_max={translate_int_max!r}): its labels are shares of it; use "
                "translate_int=0."
            )
        self.fix(**settings, _settings=settings, label_count=label_count(settings))
        self._numbers = [settings[name] for name in EDM_SETTINGS]
        self.register_buffer("p", torch.tensor(strengths("AugmentPipe", {"p": p})["p"], dtype=torch.float32))
        self._stages = int(edm_stages(settings))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The images [N, C, H, W] changed by a new draw, and its labels [N, K] float32."""
        self.check(images)
        params = self.draw(*images.shape)
        return self.apply_params(images, params), params.labels

    def draw(self, n: int, channels: int, height: int, width: int) -> EdmParams:
        """New parameters for n images, on the device of the pipe; the call counter goes up by one."""
        from fastload.ops.ada import registered

        if self.rotate_int > 0 and height != width:
            raise ConfigError(f"rotate_int turns square images, not {height}x{width}: leave it 0.")
        rows, labels = registered.draw_edm(
            self._numbers, self.p, self.calls, self.ticket, *self.key(n), n, height, width, self.label_count,
            self.drawing(),
        )  # fmt: skip
        return EdmParams.from_rows(rows, labels, self._stages, self.moving)

    @property
    def moving(self) -> tuple[str, ...]:
        """The exact moves that are on."""
        return tuple(name for name in MOVING if getattr(self, name) > 0)

    def apply_params(self, images: torch.Tensor, params: EdmParams) -> torch.Tensor:
        """The images [N, C, H, W] changed as `params` say: the moves, then the warp, then the colours."""
        check_images(images)
        if not isinstance(params, EdmParams):
            raise ConfigError(f"params={params!r}: give fl.ops.EdmParams(...).")
        params.check(images)
        moves = params.moves()
        if any(move is not None for move in moves):
            images = move_pixels(images, *moves, impl="auto" if self.impl == "native" else self.impl)
        return ada_augment(images, params.rest(), self.impl)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value:g}" for name in LABELS if (value := getattr(self, name)))
