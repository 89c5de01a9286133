"""What tests of the reader share: their own index folder."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def index_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTLOAD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
