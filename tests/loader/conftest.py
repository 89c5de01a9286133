"""What every test of the loader has: an index folder of its own, and a limit on how long it may take."""

import faulthandler
import signal
import sys

import pytest

from tests.loader import samples

MOST_SECONDS = 30  # no test takes 3; a hang must end as a failure that shows where
MOST_SECONDS_IF_SLOW = 600


@pytest.fixture(scope="session", autouse=True)
def index_folder(tmp_path_factory):
    """FASTLOAD_CACHE for all tests, so that none meets an index of another run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTLOAD_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def no_hang(request):
    most_seconds = MOST_SECONDS_IF_SLOW if request.node.get_closest_marker("slow") else MOST_SECONDS

    def too_late(*_):
        faulthandler.dump_traceback(file=sys.__stderr__)
        # Not a TimeoutError: that is an OSError, and code that opens files takes it for a file's.
        pytest.fail(f"the test took more than {most_seconds} s")

    before = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(most_seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """The folder of `samples.write_shards`: 23 samples (prime) in shards of 6, 6, 6 and 5."""
    folder = tmp_path_factory.mktemp("shards")
    samples.write_shards(folder, 23, 6)
    return str(folder)


@pytest.fixture(scope="session")
def photo_shards(tmp_path_factory):
    """The real photos as shards of 8."""
    folder = tmp_path_factory.mktemp("photos")
    samples.write_photo_shards(folder, 8)
    return str(folder)
