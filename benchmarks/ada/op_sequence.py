"""Adaptive augmentation as it is published: a sequence of torch operations on whole batches.

In: images [N, 3, H, W] float32, `AdaParams` with G_inv and C, and perhaps gains, sigma and cut_size. Out:
what `ada_augment` makes of them, but for the margin: the batch is reflected by as many pixels as the sample
needs that looks farthest out, a number that the host has to know (one copy from the device), and is 0 beyond.

On the lattice of half pixels (affine_warp.py says what the steps are): pad, upsample by 2 with inserted zeros
and sym6, affine_grid and grid_sample, filter with sym6 and take every other point; then colour by bmm, the
band filter by a convolution with groups, noise that is given, and a mask. Nothing in it is fastload's but the
numbers of the wavelets. It is differentiated by torch. Convolutions are float32 only where TF32 is off
(`torch.backends.cudnn.allow_tf32`, `torch.backends.cuda.matmul.allow_tf32`).
"""

import math
from typing import Any

import torch
import torch.nn.functional as F

from fastload.ops.ada.stages.wavelets import BAND_MARGIN, BAND_TAPS, BANDS, SYM6

EXTRA = 6  # pixels of margin beyond the corners, for the filters: three on each of the two lattices


def op_sequence(
    images: torch.Tensor, params: Any, eps: torch.Tensor | None = None, channels_last: bool = False
) -> torch.Tensor:
    """The images [N, 3, H, W] changed as `params` say; eps: the noise, where params.sigma is given.

    channels_last: the enlarged planes are, which torch's convolutions on a CPU like better."""
    images = warped(images, params.G_inv, channels_last)
    images = coloured(images, params.C)
    if params.gains is not None:
        images = filtered(images, params.gains)
    if params.sigma is not None:
        images = images + params.sigma[:, None, None, None] * eps
    if params.cut_size is not None:
        images = images * mask(params.cut_size, params.cut_center, *images.shape[2:])
    return images


def warped(images: torch.Tensor, G_inv: torch.Tensor, channels_last: bool = False) -> torch.Tensor:
    """Geometry of [N, 3, 3] with one margin for all."""
    n, channels, height, width = images.shape
    left, right, top, bottom = margins(G_inv, height, width)
    taps = images.new_tensor(SYM6)
    up = F.pad(images, (left, right, top, bottom), mode="reflect")
    up = upsampled(up, taps, torch.channels_last if channels_last else torch.contiguous_format)
    theta = grid_matrix(G_inv, (height, width), up.shape[2:], (left, top))
    grid = F.affine_grid(theta, [n, channels, 2 * height + 10, 2 * width + 10], align_corners=False)
    lattice = F.grid_sample(up, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return downsampled(lattice, taps)


def margins(G_inv: torch.Tensor, height: int, width: int) -> tuple[int, int, int, int]:
    """Pixels left, right, above and below that some sample of the batch looks at; waits for the device."""
    center = G_inv.new_tensor([(width - 1) / 2, (height - 1) / 2])
    signs = G_inv.new_tensor([[-1, -1], [1, -1], [-1, 1], [1, 1]])
    corners = signs * center @ G_inv[:, :2, :2].mT + G_inv[:, None, :2, 2]  # [N, 4, 2]
    beyond = torch.cat([-corners, corners], 2).amax((0, 1)) + EXTRA - center.repeat(2)
    most = (width - 1, height - 1) * 2
    left, top, right, bottom = (
        math.ceil(min(max(one, 0), side)) for one, side in zip(beyond.tolist(), most, strict=True)
    )
    return left, right, top, bottom


def grid_matrix(G_inv: torch.Tensor, size: tuple, up_size: tuple, before: tuple) -> torch.Tensor:
    """[N, 2, 3] for affine_grid, whose places run over [-1, 1] from edge to edge of output and input.

    Point e of the lattice is number e + 5 of 2 side + 10, so at t = (2 (e + 5) + 1) / (2 side + 10) - 1;
    place s of the doubled plane is number s + 2 before of it. Between them lies s = A e + tau."""
    (height, width), (up_height, up_width), (left, top) = size, up_size, before
    A, b = G_inv[:, :2, :2], G_inv[:, :2, 2]
    center = G_inv.new_tensor([(width - 1) / 2, (height - 1) / 2])
    tau = 2 * (b + center - (A @ center))
    points = G_inv.new_tensor([2 * width + 10, 2 * height + 10])
    up_points = G_inv.new_tensor([up_width, up_height])
    linear = A * (points[None, None, :] / up_points[None, :, None])
    middle = A @ G_inv.new_tensor([width - 0.5, height - 0.5]) + tau + 2 * G_inv.new_tensor([left, top])
    return torch.cat([linear, ((2 * middle + 1) / up_points - 1)[:, :, None]], 2)


def upsampled(images: torch.Tensor, taps: torch.Tensor, form: torch.memory_format) -> torch.Tensor:
    """Twice the points along both axes: zeros between the pixels, then sym6, with a gain of 2 per axis."""
    n, channels, height, width = images.shape
    spread = F.pad(images.reshape(n, channels, height, 1, width, 1), (0, 1, 0, 0, 0, 1))
    spread = spread.reshape(n, channels, 2 * height, 2 * width).contiguous(memory_format=form)
    spread = F.pad(spread, (6, 5, 6, 5))
    kernel = (2 * taps.flip(0)).expand(channels, 1, 1, -1)
    return F.conv2d(F.conv2d(spread, kernel, groups=channels), kernel.mT, groups=channels)


def downsampled(lattice: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
    """Every other point of the filtered lattice."""
    channels = lattice.shape[1]
    kernel = taps.expand(channels, 1, 1, -1)
    halved = F.conv2d(lattice, kernel, groups=channels, stride=(1, 2))
    return F.conv2d(halved, kernel.mT, groups=channels, stride=(2, 1))


def coloured(images: torch.Tensor, C: torch.Tensor) -> torch.Tensor:
    """C [N, 4, 4] on (r, g, b, 1)."""
    return (torch.bmm(C[:, :3, :3], images.flatten(2)) + C[:, :3, 3:]).reshape(images.shape)


def filtered(images: torch.Tensor, gains: torch.Tensor) -> torch.Tensor:
    """Four bands with gains [N, 4] along rows, then columns: each channel of each sample is a group."""
    n, channels, height, width = images.shape
    taps = gains @ images.new_tensor(BANDS)
    kernel = taps.repeat_interleave(channels, 0).reshape(n * channels, 1, 1, BAND_TAPS)
    padded = F.pad(images, [BAND_MARGIN] * 4, mode="reflect").reshape(
        1, -1, height + BAND_TAPS - 1, width + BAND_TAPS - 1
    )
    result = F.conv2d(F.conv2d(padded, kernel, groups=n * channels), kernel.mT, groups=n * channels)
    return result.reshape(images.shape)


def mask(size: torch.Tensor, center: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """[N, 1, H, W]: 0 where the squares lie, else 1."""
    x = (torch.arange(width, device=size.device) + 0.5) / width
    y = (torch.arange(height, device=size.device) + 0.5) / height
    half = size[:, None] / 2
    cut_x, cut_y = (x - center[:, :1]).abs() < half, (y - center[:, 1:]).abs() < half
    return (~(cut_y[:, :, None] & cut_x[:, None, :]))[:, None].to(size.dtype)
