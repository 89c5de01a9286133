"""fl.DataLoader of an fl.Dataset inside Lightning's Trainer.fit and an Accelerate loop, on 1 and 2 processes,
and inside transformers.Trainer.

The runs are in lightning_run.py, accelerate_run.py and transformers_run.py; here is said what all ranks must
have seen.
"""

import itertools
import json

import pytest

from tests.distributed.launch import Ranks
from tests.quick import slow_but
from tests.trainers import transformers_run
from tests.trainers.seen import ACCELERATE_SAVED_AFTER, BATCH_SIZE, LIGHTNING_SAVED_AFTER

N = 44
EPOCHS = 3
LAUNCH_SECONDS = 100
# Only accelerate's run on two processes is quick: the other trainers take twice as long to import.
QUICK = ("accelerate", 2)
RUNS = itertools.product(("lightning", "accelerate"), (1, 2))
each_run = pytest.mark.parametrize(
    "run", [pytest.param(run, marks=[pytest.mark.slow] * (run != QUICK)) for run in RUNS], ids=str
)
of_lightning = pytest.mark.parametrize("ranks", slow_but([], [1, 2]))
of_accelerate = pytest.mark.parametrize("ranks", slow_but([2], [1, 2]))


@pytest.fixture(scope="session")
def ranks_saw(tmp_path_factory, shards):
    """(trainer, ranks) -> what each rank saw; a run happens when it is first asked for."""
    done = {}

    def launch(trainer: str, world_size: int) -> list[dict]:
        folder = tmp_path_factory.mktemp(trainer)
        arguments = ["--shards", shards, "--out", str(folder)]
        launcher = "own" if world_size == 1 else "torchrun"
        with Ranks(f"tests.trainers.{trainer}_run", world_size, folder, arguments, launcher) as ranks:
            ranks.finish(LAUNCH_SECONDS)
        return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(world_size)]

    def saw(run) -> list[dict]:
        if run not in done:
            try:
                done[run] = launch(*run)
            except Exception as error:  # once is enough to learn that it fails
                done[run] = error
        if isinstance(done[run], Exception):
            raise done[run]
        return done[run]

    return saw


@each_run
def test_the_loader_is_ours_and_its_native_threads_decoded_every_image(ranks_saw, run):
    for found in ranks_saw(run):
        who = found["who"]
        assert who["type"] == "Loader" and who["decoder"].startswith("native")
        assert who["native_decode_seconds"] > 0
        assert who["images"] >= len(found["whole"]) * BATCH_SIZE


@each_run
def test_every_sample_comes_once_over_the_ranks(ranks_saw, run):
    ranks = ranks_saw(run)
    steps_per_epoch = N // (BATCH_SIZE * len(ranks))
    for kind in ("whole", "sampled whole", "torch's whole"):
        for epoch in range(EPOCHS):
            mine = [
                [step for step in found[kind] if step["epoch"] == epoch] for found in ranks if kind in found
            ]
            assert all(len(steps) == steps_per_epoch for steps in mine)
            labels = [label for steps in mine for step in steps for label in step["labels"]]
            assert len(set(labels)) == len(labels)
    if len(ranks) > 1:
        assert ranks[0]["whole"][0]["labels"] != ranks[0]["sampled whole"][0]["labels"]


@each_run
def test_epochs_differ_in_their_order(ranks_saw, run):
    (whole, *_) = (found["whole"] for found in ranks_saw(run))
    firsts = [next(step["labels"] for step in whole if step["epoch"] == epoch) for epoch in range(EPOCHS)]
    assert len({tuple(first) for first in firsts}) == EPOCHS


def assert_rest(found: dict, name: str, place: str, saved_after: int) -> None:
    """A resumed run saw what the whole one saw after its checkpoint: epochs, samples, pixels."""
    assert found[name + place] == found[f"{name}whole"][saved_after:]
    assert len(found[name + place]) > 0


@of_lightning
def test_a_checkpoint_that_lightning_saved_resumes_exactly(ranks_saw, ranks):
    for found in ranks_saw(("lightning", ranks)):
        steps_per_epoch = len(found["whole"]) // EPOCHS
        for name in ("", "sampled ") if ranks > 1 else ("",):
            assert_rest(found, name, "from a step", LIGHTNING_SAVED_AFTER)
            assert_rest(found, name, "from an epoch's end", steps_per_epoch)


@of_lightning
def test_a_checkpoint_of_a_torch_dataset_resumes_in_lightning_too(ranks_saw, ranks):
    """From within an epoch. Of an epoch's end Lightning restores no loader's state, nor does it tell a torch
    sampler the epoch before workers draw from it: what comes then, comes with torch's own loader as well."""
    for found in ranks_saw(("lightning", ranks)):
        assert_rest(found, "torch's ", "from a step", LIGHTNING_SAVED_AFTER)
        steps_per_epoch = len(found["torch's whole"]) // EPOCHS
        assert len(found["torch's from an epoch's end"]) == (EPOCHS - 1) * steps_per_epoch


@of_accelerate
def test_a_checkpoint_that_accelerate_saved_resumes_exactly(ranks_saw, ranks):
    for found in ranks_saw(("accelerate", ranks)):
        steps_per_epoch = len(found["whole"]) // EPOCHS
        for name in ("", "sampled ") if ranks > 1 else ("",):
            for step in (*ACCELERATE_SAVED_AFTER, steps_per_epoch):
                assert_rest(found, name, f"from step {step}", step)


@pytest.mark.slow
def test_lightning_counts_an_epoch_that_max_steps_ends_as_done_and_goes_on_with_the_next(ranks_saw):
    """Its own rule, with every loader: epoch_progress says so, and set_epoch follows it."""
    (found,) = ranks_saw(("lightning", 1))
    steps_per_epoch = len(found["whole"]) // EPOCHS
    assert (
        found["stopped by max_steps"]
        == found["whole"][: steps_per_epoch + 1] + found["whole"][2 * steps_per_epoch :]
    )


@pytest.mark.slow
def test_lightning_overfits_on_the_first_batches_of_a_loader_that_does_not_shuffle(ranks_saw):
    (found,) = ranks_saw(("lightning", 1))
    assert [step["labels"] for step in found["overfit"]] == [list(range(5)), list(range(5, 10))] * 2


@of_lightning
def test_lightning_validates_on_every_sample_once(ranks_saw, ranks):
    everybody = ranks_saw(("lightning", ranks))
    labels = []
    for found in everybody:
        (sanity, *_) = found["validated"]
        assert sanity["epoch"] == 0
        last = [step for step in found["validated"] if step["epoch"] == EPOCHS - 1]
        labels += [label for step in last for label in step["labels"]]
    assert sorted(labels) == list(range(N))


@pytest.mark.slow
def test_transformers_trainer_resumes_exactly_within_an_epoch_and_at_its_end(ranks_saw):
    """One test, so that its long run is one: of every loader, with and without gradient accumulation."""
    (saw,) = ranks_saw(("transformers", 1))
    for loader, accumulated in itertools.product(
        transformers_run.loaders("unused"), transformers_run.ACCUMULATED
    ):
        found = saw[f"{loader}, {accumulated}"]
        whole, steps_per_epoch = found["whole"], found["steps"] // transformers_run.EPOCHS
        batches = len(whole) // transformers_run.EPOCHS  # of an epoch
        assert len(found["from"]) == (1 if loader == "torch" else 3)
        for step, rest in found["from"].items():
            epochs, steps = divmod(int(step), steps_per_epoch)
            assert rest == whole[epochs * batches + steps * accumulated :] and rest, (
                loader,
                accumulated,
                step,
            )
        labels = [label for batch in whole[:batches] for label in batch["labels"]]
        assert len(set(labels)) == len(labels) >= N - BATCH_SIZE + 1
        assert whole[:batches] != whole[batches:]
    validated = saw["DataLoader, 0 workers, 1"]["validated"]
    assert [label for batch in validated for label in batch["labels"]] == [
        *range(N)
    ] * transformers_run.EPOCHS
