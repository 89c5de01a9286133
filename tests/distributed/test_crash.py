"""A training that is killed at any moment goes on from its last checkpoint, and its epochs are exact."""

import pytest

from tests.distributed import crash
from tests.loader.samples import write_shards

SAMPLES = 400  # no multiple of a shard's 70; 50 steps of two ranks
STRADDLING_SAMPLES = 401  # prime: no number of ranks divides it


def run(folder, samples, kills, **arguments) -> crash.Report:
    write_shards(folder / "shards", samples, 70)
    report = crash.run(folder, str(folder / "shards"), samples, kills, **arguments)
    print(report)
    assert report.kills == kills
    assert report.epochs >= 1
    return report


def test_a_training_killed_three_times_delivers_every_epoch_exactly(tmp_path, cases):
    report = run(tmp_path, SAMPLES, 3, seed=0, ranks=[2], last="drop")
    cases("crash", report.kills)


@pytest.mark.slow
def test_a_training_killed_fifty_times_delivers_every_epoch_exactly(tmp_path, cases):
    report = run(tmp_path, SAMPLES, 50, seed=1, ranks=[2], last="drop")
    assert report.while_writing >= 5
    assert report.lost_steps > 0
    cases("crash", report.kills)


@pytest.mark.slow
def test_a_training_killed_fifty_times_and_going_on_with_other_ranks_delivers_every_epoch_exactly(
    tmp_path, cases
):
    report = run(tmp_path, STRADDLING_SAMPLES, 50, seed=2, ranks=[1, 2, 3], last="straddle")
    assert set(report.lives) == {1, 2, 3}
    assert report.lost_steps > 0
    cases("crash", report.kills)
