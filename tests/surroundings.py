"""What tests of whole loaders have around them: an index folder of their own, and a limit on their time.

A conftest.py imports `own_index_folder`, makes its own `no_hang = time_limit(...)`, and where tests need data
`shards = numbered_shards(...)`.
"""

import faulthandler
import signal
import sys

import pytest

from tests.loader import samples


@pytest.fixture(scope="session", autouse=True)
def own_index_folder(tmp_path_factory):
    """FASTLOAD_CACHE of this session, so that no test meets an index of another run, and no launcher's
    variables, here and in processes that are started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTLOAD_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            patch.delenv(name, raising=False)
        yield


def time_limit(most_seconds: int, most_seconds_if_slow: int):
    """A fixture for every test: a hang ends as a failure that shows where."""

    @pytest.fixture(autouse=True)
    def no_hang(request):
        seconds = most_seconds_if_slow if request.node.get_closest_marker("slow") else most_seconds

        def too_late(*_):
            faulthandler.dump_traceback(file=sys.__stderr__)
            # Not a TimeoutError: that is an OSError, and code that opens files takes it for a file's.
            pytest.fail(f"the test took more than {seconds} s")

        before = signal.signal(signal.SIGALRM, too_late)
        signal.alarm(seconds)
        yield
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)

    return no_hang


def numbered_shards(n: int, per_shard: int):
    """A fixture: the folder of `samples.write_shards(n, per_shard)`."""

    @pytest.fixture(scope="session")
    def shards(tmp_path_factory):
        folder = tmp_path_factory.mktemp("shards")
        samples.write_shards(folder, n, per_shard)
        return str(folder)

    return shards
