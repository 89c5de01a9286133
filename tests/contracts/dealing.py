"""What a run has to deliver, found by dealing cards: the contracts' own answer, which asks no loader.

In: n, sizes, and a position. Out: the hands of the steps that are left of the epoch which the position lies
in, and where the order goes on after them. It is the rule as the documentation tells it, told once more with
lists; nothing here imports the package.
"""

from itertools import cycle, islice
from typing import NamedTuple

LASTS = ("drop", "partial", "pad", "straddle")


class Sizes(NamedTuple):
    """What a run may change when it loads another run's state."""

    batch_size: int
    world_size: int = 1
    last: str = "drop"

    @property
    def per_step(self) -> int:
        return self.batch_size * self.world_size

    def fits(self, n: int) -> bool:
        """Whether an epoch of n samples has a batch; a loader refuses the sizes where it has none."""
        return n >= {"drop": self.per_step, "partial": self.world_size}.get(self.last, 1)

    def most_left_out(self) -> int:
        """The most samples of an epoch that may stay undelivered at its end."""
        return {"drop": self.per_step - 1, "partial": self.world_size - 1}.get(self.last, 0)


class Hand(NamedTuple):
    """One rank's batch of one step."""

    positions: list[int]
    mask: list[bool]  # False for padding


def dealt(n: int, start: int, sizes: Sizes) -> tuple[list[list[Hand]], int]:
    """(steps, next_start): steps[k][rank] is what is left of the epoch of `start`, from there on.

    Cards are dealt one to each rank in turn; a step is batch_size rounds.
    """
    epoch_start = start // n * n
    stop = next_start = epoch_start + n
    pile = list(range(start, stop))
    steps = []
    while pile:
        cards, pile = pile[: sizes.per_step], pile[sizes.per_step :]
        lacking = sizes.per_step - len(cards)
        mask = [True] * len(cards) + [False] * lacking
        if lacking and sizes.last == "drop":
            break
        if lacking and sizes.last == "partial":
            cards = cards[: len(cards) // sizes.world_size * sizes.world_size]
            if not cards:
                break
        if lacking and sizes.last == "pad":
            cards += islice(cycle(range(epoch_start, stop)), lacking)
        if lacking and sizes.last == "straddle":
            next_start = stop + lacking
            cards += range(stop, next_start)
            mask = [True] * len(cards)
        ranks = [slice(rank, len(cards), sizes.world_size) for rank in range(sizes.world_size)]
        steps.append([Hand(cards[rank], mask[rank]) for rank in ranks])
    return steps, next_start


def place_after(steps: list[list[Hand]], start: int, k: int) -> int:
    """Where the order goes on after k of the steps that `dealt` found from `start`: behind what is new in
    them. What "drop" and "partial" leave out is left out when the epoch is over, not before."""
    if k == 0:
        return start
    new = (position for hand in steps[k - 1] for position, new in zip(*hand, strict=True) if new)
    return 1 + max(new)
