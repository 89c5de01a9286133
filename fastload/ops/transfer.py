"""Small arrays on their way to the kernels: positions as integers, host arrays onto a device at once."""

from typing import Any

import numpy as np

from fastload.errors import ConfigError


def as_positions(positions: Any) -> np.ndarray:
    """Positions [N] as int64 on the host: a list, an array or a tensor on any device.

    Raises ConfigError for anything but whole numbers in one dimension.
    """
    if hasattr(positions, "cpu"):
        positions = positions.cpu().numpy()
    array = np.asarray(positions)
    if array.ndim != 1 or not (np.issubdtype(array.dtype, np.integer) or not array.size):
        raise ConfigError(f"positions of {array.dtype} {list(array.shape)}: give whole numbers [N].")
    return array.astype(np.int64)


def to_device(array: np.ndarray, device: Any) -> Any:
    """The array as a tensor on `device`; the host does not wait for the copy to a GPU."""
    import torch

    tensor = torch.from_numpy(array)
    if torch.device(device).type == "cpu":
        return tensor
    # torch keeps pinned memory until its copy is done.
    return tensor.pin_memory().to(device, non_blocking=True)
