"""The native twin of `ada_augment`: csrc/ops/ada.h, image by image on as many threads as torch uses.

Computed in float32, for float64 images in float64; equal inputs give equal bits, however many threads there
are and whatever else is in the batch.
"""

from typing import Any

from fastload.ops.ada.stages.wavelets import BANDS, SYM6


def launch(images: Any, rows: Any, noise_key: Any, eps: Any, stages: int, mode: int) -> Any:
    """The stages, or their adjoint, as `registered.ada` says; nothing is checked but what memory depends on.

    rows: [N, 40] floats. noise_key: [N, 2] integers, and eps: [N, C, H, W] floats, or None.
    """
    import torch

    from fastload import _native
    from fastload.threads import native_threads

    work = torch.float64 if images.dtype == torch.float64 else torch.float32
    out = torch.empty(images.shape, dtype=work)
    threads = torch.get_num_threads()
    _native.ada(
        images.detach().to(work).numpy(),
        _numbers(rows, work),
        _numbers(noise_key, torch.int32),
        _numbers(eps, work),
        stages,
        mode,
        SYM6,
        BANDS,
        out.numpy(),
        native_threads("augment", threads, _native.AugmentThreads),
    )
    return out.to(images.dtype)


def _numbers(tensor: Any, dtype: Any) -> Any:
    return None if tensor is None else tensor.detach().to(dtype).contiguous().numpy()
