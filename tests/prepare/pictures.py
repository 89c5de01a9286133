"""Small JPEGs for the tests of the verbs."""

import io

import numpy as np
from PIL import Image


def jpeg(seed, width=96, height=64, **options):
    """A JPEG of smooth noise, as bytes."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((width, height))
    target = io.BytesIO()
    image.save(target, "JPEG", quality=90, **options)
    return target.getvalue()
