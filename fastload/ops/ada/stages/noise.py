"""Gaussian noise of its own strength for each image, given or made from a key.

images: [N, C, H, W] floats; sigma: [N]. Out: images + sigma eps. eps: [N, C, H, W] as given, or standard
normals made from noise_key [N, 2] int32, the two words of a Philox 4x32-10 key: for row h, column w and
channel c the counter is (h W + w, 0, NOISE, c // 4) (purpose as in rng.py), of whose words 2 k and 2 k + 1, k
= (c % 4) // 2, Box and Muller's pair is made: with u = ((a >> 8) + 1) 2^-24 in (0, 1] and v = (b >> 8) 2^-24,
the even channel gets sqrt(-2 ln u) cos(2 pi v), the odd one sin. Gradients with respect to images are those
of a copy.
"""

import math
from typing import Any

from fastload.rng import Purpose


def normals_of(noise_key: Any, channels: int, height: int, width: int, dtype: Any = None) -> Any:
    """The noise that noise_key [N, 2] int32 stands for: [N, channels, height, width], `dtype` or float32."""
    import torch

    dtype = dtype or torch.float32
    pixel = torch.arange(height * width, device=noise_key.device)
    key = noise_key.to(torch.int64)[:, :, None] & 0xFFFFFFFF
    pairs = []
    for block in range((channels + 3) // 4):
        w0, w1, w2, w3 = _philox(key[:, 0], key[:, 1], pixel, block)
        pairs += [*box_muller(w0, w1, dtype), *box_muller(w2, w3, dtype)]
    return torch.stack(pairs[:channels], 1).reshape(-1, channels, height, width)


def box_muller(a: Any, b: Any, dtype: Any) -> tuple:
    """Two standard normals of two words (int64 tensors in [0, 2^32))."""
    u, v = ((a >> 8) + 1).to(dtype) * 2.0**-24, (b >> 8).to(dtype) * 2.0**-24
    radius, angle = (-2 * u.log()).sqrt(), math.tau * v
    return radius * angle.cos(), radius * angle.sin()


def _philox(key0: Any, key1: Any, pixel: Any, block: int) -> tuple:
    """rng.py's generator on int64 tensors that hold words: key [N, 1], pixel [P] -> four of [N, P]."""
    low = 0xFFFFFFFF
    c0, c1 = pixel + 0 * key0, 0 * key0 + 0 * pixel
    c2, c3 = c1 + int(Purpose.NOISE), c1 + block
    for _ in range(10):
        high0, low0 = _product(0xD2511F53, c0)
        high1, low1 = _product(0xCD9E8D57, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ key0, low1, high0 ^ c3 ^ key1, low0
        key0, key1 = (key0 + 0x9E3779B9) & low, (key1 + 0xBB67AE85) & low
    return c0, c1, c2, c3


def _product(factor: int, word: Any) -> tuple:
    """High and low word of factor * word, without the int64 overflow of the product itself."""
    of_low, of_high = factor * (word & 0xFFFF), factor * (word >> 16)
    middle = of_high + (of_low >> 16)
    return middle >> 16, ((middle & 0xFFFF) << 16) | (of_low & 0xFFFF)
