"""Batches on a GPU: copied from pinned memory on a stream of the loader's own.

In: a finished batch on the CPU. Out: the same batch with its tensors on the device. Promised: neither the
host nor the training's stream is synchronized; the tensors are safe to use on the stream that is current when
the batch is handed over; pinned memory is not given back before the copy from it is done. On a CPU a batch
passes untouched.
"""

from fastload.errors import BackendError


def resolve_device(device):
    """The torch.device that "auto", a name or a torch.device means; "auto" is a GPU where torch sees one."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise BackendError(
            f'device={device!r}: {str(error).splitlines()[0]}. Use "cpu", "cuda" or "auto".'
        ) from None
    if resolved.type not in ("cpu", "cuda"):
        raise BackendError(f'device={device!r}: batches are made for "cpu" and "cuda" only.')
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise BackendError(
            f'device={device!r}: torch sees no CUDA device here. Use device="cpu", or a CUDA build of torch.'
        )
    if resolved.type == "cuda" and resolved.index is None:
        resolved = torch.device("cuda", torch.cuda.current_device())
    return resolved


def device_copy(device):
    """What brings batches to `device`: a function of a batch."""
    resolved = resolve_device(device)
    return CudaCopy(resolved) if resolved.type == "cuda" else StayOnCpu()


class StayOnCpu:
    """Hands batches on as they are."""

    pins = False

    def __call__(self, batch: dict) -> dict:
        return batch


class CudaCopy:
    """Copies the tensors of a batch to one CUDA device."""

    pins = True

    def __init__(self, device):
        import torch

        self._torch, self._device = torch, device
        self._stream = torch.cuda.Stream(device)
        self._in_flight = []  # (event, pinned tensors that are being read until the event)

    def pinned(self, size_bytes: int):
        """Pinned memory that native threads can fill, as a NumPy array of bytes; torch keeps it for reuse."""
        return self._torch.empty(size_bytes, dtype=self._torch.uint8, pin_memory=True).numpy()

    def __call__(self, batch: dict) -> dict:
        torch = self._torch
        self._in_flight = [entry for entry in self._in_flight if not entry[0].query()]
        sources, tensors = [], []
        with torch.cuda.stream(self._stream):
            copied = self._copied(batch, sources, tensors)
            done = torch.cuda.Event()
            done.record(self._stream)
        self._in_flight.append((done, sources))
        current = torch.cuda.current_stream(self._device)
        current.wait_event(done)
        for tensor in tensors:
            tensor.record_stream(current)  # or the allocator would reuse it while the training still reads
        return copied

    def _copied(self, value, sources: list, tensors: list):
        """`value` with its tensors on the device, those in dicts too (npz and pth fields)."""
        if isinstance(value, dict):
            return {name: self._copied(one, sources, tensors) for name, one in value.items()}
        if not isinstance(value, self._torch.Tensor):
            return value
        source = value if value.is_pinned() else value.pin_memory()
        sources.append(source)
        tensors.append(source.to(self._device, non_blocking=True))
        return tensors[-1]
