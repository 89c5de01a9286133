"""uint8 pixels to floats and back: what a model is fed, and the pixels that its output stands for.

In come uint8 images [..., 3, H, W] (torch or NumPy, in any memory layout) and a preset's name, a (mean, std)
pair or a `Normalization`; out come floats, computed as

    (float32(v) / divisor - mean) / std

in IEEE float32 and this order, each constant rounded to float32 first, then cast. The native pixel path does
the same, so the two are equal bit for bit. `denormalize` undoes it: every uint8 value comes back from
float32, float16 and bfloat16, for all presets. Torch is imported only where a tensor comes in.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastload.errors import ConfigError


@dataclass(frozen=True)
class Normalization:
    """(v / divisor - mean) / std, with mean and std for red, green and blue."""

    divisor: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", self._three("mean", self.mean))
        object.__setattr__(self, "std", self._three("std", self.std))
        object.__setattr__(self, "divisor", float(self.divisor))
        if not (math.isfinite(self.divisor) and self.divisor > 0 and min(self.std) > 0):
            raise ConfigError(f"{self}: divisor and std must be above 0.")

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """What pixels of 0 and of 255 become in each channel: two arrays [3] float32."""
        mean, std = (np.array(three, np.float32) for three in (self.mean, self.std))
        return (np.float32(0) - mean) / std, (np.float32(255) / np.float32(self.divisor) - mean) / std

    @staticmethod
    def _three(name: str, value: Any) -> tuple[float, float, float]:
        try:
            numbers = tuple(float(number) for number in value) if np.ndim(value) else (float(value),) * 3
        except (TypeError, ValueError):
            numbers = ()
        if len(numbers) != 3 or not all(math.isfinite(number) for number in numbers):
            raise ConfigError(f"{name}={value!r} of a normalization: give one number or three, such as 0.5.")
        return numbers


PRESETS = {
    "gan": Normalization(127.5, (1.0,) * 3, (1.0,) * 3),  # [-1, 1], as StyleGAN and EDM have it
    "diffusion": Normalization(127.5, (1.0,) * 3, (1.0,) * 3),
    "vae": Normalization(255.0, (0.0,) * 3, (1.0,) * 3),  # [0, 1]
    "imagenet": Normalization(255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def normalization(preset: "str | tuple | Normalization") -> Normalization:
    """The `Normalization` of a preset's name, or of a pair (mean, std) that applies to pixels in [0, 1].

    mean and std are one number or three, the mean in [0, 1] as the pixels are, and std above 0 and at most 1.
    Raises ConfigError for anything else, such as the range (-1, 1), which a preset has.
    """
    if isinstance(preset, Normalization):
        return preset
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise ConfigError(f"normalize={preset!r}: give one of {', '.join(PRESETS)}, or (mean, std).")
        return PRESETS[preset]
    try:
        mean, std = preset
    except (TypeError, ValueError):
        raise ConfigError(
            f"normalize={preset!r}: give one of {', '.join(PRESETS)}, or (mean, std)."
        ) from None
    try:
        rule = Normalization(255.0, mean, std)
    except ConfigError:
        raise ConfigError(
            f"normalize={preset!r}: as (mean, std), give one number or three for each; std must be above 0."
        ) from None
    if not (min(rule.mean) >= 0 and max(rule.mean) <= 1 and max(rule.std) <= 1):
        raise ConfigError(
            f"normalize={preset!r}: mean and std are not those of values in [0, 1]. "
            'normalize="gan" gives [-1, 1], "vae" [0, 1]; divide a mean and std of uint8 pixels by 255.'
        )
    return rule


def normalize(images: Any, preset: "str | tuple | Normalization", dtype: Any = None) -> Any:
    """uint8 images [..., 3, H, W] as floats of the same shape and layout.

    dtype: of the result, float32 where it is None; a torch dtype for tensors, a NumPy one for arrays.
    """
    rule = normalization(preset)
    if isinstance(images, np.ndarray):
        divisor, mean, std = _constants(rule, images, images.dtype == np.uint8)
        return ((images.astype(np.float32) / divisor - mean) / std).astype(dtype or np.float32, copy=False)
    import torch

    is_uint8 = isinstance(images, torch.Tensor) and images.dtype == torch.uint8
    divisor, mean, std = _constants(rule, images, is_uint8)
    return ((images.to(torch.float32) / divisor - mean) / std).to(dtype or torch.float32)


def denormalize(images: Any, preset: "str | tuple | Normalization") -> Any:
    """What `normalize` made, as uint8 again: [..., 3, H, W] of any float dtype, layout and device.

    Rounded half to even, clamped to [0, 255]; NaN becomes 0.
    """
    rule = normalization(preset)
    if isinstance(images, np.ndarray):
        divisor, mean, std = _constants(rule, images, np.issubdtype(images.dtype, np.floating))
        pixels = np.rint((images.astype(np.float32) * std + mean) * divisor)
        return np.clip(np.nan_to_num(pixels, nan=0.0), 0, 255).astype(np.uint8)
    import torch

    are_floats = isinstance(images, torch.Tensor) and images.is_floating_point()
    divisor, mean, std = _constants(rule, images, are_floats)
    pixels = ((images.to(torch.float32) * std + mean) * divisor).round()
    return pixels.nan_to_num(nan=0.0).clamp(0, 255).to(torch.uint8)


def _constants(rule: Normalization, images: Any, is_right_kind: bool) -> tuple:
    """divisor [1], mean and std [3, 1, 1], float32, on the device of the images.

    On CUDA torch divides by a number, or by a CPU scalar, with its reciprocal, which rounds twice. Raises
    ConfigError for images of another kind or shape.
    """
    shape = tuple(getattr(images, "shape", ()))
    if not is_right_kind or len(shape) < 3 or shape[-3] != 3:
        kind = getattr(images, "dtype", type(images).__name__)
        raise ConfigError(
            f"images of {kind} {list(shape)}: normalize takes uint8 [N, 3, H, W], denormalize floats."
        )

    columns = (np.array(three, np.float32).reshape(3, 1, 1) for three in (rule.mean, rule.std))
    constants = (np.full(1, rule.divisor, np.float32), *columns)
    if isinstance(images, np.ndarray):
        return constants
    import torch

    return tuple(torch.as_tensor(constant, device=images.device) for constant in constants)
