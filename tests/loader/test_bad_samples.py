"""Which samples are bad and which errors are not about samples; never too many bad ones."""

import os

import pytest

import fastload as fl
from fastload import _native
from fastload.decode.images import NativeImages
from fastload.errors import BadSamplesError, FieldError, FunctionError, SampleError, ShardError
from fastload.read import ledger as ledger_module
from fastload.shards.ledger_lines import read_ledger
from tests.loader.bad_samples import N, samples
from tests.loader.samples import flat, pictures, sample, write

pytestmark = pytest.mark.filterwarnings("ignore:a bad sample was replaced")


@pytest.mark.parametrize("fraction", [k / 1000 for k in (1, 7, 57, 501, 819, 999)])
def test_exactly_as_many_as_are_allowed_are_allowed(fraction):
    allowed = ledger_module.Ledger(None, fraction, 0)._max_bad
    assert allowed == int(f"{fraction:.3f}".split(".")[1]) * 10


def test_a_sample_error_of_your_own_kind_is_one(tmp_path):
    class Faint(fl.SampleError):
        def __init__(self, path, code):
            super().__init__(f"{path}: {code}")

    def judged(content):
        if content == b"caption 5":
            raise Faint("too faint", 7)
        return len(content)

    fields = {"text": fl.Custom("txt", judged), "label": fl.Int()}
    source = write(tmp_path, samples({}))
    made = fl.Loader(source, 4, fields, shuffle=False)
    assert len(flat(made)) == N
    (reason,) = {line["reason"] for line in read_ledger(made._ledger.path).entries}
    assert reason == "too faint: 7"
    with pytest.raises(SampleError, match=r"key '00005'.*too faint: 7") as caught:
        list(fl.Loader(source, 4, fields, shuffle=False, on_bad="raise"))
    assert type(caught.value.__cause__) is Faint


def test_too_many_bad_samples_end_the_run_and_name_the_worst_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_module, "WINDOW", 20)
    bad = {3: b"", 11: b"", 12: b"", 13: b"", 21: b""}
    source = write(tmp_path, samples(bad), per_shard=10)
    got = []
    made = pictures(source, 2, shuffle=False, max_bad_fraction=0.15)  # 3 of 20
    with pytest.raises(BadSamplesError, match=r"4 of rank 0's last 14 samples are bad") as caught:
        for batch in made:
            got += batch["__position__"].tolist()
    assert got == list(range(12))
    assert "max_bad_fraction=0.15 allows 3 in 20; most are in 001.tar (3), 000.tar (1)." in str(caught.value)
    assert len(flat(pictures(source, 2, shuffle=False, max_bad_fraction=0.25))) == N


def test_bad_samples_that_are_long_ago_count_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_module, "WINDOW", 10)
    source = write(tmp_path, samples({2: b"", 12: b"", 22: b""}))
    assert len(flat(pictures(source, 1, shuffle=False, max_bad_fraction=0.1))) == N
    with pytest.raises(BadSamplesError):
        list(
            pictures(
                write(tmp_path / "b", samples({2: b"", 11: b""})), 1, shuffle=False, max_bad_fraction=0.1
            )
        )


def test_with_zero_allowed_the_first_bad_sample_ends_the_run(tmp_path):
    made = pictures(write(tmp_path, samples({5: b""})), 2, shuffle=False, max_bad_fraction=0)
    got = []
    with pytest.raises(BadSamplesError, match="1 of rank 0's last 6 samples"):
        for batch in made:
            got += batch["label"].tolist()
    assert got == [0, 1, 2, 3]


@pytest.mark.parametrize("wrong", [-0.1, 1.1, "much", True, float("nan")])
def test_a_fraction_that_is_none_is_refused(wrong):
    with pytest.raises(fl.ConfigError, match="max_bad_fraction must be"):
        pictures("x", max_bad_fraction=wrong)


def test_other_arguments_that_mean_nothing_are_refused():
    with pytest.raises(fl.ConfigError, match="on_bad must be one of 'replace', 'raise', got 'skip'"):
        pictures("x", on_bad="skip")
    for wrong in (7, "", True, "/", ".", "a\0b"):
        with pytest.raises(fl.ConfigError, match="ledger must be"):
            pictures("x", ledger=wrong)


@pytest.mark.parametrize("workers", [False, True])
def test_a_mistake_in_your_own_function_is_no_bad_sample(tmp_path, workers):
    def mistaken(content):
        return content.no_such_method() if content == b"caption 5" else len(content)

    fields = {"text": fl.Custom("txt", mistaken), "label": fl.Int()}
    got = []
    with pytest.raises(FunctionError, match=r"key '00005'.*raised AttributeError"):
        for batch in fl.Loader(write(tmp_path, samples({})), 2, fields, shuffle=False):
            got += batch["label"].tolist()
    assert got == [0, 1, 2, 3]


def test_a_mistake_in_your_own_function_is_no_bad_sample_of_a_stand_in_either(tmp_path):
    def picky(content):
        if content == b"caption 0":
            raise ValueError("no")
        raise KeyError("mine")

    fields = {"text": fl.Custom("txt", picky)}
    with pytest.raises(FunctionError, match="raised KeyError"):
        next(iter(fl.Loader(write(tmp_path, samples({})), 1, fields, shuffle=False)))


def test_your_own_function_may_say_that_the_content_is_bad(tmp_path):
    def judged(content):
        if content == b"caption 5":
            raise fl.SampleError("too short a caption")
        if content == b"caption 6":
            raise EOFError
        return len(content)

    fields = {"text": fl.Custom("txt", judged), "label": fl.Int()}
    made = fl.Loader(write(tmp_path, samples({})), 4, fields, shuffle=False)
    assert not {5, 6} & set(flat(made))
    reasons = {line["sample_id"]: line["reason"] for line in read_ledger(made._ledger.path).entries}
    assert reasons[5] == "too short a caption" and "raised EOFError" in reasons[6]


def test_raise_names_the_first_bad_sample_of_the_batch_whatever_is_wrong_with_it(tmp_path):
    written = [sample(i) for i in range(8)]
    del written[6]["txt"]
    written[3]["cls"] = b"cat"
    written[4]["jpg"] = b""
    fields = {"image": fl.Image(size=8), "label": fl.Int(), "text": fl.Text()}
    source = write(tmp_path, written)
    with pytest.raises(SampleError, match=r"key '00003'.*field 'label': not a 64-bit integer"):
        next(iter(fl.Loader(source, 8, fields, shuffle=False, on_bad="raise")))
    written[3]["cls"] = 3
    with pytest.raises(SampleError, match=r"key '00004'.*field 'image': the file is empty"):
        next(iter(fl.Loader(write(tmp_path / "b", written), 8, fields, shuffle=False, on_bad="raise")))
    written[4] = sample(4)
    with pytest.raises(FieldError, match=r"key '00006'.* has no txt for the field 'text'"):
        next(iter(fl.Loader(write(tmp_path / "c", written), 8, fields, shuffle=False, on_bad="raise")))


def test_a_file_too_large_to_be_an_image_is_not_even_read(tmp_path, monkeypatch):
    from fastload.loader import planner

    monkeypatch.setattr(planner, "MAX_METADATA_BYTES", 20_000)
    written = list(samples({2: b"\xff" * 60_000}, 8))
    made = pictures(write(tmp_path, written), 4, shuffle=False, max_pixels=1000)
    assert set(flat(made)) == set(range(8)) - {2}
    assert made.stats()["bytes_read"] < 50_000
    (reason,) = {line["reason"] for line in read_ledger(made._ledger.path).entries}
    assert reason == "60,000 bytes are more than an image of max_pixels can need"


def test_a_shard_that_is_overwritten_while_it_is_read_is_no_heap_of_bad_samples(tmp_path):
    paths = write(tmp_path, samples({}), per_shard=8)
    made = pictures(paths, 2, shuffle=False, prefetch=1)
    run = iter(made)
    next(run)
    with open(paths[1], "r+b") as shard:  # in place, of the same size, and it is open already or soon
        shard.write(b"x" * os.path.getsize(paths[1]))
    with pytest.raises(ShardError, match=r"001\.tar: key .* changed since it was indexed"):
        list(run)
    assert made.stats()["bad_samples"] == 0


def test_a_shard_that_is_overwritten_when_it_is_open_is_noticed_at_its_first_bad_sample(tmp_path):
    (path,) = write(tmp_path, samples({}))
    made = pictures(path, 2, shuffle=False, prefetch=1)
    run = iter(made)
    next(run)
    start = made.dataset.row(10).extensions["jpg"][0]
    with open(path, "r+b") as shard:
        shard.seek(start)
        shard.write(b"x" * (os.path.getsize(path) - start))
    with pytest.raises(ShardError, match=r"000\.tar: key '000\d\d' .* changed since it was indexed"):
        list(run)
    assert made.stats()["bad_samples"] == 0


@pytest.mark.parametrize(("status", "kind"), [("OUT_OF_MEMORY", MemoryError), ("FAILED", RuntimeError)])
def test_what_says_nothing_about_an_image_is_no_bad_sample(tmp_path, monkeypatch, status, kind):
    real = NativeImages._statuses

    def with_trouble(self):
        statuses = real(self).copy()
        statuses[0, 1] = int(getattr(_native.ImageStatus, status))
        self._status = statuses
        return statuses

    monkeypatch.setattr(NativeImages, "_statuses", with_trouble)
    made = pictures(write(tmp_path, samples({})), 4, decode="native")
    with pytest.raises(kind, match="an image of field 'image'"):
        next(iter(made))
    assert made.stats()["bad_samples"] == 0
