"""What happens to iterations that are interrupted, forgotten, doubled or forked: see living.py."""

import pytest

from tests.faults_under_way import living, scenarios


@pytest.fixture(scope="module")
def report(shards, tmp_path_factory):
    return scenarios.run_all([living.__name__], shards, tmp_path_factory.mktemp("living"))


@pytest.mark.parametrize("scenario", living.SCENARIOS)
def test_when_an_iteration_ends_otherwise(report, scenario):
    scenarios.check(report[scenario])
