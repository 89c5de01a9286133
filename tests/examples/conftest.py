"""What the tests of the examples have: a folder to import from, one thread, and a small source."""

import sys
from pathlib import Path

import pytest
import torch

from tests.prepare.pictures import jpeg
from tests.surroundings import own_index_folder, time_limit

__all__ = ["own_index_folder"]

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.append(str(EXAMPLES))

no_hang = time_limit(120, most_seconds_if_slow=600)  # the longest takes 3 s on a free core


@pytest.fixture(autouse=True)
def one_thread():
    """Sums of floats depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A folder of two class folders with ten pictures each."""
    folder = tmp_path_factory.mktemp("faces")
    for number, kind in enumerate(("glad", "sad")):
        (folder / kind).mkdir()
        for face in range(10):
            (folder / kind / f"{face}.jpg").write_bytes(jpeg(100 * number + face, 48, 40))
    return folder
