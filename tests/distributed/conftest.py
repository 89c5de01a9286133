"""What the tests of several processes have: a dataset, an index folder of their own, a limit on time."""

import faulthandler
import signal
import sys

import pytest

from tests.loader import samples

MOST_SECONDS = 90  # the longest that is not slow takes 15 on two free cores
SLOW_SECONDS = 1200


@pytest.fixture
def cases():
    """How many cases a promise of the README was tried on."""
    return lambda promise, number: None


@pytest.fixture(autouse=True)
def no_hang(request):
    most_seconds = SLOW_SECONDS if request.node.get_closest_marker("slow") else MOST_SECONDS

    def too_late(*_):
        faulthandler.dump_traceback(file=sys.__stderr__)
        raise TimeoutError(f"the test took more than {most_seconds} s")

    before = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(most_seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session", autouse=True)
def alone(tmp_path_factory):
    """An index folder of this session, and no launcher's variables, here and in the processes started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTLOAD_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """The folder of `samples.write_shards`: 103 samples (prime) in eleven shards."""
    folder = tmp_path_factory.mktemp("shards")
    samples.write_shards(folder, 103, 10)
    return str(folder)
