"""The arguments of each part of a loader, made once from the loader's own.

In: a LoaderConfig. Out: a spec for the decoder, one for the pipeline, one for the order. Promised: no part
sees more of the loader's arguments than it uses.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from fastload.augment.pipe import Augment
from fastload.decode.image_decoder import DecodeSpec
from fastload.fields import Field, Int
from fastload.loader.config import LoaderConfig
from fastload.loader.describe import backend_of
from fastload.shards.mixture import Mixture
from fastload.world import World


@dataclass(frozen=True)
class PipelineSpec:
    """How batches are made. source_names: of a mixture, else []."""

    fields: Mapping[str, Field]
    augment: Augment
    decode: DecodeSpec
    backend_name: str
    device: Any
    source_names: list[str]
    last: str
    on_bad: str
    prefetch: int
    timeout_seconds: float | None
    map_batch: Callable[[dict], Any] | None


@dataclass(frozen=True)
class OrderSpec:
    """Which samples come. mixture: where there are several sources. has_labels: whether labels are loaded.
    world(): the current world.
    """

    mixture: Mixture | None
    has_labels: bool
    shuffle: bool
    window: int | None
    seed: int
    epochs: int | None
    last: str
    batch_size: int | None
    sampler: Iterable | None
    batch_sampler: Iterable | None
    world: Callable[[], World]

    @property
    def is_sampled(self) -> bool:
        """Whether a sampler of the user's says which samples come."""
        return self.sampler is not None or self.batch_sampler is not None


def decode_spec(config: LoaderConfig) -> DecodeSpec:
    normalizations = {name: config.normalization_of(name) for name in config.image_fields}
    xflip, max_batch = config.augment.xflip, config.max_batch_size
    return _spec(DecodeSpec, config, normalizations=normalizations, xflip=xflip, max_batch=max_batch)


def pipeline_spec(config: LoaderConfig) -> PipelineSpec:
    """Raises BackendError where no decoder can run here."""
    return _spec(
        PipelineSpec,
        config,
        decode=decode_spec(config),
        backend_name=backend_of(config).name if config.image_fields else "",
        source_names=config.source.names if isinstance(config.source, Mixture) else [],
    )


def order_spec(config: LoaderConfig) -> OrderSpec:
    mixture = config.source if isinstance(config.source, Mixture) else None
    has_labels = any(isinstance(field, Int) for field in config.fields.values())
    return _spec(OrderSpec, config, mixture=mixture, has_labels=has_labels)


def _spec(kind: type, config: LoaderConfig, **made: Any) -> Any:
    """A spec of that kind; what is not `made` is an argument of the loader."""
    names = {field.name for field in fields(kind)} - made.keys()
    return kind(**made, **{name: getattr(config, name) for name in names})
