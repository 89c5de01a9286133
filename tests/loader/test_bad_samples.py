"""Bad samples: replaced by the stand-in that the order names, alike in every run, listed, counted, and never
too many."""

import io
import json
import os
import threading
import time
import warnings

import numpy as np
import pytest
import torch

import fastload as fl
from fastload import _native, backends
from fastload.decode.images import BatchImages
from fastload.errors import BadSamplesError, FieldError, FunctionError, SampleError, ShardError
from fastload.loader.pending_batch import PendingBatch
from fastload.order.replacement import MOST_ATTEMPTS
from fastload.read import ledger as ledger_module
from fastload.shards.ledger_lines import read_ledger
from tests.loader.samples import flat, jpeg, pictures, sample, write

pytestmark = pytest.mark.filterwarnings("ignore:a bad sample was replaced")
needs_dali = pytest.mark.skipif(not backends.has("nvidia.dali"), reason="nvidia-dali is not installed")
DECODERS = ("native", "pillow", pytest.param("dali", marks=needs_dali))
N = 24
BAD = {3: b"", 7: b"<html>404</html>", 12: "cut", 20: b"\xff\xd8\xff\xe0 broken"}


@pytest.fixture(params=DECODERS)
def decode(request):
    return request.param


def samples(bad=BAD, n=N):
    for i in range(n):
        one = sample(i)
        if i in bad:
            one["jpg"] = one["jpg"][:-150] if bad[i] == "cut" else bad[i]
        yield one


def png(i: int) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.open(io.BytesIO(jpeg(i))).save(stream, "PNG")
    return stream.getvalue()


def expected_ids(loader, positions, bad) -> list[int]:
    """The samples that the order names for some positions, by the walk's own rule."""
    walk, ids = loader._order.walk, []
    for position in positions:
        taken = walk.take(fl_steps(walk.n).step_at(position), 0, loader._at.place.at(position, walk.n))
        sample_id, attempt = int(taken.sample_ids[0]), 0
        while sample_id in bad:
            attempt += 1
            sample_id = int(walk.stand_ins(taken, np.arange(1), attempt, loader._config.seed).sample_ids[0])
        ids.append(sample_id)
    return ids


def fl_steps(n):
    from fastload.order.steps import Steps

    return Steps(n, 1, 1, "drop")


def test_a_bad_sample_gives_its_place_to_the_one_that_the_order_names(tmp_path, decode):
    source = write(tmp_path, samples(), per_shard=10)
    made = pictures(source, 4, decode=decode, epochs=2, seed=5, prefetch=3)
    got = [(batch["__position__"].tolist(), batch["label"].tolist()) for batch in made]
    positions = [position for batch, _ in got for position in batch]
    assert positions == list(range(2 * N))
    labels = [label for _, batch in got for label in batch]
    assert labels == expected_ids(pictures(source, 4, seed=5), positions, BAD)
    assert not set(labels) & set(BAD)
    lines = read_ledger(made._ledger.path).entries
    stats = made.stats()
    assert stats["bad_samples"] + stats["bad_stand_ins"] == len(lines)
    assert sum(line["attempt"] == 0 for line in lines) == 2 * len(BAD) == stats["bad_samples"]
    assert stats["ledger"] == str(made._ledger.path)
    made.close()


def test_a_batch_with_stand_ins_is_what_the_stand_ins_would_be_there(tmp_path, decode):
    """Every tensor, caption, key and report, and each with the dice of its position."""
    fields = {
        "image": fl.Image(size=8, crop="random", report=True),
        "again": fl.Image(size=12, filter="nearest", resize="exact"),
        "label": fl.Int("cls"),
        "text": fl.Text("txt"),
        "length": fl.Custom("jpg", len),
    }
    augment = fl.Augment(xflip=0.5, rotate=20, color_jitter=(0.4, 0.4, 0.4, 0.1))
    how = {"decode": decode, "fields": fields, "augment": augment, "seed": 3, "device": "cpu"}
    source = write(tmp_path / "bad", samples(), per_shard=10)
    mended = write(tmp_path / "good", samples({}), per_shard=10)
    made = fl.Loader(source, 6, **how, select=None)
    (batches,) = ([*made],)
    for batch in batches:
        ids = expected_ids(pictures(source, 6, seed=3), batch["__position__"].tolist(), BAD)
        assert batch["label"].tolist() == ids
        assert batch["text"] == [f"caption {i}" for i in ids]
        assert batch["__key__"] == [f"{i:05d}" for i in ids]
        assert batch["length"].tolist() == [len(jpeg(i)) for i in ids]
        for place, (i, position) in enumerate(zip(ids, batch["__position__"].tolist(), strict=True)):
            expected = alone(mended, how, i, position)
            for name in ("image", "again", *(name for name in batch if name.startswith("image."))):
                assert torch.equal(batch[name][place], expected[name][0]), (name, i)


def alone(source, how, sample_id, position) -> dict:
    """One sample, made by itself, as if it stood at a position."""
    made = fl.Loader(source, 1, **how, on_bad="raise")
    course = made._begin()
    walk = course.turns.walk
    taken = walk.take(fl_steps(walk.n).step_at(position), 0, course.start.at(position, walk.n))
    trip = course.stages.plan(
        fl_steps(walk.n).step_at(position), taken._replace(sample_ids=np.array([sample_id]))
    )
    course.stages.launch(trip)
    batch = course.stages.finish(trip)
    assert course.stages.close(time.monotonic() + 10)
    return batch


@pytest.mark.parametrize("route", ["png", "values on workers", "mixup", "levels"])
def test_it_is_so_on_every_route(tmp_path, route, monkeypatch):
    bad = {4: b"", 9: b"\x89PNG\r\n\x1a\n broken", 10: "missing"}
    written = []
    for i in range(N):
        one = {"__key__": f"{i:05d}", "png": png(i), "cls": i, "npy": npy(i)}
        if bad.get(i) == "missing":
            del one["png"]
        elif i in bad:
            one["png" if route != "values on workers" else "npy"] = bad[i]
        written.append(one)
    source = write(tmp_path, written)
    fields = {"image": fl.Image("png", size=8), "label": fl.Int("cls"), "array": fl.Tensor("npy")}
    more = {"augment": fl.Augment(mixup=0.4)} if route == "mixup" else {}
    if route == "levels":
        from fastload.loader import pipeline

        real = pipeline.ImageStage
        monkeypatch.setattr(
            pipeline, "ImageStage", lambda config, threads, levels: real(config, threads, True)
        )
    made = fl.Loader(source, 5, fields, last="partial", seed=1, **more)
    for batch in made:
        ids = expected_ids(pictures(source, 5, seed=1), batch["__position__"].tolist(), bad)
        assert batch["label"].tolist() == ids
        assert batch["array"][:, 0].tolist() == ids
        if route == "mixup":
            assert batch["label.mixed"].tolist() == [*ids[-1:], *ids[:-1]]
        else:
            mended = expected_images(fields, batch["__position__"].tolist(), ids, tmp_path)
            assert torch.equal(batch["image"], mended)
    assert made.stats()["bad_samples"] >= 3


def npy(i: int) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([i, 2 * i], np.int64))
    return stream.getvalue()


def expected_images(fields, positions, ids, folder):
    good = [{"__key__": f"{i:05d}", "png": png(i), "cls": i, "npy": npy(i)} for i in range(N)]
    source = write(folder / "mended", good)
    how = {"fields": fields, "seed": 1}
    pairs = zip(ids, positions, strict=True)
    return torch.cat([alone(source, how, i, position)["image"] for i, position in pairs])


@pytest.mark.parametrize(("batch_size", "world_size"), [(1, 1), (3, 2), (2, 4), (24, 1)])
def test_stand_ins_are_the_same_for_any_batch_size_and_number_of_ranks(tmp_path, batch_size, world_size):
    source = write(tmp_path, samples(), per_shard=10)

    def by_position(batch_size, world_size, **more):
        got = {}
        for rank in range(world_size):
            made = pictures(
                source, batch_size, rank=rank, world_size=world_size, last="straddle", epochs=4, **more
            )
            for batch in made:
                for i, position in enumerate(batch["__position__"].tolist()):
                    got[position] = (int(batch["label"][i]), batch["image"][i])
        return got

    expected, got = by_position(4, 1), by_position(batch_size, world_size, threads=3, prefetch=7)
    for position in range(4 * N - 24):
        assert got[position][0] == expected[position][0]
        assert torch.equal(got[position][1], expected[position][1])


def test_stand_ins_come_from_the_same_source_of_a_mixture(tmp_path):
    for name, bad in (("a", {1: b"", 2: b"x"}), ("b", {0: b""})):
        write(tmp_path / name, samples(bad, 9))
    mixture = fl.Mixture({name: (str(tmp_path / name), 1) for name in "ab"}, 60)
    made = pictures(mixture, 5, seed=2)
    bad = {"a": {1, 2}, "b": {0}}
    for batch in made:
        for name, label in zip(batch["__source__"], batch["label"].tolist(), strict=True):
            assert label not in bad[name]
    lines = read_ledger(made._ledger.path).entries
    assert {(line["source"], line["sample_id"]) for line in lines} == {("a", 1), ("a", 2), ("b", 0)}
    sources = {}
    for batch in pictures(mixture, 5, seed=2):
        sources |= dict(zip(batch["__position__"].tolist(), batch["__source__"], strict=True))
    assert all(sources[line["position"]] == line["source"] for line in lines)


def test_a_sample_is_replaced_as_a_whole(tmp_path):
    """A broken mask takes its picture with it, and a missing caption both."""
    written = [
        {"__key__": f"{i:05d}", "jpg": jpeg(i), "png": png(i), "cls": i, "txt": str(i)} for i in range(12)
    ]
    written[2]["png"] = b"broken"
    del written[5]["txt"]
    fields = {
        "image": fl.Image("jpg", size=8),
        "mask": fl.Image("png", like="image", filter="nearest"),
        "label": fl.Int(),
        "text": fl.Text(),
    }
    made = fl.Loader(write(tmp_path, written), 4, fields, shuffle=False)
    for batch in made:
        assert batch["text"] == [str(label) for label in batch["label"].tolist()]
        assert not {2, 5} & set(batch["label"].tolist())
    fields_of = {
        line["sample_id"]: (line["field"], line["reason"]) for line in read_ledger(made._ledger.path).entries
    }
    assert fields_of[2][0] == "mask"
    assert fields_of[5] == ("text", "no txt")


def test_a_default_is_no_replacement(tmp_path):
    written = [sample(i) for i in range(6)]
    del written[2]["txt"], written[3]["jpg"]
    fields = {"image": fl.Image(size=8, default=7), "text": fl.Text(default="none"), "label": fl.Int()}
    made = fl.Loader(write(tmp_path, written), 6, fields, shuffle=False, dtype="uint8")
    (batch,) = made
    assert batch["label"].tolist() == [0, 1, 2, 3, 4, 5]
    assert batch["text"][2] == "none" and (batch["image"][3] == 7).all()
    assert made.stats()["bad_samples"] == 0


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
        assert line["reason"] and len(line["reason"]) <= ledger_module.MOST_REASON
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
    with pytest.raises(fl.ConfigError, match=r"no\.jsonl: none of its 1 lines is one of a ledger"):
        read_ledger(tmp_path / "no.jsonl")


def test_a_ledger_that_cannot_be_written_stops_nothing(tmp_path):
    source = write(tmp_path / "shards", samples())
    (tmp_path / "file").write_text("not a folder")
    made = pictures(source, 4, ledger=tmp_path / "file" / "bad.jsonl")
    with pytest.warns(UserWarning, match=r"the ledger .*bad.jsonl cannot be written \(.*\): bad samples are"):
        assert len(flat(made)) == N
    assert made.stats()["bad_samples"] >= len(BAD)


def test_a_ledger_does_not_grow_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_module, "MOST_BYTES", 900)
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
        with pytest.raises(SampleError, match="all 8 samples"):
            next(iter(made))


@pytest.mark.parametrize("fraction", [k / 1000 for k in (1, 7, 57, 501, 819, 999)])
def test_exactly_as_many_as_are_allowed_are_allowed(fraction):
    allowed = ledger_module.Ledger(None, fraction, 0)._most
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


def test_a_sample_whose_stand_ins_are_all_bad_is_raised_and_listed(tmp_path, decode):
    source = write(tmp_path, samples({i: b"broken" for i in range(N) if i != 1}))
    made = pictures(
        source, 1, shuffle=False, decode=decode, max_bad_fraction=1, ledger=tmp_path / "bad.jsonl"
    )
    # sample 0 is bad, and so is nearly every stand-in: of 8, one may be sample 1
    with pytest.raises(SampleError, match=r"key '000\d\d' .*; all 8 samples .*fastload check") as caught:
        list(made)
    assert type(caught.value.__cause__) is SampleError
    lines = read_ledger(tmp_path / "bad.jsonl").entries
    position = lines[-1]["position"]
    assert [line["attempt"] for line in lines if line["position"] == position] == list(
        range(MOST_ATTEMPTS + 1)
    )


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
    assert "max_bad_fraction=0.15 allows 3 in 20; most of them in 001.tar (3), 000.tar (1)." in str(
        caught.value
    )
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
    with pytest.raises(fl.ConfigError, match="max_bad_fraction="):
        pictures("x", max_bad_fraction=wrong)


def test_other_arguments_that_mean_nothing_are_refused():
    with pytest.raises(fl.ConfigError, match="on_bad='skip': give one of 'replace', 'raise'"):
        pictures("x", on_bad="skip")
    for wrong in (7, "", True, "/", ".", "a\0b"):
        with pytest.raises(fl.ConfigError, match="ledger="):
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
    with pytest.raises(SampleError, match=r"key '00003'.*field 'label': not an integer"):
        next(iter(fl.Loader(source, 8, fields, shuffle=False, on_bad="raise")))
    written[3]["cls"] = 3
    with pytest.raises(SampleError, match=r"key '00004'.*field 'image': the file is empty"):
        next(iter(fl.Loader(write(tmp_path / "b", written), 8, fields, shuffle=False, on_bad="raise")))
    written[4] = sample(4)
    with pytest.raises(FieldError, match=r"key '00006'.* has no txt for the field 'text'"):
        next(iter(fl.Loader(write(tmp_path / "c", written), 8, fields, shuffle=False, on_bad="raise")))


def test_a_file_too_large_to_be_an_image_is_not_even_read(tmp_path, monkeypatch):
    from fastload.loader import pipeline

    monkeypatch.setattr(pipeline, "MOST_METADATA_BYTES", 20_000)
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
    real = BatchImages._statuses

    def with_trouble(self):
        statuses = real(self).copy()
        statuses[0, 1] = int(getattr(_native.ImageStatus, status))
        self._status = statuses
        return statuses

    monkeypatch.setattr(BatchImages, "_statuses", with_trouble)
    made = pictures(write(tmp_path, samples({})), 4, decode="native")
    with pytest.raises(kind, match="an image of field 'image'"):
        next(iter(made))
    assert made.stats()["bad_samples"] == 0


def test_resuming_between_bad_samples_gives_the_same_stream(tmp_path):
    source = write(tmp_path, samples(), per_shard=10)
    whole = [batch["label"].tolist() for batch in pictures(source, 3, epochs=2)]
    for stop in range(len(whole)):
        made = pictures(source, 3, epochs=2)
        run = iter(made)
        for _ in range(stop):
            next(run)
        again = pictures(source, 3, epochs=2)
        again.load_state_dict(made.state_dict())
        run.close()
        assert [batch["label"].tolist() for batch in again] == whole[stop:]


def test_stand_ins_do_not_queue_behind_what_is_ahead(tmp_path, monkeypatch):
    """A slow function keeps all workers busy with batches ahead; the stand-in is made in time."""
    held = threading.Event()

    def slow(content):
        if content in (b"caption 4", b"caption 5", b"caption 6"):
            held.wait(20)
        return len(content)

    fields = {"image": fl.Image(size=8), "label": fl.Int(), "text": fl.Custom("txt", slow)}
    source = write(tmp_path, samples({1: b""}, 8))
    # the stand-in of position 1 must not be one that waits: choose a seed for which it is not
    seed = next(
        s for s in range(99) if expected_ids(pictures(source, 2, seed=s, shuffle=False), [1], {1})[0] < 4
    )
    run = iter(fl.Loader(source, 2, fields, shuffle=False, seed=seed, threads=2, prefetch=3))
    try:
        assert next(run)["label"].tolist()[0] == 0
    finally:
        held.set()
    run.close()


def test_stand_ins_are_read_and_decoded_before_what_is_ahead(tmp_path, monkeypatch):
    from fastload.decode.images import ImageStage
    from fastload.read.shard_reader import ShardReader

    asked = []
    for stage in (ShardReader, ImageStage):
        real = stage.submit

        def noted(self, *arguments, real=real, stage=stage, **more):
            urgent = arguments[2 if stage is ShardReader else -1]
            asked.append((type(self).__name__, urgent))
            return real(self, *arguments, **more)

        monkeypatch.setattr(stage, "submit", noted)
    list(pictures(write(tmp_path, samples({2: b""}, 8)), 4, shuffle=False, seed=1))
    assert [one for one in asked if one[1] is True] == [("ShardReader", True), ("ImageStage", True)]
    assert len(asked) == 6


def test_a_closed_iteration_waits_for_no_stand_in(tmp_path, monkeypatch):
    """Cancelled while its stand-ins are made: whoever makes them sees it."""
    cancelled = []
    real = PendingBatch.give_up

    def noted(self):
        cancelled.append(self.step)
        real(self)

    before = set(threading.enumerate())
    source = write(tmp_path, samples())
    made = pictures(source, 4, augment=fl.Augment(mixup=0.3), prefetch=4)  # delivered ahead, on a thread
    monkeypatch.setattr(PendingBatch, "give_up", noted)
    for _ in range(20):
        run = iter(made)
        next(run)
        run.close()
        made.set_epoch(made._at.epoch + 1)
    assert None in cancelled  # stand-ins
    assert set(threading.enumerate()) <= before


def test_memory_of_batches_with_bad_samples_comes_back_without_the_garbage_collector(tmp_path):
    import gc

    written = list(samples({1: b"", 5: b""}, 12))
    written[9]["txt"] = b"\xff"
    fields = {"image": fl.Image(size=8), "label": fl.Int(), "text": fl.Text()}
    source = write(tmp_path, written)
    made = fl.Loader(source, 4, fields, shuffle=False, epochs=None, max_bad_fraction=1, prefetch=2)
    gc.collect()
    gc.disable()
    try:
        for _, batch in zip(range(40), made, strict=False):
            del batch
        allocated = made.stats()["pool"]["allocated"]
        for _, batch in zip(range(40), made, strict=False):
            del batch
        assert made.stats()["bad_samples"] > 60
        assert made.stats()["pool"]["allocated"] <= allocated + 3  # buffers are reused, not made anew
    finally:
        gc.enable()
        made.close()
