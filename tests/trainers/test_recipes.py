"""The programs in docs/resume.md resume exactly; recipe_run.py runs them, in one process and on two ranks."""

import json
from pathlib import Path

import pytest

from tests.distributed.launch import Ranks
from tests.loader.samples import write_shards
from tests.trainers import recipe_run

PAGE = Path(__file__).resolve().parents[2] / "docs" / "resume.md"
LAUNCH_SECONDS = 100
# Those of trainers take long to import; test_trainers.py has them, too.
PROGRAMS = {
    1: ["Lightning 1", "Accelerate 1", "transformers.Trainer 1", "transformers.Trainer 2"],
    2: [
        "Torch and DDP 1",
        "torch.distributed.checkpoint 1",
        "torch.distributed.checkpoint 2",
        "torchtitan, and loops like it 1",
    ],
}


@pytest.mark.parametrize("world_size", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_each_recipe_gives_exactly_the_rest_after_a_crash(tmp_path, world_size):
    """Of the first epoch, at its end, and of the second one."""
    write_shards(tmp_path / "shards", 24, 6)
    arguments = ["--shards", str(tmp_path / "shards"), "--out", str(tmp_path), "--page", str(PAGE)]
    with Ranks(recipe_run.__name__, world_size, tmp_path, arguments) as ranks:
        ranks.finish(LAUNCH_SECONDS)
    saw = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(world_size)]
    for name in PROGRAMS[world_size]:
        for found in saw:
            whole = found[name]["whole"]
            assert len(whole) >= 14 and set(found[name]["rest"]) == {"3", "6", "9"}
            for saved, rest in found[name]["rest"].items():
                assert rest == whole[int(saved) :], (name, saved)
        epoch = [key for found in saw for batch in found[name]["whole"][:6] for key in batch["keys"]]
        assert len(set(epoch)) == len(epoch) == 24
    assert all(found.keys() == set(PROGRAMS[world_size]) for found in saw)
