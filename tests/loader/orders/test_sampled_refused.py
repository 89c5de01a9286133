"""What a sampler may not draw, be combined with or be resumed in, and what becomes of its errors."""

import pytest
from torch.utils.data import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
)

import fastload as fl
from fastload.backends import has
from fastload.errors import ConfigError, CursorError, SampleError
from tests.loader import samples
from tests.loader.samples import labels, numbers, pictures

N = 23


def test_an_error_of_the_sampler_is_not_passed_over_for_its_next_epoch(shards):
    class FailsAtFirst:
        passes = 0

        def __iter__(self):
            self.passes += 1
            yield [0, 1]
            if self.passes == 1:
                raise LookupError("my sampler is broken")
            yield [2, 3]

    iterator = iter(labels(shards, None, batch_sampler=FailsAtFirst(), epochs=2))
    assert numbers([next(iterator)]) == [[0, 1]]
    with pytest.raises(LookupError, match="my sampler is broken"):
        next(iterator)


@pytest.mark.parametrize(
    ("drawn", "match"),
    [
        ([[0, 23]], r"must draw sample_ids in \[0, 23\), but drew 23"),
        ([[0, -1]], "drew -1"),
        ([["a"]], "must draw lists of sample_ids"),
        ([[0.5]], "which are integers"),
        ([[]], "must draw lists"),
        ([3, 4], "lists to batch_sampler="),
        ([[[1], [2, 3]]], "must draw lists"),
        ([], "list must draw at least a batch in every epoch"),
    ],
)
def test_what_is_no_batch_is_refused(shards, drawn, match):
    with pytest.raises(ConfigError, match=match):
        list(labels(shards, None, batch_sampler=drawn))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"sampler": 3}, "sampler must be an iterable, got 3"),
        ({"sampler": [1], "window": 4}, "Drop window="),
        ({"sampler": [1], "rank": 0, "world_size": 2}, "Drop rank="),
        ({"sampler": [1], "last": "pad"}, 'needs last="drop" or "partial", got last="pad"'),
        ({"batch_sampler": [[1]]}, "batch_size must be None with batch_sampler=.*got 2"),
        ({"sampler": [1], "batch_sampler": [[1]], "batch_size": None}, "Drop batch_sampler="),
        ({"batch_size": None}, "batch_size must be an integer"),
        ({"timeout_seconds": 0}, "timeout_seconds must be a number above 0"),
        ({"timeout_seconds": "1"}, "timeout_seconds must be a number above 0"),
    ],
)
def test_what_contradicts_a_sampler_is_refused_at_once(arguments, match):
    with pytest.raises(ConfigError, match=match):
        fl.Loader("nowhere", **{"batch_size": 2, **arguments}, fields={"label": fl.Int("cls")})


def test_a_mixture_has_an_order_of_its_own(shards):
    mixture = fl.Mixture({"a": (shards, 1.0)}, epoch_samples=10)
    with pytest.raises(ConfigError, match="mixture's order"):
        labels(mixture, 2, sampler=[1])


@pytest.mark.parametrize(
    ("other", "match"),
    [
        ({"batch_size": 3}, r"batch_size \(4 then, 3 now\)"),
        (
            {"sampler": SequentialSampler(range(N))},
            r"plan \(sampler RandomSampler then, .*SequentialSampler now",
        ),
        ({"sampler": None}, "plan"),
    ],
)
def test_a_place_of_a_sampler_belongs_to_its_kind_and_batch_size(shards, other, match):
    loader = labels(shards, 4, sampler=RandomSampler(range(N)))
    next(iter(loader))
    again = labels(shards, **{"batch_size": 4, "sampler": RandomSampler(range(N)), **other})
    again.load_state_dict(loader.state_dict())
    with pytest.raises(CursorError, match=match):
        next(iter(again))


def test_a_place_of_a_sampler_belongs_to_a_number_of_ranks(shards, monkeypatch):
    loader = labels(shards, 4, sampler=DistributedSampler(range(N), 1, 0))
    next(iter(loader))
    state = loader.state_dict()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    again = labels(shards, 4, sampler=DistributedSampler(range(N), 2, 0))
    again.load_state_dict(state)
    with pytest.raises(CursorError, match=r"world_size \(1 then, 2 now\)"):
        next(iter(again))


def test_a_sampler_that_draws_less_than_it_had_drawn_is_told(shards):
    loader = labels(shards, 4, sampler=SubsetRandomSampler(range(N)))
    iterator = iter(loader)
    [next(iterator) for _ in range(4)]
    again = labels(shards, 4, sampler=SubsetRandomSampler(range(9)))
    again.load_state_dict(loader.state_dict())
    with pytest.raises(CursorError, match="saved after 4 draws, but the sampler makes only 2 now"):
        next(iter(again))


@pytest.mark.parametrize("draws", [None, 3, {}, {"taken": -1, "epoch": None, "generators": {}, "own": None}])
def test_draws_that_are_none_are_refused(shards, draws):
    loader = labels(shards, 4, sampler=[1, 2, 3, 4])
    next(iter(loader))
    with pytest.raises(CursorError, match="not a sampler's state"):
        loader.load_state_dict(loader.state_dict() | {"draws": draws})


@pytest.mark.skipif(not has("nvidia.dali"), reason="needs DALI")
def test_dali_has_to_know_how_large_a_batch_of_a_batch_sampler_can_be(shards):
    batches = [[3, 1], [22], [5, 6, 7]]
    loader = pictures(shards, None, batch_sampler=BatchSampler([3, 1, 22], 2, False), decode="dali")
    assert numbers(loader) == [[3, 1], [22]]
    with pytest.raises(ConfigError, match="give batch_sampler= an attribute batch_size"):
        next(iter(pictures(shards, None, batch_sampler=batches, decode="dali")))


def test_a_bad_sample_that_is_alone_in_its_batch_raises(tmp_path):
    samples.write(tmp_path, [samples.sample(0), samples.sample(1, jpg=b"no picture")])
    loader = pictures(str(tmp_path), 1, sampler=[1], max_bad_fraction=1.0)
    with pytest.raises(SampleError, match="bad as well"):
        list(loader)
