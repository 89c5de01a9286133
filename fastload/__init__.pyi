"""The names of fastload for type checkers and editors, which do not run the lazy imports of __init__.py."""

from fastload import _native as _native
from fastload import augment as augment
from fastload import ops as ops
from fastload.augment.pipe import Augment as Augment
from fastload.drop_in.dataloader import DataLoader as DataLoader
from fastload.drop_in.dataset import Dataset as Dataset
from fastload.errors import BackendError as BackendError
from fastload.errors import BadSamplesError as BadSamplesError
from fastload.errors import BatchTimeoutError as BatchTimeoutError
from fastload.errors import ConfigError as ConfigError
from fastload.errors import CursorError as CursorError
from fastload.errors import FastloadError as FastloadError
from fastload.errors import FieldError as FieldError
from fastload.errors import FunctionError as FunctionError
from fastload.errors import OutOfMemoryError as OutOfMemoryError
from fastload.errors import ResourceError as ResourceError
from fastload.errors import SampleError as SampleError
from fastload.errors import ShardError as ShardError
from fastload.errors import SourceError as SourceError
from fastload.fields import Bytes as Bytes
from fastload.fields import Custom as Custom
from fastload.fields import Image as Image
from fastload.fields import Int as Int
from fastload.fields import Json as Json
from fastload.fields import Tensor as Tensor
from fastload.fields import Text as Text
from fastload.loader.field_stage import register_field_stage as register_field_stage
from fastload.loader.loader import Loader as Loader
from fastload.normalize import denormalize as denormalize
from fastload.shards.files import Files as Files
from fastload.shards.mixture import Mixture as Mixture
from fastload.world import World as World

__version__: str
