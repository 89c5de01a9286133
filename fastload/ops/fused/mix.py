"""Mixup and CutMix: every image of a batch with the one before it, with a share for each image.

images: [N, C, H, W] floats. Row n is mixed with row n - 1, row 0 with the last one (`roll`). The results are
new images [N, C, H, W] of the same dtype, differentiable with respect to the images, as torch makes them.
"""

from typing import Any

from fastload.errors import ConfigError


def mixup(images: Any, share: Any) -> Any:
    """share[n] * images[n] + (1 - share[n]) * images[n - 1]; share: [N] in [0, 1], at 1 a copy.

    Raises ConfigError where shapes do not fit.
    """
    _check(images, share)
    return _blended(images, images.roll(1, 0), share)


def cutmix(images: Any, boxes: Any) -> Any:
    """The images with the box of each filled from the image before it.

    boxes: [N, 4] integers: left, top, right, bottom in pixels, half-open; an empty box changes nothing.
    Raises ConfigError where shapes do not fit.
    """
    import torch

    _check(images, boxes, 4)
    return torch.where(_inside(boxes, images), images.roll(1, 0), images)


def mix(images: Any, share: Any, boxes: Any, out: Any = None) -> Any:
    """Both at once: `mixup` by `share`, and in the boxes nothing but the image before.

    out: a tensor to write to, as the result would be, for images on the CPU that need no gradient.
    """
    import torch

    _check(images, share)
    _check(images, boxes, 4)
    if images.device.type == "cpu" and not (images.requires_grad and torch.is_grad_enabled()):
        return _mix_one_by_one(images, share, boxes, torch.empty_like(images) if out is None else out)
    assert out is None
    others = images.roll(1, 0)
    return torch.where(_inside(boxes, images), others, _blended(images, others, share))


def _blended(images: Any, others: Any, share: Any) -> Any:
    """A share of 1 takes nothing of the other image, even if it is NaN."""
    import torch

    share = share.to(images.dtype)[:, None, None, None]
    return torch.where(share == 1, images, torch.lerp(others, images, share))


def _mix_one_by_one(images: Any, share: Any, boxes: Any, mixed: Any) -> Any:
    """The same, image by image: on a CPU the intermediate results of whole batches take the time."""
    import torch

    for n, (own, (left, top, right, bottom)) in enumerate(zip(share.tolist(), boxes.tolist(), strict=True)):
        if own == 1.0:
            mixed[n] = images[n]
        else:
            torch.lerp(images[n - 1], images[n], own, out=mixed[n])
        mixed[n, :, top:bottom, left:right] = images[n - 1, :, top:bottom, left:right]
    return mixed


def _inside(boxes: Any, images: Any) -> Any:
    """[N, 1, H, W] bool."""
    import torch

    height, width = images.shape[2:]
    left, top, right, bottom = boxes.to(images.device)[:, :, None, None].unbind(1)
    x = torch.arange(width, device=images.device)
    y = torch.arange(height, device=images.device)[:, None]
    return ((x >= left) & (x < right) & (y >= top) & (y < bottom))[:, None]


def _check(images: Any, numbers: Any, *columns: int) -> None:
    if getattr(images, "ndim", 0) != 4 or not images.is_floating_point():
        raise ConfigError("mixed images must be floats [N, C, H, W].")
    expected = [images.shape[0], *columns]
    if list(numbers.shape) != expected:
        raise ConfigError(f"mixing {images.shape[0]} images needs {expected}, got {list(numbers.shape)}.")
