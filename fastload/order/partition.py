"""Which positions of a step a rank delivers.

In: a step's first position and its number of samples per rank; a rank. Out: that rank's positions.
Promised: all ranks together take the range [start, start + per_rank * world_size), each position once, so
the samples of a step are the same for every world_size that divides it.
"""

import numpy as np


def rank_positions(start: int, per_rank: int, rank: int, world_size: int) -> np.ndarray:
    """Rank r takes start + r + j * world_size for j in [0, per_rank): [per_rank] int64."""
    assert 0 <= rank < world_size and per_rank >= 0
    return start + rank + world_size * np.arange(per_rank, dtype=np.int64)
