"""Makes golden.npz with torchvision's own functions: run it where torchvision is installed.

    python tests/data/color_jitter/make.py

Random pictures, with black, white and gray among them; every image gets its own factors and its own order.
"""

from itertools import permutations
from pathlib import Path

import numpy as np
import torch
import torchvision
from torchvision.transforms.v2 import functional as F

STEPS = {"b": F.adjust_brightness, "c": F.adjust_contrast, "s": F.adjust_saturation, "h": F.adjust_hue}


def main():
    rng = np.random.default_rng(5)
    orders = ["".join(one) for one in permutations("bcsh")]
    n = len(orders)
    levels = rng.integers(0, 256, (n, 3, 5, 6), dtype=np.uint8)
    levels[:, :, 0, 0], levels[:, :, 0, 1], levels[:, :, 0, 2] = 0, 255, 130
    factors = np.concatenate([rng.uniform(0.3, 1.9, (n, 3)), rng.uniform(-0.5, 0.5, (n, 1))], 1)
    jittered = []
    for image, factor, order in zip(torch.from_numpy(levels), factors, orders, strict=True):
        image = image.to(torch.float32) / 255
        for letter in order:
            image = STEPS[letter](image, float(factor["bcsh".index(letter)]))
        jittered.append(image.numpy())
    made = {"levels": levels, "factors": factors, "orders": orders, "jittered": np.stack(jittered)}
    np.savez_compressed(Path(__file__).with_name("golden.npz"), version=torchvision.__version__, **made)


if __name__ == "__main__":
    main()
