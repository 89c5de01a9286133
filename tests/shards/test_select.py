"""select= and exclude=: ids, keys, shard:key, arrays, functions and files; and copies of what was given.

Covers keys.py.
"""

import json

import numpy as np
import pytest
import torch

from fastload.errors import ConfigError, FunctionError
from fastload.shards.dataset import open_dataset
from fastload.shards.files import Files
from fastload.shards.mixture import Mixture, open_mixture
from fastload.shards.select import fixed
from tests.loader.samples import jpeg, sample, write


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """a/000.tar and b/000.tar, with samples 00000 to 00003 each; c/001.tar, with 00009 and "x:00001"."""
    folder = tmp_path_factory.mktemp("tree")
    for name in "ab":
        write(folder / name, (sample(i) for i in range(4)))
    odd = [sample(9), {**sample(1), "__key__": "x:00001"}]
    write(folder / "c", odd)
    (folder / "c" / "000.tar").rename(folder / "c" / "001.tar")
    return folder


@pytest.fixture
def kept(tree, tmp_path):
    """The rows that a selection of the three shards keeps."""

    def rows(**selection) -> list[int]:
        dataset = open_dataset(str(tree / "*" / "*.tar"), cache_dir=tmp_path / "cache", **selection)
        return dataset.rows_of(np.arange(dataset.n)).tolist()

    return rows


ALL = list(range(10))


def without(*rows: int) -> list[int]:
    return [row for row in ALL if row not in rows]


@pytest.mark.parametrize(
    ("selection", "rows"),
    [
        ([3, 0], [0, 3]),
        (range(2, 5), [2, 3, 4]),
        (np.array([5, 1], np.uint8), [1, 5]),
        (torch.tensor([5, 1]), [1, 5]),
        ((i for i in (5, 1)), [1, 5]),
        (["00002"], [2, 6]),
        ({"00002", "00009"}, [2, 6, 8]),
        (np.array(["00002", "00009"]), [2, 6, 8]),
        (np.array(["00002", "00009"], object), [2, 6, 8]),
        (["a/000.tar:00002"], [2]),
        (["001.tar:00009", "b/000.tar:00003"], [7, 8]),
        (["x:00001"], [9]),  # a key, though it has a colon
        (["001.tar:x:00001"], [9]),
        (lambda row: row.container == "b/000.tar" and row.id != 5, [4, 6, 7]),
    ],
)
def test_exclude_leaves_out_exactly_the_samples_that_select_keeps(kept, selection, rows):
    if not callable(selection):
        selection = fixed("select", selection)  # a generator can be asked once
    assert kept(select=selection) == rows
    assert kept(exclude=selection) == without(*rows)


def test_exclude_has_the_last_word(kept):
    assert kept(select=["00002", "00003"], exclude=["a/000.tar:00002"]) == [3, 6, 7]
    assert kept(select=range(4), exclude=lambda row: row.key > "00001") == [0, 1]
    with pytest.raises(ConfigError, match="select and exclude leave none of the 10 samples"):
        kept(select=["00002"], exclude=["00002"])


def test_an_empty_list_leaves_nothing_out(kept):
    assert kept(exclude=[]) == ALL == kept(exclude=np.array([], np.int64))


def test_a_shard_may_be_called_by_its_absolute_path(kept, tree):
    assert kept(select=[f"{tree}/b/000.tar:00003", "./a/000.tar:00000"]) == [0, 7]


def test_a_shard_name_that_two_have_is_refused_where_both_have_the_key(kept, tree):
    with pytest.raises(ConfigError) as caught:
        kept(select=["000.tar:00002"])
    may_be = f"is ambiguous: it may be in {tree}/a/000.tar or in {tree}/b/000.tar. Give more of the path."
    assert str(caught.value) == f"select: '000.tar:00002' {may_be}"


@pytest.mark.parametrize("wrong", ["absent", "000.tar:00009", "00.tar:00002", "d/000.tar:00002", ":00002"])
@pytest.mark.parametrize("argument", ["select", "exclude"])
def test_a_key_that_no_sample_has_is_refused(kept, argument, wrong):
    with pytest.raises(ConfigError, match=f"{argument} has 1 keys that no sample has, the first '{wrong}'"):
        kept(**{argument: ["00001", wrong]})


def ledger_line(shard: str, key: str, **more) -> str:
    whole = {
        "position": 1,
        "attempt": 0,
        "sample_id": 2,
        "offset_bytes": 0,
        "field": "image",
        "reason": "cut",
    }
    return json.dumps(whole | {"shard": shard, "key": key} | more) + "\n"


def test_a_name_that_is_a_shards_own_is_not_that_of_one_whose_path_ends_so(tmp_path):
    for folder in ("d", "d/b"):
        write(tmp_path / folder, [sample(3)])
    dataset = open_dataset(
        str(tmp_path / "d" / "**" / "*.tar"), cache_dir=tmp_path / "cache", select=["000.tar:00003"]
    )
    assert dataset.n == 1 and dataset.row(0).container == "000.tar"


def test_a_file_in_two_lists_is_left_out_of_both(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg(i))
    lists = [Files([str(tmp_path / f"{i}.jpg") for i in some]) for some in ((0, 1), (1, 2, 1))]
    dataset = open_dataset(lists, cache_dir=tmp_path / "cache", exclude=[f"{tmp_path.name}:1"])
    assert dataset.keys(np.arange(dataset.n)) == ["0", "2"]


def test_exclude_takes_a_file_of_keys(kept, tmp_path):
    listed = tmp_path / "bad.txt"
    listed.write_text("a/000.tar:00002\r\n\n00009\nb/000.tar:00000\n")
    assert kept(exclude=str(listed)) == kept(exclude=listed) == without(2, 4, 8)
    listed.write_text("")
    assert kept(exclude=listed) == ALL
    listed.write_text("00001\nabsent\n")
    with pytest.raises(ConfigError, match=r"exclude='.*bad\.txt' has 1 keys that no sample has"):
        kept(exclude=listed)


def test_exclude_takes_the_ledger_of_a_training_run(kept, tmp_path):
    listed = tmp_path / "bad.jsonl"
    lines = [ledger_line("a/000.tar", "00002"), ledger_line("c/001.tar", "x:00001")]
    listed.write_text(lines[0] + '{"shard": "a/000.tar", "key"\n' + lines[1])  # a crash has cut one
    assert kept(exclude=listed) == without(2, 9)
    listed.write_text('{"shard": "a/000.tar", "key"\n')
    with pytest.raises(ConfigError, match=r"is not a ledger: none of its 1 lines is valid"):
        kept(exclude=listed)


def test_exclude_takes_the_ledgers_of_all_ranks(kept, tmp_path):
    for rank, line in enumerate([ledger_line("a/000.tar", "00002"), ledger_line("c/001.tar", "x:00001")]):
        (tmp_path / f"bad.rank{rank}.jsonl").write_text(line)
    assert kept(exclude=tmp_path / "bad.jsonl") == without(2, 9)
    (tmp_path / "bad.jsonl").write_text(ledger_line("b/000.tar", "00000"))
    assert kept(exclude=tmp_path / "bad.jsonl") == without(2, 4, 9)


def test_a_file_of_keys_that_is_not_there_or_cannot_be_read_is_an_error(kept, tmp_path):
    with pytest.raises(ConfigError, match=r"exclude='00001': there is no file .*exclude=\['00001'\]"):
        kept(exclude="00001")
    with pytest.raises(ConfigError, match=r"it is a folder\. Give a file of keys"):
        kept(exclude=tmp_path)
    with pytest.raises(ConfigError, match=r"exclude='': give ids, keys or a file"):
        kept(exclude="")
    with pytest.raises(ConfigError, match="NUL byte"):
        kept(exclude="a\0b")


@pytest.mark.parametrize("content", [b'["00001", "00002"]', b"\x93NUMPY\0\0\0", b"[" * 100_000])
def test_a_file_that_is_not_a_list_of_keys_is_refused_at_once(kept, tmp_path, content):
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(ConfigError, match="not a list of keys: ") as caught:
        kept(exclude=tmp_path / "bad")
    assert len(str(caught.value)) < 400


def test_a_long_text_with_many_colons_is_not_a_key_and_is_shortened_in_the_error(kept):
    for length in (100, 4_000, 500_000):
        with pytest.raises(ConfigError, match="select has 1 keys that no sample has") as caught:
            kept(select=["a:" * length])
        assert len(str(caught.value)) < 500


def test_a_key_that_no_encoding_has_is_a_key_that_no_sample_has(kept):
    with pytest.raises(ConfigError, match="select has 1 keys that no sample has"):
        kept(select=["\ud800"])


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (lambda: torch.zeros(2, dtype=torch.bfloat16), "Give integers"),
        (lambda: torch.zeros(2, requires_grad=True), "Give integers"),
        (lambda: torch.zeros(2, device="meta", dtype=torch.int64), "Give integers"),
        (lambda: np.ma.masked_array([1, 2], [0, 1]), "is a masked array: give ids.compressed"),
        (lambda: [[1], [2, 3]], "must hold integers or strings, got list"),
        (lambda: [2**70], "the id 1180591620717411303424, which no dataset can have"),
        (lambda: range(10**12), "ids must be in .* got 999999999999"),
        (lambda: range(-3, 5), "ids must be in .* got -3"),
        (lambda: memoryview(b"abc"), "give ids, keys, or a function"),
    ],
)
@pytest.mark.parametrize("argument", ["select", "exclude"])
def test_anything_but_a_selection_is_refused_in_one_line(kept, argument, selection, message):
    with pytest.raises(ConfigError, match=message) as caught:
        kept(**{argument: selection()})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("argument", ["select", "exclude"])
@pytest.mark.parametrize(
    ("function", "raised"),
    [
        (lambda row: next(iter([])), "StopIteration"),
        (lambda row: row.extensions["png"][1] > 5, "KeyError"),
        (lambda row: np.ones(2), "ValueError"),
    ],
    ids=["StopIteration", "KeyError", "ValueError"],
)
def test_an_exception_of_a_function_of_a_row_names_the_row(kept, argument, function, raised):
    with pytest.raises(FunctionError, match=rf"^{argument}: the function raised {raised} .*'00000' of a/000"):
        kept(**{argument: function})


def test_a_file_of_keys_is_the_one_of_the_folder_where_it_was_named(kept, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    (tmp_path / "bad.txt").write_text("00009\n")
    monkeypatch.chdir(tmp_path)
    listed = fixed("exclude", "bad.txt")
    monkeypatch.chdir(tmp_path / "other")
    assert kept(exclude=listed) == without(8)


@pytest.mark.parametrize("selection", [[1, 2, 3], ["00001", "00002"], np.array([1, 2, 3])])
def test_who_changes_his_list_does_not_change_the_selection(kept, selection):
    mine = selection.copy()
    taken = fixed("select", mine)
    before = kept(select=taken)
    if isinstance(mine, list):
        mine.pop()
    else:
        mine[:] = 9
        with pytest.raises(ValueError, match="read-only"):
            taken[0] = 9
    assert kept(select=taken) == before


def test_a_mixture_leaves_keys_out_of_whatever_source_has_them(tree, tmp_path):
    mixture = Mixture({name: (str(tree / name), 1) for name in "abc"}, 10)

    def keys(**selection) -> dict[str, list[str]]:
        opened = open_mixture(mixture, cache_dir=tmp_path / "cache", **selection)
        return {name: one.keys(np.arange(one.n)) for name, one in opened.datasets.items()}

    everything = keys()
    assert keys(exclude=["00001", "001.tar:00009"]) == {
        "a": ["00000", "00002", "00003"],
        "b": ["00000", "00002", "00003"],
        "c": ["x:00001"],
    }
    assert keys(exclude={"a": [0], "c": ["00009"]})["a"] == everything["a"][1:]
    assert keys(select={"a": ["00001"]}) == everything | {"a": ["00001"]}
    with pytest.raises(ConfigError, match="exclude has 1 keys that no sample has, the first 'absent'"):
        keys(exclude=["00001", "absent"])
    with pytest.raises(ConfigError, match="exclude: 'd' is not a source; the sources are a, b, c"):
        keys(exclude={"d": [1]})
    listed = tmp_path / "bad.jsonl"
    listed.write_text(ledger_line("000.tar", "00001", source="b"))
    assert keys(exclude=listed) == everything | {"b": ["00000", "00002", "00003"]}
    listed.write_text(ledger_line("000.tar", "00001", source="gone"))
    with pytest.raises(ConfigError, match=r"no sample has, the first 'gone: 000\.tar:00001'"):
        keys(exclude=listed)
