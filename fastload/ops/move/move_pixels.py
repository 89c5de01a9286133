"""Pixels moved as they are: mirrored, turned by quarters, shifted by whole pixels with reflection.

images: [N, C, H, W] of any dtype and strides. Of each image, in this order, each step only where it is given:

- xflip: columns from the far end. yflip: rows from the far end.
- rotate: w quarter turns counter-clockwise: columns flipped if w is 1 or 2, rows flipped if w is 2 or 3, then
  rows and columns transposed if w is 1 or 3. For square images.
- shift: (x, y) pixels to the right and up: out[h, w] = in[fold(h + y), fold(w - x)], where fold goes on as
  the mirror image without repeating the edge, as often as it takes: with the period 2 n - 2, for n pixels.

Out: a copy of the same shape and dtype, exact on both twins. Gradients of any order with respect to images.
The adjoint of the shift adds to each pixel what its images gave: at most two along an axis, at h = (r - t)
mod P and h = (-r - t) mod P where these are pixels and differ; r the pixel, t the shift, P the period.

Twins: `reference` is torch's indexing, differentiated by torch. `triton` is the operator
`fastload::move_pixels` with a mode; it has no complex numbers.
"""

from typing import Any

from fastload.errors import ConfigError
from fastload.ops.params import check_tensor
from fastload.ops.twins import LINEAR, choose, refuse_forward_mode


def move_pixels(
    images: Any,
    xflip: Any = None,
    yflip: Any = None,
    rotate: Any = None,
    shift: Any = None,
    impl: str = "auto",
) -> Any:
    """The images [N, C, H, W] with their pixels moved: a tensor of the same shape and dtype.

    xflip, yflip: [N] int32, 0: as it is. rotate: [N] int32, quarter turns modulo 4. shift: [N, 2] int32.
    impl: "reference", "triton" (CUDA; on the CPU where TRITON_INTERPRET=1), or "auto": reference on the CPU,
        triton on CUDA.
    Raises ConfigError for arguments that do not fit together, BackendError where `impl` cannot run here.
    """
    import torch

    if not isinstance(images, torch.Tensor) or images.dim() != 4:
        found = list(images.shape) if isinstance(images, torch.Tensor) else type(images).__name__
        raise ConfigError(f"images are {found}: give [N, C, H, W].")
    n, _, height, width = images.shape
    given = {"xflip": xflip, "yflip": yflip, "rotate": rotate, "shift": shift}
    for name, tensor in given.items():
        if tensor is not None:
            shape = (n, 2) if name == "shift" else (n,)
            check_tensor(name, tensor, shape, images.device, "int32")
    if rotate is not None and height != width:
        raise ConfigError(f"images of {height}x{width} pixels cannot be rotated: square ones can.")
    absent = torch.zeros(n, 1, dtype=torch.int32, device=images.device)
    columns = [absent if column is None else column[:, None] for column in (xflip, yflip, rotate)]
    return move_rows(images, torch.cat([*columns, absent.expand(n, 2) if shift is None else shift], 1), impl)


def move_rows(images: Any, rows: Any, impl: str = "auto") -> Any:
    """`move_pixels` for rows [N, 5] int32, of any stride between rows: xflip, yflip, rotate, shift x and y.

    Images that are not square may not be rotated, which is not looked at."""
    if choose(impl, images.device) == "reference":
        return _reference(images, rows)
    from fastload.ops.move import registered

    if images.is_complex():
        raise ConfigError(f'images of {images.dtype} are for impl="reference".')
    refuse_forward_mode(images)
    return registered.move_pixels(images, rows, LINEAR)


def _reference(images: Any, rows: Any) -> Any:
    import torch

    if not images.numel():
        return images.clone()
    height, width = images.shape[2:]
    xflip, yflip, rotate, shift_x, shift_y = rows.long()[:, :, None, None].unbind(1)
    y = _folded(torch.arange(height, device=images.device)[None, :, None] + shift_y, height)
    x = _folded(torch.arange(width, device=images.device)[None, None, :] - shift_x, width)
    turns = rotate % 4
    transposed = turns % 2 == 1
    y, x = torch.where(transposed, x, y), torch.where(transposed, y, x)
    x = torch.where((xflip != 0) ^ ((turns == 1) | (turns == 2)), width - 1 - x, x)
    y = torch.where((yflip != 0) ^ ((turns == 2) | (turns == 3)), height - 1 - y, y)
    index = (y * width + x).flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, index).reshape(images.shape)


def _folded(coordinates: Any, side: int) -> Any:
    """Coordinates on the endless axis of mirror images as pixels of an axis of `side` pixels."""
    period = max(2 * side - 2, 1)
    coordinates = coordinates % period
    return coordinates.minimum(period - coordinates) if side > 1 else coordinates
