"""Elastic, exactly once: saved on N ranks and loaded on M, a run delivers exactly the rest of the epoch.

A loader here is whatever iterates over batches, one epoch an iteration, and has `state_dict`,
`load_state_dict` and `len`. A batch has "__position__" ([N] integers), "__key__" (list of N) and, where
last="pad", "__mask__" ([N] bool). `make_loader(rank=, world_size=, batch_size=, last=)` gives a fresh
loader, as a new process would. The positions that are expected come from `dealing`, the keys from one pass
of one rank with batches of one. Each function asserts one promise and returns the number of cases that it
has checked.
"""

import json
from collections.abc import Callable, Iterable, Iterator

from tests.contracts.dealing import Hand, Sizes, dealt, place_after

MakeLoader = Callable[..., object]


def global_order(make_loader: MakeLoader, keys: Iterable, positions: int) -> list:
    """order[position] is the key there, for so many positions or more; each epoch has all `keys` once."""
    keys, order = sorted(keys), []
    loader = make_loader(rank=0, world_size=1, batch_size=1, last="drop")
    while len(order) < positions:
        epoch = []
        for batch in loader:
            assert _integers(batch["__position__"]) == [len(order) + len(epoch)]
            epoch += batch["__key__"]
        assert sorted(epoch) == keys
        order += epoch
    return order


def assert_elastic(
    make_loader: MakeLoader,
    keys: Iterable,
    saved_on: Iterable[Sizes],
    loaded_on: Iterable[Sizes],
    make_resumed: MakeLoader | None = None,
) -> int:
    """Saved after every step of an epoch, loaded with all other sizes: the rest of the epoch, each id once.

    make_resumed: makes the loaders that load, where the same samples are to be found otherwise by then; None:
    make_loader. A case is (sizes that save, step, sizes that load). What is loaded can depend on nothing but
    the state, so equal states of equal places are loaded once for each of `loaded_on`.
    """
    make_resumed = make_resumed or make_loader
    keys = list(keys)
    n = len(keys)
    saved_on = [sizes for sizes in saved_on if sizes.fits(n)]
    loaded_on = [sizes for sizes in loaded_on if sizes.fits(n)]
    furthest = max(sizes.per_step for sizes in saved_on) + max(sizes.per_step for sizes in loaded_on)
    order = global_order(make_loader, keys, 3 * n + furthest)
    cases, seen = 0, set()
    for saving in saved_on:
        for place, state in _places(make_loader, order, n, saving):
            for loading in loaded_on:
                if (place, state, loading) not in seen:
                    _assert_rest(make_resumed, order, n, place, json.loads(state), loading)
                    seen.add((place, state, loading))
                cases += 1
    return cases


def assert_chain(make_loader: MakeLoader, keys: Iterable, links: Iterable[tuple[Sizes, int]]) -> int:
    """A chain of runs, each with sizes of its own and so many steps: no id of an epoch twice, all in order.

    links: (sizes, steps); a run whose epoch ends before its steps are done ends with it. What is missing at
    the end of an epoch is at most what the run that ended it may leave out. A case is a link.
    """
    keys, links = list(keys), list(links)
    n = len(keys)
    order = global_order(make_loader, keys, n * (len(links) + 1) + sum(sizes.per_step for sizes, _ in links))
    place, state, delivered, most_left_out = 0, None, [], {}
    for sizes, k in links:
        ranks = [make_loader(rank=rank, **sizes._asdict()) for rank in range(sizes.world_size)]
        for loader in ranks if state is not None else ():
            loader.load_state_dict(json.loads(state))
        steps, next_start = dealt(n, place, sizes)
        ended = k > len(steps)
        streams = [iter(loader) for loader in ranks]
        for got in _taken(streams, steps[:k], order, sizes):
            delivered += _in_order([_positions(batch) for batch in got])
        if ended:
            _assert_over(streams)
        state = _common_state(ranks)
        before, place = place, next_start if ended else place_after(steps, place, k)
        if place // n != before // n:
            most_left_out[before // n] = sizes.most_left_out()
    _assert_epochs_in_order(delivered, order, n, most_left_out)
    return len(links)


def _places(make_loader, order: list, n: int, sizes: Sizes) -> Iterator[tuple[int, str]]:
    """(place, state as JSON) before the first step of an epoch and after each, the steps checked."""
    ranks = [make_loader(rank=rank, **sizes._asdict()) for rank in range(sizes.world_size)]
    steps, next_start = dealt(n, 0, sizes)
    yield 0, _common_state(ranks)
    streams = [iter(loader) for loader in ranks]
    for k, _ in enumerate(_taken(streams, steps, order, sizes), 1):
        yield place_after(steps, 0, k), _common_state(ranks)
    _assert_over(streams)
    yield next_start, _common_state(ranks)


def _assert_rest(make_loader, order: list, n: int, place: int, state: dict, sizes: Sizes) -> None:
    ranks = [make_loader(rank=rank, **sizes._asdict()) for rank in range(sizes.world_size)]
    for loader in ranks:
        loader.load_state_dict(state)
        assert loader.state_dict() == state
    streams = [iter(loader) for loader in ranks]
    for _ in _taken(streams, dealt(n, place, sizes)[0], order, sizes):
        pass
    _assert_over(streams)


def _taken(streams: list, steps: list[list[Hand]], order: list, sizes: Sizes) -> Iterator[list[dict]]:
    """The batches of all ranks, step by step, each compared with what was dealt."""
    for step in steps:
        got = [next(stream, None) for stream in streams]
        assert None not in got, "a rank's iteration is over too early"
        _assert_step(got, step, order, sizes)
        yield got


def _assert_over(streams: list) -> None:
    assert [next(stream, None) for stream in streams] == [None] * len(streams), "a rank goes on too long"


def _assert_step(got: list[dict], step: list[Hand], order: list, sizes: Sizes) -> None:
    for batch, (positions, mask) in zip(got, step, strict=True):
        assert _integers(batch["__position__"]) == positions
        assert list(batch["__key__"]) == [order[position] for position in positions]
        assert ("__mask__" in batch) == (sizes.last == "pad")
        assert "__mask__" not in batch or [bool(new) for new in batch["__mask__"]] == mask


def _assert_epochs_in_order(delivered: list[int], order: list, n: int, most_left_out: dict) -> None:
    """The promise itself, of the positions that a chain has delivered in the global order."""
    epochs = {}
    for position in delivered:
        epochs.setdefault(position // n, []).append(position)
    for epoch, positions in epochs.items():
        start, given = epoch * n, [order[position] for position in positions]
        assert positions == list(range(start, start + len(positions)))
        assert len(set(given)) == len(given)
        if epoch != max(epochs):
            assert n - len(positions) <= most_left_out.get(epoch, 0)


def _common_state(ranks: list) -> str:
    """The state, which must be the same on every rank, as the JSON that a checkpoint would keep."""
    states = {json.dumps(loader.state_dict(), sort_keys=True) for loader in ranks}
    assert len(states) == 1, f"the ranks disagree about the place: {states}"
    return states.pop()


def _positions(batch: dict) -> list[int]:
    """The positions that are no padding."""
    positions = _integers(batch["__position__"])
    mask = batch.get("__mask__", [True] * len(positions))
    return [position for position, new in zip(positions, mask, strict=True) if new]


def _in_order(ranks: list[list[int]]) -> list[int]:
    """One step's positions, the ranks' first ones first."""
    longest = max(map(len, ranks))
    return [one[j] for j in range(longest) for one in ranks if j < len(one)]


def _integers(values) -> list[int]:
    return [int(value) for value in values]
