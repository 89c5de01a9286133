"""Which cases of a test are among the fast ones; the others are `slow`."""

from collections.abc import Collection, Iterable

import pytest


def slow_but(quick: Collection, cases: Iterable) -> list:
    """The cases for pytest.mark.parametrize: the others than `quick` marked slow."""
    cases = list(cases)
    assert all(case in cases for case in quick), "a quick case that is no case"
    return [case if case in quick else _slow(case) for case in cases]


def _slow(case):
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
