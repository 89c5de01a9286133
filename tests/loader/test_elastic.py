"""Elastic and exactly once, and the ends of epochs, through the whole loader: files, threads, prefetch.

tests/order/test_elastic.py goes through all sizes on integers; here is a sample of them, in which a state is
taken while batches of the steps to come are already on their way.
"""

import itertools

import pytest

import fastload as fl
from fastload.errors import ConfigError
from tests.contracts.chains import WORLDS, chains, given, same_examples, st
from tests.contracts.dealing import LASTS, Sizes
from tests.contracts.elastic import assert_chain, assert_elastic
from tests.contracts.ends import assert_ends_of_epochs
from tests.contracts.stream import assert_equal_streams, positions
from tests.loader.samples import labels, pictures, write_shards
from tests.quick import slow_but


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """n -> a folder of n samples in shards of 4."""
    made = {n: tmp_path_factory.mktemp(f"samples{n}") for n in (1, 7, 10, 23, 65)}
    for n, folder in made.items():
        write_shards(folder, n, 4)
    return {n: str(folder) for n, folder in made.items()}


def keys(n):
    return [f"{i:05d}" for i in range(n)]


def maker(source, load=labels, **arguments):
    def make_loader(**sizes):
        return load(source, **arguments | sizes)

    return make_loader


def all_sizes(batch_sizes, lasts=LASTS, worlds=WORLDS):
    return [Sizes(*one) for one in itertools.product(batch_sizes, worlds, lasts)]


ARGUMENTS = [{}, {"window": 3, "prefetch": 1}, {"prefetch": 6}]
FEW = [("partial", ARGUMENTS[0]), ("straddle", ARGUMENTS[1]), ("pad", ARGUMENTS[2])]


@pytest.mark.parametrize("last, arguments", slow_but(FEW, itertools.product(LASTS, ARGUMENTS)), ids=str)
def test_every_step_of_every_world_resumes_on_every_world(cases, folders, last, arguments):
    make_loader = maker(folders[10], **arguments)
    saving, loading = all_sizes((1, 2), [last]), all_sizes((1, 3), [last])
    cases("elastic", assert_elastic(make_loader, keys(10), saving, loading))


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [{}, {"window": 3, "prefetch": 6}, {"shuffle": False}], ids=str)
@pytest.mark.parametrize(
    "n, batch_sizes", [(1, (1, 7)), (7, (1, 2, 7)), (10, (1, 2, 7)), (23, (1, 3)), (65, (5,))]
)
def test_every_step_of_every_world_resumes_on_every_world_with_more_sizes(
    cases, folders, n, batch_sizes, arguments
):
    every = all_sizes(batch_sizes)
    for last in LASTS:
        of_last = [sizes for sizes in every if sizes.last == last]
        if any(sizes.fits(n) for sizes in of_last):
            cases("elastic", assert_elastic(maker(folders[n], **arguments), keys(n), of_last, of_last))


@pytest.mark.parametrize("decode", ["native", "pillow"])
def test_pictures_resume_as_labels_do(cases, folders, decode):
    make_loader = maker(folders[23], pictures, augment=fl.Augment(xflip=0.5), decode=decode, prefetch=3)
    saving, loading = [Sizes(3, 2, "partial")], [Sizes(2, 3, "partial"), Sizes(4, 1, "pad"), Sizes(1, 8)]
    cases("elastic", assert_elastic(make_loader, keys(23), saving, loading))


@pytest.mark.parametrize("arguments", [{}, {"window": 4, "prefetch": 2}], ids=str)
def test_a_chain_of_runs_of_changing_sizes_gives_each_sample_once_and_in_order(cases, folders, arguments):
    chain = [
        (Sizes(2, 3, "drop"), 2),
        (Sizes(1, 8, "partial"), 0),
        (Sizes(1, 4, "pad"), 1),
        (Sizes(5, 2, "straddle"), 3),
        (Sizes(3, 1, "drop"), 99),
        (Sizes(7, 3, "straddle"), 2),
        (Sizes(1, 1, "partial"), 99),
    ]
    cases("elastic", assert_chain(maker(folders[23], **arguments), keys(23), chain))


@same_examples(40)
@given(st.data())
def check_chains(cases, folders, data):
    n = data.draw(st.sampled_from(sorted(folders)))
    how = st.fixed_dictionaries(
        {"window": st.sampled_from([None, 1, 5]), "prefetch": st.sampled_from([1, 4]), "threads": st.just(2)}
    )
    make_loader = maker(folders[n], seed=data.draw(st.integers(0, 9)), **data.draw(how))
    cases("elastic", assert_chain(make_loader, keys(n), data.draw(chains(n, most_steps=4))))


@pytest.mark.slow
def test_any_chain_of_runs_of_any_sizes_gives_each_sample_once_and_in_order(cases, folders):
    check_chains(cases, folders)


@pytest.mark.parametrize("prefetch", [1, 5])
def test_what_was_prefetched_is_delivered_again_after_a_resume(folders, prefetch):
    saved = labels(folders[23], 2, prefetch=prefetch)
    run, rest = iter(saved), list(labels(folders[23], 2))
    for step in range(1, 12):
        next(run)
        loader = labels(folders[23], 2, prefetch=prefetch)
        loader.load_state_dict(saved.state_dict())
        assert_equal_streams(list(loader), rest[step:])


def test_a_state_of_the_last_step_has_an_epoch_to_end_and_then_the_next_one(folders):
    # One sample of 23 is left: too little for the sizes that saved, enough for a batch of one.
    saved = labels(folders[23], 2)
    for _ in saved:
        state = saved.state_dict()
    assert (state["epoch"], state["position"]) == (0, 22)
    assert (saved.state_dict()["epoch"], saved.state_dict()["position"]) == (1, 23)
    for batch_size, rest in ((2, []), (1, [22])):
        loader = labels(folders[23], batch_size)
        loader.load_state_dict(state)
        loader.set_epoch(0)  # as a trainer does, whose own count says that epoch 0 is not over
        assert positions(list(loader)) == rest
        assert positions(list(loader))[0] == 23


@pytest.mark.parametrize("last", LASTS)
@pytest.mark.parametrize("n", [1, 7, 10, 65])
def test_the_rest_of_an_epoch_goes_where_last_says(cases, folders, n, last):
    for sizes in all_sizes((1, 7, 64), [last], worlds=(1, 3, 8)):
        make_loader = maker(folders[n])
        if sizes.fits(n):
            cases("ends", assert_ends_of_epochs(make_loader, keys(n), sizes))
        else:
            with pytest.raises(ConfigError, match="an epoch would have no batch"):
                len(make_loader(rank=0, **sizes._asdict()))


def test_a_state_may_be_taken_at_any_moment_and_changes_nothing(folders):
    asked, unasked = labels(folders[23], 3), labels(folders[23], 3)
    batches = []
    for batch in asked:
        batches.append(batch)
        assert asked.state_dict() == asked.state_dict()
    assert_equal_streams(batches, list(unasked))
