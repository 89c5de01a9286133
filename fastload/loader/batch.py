"""From buffers to what the training sees: torch tensors over pooled memory, on the CPU or on a GPU.

In: a `Buffer` that native threads have filled, or a NumPy array. Out: torch tensors. Promised: nothing is copied on
the CPU; a buffer goes back to its pool when the last tensor over it dies, views included, and is never written
before that.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

# NumPy has no bfloat16: its bits travel as uint16.
_NUMPY_DTYPE = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16, "uint8": np.uint8}


def as_tensor(array: np.ndarray) -> "torch.Tensor":
    """The array as a tensor over the same memory."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))


def image_tensor(buffer, samples: int, height: int, width: int, dtype: str, layout: str) -> "torch.Tensor":
    """The images of a buffer as [samples, 3, height, width]; with layout "channels_last" in that memory format."""
    import torch

    shape = (samples, 3, height, width) if layout == "nchw" else (samples, height, width, 3)
    array = np.frombuffer(buffer, _NUMPY_DTYPE[dtype], int(np.prod(shape))).reshape(shape)
    tensor = torch.from_numpy(array)
    if dtype == "bfloat16":
        tensor = tensor.view(torch.bfloat16)
    return tensor if layout == "nchw" else tensor.permute(0, 3, 1, 2)
