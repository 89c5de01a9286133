"""From random draws to matrices: what is random in an image, and how it is drawn.

`pipe.Augment` is what a loader takes; `linear` holds one small class for each augmentation that is a matrix,
`mixing` those that need a second image of the batch. The others are modules, for images that are on the
device already and need gradients: `AdaPipe` (steered by `AdaController`) and `DiffAugment` of a GAN's
discriminator, `AugmentPipe` for diffusion on little data. They need torch, and are imported on first use. The
pixels are changed by `fastload.ops`.
"""

from fastload.augment.linear import Brightness, Rotate, Scale, Translate, XFlip, YFlip
from fastload.augment.pipe import Augment, register_linear
from fastload.imports import import_whole

_HOME_OF = {
    "AdaController": "fastload.augment.ada_controller",
    "AdaPipe": "fastload.augment.ada",
    "AugmentPipe": "fastload.augment.edm",
    "DiffAugment": "fastload.augment.diff_augment",
}

__all__ = [
    *_HOME_OF,
    "Augment",
    "Brightness",
    "Rotate",
    "Scale",
    "Translate",
    "XFlip",
    "YFlip",
    "register_linear",
]


def __getattr__(name):
    if name not in _HOME_OF:
        raise AttributeError(f"module 'fastload.augment' has no attribute {name!r}")
    value = getattr(import_whole(_HOME_OF[name], f"fastload.augment.{name}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
