"""A rectangle of each image becomes 0.

images: [N, C, H, W] floats. size: [N], the sides of the rectangle as a share of the image's sides; center:
[N, 2], its centre (x, y) in the same measure. Pixel (row h, column w) is 0 where |(w + 1/2) / W - x| < size /
2 and |(h + 1/2) / H - y| < size / 2; size 0 cuts nothing, and a rectangle may hang over the edge. Gradients
of any order with respect to images. Twins are equal, but where an edge lies within float32's rounding of a
pixel's centre.
"""

from typing import Any


def kept(size: Any, center: Any, height: int, width: int, dtype: Any) -> Any:
    """[N, 1, height, width]: False where the rectangles lie; computed in `dtype`."""
    import torch

    x = (torch.arange(width, dtype=dtype, device=size.device) + 0.5) / width
    y = ((torch.arange(height, dtype=dtype, device=size.device) + 0.5) / height)[:, None]
    half = size.to(dtype)[:, None, None] / 2
    center_x, center_y = center.to(dtype)[:, :, None, None].unbind(1)
    return (((x - center_x).abs() >= half) | ((y - center_y).abs() >= half))[:, None]
