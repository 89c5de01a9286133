"""Kills a training again and again, and looks at what is left: the surviving timeline is the epoch, exactly.

    python -m tests.distributed.crash [--kills 50] [--seed 0] [--ranks 2] [--ranks 1 2 3 --last straddle]

A life is one launch of training.py. It ends by SIGKILL of one rank or of all; the ranks that are left are
killed a moment later, as a launcher does. The moments are drawn from the seed: of ten, about six while it
trains, three while a checkpoint is being written, one while it starts. After the last kill one more life
finishes the epoch that is under way.
"""

import argparse
import random
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.distributed.launch import Ranks
from tests.distributed.training import delivered, learn, load, log_of, make_loader
from tests.loader.samples import write_shards

LIFE_SECONDS = 60  # until the first step, and for the last life: 1 on two free cores
WHILE_TRAINING_SECONDS = 1.0
WHILE_STARTING_SECONDS = 0.08
POLL_SECONDS = 0.0005


@dataclass
class Report:
    """What happened. steps, samples: of the surviving timeline; lost_steps: delivered, and taken back."""

    kills: int = 0
    while_writing: int = 0
    before_first_step: int = 0
    lives: dict[int, int] = field(default_factory=dict)  # ranks -> lives that had so many
    steps: int = 0
    lost_steps: int = 0
    epochs: int = 0
    samples: int = 0
    seconds: float = 0.0


def run(folder: Path, shards: str, n: int, kills: int, seed: int, ranks: list[int], last: str) -> Report:
    """Trains over the n samples of `shards` in many lives. ranks: one of these numbers for each life.

    Raises AssertionError where a life fails, or the logs are not exactly the epochs.
    """
    dice, report, begun = random.Random(seed), Report(), time.monotonic()
    for life in range(kills + 1):
        number = dice.choice(ranks)
        report.lives[number] = report.lives.get(number, 0) + 1
        arguments = ["--shards", shards, "--folder", str(folder), "--last", last]
        arguments += ["--most-ranks", str(max(ranks))]
        if life == kills:
            arguments += ["--stop", str(end_of_epoch(folder, n))]
        life_folder = folder / f"life-{life}"
        (folder / "diary.txt").unlink(missing_ok=True)
        with Ranks("tests.distributed.training", number, life_folder, arguments) as training:
            if life == kills:
                training.finish(LIFE_SECONDS)
            else:
                _kill(training, Diary(folder / "diary.txt"), dice, report)
        if life < kills:
            report.lost_steps += last_step(folder, max(ranks)) - checkpoint_step(folder)
    check_timeline(folder, shards, n, max(ranks), last, report)
    report.seconds = round(time.monotonic() - begun, 1)
    return report


class Diary:
    """What rank 0 has noted in this life."""

    def __init__(self, path: Path):
        self._path = path

    def lines(self) -> list[str]:
        return self._path.read_text().splitlines() if self._path.exists() else []

    def trains(self) -> bool:
        return bool(self.lines())

    def writing(self) -> bool:
        """Whether a checkpoint is being written."""
        lines = self.lines()
        return bool(lines) and lines[-1].startswith("writes")

    def checkpoints(self) -> int:
        return sum(line.startswith("writes") for line in self.lines())


def _kill(training: Ranks, diary: Diary, dice: random.Random, report: Report) -> None:
    _wait_for_the_moment(training, diary, dice)
    training.check_all_alive()
    ranks = list(range(len(training.processes)))
    victims = dice.choice([[dice.choice(ranks)], ranks])
    for rank in victims:
        training.kill(rank)
    report.kills += 1
    report.before_first_step += not diary.trains()
    # Of the victims only: the others may end what they are writing.
    if 0 in victims:
        training.processes[0].wait()
        report.while_writing += diary.writing()
    time.sleep(dice.uniform(0, 0.05))


def _wait_for_the_moment(training: Ranks, diary: Diary, dice: random.Random) -> None:
    kind, share = dice.random(), dice.random()
    if kind < 0.1:
        time.sleep(share * WHILE_STARTING_SECONDS)
        return
    _wait_until(diary.trains, training)
    if kind < 0.7:
        time.sleep(share * WHILE_TRAINING_SECONDS)
        return
    count = 1 + int(share * 4)
    _wait_until(lambda: diary.checkpoints() >= count, training)


def _wait_until(condition, training: Ranks) -> None:
    stop = time.monotonic() + LIFE_SECONDS
    while not condition():
        training.check_all_alive()
        assert time.monotonic() < stop, training.story(f"nothing happened for {LIFE_SECONDS} s")
        time.sleep(POLL_SECONDS)


def checkpoint_step(folder: Path) -> int:
    checkpoint = load(folder)
    return 0 if checkpoint is None else checkpoint["step"]


def last_step(folder: Path, most_ranks: int) -> int:
    """The last step that some rank has logged, or 0."""
    steps = [step for rank in range(most_ranks) for step in by_step(log_of(folder, rank), torn=True)]
    return max(steps, default=0)


def end_of_epoch(folder: Path, n: int) -> int:
    checkpoint = load(folder)
    return n if checkpoint is None else (checkpoint["loader"]["position"] // n + 1) * n


def by_step(log: Path, torn: bool = False) -> dict[int, list[tuple[int, int, int]]]:
    """step -> samples, as the log has them. torn: whether the last line may be broken off."""
    steps: dict[int, list[tuple[int, int, int]]] = {}
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    for place, line in enumerate(lines):
        if torn and place == len(lines) - 1 and not line.endswith("\n"):
            break
        step, *sample = (int(word) for word in line.split())
        assert step >= next(reversed(steps), 0), f"{log}: {line!r} comes too late"
        steps.setdefault(step, []).append(tuple(sample))
    return steps


def check_timeline(folder: Path, shards: str, n: int, most_ranks: int, last: str, report: Report) -> None:
    """The logs are, step for step and rank for rank, what one undisturbed process is given."""
    logs = [by_step(log_of(folder, rank)) for rank in range(most_ranks)]
    checkpoint = load(folder)
    report.steps = checkpoint["step"]
    got: list[tuple[int, int, int]] = []
    for step in range(1, report.steps + 1):
        of_ranks = [log[step] for log in logs if step in log]
        assert of_ranks and len({len(samples) for samples in of_ranks}) == 1, f"step {step}: {of_ranks}"
        # Rank r of a step takes every world_size-th sample from the r-th on.
        got += [sample for turn in zip(*of_ranks, strict=True) for sample in turn]
    assert not any(step > report.steps for log in logs for step in log)
    report.samples, report.epochs = len(got), len(got) // n
    assert [position for position, _, _ in got] == list(range(len(got)))
    for epoch in range(report.epochs):
        assert sorted(label for _, label, _ in got[epoch * n : (epoch + 1) * n]) == list(range(n))
    expected: list[tuple[int, int, int]] = []
    with make_loader(shards, last="straddle", batch_size=50, rank=0, world_size=1) as undisturbed:
        for batch in undisturbed:
            expected += delivered(batch)
            if len(expected) >= len(got):
                break
    assert got == expected[: len(got)]
    assert len(got) == checkpoint["loader"]["position"] >= n
    assert checkpoint["model"].item() == learn(got)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2], help="each life has one of these")
    parser.add_argument("--last", default="drop")
    parser.add_argument("--samples", type=int, default=1000, help="a multiple of the samples of a step")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shards(folder / "shards", given.samples, 100)
        shards = str(folder / "shards")
        print(asdict(run(folder, shards, given.samples, given.kills, given.seed, given.ranks, given.last)))


if __name__ == "__main__":
    main()
