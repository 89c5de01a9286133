"""fl.Dataset: single samples, its source opened once, its arguments judged at once."""

import pickle

import numpy as np
import pytest
import torch

import fastload as fl
from fastload.errors import ConfigError
from fastload.shards import dataset as shards_dataset
from tests.drop_in.datasets import FIELDS, N
from tests.loader import samples
from tests.loader.samples import flat


def test_a_dataset_shows_single_samples(shards, dataset):
    assert len(dataset) == N
    batch = next(iter(fl.DataLoader(dataset, N)))
    for i in (0, 7, N - 1, -1):
        sample = dataset[i]
        assert sample["label"] == i % N and sample["__key__"] == f"{i % N:05d}"
        assert torch.equal(sample["image"], batch["image"][i])
    assert dataset[np.int64(3)]["label"] == dataset[torch.tensor(3)]["label"] == 3
    for i in (N, -N - 1):
        with pytest.raises(IndexError, match="the index must be in"):
            dataset[i]
    for i in (1.0, "1", slice(2)):
        with pytest.raises(ConfigError, match="the index must be an integer"):
            dataset[i]
    assert [sample["label"].item() for sample in dataset] == list(range(N))
    image, label = fl.Dataset(shards, FIELDS, as_tuple=True)[3]
    assert image.shape == (3, 8, 8) and label == 3


def test_a_dataset_shows_samples_with_the_dice_of_their_position(shards):
    dataset = fl.Dataset(shards, FIELDS, augment=fl.Augment(xflip=0.5, brightness=0.3))
    batch = next(iter(fl.DataLoader(dataset, N)))
    for i in range(N):
        assert torch.equal(dataset[i]["image"], batch["image"][i])


def test_a_dataset_shows_no_stand_in_for_a_bad_sample(tmp_path):
    samples.write(tmp_path, [samples.sample(0), samples.sample(1, jpg=b"no picture")])
    dataset = fl.Dataset(str(tmp_path), FIELDS)
    assert dataset[0]["label"] == 0
    with pytest.raises(fl.SampleError, match="not an image of a known format"):
        dataset[1]


def test_who_trains_on_single_samples_is_warned_once(dataset, monkeypatch):
    monkeypatch.setattr("fastload.drop_in.dataset.MANY", 3)
    with pytest.warns(UserWarning, match="called 3 times") as caught:
        for i in range(5):
            dataset[i]
    assert len(caught) == 1 and caught[0].filename == __file__


@pytest.mark.parametrize(
    "more", [{"augment": fl.Augment(mixup=0.5)}, {"fields": {"image": fl.Image(size=8, report=True)}}]
)
def test_tuples_have_no_room_for_more_than_the_fields(more):
    with pytest.raises(ConfigError, match="returns only the fields"):
        fl.Dataset("nowhere", **{"fields": FIELDS, "as_tuple": True, **more})


@pytest.fixture
def openings(monkeypatch):
    """What was opened, and on disk."""
    openings, open_dataset = [], shards_dataset.open_dataset

    def opening(source, **how):
        openings.append(source)
        return open_dataset(source, **how)

    monkeypatch.setattr(shards_dataset, "open_dataset", opening)
    return openings


def test_a_dataset_goes_through_pickle_and_opens_its_source_again(dataset, openings):
    len(dataset)
    again = pickle.loads(pickle.dumps(dataset))
    assert len(openings) == 1
    assert flat(fl.DataLoader(again, 4)) == list(range(N))
    assert len(openings) == 2


def test_a_dataset_opens_its_source_once_for_all_that_use_it(dataset, openings):
    one, other = fl.DataLoader(dataset, 4), fl.DataLoader(dataset, 5)
    list(one), list(other), len(dataset), dataset[0]
    assert len(openings) == 1 and one.dataset is other.dataset is dataset


def test_nothing_is_read_when_a_dataset_is_made_and_asked_whether_it_is_there():
    dataset = fl.Dataset("nowhere", FIELDS)
    assert dataset and "nowhere" in repr(dataset)
    loader = fl.DataLoader(dataset)
    assert loader and "nowhere" in repr(loader)
    with pytest.raises(fl.SourceError):
        len(dataset)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"as_tuple": 1}, "as_tuple must be .*, got 1"),
        ({"normalize": "x"}, "normalize"),
        ({"window": 0}, "window must be .*, got 0"),
    ],
)
def test_a_dataset_judges_its_arguments_at_once(arguments, match):
    with pytest.raises(ConfigError, match=match):
        fl.Dataset("nowhere", FIELDS, **arguments)


def test_a_selection_and_classes(tmp_path):
    for name in ("b", "a"):
        for i in range(3):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{i}.jpg").write_bytes(samples.jpeg(i))
    dataset = fl.Dataset(str(tmp_path), FIELDS, select=[0, 4, 5], as_tuple=True)
    assert dataset.classes == ["a", "b"] and len(dataset) == 3
    assert [label.tolist() for _, label in fl.DataLoader(dataset, 2)] == [[0, 1], [1]]


def test_a_mixture_is_a_dataset_too(shards):
    mixture = fl.Mixture({"a": (shards, 1.0), "b": (shards + "/000.tar", 1.0)}, epoch_samples=10)
    dataset = fl.Dataset(mixture, FIELDS)
    loader = fl.DataLoader(dataset, 5, shuffle=True)
    assert len(dataset) == 10 and len(list(loader)) == 2 and dataset.classes is None
