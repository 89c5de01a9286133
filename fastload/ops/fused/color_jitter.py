"""ColorJitter with explicit factors: brightness, contrast, saturation and hue, in any order.

images: [N, 3, H, W] or [N, H, W, 3] (also with one channel), uint8 pixels or floats in [0, 1]. Each step is
that of `fused_augment`, clamped to [0, 1] after it, and means what torchvision.transforms.v2.functional's
adjust_brightness, adjust_contrast, adjust_saturation and adjust_hue mean on floats; uint8 is rounded once, at
the end. No gradients.
"""

import math
from typing import Any

from fastload.errors import ConfigError
from fastload.ops.fused.augment_params import STEPS, AugmentParams
from fastload.ops.fused.fused_augment import fused_augment, pixels_last


def color_jitter(
    images: Any,
    brightness: Any = 1.0,
    contrast: Any = 1.0,
    saturation: Any = 1.0,
    hue: Any = 0.0,
    order: Any = STEPS,
    impl: str = "auto",
) -> Any:
    """The images with each image's factors applied; shape, memory layout and dtype as they came.

    images: [N, C, H, W], or [N, H, W, C] where the second axis is neither 1 nor 3 long and the last one is.
    brightness, contrast, saturation: a factor, or one for each image ([N]); 1 changes nothing. hue: a shift
    in turns, -0.5 to 0.5. order: a permutation of "bcsh", or one for each image. impl: as `fused_augment` has
    it.

    Raises ConfigError for invalid arguments.
    """
    import torch

    pixels, layout, restore = pixels_last(images)
    n = images.shape[0]
    columns = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    factors = [_column(name, value, n, images, 0.0, math.inf) for name, value in columns.items()]
    factors = torch.stack([*factors, _column("hue", hue, n, images, -0.5, 0.5)], 1)
    params = AugmentParams(jitter=factors, order=_order(order, n).to(images.device))
    return restore(fused_augment(pixels, params, layout=layout, impl=impl))


def _column(name: str, value: Any, n: int, images: Any, lowest: float, highest: float) -> Any:
    import torch

    kind = torch.float64 if images.dtype == torch.float64 else torch.float32
    column = torch.as_tensor(value, dtype=kind)
    fits = (column >= lowest) & (column <= highest) & column.isfinite()
    if column.device.type == "cpu" and not fits.all():
        raise ConfigError(f"{name}={value!r}: give {lowest:g} to {highest:g}.")
    column = column.to(images.device)
    if column.dim() > 1 or (column.dim() == 1 and len(column) != n):
        raise ConfigError(
            f"{name} is {list(column.shape)}: give a number, or one for each of the {n} images."
        )
    return column.expand(n)


def _order(order: Any, n: int) -> Any:
    import torch

    orders = [order] * n if isinstance(order, str) else list(order)
    if len(orders) != n or any(sorted(steps) != sorted(STEPS) for steps in orders):
        raise ConfigError(
            f'order={order!r}: give a permutation of "{STEPS}", or one for each of the {n} images.'
        )
    return torch.tensor([[STEPS.index(letter) for letter in steps] for steps in orders]).reshape(n, 4)
