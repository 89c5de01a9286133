"""Ends of epochs: what becomes of the r = n mod (batch_size * world_size) samples that fill no step.

A loader here is what `elastic` describes. Each sentence is counted on what the ranks deliver, from the
beginning of an epoch; ends that a resume in the middle of an epoch leads to are checked by `elastic`.
"""

from collections import Counter
from collections.abc import Callable, Iterable

from tests.contracts.dealing import Sizes


def assert_ends_of_epochs(make_loader: Callable, keys: Iterable, sizes: Sizes, epochs: int = 2) -> int:
    """Every rank has the same number of equal batches, `len` of them, and the rest goes where `last` says.

    Returns the number of cases: one for each epoch.
    """
    keys = sorted(keys)
    n = len(keys)
    loaders = [make_loader(rank=rank, **sizes._asdict()) for rank in range(sizes.world_size)]
    lengths = [len(loader) for loader in loaders]
    ranks = [[list(loader) for _ in range(epochs)] for loader in loaders]  # [rank][epoch] -> batches
    per_epoch = [[one[epoch] for one in ranks] for epoch in range(epochs)]  # [epoch][rank] -> batches
    for streams in per_epoch:
        counts = [[len(batch["__key__"]) for batch in stream] for stream in streams]
        assert all(one == counts[0] for one in counts), "ranks differ in the number or size of batches"
        assert all(count > 0 for count in counts[0])
    assert lengths == [len(stream) for stream in per_epoch[0]], "len() is not the steps of a whole epoch"
    if sizes.last == "straddle":
        _assert_straddle(per_epoch, keys, sizes)
        return epochs
    check = {"drop": _assert_drop, "partial": _assert_partial, "pad": _assert_pad}[sizes.last]
    for epoch, streams in enumerate(per_epoch):
        assert lengths == [len(stream) for stream in streams], "a later epoch has another number of steps"
        check(streams, keys, sizes, epoch * n)
    return epochs


def _assert_drop(streams: list[list[dict]], keys: list, sizes: Sizes, start: int) -> None:
    n = len(keys)
    r = n % sizes.per_step
    given = _given(streams)
    assert sorted(given) == list(range(start, start + n - r))
    _assert_distinct(given.values(), keys, undelivered=r)
    assert _batch_sizes(streams) <= {sizes.batch_size}


def _assert_partial(streams: list[list[dict]], keys: list, sizes: Sizes, start: int) -> None:
    n = len(keys)
    r = n % sizes.per_step
    more, undelivered = divmod(r, sizes.world_size)
    assert undelivered <= sizes.world_size - 1
    given = _given(streams)
    assert sorted(given) == list(range(start, start + n - undelivered))
    _assert_distinct(given.values(), keys, undelivered)
    for stream in streams:
        assert sum(len(batch["__key__"]) for batch in stream) == n // sizes.per_step * sizes.batch_size + more
        full, last = (stream[:-1], stream[-1:]) if more else (stream, [])
        assert _batch_sizes([full]) <= {sizes.batch_size} and _batch_sizes([last]) <= {more}


def _assert_pad(streams: list[list[dict]], keys: list, sizes: Sizes, start: int) -> None:
    n = len(keys)
    new, padding = {}, []
    for stream in streams:
        for step, batch in enumerate(stream):
            for i, (position, key) in enumerate(_samples(batch)):
                if batch["__mask__"][i]:
                    assert position not in new
                    new[position] = key
                else:
                    assert step == len(stream) - 1
                    padding.append((position, key))
    assert sorted(new) == list(range(start, start + n))
    _assert_distinct(new.values(), keys, undelivered=0)
    # Padding runs through the epoch from its start, again and again where the step is longer than the epoch.
    count = -n % sizes.per_step
    assert Counter(position for position, _ in padding) == Counter(start + i % n for i in range(count))
    assert all(new[position] == key for position, key in padding)
    assert _batch_sizes(streams) == {sizes.batch_size}


def _assert_straddle(per_epoch: list[list[list[dict]]], keys: list, sizes: Sizes) -> None:
    n, given, stop, epoch = len(keys), {}, 0, -1
    for streams in per_epoch:
        # An epoch that a step of the one before runs through has no step of its own, and no iteration.
        before, epoch = epoch, stop // n
        assert epoch > before
        stop += sum(len(batch["__key__"]) for stream in streams for batch in stream)
        for position, key in _given(streams).items():
            assert position not in given
            given[position] = key
        starts = [batch["__position__"][0] for batch in streams[0]]
        assert all(epoch * n <= start < (epoch + 1) * n for start in starts), "a step of another epoch"
    assert sorted(given) == list(range(stop)), "something was dropped or repeated"
    whole = epoch + 1
    assert whole * n <= stop < whole * n + sizes.per_step
    for epoch in range(whole):
        _assert_distinct((given[epoch * n + i] for i in range(n)), keys, undelivered=0)
    assert {size for streams in per_epoch for size in _batch_sizes(streams)} == {sizes.batch_size}


def _given(streams: list[list[dict]]) -> dict:
    """position -> key over all ranks, each position once."""
    given = {}
    for stream in streams:
        for batch in stream:
            for position, key in _samples(batch):
                assert position not in given, f"position {position} is delivered twice"
                given[position] = key
    return given


def _samples(batch: dict) -> Iterable[tuple]:
    return zip(map(int, batch["__position__"]), batch["__key__"], strict=True)


def _assert_distinct(given: Iterable, keys: list, undelivered: int) -> None:
    given = list(given)
    assert len(set(given)) == len(given) == len(keys) - undelivered
    assert set(given) <= set(keys)


def _batch_sizes(streams: list[list[dict]]) -> set[int]:
    return {len(batch["__position__"]) for stream in streams for batch in stream}
