"""Bad samples are listed in a ledger, once each, with where they lie and why; warned of once."""

import json
import warnings

import pytest

import fastload as fl
from fastload.errors import FunctionError, SampleError
from fastload.read import ledger as ledger_module
from fastload.shards.ledger_lines import read_ledger
from tests.loader.bad_samples import BAD, N, samples
from tests.loader.samples import flat, jpeg, pictures, write

pytestmark = pytest.mark.filterwarnings("ignore:a bad sample was replaced")


def test_the_ledger_says_where_each_bad_sample_lies_and_why(tmp_path):
    source = write(tmp_path, samples(), per_shard=10)
    path = tmp_path / "bad.jsonl"
    made = pictures(source, 4, shuffle=False, ledger=path)
    list(made)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    first = {line["sample_id"]: line for line in lines if line["attempt"] == 0}
    assert set(first) == set(BAD)
    for i, line in first.items():
        row = made.dataset.row(i)
        assert line["position"] == i and line["rank"] == 0 and line["field"] == "image"
        assert (line["shard"], line["key"]) == (row.container, row.key) == (f"{i // 10:03d}.tar", f"{i:05d}")
        with open(tmp_path / line["shard"], "rb") as shard:
            shard.seek(line["offset_bytes"])
            size = row.extensions["jpg"][1]
            assert shard.read(size) == (jpeg(i)[:-150] if BAD[i] == "cut" else BAD[i])
        assert line["reason"] and len(line["reason"]) <= ledger_module.MAX_REASON
    assert "the file is empty" in first[3]["reason"]
    assert "404" in first[7]["reason"]


def test_the_offset_is_that_of_the_field_or_of_the_sample_where_it_lacks_the_field(tmp_path):
    written = list(samples({}))
    written[2]["txt"] = b"\xff"
    del written[4]["txt"]
    made = fl.Loader(
        write(tmp_path, written), 4, {"image": fl.Image(size=8), "text": fl.Text()}, shuffle=False
    )
    list(made)
    offsets = {line["sample_id"]: line["offset_bytes"] for line in read_ledger(made._ledger.path).entries}
    starts = [{name: start for name, (start, _) in made.dataset.row(i).extensions.items()} for i in (2, 4)]
    assert offsets[2] == starts[0]["txt"] > min(starts[0].values())
    assert offsets[4] == min(starts[1].values())


def test_what_was_prefetched_and_not_delivered_is_not_in_the_ledger(tmp_path):
    source = write(tmp_path, samples({9: b"", 10: b""}))
    made = pictures(source, 2, shuffle=False, prefetch=9, ledger=tmp_path / "bad.jsonl")
    run = iter(made)
    for _ in range(4):
        next(run)
    run.close()
    assert not (tmp_path / "bad.jsonl").exists() and made.stats()["bad_samples"] == 0
    made.load_state_dict(made.state_dict())
    with pytest.warns(UserWarning, match="a bad sample was replaced"):
        list(made)
    assert [
        line["sample_id"] for line in read_ledger(tmp_path / "bad.jsonl").entries if not line["attempt"]
    ] == [
        9,
        10,
    ]


def test_the_first_bad_sample_is_warned_of_and_the_others_are_not(tmp_path):
    made = pictures(write(tmp_path, samples()), 4, shuffle=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(made)
        list(made)
    (warning,) = caught
    text = str(warning.message)
    assert "000.tar: key '00003' at byte" in text and "the file is empty" in text
    assert f"further ones are listed in {made._ledger.path}" in text
    assert warning.filename == __file__


def test_ranks_have_ledgers_of_their_own_which_are_read_together(tmp_path):
    source = write(tmp_path / "shards", samples())
    path = tmp_path / "odd [name]*.jsonl"
    for rank in range(3):
        list(pictures(source, 2, rank=rank, world_size=3, ledger=path, last="partial"))
    files = sorted(one.name for one in tmp_path.glob("odd*"))
    assert files == [f"odd [name]*.rank{rank}.jsonl" for rank in range(3)]
    assert {line["sample_id"] for line in read_ledger(path).entries if not line["attempt"]} == set(BAD)
    with pytest.raises(fl.ConfigError, match="no such ledger"):
        read_ledger(tmp_path / "other.jsonl")
    (tmp_path / "no.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(fl.ConfigError, match=r"no\.jsonl is not a ledger: none of its 1 lines is valid"):
        read_ledger(tmp_path / "no.jsonl")


def test_a_ledger_that_cannot_be_written_stops_nothing(tmp_path):
    source = write(tmp_path / "shards", samples())
    (tmp_path / "file").write_text("not a folder")
    made = pictures(source, 4, ledger=tmp_path / "file" / "bad.jsonl")
    with pytest.warns(UserWarning, match=r"the ledger .*bad.jsonl cannot be written \(.*\): bad samples are"):
        assert len(flat(made)) == N
    assert made.stats()["bad_samples"] >= len(BAD)


def test_a_ledger_does_not_grow_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_module, "MAX_BYTES", 900)
    source = write(tmp_path / "shards", samples())
    path = tmp_path / "bad.jsonl"
    made = pictures(source, 1, shuffle=False, ledger=path, epochs=20, max_bad_fraction=1)
    list(made)
    sizes = [one.stat().st_size for one in (path, tmp_path / "bad.jsonl.old")]
    assert max(sizes) < 1800 and min(sizes) > 0
    lines = read_ledger(path)
    assert lines.damaged == 0 and lines.entries[-1]["position"] == 19 * N + 20


def test_a_line_that_was_cut_costs_that_line_only(tmp_path):
    path = tmp_path / "bad.jsonl"
    list(pictures(write(tmp_path / "shards", samples()), 4, shuffle=False, ledger=path))
    lines = path.read_bytes().splitlines(keepends=True)
    odd = [b"\xff\xfe\n", b"[1]\n", b'{"sample_id": null}\n', lines[1][: len(lines[1]) // 2]]
    path.write_bytes(b"".join([lines[0], *odd[:3], *lines[2:], odd[3]]))
    found = read_ledger(path)
    assert (len(found.entries), found.damaged) == (len(lines) - 1, 4)
    with pytest.raises(fl.ConfigError, match="no such ledger"):
        read_ledger(tmp_path)


def test_a_ledger_stays_one_file_wherever_the_program_goes(tmp_path, monkeypatch):
    source = [str(path) for path in write(tmp_path / "shards", samples())]
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    monkeypatch.setenv("HOME", str(tmp_path))
    made = pictures(source, 4, shuffle=False, ledger="bad.jsonl")
    monkeypatch.chdir(tmp_path / "two")
    list(made)
    assert (tmp_path / "one" / "bad.jsonl").exists() and list((tmp_path / "two").iterdir()) == []
    assert pictures(source, ledger="~/x.jsonl")._config.ledger == str(tmp_path / "x.jsonl")


def test_a_ledger_follows_the_world_and_its_counts_go_on(tmp_path, monkeypatch):
    source = write(tmp_path / "shards", samples())
    made = pictures(source, 2, shuffle=False, ledger=tmp_path / "bad.jsonl", last="partial")
    list(made)
    before = made.stats()["bad_samples"]
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    list(made)
    assert made.stats()["bad_samples"] > before == len(BAD)
    other = [json.loads(line) for line in (tmp_path / "bad.rank1.jsonl").read_text().splitlines()]
    assert {line["rank"] for line in other} == {1}


def test_a_warning_that_is_made_an_error_stops_once_and_counts_right(tmp_path):
    made = pictures(
        write(tmp_path, samples({2: b"", 3: b""})), 1, shuffle=False, ledger=tmp_path / "bad.jsonl"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="a bad sample was replaced"):
            list(made)
        made.load_state_dict(made.state_dict())
        assert len(flat(made)) == N - 2  # it goes on at the batch that was not delivered
    assert made.stats()["bad_samples"] == 3


def test_an_error_is_not_hidden_by_a_ledger_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    source = write(tmp_path / "shards", samples({i: b"broken" for i in range(N)}))
    made = pictures(source, 1, shuffle=False, ledger=tmp_path / "file" / "bad.jsonl")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SampleError, match="all 8 replacement samples"):
            next(iter(made))


def test_no_ledger_where_there_is_nothing_to_list(tmp_path):
    source = write(tmp_path / "shards", samples({}))

    def mistaken(content):
        raise KeyError(content)

    made = fl.Loader(source, 4, {"text": fl.Custom("txt", mistaken)}, ledger=tmp_path / "bad.jsonl")
    with pytest.raises(FunctionError):
        list(made)
    assert not (tmp_path / "bad.jsonl").exists()


def test_no_ledger_where_none_is_wanted(tmp_path):
    source = write(tmp_path / "shards", samples())
    made = pictures(source, 4, ledger=None)
    with pytest.warns(UserWarning, match=r"further ones are counted in stats\(\)"):
        list(made)
    assert made._ledger.path is None and made.stats()["bad_samples"] >= len(BAD)
