"""Mixtures: sources in proportion at every prefix, each with passes of its own, resumed like the rest.

A loader here is what `elastic` describes, of a mixture: its batches have "__source__" too (list of N), and it
has `set_weights(weights)`. Each function asserts one promise and returns the number of cases it has checked.
"""

import json
from collections.abc import Callable, Mapping
from fractions import Fraction

from tests.contracts.dealing import Sizes


def assert_in_proportion(sources: list, weights: Mapping) -> int:
    """No source is a whole sample away from its share of any prefix. A case is a prefix."""
    exact = {source: Fraction(str(weight)) for source, weight in weights.items()}
    total = sum(exact.values())
    counts = dict.fromkeys(exact, 0)
    for prefix, source in enumerate(sources, 1):
        counts[source] += 1
        for one, weight in exact.items():
            off = abs(counts[one] * total - prefix * weight) / total
            assert off < 1, f"{one!r} is {float(off)} samples off after {prefix}"
    return len(sources)


def assert_own_passes(sources: list, keys: list, own_keys: Mapping) -> int:
    """Each source gives all of its keys before it gives one again. A case is a whole pass."""
    cases = 0
    for source, own in own_keys.items():
        given = [key for one, key in zip(sources, keys, strict=True) if one == source]
        for start in range(0, len(given), len(own)):
            one_pass = given[start : start + len(own)]
            assert set(one_pass) <= set(own) and len(set(one_pass)) == len(one_pass)
            cases += len(one_pass) == len(own)
    assert cases > len(own_keys), "too few samples to see a pass"
    return cases


def assert_elastic_while_weights_change(
    make_loader: Callable, links: list[tuple[Sizes, int, object]], usual: dict[int, tuple]
) -> int:
    """A chain of runs, each with weights of its own from its start: what one rank alone would have taken.

    links: (sizes, steps, weights or None: as they are). usual: position -> (key, source), of one rank that
    changed the weights at the same positions. A case is a sample.
    """
    state, found = None, {}
    for sizes, k, weights in links:
        ranks = [make_loader(rank=rank, **sizes._asdict()) for rank in range(sizes.world_size)]
        for loader in ranks:
            if state is not None:
                loader.load_state_dict(json.loads(state))
            if weights is not None:
                loader.set_weights(weights)
        streams = [iter(loader) for loader in ranks]
        for _ in range(k):
            for batch in [next(stream) for stream in streams]:
                columns = (map(int, batch["__position__"]), batch["__key__"], batch["__source__"])
                for position, key, source in zip(*columns, strict=True):
                    assert position not in found
                    found[position] = key, source
        states = {json.dumps(loader.state_dict(), sort_keys=True) for loader in ranks}
        assert len(states) == 1, "the ranks disagree about the place"
        state = states.pop()
    assert sorted(found) == list(range(len(found)))
    other = [position for position, one in found.items() if usual[position] != one]
    assert not other, f"other samples at positions {other}"
    return len(found)


def taken_alone(loader, changes: Mapping[int, object], stop: int) -> dict[int, tuple]:
    """position -> (key, source) of one rank with batches of one, whose weights change at these positions."""
    taken = {}
    while len(taken) < stop:
        for batch in loader:
            (position,) = map(int, batch["__position__"])
            taken[position] = batch["__key__"][0], batch["__source__"][0]
            if position + 1 in changes:
                loader.set_weights(changes[position + 1])
    return taken
