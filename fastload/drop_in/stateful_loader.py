"""torch's DataLoader with a state, and with batches copied to a GPU ahead of need.

In: the arguments of torch.utils.data.DataLoader. Out: its batches, made by its own iterators and workers, in
its order. Promised: `state_dict()` between two batches is the state after the last delivered one, and
`load_state_dict()` makes the next iteration its rest, as torchdata's StatefulDataLoader does; attributes are
torch's; a resume with another batch size continues at the same sample, or is refused.

Exact are: samplers that orders/sampler_state.py can restore; datasets and iterators with `state_dict` and
`load_state_dict`; the seeds of workers. An iterable dataset without a state is read again, with the
generators of random, NumPy and torch restored to what they were before its first sample, and put back
afterwards. Not exact are: later random draws, in workers and in a dataset that is read again;
in_order=False; with persistent workers, an epoch after one that was not finished.

A state holds torch's global CPU generator, from which torch draws the seeds of workers and of a sampler
without a generator. Later epochs are exact where the program restores this generator itself
(torch.set_rng_state) before the first iteration, or where nothing but this loader drew from it in the saved
run (global_generator.py): a model on a GPU does not; a model with dropout on the CPU, a second loader, and
transforms in the main process do. They are also exact in programs that seed torch with another number before
each epoch. They are not in programs that seed with the same number each time, nor for samplers that draw from
random or NumPy: restore these generators, or give the sampler its own.

Used of torch's private names: `_get_iterator`, `_index_sampler`, and `_iterator` with its `_reset`, because
torch's iterator is made from a copy of the loader with other functions and another sampler where a state must
be recorded (epoch_record.py); `_shutdown_workers` of an iterator with workers, to close it, and `_shutdown`,
which marks it as closed.
"""

import copy
import errno
import os
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader
from typing_extensions import TypeVar  # which torch needs, too

from fastload.backends import process
from fastload.drop_in.epoch_record import EpochRecord
from fastload.drop_in.state_format import checked, encoded, global_generator_of
from fastload.drop_in.worker_state import Placeholder
from fastload.errors import ConfigError, CursorError
from fastload.loader.config import count
from fastload.loader.device import delivery, resolve_device
from fastload.loader.iterator import CLOSED, OF_ANOTHER_PROCESS
from fastload.loader.orders.global_generator import GlobalGenerator
from fastload.loader.orders.sampler_state import set_epoch
from fastload.notices import notice
from fastload.shortage import no_thread, shortage
from fastload.threads import Turn

T = TypeVar("T", covariant=True, default=Any)


class StatefulLoader(DataLoader[T]):
    """torch.utils.data.DataLoader with its arguments and behaviour, and these two:

    device: None and "cpu" leave batches where torch leaves them. With "cuda" (or "auto", where there is a
    GPU) they are copied there, one batch ahead, on a stream of the loader's own; tensors in containers, and
    objects that have `to`, are moved. Set pin_memory=True too, or memory is pinned by the training's thread.
    snapshot_every_n_steps: as in torchdata's StatefulDataLoader, an integer of at least 1. It has no effect:
    `state_dict()` is exact after every batch.

    Raises BackendError, ConfigError, CursorError and ResourceError, besides what torch raises.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Any = None,
        batch_sampler: Any = None,
        num_workers: int = 0,
        collate_fn: Callable[[list], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: torch.Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
        device: Any = None,
        snapshot_every_n_steps: int = 1,
    ):
        arguments, not_torchs = locals(), ("self", "__class__", "device", "snapshot_every_n_steps")
        super().__init__(**{name: value for name, value in arguments.items() if name not in not_torchs})
        self.device = device
        self.snapshot_every_n_steps = count("snapshot_every_n_steps", snapshot_every_n_steps, 1)
        self._epoch: EpochRecord | None = None  # of the last iteration; holds no iterator of torch's
        self._restored: dict | None = None  # the state at which the next iteration begins
        self._global_generator = GlobalGenerator()
        self._delivery: tuple | None = None  # (device, its delivery)
        self._current_iterator: weakref.ref[_Iterator] | None = None
        self._process = process()

    def __iter__(self) -> "_Iterator":
        self._notice_fork()
        with Turn() as turn:
            iterator = self._begin(turn)
        self._current_iterator = weakref.ref(iterator)
        return iterator

    def _begin(self, turn: Turn) -> "_Iterator":
        is_persistent = self.persistent_workers and self.num_workers > 0
        if is_persistent and self._iterator is not None and self._epoch is not None:
            self._epoch.reset(self._iterator, self)
            inner = self._iterator
        else:
            inner = self._started_iterator()
            if is_persistent:
                self._iterator = inner
        self._epoch.begun()
        delivers = None if self.device is None else self._delivery_to(resolve_device(self.device))
        if delivers is None or delivers.stream is None:
            return _Iterator(inner, self._epoch, turn)
        return _PrefetchingIterator(inner, self._epoch, turn, delivers)

    def close(self) -> None:
        """Ends the current iteration and its worker processes; the loader may be iterated again.

        `state_dict` stays the same. May be called at any time, and more than once.
        """
        self._notice_fork()
        iterator = None if self._current_iterator is None else self._current_iterator()
        self._current_iterator = None
        if iterator is not None:
            iterator.close()
        if self._iterator is not None:  # of persistent workers, which outlive iterations
            _end_workers(self._iterator)
            self._iterator = None
        if self._delivery is not None:
            self._delivery[1].close()

    def _notice_fork(self) -> None:
        """A forked child starts afresh: iterators and their workers belong to the parent."""
        if self._process != process():
            self._process = process()
            self._iterator = self._epoch = self._delivery = self._current_iterator = None

    def __enter__(self) -> "StatefulLoader[T]":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _delivery_to(self, device: Any) -> Any:
        """The same for all iterations, because torch reuses freed memory only on the stream that made it."""
        if self._delivery is None or self._delivery[0] != device:
            self._delivery = (device, delivery(device))
        return self._delivery[1]

    def state_dict(self) -> dict:
        """The state after the last delivered batch: a dict that holds the states of datasets and samplers."""
        if self.num_workers > 1 and not self.in_order:
            warnings.warn(
                "with in_order=False batches do not arrive in the sampler's order, so after a resume some "
                "may be repeated or missing. Use in_order=True where that matters.",
                stacklevel=2,
            )
        if self._restored is not None:
            return encoded(copy.deepcopy(self._restored))
        return (self._epoch or EpochRecord(self, None, self._global_generator)).state()

    def load_state_dict(self, state_dict: dict) -> None:
        """The next iteration begins at `state_dict`; {} is the beginning. Raises CursorError."""
        restored = checked(state_dict, self) if state_dict != {} else None
        self._global_generator.load(*global_generator_of(restored))
        self._iterator = self._epoch = None
        self._restored = copy.deepcopy(restored)
        if restored is not None and restored["sampler"] is not None and not restored["finished"]:
            set_epoch(self._index_sampler, restored["sampler"]["epoch"])

    def _started_iterator(self):
        """torch's iterator, its worker processes started. Raises ResourceError."""
        try:
            return self._get_iterator()
        except (OSError, RuntimeError, MemoryError) as error:
            if self.num_workers == 0:
                raise
            what = f"for num_workers={self.num_workers}"
            refused = isinstance(error, OSError) and error.errno == errno.EAGAIN
            short = no_thread(what, error) if refused else shortage(what, error)
            if short is None:
                raise
            raise short from error

    def _get_iterator(self):
        epoch = EpochRecord(self, self._restored, self._global_generator)
        inner = epoch.torch_iterator(self)
        if epoch.to_discard:
            _discard(inner, epoch)
        self._epoch, self._restored = epoch, None
        return inner

    @property
    def _index_sampler(self):
        recorded = self.__dict__.get("_recorded_sampler")
        return super()._index_sampler if recorded is None else recorded

    def __getstate__(self) -> dict:
        # Copies start afresh, as torch's do: iterators cannot be pickled.
        afresh = {"_epoch": None, "_delivery": None, "_current_iterator": None}
        return self.__dict__ | afresh | {"_global_generator": copy.copy(self._global_generator)}


class _Iterator:
    """One iteration: torch's iterator, and the record of what it delivered. Threads may share it."""

    def __init__(self, inner: Iterator, epoch: EpochRecord, turn: Turn):
        self._inner, self._epoch, self._turn, self._closed = inner, epoch, turn, False
        self._process = process()
        if hasattr(inner, "_shutdown_workers"):
            _with_workers.add(inner)

    def __iter__(self) -> "_Iterator":
        return self

    def __len__(self) -> int:
        return len(self._inner)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_inner":
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __next__(self) -> Any:
        if self._process != process():
            raise ConfigError(OF_ANOTHER_PROCESS)
        with self._turn:
            if self._closed:
                raise StopIteration
            try:
                return self._next()
            except Exception as error:
                if self._closed:  # by another thread
                    raise ConfigError(CLOSED) from error
                raise

    def close(self) -> None:
        """Ends the iteration, and its worker processes unless they are persistent."""
        self._closed = True
        if self._process == process() and not getattr(self._inner, "_persistent_workers", False):
            _end_workers(self._inner)

    def _next(self) -> Any:
        epoch = self._epoch
        try:
            batch = next(self._inner)
            while epoch.has_batch_states:
                if not isinstance(batch.batch, Placeholder):
                    batch = epoch.unpack(batch)
                    break
                epoch.placeholders_seen += 1
                batch = next(self._inner)
        except StopIteration:
            epoch.finished = True
            raise
        epoch.delivered += 1
        return batch


class _PrefetchingIterator(_Iterator):
    """An iteration that copies the next batch to the device while the last is trained on."""

    def __init__(self, inner: Iterator, epoch: EpochRecord, turn: Turn, delivers: Any):
        super().__init__(inner, epoch, turn)
        self._delivers = delivers
        self._queue: deque = deque()  # (delivered batch or None, error or None, the state after it)
        epoch.delivered_state = epoch.snapshot()

    def _next(self) -> Any:
        while len(self._queue) < 2 and not self._ended():
            self._fetch()
        delivered, error, self._epoch.delivered_state = self._queue[0]
        if not isinstance(error, StopIteration):  # which every later `next` raises again
            self._queue.popleft()
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame, and with it torch's iterator
        return self._delivers.hand_over(delivered)

    def _ended(self) -> bool:
        return bool(self._queue) and isinstance(self._queue[-1][1], StopIteration)

    def _fetch(self) -> None:
        delivered, error = None, None
        try:
            delivered = self._delivers.deliver(super()._next(), lambda batch: batch)
        except Exception as raised:
            error = raised.with_traceback(None) if isinstance(raised, StopIteration) else raised
        self._queue.append((delivered, error, self._epoch.snapshot()))


_with_workers: weakref.WeakSet = weakref.WeakSet()  # torch's iterators that have worker processes


def _leave_to_parent() -> None:
    """In a forked child, where torch's finalizers would end the parent's workers."""
    for inner in _with_workers:
        inner._shutdown = True
    _with_workers.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


def _end_workers(inner: Iterator) -> None:
    """Ends the worker processes of torch's iterator, if it has any."""
    end = getattr(inner, "_shutdown_workers", None)
    if end is not None:
        end()


def _discard(inner: Iterator, epoch: EpochRecord) -> None:
    """Reads an iterable dataset without a state up to the batch at which it was saved."""
    notice(
        f"neither the dataset nor its iterator has state_dict and load_state_dict, so {epoch.to_discard} "
        "batches are read again and dropped. That is exact if no random draw after the first sample decides "
        "their order. Give the dataset or its iterator both methods, for a faster and always exact resume."
    )
    reading = _Iterator(inner, epoch, Turn())
    with epoch.restored_generators():
        for done in range(epoch.to_discard):
            if next(reading, epoch) is epoch:
                raise CursorError(
                    f"the checkpoint was saved after {epoch.to_discard} batches, but the dataset has only "
                    f"{done} now. Use the dataset that it was saved with."
                )
