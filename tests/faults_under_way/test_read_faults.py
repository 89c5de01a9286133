"""What happens when the disk fails, hangs or falls short, memory runs out, or the cache is full.

The scenarios are in reading.py, decoding.py and indexing.py.
"""

import pytest

from tests.faults_under_way import decoding, indexing, reading, scenarios

MODULES = (reading, decoding, indexing)


@pytest.fixture(scope="module")
def report(shards, tmp_path_factory):
    names = [module.__name__ for module in MODULES]
    return scenarios.run_all(names, shards, tmp_path_factory.mktemp("failing"))


@pytest.mark.parametrize("scenario", [name for module in MODULES for name in module.SCENARIOS])
def test_when_the_machine_fails(report, scenario):
    scenarios.check(report[scenario])
