"""What each part of a loader has to know, made once from the loader's arguments.

In: a LoaderConfig. Out: a spec for the pixels, one for the pipeline, one for the order. Promised: nothing
below the loader sees more of its arguments than it uses.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from fastload.augment.pipe import Augment
from fastload.decode.image_decoder import DecodeSpec
from fastload.fields import Field, Image, Int
from fastload.loader.config import LoaderConfig
from fastload.loader.describe import backend_of
from fastload.normalize import Normalization
from fastload.shards.mixture import Mixture
from fastload.world import World


@dataclass(frozen=True)
class PixelSpec:
    """How uint8 pixels become tensors. normalizations: of each image field."""

    fields: Mapping[str, Field]
    augment: Augment
    normalizations: Mapping[str, Normalization]
    dtype: str
    layout: str
    seed: int

    @property
    def image_fields(self) -> dict[str, Image]:
        return {name: field for name, field in self.fields.items() if isinstance(field, Image)}


@dataclass(frozen=True)
class PipelineSpec:
    """How batches are made. source_names: of a mixture, else []. seed: of the replacement samples."""

    fields: Mapping[str, Field]
    pixels: PixelSpec
    decode: DecodeSpec
    backend_name: str
    device: Any
    source_names: list[str]
    seed: int
    last: str
    on_bad: str
    max_pixels: int
    prefetch: int
    timeout_seconds: float | None
    map_batch: Callable[[dict], Any] | None


@dataclass(frozen=True)
class OrderSpec:
    """Which samples come. mixture: where there are several sources. has_labels: whether labels are loaded.
    world: asks who this rank is.
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


def pixel_spec(config: LoaderConfig) -> PixelSpec:
    return _spec(PixelSpec, config, normalizations=_normalizations(config))


def decode_spec(config: LoaderConfig) -> DecodeSpec:
    made = {"normalizations": _normalizations(config), "xflip": config.augment.xflip}
    return _spec(DecodeSpec, config, max_batch=config.most_samples, **made)


def pipeline_spec(config: LoaderConfig) -> PipelineSpec:
    """Raises BackendError where no decoder can run here."""
    return _spec(
        PipelineSpec,
        config,
        pixels=pixel_spec(config),
        decode=decode_spec(config),
        backend_name=backend_of(config).name if config.image_fields else "",
        source_names=config.source.names if isinstance(config.source, Mixture) else [],
    )


def order_spec(config: LoaderConfig) -> OrderSpec:
    mixture = config.source if isinstance(config.source, Mixture) else None
    has_labels = any(isinstance(field, Int) for field in config.fields.values())
    return _spec(OrderSpec, config, mixture=mixture, has_labels=has_labels)


def _normalizations(config: LoaderConfig) -> dict[str, Normalization]:
    return {name: config.normalization_of(name) for name in config.image_fields}


def _spec(kind: type, config: LoaderConfig, **made: Any) -> Any:
    """A spec of that kind; what is not `made` are arguments of the loader."""
    return kind(
        **{one.name: getattr(config, one.name) for one in fields(kind) if one.name not in made}, **made
    )
