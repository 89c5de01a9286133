"""Several sources in one loader: proportions, passes, ranks and resume."""

import json
from itertools import chain

import pytest

import fastload as fl
from fastload.errors import ConfigError, CursorError, FieldError
from tests.contracts.dealing import Sizes
from tests.contracts.mixtures import (
    assert_elastic_while_weights_change,
    assert_in_proportion,
    assert_own_passes,
    taken_alone,
)
from tests.contracts.stream import assert_equal_streams, assert_every_cursor_gives_the_rest
from tests.loader.mixtures import FIRST, SIZES, WEIGHTS, N, mixture, sources
from tests.loader.samples import flat, labels, numbers, pictures, sample, write


def test_every_prefix_is_within_a_sample_of_the_weights(folders, cases):
    loader = labels(mixture(folders), 7, epochs=20, last="straddle")
    names = sources(loader)
    assert len(names) >= 20 * N
    cases("mixtures", assert_in_proportion(names, WEIGHTS))


def test_samples_belong_to_the_source_that_the_batch_names(folders):
    for batch in labels(mixture(folders), 5):
        assert batch["__source__"] == [
            name
            for label in batch["label"].tolist()
            for name in SIZES
            if FIRST[name] // 1000 == label // 1000
        ]
        assert batch["__key__"] == [f"{label:05d}" for label in batch["label"].tolist()]


@pytest.mark.parametrize("window", [None, 3])
def test_each_source_makes_its_own_passes(folders, cases, window):
    batches = list(labels(mixture(folders), 10, epochs=20, window=window))
    own = {name: range(FIRST[name], FIRST[name] + size) for name, size in SIZES.items()}
    cases("mixtures", assert_own_passes(sources(batches), flat(batches), own))


def test_passes_of_a_source_are_shuffled_anew(folders):
    batches = list(labels(mixture(folders), 10, epochs=4))
    cats = [label for label in flat(batches) if label // 1000 == 2]
    assert sorted(cats[:23]) == sorted(cats[23:46])
    assert cats[:23] != cats[23:46]


def test_runs_that_change_ranks_batches_and_weights_take_what_one_rank_would(folders, cases):
    def make_loader(**sizes):
        return labels(mixture(folders), **sizes)

    art, none = {"art": 5, "cats": 1, "dogs": 1}, {"art": 0, "cats": 1, "dogs": 2}
    links = [
        (Sizes(2, 3, "drop"), 2, None),
        (Sizes(1, 8, "pad"), 1, art),
        (Sizes(5, 1, "partial"), 2, None),
        (Sizes(2, 2, "straddle"), 3, none),
        (Sizes(1, 1, "drop"), 8, art),
    ]
    usual = taken_alone(make_loader(batch_size=1), {12: art, 30: none, 42: art}, N)
    cases("mixtures", assert_elastic_while_weights_change(make_loader, links, usual))


def test_without_a_shuffle_each_source_comes_as_stored(folders):
    loader = labels(mixture(folders, {"art": 1, "dogs": 1}, 14), 2, shuffle=False)
    assert numbers(loader) == [[1000 + i, 3000 + i] for i in range(7)]


def test_the_order_in_which_sources_are_written_down_does_not_matter(folders):
    turned = dict(reversed(WEIGHTS.items()))
    assert numbers(labels(mixture(folders, turned), 5)) == numbers(labels(mixture(folders), 5))
    assert labels(mixture(folders, turned)).state_dict() == labels(mixture(folders)).state_dict()


def test_a_mixture_of_one_source_is_that_source(folders):
    mixed = list(labels(mixture(folders, {"cats": 3}, SIZES["cats"]), 5, epochs=3))
    assert {name for batch in mixed for name in batch.pop("__source__")} == {"cats"}
    assert_equal_streams(mixed, list(labels(folders["cats"], 5, epochs=3)))


@pytest.mark.parametrize("arguments", [{}, {"last": "pad"}, {"last": "straddle"}, {"window": 3}], ids=str)
def test_every_cursor_gives_the_rest_of_the_stream(folders, arguments):
    def made():
        return labels(mixture(folders), 7, epochs=2, **arguments)

    def restored(state):
        loader = made()
        loader.load_state_dict(json.loads(json.dumps(state)))
        return loader

    assert_every_cursor_gives_the_rest(made, restored)


def by_position(loaders):
    """position -> label, of all ranks, without padding."""
    got = {}
    for loader in loaders:
        for batch in loader:
            mask = batch.get("__mask__")
            for i, (position, label) in enumerate(
                zip(batch["__position__"].tolist(), batch["label"].tolist(), strict=True)
            ):
                if mask is None or mask[i]:
                    assert position not in got
                    got[position] = label
    return got


@pytest.mark.parametrize("last", ["drop", "partial", "pad", "straddle"])
def test_a_cursor_resumes_on_any_number_of_ranks_with_any_batch(folders, last):
    whole = by_position([labels(mixture(folders), 1, epochs=2)])
    for saved_on, loaded_on, batch_size in [(1, 2, 3), (2, 1, 4), (3, 8, 1), (8, 3, 2), (4, 4, 1)]:
        ranks = [labels(mixture(folders), 2, rank=r, world_size=saved_on, last=last) for r in range(saved_on)]
        got, states = {}, []
        for loader in ranks:
            run = iter(loader)
            for _ in range(2):
                batch = next(run)
                got |= dict(zip(batch["__position__"].tolist(), batch["label"].tolist(), strict=True))
            states.append(loader.state_dict())
        assert all(state == states[0] for state in states)
        rest = []
        for rank in range(loaded_on):
            how = {"rank": rank, "world_size": loaded_on, "last": last}
            rest.append(labels(mixture(folders), batch_size, **how))
            rest[-1].load_state_dict(states[0])
        more = by_position(rest)
        assert not set(got) & set(more)
        got |= more
        assert sorted(got) == list(range(len(got)))
        assert N - len(got) < {"drop": batch_size * loaded_on, "partial": loaded_on}.get(last, 1)
        assert all(label == whole[position] for position, label in got.items())


def test_set_epoch_finds_the_place_of_a_mixture_without_walking_there(folders):
    whole = labels(mixture(folders), 5)
    expected = [numbers(whole) for _ in range(4)]
    loader = labels(mixture(folders), 5)
    for epoch in (3, 0, 2, 2, 1):
        loader.set_epoch(epoch)
        assert numbers(loader) == expected[epoch]
    loader.set_epoch(2**31 - 1)
    assert next(iter(loader))["__position__"][0] == (2**31 - 1) * N


def test_pad_repeats_the_start_of_the_mixtures_epoch(folders):
    loader = labels(mixture(folders), 8, last="pad", epochs=2)
    batches = list(loader)
    assert len(batches) == 2 * 7
    for epoch in range(2):
        first, last = batches[7 * epoch], batches[7 * epoch + 6]
        assert last["__mask__"].tolist() == [True] * 2 + [False] * 6
        assert last["label"][2:].tolist() == first["label"][:6].tolist()
        assert last["__position__"][2:].tolist() == first["__position__"][:6].tolist()


def test_a_cursor_of_other_sources_names_the_one_that_differs(folders, cases):
    saved = labels(mixture(folders)).state_dict()
    swapped = folders | {"cats": folders["art"]}
    for source, differs in [
        (mixture(swapped), "source 'cats'"),
        (mixture(folders, {"art": 1, "dogs": 1}), "source 'cats'"),
        (mixture(folders, epoch_samples=51), r"epoch_samples \(50 then, 51 now\)"),
        (folders["cats"], "source"),
    ]:
        loader = labels(source)
        loader.load_state_dict(saved)
        with pytest.raises(CursorError, match=f"another order: it differs in .*{differs}"):
            next(iter(loader))
        cases("fingerprints", 1)


def test_select_goes_to_all_sources_or_to_each_its_own(folders):
    even = labels(mixture(folders), 1, select=lambda row: int(row.key) % 2 == 0, epochs=4)
    assert {label % 2 for label in flat(even)} == {0}
    chosen = {"select": {"cats": [3, 5]}, "exclude": {"art": ["01000"]}}
    own = labels(mixture(folders), 1, **chosen, epochs=4)
    labels_of = set(flat(own))
    assert {label for label in labels_of if 2000 <= label < 3000} == {2003, 2005}
    assert 1000 not in labels_of and {1001, 3000} <= labels_of
    with pytest.raises(ConfigError, match="select: 'birds' is not a source; the sources are art, cats, dogs"):
        next(iter(labels(mixture(folders), select={"birds": [1]})))
    with pytest.raises(ConfigError, match="a function of a row, or name -> selection"):
        next(iter(labels(mixture(folders), select=[1, 2])))


def test_images_of_a_mixture_are_those_of_its_sources(folders):
    alone = {}
    for name in SIZES:
        for batch in pictures(folders[name], 1, shuffle=False):
            alone[batch["label"].item()] = batch["image"][0]
    for batch in pictures(mixture(folders), 10):
        for label, image in zip(batch["label"].tolist(), batch["image"], strict=True):
            assert image.equal(alone[label])


def test_a_field_that_one_source_lacks_is_named_with_the_source(folders, tmp_path):
    write(tmp_path, ({"__key__": f"{i}", "jpg": b"x"} for i in range(3)))
    source = fl.Mixture({"cats": (folders["cats"], 1), "bare": (str(tmp_path), 1)}, 10)
    with pytest.raises(
        FieldError, match=r"source 'bare': .*no sample of .* has cls. Name an extension that they have: jpg"
    ):
        next(iter(labels(source)))
    loader = fl.Loader(source, 4, {"label": fl.Int("cls", default=-1)})
    assert set(chain.from_iterable(b["label"].tolist() for b, _ in zip(loader, range(2), strict=False))) > {
        -1
    }


def test_an_error_in_a_sample_names_its_source(folders, tmp_path):
    write(tmp_path, ({"__key__": f"{i}", "cls": b"cat"} for i in range(3)))
    source = fl.Mixture({"cats": (folders["cats"], 1), "odd": (str(tmp_path), 1)}, 10)
    with pytest.raises(fl.SampleError, match=r"^odd: 000\.tar: key '\d'"):
        next(iter(labels(source)))


def test_class_folders_of_a_mixture_share_their_classes(tmp_path, folders):
    from tests.loader.samples import jpeg

    for source, classes in (("one", "ab"), ("two", "ab"), ("other", "ac")):
        for number, name in enumerate(classes):
            (tmp_path / source / name).mkdir(parents=True)
            (tmp_path / source / name / f"{number}.jpg").write_bytes(jpeg(number))
    one, two, other = (str(tmp_path / name) for name in ("one", "two", "other"))
    batch = next(iter(labels(fl.Mixture({"one": (one, 1), "two": (two, 1)}, 4), 4)))
    assert sorted(batch["label"].tolist()) == [0, 0, 1, 1]
    with pytest.raises(ConfigError, match="'one' and 'other' have different classes"):
        next(iter(labels(fl.Mixture({"one": (one, 1), "other": (other, 1)}, 4), 4)))
    with pytest.raises(FieldError, match="those of 'one' come from its class folders"):
        next(iter(labels(fl.Mixture({"one": (one, 1), "cats": (folders["cats"], 1)}, 4), 4)))


@pytest.mark.parametrize(
    ("sources", "epoch_samples", "message"),
    [
        ({}, 10, "must map names to sources and weights, such as"),
        (["a"], 10, "must map names to sources and weights, such as"),
        ({"a": "a.tar"}, 10, r"'a' must be \(source, weight\), got 'a\.tar'"),
        ({1: ("a.tar", 1)}, 10, "names must be non-empty strings, got 1"),
        ({"": ("a.tar", 1)}, 10, "names must be non-empty strings, got ''"),
        ({"a": ("a.tar", -1)}, 10, "'a' must have an int or float >= 0, got -1"),
        ({"a": ("a.tar", True)}, 10, "'a' must have an int or float >= 0, got True"),
        ({"a": ("a.tar", 0)}, 10, "weights: at least one must be positive"),
        ({"a": ("a.tar", 1)}, 0, "epoch_samples must be an integer in .* got 0"),
        ({"a": ("a.tar", 1)}, 1.5, r"epoch_samples must be an integer in .* got 1\.5"),
        ({"a": ("a.tar", 1)}, True, "epoch_samples must be an integer .* got True"),
        ({"a": (fl.Mixture({"b": ("b.tar", 1)}, 4), 1)}, 4, "'a' is a mixture itself"),
    ],
)
def test_what_is_no_mixture_is_refused_at_once(sources, epoch_samples, message):
    with pytest.raises(ConfigError, match=message):
        fl.Mixture(sources, epoch_samples=epoch_samples)


def test_the_repr_names_sources_and_orders(folders):
    loader = labels(mixture(folders))
    next(iter(loader))
    assert "order: mixture n=50 of global/1 n=7 seed=0 and global/1 n=23" in repr(loader)


def test_the_state_of_a_mixture_grows_with_its_sources_only(folders):
    loader = labels(mixture(folders), 5)
    sizes = []
    for _ in loader:
        loader.set_weights({name: hash(name) % 97 + 1 for name in SIZES})
        sizes.append(len(json.dumps(loader.state_dict())))
    assert max(sizes) < 1200


def test_sources_of_equal_size_are_shuffled_differently(folders, tmp_path):
    write(tmp_path, (sample(4000 + i) for i in range(SIZES["cats"])), 6)
    source = fl.Mixture({"cats": (folders["cats"], 1), "more": (str(tmp_path), 1)}, 46)
    taken = flat(labels(source, 1))
    cats, more = ([label % 1000 for label in taken if label // 1000 == kind] for kind in (2, 4))
    assert sorted(cats) == sorted(more) == list(range(23))
    assert cats != more


def test_a_loader_that_map_batch_closes_says_so(folders):
    loader = labels(mixture(folders), 5, map_batch=lambda batch: loader.close() or batch)
    with pytest.raises(ConfigError, match="closed while this batch was made"):
        next(iter(loader))
    assert loader.state_dict()["position"] == 0


def test_a_source_that_is_not_there_is_named(folders):
    loader = labels(fl.Mixture({"cats": (folders["cats"], 1), "gone": ("/nowhere/x.tar", 1)}, 10))
    with pytest.raises(fl.SourceError, match=r"^source 'gone': /nowhere/x\.tar: no such file"):
        len(loader)


def test_an_epoch_that_is_too_short_for_a_batch_is_told_by_its_own_name(folders):
    with pytest.raises(ConfigError, match="an epoch has n=3 samples, but a step takes "):
        len(labels(mixture(folders, epoch_samples=3), 5))


def test_a_cursor_whose_mixture_is_not_that_of_its_sources_is_refused(folders):
    state = labels(mixture(folders), 5).state_dict()
    other = labels(mixture(folders, {"art": 1, "cats": 1}), 5).state_dict()
    later = labels(mixture(folders), 5)
    later.set_epoch(2)
    wrong = [
        state | {"mixture": None},
        state | {"mixture": other["mixture"]},
        later.state_dict()
        | {"mixture": later.state_dict()["mixture"] | {"epoch": state["mixture"]["epoch"]}},
        labels(folders["cats"]).state_dict() | {"mixture": state["mixture"]},
    ]
    for number, one in enumerate(wrong):
        loader = labels(mixture(folders) if number < 3 else folders["cats"], 5)
        loader.load_state_dict(one)
        with pytest.raises(CursorError, match="its mixture does not fit its sources and its epoch"):
            next(iter(loader))
