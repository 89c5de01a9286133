"""The names of fastload.augment for type checkers and editors; see __init__.py."""

from fastload.augment.ada import AdaPipe as AdaPipe
from fastload.augment.ada_controller import AdaController as AdaController
from fastload.augment.diff_augment import DiffAugment as DiffAugment
from fastload.augment.edm import AugmentPipe as AugmentPipe
from fastload.augment.linear import Brightness as Brightness
from fastload.augment.linear import Rotate as Rotate
from fastload.augment.linear import Scale as Scale
from fastload.augment.linear import Translate as Translate
from fastload.augment.linear import XFlip as XFlip
from fastload.augment.linear import YFlip as YFlip
from fastload.augment.pipe import Augment as Augment
from fastload.augment.pipe import register_linear as register_linear
