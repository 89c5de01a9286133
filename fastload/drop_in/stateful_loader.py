"""torch's DataLoader with a state, and with batches copied to a GPU ahead of need.

In: everything that torch.utils.data.DataLoader takes. Out: its batches, by its own iterators and workers, in
its order. Promised: `state_dict()` between two batches is the place after the one delivered last, and
`load_state_dict()` makes the next iteration its rest, in the meaning of torchdata's StatefulDataLoader;
attributes stay what torch makes them; another batch size goes on at the same sample, or is refused. Exact
are the samplers that orders/sampler_state.py finds again, datasets and iterators with `state_dict` and
`load_state_dict`, and the seeds of workers; an iterable dataset without is read again up to its place, with
the generators of random, NumPy and torch as they were before its first sample, and given back after. Not
exact: random draws after that, inside workers and of a dataset that is read again; in_order=False; with
persistent workers, an epoch that follows one that was broken off.

A state holds torch's global CPU generator, from which torch draws the seeds of workers and of a sampler
without a generator. Later epochs are exact where the program puts the generator back itself
(torch.set_rng_state) before the first iteration, and where it does not, as long as nothing but this loader
draws from it in the run that was saved (global_generator.py): a model on a GPU does not, one on the CPU with
dropout, a second loader, and transforms in the main process do. Programs that seed torch with another number
before each epoch are exact, too. Those that seed with the same number each time are not, nor are later epochs
of samplers that draw from random or NumPy: restore these generators, or give the sampler one of its own.

Of torch's private names are used `_get_iterator`, `_index_sampler`, and `_iterator` with its `_reset`:
torch's iterator is made from a copy of the loader that has other functions and another sampler where a state
is to be remembered (see epoch_record.py); and of an iterator with workers `_shutdown_workers`, to close it,
and `_shutdown`, which says that this was done.
"""

import copy
import errno
import os
import warnings
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any, TypeVar

from torch.utils.data import DataLoader

from fastload.backends import process
from fastload.drop_in.epoch_record import Epoch
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

T = TypeVar("T", covariant=True)


class StatefulLoader(DataLoader[T]):
    """torch.utils.data.DataLoader, its arguments and behaviour, and what follows.

    device: None and "cpu" leave batches where torch leaves them. With "cuda" ("auto": where there is one)
    they are copied there, one batch ahead, on a stream of the loader's own; tensors in containers, and
    objects that have `to`, are moved. Give pin_memory=True too, or memory is pinned by the training's thread.
    snapshot_every_n_steps: of torchdata's StatefulDataLoader, a whole number from 1 up. It changes nothing:
    there is a snapshot after every batch.

    Raises: BackendError, ConfigError, CursorError, besides what torch raises.
    """

    def __init__(
        self,
        dataset,
        batch_size=1,
        shuffle=None,
        sampler=None,
        batch_sampler=None,
        num_workers=0,
        collate_fn=None,
        pin_memory=False,
        drop_last=False,
        timeout=0,
        worker_init_fn=None,
        multiprocessing_context=None,
        generator=None,
        *,
        prefetch_factor=None,
        persistent_workers=False,
        pin_memory_device="",
        in_order=True,
        device=None,
        snapshot_every_n_steps=1,
    ):
        super().__init__(
            dataset,
            batch_size=batch_size,
            shuffle=shuffle,
            sampler=sampler,
            batch_sampler=batch_sampler,
            num_workers=num_workers,
            collate_fn=collate_fn,
            pin_memory=pin_memory,
            drop_last=drop_last,
            timeout=timeout,
            worker_init_fn=worker_init_fn,
            multiprocessing_context=multiprocessing_context,
            generator=generator,
            prefetch_factor=prefetch_factor,
            persistent_workers=persistent_workers,
            pin_memory_device=pin_memory_device,
            in_order=in_order,
        )
        self.device = device
        self.snapshot_every_n_steps = count("snapshot_every_n_steps", snapshot_every_n_steps, 1)
        self._epoch: Epoch | None = None  # of the iteration begun last; holds no iterator of torch's
        self._restored: dict | None = None  # where the next iteration begins
        self._global_generator = GlobalGenerator()
        self._there: tuple | None = None  # (device, what brings batches there); its memory is of its stream
        self._under_way: weakref.ref[_Iterator] | None = None
        self._process = process()

    def __iter__(self) -> "_Iterator":
        self._notice_fork()
        with Turn() as turn:
            iterator = self._begin(turn)
        self._under_way = weakref.ref(iterator)
        return iterator

    def _begin(self, turn: Turn) -> "_Iterator":
        lasting = self.persistent_workers and self.num_workers > 0
        if lasting and self._iterator is not None and self._epoch is not None:
            self._epoch.reset(self._iterator, self)
            inner = self._iterator
        else:
            inner = self._started_iterator()
            if lasting:
                self._iterator = inner
        self._epoch.begun()
        there = None if self.device is None else self._delivery(resolve_device(self.device))
        if there is None or there.stream is None:
            return _Iterator(inner, self._epoch, turn)
        return _Ahead(inner, self._epoch, turn, there)

    def close(self) -> None:
        """Ends the iteration under way, and its worker processes; the loader may be iterated again.

        `state_dict` is what it was. May be called at any time, and again.
        """
        self._notice_fork()
        iterator = None if self._under_way is None else self._under_way()
        self._under_way = None
        if iterator is not None:
            iterator.close()
        if self._iterator is not None:  # of persistent workers, which outlive iterations
            _end_workers(self._iterator)
            self._iterator = None
        if self._there is not None:
            self._there[1].close()

    def _notice_fork(self) -> None:
        """A forked child begins anew: iterators and their workers are the parent's."""
        if self._process != process():
            self._process = process()
            self._iterator = self._epoch = self._there = self._under_way = None

    def __enter__(self) -> "StatefulLoader[T]":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _delivery(self, device: Any) -> Any:
        """One for all iterations: torch keeps freed memory for the stream that it was made on."""
        if self._there is None or self._there[0] != device:
            self._there = (device, delivery(device))
        return self._there[1]

    def state_dict(self) -> dict:
        """The place after the batch delivered last: a plain dict, and in it the states of your datasets."""
        if self.num_workers > 1 and not self.in_order:
            warnings.warn(
                "with in_order=False batches do not arrive in the order of the sampler: after a resume some "
                "may come twice and some not at all. Use in_order=True where that matters.",
                stacklevel=2,
            )
        if self._restored is not None:
            return encoded(copy.deepcopy(self._restored))
        return (self._epoch or Epoch(self, None, self._global_generator)).state()

    def load_state_dict(self, state_dict: dict) -> None:
        """The next iteration goes on at `state_dict`; {} is the beginning. Raises CursorError."""
        restored = checked(state_dict, self) if state_dict != {} else None
        self._global_generator.load(*global_generator_of(restored))
        self._iterator = self._epoch = None
        self._restored = copy.deepcopy(restored)
        if restored is not None and restored["sampler"] is not None and not restored["finished"]:
            set_epoch(self._index_sampler, restored["sampler"]["epoch"])

    def _started_iterator(self):
        """torch's iterator, with its processes and its thread where it has some. Raises ResourceError."""
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
        epoch = Epoch(self, self._restored, self._global_generator)
        inner = epoch.torch_iterator(self)
        if epoch.to_discard:
            _discard(inner, epoch)
        self._epoch, self._restored = epoch, None
        return inner

    @property
    def _index_sampler(self):
        recorded = self.__dict__.get("_recorded")
        return super()._index_sampler if recorded is None else recorded

    def __getstate__(self) -> dict:
        # Copies begin anew, as torch's do: what is under way holds iterators, which cannot be pickled.
        anew = {"_epoch": None, "_there": None, "_under_way": None}
        return self.__dict__ | anew | {"_global_generator": copy.copy(self._global_generator)}


class _Iterator:
    """One iteration: torch's iterator, and the record of what it delivered.

    Threads that ask at the same time are served one after the other.
    """

    def __init__(self, inner: Iterator, epoch: "Epoch", turn: Turn):
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
                if self._closed:  # by another thread, meanwhile
                    raise ConfigError(CLOSED) from error
                raise

    def close(self) -> None:
        """Ends it, and the worker processes that are its own."""
        self._closed = True
        if self._process == process() and not getattr(self._inner, "_persistent_workers", False):
            _end_workers(self._inner)

    def _next(self) -> Any:
        epoch = self._epoch
        try:
            batch = next(self._inner)
            while epoch.carries:
                if not isinstance(batch.batch, Placeholder):
                    batch = epoch.unpacked(batch)
                    break
                epoch.passed += 1
                batch = next(self._inner)
        except StopIteration:
            epoch.finished = True
            raise
        epoch.delivered += 1
        return batch


class _Ahead(_Iterator):
    """An iteration whose next batch is on its way to the device while the last is trained on."""

    def __init__(self, inner: Iterator, epoch: "Epoch", turn: Turn, there: Any):
        super().__init__(inner, epoch, turn)
        self._there = there
        self._coming: deque = deque()  # (batch on its way or None, error or None, the state after it)
        epoch.shown = epoch.snapshot()

    def _next(self) -> Any:
        while len(self._coming) < 2 and not self._ended():
            self._fetch()
        delivered, error, self._epoch.shown = self._coming[0]
        if not isinstance(error, StopIteration):  # that one is raised for ever
            self._coming.popleft()
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame, and with it torch's iterator
        return self._there.hand_over(delivered)

    def _ended(self) -> bool:
        return bool(self._coming) and isinstance(self._coming[-1][1], StopIteration)

    def _fetch(self) -> None:
        delivered, error = None, None
        try:
            delivered = self._there.deliver(super()._next(), lambda batch: batch)
        except Exception as raised:
            error = raised.with_traceback(None) if isinstance(raised, StopIteration) else raised
        self._coming.append((delivered, error, self._epoch.snapshot()))


_with_workers: weakref.WeakSet = weakref.WeakSet()  # iterators of torch's that have worker processes


def _leave_to_parent() -> None:
    """In a forked child: torch's finalizers would end the workers of the parent."""
    for inner in _with_workers:
        inner._shutdown = True
    _with_workers.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


def _end_workers(inner: Iterator) -> None:
    """Ends the worker processes of torch's iterator, where it has some."""
    end = getattr(inner, "_shutdown_workers", None)
    if end is not None:
        end()


def _discard(inner: Iterator, epoch: Epoch) -> None:
    """Reads an iterable dataset without a state up to its place."""
    notice(
        f"neither the dataset nor its iterator has state_dict and load_state_dict: {epoch.to_discard} "
        "batches are read again and dropped, which is exact where their order comes from generators at the "
        "first sample. Give one of them both, for a faster resume that is always exact."
    )
    reading = _Iterator(inner, epoch, Turn())
    with epoch.dice():
        for done in range(epoch.to_discard):
            if next(reading, epoch) is epoch:
                raise CursorError(
                    f"the checkpoint was saved after {epoch.to_discard} batches, and the dataset has {done} "
                    "now. Use the dataset that it was saved with."
                )
