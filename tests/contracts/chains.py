"""Random chains of runs, for hypothesis: each with sizes of its own, saved after a few steps.

The last run of a chain goes to the end of its epoch, so that nothing of the epoch can be missing unseen.
A test file that imports this one is skipped, and says so, where hypothesis is not installed.
"""

import pytest

from tests.contracts.dealing import LASTS, Sizes

hypothesis = pytest.importorskip("hypothesis")
assume, given, settings, st = (
    hypothesis.assume,
    hypothesis.given,
    hypothesis.settings,
    hypothesis.strategies,
)

WORLDS = (1, 2, 3, 4, 8)


def same_examples(count: int):
    """So many examples, the same ones in every run: a test run must not fail by luck, nor write a folder."""
    return settings(derandomize=True, deadline=None, database=None, max_examples=count)


@st.composite
def chains(draw, n: int, most_steps: int = 9) -> list[tuple[Sizes, int]]:
    """[(sizes, steps)] for an epoch of n samples, as `assert_chain` takes them."""
    any_sizes = st.builds(Sizes, st.integers(1, 12), st.sampled_from(WORLDS), st.sampled_from(LASTS))
    link = st.tuples(any_sizes.filter(lambda sizes: sizes.fits(n)), st.integers(0, most_steps))
    links = draw(st.lists(link, min_size=1, max_size=8))
    last_batch_size = draw(st.integers(1, 12))
    return [*links, (Sizes(last_batch_size, 1, "partial"), n + 1)]
