"""fastload: from a tar shard to a training step, without making the training run wait.

The names below are imported on first use, so `import fastload` loads neither torch nor DALI nor Triton.
"""

from fastload.imports import import_whole

__version__ = "0.1.0"

_HOME_OF = {
    "Loader": "fastload.loader.loader",
    "DataLoader": "fastload.drop_in.dataloader",
    "Dataset": "fastload.drop_in.dataset",
    "Augment": "fastload.augment.pipe",
    "Mixture": "fastload.shards.mixture",
    "Files": "fastload.shards.files",
    "World": "fastload.world",
    "Image": "fastload.fields",
    "Int": "fastload.fields",
    "Text": "fastload.fields",
    "Json": "fastload.fields",
    "Tensor": "fastload.fields",
    "Bytes": "fastload.fields",
    "Custom": "fastload.fields",
    "register_field_stage": "fastload.loader.field_stage",
    "denormalize": "fastload.normalize",
    "FastloadError": "fastload.errors",
    "ConfigError": "fastload.errors",
    "SourceError": "fastload.errors",
    "ShardError": "fastload.errors",
    "FieldError": "fastload.errors",
    "SampleError": "fastload.errors",
    "BadSamplesError": "fastload.errors",
    "FunctionError": "fastload.errors",
    "BatchTimeoutError": "fastload.errors",
    "BackendError": "fastload.errors",
    "CursorError": "fastload.errors",
    "OutOfMemoryError": "fastload.errors",
    "ResourceError": "fastload.errors",
}

_ROOMS = ("augment", "ops")

__all__ = [*_HOME_OF, *_ROOMS, "__version__"]


def __getattr__(name):
    if name not in _HOME_OF and name not in _ROOMS:
        raise AttributeError(f"module 'fastload' has no attribute {name!r}")
    module = import_whole(_HOME_OF.get(name, f"fastload.{name}"), f"fastload.{name}")
    if name in _ROOMS:
        return module
    globals()[name] = getattr(module, name)
    return globals()[name]


def __dir__():
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
