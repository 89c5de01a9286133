"""The contracts of mixtures on integers: proportions, passes, and resuming while weights change."""

import pytest

from fastload.order.plan import make_plan
from fastload.order.sample_order import MixtureSampleOrder
from tests.contracts.chains import WORLDS, assume, given, same_examples, st
from tests.contracts.dealing import LASTS, Sizes
from tests.contracts.integers import IntegerLoader
from tests.contracts.mixtures import (
    assert_elastic_while_weights_change,
    assert_in_proportion,
    assert_own_passes,
    taken_alone,
)
from tests.quick import slow_but

WEIGHTS = st.lists(st.one_of(st.integers(1, 9), st.floats(1e-4, 1, allow_nan=False)), min_size=1, max_size=12)


def maker(n, parts, weights):
    how = {"seed": 1, "shuffle": True, "window": None}
    sample_order = MixtureSampleOrder(n, [make_plan([part], stream=i, **how) for i, part in enumerate(parts)])
    return lambda **sizes: IntegerLoader(sample_order, weights=weights, **sizes)


def taken(make_loader, sizes, epochs):
    """(sources, keys) of all ranks in the global order."""
    found = {}
    for rank in range(sizes.world_size):
        loader = make_loader(rank=rank, **sizes._asdict())
        for _ in range(epochs):
            for batch in loader:
                columns = batch["__source__"], batch["__key__"]
                found |= dict(zip(batch["__position__"].tolist(), zip(*columns, strict=True), strict=True))
    assert sorted(found) == list(range(len(found)))
    return zip(*(found[position] for position in range(len(found))), strict=True)


def check_proportions(cases, weights, batch_size, world_size, n):
    make_loader = maker(n, [7] * len(weights), weights)
    sources, _ = taken(make_loader, Sizes(batch_size, world_size, "straddle"), epochs=4)
    cases("mixtures", assert_in_proportion(list(sources), dict(enumerate(weights))))


@pytest.mark.parametrize("examples", slow_but([70], [70, 500]))
def test_every_prefix_is_in_proportion_for_any_weights_and_sizes(cases, examples):
    any_sizes = given(WEIGHTS, st.integers(1, 9), st.sampled_from(WORLDS), st.integers(20, 90))
    same_examples(examples)(any_sizes(check_proportions))(cases)


@pytest.mark.parametrize("parts, weights", [([7, 1, 12], [3, 1, 1]), ([64, 65], [0.3, 0.7]), ([1], [1])])
def test_each_source_makes_its_own_passes(cases, parts, weights):
    sources, keys = taken(maker(50, parts, weights), Sizes(3, 2, "straddle"), epochs=9)
    firsts = [sum(parts[:i]) for i in range(len(parts))]
    own_keys = {
        i: range(first, first + part) for i, (first, part) in enumerate(zip(firsts, parts, strict=True))
    }
    cases("mixtures", assert_own_passes(list(sources), list(keys), own_keys))


def check_chain(cases, data):
    n, k = data.draw(st.integers(30, 80)), data.draw(st.integers(1, 5))
    weights = st.lists(st.integers(0, 5), min_size=k, max_size=k).filter(any)
    sizes = st.builds(Sizes, st.integers(1, 4), st.sampled_from(WORLDS), st.sampled_from(LASTS))
    make_loader = maker(n, [5 + i for i in range(k)], data.draw(weights))
    links, changes, position = [], {}, 0
    for _ in range(data.draw(st.integers(1, 6))):
        one, new = data.draw(sizes), data.draw(st.one_of(st.none(), weights))
        most_steps = (n - position) // one.per_step
        if most_steps == 0 or not one.fits(n):
            continue
        steps = data.draw(st.integers(1, most_steps))
        links.append((one, steps, new if position else None))
        if new and position:
            changes[position] = new
        position += steps * one.per_step
    assume(links)
    usual = taken_alone(make_loader(batch_size=1), changes, position)
    cases("mixtures", assert_elastic_while_weights_change(make_loader, links, usual))


@pytest.mark.parametrize("examples", slow_but([70], [70, 500]))
def test_runs_that_change_ranks_batches_and_weights_take_what_one_rank_would(cases, examples):
    same_examples(examples)(given(st.data())(check_chain))(cases)


class ForgetsWhatIsOwed(IntegerLoader):
    def load_state_dict(self, state):
        for name in ("now", "epoch"):
            state[name]["owed"] = [0] * len(state[name]["owed"])
        super().load_state_dict(state)


class ForgetsTheWeights(IntegerLoader):
    def load_state_dict(self, state):
        state["now"]["shares"] = self.state_dict()["now"]["shares"]
        super().load_state_dict(state)


class CountsForEachRank(IntegerLoader):
    def _batch(self, step, taken):
        sources = [(source + self._rank) % 3 for source in taken.sources.tolist()]
        return super()._batch(step, taken) | {"__source__": sources}


@pytest.mark.parametrize("loader", [ForgetsWhatIsOwed, ForgetsTheWeights, CountsForEachRank])
def test_a_fault_of_a_mixture_is_noticed(loader):
    how = {"seed": 1, "shuffle": True, "window": None}
    sample_order = MixtureSampleOrder(60, [make_plan([9], stream=i, **how) for i in range(3)])

    def make_loader(kind=loader, **sizes):
        return kind(sample_order, weights=[1, 2, 4], **sizes)

    links = [
        (Sizes(1, 2), 5, None),
        (Sizes(3, 2), 2, [5, 1, 1]),
        (Sizes(1, 4), 3, None),
        (Sizes(2, 1), 5, None),
    ]
    usual = taken_alone(make_loader(IntegerLoader, batch_size=1), {10: [5, 1, 1]}, 60)
    assert (
        assert_elastic_while_weights_change(lambda **s: make_loader(IntegerLoader, **s), links, usual) == 44
    )
    with pytest.raises(AssertionError):
        assert_elastic_while_weights_change(make_loader, links, usual)
    if loader is CountsForEachRank:
        sources, _ = taken(make_loader, Sizes(1, 2, "straddle"), epochs=2)
        with pytest.raises(AssertionError, match="samples off after"):
            assert_in_proportion(list(sources), {0: 1, 1: 2, 2: 4})
