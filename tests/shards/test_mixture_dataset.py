"""Several datasets as one answer as each would by itself: shards, zips and folders, in any company."""

import zipfile

import numpy as np
import pytest

from fastload.errors import ConfigError
from fastload.shards.dataset import open_dataset
from fastload.shards.mixture import Mixture, open_mixture
from fastload.shards.writer import ShardWriter


@pytest.fixture
def sources(tmp_path):
    """Seven samples in two tars, three in a zip and four files in a folder; only some have a txt."""
    (tmp_path / "tars").mkdir()
    with ShardWriter(str(tmp_path / "tars" / "%d.tar"), max_samples=4) as writer:
        for i in range(7):
            writer.write({"__key__": f"t{i}", "jpg": b"j" * (i + 1), "cls": i})
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for i in range(3):
            archive.writestr(f"z{i}.jpg", b"z" * (i + 10))
    (tmp_path / "folder").mkdir()
    for i in range(4):
        (tmp_path / "folder" / f"f{i}.jpg").write_bytes(b"f" * (i + 20))
        (tmp_path / "folder" / f"f{i}.txt").write_text("x" * i)
    return {
        "tars": str(tmp_path / "tars"),
        "zip": str(tmp_path / "z.zip"),
        "folder": str(tmp_path / "folder"),
    }


@pytest.fixture
def together(sources, tmp_path):
    mixture = Mixture({name: (source, 1) for name, source in sources.items()}, epoch_samples=10)
    return open_mixture(mixture, cache_dir=tmp_path / "cache")


def parts_of(together):
    """(sample_id, Dataset, sample_id there) of every sample."""
    numbered = [(one, i) for one in together.datasets.values() for i in range(one.n)]
    return [(sample_id, one, i) for sample_id, (one, i) in enumerate(numbered)]


def test_sample_ids_are_numbered_through_in_the_order_of_the_names(together):
    assert list(together.datasets) == ["folder", "tars", "zip"]
    assert together.n == len(together) == 14
    keys = together.keys(np.arange(14))
    assert keys == ["f0", "f1", "f2", "f3", *(f"t{i}" for i in range(7)), "z0", "z1", "z2"]
    assert together.extensions == {"jpg": 14, "txt": 4, "cls": 7}


@pytest.mark.parametrize("alternatives", [("jpg",), ("txt", "cls"), ("png",), ("cls", "jpg")])
def test_every_sample_lies_where_its_own_dataset_says(together, alternatives):
    sample_ids = np.random.default_rng(0).permutation(14).repeat(2)
    found = together.locate(sample_ids, alternatives)
    numbered = {sample_id: (one, i) for sample_id, one, i in parts_of(together)}
    for place, sample_id in enumerate(sample_ids.tolist()):
        dataset, own_id = numbered[sample_id]
        alone = dataset.locate(np.array([own_id]), alternatives)
        assert found.offset_bytes[place] == alone.offset_bytes[0]
        assert found.size_bytes[place] == alone.size_bytes[0]
        assert found.ext_index[place] == alone.ext_index[0]
        if alone.size_bytes[0] >= 0:
            assert found.path_of(place) == alone.path_of(0)
            with open(found.path_of(place), "rb") as file:
                file.seek(found.offset_bytes[place])
                assert len(file.read(found.size_bytes[place])) == alone.size_bytes[0]


def test_rows_and_places_are_those_of_the_source_with_its_name(together):
    for sample_id, dataset, own_id in parts_of(together):
        assert together.row(sample_id) == dataset.row(own_id)
        name = next(name for name, one in together.datasets.items() if one is dataset)
        assert together.where(sample_id) == f"{name}: {dataset.where(own_id)}"


def test_labels_are_there_only_where_every_source_has_them(together, tmp_path):
    assert not together.has_labels and together.labels(np.arange(3)) is None
    for source, files in (("one", {"a": 1, "b": 2}), ("two", {"a": 2, "b": 1})):
        for name, count in files.items():
            (tmp_path / source / name).mkdir(parents=True)
            for i in range(count):
                (tmp_path / source / name / f"{i}.jpg").write_bytes(b"x")
    mixture = Mixture({name: (str(tmp_path / name), 1) for name in ("one", "two")}, epoch_samples=4)
    labelled = open_mixture(mixture, cache_dir=tmp_path / "cache")
    assert labelled.classes == ["a", "b"]
    assert labelled.labels(np.array([5, 0, 1, 2, 3, 4])).tolist() == [1, 0, 1, 1, 0, 0]


def test_an_empty_question_has_an_empty_answer(together):
    nothing = np.zeros(0, np.int64)
    assert together.keys(nothing) == []
    assert len(together.locate(nothing, ("jpg",)).size_bytes) == 0


def test_the_fingerprint_of_a_selection_is_its_own(sources, tmp_path):
    def opened(select=None, exclude=None):
        return open_dataset(sources["tars"], cache_dir=tmp_path / "cache", select=select, exclude=exclude)

    whole, some, others = opened(), opened([0, 1, 2]), opened([0, 1, 3])
    assert len({whole.fingerprint, some.fingerprint, others.fingerprint}) == 3
    assert opened(exclude=["t3", "t4", "t5", "t6"]).fingerprint == some.fingerprint
    assert opened(whole.keys(np.arange(whole.n))).fingerprint == whole.fingerprint


def test_an_error_of_a_source_is_raised_when_the_mixture_is_opened(sources, tmp_path):
    mixture = Mixture({"tars": (sources["tars"], 1), "gone": (str(tmp_path / "no.tar"), 1)}, epoch_samples=4)
    with pytest.raises(Exception, match=r"no\.tar: no such file or folder"):
        open_mixture(mixture, cache_dir=tmp_path / "cache")
    mixture = Mixture({"tars": (sources["tars"], 1)}, epoch_samples=4)
    with pytest.raises(ConfigError, match=r"select: ids must be in .*, got 7"):
        open_mixture(mixture, cache_dir=tmp_path / "cache", select={"tars": [7]})
