"""The public face: `Loader`, an iterable of ready batches with a place that can be saved.

In: a source and how its samples are to look. Out: batches, in the order that (source, seed, epoch) fixes. Promised: no
work before the first batch is asked for; batches come in order, an error at its own place; what was prefetched and
not delivered is not in the state; closing, breaking off or forgetting an iteration leaves no thread and no memory.
"""

import hashlib
import math
import os
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fastload import _native, backends
from fastload.decode.backend import choose_backend
from fastload.errors import ConfigError, CursorError
from fastload.fields import Field
from fastload.loader.config import Augment, LoaderConfig
from fastload.loader.stages import Stages
from fastload.loader.stats import Stats
from fastload.order.cursor import CURSOR_VERSION, Cursor
from fastload.order.plan import make_plan
from fastload.order.steps import Steps
from fastload.shards.dataset import open_dataset
from fastload.world import World


class Loader:
    """Ready batches from shards, zips or folders, shuffled, decoded, resized, augmented and normalized.

    source: a tar or zip, a brace `{00000..00031}` or glob pattern, a folder of shards, of images or of class folders,
        or a list of these.
    batch_size: samples per rank and step.
    fields: name -> fl.Image, fl.Int, fl.Text, fl.Json, fl.Tensor, fl.Bytes or fl.Custom.
    augment: fl.Augment, the random changes of all image fields.
    normalize: "gan" and "diffusion" [-1, 1], "vae" [0, 1], "imagenet", or (mean, std) of values in [0, 1].
    dtype, layout: of image tensors: "float32", "float16", "bfloat16" or "uint8" (not normalized); "nchw" or
        "channels_last". The shape is [N, 3, height, width] either way.
    shuffle, window, seed: the order, a pure function of these and the epoch; window=None shuffles all samples, a
        number shuffles within so many neighbours, for media that dislike random reads.
    epochs: an iteration ends when this many epochs are over, counted from epoch 0 in blocks; None never ends.
    last: what happens with the samples that fill no batch: "drop", "partial", "pad" or "straddle"
        (see fastload/order/steps.py).
    select: ids to keep, keys to leave out, or a function of an index row.
    map_batch: a function of the finished batch.
    device: "cpu", "cuda", or "auto": a GPU where torch sees one.
    decode: "native", "pillow", or "auto".
    threads: decoding threads; None: the usable CPUs over LOCAL_WORLD_SIZE, shared by all loaders of the process.
    prefetch: batches on their way ahead of need; max_bytes: what they and idle memory may hold.
    max_pixels: an image with more is refused before a byte of it is decoded.
    rank, world_size: of this process; None: torch.distributed's, else RANK and WORLD_SIZE, else one process.

    A batch is a dict: the fields, "__key__" (list of str), "__position__" ([N] int64, the place in the global order).
    Raises ConfigError here for what is wrong in itself; SourceError, ShardError and FieldError when the first batch,
    or `len`, needs the source.
    """

    def __init__(
        self,
        source: Any,
        batch_size: int,
        fields: Mapping[str, Field],
        *,
        augment: Augment | None = None,
        normalize: Any = "gan",
        dtype: Any = "float32",
        layout: str = "nchw",
        shuffle: bool = True,
        window: int | None = None,
        seed: int = 0,
        epochs: int | None = 1,
        last: str = "drop",
        select: Any = None,
        map_batch: Callable[[dict], Any] | None = None,
        device: Any = "auto",
        decode: str = "auto",
        threads: int | None = None,
        prefetch: int | None = None,
        max_bytes: int | None = None,
        max_pixels: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ):
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self._config = LoaderConfig(**arguments)
        self._dataset = None
        self._world: World | None = None
        self._place = (0, 0)  # epoch, position of the next batch that the training has not got
        self._restored: Cursor | None = None  # not yet compared with the dataset
        self._left_off = False  # an iteration broke off within the epoch of _place
        self._run: weakref.ref | None = None  # weak: an iteration that nobody holds ends by itself
        self._stats = Stats()
        self._memory: _native.BufferPool | None = None

    def __iter__(self) -> Iterator[dict]:
        """Begins at the cursor; after the end of an epoch, or a break, at the start of the next."""
        self._end_run()
        if self._left_off:
            self._place = (self._place[0] + 1, (self._place[0] + 1) * self.dataset.n)
            self._left_off = False
        run = _Run(self)
        self._run = weakref.ref(run)
        return run

    def __len__(self) -> int:
        """The steps of a whole epoch."""
        return self._steps().steps_per_epoch

    def state_dict(self) -> dict:
        """The cursor after the last batch that the training got: JSON-able, the same on every rank."""
        if self._restored is not None:
            return self._restored.to_dict()
        epoch, position = self._place
        return Cursor(CURSOR_VERSION, epoch, position, self._order_fingerprint(), self._pixel_fingerprint()).to_dict()

    def load_state_dict(self, state: dict) -> None:
        """Goes to a saved place; the next iteration begins there, on any number of ranks.

        Raises CursorError for what is no cursor of this version; the first batch raises it where the cursor belongs
        to another order (source, selection, seed, window), and warns where pixels are made differently.
        """
        self._end_run()
        self._restored = Cursor.from_dict(state)
        self._place = (self._restored.epoch, self._restored.position)
        self._left_off = False

    def set_epoch(self, epoch: int) -> None:
        """Goes to the start of `epoch`; changes nothing where the cursor lies in that epoch already."""
        if not isinstance(epoch, int) or epoch < 0:
            raise ConfigError(f"epoch={epoch!r}: give a whole number, at least 0.")
        if epoch == self._place[0] and not self._left_off:
            return
        self._end_run()
        self._check_restored()
        self._place = (epoch, epoch * self.dataset.n)
        self._left_off = False

    def stats(self) -> dict:
        """Where the time went since the first batch: rates, busy and waiting seconds of each stage, what limits.

        {"images", "samples", "batches", "seconds", "images_per_second", "first_batch_seconds", "cpu_seconds",
        "bytes_read", "stages": {name: {"busy_seconds", "waiting_seconds", "threads"}}, "limited_by", "pool":
        {"idle_bytes", "used_bytes", "reused", "allocated"}, "bad_samples"}; the stages are read, decode, values and
        training.
        """
        counters = ("idle_bytes", "used_bytes", "reused", "allocated")
        return self._stats.snapshot({name: getattr(self._memory, name) for name in counters} if self._memory else {})

    def close(self) -> None:
        """Ends the iteration under way and frees its memory; the loader may be iterated again."""
        self._end_run()
        if self._memory is not None:
            self._memory.trim()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __repr__(self) -> str:
        config = self._config
        backend = choose_backend(config.decode)
        lines = [
            f"fastload.Loader({config.source!r}, batch_size={config.batch_size})",
            *(f"  {name}: {one!r}" for name, one in config.fields.items()),
            f"  pixels: {config.augment!r}, normalize={config.normalize!r}, {config.dtype}, {config.layout}",
            f"  decode: {backend.describe() if config.image_fields else 'no images'}, {self._threads()} threads",
            f"  order: {self._plan().describe() if self._dataset is not None else 'source not opened yet'}",
            f"  at: epoch {self._place[0]}, position {self._place[1]}",
        ]
        return "\n".join(lines)

    @property
    def batch_size(self) -> int:
        return self._config.batch_size

    @property
    def dataset(self):
        """The samples behind the loader; opened, and indexed where that was never done, on first use."""
        if self._dataset is None:
            world = self._current_world()
            self._dataset = open_dataset(
                self._config.source,
                cache_dir=backends.cache_dir() / "index",
                threads=self._threads(),
                select=self._config.select,
                local_rank=world.local_rank,
                local_world_size=world.local_world_size,
            )
        return self._dataset

    def _current_world(self) -> World:
        """The world as it is now; fixed by the first batch."""
        return self._world or World.current(self._config.rank, self._config.world_size)

    def _threads(self) -> int:
        return self._config.threads or backends.threads_per_process(self._current_world())

    def _plan(self):
        config = self._config
        return make_plan(self.dataset.shard_counts, shuffle=config.shuffle, window=config.window, seed=config.seed)

    def _steps(self) -> Steps:
        return Steps(self.dataset.n, self._config.batch_size, self._current_world().world_size, self._config.last)

    def _order_fingerprint(self) -> str:
        return _hash(self.dataset.fingerprint, self._plan().describe())

    def _pixel_fingerprint(self) -> str:
        config = self._config
        backend = choose_backend(config.decode).name if config.image_fields else None
        return _hash(config.fields, config.augment, config.normalize, config.dtype, config.layout, config.seed, backend)

    def _check_restored(self) -> None:
        """Compares a restored cursor with what it is to be used on, once."""
        if self._restored is None:
            return
        if self._restored.order_fingerprint != self._order_fingerprint():
            raise CursorError(
                "the checkpoint belongs to another order: source, select, seed, shuffle or window differ from when it "
                "was saved. Restore these, or start anew without load_state_dict."
            )
        if self._restored.pixel_fingerprint != self._pixel_fingerprint():
            warnings.warn("fields, augment, normalize or decode differ from when the checkpoint was saved: the order "
                          "goes on exactly, the pixels are made differently", stacklevel=4)  # fmt: skip
        self._restored = None

    def _make_stages(self) -> Stages:
        if self._memory is None:
            self._memory = _native.BufferPool(self._config.max_bytes)
        world, threads = self._current_world(), self._threads()
        return Stages(self._config, self.dataset, self._plan(), world.rank, threads, self._memory, self._stats)

    def _arrive(self, epoch: int, position: int, within_epoch: bool) -> None:
        """The training got everything before `position`."""
        self._place = (epoch, position)
        self._left_off = within_epoch

    def _end_run(self) -> None:
        run = self._run() if self._run is not None else None
        if run is not None:
            run.close()
        self._run = None


class _Run:
    """One iteration of a loader: keeps batches on their way and hands them out in order."""

    def __init__(self, loader: Loader):
        self._loader = loader
        self._process = os.getpid()
        self._stages: Stages | None = None
        self._trips: deque = deque()
        self._ended = False

    def __iter__(self) -> "_Run":
        return self

    def __next__(self) -> dict:
        if self._ended:
            raise StopIteration
        if os.getpid() != self._process:
            raise ConfigError("this iteration began in another process: begin a new one, iter(loader), after the fork.")
        loader = self._loader
        loader._stats.asked()
        try:
            if self._stages is None:
                self._begin()
            self._launch_ahead()
            if not self._trips:
                loader._arrive(self._stop // loader.dataset.n, self._stop, within_epoch=False)
                raise StopIteration
            trip = self._trips.popleft()
            self._launch_ahead()  # while this batch is waited for and used, the next ones are on their way
            batch = self._stages.finish(trip)
            if loader._config.map_batch is not None:
                batch = loader._config.map_batch(batch)
        except BaseException:
            self.close()
            raise
        place = trip.step.next_position
        n = loader.dataset.n
        loader._arrive(place // n, place, within_epoch=place // n == trip.step.start // n)
        loader._stats.handed_over(len(trip.positions), len(trip.positions) * len(loader._config.image_fields))
        return batch

    def close(self) -> None:
        """Stops what is on its way and waits until no thread works for this iteration any more."""
        if self._ended:
            return
        self._ended = True
        self._loader._stats.paused()
        for trip in self._trips:
            trip.cancel()
        if self._stages is not None and os.getpid() == self._process:
            self._stages.close()
        self._trips.clear()

    def __del__(self):
        self.close()

    def _begin(self) -> None:
        loader, config = self._loader, self._loader._config
        loader._world = loader._current_world()
        loader._check_restored()
        n = loader.dataset.n
        epoch, self._next = loader._place
        self._stop = n * (epoch // config.epochs + 1) * config.epochs if config.epochs else math.inf
        self._steps = loader._steps()
        self._stages = loader._make_stages()
        held = max(self._stages.batch_bytes, 1)
        self._ahead = max(1, min(config.prefetch, config.max_bytes // held - 1))

    def _launch_ahead(self) -> None:
        while len(self._trips) < self._ahead and self._next < self._stop:
            step = self._steps.step_at(self._next)
            if step.start >= self._stop:
                self._next = self._stop
                return
            self._trips.append(self._stages.launch(step))
            self._next = step.next_position


def _hash(*parts) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
