"""What tests of torch's face have: what the loader's have, a dataset, a class folder, an imitated device."""

import pytest

import fastload as fl
from tests import corpus
from tests.drop_in.datasets import FIELDS
from tests.drop_in.stateful_cases import OwnStream
from tests.loader.conftest import no_hang, own_index_folder, shards

__all__ = ["no_hang", "own_index_folder", "shards"]


@pytest.fixture
def dataset(shards):
    return fl.Dataset(shards, FIELDS)


@pytest.fixture
def calls(monkeypatch):
    """What a loader with device="cuda" asks its stream for."""
    calls = []
    monkeypatch.setattr("fastload.drop_in.stateful_loader.resolve_device", lambda device: device)
    monkeypatch.setattr("fastload.drop_in.stateful_loader.delivery", lambda device: OwnStream(calls))
    return calls


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """Two classes: photos, and pictures of odd sizes and modes, as a folder of class folders."""
    root = tmp_path_factory.mktemp("lifted")
    files = {f"photo/{name}": content for name, content in list(corpus.photos().items())[:6]}
    kinds = {
        "bmp": "bmp",
        "gif": "gif",
        "jpeg": "jpg",
        "png": "png",
        "ppm": "ppm",
        "tiff": "tif",
        "webp": "webp",
    }
    for name, content in corpus.pictures().items():
        kind = kinds.get(name.split()[0])
        if kind and "exif" not in name and "16" not in name and "float" not in name and "900" not in name:
            files[f"odd/{name}.{kind}"] = content
    for i, (width, height) in enumerate(
        [(1, 1), (1, 9), (9, 1), (41, 40), (40, 41), (333, 251), (251, 333), (64, 80)]
    ):
        files[f"odd/size {i}.png"] = corpus.encode(corpus.picture(width, height, i), "PNG")
    for name, content in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
    return str(root)
