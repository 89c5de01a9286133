"""How a loader was asked for, judged at once: every argument of `Loader` in its final form.

In: the arguments as the user wrote them. Out: a frozen `LoaderConfig`. Promised: what can be judged without
data is judged here, with a ConfigError of one line; nothing here imports torch.
"""

import contextlib
import copy
import math
import operator
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
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

DTYPES = ("float32", "float16", "bfloat16", "uint8")
LAYOUTS = ("nchw", "channels_last")
LASTS = ("drop", "partial", "pad", "straddle")
DECODERS = ("auto", "native", "pillow", "dali")
ON_BAD = ("replace", "raise")
DEFAULT_MAX_BAD_FRACTION = 0.01
DEFAULT_MAX_BYTES = 2 << 30  # of batches on their way and of memory that waits for the next ones
DEFAULT_PREFETCH = 4  # batches; enough to hide a read and a change of threads, few enough for the cache
MOST_THREADS = 1024  # far beyond any machine's use, and a thread has a stack: a slip must not take them all
MAX_EPOCH = 2**31  # a position (epoch * n + i) must fit int64
RESERVED = ("__key__", "__id__", "__position__", "__mask__", "__source__", "__lambda__")


@dataclass(frozen=True)
class LoaderConfig:
    """The arguments of `Loader`, checked; see there for what they mean."""

    source: Any
    batch_size: int | None
    fields: Mapping[str, Field]
    augment: Augment = field(default_factory=Augment)
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
    shares: tuple[int, ...] | None = field(init=False, default=None)  # of the sources of a mixture

    def __post_init__(self):
        is_mixture = isinstance(self.source, Mixture)
        if is_mixture:
            self._keep("shares", shares_of(self.source.weights))
        else:
            self._keep("source", Source.of(self.source))
        for name in ("select", "exclude"):
            self._keep(name, fixed(name, getattr(self, name), is_mixture))
        self._keep("normalize", copy.deepcopy(self.normalize))
        with contextlib.suppress(ConfigError):  # it is raised where the folder is needed
            cache_dir()  # a relative one is fixed now, as all that is given
        if self.batch_sampler is None:
            self._keep("batch_size", count("batch_size", self.batch_size, 1))
        self._keep("fields", _fields(self.fields))
        self._keep("augment", Augment() if self.augment is None else self.augment)
        self._keep("dtype", _dtype(self.dtype))
        self._keep("layout", "channels_last" if self.layout == "nhwc" else self.layout)
        self._keep("seed", count("seed", self.seed, 0, 2**64 - 1))
        self._keep("prefetch", count("prefetch", _or(self.prefetch, DEFAULT_PREFETCH), 1))
        self._keep("max_bytes", count("max_bytes", _or(self.max_bytes, DEFAULT_MAX_BYTES), 1))
        self._keep("max_pixels", count("max_pixels", _or(self.max_pixels, DEFAULT_MAX_PIXELS), 1))
        for name, highest in (("window", math.inf), ("epochs", math.inf), ("threads", MOST_THREADS)):
            if getattr(self, name) is not None:
                self._keep(name, count(name, getattr(self, name), 1, highest))
        _one_of("layout", self.layout, LAYOUTS)
        _one_of("last", self.last, LASTS)
        _one_of("decode", self.decode, DECODERS)
        _one_of("on_bad", self.on_bad, ON_BAD)
        self._check_bad_samples()
        self._check_order()
        self._check_samplers()
        self._check_timeout()
        if not isinstance(self.augment, Augment):
            raise ConfigError(f"augment={self.augment!r}: give fl.Augment(...).")
        if self.map_batch is not None and not callable(self.map_batch):
            raise ConfigError(f"map_batch={self.map_batch!r}: give a function of the batch.")
        self._check_mixing()
        self._check_decoder_load()
        normalization(self.normalize)
        for name in self.image_fields:
            self.normalization_of(name)

    def world(self) -> World:
        """The ranks as they are now."""
        return World.current(self.rank, self.world_size)

    def threads_here(self) -> int:
        """Decoding threads on this machine."""
        return self.threads or threads_per_process(self.world())

    @property
    def is_sampled(self) -> bool:
        """Whether a sampler of the user's says which samples come."""
        return self.sampler is not None or self.batch_sampler is not None

    @property
    def most_samples(self) -> int | None:
        """Of a batch; None where a batch sampler does not say it."""
        return getattr(self.batch_sampler, "batch_size", None) if self.batch_size is None else self.batch_size

    @property
    def image_fields(self) -> dict[str, Image]:
        return {name: one for name, one in self.fields.items() if isinstance(one, Image)}

    def normalization_of(self, name: str) -> Normalization:
        """How the image field `name` is normalized: its own way, or else the loader's."""
        return normalization(_or(self.fields[name].normalize, self.normalize))

    def _check_order(self):
        if not isinstance(self.shuffle, bool):
            raise ConfigError(
                f"shuffle={self.shuffle!r}: give True or False; a number of samples to mix goes to window=."
            )
        if self.window is not None and not self.shuffle:
            raise ConfigError(
                f"window={self.window} has no meaning with shuffle=False: use shuffle=True, or window=None."
            )
        if self.rank is not None or self.world_size is not None:
            self.world()

    def _check_samplers(self):
        given = [name for name in ("sampler", "batch_sampler") if getattr(self, name) is not None]
        if not given:
            return
        name = given[0]
        if not isinstance(getattr(self, name), Iterable):
            raise ConfigError(f"{name}={getattr(self, name)!r}: give what can be iterated over.")
        if self.batch_sampler is not None and self.batch_size is not None:
            raise ConfigError("batch_sampler= says how large batches are: use batch_size=None.")
        others = ["sampler"] * (len(given) > 1)
        others += [one for one in ("window", "rank", "world_size") if getattr(self, one) is not None]
        if others:
            raise ConfigError(
                f"{name}= alone says which samples come, and on which rank: leave out {others[0]}."
            )
        if isinstance(self.source, Mixture):
            raise ConfigError(f"{name}= takes the place of a mixture's order: use one of the two.")
        if self.last not in ("drop", "partial"):
            raise ConfigError(f'{name}= allows last="drop" and "partial", not "{self.last}".')

    def _check_timeout(self):
        seconds = self.timeout_seconds
        if seconds is None:
            return
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
            raise ConfigError(
                f"timeout_seconds={seconds!r}: give a number above 0, or None to wait for ever."
            )

    def _check_bad_samples(self):
        fraction = _or(self.max_bad_fraction, DEFAULT_MAX_BAD_FRACTION)
        if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 <= fraction <= 1:
            raise ConfigError(f"max_bad_fraction={fraction!r}: give a number from 0 to 1, such as 0.01.")
        self._keep("max_bad_fraction", float(fraction))
        self._keep("ledger", _ledger(self.ledger))
        if isinstance(self.exclude, KeyFile) and self.exclude.path == self.ledger:
            raise ConfigError(
                f"exclude={self.exclude.given!r} is the ledger that this run writes, so a resumed run would "
                "leave out others. Copy it, and exclude= the copy."
            )

    def _check_mixing(self):
        if not self.augment.mixes:
            return
        if self.dtype == "uint8":
            raise ConfigError('mixup and cutmix need floats: dtype="uint8" holds whole levels.')
        taken = [name for name in self.fields if f"{name}.mixed" in self.fields]
        if taken:
            raise ConfigError(
                f"fields: mixup and cutmix need the name {taken[0] + '.mixed'!r}; rename that field."
            )
        masks = [name for name, one in self.image_fields.items() if one.like or one.filter == "nearest"]
        if masks or not self.image_fields:
            what = (
                f"fields[{masks[0]!r}] is a mask, which"
                if masks
                else "there is no image field, and nothing else"
            )
            raise ConfigError(
                f"mixup and cutmix: {what} cannot be mixed; leave them out, and mix in map_batch."
            )

    def _check_decoder_load(self):
        if not isinstance(self.deterministic, bool):
            raise ConfigError(f"deterministic={self.deterministic!r}: give True or False.")
        if self.hw_decoder_load is not None and self.decode in ("native", "pillow"):
            raise ConfigError(
                f'hw_decoder_load={self.hw_decoder_load!r} is for DALI, and decode="{self.decode}".'
            )
        hardware_share(self.hw_decoder_load, self.deterministic)

    def _keep(self, name: str, value: Any):
        object.__setattr__(self, name, value)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def count(name: str, value: Any, lowest: int, highest: float = math.inf) -> int:
    """`value` as an int in [lowest, highest]; a ConfigError that names the argument for anything else."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not lowest <= number <= highest:
        limit = f"at least {lowest}" if highest == math.inf else f"{lowest} to {highest}"
        raise ConfigError(f"{name}={value!r}: give a whole number, {limit}.")
    return number


def _ledger(ledger: Any) -> str | None:
    """An absolute path, so that it stays the same file wherever the program goes."""
    if ledger is None or ledger == "auto":
        return ledger
    if not isinstance(ledger, (str, os.PathLike)) or not os.fspath(ledger):
        raise ConfigError(f'ledger={ledger!r}: give the path of a file, "auto", or None for none.')
    path = os.path.abspath(os.path.expanduser(os.fspath(ledger)))
    if "\0" in path or os.path.isdir(path):
        raise ConfigError(f"ledger={ledger!r}: this names no file; give one, such as bad_samples.jsonl.")
    return path


def _one_of(name: str, value: Any, allowed: tuple):
    if value not in allowed:
        raise ConfigError(f"{name}={value!r}: give one of {', '.join(map(repr, allowed))}.")


def _dtype(dtype: Any) -> str:
    """A dtype's name; torch's own dtypes print as "torch.float32"."""
    name = str(dtype).removeprefix("torch.")
    name = {"half": "float16", "float": "float32"}.get(name, name)
    if name not in DTYPES:
        _one_of("dtype", dtype, DTYPES)
    return name


def _fields(fields: Any) -> dict[str, Field]:
    if not isinstance(fields, Mapping) or not fields:
        example = '{"image": fl.Image("jpg", size=256)}'
        raise ConfigError(f"fields={fields!r}: name at least one, such as {example}.")
    for name, one in fields.items():
        if not isinstance(name, str) or name in RESERVED:
            raise ConfigError(f"fields: {name!r} cannot name a field; choose another name.")
        if not isinstance(one, Field):
            raise ConfigError(f"fields[{name!r}]={one!r}: give fl.Image, fl.Int, fl.Text or another field.")
        if isinstance(one, Image):
            _check_image(name, one, fields)
    return dict(fields)


def _check_image(name: str, image: Image, fields: Mapping[str, Field]):
    if image.like is None and image.size is None:
        raise ConfigError(f'fields[{name!r}]: an image needs a size, such as size=256, or like="image".')
    guide = fields.get(image.like) if image.like is not None else None
    if image.like is not None and (not isinstance(guide, Image) or guide.like is not None):
        raise ConfigError(
            f"fields[{name!r}]: like={image.like!r} must name an image field that has a size of its own."
        )
