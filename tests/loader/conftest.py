"""What every test of the loader has: an index folder of its own, and a limit on how long it may take."""

import pytest

from tests.loader import samples
from tests.loader.mixtures import FIRST, SIZES
from tests.surroundings import numbered_shards, own_index_folder, time_limit

__all__ = ["own_index_folder"]
no_hang = time_limit(60, most_seconds_if_slow=600)  # the longest takes 10 on two free cores


shards = numbered_shards(23, 6)  # 23 samples (prime) in shards of 6, 6, 6 and 5


@pytest.fixture(scope="session")
def photo_shards(tmp_path_factory):
    """The real photos as shards of 8."""
    folder = tmp_path_factory.mktemp("photos")
    samples.write_photo_shards(folder, 8)
    return str(folder)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """The sources of a mixture, as folders of shards."""
    folder = tmp_path_factory.mktemp("sources")
    for name, size in SIZES.items():
        samples.write(folder / name, (samples.sample(FIRST[name] + i) for i in range(size)), 6)
    return {name: str(folder / name) for name in SIZES}
