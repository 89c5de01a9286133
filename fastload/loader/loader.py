"""The public face: `Loader`, an iterable of ready batches whose position can be saved.

In: a source, and how its samples should look. Out: batches, in the order that (source, seed, epoch) fixes.
Promised: no work before the first batch is asked for; the state is after the last batch that was delivered,
whatever was prefetched; a loader has one position, so one iteration at a time; closing, leaving or dropping
an iteration leaves no thread and no open file; a forked child begins anew. It is one file, because everything
that moves the position must keep the same few variables consistent.
"""

import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any, NamedTuple

from fastload import _native, backends
from fastload.augment.pipe import Augment
from fastload.caching import cached_property
from fastload.errors import ConfigError
from fastload.fields import Field
from fastload.imports import whole_imports
from fastload.loader.checkpoint_check import check_restored
from fastload.loader.config import MAX_EPOCH, LoaderConfig, count
from fastload.loader.describe import (
    describe,
    explain,
    inventories,
    order_as_now,
    pixel_fingerprints,
)
from fastload.loader.iterator import BatchIterator, RunSpec
from fastload.loader.orders.order import Order
from fastload.loader.orders.planned import PlannedOrder
from fastload.loader.orders.sampled import SampledOrder
from fastload.loader.pipeline import Pipeline
from fastload.loader.samples import OwnSamples, Samples, open_samples, refuse_dataset
from fastload.loader.skipped import Collate, LoaderActions
from fastload.loader.specs import order_spec, pipeline_spec
from fastload.loader.stats import Stats
from fastload.notices import notice
from fastload.order.cursor import Cursor
from fastload.order.mixture import shares_of
from fastload.order.sample_order import OrderState
from fastload.read.ledger import Ledger, default_name, ledger_path
from fastload.shards.mixture import Mixture
from fastload.shortage import room_for
from fastload.world import World

_POOL_COUNTERS = ("idle_bytes", "used_bytes", "reused", "allocated")


class Loader:
    """Ready batches from shards, zips or folders, shuffled, decoded, resized, augmented and normalized.

    source: a tar or zip, a brace `{00000..00031}` or glob pattern, a folder of shards, of images or of class
        folders, or a list of these; or fl.Mixture, of several such sources.
    batch_size: samples per rank and step.
    fields: name -> fl.Image, fl.Int, fl.Text, fl.Json, fl.Tensor, fl.Bytes or fl.Custom.
    augment: fl.Augment, the random changes of all image fields.
    normalize: "gan" and "diffusion" [-1, 1], "vae" [0, 1], "imagenet", or (mean, std) of values in [0, 1].
    dtype, layout: of image tensors: "float32", "float16", "bfloat16" or "uint8" (not normalized); "nchw" or
        "channels_last" (also "nhwc"). The shape is [N, 3, height, width] either way.
    shuffle, window, seed: the order, a pure function of these and the epoch; window=None shuffles all
        samples, a number shuffles within that many neighbours, for storage with slow random reads.
    epochs: an iteration ends after this many epochs, counted from epoch 0 in blocks; None never ends.
    last: what happens to the samples that do not fill a batch: "drop", "partial", "pad" or "straddle"
        (see fastload/order/steps.py).
    select, exclude: which samples to keep, and which to leave out: ids, which are row numbers of the index
        as "__id__" has them, keys, "shard:key", or a function of an index row; exclude also the path of a
        file of keys; of a mixture, such a function, or name -> any of these (docs/selecting-samples.md).
    map_batch: a function of the finished batch, which returns it; it runs in the thread that iterates.
    device: "cpu", "cuda", or "auto": a GPU where torch sees one.
    decode: "native" (C++ threads), "dali" (NVIDIA DALI), "pillow" (the reference), or "auto": on a GPU DALI,
        on a CPU native.
    threads: decoding threads, shared by all loaders of the process; None: the usable CPUs over
        LOCAL_WORLD_SIZE.
    prefetch: batches ahead of need; max_bytes: of memory for them, with which fewer may be ahead.
    max_pixels: an image with more is bad, which its header tells before a byte of it is decoded.
    on_bad: "replace": a sample whose content cannot be decoded, or that lacks a field without a default,
        is replaced by another sample of the same source and window, drawn from (seed, position), with a
        warning for the first. "raise": its batch raises.
    max_bad_fraction: the run ends when more than this share of the rank's last 10,000 samples was bad,
    counted
        from the start of the process; None: 0.01.
    ledger: the file that lists bad samples, one JSON object a line (fastload/read/ledger.py), with the rank
        before the suffix if there are several; "auto": in the cache folder; None: no ledger.
    rank, world_size: of this process; None: torch.distributed's, else RANK and WORLD_SIZE, else one process.
    sampler, batch_sampler: your own, which draws sample_ids, or lists of them (then batch_size=None). It
    alone
        decides which samples this rank gets; shuffle and the number of ranks have no effect. Its
        state is saved (fastload/loader/orders/sampler_state.py), for the same number of ranks and the same
        batch size. last: "drop" or "partial".
    timeout_seconds: a batch that takes longer raises BatchTimeoutError; None: never.

    deterministic: True: pixels do not depend on load or timing. hw_decoder_load: of DALI on
        a GPU, the share of JPEGs that the hardware engine decodes: 0 or 1 (the default), or, where
        deterministic=False, anything between (0.65 is DALI's default).

    Arguments are fixed when the loader is made: relative paths are resolved against the current folder, lists
    and arrays are copied.

    A batch is a dict: the fields, "__key__" (list of str), "__id__" ([N] int64, the row in the index of its
    source), "__position__" ([N] int64, in the global order); of a mixture also "__source__" (list
    of str, the names of the sources); with last="pad" also "__mask__" ([N] bool, False for samples that
    repeat the start of the epoch); with report=True "NAME.original_size" and the others of
    fastload/decode/images.py; with mixup or cutmix "__lambda__" ([N] float32, the share of an image that is
    its own; the rest is from the sample before it in the batch) and "NAME.mixed" for every fl.Int, the label
    of that other sample.

    Raises ConfigError here for invalid arguments; SourceError, ShardError and FieldError when the first
    batch, or `len`, needs the source. A batch raises ShardError for bytes that cannot be read, after retries
    where they may help, and for a shard that has changed; SampleError if eight replacements of a bad sample
    are bad as well; BadSamplesError if there are too many bad samples; FunctionError for an exception of your
    function in fl.Custom, unless it is a ValueError, an EOFError or a fl.SampleError, which say that the
    content is bad. With on_bad="raise": FieldError for a missing field, SampleError for content that cannot
    be decoded. `__cause__` is the exception of your function, or of the decoder.
    """

    # What a torch DataLoader made from this loader's parts must see: no worker processes.
    num_workers, prefetch_factor, collate_fn = 0, None, Collate()

    def __init__(
        self,
        source: Any,
        batch_size: int | None,
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
        exclude: Any = None,
        map_batch: Callable[[dict], Any] | None = None,
        device: Any = "auto",
        decode: str = "auto",
        threads: int | None = None,
        prefetch: int | None = None,
        max_bytes: int | None = None,
        max_pixels: int | None = None,
        on_bad: str = "replace",
        max_bad_fraction: float | None = None,
        ledger: Any = "auto",
        rank: int | None = None,
        world_size: int | None = None,
        deterministic: bool = True,
        hw_decoder_load: float | None = None,
        sampler: Iterable | None = None,
        batch_sampler: Iterable | None = None,
        timeout_seconds: float | None = None,
    ):
        refuse_dataset(source)
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self._config = LoaderConfig(**arguments)
        self._samples = Samples(partial(_open, self._config), self._config.threads_here)
        spec = order_spec(self._config)
        self._sampled = SampledOrder(spec, self._samples) if spec.is_sampled else None
        self._order: Order = PlannedOrder(spec, self._samples) if self._sampled is None else self._sampled
        self._at = _Position(0, OrderState.start(self._config.shares), is_start=True, delivered_epoch=None)
        self._restored: Cursor | None = None  # not yet compared with the dataset
        self._begin_process()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Begins at the cursor; after the end of an epoch, or a break, at the start of the next.

        It ends an iteration that is under way: its `next` raises ConfigError.
        """
        self._iterator_between_batches()
        self._end_iterator(
            "another iter(loader) has ended this iteration: a loader has one position, so use two loaders."
        )
        if self._at.delivered_epoch == self._at.epoch:
            self._go_to(self._at.epoch + 1)
        if self._sampled is not None:
            self._sampled.begin()
        config, images = self._config, len(self._config.image_fields)
        iterator = BatchIterator(self._begin, self._arrive, config.world, images, self._stats)
        self._iterator = weakref.ref(iterator)
        return iterator

    def __len__(self) -> int:
        """The steps of a whole epoch. Raises TypeError if your sampler has no length."""
        return len(self._order)

    def __bool__(self) -> bool:
        return True  # or `if loader:` would open the source to count its steps

    def state_dict(self) -> dict:
        """The cursor after the last delivered batch: JSON-able, the same on every rank.

        After the last batch of an epoch, and before the iteration is over, it is still in that epoch if some
        of its samples are left over, and at the start of the next if none is.
        """
        restored, at = self._restored, self._at
        if restored is not None and restored.state is at.state and not at.is_start:
            return restored.to_dict()
        self._check_restored()
        prints = self._order.fingerprints(), self._pixel_fingerprints
        at = self._at  # once: another thread may get a batch at any time
        state = self._here(at)
        if self._sampled is not None:
            state = self._sampled.with_sampler(state)
        return Cursor(at.epoch, state, *prints, self._config.shares, self._inventories).to_dict()

    def load_state_dict(self, state: dict) -> None:
        """Goes to a saved position; the next iteration is the rest of its epoch, on any number of ranks.

        The sizes of this run decide how much that is; it is nothing if the state is of an epoch's last step
        and the rest does not fill a batch. An iteration that is under way ends. A mixture gets the saved
        weights. Raises CursorError for anything but a cursor of this version; the first batch raises it if
        the cursor belongs to another order (seed, plan, window, source, selection), and warns if pixels are
        made differently, or if the mixture was given other weights when it was saved.
        """
        restored = Cursor.from_dict(state)
        self._go_to(restored.epoch, restored.state)
        self._restored = restored
        if self._sampled is not None:
            self._sampled.restore(restored.state)

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Changes the weights of a mixture from the next batch on; call it on every rank alike.

        Prefetched batches are dropped, so the next batch takes as long as a first one. The cursor keeps the
        weights. Raises ConfigError if the source is not an fl.Mixture, for a missing or unknown name, and for
        an invalid weight.
        """
        mixture = self._config.source
        if not isinstance(mixture, Mixture):
            raise ConfigError("set_weights needs an fl.Mixture as the loader's source; this loader has none.")
        shares = shares_of(mixture.weights_of(weights))
        iterator = self._iterator_between_batches()
        self._check_restored()
        before = self._here()
        self._at = self._at._replace(state=before.reweighted(shares, mixture.epoch_samples), is_start=False)
        if iterator is not None and self._at.state != before:
            iterator.plan_anew()

    def set_epoch(self, epoch: int) -> None:
        """Goes to the start of `epoch`, and ends an iteration that is under way.

        It changes nothing if the cursor is in that epoch already: after `load_state_dict`, or during the
        epoch. An epoch that was left early begins anew. A mixture goes back to earlier epochs as if the
        current weights had always held; unless these repeat soon, as 0.7 and 0.3 do, it counts the positions
        up to the epoch one by one. set_epoch is forwarded to your sampler, if it has one.
        """
        epoch = count("epoch", epoch, 0, MAX_EPOCH)
        if self._sampled is not None:
            self._sampled.set_epoch(epoch)
        iterator = self._iterator_between_batches()
        if iterator is not None and iterator.begun:
            is_there = epoch in (self._at.epoch, self._at.delivered_epoch)
        else:
            is_there = epoch == self._at.epoch != self._at.delivered_epoch
        if not is_there:
            self._go_to(epoch)

    def stats(self) -> dict:
        """Where the time went since the first batch was asked for, and what limits the rate.

        {"images", "samples", "batches", "seconds", "images_per_second" (after the first batch),
        "first_batch_seconds", "cpu_seconds" (of this process), "bytes_read", "stages": {name:
        {"busy_seconds", "waiting_seconds", "threads"}}, "limited_by", "pool": {"idle_bytes", "used_bytes",
        "reused", "allocated"}, "device": {"batches", "copied_bytes", "copy_seconds", "augment_seconds"} (of
        the stream on a GPU; {} on a CPU), "bad_samples" (replaced in batches that were delivered),
        "bad_replacements" (drawn for these, and bad as well), "ledger" (its path, or None), "read_retries"};
        the stages are read, decode, values (Python's worker threads), batch (stacking and map_batch, in the
        thread that iterates) and training.
        """
        self._notice_fork()
        pool = {name: getattr(self._memory, name, 0) for name in _POOL_COUNTERS}
        bad = {name: getattr(self._ledger, name, 0) for name in ("bad_samples", "bad_replacements")}
        path = getattr(self._ledger, "path", None)
        return self._stats.snapshot(pool, bad | {"ledger": None if path is None else str(path)})

    def close(self) -> None:
        """Ends the iteration under way and frees its memory; the loader may be iterated again."""
        self._end_iterator()
        if self._memory is not None:
            self._memory.trim()
        for kept in self._kept.values():
            kept.close()
        self._kept = {}

    def __reduce__(self):
        """A copy, or one in another process, is an independent loader at the same position."""
        config = {
            field.name: getattr(self._config, field.name) for field in fields(self._config) if field.init
        }
        shown = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        state = None if self._is_new() else self.state_dict()
        return _remade, (config, self._samples.given, shown, state)

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __repr__(self) -> str:
        order = self._order.describe(is_open=self._samples.opened is not None)
        at = self._at
        where = "start" if at.is_start else f"position {at.state.position}"
        return describe(self._config, self._config.threads_here, order, f"epoch {at.epoch}, {where}")

    @property
    def batch_size(self) -> int | None:
        return self._config.batch_size

    @property
    def drop_last(self) -> bool:
        """Whether an incomplete batch at the end of an epoch is left out."""
        return self._config.last == "drop"

    @property
    def sampler(self) -> Any:
        """Your sampler, or else one that shows this loader's order, whose set_epoch is the loader's."""
        return self._order.sampler(self._epoch_start, self.set_epoch)

    @property
    def batch_sampler(self) -> Any:
        """Your batch sampler, or else one that shows this loader's batches in its current epoch.

        A torch DataLoader of the loader's batch_sampler, dataset and collate_fn delivers the loader's own
        batches; one that skips the first n continues after them (loader/skipped.py).
        """
        return self._order.batch_sampler(
            self._epoch_start, self.set_epoch, LoaderActions(self._iterate_from, self._end_at)
        )

    @property
    def dataset(self) -> Any:
        """The fl.Dataset that the loader was given; else the opened samples, indexed on first use."""
        return self._samples() if self._samples.given is None else self._samples.given

    @room_for("no batch can be made", "torch")
    def _begin(self) -> RunSpec:
        """What the first `next` of an iteration needs."""
        self._check_restored()
        if self._memory is None:
            self._memory = _native.BufferPool(self._config.max_bytes)
        world, threads, epochs = self._config.world(), self._config.threads_here(), self._config.epochs
        self._prepare_ledger(world)
        resources = self._memory, self._stats, self._ledger, self._kept
        samples, sample_order = self._samples(), self._order.sample_order
        with whole_imports():  # torch, DALI: what the threads to come need, too
            spec = pipeline_spec(self._config)
            pipeline = Pipeline(spec, samples, sample_order, world.rank, threads, *resources)
        if self._sampled is not None and self._sampled.has_other_epoch(self._here()):
            self._at = self._at._replace(epoch=self._at.epoch + 1, is_start=True)
        state, span = self._here(), self._order.span
        stop = span * (self._at.epoch // epochs + 1) * epochs if epochs else math.inf
        limits = self._config.prefetch, self._config.max_bytes
        return RunSpec(pipeline, self._order.step_source(state, world), state, stop, world, *limits)

    def _prepare_ledger(self, world: World) -> None:
        """Its counts continue; rank and file are those of the current world."""
        path = self._config.ledger
        if path == "auto":
            path = backends.cache_dir() / "ledger" / default_name(self._samples().files)
        if path is not None:
            path = ledger_path(path, world.rank, world.world_size)
        if self._ledger is None:
            self._ledger = Ledger(path, self._config.max_bad_fraction, world.rank)
        self._ledger.path, self._ledger.rank = path, world.rank

    def _arrive(self, start: int, state: OrderState) -> None:
        """Everything before `state` was delivered, last the step that starts at `start`."""
        n = self._order.span
        self._at = _Position(state.position // n, state, is_start=False, delivered_epoch=start // n)

    def _go_to(self, epoch: int, state: OrderState | None = None) -> None:
        iterator = self._iterator_between_batches()
        if iterator is not None and iterator.begun:  # another one will begin there
            iterator.close()
        self._at = _Position(epoch, state or self._at.state, is_start=state is None, delivered_epoch=None)

    def _iterate_from(self, state: OrderState) -> BatchIterator:
        self._go_to(state.position // self._order.span, state)
        return iter(self)

    def _end_at(self, iterator: BatchIterator, state: OrderState) -> None:
        """Ends an iteration that has delivered everything, up to `state`."""
        if iterator is self._live_iterator():
            iterator.close()
            self._arrive(state.position - 1, state)

    def _here(self, at: "_Position | None" = None) -> OrderState:
        """The state before the next batch. Looking changes nothing: saving must not make ranks differ."""
        at = at or self._at
        return self._epoch_start(at) if at.is_start else at.state

    def _epoch_start(self, at: "_Position | None" = None) -> OrderState:
        """The start of the current epoch."""
        at = at or self._at
        return at.state.at(at.epoch * self._order.span, self._order.span)

    def _is_new(self) -> bool:
        return self._at.is_start and self._at.epoch == 0 and self._restored is None

    def _check_restored(self) -> None:
        """Compares a restored cursor with this loader, once."""
        restored = self._restored
        if restored is None:
            return
        order, samples = self._order.fingerprints(), self._samples()
        restored = replace(restored, order=order_as_now(restored, order, samples))
        numbers = self._order.span, self._config.shares
        why = partial(explain, restored, order, samples)
        for sentence in check_restored(restored, order, self._pixel_fingerprints, *numbers, why):
            notice(sentence)
        self._restored = None

    @cached_property
    def _inventories(self) -> dict:
        return inventories(self._samples())

    @cached_property
    def _pixel_fingerprints(self) -> dict:
        return pixel_fingerprints(self._config)

    def _begin_process(self) -> None:
        self._process = backends.process()
        self._iterator: weakref.ref[BatchIterator] | None = None  # weak: an unused iteration ends by itself
        self._stats = Stats()
        self._memory: _native.BufferPool | None = None
        self._ledger: Ledger | None = None
        self._kept: dict[str, Any] = {}  # costly and shared by iterations: DALI's pipelines

    def _notice_fork(self) -> None:
        # The parent's threads do not exist in a child, and may hold its locks for ever. The child begins at
        # `state_dict`, as a process does that got the loader pickled.
        if self._process != backends.process():
            self._begin_process()
            if not self._is_new():
                self.load_state_dict(self.state_dict())

    def _live_iterator(self) -> BatchIterator | None:
        self._notice_fork()
        return self._iterator() if self._iterator is not None else None

    def _iterator_between_batches(self) -> BatchIterator | None:
        iterator = self._live_iterator()
        if iterator is not None and iterator.is_making:
            raise ConfigError(
                "a batch is being made: call set_weights, load_state_dict, set_epoch and iter between two "
                "batches, not in map_batch, and not in another thread."
            )
        return iterator

    def _end_iterator(self, why: str | None = None) -> None:
        iterator = self._live_iterator()
        if iterator is not None:
            iterator.close(why)
        self._iterator = None


class _Position(NamedTuple):
    """Where a loader is. One object, replaced at once: other threads may look while a batch is delivered."""

    epoch: int  # of the next batch
    state: OrderState  # before that batch, unless `is_start`
    is_start: bool  # the next batch is the first of `epoch`, counted on from `state`
    delivered_epoch: int | None  # of the last batch since the position was set


def loader_of(dataset: OwnSamples | None, *arguments: Any, **options: Any) -> Loader:
    """A Loader(*arguments, **options) whose samples `dataset` opens."""
    loader = Loader(*arguments, **options)
    loader._samples.given = dataset
    return loader


def _open(config: LoaderConfig, threads: int) -> Any:
    return open_samples(config.source, config.select, config.exclude, config.world(), threads)


def _remade(config: dict, given: Any, shown: dict, state: dict | None) -> Loader:
    """What a Loader is pickled as."""
    loader = loader_of(given, **config)
    vars(loader).update(shown)
    if state is not None:
        loader.load_state_dict(state)
    return loader
