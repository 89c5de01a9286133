"""A filter of four octaves with its own gains for each image, along rows and then columns.

images: [N, C, H, W] floats, H, W >= 22. gains: [N, 4], of the bands in wavelets.py, the lowest octave first;
(1, 1, 1, 1) copies, on `triton` up to rounding. The taps are q = sum_b gains[b] BANDS[b], 43 of them and
symmetric; out = sum_t q[t] x[o + t - 21] along each axis, the image reflected at its borders without
repeating the edge.
Gradients of any order with respect to images. Twins agree to 1e-5 of the range of the values, per unit of
gain.
"""

from typing import Any

from fastload.ops.ada.stages.wavelets import BAND_MARGIN, BAND_TAPS, BANDS


def filter_reference(images: Any, gains: Any) -> Any:
    """The contract in torch."""
    import torch

    bands = images.new_tensor(BANDS)
    taps = (gains.to(images.dtype)[:, :, None] * bands).sum(1)
    filtered = _along(_along(images, taps, -1), taps, -2)
    return torch.where((gains == 1).all(1)[:, None, None, None], images, filtered)


def _along(images: Any, taps: Any, axis: int) -> Any:
    import torch

    side = images.shape[axis]
    result = 0.0
    for t in range(BAND_TAPS):
        coordinate = (torch.arange(side, device=images.device) + t - BAND_MARGIN).abs()
        folded = side - 1 - (side - 1 - coordinate).abs()
        result = result + images.index_select(axis, folded) * taps[:, t, None, None, None]
    return result
