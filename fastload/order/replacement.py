"""Which sample replaces one with damaged content: a pure function of (seed, position, attempt).

In: positions whose samples are bad, and how many replacements were bad before. Out: sample_ids. Promised: the
same on any rank, batch size and machine, and in every run. A replacement comes from the same source, and at
first from the same window, so that no other shards are read. A window may be as short as one sample, so from
the fifth attempt on it is drawn from the whole epoch; else a bad sample at the end of a lane would end the
run.
"""

import numpy as np

from fastload import rng
from fastload.order.plan import Plan
from fastload.rng import Purpose

MAX_ATTEMPTS = 8
_IN_WINDOW = 4  # attempts


def replacement_ids(
    plan: Plan, positions: np.ndarray, own_positions: np.ndarray, attempt: int, seed: int
) -> np.ndarray:
    """[N] sample_ids of `plan`, int64.

    positions: [N] int64, which key the random draw. own_positions: [N] int64, the same positions counted in
    the order of this plan; they differ in a mixture. attempt: 1 to MAX_ATTEMPTS.
    """
    assert 1 <= attempt <= MAX_ATTEMPTS
    words = rng.bits(seed, positions, Purpose.REPLACEMENT, attempt).astype(np.uint64)
    drawn = words[:, 0] | words[:, 1] << np.uint64(32)
    if attempt <= _IN_WINDOW:
        first, step, count = plan.windows(own_positions)
    else:
        first, step, count = own_positions - own_positions % plan.n, 1, np.full(len(positions), plan.n)
    return plan.sample_ids(first + step * (drawn % count.astype(np.uint64)).astype(np.int64))
