"""`fastload check`: exactly the bad samples of a source are found and named; a ledger is read.

Covers find_faults.py.
"""

import io
import json
import os
import sys

import numpy as np
import pytest

import fastload as fl
from fastload import cli
from fastload.errors import ConfigError
from fastload.prepare import check as check_module
from fastload.prepare.check import check
from tests.loader.samples import jpeg, sample, write

BAD = {3: b"", 7: b"<html>404</html>", 40: jpeg(40)[:-100]}


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "shards", all_samples(), per_shard=30)


def all_samples(bad=BAD, n=90):
    for i in range(n):
        one = sample(i)
        if i in bad:
            one["jpg"] = bad[i]
        if i == 55:
            one["txt"] = b"\xff"
        if i == 66:
            one["cls"] = b"cat"
        yield one


@pytest.mark.parametrize("chunk", [1, 7, 64, 100])
def test_exactly_the_samples_that_a_training_run_could_not_use_are_found(source, chunk, monkeypatch):
    monkeypatch.setattr(check_module, "CHUNK", chunk)
    shares = []
    report = check(source, progress=lambda share, note: shares.append((share, note)))
    assert [(one.sample_id, one.field) for one in report.bad] == [
        *((i, "jpg") for i in (3, 7, 40)),
        (55, "txt"),
        (66, "cls"),
    ]
    assert (report.samples, report.checked, report.problems) == (90, 90, 5)
    assert report.worst_shards == {"001.tar": 2, "000.tar": 2, "002.tar": 1} and report.bad[0].key == "00003"
    assert "empty" in report.bad[0].reason and "404" in report.bad[1].reason
    assert shares[-1] == (1.0, "90 of 90 samples, 5 bad")
    assert len(shares) == -(-90 // chunk)


def test_names_of_classes_in_cls_are_not_bad(tmp_path):
    source = write(tmp_path, ({"__key__": f"{i}", "jpg": jpeg(i), "cls": "cat"} for i in range(5)))
    assert check(source).bad == ()


def test_arrays_json_and_images_of_other_names_are_looked_into(tmp_path):
    stream = io.BytesIO()
    np.save(stream, np.arange(3))
    good = {"seg.jpg": jpeg(0), "latent.npy": stream.getvalue(), "json": "{}", "bin": b"any"}
    written = [{"__key__": f"{i}", **good} for i in range(6)]
    for i, name in enumerate(("seg.jpg", "latent.npy", "json", "bin")):
        written[i + 1] = {**written[i + 1], name: b"\xff broken"}
    report = check(write(tmp_path, written))
    assert [(one.key, one.field) for one in report.bad] == [
        ("1", "seg.jpg"),
        ("2", "latent.npy"),
        ("3", "json"),
    ]


def test_with_fields_a_sample_that_lacks_one_is_bad(tmp_path):
    written = [sample(i) for i in range(6)]
    del written[4]["txt"]
    source = write(tmp_path, written)
    assert check(source).bad == ()
    fields = {"image": fl.Image(size=8), "caption": fl.Text("txt")}
    (one,) = check(source, fields=fields).bad
    assert (one.key, one.field, one.reason) == ("00004", "caption", "no txt")


def test_a_shard_that_changed_meanwhile_hides_no_other(source, monkeypatch):
    real = check_module._fields_of

    def cut_meanwhile(dataset):
        fields = real(dataset)
        os.truncate(source[1], os.path.getsize(source[1]) // 2)
        return fields

    monkeypatch.setattr(check_module, "_fields_of", cut_meanwhile)
    report = check(source)
    assert {one.sample_id for one in report.bad} == {3, 7, *range(30, 60), 66}
    assert all("changed" in one.reason for one in report.bad if one.shard == "001.tar")


def test_a_photo_that_vanished_while_it_was_checked_is_one_bad_sample(tmp_path, monkeypatch):
    for i in range(6):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg(i))
    real = check_module._fields_of

    def vanish_meanwhile(dataset):
        (tmp_path / "4.jpg").unlink()
        return real(dataset)

    monkeypatch.setattr(check_module, "_fields_of", vanish_meanwhile)
    (one,) = check(tmp_path).bad
    assert one.key == "4" and "No such file" in one.reason


def trained(source, tmp_path, **arguments):
    fields = {"image": fl.Image(size=8), "label": fl.Int("cls"), "text": fl.Text("txt")}
    ledger = tmp_path / "bad.jsonl"
    with pytest.warns(UserWarning, match="a bad sample was replaced"):
        list(fl.Loader(source, 5, fields, ledger=ledger, epochs=2, max_bad_fraction=1, **arguments))
    return ledger


def test_a_ledger_is_summed_up(source, tmp_path):
    ledger = trained(source, tmp_path)
    report = check(ledger=ledger)
    assert sorted(one.sample_id for one in report.bad) == [3, 7, 40, 55, 66]
    assert (report.in_ledger, report.problems, report.checked) == (5, 5, 0)
    assert report.entries == len(ledger.read_text().splitlines()) >= 10
    assert f"{ledger}: {report.entries:,} lines, 5 samples" in report.render()


def test_the_samples_of_a_ledger_are_checked_anew(source, tmp_path):
    ledger = trained(source, tmp_path)
    report = check(source, ledger=ledger)
    assert [one.sample_id for one in report.bad] == [3, 7, 40, 55, 66]
    assert (report.checked, report.samples) == (5, 90)
    mended = write(tmp_path / "shards", all_samples({40: b"still"}), per_shard=30)
    report = check(mended, ledger=ledger)
    assert [one.sample_id for one in report.bad] == [40, 55, 66] and report.checked == 5


def test_a_field_that_was_missing_is_still_missing(tmp_path):
    written = [sample(i) for i in range(6)]
    del written[4]["txt"], written[2]["jpg"]
    source = write(tmp_path / "shards", written)
    ledger = trained(source, tmp_path)
    assert [(one.key, one.reason) for one in check(source, ledger=ledger).bad] == [
        ("00002", "no " + " or ".join(fl.Image(size=1).extensions)),
        ("00004", "no txt"),
    ]


def test_samples_of_custom_fields_are_reported_as_unchecked(tmp_path):
    def odd(content):
        if content == b"caption 3":
            raise ValueError("no")
        return len(content)

    source = write(tmp_path / "shards", (sample(i) for i in range(6)))
    ledger = tmp_path / "bad.jsonl"
    with pytest.warns(UserWarning, match="a bad sample"):
        list(fl.Loader(source, 2, {"text": fl.Custom("txt", odd)}, ledger=ledger))
    report = check(source, ledger=ledger)
    assert (report.bad, report.unchecked, report.checked) == ((), 1, 0)
    assert "fl.Custom" in report.render()


def test_equal_keys_of_two_sources_are_two_samples(tmp_path):
    for name in "ab":
        write(tmp_path / name, all_samples({1: b""}, 4))
    mixture = fl.Mixture({name: (str(tmp_path / name), 1) for name in "ab"}, 40)
    report = check(ledger=trained(mixture, tmp_path))
    assert sorted((one.shard, one.key) for one in report.bad) == [
        ("a: 000.tar", "00001"),
        ("b: 000.tar", "00001"),
    ]
    assert report.in_ledger == 2


def test_lines_that_were_cut_are_counted(source, tmp_path):
    ledger = trained(source, tmp_path)
    ledger.write_bytes(ledger.read_bytes() + b'{"posi')
    report = check(ledger=ledger)
    assert report.damaged_lines == 1 and "1 lines truncated" in report.render()


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_names_that_are_not_utf_8_are_printed_all_the_same(tmp_path, monkeypatch, options):
    (tmp_path / "photos").mkdir()
    for i in range(3):
        with open(os.fsencode(tmp_path / "photos") + b"/\xff%d.jpg" % i, "wb") as file:
            file.write(b"broken" if i == 1 else jpeg(i))
    stdout = io.TextIOWrapper(io.BytesIO(), "utf-8", "strict")
    monkeypatch.setattr(sys, "stdout", stdout)
    assert cli.main(["check", str(tmp_path / "photos"), *options]) == cli.DATA_PROBLEM
    printed = stdout.buffer.getvalue().decode("utf-8", "strict")
    assert r"\udcff1" in printed
    if options:
        assert [one["key"] for one in json.loads(printed)["bad"]] == ["\udcff1"]


def test_labels_of_class_folders_alone_are_never_bad(tmp_path):
    for kind in ("cats", "dogs"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "a.jpg").write_bytes(b"broken")
    assert check(tmp_path, fields={"label": fl.Int("cls")}).bad == ()


def test_a_ledger_of_a_mixture_is_checked_source_by_source(source, tmp_path):
    good = write(tmp_path / "good", (sample(i) for i in range(9)))
    mixture = fl.Mixture({"odd": (source, 1), "good": (good, 1)}, 200)
    ledger = trained(mixture, tmp_path)
    assert {one.shard for one in check(ledger=ledger).bad} == {f"odd: 00{i}.tar" for i in range(3)}
    assert check(source, ledger=ledger).problems == 5
    with pytest.raises(ConfigError, match="none of them is in the source"):
        check(
            write(tmp_path / "other", ({"__key__": f"x{i}", "jpg": jpeg(i)} for i in range(3))), ledger=ledger
        )


def test_nothing_to_check_is_said():
    with pytest.raises(ConfigError, match="needs a source, a ledger"):
        check()


def test_the_command_says_what_is_bad_and_its_exit_code_too(source, tmp_path, capsys):
    pattern = str(tmp_path / "shards" / "*.tar")
    assert cli.main(["check", pattern]) == cli.DATA_PROBLEM
    text = capsys.readouterr().out
    assert "bad samples" in text and "001.tar" in text and "exclude=[...]" in text
    assert cli.main(["check", pattern, "--json"]) == cli.DATA_PROBLEM
    told = json.loads(capsys.readouterr().out)
    assert told["problems"] == 5 and len(told["bad"]) == 5 and told["worst_shards"]["002.tar"] == 1
    assert cli.main(["check", str(write(tmp_path / "good", (sample(i) for i in range(4)))[0])]) == cli.SUCCESS
    assert cli.main(["check"]) == cli.USAGE
    assert cli.main(["check", pattern, "--threads", "0"]) == cli.USAGE
    assert cli.main(["check", "--ledger", str(tmp_path / "none.jsonl")]) == cli.USAGE


def test_keys_that_check_names_leave_the_bad_ones_out(source):
    keys = sorted({one.key for one in check(source).bad})
    fields = {"image": fl.Image(size=8), "label": fl.Int("cls"), "text": fl.Text("txt")}
    made = fl.Loader(source, 5, fields, exclude=keys, on_bad="raise")
    assert sum(len(batch["__key__"]) for batch in made) == 85


def test_an_image_of_too_many_pixels_is_bad(source):
    report = check(source[0], max_pixels=500)
    assert report.problems > 10
    assert any("more than max_pixels=500" in one.reason for one in report.bad)
