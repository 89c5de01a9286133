"""From dice to matrices: what is random in a picture, and how it is drawn.

`pipe.Augment` is what a loader takes; `linear` holds one small class for each augmentation that is a matrix,
`mixing` what needs a second image of the batch. The pixels are changed by `fastload.ops`.
"""

from fastload.augment.linear import Brightness, Rotate, Scale, Translate, XFlip, YFlip
from fastload.augment.pipe import Augment

__all__ = ["Augment", "Brightness", "Rotate", "Scale", "Translate", "XFlip", "YFlip"]
