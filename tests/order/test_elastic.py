"""Elastic and exactly once, and the ends of epochs: every case of small, awkward integers.

n is 1, prime, a power of two and one more; batches are larger than what is left, and there are more ranks
than samples. tests/loader/test_elastic.py takes a sample of the cases through files and decoders.
"""

import itertools

import numpy as np
import pytest

from fastload.errors import ConfigError
from fastload.order.plan import make_plan
from fastload.order.sample_order import MixtureSampleOrder
from fastload.order.steps import Steps
from tests.contracts.chains import WORLDS, chains, given, same_examples, st
from tests.contracts.dealing import LASTS, Sizes
from tests.contracts.elastic import assert_chain, assert_elastic
from tests.contracts.ends import assert_ends_of_epochs
from tests.contracts.integers import IntegerLoader
from tests.quick import slow_but

NS = (1, 7, 10, 64, 65, 127)
PLANS = {
    "sequential": {"shuffle": False, "window": None},
    "global": {"shuffle": True, "window": None},
    "windowed": {"shuffle": True, "window": 5},
}
ORDERS = [*PLANS, "mixture"]


def maker(n, plan="global", seed=3):
    """make_loader over n samples in shards of 6.

    "mixture": of up to three sources, by weights that are their sizes, so that an epoch has each id once.
    """
    if plan == "mixture":
        parts = [part for part in (n // 2, n // 3, n - n // 2 - n // 3) if part]
        how = {"seed": seed, "shuffle": True, "window": None}
        sample_order = MixtureSampleOrder(
            n, [make_plan([part], stream=i, **how) for i, part in enumerate(parts)]
        )
        return lambda **sizes: IntegerLoader(sample_order, weights=parts, **sizes)
    made = make_plan(np.diff([*range(0, n, 6), n]), seed=seed, **PLANS[plan])
    return lambda **sizes: IntegerLoader(made, **sizes)


def all_sizes(batch_sizes, lasts=LASTS):
    return [Sizes(*one) for one in itertools.product(batch_sizes, WORLDS, lasts)]


SMALL = itertools.product([1, 7, 10, 23], ORDERS)
LARGER = [(64, "mixture"), (65, "windowed"), (127, "windowed")]


@pytest.mark.parametrize(
    "n, plan", slow_but([*itertools.product([1, 7], ORDERS), (10, "windowed"), (23, "mixture")], SMALL)
)
def test_every_step_of_every_world_resumes_on_every_world(cases, n, plan):
    every = all_sizes((1, 2, 3, 7))
    cases("elastic", assert_elastic(maker(n, plan), range(n), every, every))


@pytest.mark.parametrize("n, plan", slow_but([(65, "windowed")], LARGER))
def test_every_step_of_every_world_resumes_on_every_world_with_another_batch_size(cases, n, plan):
    saving, loading = all_sizes((1, 5)), all_sizes((3, 16))
    cases("elastic", assert_elastic(maker(n, plan), range(n), saving, loading))


@pytest.mark.slow
@pytest.mark.parametrize("plan", ORDERS)
@pytest.mark.parametrize("n", NS)
def test_every_step_of_every_world_resumes_on_every_world_with_all_batch_sizes(cases, n, plan):
    every = all_sizes((1, 2, 3, 5, 7, 8, 16, 64))
    cases("elastic", assert_elastic(maker(n, plan), range(n), every, every))


@pytest.mark.parametrize("last", LASTS)
@pytest.mark.parametrize("n", NS)
def test_the_rest_of_an_epoch_goes_where_last_says(cases, n, last):
    for sizes in all_sizes((1, 2, 3, 5, 7, 16, 64, 127), [last]):
        if sizes.fits(n):
            cases("ends", assert_ends_of_epochs(maker(n), range(n), sizes, epochs=3))


@pytest.mark.slow
@pytest.mark.parametrize("last", LASTS)
def test_the_rest_of_an_epoch_goes_where_last_says_for_all_small_sizes(cases, last):
    for n in range(1, 41):
        for batch_size, world_size in itertools.product(range(1, 12), range(1, 10)):
            sizes = Sizes(batch_size, world_size, last)
            if sizes.fits(n):
                cases("ends", assert_ends_of_epochs(maker(n), range(n), sizes, epochs=3))


@pytest.mark.parametrize("last", ["drop", "partial"])
def test_only_sizes_that_leave_an_epoch_without_a_batch_are_refused(last):
    for n, sizes in itertools.product(range(1, 25), all_sizes((1, 2, 3, 7), [last])):
        if sizes.fits(n):
            assert Steps(n, *sizes).steps_per_epoch > 0
        else:
            with pytest.raises(ConfigError, match="an epoch would have no batch"):
                Steps(n, *sizes)


def check_chain(cases, data):
    n = data.draw(st.integers(1, 70))
    make_loader = maker(n, data.draw(st.sampled_from(ORDERS)), data.draw(st.integers(0, 2**64 - 1)))
    cases("elastic", assert_chain(make_loader, range(n), data.draw(chains(n))))


@pytest.mark.parametrize("examples", slow_but([50], [50, 500]))
def test_a_chain_of_runs_of_any_sizes_gives_each_id_of_an_epoch_once_and_in_order(cases, examples):
    same_examples(examples)(given(st.data())(check_chain))(cases)
