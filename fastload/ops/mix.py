"""Mixup and CutMix: every image of a batch with the one before it, by a share that is each image's own.

images: [N, C, H, W] floats. partner: row n is mixed with row n - 1, row 0 with the last one (`roll`). Both
ops return new images [N, C, H, W] of the same dtype and layout, and are differentiable with respect to the
images, as torch makes them.
"""

from typing import Any

from fastload.errors import ConfigError


def mixup(images: Any, share: Any) -> Any:
    """share[n] * images[n] + (1 - share[n]) * images[n - 1]; share: [N] in [0, 1].

    Raises ConfigError where shapes do not fit.
    """
    import torch

    _check(images, share)
    return torch.lerp(images.roll(1, 0), images, share.to(images.dtype)[:, None, None, None])


def cutmix(images: Any, boxes: Any) -> Any:
    """images with the box of each one filled from the image before; boxes: [N, 4] integers, half-open: left,
    top, right, bottom in pixels.

    Raises ConfigError where shapes do not fit.
    """
    import torch

    _check(images, boxes, 4)
    height, width = images.shape[2:]
    left, top, right, bottom = boxes.to(images.device)[:, :, None, None].unbind(1)
    x = torch.arange(width, device=images.device)
    y = torch.arange(height, device=images.device)[:, None]
    inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    return torch.where(inside[:, None], images.roll(1, 0), images)


def _check(images: Any, numbers: Any, *columns: int) -> None:
    if getattr(images, "ndim", 0) != 4 or not images.is_floating_point():
        raise ConfigError("images to be mixed: give floats [N, C, H, W].")
    if tuple(numbers.shape) != (images.shape[0], *columns):
        expected = [images.shape[0], *columns]
        raise ConfigError(f"numbers of {list(numbers.shape)} for {images.shape[0]} images: give {expected}.")
