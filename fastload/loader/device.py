"""Batches on a GPU: copied from pinned memory on a stream of the loader's own.

In: a finished batch on the CPU. Out: the same batch with its tensors on the device. Promised: the training's stream
is never synchronized, neither is the host; the tensors are safe to use on the stream that is current when the batch
is handed over; a pinned buffer is not written again before its copy is done.
"""

import torch

from fastload.errors import BackendError


def resolve_device(device) -> torch.device:
    """The torch device that `device` ("auto", a name or a torch.device) means; "auto" is a GPU where there is one."""
    if device == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    resolved = torch.device(device)
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise BackendError(f'device="{device}": torch sees no CUDA device here. Use device="cpu", or install a CUDA torch.')
    if resolved.type not in ("cpu", "cuda"):
        raise BackendError(f'device="{device}": only "cpu" and "cuda" are served.')
    if resolved.type == "cuda" and resolved.index is None:
        resolved = torch.device("cuda", torch.cuda.current_device())
    return resolved


class DeviceCopy:
    """Copies batches to one CUDA device, one ahead of the training."""

    def __init__(self, device: torch.device):
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._in_flight: list[tuple[torch.cuda.Event, list[torch.Tensor]]] = []

    def begin(self, batch: dict) -> tuple[dict, "torch.cuda.Event"]:
        """Starts the copies of a batch; the batch may be used once `hand_over` has ordered the streams."""
        self._release_done()
        copied, pinned = {}, []
        with torch.cuda.stream(self._stream):
            for name, value in batch.items():
                if isinstance(value, torch.Tensor):
                    source = value.pin_memory()
                    pinned.append(source)
                    value = source.to(self._device, non_blocking=True)
                copied[name] = value
            done = torch.cuda.Event()
            done.record(self._stream)
        self._in_flight.append((done, pinned))
        return copied, done

    def hand_over(self, batch: dict, done: "torch.cuda.Event") -> dict:
        """Orders the training's current stream after the copies, and tells the allocator who uses the memory."""
        current = torch.cuda.current_stream(self._device)
        current.wait_event(done)
        for value in batch.values():
            if isinstance(value, torch.Tensor):
                value.record_stream(current)
        return batch

    def _release_done(self) -> None:
        self._in_flight = [(done, pinned) for done, pinned in self._in_flight if not done.query()]
