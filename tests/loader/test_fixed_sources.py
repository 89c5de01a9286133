"""What is given to a loader is fixed then: relative paths, lists and arrays, wherever the program goes."""

import os
import pickle

import numpy as np
import pytest

import fastload as fl
from fastload.errors import SourceError
from fastload.shards.source import Source, find_containers
from tests.loader.samples import flat, jpeg, labels, write_shards

FIELDS = {"label": fl.Int("cls")}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with 5 samples in d/000.tar; elsewhere/d/000.tar has 2."""
    write_shards(tmp_path / "d", 5, 5)
    write_shards(tmp_path / "elsewhere" / "d", 2, 5)
    monkeypatch.chdir(tmp_path)
    return tmp_path


SOURCES = {
    "a folder": lambda: "d",
    "a shard": lambda: "./d/000.tar",
    "a glob": lambda: "d/*.tar",
    "braces": lambda: "{d,}/{000..000}.tar".replace("{d,}", "d"),
    "a path above": lambda: os.path.join("..", os.path.basename(os.getcwd()), "d"),
    "a list": lambda: ["d/000.tar"],
    "a generator": lambda: (name for name in ["d/000.tar"]),
}


@pytest.mark.parametrize("away", ["elsewhere", "/"])
@pytest.mark.parametrize("kind", SOURCES)
def test_a_relative_source_is_the_one_of_where_the_loader_was_made(here, monkeypatch, kind, away):
    loader, dataset = labels(SOURCES[kind](), 1), fl.Dataset(SOURCES[kind](), FIELDS)
    mixture = fl.Mixture({"one": (SOURCES[kind](), 1)}, 5)
    away = here / away
    monkeypatch.chdir(away)
    copies = [pickle.loads(pickle.dumps(one)) for one in (loader, dataset, mixture)]
    assert sorted(flat(loader)) == sorted(flat(copies[0])) == list(range(5))
    for one in (dataset, copies[1]):
        assert len(one) == 5 and len(flat(fl.DataLoader(one, 1))) == 5
    for one in (mixture, copies[2]):
        assert sorted(flat(labels(one, 1))) == list(range(5))


def test_a_list_of_files_is_the_one_of_where_it_was_made(here, monkeypatch):
    for folder in (here, here / "elsewhere"):
        (folder / "pictures").mkdir()
        for i in range(3):
            (folder / "pictures" / f"{i}.jpg").write_bytes(jpeg(i + 10 * (folder != here)))
    files = fl.Files([f"pictures/{i}.jpg" for i in range(3)], labels=[4, 5, 6])
    monkeypatch.chdir(here / "elsewhere")
    for one in (files, pickle.loads(pickle.dumps(files))):
        bytes_of = {"bytes": fl.Bytes("jpg")}
        (batch,) = fl.Loader(one, 3, bytes_of, shuffle=False)
        assert batch["bytes"] == [jpeg(i) for i in range(3)]
    with pytest.raises(SourceError, match=r"^0\.jpg, .*does not exist in .*elsewhere"):
        len(fl.Dataset(fl.Files(["0.jpg"]), bytes_of))


def test_messages_and_repr_name_a_source_as_it_was_given(here, monkeypatch):
    loader = labels(["d/000.tar", "gone.tar"])
    assert "['d/000.tar', 'gone.tar']" in repr(loader)
    monkeypatch.chdir("/")
    with pytest.raises(SourceError, match=rf"^gone\.tar: no such file or folder in {here}\. Correct"):
        next(iter(loader))
    with pytest.raises(SourceError, match=r"^\*\.zip: nothing matches this pattern in /"):
        next(iter(labels("*.zip")))
    monkeypatch.chdir(here)
    source, dataset = Source("d"), fl.Dataset(["d"], FIELDS)
    monkeypatch.chdir("/")
    assert (repr(source), str(source), os.fspath(source)) == ("'d'", "d", "d") and dataset.source == ["d"]
    assert source == Source("d", folder=str(here)) != Source("d") and len({source, Source("d")}) == 2
    assert [one.name for one in find_containers(Source("d", folder=str(here)))] == ["000.tar"]


def test_a_folder_with_the_signs_of_patterns_in_its_name_is_taken_as_it_is(tmp_path, monkeypatch):
    odd = tmp_path / "run[1]{a,b}*"
    write_shards(odd / "d", 5, 5)
    monkeypatch.chdir(odd)
    loader = labels("d/*.tar", 1)
    monkeypatch.chdir("/")
    assert len(flat(loader)) == 5


@pytest.mark.parametrize("empty", ["", [""], ("d", "")])
def test_an_empty_path_is_not_the_current_folder(here, empty):
    with pytest.raises(
        SourceError, match=r"the source is an empty path \(''\)\. .*the current folder is '\.'"
    ):
        labels(empty)
    with pytest.raises(
        SourceError, match=r"Mixture\(sources=\.\.\.\): 'a': the source is an empty path \(''\)"
    ):
        fl.Mixture({"a": (empty, 1)}, 4)
    with pytest.raises(fl.ConfigError, match=r"got bytes \(b'd'\)"):
        labels(b"d")


def test_a_path_above_a_link_is_the_one_that_open_means(here):
    write_shards(here / "far" / "away", 3, 5)
    write_shards(here / "far" / "d", 4, 5)
    (here / "link").symlink_to(here / "far" / "away")
    assert len(flat(labels("link/../d", 1))) == len(flat(labels("link/../d/000.tar", 1))) == 4
    assert len(flat(labels("link/..//d/*.tar", 1))) == 4
    assert len(flat(labels("far/away/../../d", 1))) == 5


def test_a_long_list_has_a_short_repr(here):
    assert len(repr(fl.Dataset([f"{i}.tar" for i in range(1000)], FIELDS))) < 400


def test_a_relative_path_without_a_current_folder_is_refused(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for make in (lambda: labels("d"), lambda: fl.Files(["a.jpg"]), lambda: labels("/d", exclude="bad.txt")):
        with pytest.raises(SourceError, match=r"relative.* no current folder .*Use"):
            make()
    write_shards(tmp_path / "d", 3, 3)
    assert len(flat(labels(str(tmp_path / "d"), 1))) == 3


def test_a_relative_cache_is_the_one_of_where_the_first_loader_was_made(here, monkeypatch):
    from fastload import backends

    monkeypatch.setenv("FASTLOAD_CACHE", f"cache of {here.name}")
    loader = labels("d", 1)
    monkeypatch.chdir(here / "elsewhere")
    assert len(flat(loader)) == 5
    assert (here / f"cache of {here.name}" / "index").is_dir()
    assert backends.cache_dir() == here / f"cache of {here.name}"


def test_the_ledger_that_a_run_writes_is_no_list_of_what_it_leaves_out(here):
    (here / "bad.jsonl").write_text("")
    with pytest.raises(fl.ConfigError, match=r"exclude='bad\.jsonl' is the ledger that this run writes"):
        labels("d", exclude="bad.jsonl", ledger="bad.jsonl")
    assert len(flat(labels("d", 1, exclude="bad.jsonl", ledger="other.jsonl"))) == 5


def test_who_changes_his_list_afterwards_changes_no_training_set(here):
    write_shards(here / "e", 3, 5)
    sources, ids = ["d/000.tar", "e/000.tar"], [0, 1, 2, 6]
    mine = np.array(ids)
    entry = ["e/000.tar", 1.0]
    mixture = fl.Mixture({"d": ([*sources[:1]], 1.0), "e": entry}, 8)
    made = {
        "sources": labels(sources, 1),
        "ids": labels(sources, 1, select=ids),
        "array": labels(sources, 1, exclude=mine),
        "dataset": fl.DataLoader(fl.Dataset(sources, FIELDS, select=ids), 1),
        "normalize": fl.Dataset(sources, FIELDS, normalize=(mean := [0.5, 0.5, 0.5], [0.5] * 3)),
    }
    value, document = np.zeros(2), {"a": [1]}
    fields = {"value": fl.Tensor("npy", default=value), "document": fl.Json(default=document)}
    sources.pop(), ids.clear(), mine.fill(7), value.fill(9), document["a"].pop()
    entry[0] = "gone"
    mean[0] = 0.0
    assert len(flat(made["sources"])) == 8
    assert len(flat(made["ids"])) == len(flat(made["dataset"])) == 4
    assert len(flat(made["array"])) == 4
    assert made["normalize"].options["normalize"][0][0] == 0.5
    assert len(flat(labels(mixture, 1))) == 8
    assert fields["value"].default.tolist() == [0, 0] and fields["document"].default == {"a": [1]}
