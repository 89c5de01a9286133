"""What most tests of shards/ start from: one shard of odd names, and a cache folder of the test's own."""

import pytest
from shard_corpus import ODD_NAMES, tar_bytes, write


@pytest.fixture
def shard(tmp_path):
    return write(tmp_path / "s/00000.tar", tar_bytes(ODD_NAMES))


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"
