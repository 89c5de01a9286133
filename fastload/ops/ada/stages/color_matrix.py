"""A 4 x 4 matrix on the colours of each image: (r, g, b) becomes C (r, g, b, 1).

images: [N, C, H, W] floats, C 3 or 1. matrices: [N, 4, 4]; the last row is not read. Of a gray image (one
channel) the result is the mean of the three rows' results: v (r0 + r1 + r2) + r3, r the mean of the rows.
Nothing is clamped. Gradients of any order with respect to images. Twins agree to 1e-6 of the largest product.
"""

from typing import Any


def color_reference(images: Any, matrices: Any) -> Any:
    """The contract in torch, with nothing in it that autocast or TF32 would round."""
    matrices = matrices.to(images.dtype)
    factors, offset = matrices[:, :3, :3], matrices[:, :3, 3]
    if images.shape[1] == 1:
        factors, offset = factors.mean(1).sum(1)[:, None, None], offset.mean(1)[:, None]
    products = factors[..., None, None] * images[:, None]
    return products.sum(2) + offset[..., None, None]
