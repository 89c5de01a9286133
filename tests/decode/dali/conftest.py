"""Stages of DALI that are closed when their test ends."""

import pytest

from tests.decode.dali.stages import a_stage


@pytest.fixture
def make_stage():
    """`a_stage`, closed at the end."""
    made = []

    def make(*arguments, **settings):
        made.append(a_stage(*arguments, **settings))
        return made[-1]

    yield make
    for stage in made:
        stage.close()
