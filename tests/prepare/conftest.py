"""Small sources for the verbs."""

import pytest

from fastload.shards.writer import ShardWriter
from tests.prepare.pictures import jpeg


@pytest.fixture(autouse=True)
def private_cache(monkeypatch, tmp_path):
    """Indexes and sample sets of a test go into its own folder."""
    monkeypatch.setenv("FASTLOAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def shards(tmp_path):
    """A folder of three shards with 7, 7 and 6 samples: jpg, cls and txt."""
    with ShardWriter(tmp_path / "shards" / "%05d.tar", max_samples=7) as writer:
        for number in range(20):
            picture = jpeg(number, 60 + 7 * number, 90)
            writer.write(
                {"__key__": f"{number:04d}", "jpg": picture, "cls": number % 3, "txt": f"caption {number}"}
            )
    return tmp_path / "shards"


@pytest.fixture
def class_folders(tmp_path):
    """A folder of two class folders with three images each."""
    for kind in ("cats", "dogs"):
        (tmp_path / "animals" / kind).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "animals" / kind / f"{number}.jpg").write_bytes(jpeg(number))
    return tmp_path / "animals"


@pytest.fixture
def loader_calls(monkeypatch):
    """The keyword arguments of every Loader that the verbs make."""
    from fastload.prepare.common import pipeline

    calls, real = [], pipeline.Loader

    def record(source, **settings):
        calls.append(settings)
        return real(source, **settings)

    monkeypatch.setattr(pipeline, "Loader", record)
    return calls
