"""What every stream of batches must keep, whoever makes it: properties that tests of loaders share.

A stream is a list of batches, dicts with "__position__" and "__key__". Each function asserts one property.
"""

import torch


def assert_equal_streams(one: list[dict], other: list[dict]) -> None:
    """The same batches: keys, positions, every tensor bit for bit, every list."""
    assert len(one) == len(other)
    for mine, yours in zip(one, other, strict=True):
        assert mine.keys() == yours.keys()
        for name, value in mine.items():
            if isinstance(value, torch.Tensor):
                assert value.dtype == yours[name].dtype
                assert torch.equal(value, yours[name]), name
            else:
                assert value == yours[name], name


def positions(batches: list[dict]) -> list[int]:
    return [position for batch in batches for position in batch["__position__"].tolist()]


def assert_ranks_share_each_step(ranks: list[list[dict]]) -> None:
    """Over the ranks every step is one range of positions; rank r takes r, r + world_size, ... of it."""
    world_size = len(ranks)
    assert len({len(stream) for stream in ranks}) == 1
    for step in zip(*ranks, strict=True):
        taken = [batch["__position__"].tolist() for batch in step]
        start = taken[0][0]
        assert len({len(one) for one in taken}) == 1
        for rank, one in enumerate(taken):
            assert one == list(range(start + rank, start + world_size * len(one), world_size))


def assert_every_cursor_gives_the_rest(make_loader, restore) -> None:
    """From the cursor after each batch of an iteration, `restore(state)` gives exactly what follows.

    make_loader(): a fresh loader. restore(state): an iterator from there on, of the same iteration.
    """
    loader = make_loader()
    states, batches = [loader.state_dict()], []
    for batch in loader:
        batches.append(batch)
        states.append(loader.state_dict())
    assert len(batches) > 2
    for step, state in enumerate(states[:-1]):
        assert_equal_streams(list(restore(state)), batches[step:])
