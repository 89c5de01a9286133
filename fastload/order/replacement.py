"""Which sample stands in for one whose content is damaged: a pure function of (seed, position, attempt).

In: positions whose samples are bad, and how many stand-ins were bad before. Out: sample_ids. Promised: the
same on any rank, batch size and machine, and in every run; from the same source, in its own window at first,
so that no other shards are read. A window may be as short as one sample: from the fifth attempt on the
whole epoch is drawn from, or a bad sample at the end of a lane would end the run.
"""

import numpy as np

from fastload import rng
from fastload.order.plan import Plan
from fastload.rng import Purpose

MOST_ATTEMPTS = 8
_IN_WINDOW = 4  # attempts


def stand_in_ids(
    plan: Plan, positions: np.ndarray, own_positions: np.ndarray, attempt: int, seed: int
) -> np.ndarray:
    """[N] sample_ids of `plan`, int64.

    positions: [N] int64, which key the draw. own_positions: [N] int64, the same places in the order of this
    plan, which differ in a mixture. attempt: 1 to MOST_ATTEMPTS.
    """
    assert 1 <= attempt <= MOST_ATTEMPTS
    words = rng.bits(seed, positions, Purpose.REPLACEMENT, attempt).astype(np.uint64)
    drawn = words[:, 0] | words[:, 1] << np.uint64(32)
    if attempt <= _IN_WINDOW:
        first, step, count = plan.windows(own_positions)
    else:
        first, step, count = own_positions - own_positions % plan.n, 1, np.full(len(positions), plan.n)
    return plan.sample_ids(first + step * (drawn % count.astype(np.uint64)).astype(np.int64))
