"""Weights of a mixture that change: from the next batch on, kept by a cursor, nothing lost or repeated."""

import json
from collections import Counter
from itertools import chain

import pytest

from fastload.errors import ConfigError, CursorError
from fastload.loader.pipeline import Pipeline
from tests.contracts.stream import assert_equal_streams
from tests.loader.mixtures import FIRST, SIZES, WEIGHTS, N, mixture, sources
from tests.loader.samples import labels, numbers


def test_other_weights_hold_from_the_next_batch_on(folders):
    loader = labels(mixture(folders), 5, prefetch=6)
    names = []
    for step, batch in enumerate(loader):
        names.append(batch["__source__"])
        if step == 3:
            loader.set_weights({"art": 0, "cats": 0, "dogs": 1})
    before = labels(mixture(folders), 5)
    assert [batch["__source__"] for batch, _ in zip(before, range(4), strict=False)] == names[:4]
    assert set(chain.from_iterable(names[4:])) == {"dogs"}
    assert len(names) == N // 5


def test_weights_that_change_lose_and_repeat_nothing(folders):
    loader = labels(mixture(folders), 5, epochs=4)
    positions, by_source = [], {name: [] for name in SIZES}
    for step, batch in enumerate(loader):
        positions += batch["__position__"].tolist()
        for name, label in zip(batch["__source__"], batch["label"].tolist(), strict=True):
            by_source[name].append(label - FIRST[name])
        if step % 3 == 2:
            loader.set_weights({"art": step % 2 + 0.1, "cats": 1, "dogs": step % 5})
    assert positions == list(range(4 * N))
    for name, size in SIZES.items():
        passes = [by_source[name][start : start + size] for start in range(0, len(by_source[name]), size)]
        assert len(passes) > 2
        assert all(sorted(one) == list(range(size)) for one in passes[:-1])


def test_proportions_of_two_sources_follow_weights_that_change(folders):
    loader = labels(mixture(folders, {"cats": 1, "dogs": 1}), 1, epochs=4)
    wanted, share, counts = {"cats": 0.0, "dogs": 0.0}, 0.5, Counter()
    for step, batch in enumerate(loader):
        counts.update(batch["__source__"])
        wanted["cats"] += share
        wanted["dogs"] += 1 - share
        assert all(abs(counts[name] - wanted[name]) <= 1 for name in wanted)
        if step % 17 == 16:
            share = [0.9, 0.25, 0.6, 0.0][step // 17 % 4]
            loader.set_weights({"cats": share, "dogs": 1 - share})


def test_a_cursor_carries_the_weights_that_changed(folders):
    def first(steps):
        loader = labels(mixture(folders), 5, epochs=3)
        for step, batch in enumerate(loader):
            yield loader, batch
            if step == 2:
                loader.set_weights({"art": 5, "cats": 1, "dogs": 1})
            if step == steps:
                return

    whole = [batch for _, batch in first(100)]
    for stop in (1, 2, 3, 4, 9, 10, 15):
        *_, (saved, _) = first(stop)
        loader = labels(mixture(folders), 5, epochs=3)
        loader.load_state_dict(json.loads(json.dumps(saved.state_dict())))
        if stop < 2:
            continue  # the change is still to come, and is the training's to make
        assert_equal_streams(list(loader), whole[stop + 1 :])


def test_weights_set_after_the_last_batch_of_an_epoch_do_not_lengthen_it(folders):
    loader = labels(mixture(folders), 7)
    seen = 0
    for batch in loader:
        seen += 1
        if batch["__position__"][-1] >= N - 7:
            loader.set_weights({"art": 1, "cats": 0, "dogs": 0})
    assert seen == N // 7
    assert set(sources(loader)) == {"art"}


def test_weights_set_before_the_first_batch_and_between_epochs_hold(folders):
    only = {"art": {"art": 1, "cats": 0, "dogs": 0}, "dogs": {"art": 0, "cats": 0, "dogs": 2}}
    loader = labels(mixture(folders), 5)
    loader.set_weights(only["art"])
    assert set(sources(loader)) == {"art"}
    loader.set_weights(only["dogs"])
    assert set(sources(loader)) == {"dogs"}
    loader.set_epoch(7)
    assert set(sources(loader)) == {"dogs"}
    assert loader.state_dict()["position"] == 8 * N


def test_set_epoch_of_the_epoch_under_way_changes_nothing_after_new_weights(folders):
    loader = labels(mixture(folders), 5)
    positions = []
    for step, batch in enumerate(loader):
        positions += batch["__position__"].tolist()
        if step == 3:
            loader.set_weights({"art": 1, "cats": 1, "dogs": 1})
        loader.set_epoch(0)
    assert positions == list(range(N))


def test_a_cursor_brings_its_weights_and_warns_where_the_mixture_was_given_others(folders):
    saved = labels(mixture(folders), 5)
    next(iter(saved))
    state, whole = saved.state_dict(), numbers(labels(mixture(folders), 5))
    loader = labels(mixture(folders, {"art": 1, "cats": 1, "dogs": 1}), 5)
    loader.load_state_dict(state)
    with pytest.warns(UserWarning, match="had other weights when the checkpoint was saved") as seen:
        assert numbers(loader) == whole[1:]
    assert len(seen) == 1


def test_new_weights_right_after_loading_count_from_the_saved_place(folders):
    saved = labels(mixture(folders), 5)
    next(iter(saved))
    loader = labels(mixture(folders), 5)
    loader.load_state_dict(saved.state_dict())
    loader.set_weights({"art": 0, "cats": 1, "dogs": 0})
    assert loader.state_dict()["position"] == 5
    assert set(sources(loader)) == {"cats"}


def test_set_weights_refuses_what_cannot_be_weighed_and_changes_nothing(folders):
    loader = labels(mixture(folders), 5)
    for weights, message in [
        ({"cats": 1}, "weights: 'art' has no weight, 'dogs' has no weight; the sources are art, cats, dogs"),
        (WEIGHTS | {"birds": 1}, "weights: 'birds' is not a source"),
        (WEIGHTS | {"cats": -1}, "weights: 'cats' must have an int or float >= 0, got -1"),
        (WEIGHTS | {"cats": float("nan")}, "weights: 'cats' must have an int or float >= 0, got nan"),
        (WEIGHTS | {"cats": "1"}, "weights: 'cats' must have an int or float >= 0, got '1'"),
        (WEIGHTS | {"cats": 10**400}, "weights: 'cats' must have an int or float >= 0, got 1000"),
        (WEIGHTS | {"cats": True}, "weights: 'cats' must have an int or float >= 0, got True"),
        (dict.fromkeys(WEIGHTS, 0), "weights: at least one must be positive"),
        ([1, 2, 3], "weights must map each of art, cats, dogs to a number"),
    ]:
        with pytest.raises(ConfigError, match=message):
            loader.set_weights(weights)
    assert numbers(loader) == numbers(labels(mixture(folders), 5))
    with pytest.raises(ConfigError, match=r"needs an fl\.Mixture as the loader's source"):
        labels(folders["cats"]).set_weights({"cats": 1})


def test_new_weights_for_a_cursor_of_another_source_are_refused(folders):
    loader = labels(mixture(folders))
    loader.load_state_dict(labels(folders["cats"]).state_dict())
    with pytest.raises(CursorError, match="another order"):
        loader.set_weights(WEIGHTS)


def test_weights_that_are_in_force_already_give_up_nothing(folders, monkeypatch):
    launch, launched = Pipeline.launch, []
    monkeypatch.setattr(Pipeline, "launch", lambda self, trip: (launched.append(trip), launch(self, trip)))
    loader = labels(mixture(folders), 5, prefetch=4)
    for _ in loader:
        loader.set_weights({name: 10 * weight for name, weight in WEIGHTS.items()})
    assert len(launched) == N // 5
    loader.set_weights(dict.fromkeys(WEIGHTS, 1))
    run = iter(loader)
    next(run)
    loader.set_weights(WEIGHTS)
    next(run)
    assert len(launched) == N // 5 + 2 * 5


def test_looking_at_the_state_changes_nothing_that_follows(folders):
    def followed(looks):
        loader = labels(mixture(folders), 5)
        list(loader)
        loader.set_weights({"art": 3, "cats": 1, "dogs": 1})
        for _ in zip(loader, range(2), strict=False):
            pass
        loader.set_epoch(3)
        if looks:
            loader.state_dict()
        loader.set_epoch(1)
        return numbers(loader)

    assert followed(looks=True) == followed(looks=False)


def test_what_moves_the_place_is_refused_while_a_batch_is_made(folders):
    state = labels(mixture(folders), 5).state_dict()
    moves = []  # in a list, because the loader that they move is made with the function that calls them
    loader = labels(mixture(folders), 5, map_batch=lambda batch: moves[-1]() and batch)
    for move in (
        lambda: loader.set_weights(dict.fromkeys(WEIGHTS, 1)),
        lambda: loader.load_state_dict(state),
        lambda: loader.set_epoch(3),
        lambda: iter(loader),
    ):
        moves.append(move)
        with pytest.raises(
            ConfigError, match="a batch is being made: call set_weights, load_state_dict, set_"
        ):
            next(iter(loader))
        assert loader.state_dict() == state
