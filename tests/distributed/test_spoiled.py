"""Too many bad samples on one rank end the whole job, in a way that its launcher sees."""

import time

import pytest

from tests.distributed.launch import Ranks
from tests.loader.samples import write
from tests.quick import slow_but

SECONDS = 60  # far beyond what it takes, and below gloo's own limit for a partner that is gone


@pytest.mark.parametrize("launcher", slow_but(["own"], ["own", "torchrun"]))
def test_too_many_bad_samples_on_one_rank_end_all_ranks(tmp_path, launcher):
    samples = ({"__key__": f"{i:05d}", "cls": b"cat" if i % 2 and 20 < i < 60 else i} for i in range(4000))
    write(tmp_path / "shards", samples, per_shard=40)
    arguments = ["--shards", str(tmp_path / "shards")]
    with Ranks("tests.distributed.spoiled", 2, tmp_path / "said", arguments, launcher) as ranks:
        stop = time.monotonic() + SECONDS
        while ranks.alive():
            assert time.monotonic() < stop, ranks.story("the job goes on although a rank has ended")
            time.sleep(0.05)
    assert all(process.returncode for process in ranks.processes)
    said = "".join(path.read_text() for path in (tmp_path / "said").glob("said-*.txt"))
    # Rank 1 takes 21, 23, ...: the sixth bad one is 31, in the batch of 29 and 31.
    assert "BadSamplesError: 6 of rank 1's last 16 samples are bad" in said
    assert "most are in 000.tar (6)" in said
    assert "rank 1 got up to 27\n" in said and "rank 1 got up to 31\n" not in said
