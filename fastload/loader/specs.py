"""What each part of a loader has to know, made once from the loader's arguments.

In: a LoaderConfig. Out: a spec for the pixels, one for the pipeline, one for the order. Promised: nothing
below the loader sees more of its arguments than it uses.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fastload.augment.pipe import Augment
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
    decode: Any
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
    normalizations = {name: config.normalization_of(name) for name in config.image_fields}
    return PixelSpec(config.fields, config.augment, normalizations, config.dtype, config.layout, config.seed)


def pipeline_spec(config: LoaderConfig) -> PipelineSpec:
    """Raises BackendError where no decoder can run here."""
    return PipelineSpec(
        fields=config.fields,
        pixels=pixel_spec(config),
        decode=config,
        backend_name=backend_of(config).name if config.image_fields else "",
        device=config.device,
        source_names=config.source.names if isinstance(config.source, Mixture) else [],
        seed=config.seed,
        last=config.last,
        on_bad=config.on_bad,
        max_pixels=config.max_pixels,
        prefetch=config.prefetch,
        timeout_seconds=config.timeout_seconds,
        map_batch=config.map_batch,
    )


def order_spec(config: LoaderConfig) -> OrderSpec:
    return OrderSpec(
        mixture=config.source if isinstance(config.source, Mixture) else None,
        has_labels=any(isinstance(field, Int) for field in config.fields.values()),
        shuffle=config.shuffle,
        window=config.window,
        seed=config.seed,
        epochs=config.epochs,
        last=config.last,
        batch_size=config.batch_size,
        sampler=config.sampler,
        batch_sampler=config.batch_sampler,
        world=config.world,
    )
