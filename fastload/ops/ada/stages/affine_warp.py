"""An affine warp of each image of a batch without aliasing: doubled by a wavelet, sampled, halved by it.

images: [N, C, H, W] floats, H, W >= 2. G_inv: [N, 3, 3], maps a pixel of the output to the point of the input
that it shows, both as (x, y, 1) in centred pixel coordinates, x = column - (W - 1) / 2, y = row - (H - 1) /
2; its last row is not read. Out: the same shape and dtype. With f the 12 taps of sym6 (wavelets.py; they sum
to 1), n a side of the image, everything on the lattice of half pixels and each step along both axes alike:

1. extend: x[i] for i in [-(n - 1), 2 n - 2] is the mirror image without repeating the edge; beyond it is 0.
2. upsample: up[j] = 2 sum_i f[j + 5 - 2 i] x[i], for j in [-2 (n - 1), 4 n - 3]; beyond it is 0.
3. sample: y[e], e = (ex, ey) with ex in [-5, 2 W + 4] and ey in [-5, 2 H + 4], is `up` at A e + tau, linear
   between its points, where G_inv = [A b; 0 1], tau = 2 (b + c - A c), c = ((W - 1) / 2, (H - 1) / 2).
4. downsample: out[o] = sum_k f[k] y[2 o + k - 5], k in [0, 12).

Without a warp (A = 1 and whole pixels of translation) the steps together are a copy; a mirror image or a
quarter turn also filters, because sym6 is not symmetric. This is the geometry of StyleGAN2-ADA (arXiv
2006.06676), with the largest margin that one reflection gives in place of one that depends on the batch.

Gradients of any order with respect to images, none to G_inv. Twins: `reference` computes in float32, in
float64 for float64, with coordinates in float64; `native` and `triton` agree with it to 3e-5 of the range of
the values (white noise, float32; 2e-6 on smooth images).

Where the matrix is 1 and b is of whole pixels, all of them copy, unless taps reach beyond the mirror images
(|b| up to n - 4). What is not finite makes every pixel that it has a part in other than finite, be the part
0; of an axis that is only moved some twins take no more than the pixel that it is moved to.
"""

from typing import Any

from fastload.ops.ada.stages.wavelets import SYM6


def warp_reference(images: Any, G_inv: Any) -> Any:
    """The contract in torch, image by image, each with as much of the doubled plane as it looks at."""
    import torch

    return torch.stack([_warped(image, matrix) for image, matrix in zip(images, G_inv, strict=True)])


def _warped(image: Any, G_inv: Any) -> Any:
    import torch

    height, width = image.shape[1:]
    moved = _only_moved(image, G_inv)
    if moved is not None:
        return moved
    A = G_inv[:2, :2].double()
    center = torch.tensor([(width - 1) / 2, (height - 1) / 2], dtype=torch.float64, device=image.device)
    tau = 2 * (G_inv[:2, 2].double() + center - (A * center).sum(1))
    ex = torch.arange(-5, 2 * width + 5, dtype=torch.float64, device=image.device)
    ey = torch.arange(-5, 2 * height + 5, dtype=torch.float64, device=image.device)[:, None]
    sx = A[0, 0] * ex + A[0, 1] * ey + tau[0]
    sy = A[1, 0] * ex + A[1, 1] * ey + tau[1]
    box_x, box_y = box_of(sx, width), box_of(sy, height)
    up = _upsampled(_upsampled(image, box_x, -1), box_y, -2)
    return _downsampled(_downsampled(_sampled(up, sx - box_x[0], sy - box_y[0]), -1), -2)


def _only_moved(image: Any, G_inv: Any) -> Any:
    """The image moved by whole pixels, where the matrix is 1 and no tap reaches beyond the mirror images."""
    import torch

    (a, b, tx), (c, d, ty) = G_inv[:2].tolist()
    if (a, b, c, d) != (1.0, 0.0, 0.0, 1.0):
        return None
    for shift, axis in ((tx, 2), (ty, 1)):
        side = image.shape[axis]
        if shift != int(shift) or abs(shift) > side - 4:
            return None
        coordinate = (torch.arange(side, device=image.device) + int(shift)).abs()
        image = image.index_select(axis, side - 1 - (side - 1 - coordinate).abs())
    return image


def box_of(coordinates: Any, side: int) -> tuple[int, int]:
    """[start, stop) of the points of `up` that lie next to the coordinates; at least one point."""
    first, last = -2 * (side - 1), 4 * side - 3
    start = min(max(int(coordinates.min().floor()), first), last)
    stop = min(max(int(coordinates.max().floor()) + 2, first + 1), last + 1)
    return start, max(stop, start + 1)


def _upsampled(values: Any, box: tuple[int, int], axis: int) -> Any:
    """Steps 1 and 2 along an axis, for the points in [start, stop)."""
    import torch

    side = values.shape[axis]
    taps = values.new_tensor(SYM6)
    j = torch.arange(*box, device=values.device)
    shape = [-1] + [1] * (-axis - 1)
    up = 0.0
    for k in range(6):
        i = (j - 5) // 2 + k  # of the six pixels that a point is made of
        there = (i >= -(side - 1)) & (i <= 2 * side - 2)
        folded = (side - 1 - (side - 1 - i.abs()).abs()).clamp(0, side - 1)
        weight = 2 * taps[j + 5 - 2 * i]
        taken = values.index_select(axis, folded) * weight.reshape(shape)
        up = up + torch.where(there.reshape(shape), taken, 0.0)
    return up


def _sampled(up: Any, sx: Any, sy: Any) -> Any:
    """Step 3; sx, sy: coordinates [.., ..] in `up` [C, .., ..], float64."""
    import torch

    height, width = up.shape[1:]
    x, y = sx.floor(), sy.floor()
    flat, result = up.reshape(len(up), -1), 0.0
    for step_y in (0, 1):
        for step_x in (0, 1):
            at_x, at_y = x + step_x, y + step_y
            weight = (1 - (sx - at_x).abs()) * (1 - (sy - at_y).abs())
            there = (at_x >= 0) & (at_x < width) & (at_y >= 0) & (at_y < height)
            index = torch.where(there, at_y * width + at_x, 0.0).long()
            taken = flat.index_select(1, index.flatten()).reshape(len(up), *sx.shape)
            result = result + torch.where(there, taken * weight.to(up.dtype), 0.0)
    return result


def _downsampled(values: Any, axis: int) -> Any:
    """Step 4 along an axis whose first point is e = -5."""
    side = (values.shape[axis] - 10) // 2
    halves = values.unfold(axis, 12, 2)  # [.., windows, .., 12]
    assert halves.shape[axis - 1] == side
    return (halves * values.new_tensor(SYM6)).sum(-1)
