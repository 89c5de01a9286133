"""A bad sample is replaced by the one that the order names, alike in every run, on every route."""

import io
import threading
import time

import numpy as np
import pytest
import torch

import fastload as fl
from fastload import backends
from fastload.errors import SampleError
from fastload.loader.pending_batch import PendingBatch
from fastload.order.replacement import MAX_ATTEMPTS
from fastload.shards.ledger_lines import read_ledger
from tests.loader.bad_samples import BAD, N, samples
from tests.loader.samples import jpeg, pictures, sample, write

pytestmark = pytest.mark.filterwarnings("ignore:a bad sample was replaced")
needs_dali = pytest.mark.skipif(not backends.has("nvidia.dali"), reason="nvidia-dali is not installed")
DECODERS = ("native", "pillow", pytest.param("dali", marks=needs_dali))


@pytest.fixture(params=DECODERS)
def decode(request):
    return request.param


def png(i: int) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.open(io.BytesIO(jpeg(i))).save(stream, "PNG")
    return stream.getvalue()


def expected_ids(loader, positions, bad) -> list[int]:
    """The samples that the order names for some positions, by its own rule."""
    order, ids = loader._order.sample_order, []
    for position in positions:
        step = fl_steps(order.n).step_at(position)
        rank_batch = order.take(step, 0, loader._at.state.at(position, order.n))
        sample_id, attempt = int(rank_batch.sample_ids[0]), 0
        while sample_id in bad:
            attempt += 1
            other = order.replacements(rank_batch, np.arange(1), attempt, loader._config.seed)
            sample_id = int(other.sample_ids[0])
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
    assert stats["bad_samples"] + stats["bad_replacements"] == len(lines)
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
    run = made._begin()
    order, pipeline = run.step_source.sample_order, run.pipeline
    step = fl_steps(order.n).step_at(position)
    rank_batch = order.take(step, 0, run.start.at(position, order.n))
    pending = pipeline.plan(step, rank_batch._replace(sample_ids=np.array([sample_id])))
    pipeline.launch(pending)
    batch = pipeline.finish(pending)
    assert pipeline.close(time.monotonic() + 10)
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
        monkeypatch.setattr(pipeline, "ImageStage", lambda spec, threads, as_uint8: real(spec, threads, True))
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


def test_a_sample_whose_stand_ins_are_all_bad_is_raised_and_listed(tmp_path, decode):
    source = write(tmp_path, samples({i: b"broken" for i in range(N) if i != 1}))
    made = pictures(
        source, 1, shuffle=False, decode=decode, max_bad_fraction=1, ledger=tmp_path / "bad.jsonl"
    )
    # sample 0 is bad, and so is nearly every stand-in: of 8, one may be sample 1
    with pytest.raises(
        SampleError, match=r"key '000\d\d' .*; all 8 replacement samples .*fastload check"
    ) as caught:
        list(made)
    assert type(caught.value.__cause__) is SampleError
    lines = read_ledger(tmp_path / "bad.jsonl").entries
    position = lines[-1]["position"]
    assert [line["attempt"] for line in lines if line["position"] == position] == list(
        range(MAX_ATTEMPTS + 1)
    )


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
