"""One rank of a launch: goes through scenarios and writes down what all ranks saw.

    python -m tests.distributed.worker --shards DIR --out FILE --scenarios late states ...
        [--state FILE] [--rank R --world-size W --meet URL]

Without --rank the environment (torchrun's) says who it is. A scenario is a generator: what comes before its
`yield` happens before `init_process_group`, the rest after it; what it returns, JSON holds. FILE gets
{scenario: [what rank 0 returned, what rank 1 returned, ...]}; what is right is said by the tests.
"""

import argparse
import json
import os
import time
import zlib
from pathlib import Path

import torch.distributed as dist

import fastload as fl
from fastload.errors import ConfigError
from fastload.order.steps import LAST
from fastload.shards import index
from tests.distributed.rank import add_rank_arguments, ends_after, process_group
from tests.loader.samples import labels, pictures

MOST_SECONDS = 45
GLOO_SECONDS = 30
BATCH_SIZE = 5
# Drawn where images are decoded, and where they are augmented.
AUGMENT = fl.Augment(xflip=0.5, brightness=0.2)


def seen(loader) -> list[dict]:
    """The batches of an iteration, as JSON holds them."""
    return [
        {
            "positions": batch["__position__"].tolist(),
            "labels": batch["label"].tolist(),
            "valid": batch["__mask__"].tolist() if "__mask__" in batch else None,
        }
        for batch in loader
    ]


def environment(given):
    """An epoch, while only the environment tells the rank."""
    assert not dist.is_initialized()
    batches = seen(labels(given.shards, BATCH_SIZE))
    yield
    return batches


def late(given):
    """A loader that was made, and asked for its length, before there was a process group."""
    loader = labels(given.shards, BATCH_SIZE)
    before = len(loader)
    yield
    return {"length_before": before, "length": len(loader), "batches": seen(loader)}


def changed(given):
    """An iteration that began before the process group; then a new one."""
    loader = labels(given.shards, BATCH_SIZE)
    run = iter(loader)
    first = next(run)["__position__"].tolist()
    yield
    error = None
    try:
        next(run)
    except ConfigError as found:
        error = str(found)
    return {"first": first, "error": error, "batches": seen(loader)}


def endings(given):
    """Two epochs with every `last`."""
    yield
    return {last: seen(labels(given.shards, BATCH_SIZE, last=last, epochs=2)) for last in LAST}


def states(given):
    """The state after every step of ranks that prefetch and decode at different speeds."""
    yield
    rank = dist.get_rank()
    loader = pictures(given.shards, BATCH_SIZE, last="partial", prefetch=1 + 4 * rank, threads=1 + rank)
    found = [loader.state_dict()]
    equal = [_same_on_all_ranks(found[0])]
    for _ in loader:
        found.append(loader.state_dict())
        equal.append(_same_on_all_ranks(found[-1]))
    return {"states": found, "equal": equal}


def _same_on_all_ranks(state: dict) -> bool:
    everybody = [None] * dist.get_world_size()
    dist.all_gather_object(everybody, state)
    return all(other == state for other in everybody)


def resumed(given):
    """What is left of the epoch after the state in FILE --state."""
    yield
    loader = labels(given.shards, BATCH_SIZE, last="pad")
    loader.load_state_dict(json.loads(Path(given.state).read_text()))
    return seen(loader)


def groups(given):
    """Pairs of processes that share a model: neighbours get the same data."""
    yield
    mine, count = dist.get_rank() // 2, dist.get_world_size() // 2
    loader = labels(given.shards, BATCH_SIZE, last="pad", rank=mine, world_size=count)
    first = seen([next(iter(loader))])
    state = loader.state_dict()
    fresh = labels(given.shards, BATCH_SIZE, last="pad", rank=mine, world_size=count)
    fresh.load_state_dict(state)
    return {"state": state, "batches": first + seen(fresh)}


def images(given):
    """position -> CRC of the pixels, of an epoch of augmented pictures."""
    yield
    loader = pictures(given.shards, BATCH_SIZE, augment=AUGMENT)
    return dict(crc for batch in loader for crc in crcs(batch))


def crcs(batch: dict) -> list[tuple[str, int]]:
    pixels = batch["image"].numpy()
    return [(str(p), zlib.crc32(pixels[i].tobytes())) for i, p in enumerate(batch["__position__"].tolist())]


def cold(given):
    """All ranks open the dataset at once where no index is; the log has a line for each container indexed."""
    yield
    folder = Path(given.out).with_suffix(".cold")
    folder.mkdir(exist_ok=True)
    os.environ["FASTLOAD_CACHE"] = str(folder / "cache")
    real = index.index_container

    def logging(container):
        with open(folder / "log.txt", "a") as log:
            log.write(f"{container.name}\n")
        time.sleep(0.02)  # so that the others come while this one is at it
        return real(container)

    index.index_container = logging
    dist.barrier()
    batches = seen(labels(given.shards, BATCH_SIZE, threads=2))
    dist.barrier()
    index.index_container = real
    return {"batches": batches, "indexed": (folder / "log.txt").read_text().split()}


SCENARIOS = {
    one.__name__: one for one in (environment, late, changed, endings, states, resumed, groups, images, cold)
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, required=True)
    parser.add_argument("--state")
    add_rank_arguments(parser, required=False)
    given = parser.parse_args()
    ends_after(MOST_SECONDS)
    running = {name: SCENARIOS[name](given) for name in given.scenarios}
    for scenario in running.values():
        next(scenario)
    with process_group(given, GLOO_SECONDS):
        found = {name: _rest_of(scenario) for name, scenario in running.items()}
        everybody = [None] * dist.get_world_size()
        dist.all_gather_object(everybody, found)
        if dist.get_rank() == 0:
            by_scenario = {name: [each[name] for each in everybody] for name in found}
            Path(given.out).write_text(json.dumps(by_scenario))


def _rest_of(scenario):
    try:
        next(scenario)
    except StopIteration as end:
        return end.value
    raise AssertionError("a scenario yields once")


if __name__ == "__main__":
    main()
