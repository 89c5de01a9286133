"""What tests of faults have: small shards, an index folder of their own, a limit on time."""

import pytest

from tests.loader import samples
from tests.surroundings import own_index_folder, time_limit

__all__ = ["own_index_folder"]

no_hang = time_limit(120, most_seconds_if_slow=1200)  # the longest takes 15 on two free cores


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """The folder of `samples.write_shards`: 23 samples (prime) in shards of 6, 6, 6 and 5."""
    folder = tmp_path_factory.mktemp("shards")
    samples.write_shards(folder, 23, 6)
    return str(folder)
