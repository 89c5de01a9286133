"""Several real processes with gloo: the loader finds its rank, and over the ranks comes every sample, once.

Each launch below goes through several scenarios of worker.py; each test looks at what all its ranks saw.
"""

import json

import numpy as np
import pytest

from fastload.order.plan import Global
from tests.distributed.launch import Ranks
from tests.distributed.worker import AUGMENT, BATCH_SIZE, crcs
from tests.loader.samples import pictures

N = 103
SHARDS = 11
LAUNCH_SECONDS = 50
SAVED_AFTER = 4  # steps, on two ranks

# name -> ranks, launcher, scenarios. Those with `resumed` go on from the state that "2 own" saved.
LAUNCHES = {
    "2 own": (2, "own", ["late", "changed", "endings", "states", "images", "cold"]),
    "3 own": (3, "own", ["late", "endings", "states", "resumed"]),
    "4 own": (4, "own", ["late", "groups", "cold", "resumed"]),
    "2 torchrun": (2, "torchrun", ["environment"]),
    "4 torchrun": (4, "torchrun", ["environment", "endings", "states", "groups", "cold", "resumed"]),
}


SLOW = ("3 own", "4 torchrun")  # the others have the same scenarios


def launches(scenario: str):
    names = [name for name, one in LAUNCHES.items() if scenario in one[2]]
    return pytest.mark.parametrize(
        "launch", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in names]
    )


@pytest.fixture(scope="session")
def ranks_saw(tmp_path_factory, shards):
    """(launch, scenario) -> what each rank returned; a launch happens when it is first asked for."""
    done = {}

    def run(launch: str) -> dict:
        world_size, launcher, scenarios = LAUNCHES[launch]
        folder = tmp_path_factory.mktemp("launch")
        arguments = ["--shards", shards, "--out", str(folder / "found.json"), "--scenarios", *scenarios]
        if "resumed" in scenarios:
            (folder / "state.json").write_text(json.dumps(saved_state()))
            arguments += ["--state", str(folder / "state.json")]
        with Ranks("tests.distributed.worker", world_size, folder, arguments, launcher) as ranks:
            ranks.finish(LAUNCH_SECONDS)
        return json.loads((folder / "found.json").read_text())

    def saw(launch: str, scenario: str) -> list:
        if launch not in done:
            try:
                done[launch] = run(launch)
            except Exception as error:  # once is enough to learn that it fails
                done[launch] = error
        if isinstance(done[launch], Exception):
            raise done[launch]
        return done[launch][scenario]

    def saved_state() -> dict:
        return saw("2 own", "states")[0]["states"][SAVED_AFTER]

    saw.saved_state = saved_state
    return saw


def steps_of(ranks: list[list[dict]], batch_size: int = BATCH_SIZE) -> list[tuple[list[int], list[int]]]:
    """(positions, labels) of each step over the ranks, in the global order, without padding.

    Asserts that ranks have as many batches, of the same size in a step, and take turns in it.
    """
    assert len({len(batches) for batches in ranks}) == 1
    steps = []
    for step in zip(*ranks, strict=True):
        per_rank = len(step[0]["positions"])
        assert [len(batch["positions"]) for batch in step] == [per_rank] * len(ranks)
        assert 1 <= per_rank <= batch_size
        turns = [(i, batch) for i in range(per_rank) for batch in step]
        valid = [(i, batch) for i, batch in turns if batch["valid"] is None or batch["valid"][i]]
        positions = [batch["positions"][i] for i, batch in valid]
        assert positions == list(range(positions[0], positions[0] + len(valid)))
        steps.append((positions, [batch["labels"][i] for i, batch in valid]))
    return steps


def flat_steps(steps) -> tuple[list[int], list[int]]:
    return [p for positions, _ in steps for p in positions], [x for _, labels in steps for x in labels]


def assert_the_epoch(ranks: list[list[dict]], stop: int = N) -> int:
    """The ranks got exactly the samples of positions [0, stop), in order; returns how many steps it took."""
    steps = steps_of(ranks)
    positions, labels = flat_steps(steps)
    assert positions == list(range(stop))
    assert labels == sample_ids(positions)
    return len(steps)


def sample_ids(positions) -> list[int]:
    """By the definition of the order: label i is sample i."""
    return Global(N, 0).sample_ids(np.array(positions, np.int64)).tolist()


def whole_steps(world_size: int) -> int:
    """Where last="drop" ends."""
    return N - N % (BATCH_SIZE * world_size)


@launches("environment")
def test_torchruns_environment_tells_the_rank_before_there_is_a_process_group(ranks_saw, launch, cases):
    ranks = ranks_saw(launch, "environment")
    assert_the_epoch(ranks, whole_steps(len(ranks)))
    cases("distributed", len(ranks))


@launches("late")
def test_a_process_group_made_after_the_loader_tells_the_rank(ranks_saw, launch, cases):
    ranks = ranks_saw(launch, "late")
    steps = assert_the_epoch([one["batches"] for one in ranks], whole_steps(len(ranks)))
    assert [one["length"] for one in ranks] == [steps] * len(ranks)
    if LAUNCHES[launch][1] == "own":  # nothing told it of the others
        assert [one["length_before"] for one in ranks] == [N // BATCH_SIZE] * len(ranks)
    cases("distributed", len(ranks))


@launches("changed")
def test_an_iteration_that_began_in_another_world_is_refused_and_a_new_one_takes_the_new_world(
    ranks_saw, launch, cases
):
    ranks = ranks_saw(launch, "changed")
    assert all(one["first"] == list(range(BATCH_SIZE)) for one in ranks)
    assert all("world" in (one["error"] or "") for one in ranks)
    steps = steps_of([one["batches"] for one in ranks])
    # It was broken off in epoch 0, so this is epoch 1.
    positions, labels = flat_steps(steps)
    assert positions == list(range(N, N + whole_steps(len(ranks))))
    assert labels == sample_ids(positions)
    cases("distributed", len(ranks))


@launches("endings")
def test_drop_leaves_out_what_fills_no_step_and_nothing_else(ranks_saw, launch, cases):
    ranks = [one["drop"] for one in ranks_saw(launch, "endings")]
    stop = whole_steps(len(ranks))
    positions, labels = flat_steps(steps_of(ranks))
    assert positions == [*range(stop), *range(N, N + stop)]
    assert labels == sample_ids(positions)
    assert len(set(labels[:stop])) == stop
    cases("distributed", 2)


@launches("endings")
def test_partial_leaves_out_fewer_than_a_sample_for_each_rank(ranks_saw, launch, cases):
    ranks = [one["partial"] for one in ranks_saw(launch, "endings")]
    stop = N - N % len(ranks) if N % (BATCH_SIZE * len(ranks)) >= len(ranks) else whole_steps(len(ranks))
    positions, labels = flat_steps(steps_of(ranks))
    assert positions == [*range(stop), *range(N, N + stop)]
    assert labels == sample_ids(positions)
    assert N - stop < len(ranks)
    cases("distributed", 2)


@launches("endings")
def test_pad_gives_every_sample_of_the_epoch_once_and_repeats_its_start(ranks_saw, launch, cases):
    ranks = [one["pad"] for one in ranks_saw(launch, "endings")]
    positions, labels = flat_steps(steps_of(ranks))
    assert positions == list(range(2 * N))
    assert labels == sample_ids(positions)
    assert sorted(labels[:N]) == sorted(labels[N:]) == list(range(N))
    per_epoch = len(ranks[0]) // 2
    for last in (per_epoch - 1, 2 * per_epoch - 1):
        padding = [
            (batch[last]["positions"][i], batch[last]["labels"][i])
            for i in range(BATCH_SIZE)
            for batch in ranks
            if not batch[last]["valid"][i]
        ]
        start = N * (last // per_epoch)
        assert [p for p, _ in padding] == list(range(start, start + len(padding)))
        assert [label for _, label in padding] == sample_ids([p for p, _ in padding])
    cases("distributed", 2)


@launches("endings")
def test_straddle_gives_every_sample_of_every_epoch_once(ranks_saw, launch, cases):
    ranks = [one["straddle"] for one in ranks_saw(launch, "endings")]
    assert {len(batch["positions"]) for batches in ranks for batch in batches} == {BATCH_SIZE}
    positions, labels = flat_steps(steps_of(ranks))
    assert positions == list(range(len(positions)))
    assert 0 <= len(positions) - 2 * N < BATCH_SIZE * len(ranks)
    assert labels == sample_ids(positions)
    assert sorted(labels[:N]) == sorted(labels[N : 2 * N]) == list(range(N))
    cases("distributed", 2)


@launches("states")
def test_the_state_is_the_same_on_every_rank_after_every_step(ranks_saw, launch, cases):
    ranks = ranks_saw(launch, "states")
    samples_per_step = BATCH_SIZE * len(ranks)
    for one in ranks:
        assert all(one["equal"])
        assert one["states"] == ranks[0]["states"]
        places = [state["position"] for state in one["states"]]
        stop = N - N % len(ranks)  # of last="partial"
        assert places == [min(step * samples_per_step, stop) for step in range(len(places))]
        assert len(places) > N // samples_per_step
    cases("distributed", len(ranks[0]["states"]))


@launches("resumed")
def test_a_state_saved_on_two_ranks_gives_exactly_the_rest(ranks_saw, launch, cases):
    ranks = ranks_saw(launch, "resumed")
    start = ranks_saw.saved_state()["position"]
    assert start == SAVED_AFTER * BATCH_SIZE * 2
    positions, labels = flat_steps(steps_of(ranks))
    assert positions == list(range(start, N))
    assert labels == sample_ids(positions)
    cases("distributed", 1)


@launches("groups")
def test_processes_of_one_group_get_the_same_batches_and_the_groups_together_the_epoch(
    ranks_saw, launch, cases
):
    ranks = ranks_saw(launch, "groups")
    assert ranks[0] == ranks[1] and ranks[2] == ranks[3]
    assert ranks[0]["state"] == ranks[2]["state"]
    assert_the_epoch([ranks[0]["batches"], ranks[2]["batches"]])
    cases("distributed", len(ranks))


@launches("cold")
def test_ranks_that_start_together_on_a_cold_cache_index_every_shard_once(ranks_saw, launch, cases):
    ranks = ranks_saw(launch, "cold")
    for one in ranks:
        assert sorted(one["indexed"]) == [f"{shard:03d}.tar" for shard in range(SHARDS)]
    assert_the_epoch([one["batches"] for one in ranks], whole_steps(len(ranks)))
    cases("distributed", len(ranks))


@launches("images")
def test_the_pixels_of_a_position_are_those_of_a_single_process(ranks_saw, shards, launch, cases):
    single = pictures(shards, BATCH_SIZE, last="partial", augment=AUGMENT)
    expected = dict(crc for batch in single for crc in crcs(batch))
    ranks = ranks_saw(launch, "images")
    got = {position: crc for one in ranks for position, crc in one.items()}
    assert len(got) == sum(map(len, ranks)) == whole_steps(len(ranks))
    assert got.items() <= expected.items()
    cases("distributed", len(got))
