"""The partition: over the ranks a step is its range, for every world size."""

import numpy as np
import pytest

from fastload.order.partition import rank_positions


@pytest.mark.parametrize("world_size", range(1, 9))
@pytest.mark.parametrize("per_rank", [0, 1, 2, 3, 7, 8, 9])
@pytest.mark.parametrize("start", [0, 1, 13, 10**15])
def test_over_the_ranks_a_step_is_its_range(start, per_rank, world_size):
    parts = [rank_positions(start, per_rank, rank, world_size) for rank in range(world_size)]
    assert all(part.dtype == np.int64 and part.shape == (per_rank,) for part in parts)
    together = np.sort(np.concatenate(parts))
    np.testing.assert_array_equal(together, np.arange(start, start + per_rank * world_size))


def test_a_rank_takes_every_world_size_th_position():
    assert rank_positions(100, 4, 2, 3).tolist() == [102, 105, 108, 111]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6, 8])
def test_the_samples_of_a_step_do_not_depend_on_the_number_of_ranks(world_size):
    ranks = [rank_positions(48, 24 // world_size, rank, world_size) for rank in range(world_size)]
    assert set(np.concatenate(ranks).tolist()) == set(range(48, 72))
