"""Checkpoints and data that grew: what was there then goes on exactly, and a refusal says what was added."""

import json
import re
import shutil

import pytest

import fastload as fl
from fastload.errors import CursorError
from fastload.shards.dataset import open_dataset
from tests.contracts.chains import WORLDS
from tests.contracts.dealing import LASTS
from tests.contracts.elastic import assert_elastic
from tests.contracts.ends import assert_ends_of_epochs
from tests.loader.samples import flat, jpeg, labels, sample, write, write_shards
from tests.loader.test_elastic import all_sizes, keys, maker

N = 10


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """then: N samples in shards of 4. shards: and 7 more in two shards. scattered: shards before, between and
    after those of then. tar: one tar, to which was appended. before: what the tar was."""
    root = tmp_path_factory.mktemp("grown")
    write_shards(root / "then", N, 4)
    shutil.copytree(root / "then", root / "shards")
    more = write(root / "more", (sample(i) for i in range(N, N + 7)), 4)
    for number, path in enumerate(more):
        shutil.copy(path, root / "shards" / f"{number + 3:03d}.tar")
    shutil.copytree(root / "then", root / "scattered")
    for name, path in (("000-.tar", more[0]), ("001x.tar", more[1])):
        shutil.copy(path, root / "scattered" / name)
    write_shards(root / "before", N, 100)
    write_shards(root / "tar", N + 7, 100)  # a tar that grows keeps what it had, where it was
    folder(root / "folder then", range(N))
    folder(root / "folder", range(N + 7))
    return root


def folder(path, numbers) -> None:
    path.mkdir()
    for i in numbers:
        (path / f"{i:05d}.jpg").write_bytes(jpeg(i))
        (path / f"{i:05d}.cls").write_text(str(i))


# What is loaded -> the samples of then, found in it. (source then, source now, how they are selected)
NAMED = {
    "ids of appended shards": ("then", "shards", {"select": range(N)}),
    "keys": ("then", "shards", {"select": keys(N)}),
    "keys left out": ("then", "shards", {"exclude": [f"{i:05d}" for i in range(N, N + 7)]}),
    "a function": ("then", "shards", {"select": lambda row: row.key < f"{N:05d}"}),
    "a pattern": ("then", "shards/{000..002}.tar", {}),
    "keys among scattered shards": ("then", "scattered", {"select": keys(N)}),
    "a tar that grew": ("before", "tar", {"select": range(N)}),
    "keys of a tar that grew": ("before", "tar", {"select": keys(N)}),
    "a folder that grew": ("folder then", "folder", {"select": keys(N)}),
}


@pytest.mark.parametrize("arguments", [{}, {"window": 3}], ids=str)
@pytest.mark.parametrize("how", NAMED)
def test_what_was_there_then_goes_on_at_every_step_on_every_world(cases, data, how, arguments):
    then, now, selection = NAMED[how]
    sizes = all_sizes((2,), ["partial"], (1, 2))
    made = maker(str(data / then), **arguments), maker(str(data / now), **arguments, **selection)
    cases("elastic", assert_elastic(made[0], keys(N), sizes, sizes, made[1]))


@pytest.mark.parametrize("last", LASTS)
def test_a_selection_resumes_as_a_whole_source_does(cases, data, last):
    chosen = [0, 1, 3, 5, 6, 7, 9]
    make_loader = maker(str(data / "shards"), select=chosen, exclude=["00006"])
    left = [f"{i:05d}" for i in chosen if i != 6]
    sizes = all_sizes((1, 2), [last], WORLDS[:3])
    cases("elastic", assert_elastic(make_loader, left, sizes, sizes))
    for one in sizes:
        cases("ends", assert_ends_of_epochs(make_loader, left, one))


def test_the_selected_samples_come_in_the_order_in_which_they_came_alone(data):
    for arguments in ({}, {"window": 3}, {"shuffle": False}):
        alone = labels(str(data / "then"), 1, seed=4, **arguments)
        among = labels(str(data / "scattered"), 1, seed=4, select=keys(N), **arguments)
        assert flat(alone) == flat(among)
        (then,), (now,) = ([*one.state_dict()["inventory"].values()] for one in (alone, among))
        assert alone.state_dict() == among.state_dict() and then == now


def test_data_that_was_appended_costs_a_state_nothing(data):
    then = labels(str(data / "then")).state_dict()
    assert labels(str(data / "shards"), select=keys(N)).state_dict() == then
    assert labels(str(data / "shards")).state_dict() != then


def resumed(source, then, **how) -> str:
    """What the refusal says to a state of `then`, which must be the same at each try."""
    state = labels(str(then), 2, **how).state_dict()
    loader = labels(source if isinstance(source, fl.Mixture) else str(source), 2)
    loader.load_state_dict(json.loads(json.dumps(state)))
    said = []
    for _ in range(2):
        with pytest.raises(CursorError) as caught:
            next(iter(loader))
        said.append(str(caught.value))
    assert said[0] == said[1] and "\n" not in said[0]
    start = "the checkpoint belongs to another order: it differs in source. "
    end = " Or start again without load_state_dict."
    assert said[0].startswith(start) and said[0].endswith(end)
    return said[0][len(start) : -len(end)]


def test_a_refusal_names_the_shards_that_were_appended_and_a_way_out_that_works(data):
    assert resumed(data / "shards", data / "then") == (
        "7 samples were added to the 10 of the checkpoint, in 003.tar, 004.tar. Pass select=range(10) to "
        "keep the previous samples, or name the source without the new shards."
    )
    first = labels(str(data / "then"), 2)
    next(iter(first))
    loader = labels(str(data / "shards"), 2, select=range(10))
    loader.load_state_dict(first.state_dict())
    assert len(flat(loader)) == 8


def test_a_refusal_names_shards_that_came_between(data):
    assert resumed(data / "scattered", data / "then") == (
        "It was saved with 10 samples in 3 shards, and this loader has 17 in 5. Added since: 000-.tar, "
        "001x.tar. To resume, name the source without the new shards, or let select= keep only the previous "
        "samples."
    )


def test_a_refusal_names_the_first_sample_that_was_appended_to_a_tar_or_a_folder(data):
    assert re.fullmatch(
        r"7 samples were added to the 10 of the checkpoint, the first of them 000\.tar: key '00010' at "
        r"byte \d+\. Pass select=range\(10\) to keep the previous samples\.",
        resumed(data / "tar", data / "before"),
    )
    assert resumed(data / "folder", data / "folder then") == (
        "7 samples were added to the 10 of the checkpoint, the first of them folder: key '00010'. Pass "
        "select=range(10) to keep the previous samples."
    )


def test_a_refusal_says_that_a_folder_grew_in_its_middle(data, tmp_path):
    shutil.copytree(data / "folder then", tmp_path / "d")
    shutil.copy(tmp_path / "d" / "00001.jpg", tmp_path / "d" / "00001b.jpg")
    assert resumed(tmp_path / "d", data / "folder then") == (
        "It was saved with 10 samples in 1 shards, and this loader has 11 in 1. Changed since: d. If "
        "select= or exclude= was different, restore it; if samples were added to a shard, let select= keep "
        "only the previous ones; a shard that was rewritten is different data."
    )


def test_a_refusal_tells_shards_that_changed_from_those_that_are_gone(data, tmp_path):
    shutil.copytree(data / "shards", tmp_path / "d")
    (tmp_path / "d" / "000.tar").unlink()
    shutil.copy(data / "more" / "000.tar", tmp_path / "d" / "001.tar")
    assert resumed(tmp_path / "d", data / "then") == (
        "It was saved with 10 samples in 3 shards, and this loader has 13 in 4. Added since: 003.tar, "
        "004.tar. Changed since: 001.tar. Removed since: 1 shards. If select= or exclude= was different, "
        "restore it; if samples were added to a shard, let select= keep only the previous ones; a shard that "
        "was rewritten is different data."
    )


def test_a_refusal_knows_shards_that_come_in_another_order(data):
    paths = [str(data / "then" / f"00{i}.tar") for i in (1, 0, 2)]
    state = labels(str(data / "then"), 2).state_dict()
    loader = labels(paths, 2)
    loader.load_state_dict(state)
    with pytest.raises(CursorError, match=r"The shards are in a different order\. Or start again"):
        next(iter(loader))


def test_a_refusal_of_a_mixture_names_the_source_that_grew(data):
    def mixed(source):
        return fl.Mixture({"cats": (str(source), 1), "dogs": (str(data / "before"), 1)}, 12)

    loader = labels(mixed(data / "shards"), 2)
    loader.load_state_dict(labels(mixed(data / "then"), 2).state_dict())
    with pytest.raises(
        CursorError,
        match=r"source 'cats'\. Source 'cats': 7 samples .* 003\.tar.*select=\{'cats': range\(10\)\}",
    ):
        next(iter(loader))
    chosen = labels(mixed(data / "shards"), 2, select={"cats": range(10)})
    chosen.load_state_dict(labels(mixed(data / "then"), 2).state_dict())
    assert len(flat(chosen)) == 12


def test_a_selection_that_grew_is_told_from_a_source_that_grew(data):
    state = labels(str(data / "shards"), 2, select=range(N)).state_dict()
    loader = labels(str(data / "shards"), 2, select=range(N + 2))
    loader.load_state_dict(state)
    with pytest.raises(CursorError, match=r"Let select= keep no id above 9, the last one"):
        next(iter(loader))


@pytest.mark.parametrize("selection", [{"exclude": ["00003"]}, {"select": range(2, 17), "exclude": [4, 12]}])
def test_the_way_out_beside_another_selection_works(data, selection):
    then = labels(str(data / "then"), 2, exclude=["00003"] if "select" not in selection else [0, 1, 4])
    stream = iter(then)
    next(stream)
    loader = labels(str(data / "shards"), 2, **selection)
    loader.load_state_dict(then.state_dict())
    with pytest.raises(CursorError) as caught:
        next(iter(loader))
    last = int(re.search(r"Let select= keep no id above (\d+), ", str(caught.value))[1])
    chosen = [i for i in selection.get("select", range(17)) if i <= last]
    again = labels(str(data / "shards"), 2, **selection | {"select": chosen})
    again.load_state_dict(then.state_dict())
    assert [flat([batch]) for batch in again] == [flat([batch]) for batch in stream]


def test_what_was_added_to_the_last_shard_and_behind_it_is_told_by_its_first_sample(data, tmp_path):
    shutil.copytree(data / "then", tmp_path / "d")
    write(tmp_path / "longer", (sample(i) for i in range(8, 12)), 100)
    shutil.copy(tmp_path / "longer" / "000.tar", tmp_path / "d" / "002.tar")
    shutil.copy(data / "more" / "000.tar", tmp_path / "d" / "003.tar")
    said = resumed(tmp_path / "d", data / "then")
    assert "6 samples were added to the 10 of the checkpoint, the first of them 002.tar: key '00010'" in said
    assert said.endswith("Pass select=range(10) to keep the previous samples.")


def test_many_shards_leave_the_state_small_and_what_was_appended_is_told_all_the_same(tmp_path, monkeypatch):
    from fastload.shards import inventory

    write_shards(tmp_path / "d", N, 2)
    monkeypatch.setattr(inventory, "MAX_LISTED", 3)
    then = labels(str(tmp_path / "d" / "{000..003}.tar")).state_dict()
    assert then["inventory"] == {"": [8, 4, ""]}
    loader = labels(str(tmp_path / "d"))
    loader.load_state_dict(then)
    with pytest.raises(
        CursorError, match=r"2 samples were added to the 8 of the checkpoint, in 004\.tar\. Pass s"
    ):
        next(iter(loader))


def test_a_new_class_folder_that_changes_what_labels_mean_is_refused(tmp_path):
    for name in ("cat", "dog"):
        folder(tmp_path / name, range(3))
        for one in (tmp_path / name).glob("*.cls"):
            one.unlink()
    then = labels(str(tmp_path))
    state, were = then.state_dict(), flat(then)
    kept = [f"{name}/{i:05d}" for name in ("cat", "dog") for i in range(3)]
    shutil.copytree(tmp_path / "dog", tmp_path / "zebra")
    same = labels(str(tmp_path), select=kept)
    same.load_state_dict(state)
    assert flat(same) == were
    shutil.copytree(tmp_path / "dog", tmp_path / "ape")
    other = labels(str(tmp_path), select=kept)
    other.load_state_dict(state)
    with pytest.raises(
        CursorError, match=r"differs in classes\. .*fl\.Files\(paths, labels, classes\) keeps"
    ):
        next(iter(other))
    unlabelled = fl.Loader(str(tmp_path), 4, {"image": fl.Image(size=8)}, select=kept)
    unlabelled.load_state_dict(state)
    with pytest.warns(UserWarning, match="image fields"):
        assert len(next(iter(unlabelled))["image"]) == 4


def test_a_class_without_samples_changes_nothing(tmp_path):
    for name in ("b", "c", "d"):
        folder(tmp_path / name, range(3 * (name != "c")))
        for one in (tmp_path / name).glob("*.cls"):
            one.unlink()
    loader = labels(str(tmp_path))
    state = loader.state_dict()
    (tmp_path / "d" / "zz.jpg").write_bytes(jpeg(9))
    (tmp_path / "z").mkdir()
    grown = labels(str(tmp_path), select=range(6))
    grown.load_state_dict(state)
    assert flat(grown) == flat(loader)


def test_classes_of_a_folder_without_selected_samples_do_not_count(tmp_path):
    for name in ("one/cat", "one/dog", "two/owl"):
        (tmp_path / name).mkdir(parents=True)
        for i in range(2):
            (tmp_path / name / f"{i:05d}.jpg").write_bytes(jpeg(i))
    both = [str(tmp_path / "one"), str(tmp_path / "two")]
    with pytest.raises(fl.ConfigError, match="have different classes"):
        next(iter(labels(both)))
    assert sorted(flat(labels(both, 1, select=range(4)))) == [0, 0, 1, 1]


def test_ids_in_batches_are_what_select_and_exclude_take(data):
    everything = {key: i for i, key in enumerate(keys(N + 7))}
    loader = labels(str(data / "shards"), 3, select=range(3, 12), exclude=["00005"], last="partial")
    seen = {}
    for batch in loader:
        assert batch["__id__"].dtype.is_signed and batch["__id__"].shape == batch["__position__"].shape
        seen |= dict(zip(batch["__key__"], batch["__id__"].tolist(), strict=True))
    assert seen == {key: everything[key] for key in keys(12)[3:] if key != "00005"}
    again = labels(str(data / "shards"), 8, select=[*seen.values()])
    assert sorted(next(iter(again))["__key__"]) == sorted(seen)
    mixture = fl.Mixture({"a": (str(data / "then"), 1), "b": (str(data / "before"), 1)}, 20)
    for batch in labels(mixture, 4, select={"b": [7, 8]}):
        for key, source, one in zip(
            batch["__key__"], batch["__source__"], batch["__id__"].tolist(), strict=True
        ):
            assert everything[key] == one and (source == "a" or one in (7, 8))
    sampled = labels(str(data / "shards"), 2, select=range(5, 10), sampler=[0, 4])
    assert next(iter(sampled))["__id__"].tolist() == [5, 9]
    assert fl.Dataset(str(data / "shards"), {"label": fl.Int("cls")}, select=[6])[0]["__id__"] == 6


def test_a_fingerprint_is_of_the_selected_rows_alone(data, tmp_path):
    def opened(source, **selection):
        return open_dataset(str(data / source), cache_dir=tmp_path, **selection).fingerprint

    for then, now, selection in NAMED.values():
        assert opened(then) == opened(now, **selection) != opened(now, select=range(N - 1))
    assert opened("then", select=[0, 1]) != opened("then", select=[0, 2])
    assert opened("folder", select=[0, 1]) == opened("folder then", select=[0, 1])


def test_files_with_other_spellings_and_extensions_leave_the_fingerprint_of_the_others(data, tmp_path):
    shutil.copytree(data / "folder then", tmp_path / "d")
    for name in ("00000b.JPG", "zz.png", "zz.txt"):
        (tmp_path / "d" / name).write_bytes(jpeg(3))
    (tmp_path / "d" / "00001.Json").write_text("{}")
    then = open_dataset(str(data / "folder then"), cache_dir=tmp_path / "cache", exclude=["00001"])
    others = [key for key in keys(N) if key != "00001"]
    now = open_dataset(str(tmp_path / "d"), cache_dir=tmp_path / "cache", select=others)
    assert now.fingerprint == then.fingerprint and now.n == N - 1


# States of 0.1.0 after two batches of two of these ten samples, in shards of four, and what came after them.
OLD = {
    "plain": ({}, {"seed": 0, "plan": "global/1", "window": None}, None, [[4, 5], [0, 2], [6, 3]]),
    "window": (
        {"window": 3, "seed": 5},
        {"seed": 5, "plan": "windowed/1 lanes=64", "window": 3},
        None,
        [[0, 1], [2, 3], [8, 9]],
    ),
    "keys left out": (
        {"exclude": ["00001", "00008"]},
        {"seed": 0, "plan": "global/1", "window": None},
        "892bfa73497d65c3",
        [[5, 6], [0, 3]],
    ),
    "ids": (
        {"select": [1, 2, 3, 8, 9]},
        {"seed": 0, "plan": "global/1", "window": None},
        "9257c44f7adbe9d3",
        [],
    ),
}


def old_state(order: dict, selection, position: int = 4) -> dict:
    order = order | {"source": "bd0c6c023b35dd38", "selection": selection}
    return {"version": 2, "epoch": 0, "position": position, "order": order, "pixels": {}, "mixture": None}


@pytest.fixture(scope="module")
def old_data(tmp_path_factory):
    root = tmp_path_factory.mktemp("old")
    write(root / "d", ({"__key__": f"{i:05d}", "cls": i} for i in range(N)), 4)
    return root / "d"


@pytest.mark.parametrize("how", OLD)
def test_a_state_of_0_1_0_goes_on(old_data, how):
    arguments, order, selection, rest = OLD[how]
    loader = labels(str(old_data), 2, **arguments)
    state = old_state(order, selection)
    loader.load_state_dict(state)
    assert loader.state_dict() == state
    assert [batch["label"].tolist() for batch in loader] == rest
    assert loader.state_dict()["version"] == 3


def test_a_state_of_0_1_0_of_other_data_or_another_selection_is_refused(old_data, data):
    state = old_state({"seed": 0, "plan": "global/1", "window": None}, None)
    for loader in (labels(str(old_data), 2, select=range(9)), labels(str(data / "then"), 2)):
        loader.load_state_dict(state)
        with pytest.raises(
            CursorError, match=r"it differs in source\. Restore what differs\. Or start again"
        ):
            next(iter(loader))


def test_a_state_of_0_1_0_whose_order_counted_unused_shards_is_refused_with_the_reason(old_data):
    order = {"seed": 0, "plan": "windowed/1 lanes=64", "window": 2}
    loader = labels(str(old_data), 2, select=[0, 1, 2, 8, 9], window=2)
    loader.load_state_dict(old_state(order, "33457a681d391c91"))
    with pytest.raises(
        CursorError, match=r"saved by fastload 0\.1\.0 with window=.* Continue with 0\.1\.0, or"
    ):
        next(iter(loader))


def test_a_state_of_0_1_0_of_a_mixture_goes_on(old_data):
    shares = [290594304000000, 290594304000000]
    order = {
        "seed": 0,
        "plan": "mixture/1 of global/1",
        "window": None,
        "epoch_samples": 8,
        "source 'a'": "bd0c6c023b35dd38",
        "selection 'a'": "acb325ec0a137d15",
        "source 'b'": "c5a2843328d4dbe4",
        "selection 'b'": None,
    }
    mixture = {
        "now": {"shares": shares, "given": [2, 2], "owed": [0, 0]},
        "epoch": {"shares": shares, "given": [0, 0], "owed": [0, 0]},
        "made_with": shares,
    }
    state = {"version": 2, "epoch": 0, "position": 4, "order": order, "pixels": {}, "mixture": mixture}
    sources = {"a": (str(old_data), 1), "b": (str(old_data / "000.tar"), 1)}
    loader = labels(fl.Mixture(sources, 8), 2, select={"a": [0, 1, 2, 5, 6]})
    loader.load_state_dict(state)
    assert [batch["label"].tolist() for batch in loader] == [[1, 0], [0, 3]]
