"""The arguments of a `Loader`, checked at once and in their final form.

In: the arguments as the user wrote them. Out: a frozen `LoaderConfig`. Promised: all that can be checked
without data is checked here, with a ConfigError of one line; nothing here imports torch.
"""

import contextlib
import copy
import dataclasses
import math
import operator
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fastload.augment.pipe import Augment
from fastload.backends import cache_dir, threads_per_process
from fastload.decode.dali.gate import hardware_share
from fastload.decode.spec import DEFAULT_MAX_PIXELS
from fastload.errors import ConfigError
from fastload.fields import Field, Image
from fastload.normalize import Normalization, normalization
from fastload.order.mixture import shares_of
from fastload.shards.keys import KeyFile
from fastload.shards.mixture import Mixture
from fastload.shards.select import fixed
from fastload.shards.source import Source
from fastload.world import World

DEFAULT_MAX_BAD_FRACTION = 0.01
DEFAULT_MAX_BYTES = 2 << 30  # of batches in flight, and of memory kept for the next ones
DEFAULT_PREFETCH = 4  # batches; enough to hide a read and a switch of threads, few enough for the cache
MAX_THREADS = 1024  # far beyond any use, and every thread has a stack: a typing error must not exhaust memory
MAX_EPOCH = 2**31  # a position (epoch * n + i) must fit int64
RESERVED = ("__key__", "__id__", "__position__", "__mask__", "__source__", "__lambda__")

_CHOICES = {
    "dtype": ("float32", "float16", "bfloat16", "uint8"),
    "layout": ("nchw", "channels_last"),
    "last": ("drop", "partial", "pad", "straddle"),
    "decode": ("auto", "native", "pillow", "dali"),
    "on_bad": ("replace", "raise"),
}
_DEFAULTS = {  # of arguments that may be None
    "prefetch": DEFAULT_PREFETCH,
    "max_bytes": DEFAULT_MAX_BYTES,
    "max_pixels": DEFAULT_MAX_PIXELS,
    "max_bad_fraction": DEFAULT_MAX_BAD_FRACTION,
}


@dataclasses.dataclass(frozen=True)
class LoaderConfig:
    """The arguments of `Loader`, checked; their meaning is documented there."""

    source: Any
    batch_size: int | None
    fields: Mapping[str, Field]
    augment: Augment = dataclasses.field(default_factory=Augment)
    normalize: Any = "gan"
    dtype: str = "float32"
    layout: str = "nchw"
    shuffle: bool = True
    window: int | None = None
    seed: int = 0
    epochs: int | None = 1
    last: str = "drop"
    select: Any = None
    exclude: Any = None
    map_batch: Callable[[dict], Any] | None = None
    device: Any = "auto"
    decode: str = "auto"
    threads: int | None = None
    prefetch: int = DEFAULT_PREFETCH
    max_bytes: int = DEFAULT_MAX_BYTES
    max_pixels: int = DEFAULT_MAX_PIXELS
    on_bad: str = "replace"
    max_bad_fraction: float = DEFAULT_MAX_BAD_FRACTION
    ledger: Any = "auto"
    rank: int | None = None
    world_size: int | None = None
    deterministic: bool = True
    hw_decoder_load: float | None = None
    sampler: Iterable | None = None
    batch_sampler: Iterable | None = None
    timeout_seconds: float | None = None
    shares: tuple[int, ...] | None = dataclasses.field(init=False, default=None)  # of a mixture's sources

    def __post_init__(self) -> None:
        is_mixture = isinstance(self.source, Mixture)
        if is_mixture:
            self._set("shares", shares_of(self.source.weights))
        else:
            self._set("source", Source.of(self.source))
        for name in ("select", "exclude"):
            self._set(name, fixed(name, getattr(self, name), is_mixture))
        self._set("normalize", copy.deepcopy(self.normalize))
        with contextlib.suppress(ConfigError):  # raised where the folder is needed
            cache_dir()  # makes a relative folder absolute now, as for all other paths
        self._set("fields", _fields(self.fields))
        self._set("augment", Augment() if self.augment is None else self.augment)
        self._set("dtype", _dtype(self.dtype))
        self._set("layout", "channels_last" if self.layout == "nhwc" else self.layout)
        self._check_numbers()
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            _require(value in allowed, name, value, f"one of {', '.join(map(repr, allowed))}")
        self._set("ledger", _ledger(self.ledger))
        if isinstance(self.exclude, KeyFile) and self.exclude.path == self.ledger:
            raise ConfigError(
                f"exclude={self.exclude.given!r} is the ledger that this run writes, so a resumed run would "
                "exclude other samples. Copy the file, and exclude= the copy."
            )
        self._check_order()
        self._check_samplers()
        _require(isinstance(self.augment, Augment), "augment", self.augment, "an fl.Augment")
        is_function = self.map_batch is None or callable(self.map_batch)
        _require(is_function, "map_batch", self.map_batch, "a function of the batch")
        self._check_mixing()
        self._check_decoder_load()
        normalization(self.normalize)
        for name in self.image_fields:
            self.normalization_of(name)

    def world(self) -> World:
        """The world as it is now."""
        return World.current(self.rank, self.world_size)

    def threads_here(self) -> int:
        """Decoding threads on this machine."""
        return self.threads or threads_per_process(self.world())

    @property
    def is_sampled(self) -> bool:
        """Whether a user's sampler selects the samples."""
        return self.sampler is not None or self.batch_sampler is not None

    @property
    def max_batch_size(self) -> int | None:
        """Samples of the largest batch; None where the batch sampler has no batch_size."""
        return getattr(self.batch_sampler, "batch_size", None) if self.batch_size is None else self.batch_size

    @property
    def image_fields(self) -> dict[str, Image]:
        return {name: field for name, field in self.fields.items() if isinstance(field, Image)}

    def normalization_of(self, name: str) -> Normalization:
        """The normalization of the image field `name`: its own, or else the loader's."""
        own = self.fields[name].normalize
        return normalization(self.normalize if own is None else own)

    def _check_numbers(self):
        for name, default in _DEFAULTS.items():
            if getattr(self, name) is None:
                self._set(name, default)
        if self.batch_sampler is None:
            self._set("batch_size", count("batch_size", self.batch_size, 1))
        self._set("seed", count("seed", self.seed, 0, 2**64 - 1))
        for name in ("window", "epochs", "threads", "prefetch", "max_bytes", "max_pixels"):
            if getattr(self, name) is not None:
                max_value = MAX_THREADS if name == "threads" else math.inf
                self._set(name, count(name, getattr(self, name), 1, max_value))
        fraction, seconds = self.max_bad_fraction, self.timeout_seconds
        is_fraction = _is_number(fraction) and 0 <= fraction <= 1
        _require(is_fraction, "max_bad_fraction", fraction, "a number in [0, 1], such as 0.01")
        self._set("max_bad_fraction", float(fraction))
        is_timeout = seconds is None or (_is_number(seconds) and seconds > 0)
        _require(is_timeout, "timeout_seconds", seconds, "a number above 0, or None to wait for ever")

    def _check_order(self):
        is_bool = isinstance(self.shuffle, bool)
        _require(is_bool, "shuffle", self.shuffle, "True or False (a number of samples is window=)")
        if self.window is not None and not self.shuffle:
            raise ConfigError(
                f"window={self.window} needs shuffle=True, got shuffle=False. Use one of the two."
            )
        if self.rank is not None or self.world_size is not None:
            self.world()

    def _check_samplers(self):
        given = [name for name in ("sampler", "batch_sampler") if getattr(self, name) is not None]
        if not given:
            return
        name = given[0]
        sampler = getattr(self, name)
        _require(isinstance(sampler, Iterable), name, sampler, "an iterable")
        if self.batch_sampler is not None and self.batch_size is not None:
            raise ConfigError(
                f"batch_size must be None with batch_sampler=, which determines it, got {self.batch_size!r}."
            )
        others = [*given[1:], *(x for x in ("window", "rank", "world_size") if getattr(self, x) is not None)]
        if others:
            raise ConfigError(f"{name}= alone selects the samples of this rank. Drop {others[0]}=.")
        if isinstance(self.source, Mixture):
            raise ConfigError(f"{name}= would replace the mixture's order. Use one of the two.")
        if self.last not in ("drop", "partial"):
            raise ConfigError(f'{name}= needs last="drop" or "partial", got last="{self.last}".')

    def _check_mixing(self):
        if not self.augment.mixes:
            return
        if self.dtype == "uint8":
            raise ConfigError('mixup and cutmix need a float dtype, got dtype="uint8". Use "float32".')
        clashes = [f"{name}.mixed" for name in self.fields if f"{name}.mixed" in self.fields]
        if clashes:
            raise ConfigError(f"fields: mixup and cutmix add the entry {clashes[0]!r}. Rename that field.")
        if not self.image_fields:
            raise ConfigError("mixup and cutmix need an image field, but fields has none. Drop them.")
        for name, field in self.image_fields.items():
            if field.like or field.filter == "nearest":
                raise ConfigError(
                    f"mixup and cutmix: fields[{name!r}] is a mask, which cannot be mixed. Mix in map_batch "
                    "instead."
                )

    def _check_decoder_load(self):
        is_bool = isinstance(self.deterministic, bool)
        _require(is_bool, "deterministic", self.deterministic, "True or False")
        if self.hw_decoder_load is not None and self.decode in ("native", "pillow"):
            raise ConfigError(
                f'hw_decoder_load={self.hw_decoder_load!r} needs decode="dali", got decode="{self.decode}".'
            )
        hardware_share(self.hw_decoder_load, self.deterministic)

    def _set(self, name: str, value: Any):
        object.__setattr__(self, name, value)


def count(name: str, value: Any, min_value: int, max_value: float = math.inf) -> int:
    """`value` as an int in [min_value, max_value]. Raises ConfigError, which names the argument."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    is_valid = number is not None and not isinstance(value, bool) and min_value <= number <= max_value
    highest = "2**64 - 1" if max_value == 2**64 - 1 else max_value
    limits = f"of at least {min_value}" if max_value == math.inf else f"from {min_value} to {highest}"
    _require(is_valid, name, value, f"an integer {limits}")
    return number


def _require(is_valid: bool, name: str, value: Any, expected: str):
    if not is_valid:
        raise ConfigError(f"{name} must be {expected}, got {value!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _ledger(ledger: Any) -> str | None:
    """An absolute path, which stays the same file when the program changes its folder."""
    if ledger is None or ledger == "auto":
        return ledger
    is_path = isinstance(ledger, (str, os.PathLike)) and bool(os.fspath(ledger))
    _require(is_path, "ledger", ledger, 'the path of a file, "auto", or None')
    path = os.path.abspath(os.path.expanduser(os.fspath(ledger)))
    is_file = "\0" not in path and not os.path.isdir(path)
    _require(is_file, "ledger", ledger, "the path of a file, such as bad_samples.jsonl")
    return path


def _dtype(dtype: Any) -> Any:
    """The name of a known dtype; others as given. torch's own dtypes print as "torch.float32"."""
    name = str(dtype).removeprefix("torch.")
    name = {"half": "float16", "float": "float32"}.get(name, name)
    return name if name in _CHOICES["dtype"] else dtype


def _fields(fields: Any) -> dict[str, Field]:
    example = 'a dict of at least one field, such as {"image": fl.Image("jpg", size=256)}'
    _require(isinstance(fields, Mapping) and bool(fields), "fields", fields, example)
    for name, field in fields.items():
        if not isinstance(name, str) or name in RESERVED:
            raise ConfigError(
                f"fields: a field's name must be a string other than {', '.join(RESERVED)}, got {name!r}."
            )
        expected = "fl.Image, fl.Int, fl.Text or another field"
        _require(isinstance(field, Field), f"fields[{name!r}]", field, expected)
        if isinstance(field, Image):
            _check_image(name, field, fields)
    return dict(fields)


def _check_image(name: str, image: Image, fields: Mapping[str, Field]):
    if image.like is None and image.size is None:
        raise ConfigError(f'fields[{name!r}]: an image needs a size, such as size=256, or like="image".')
    guide = fields.get(image.like) if image.like is not None else None
    if image.like is not None and (not isinstance(guide, Image) or guide.like is not None):
        raise ConfigError(
            f"fields[{name!r}]: like= must name an image field with a size of its own, got {image.like!r}."
        )
