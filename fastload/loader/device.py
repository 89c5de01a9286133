"""Batches on a device: copied and finished on a stream of the loader's own, handed over by an event.

In: a batch on the CPU, and a function that finishes it (uint8 pixels to tensors, mixing). Out: the batch
with its tensors on the device. Promised: neither the host nor the training's stream is synchronized; the
tensors are safe to use on the stream that is current when the batch is handed over, and may be freed at any
time; sources of copies (pinned memory, DALI's buffers) are held until the event after they were read. On a
CPU a batch is only finished.
"""

import copy
import inspect
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any, NamedTuple

from fastload.errors import BackendError


def resolve_device(device):
    """The torch.device that "auto", a name or a torch.device means; "auto" is a GPU where torch sees one."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError):
        resolved = None
    if resolved is None or resolved.type not in ("cpu", "cuda"):
        raise BackendError(f'device must be "cpu", "cuda" or "auto", got {device!r}.')
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise BackendError(
            f'device={device!r} needs a GPU, but torch sees none. Use device="cpu", or a CUDA build of torch.'
        )
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise BackendError(f"device={device!r}: the number of a CUDA device must be in [0, {count}).")
    if resolved.type == "cuda" and resolved.index is None:
        resolved = torch.device("cuda", torch.cuda.current_device())
    return resolved


def delivery(device):
    """The delivery of batches to a torch.device."""
    return CudaDelivery(device) if device.type == "cuda" else CpuDelivery()


class Delivered(NamedTuple):
    """A batch on its device, complete after the CUDA event `done` (None: already complete)."""

    batch: dict
    done: Any


class CpuDelivery:
    """Finishes batches on the CPU."""

    pins = False
    stream = None

    def deliver(self, batch: dict, finish: Callable[[dict], dict]) -> Delivered:
        return Delivered(finish(batch), None)

    def hand_over(self, delivered: Delivered) -> dict:
        return delivered.batch

    def counters(self) -> dict:
        return {}

    def close(self) -> None:
        """Does nothing; see CudaDelivery."""


class CudaDelivery:
    """Copies the tensors of a batch to one CUDA device, and finishes it there."""

    pins = True

    def __init__(self, device):
        import torch

        self._torch, self._device = torch, device
        self.stream = torch.cuda.Stream(device)
        # The training's thread calls `counters`; a signal handler may close the loader meanwhile.
        self._lock = threading.RLock()
        self._in_flight = deque()  # (begun, copied, done, sources that are read until done)
        self._counters = {"batches": 0, "copied_bytes": 0, "copy_seconds": 0.0, "augment_seconds": 0.0}

    def pinned(self, size_bytes: int):
        """[size_bytes] uint8 in pinned memory, which torch reuses, for native threads to fill."""
        try:
            return self._torch.empty(size_bytes, dtype=self._torch.uint8, pin_memory=True).numpy()
        except RuntimeError as error:  # from the CUDA runtime
            raise MemoryError(f"{size_bytes:,} bytes of pinned memory: {error}") from error

    def deliver(self, batch: dict, finish: Callable[[dict], dict]) -> Delivered:
        """Launches the copies and `finish` on the stream of this object."""
        torch = self._torch
        self._forget_done()
        sources: list = []
        with torch.cuda.stream(self.stream):
            begun, copied, done = (torch.cuda.Event(enable_timing=True) for _ in range(3))
            begun.record(self.stream)
            moved = self._copied(batch, sources)
            copied.record(self.stream)
            finished = finish(moved)
            done.record(self.stream)
        with self._lock:
            self._in_flight.append((begun, copied, done, sources))
        return Delivered(finished, done)

    def hand_over(self, delivered: Delivered) -> dict:
        """The batch, for use on the current stream, which waits for it; the host does not wait."""
        current = self._torch.cuda.current_stream(self._device)
        current.wait_event(delivered.done)
        for tensor in self._tensors(delivered.batch):
            tensor.record_stream(current)  # or the allocator could reuse it while training still reads it
        return delivered.batch

    def counters(self) -> dict:
        """Of the batches that are complete: their number, bytes copied, seconds on the stream."""
        self._forget_done()
        with self._lock:
            return dict(self._counters)

    def close(self) -> None:
        """Waits until no source is read any more."""
        with self._lock:
            for _, _, done, _ in self._in_flight:
                done.synchronize()
            self._in_flight.clear()

    def _forget_done(self) -> None:
        with self._lock:
            while self._in_flight and self._in_flight[0][2].query():
                begun, copied, done, _ = self._in_flight.popleft()
                self._counters["batches"] += 1
                self._counters["copy_seconds"] += begun.elapsed_time(copied) / 1000
                self._counters["augment_seconds"] += copied.elapsed_time(done) / 1000

    def _copied(self, value, sources: list):
        """`value` on the device: tensors, objects that have `to`, and containers of them (see `_rebuilt`)."""
        if isinstance(value, self._torch.Tensor):
            if value.device == self._device:
                return value
            source = value if value.is_pinned() else value.pin_memory()
            sources.append(source)
            self._counters["copied_bytes"] += source.numel() * source.element_size()
            return source.to(self._device, non_blocking=True)
        if callable(getattr(value, "to", None)):
            sources.append(value)
            return value.to(self._device, **_non_blocking(value))
        return _rebuilt(value, lambda item: self._copied(item, sources))

    def _tensors(self, value, seen: frozenset = frozenset()) -> Iterator:
        """All in a batch that have `record_stream`: tensors, and objects that hold tensors.

        Attributes are searched only in objects that have `to`. seen: ids of the objects around `value`.
        """
        if callable(getattr(value, "record_stream", None)):
            yield value
        elif isinstance(value, Mapping):
            for item in value.values():
                yield from self._tensors(item, seen)
        elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
            for item in value:
                yield from self._tensors(item, seen)
        elif callable(getattr(value, "to", None)) and id(value) not in seen:
            yield from self._tensors(_attributes(value), seen | {id(value)})


def _non_blocking(value) -> dict[str, bool]:
    """non_blocking=True as an argument for `value.to`, if it takes that."""
    try:
        parameters = inspect.signature(value.to).parameters
    except (TypeError, ValueError):  # not written in Python
        return {"non_blocking": True}
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    return {"non_blocking": True} if takes_any or "non_blocking" in parameters else {}


def _attributes(value) -> list:
    """The attributes of an object, in its __dict__ and in the __slots__ of its classes."""
    slots = [getattr(kind, "__slots__", ()) for kind in type(value).__mro__]
    names = {name for slot in slots for name in ([slot] if isinstance(slot, str) else slot)}
    found = [getattr(value, name, None) for name in names - {"__dict__", "__weakref__"}]
    return [*getattr(value, "__dict__", {}).values(), *found]


def _rebuilt(value, change: Callable):
    """A container of the same type, with `change` applied to its items, for the containers that torch's
    DataLoader supports. As there, a type that cannot be constructed becomes a dict or a list.
    """
    if isinstance(value, Mapping):
        changed = {name: change(item) for name, item in value.items()}
        return changed if type(value) is dict else _like(value, changed)
    if isinstance(value, tuple):
        changed = [change(item) for item in value]
        return type(value)(*changed) if hasattr(value, "_fields") else type(value)(changed)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        changed = [change(item) for item in value]
        return changed if type(value) is list else _like(value, changed)
    return value


def _like(value, changed):
    """A copy of the container `value` with the items of `changed`."""
    try:
        if isinstance(value, MutableMapping):
            clone = copy.copy(value)
            clone.update(changed)
            return clone
        if isinstance(value, MutableSequence):
            clone = copy.copy(value)
            for index, item in enumerate(changed):
                clone[index] = item
            return clone
        return type(value)(changed)
    except TypeError:
        return changed
