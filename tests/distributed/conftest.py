"""What the tests of several processes have: a dataset, an index folder of their own, a limit on time."""

import pytest

from tests.loader import samples
from tests.surroundings import own_index_folder, time_limit

__all__ = ["own_index_folder"]

no_hang = time_limit(90, most_seconds_if_slow=1200)  # the longest takes 15 on two free cores


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """The folder of `samples.write_shards`: 103 samples (prime) in eleven shards."""
    folder = tmp_path_factory.mktemp("shards")
    samples.write_shards(folder, 103, 10)
    return str(folder)
