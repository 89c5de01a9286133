"""What goes wrong with a source or a sample: one line that says what, where and the way out; never a hang.

Covers field_check.py.
"""

import os
import re
import shutil
import time

import pytest

import fastload as fl
from fastload import _native, backends
from fastload.errors import (
    BackendError,
    ConfigError,
    FieldError,
    FunctionError,
    SampleError,
    ShardError,
    SourceError,
)
from tests import corpus, preloaded
from tests.loader.samples import flat, jpeg, labels, pictures, sample, write, write_shards

DECODERS = ("native", "pillow")


def one_line(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text
    assert text[-1] in ".)" or "index" in text or ":" in text
    return text


@pytest.mark.parametrize("ask", [len, lambda loader: next(iter(loader)), lambda loader: loader.state_dict()])
def test_a_missing_path_is_named_whatever_asks_first(ask):
    with pytest.raises(SourceError, match=r"/nowhere/at/all\.tar.*no such file") as caught:
        ask(labels("/nowhere/at/all.tar"))
    one_line(caught)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda folder: None, SourceError, "the folder is empty"),
        (lambda folder: (folder / "a.txt").write_text("x"), SourceError, "has no images"),
        (lambda folder: (folder / "a.tar").write_bytes(b"no tar" * 500), ShardError, "a.tar"),
        (lambda folder: (folder / "a.zip").write_bytes(b"no zip" * 500), ShardError, "a.zip"),
        (lambda folder: (folder / "a.tar").write_bytes(b""), ShardError, "a.tar"),
    ],
    ids=["empty", "no image", "not a tar", "not a zip", "an empty file"],
)
def test_a_source_that_cannot_be_indexed_is_named(tmp_path, make, error, message):
    make(tmp_path)
    with pytest.raises(error, match=message) as caught:
        next(iter(labels(str(tmp_path))))
    one_line(caught)


def test_a_field_that_no_sample_has_is_refused_even_with_a_default(shards):
    loader = fl.Loader(shards, 4, {"image": fl.Image("png;webp", size=8, default=0)})
    with pytest.raises(
        FieldError, match=r"fields\['image'\]: no sample of 000.tar .* has png or webp"
    ) as caught:
        next(iter(loader))
    assert "Name an extension that they have: cls, jpg, txt." in one_line(caught)


def test_labels_where_there_are_neither_files_nor_folders_are_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    with pytest.raises(FieldError, match=r"has cls\. Name an extension that they have: jpg"):
        next(iter(labels(str(tmp_path))))


def test_a_batch_larger_than_the_data_is_refused_with_the_ways_out(shards):
    for ask in (len, lambda loader: next(iter(loader))):
        with pytest.raises(ConfigError, match=r"n=23.*batch_size=24.*use batch_size=23 or less") as caught:
            ask(labels(shards, 24))
        one_line(caught)


def test_a_batch_that_no_memory_holds_is_refused_with_the_ways_out(shards):
    script = f"""
import resource, fastload as fl, torch
resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
loader = fl.Loader({shards!r}, 8, {{"image": fl.Image("jpg", size=65535)}}, threads=1)
try:
    next(iter(loader))
except fl.OutOfMemoryError as error:
    print(error)
"""
    run = preloaded.run(script, limit_seconds=60)
    said = r"no memory for a batch of [\d,]+ bytes \(8 samples\): .*ulimit -v.* a smaller batch_size, size"
    assert re.match(said, run.out), run.err


def test_a_missing_field_is_raised_by_its_own_batch_after_those_before_it(tmp_path):
    samples = [sample(i) for i in range(12)]
    del samples[9]["txt"]
    write(tmp_path, samples)
    fields = {"label": fl.Int(), "text": fl.Text()}
    loader = fl.Loader(str(tmp_path), 2, fields, shuffle=False, on_bad="raise")
    got = []
    with pytest.raises(
        FieldError, match=r"000.tar: key '00009' at byte \d+ has no txt for the field 'text'"
    ) as caught:
        for batch in loader:
            got.append(batch["label"].tolist())
    assert got == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert "only cls, jpg. Give the field a default=, or leave the sample out with exclude=." in one_line(
        caught
    )


BROKEN = {
    "cut": (corpus.photos()["0173.jpg"][:3000], "."),
    "empty": (b"", "empty|unknown|known"),
    "html": (b"<html>404</html>" * 9, "not an image of a known format"),
    "png cut": (corpus.broken()["png cut in the middle"], "PNG"),
    "header only": (corpus.broken()["jpeg cut in the header"], "."),
}


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_image_is_named_by_its_own_batch(tmp_path, kind, decode):
    content, reason = BROKEN[kind]
    samples = [sample(i) for i in range(12)]
    samples[7]["jpg"] = content
    write(tmp_path, samples)
    run = iter(pictures(str(tmp_path), 2, shuffle=False, decode=decode, on_bad="raise"))
    assert flat(next(run) for _ in range(3)) == list(range(6))
    with pytest.raises(SampleError, match=r"^000.tar: key '00007' at byte \d+: field 'image': ") as caught:
        next(run)
    assert re.search(reason, one_line(caught).split("field 'image': ")[1])
    with pytest.raises(StopIteration):
        next(run)


def test_of_several_broken_images_the_first_is_named(tmp_path):
    samples = [sample(i) for i in range(8)]
    for i in (3, 5, 6):
        samples[i]["jpg"] = b"\xff\xd8\xff broken" if i == 5 else b"broken"
    write(tmp_path, samples)
    for threads in (1, 2, 3):
        for _ in range(3):
            with pytest.raises(SampleError, match="key '00003'"):
                next(iter(pictures(str(tmp_path), 8, shuffle=False, threads=threads, on_bad="raise")))


@pytest.mark.parametrize("decode", DECODERS)
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, decode):
    write(tmp_path, [{"__key__": "big", "jpg": jpeg(0, 100, 50), "cls": 0}])
    assert len(list(pictures(str(tmp_path), 1, max_pixels=5000, decode=decode))) == 1
    with pytest.raises(SampleError, match=r"key 'big'.*100.?x.?50 pixels are more than max_pixels=4999"):
        next(iter(pictures(str(tmp_path), 1, max_pixels=4999, decode=decode, on_bad="raise")))


@pytest.mark.parametrize("decode", DECODERS)
def test_a_crop_that_lies_outside_the_image_names_the_sample(tmp_path, decode):
    write(tmp_path, [{"__key__": "flat", "jpg": jpeg(0, 64, 32)}])
    fields = {"image": fl.Image(size=16, crop=(0, 9))}
    loader = fl.Loader(str(tmp_path), 1, fields, decode=decode, on_bad="raise")
    with pytest.raises(
        SampleError, match=r"key 'flat'.*field 'image': the crop of 16 x 16 pixels at left 0, top 9"
    ):
        next(iter(loader))


@pytest.mark.parametrize("change", ["vanished", "cut"])
def test_a_shard_that_changed_after_indexing_is_named(tmp_path, change):
    write_shards(tmp_path, 12, 6)
    loader = pictures(str(tmp_path), 2, shuffle=False, prefetch=1)
    run = iter(loader)
    next(run)
    shard = tmp_path / "001.tar"
    if change == "cut":
        os.truncate(shard, 3 * 512)
    else:
        shard.unlink()
    cut = change == "cut"
    reason = "the file has changed since it was indexed" if cut else "No such file or directory"
    with pytest.raises(ShardError, match=rf"001.tar: key '0000[67]' at byte \d+: {reason}") as caught:
        for _ in range(6):
            next(run)
    assert ("start again" if cut else "put it back, or open the dataset again") in one_line(caught)


def test_a_photo_that_vanished_from_its_folder_is_named(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg(i))
    loader = fl.Loader(str(tmp_path), 2, {"image": fl.Image(size=8)}, shuffle=False, prefetch=1)
    run = iter(loader)
    next(run)
    (tmp_path / "5.jpg").unlink()
    with pytest.raises(ShardError, match="key '5': No such file or directory"):
        list(run)


def of_a_kind(content):
    if content == b"caption 5":
        return 1 // 0
    return len(content)


def test_an_error_of_your_own_function_is_the_cause_with_its_traceback(shards):
    loader = fl.Loader(shards, 2, {"text": fl.Custom("txt", of_a_kind), "label": fl.Int()}, shuffle=False)
    run = iter(loader)
    assert flat([next(run), next(run)]) == [0, 1, 2, 3]
    with pytest.raises(
        FunctionError, match=r"key '00005'.*field 'text': of_a_kind raised ZeroDivisionError: .*ValueError\.$"
    ) as caught:
        next(run)
    one_line(caught)
    cause = caught.value.__cause__
    assert type(cause) is ZeroDivisionError
    frames, trace = [], cause.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert frames[-1] == "of_a_kind"


@pytest.mark.parametrize(
    ("field", "content", "reason"),
    [
        (fl.Int("x"), b"seven", "not a 64-bit integer"),
        (fl.Text("x"), b"\xff", "not UTF-8"),
        (fl.Json("x"), b"{", "not JSON"),
        (fl.Tensor("x"), b"pickle", "not npy, npz or pth"),
    ],
    ids=["int", "text", "json", "tensor"],
)
def test_a_value_that_cannot_be_read_names_sample_and_field(tmp_path, field, content, reason):
    write(tmp_path, [{"__key__": f"{i}", "x": content} for i in range(4)])
    for _ in range(3):
        with pytest.raises(
            SampleError, match=rf"000.tar: key '0' at byte 512: field 'value': {reason}"
        ) as caught:
            next(iter(fl.Loader(str(tmp_path), 4, {"value": field}, shuffle=False, on_bad="raise")))
        one_line(caught)


def test_map_batch_changes_the_batch_and_its_errors_are_its_own(shards):
    def broken(batch):
        raise LookupError("mine")

    assert next(iter(labels(shards, map_batch=lambda batch: sorted(batch)))) == [
        "__id__",
        "__key__",
        "__position__",
        "label",
    ]
    with pytest.raises(LookupError, match="mine"):
        next(iter(labels(shards, map_batch=broken)))
    with pytest.raises(ConfigError, match="map_batch returned None: it must return the batch"):
        next(iter(labels(shards, map_batch=lambda batch: batch.update(more=1))))


def test_after_an_error_the_next_iteration_is_the_next_epoch(shards):
    failing = [True]

    def once(batch):
        if batch["__position__"][0] == 8 and failing.pop():
            raise RuntimeError("once")
        return batch

    loader = labels(shards, 4, map_batch=once)
    with pytest.raises(RuntimeError, match="once"):
        list(loader)
    assert loader.state_dict()["position"] == 8
    assert next(iter(loader))["__position__"].tolist() == [23, 24, 25, 26]


def test_an_error_at_the_first_batch_leaves_the_loader_as_it_was(tmp_path):
    loader = labels(str(tmp_path / "later"))
    with pytest.raises(SourceError):
        next(iter(loader))
    write_shards(tmp_path / "later", 5, 5)
    assert next(iter(loader))["__position__"].tolist() == [0, 1, 2, 3]


def test_a_decoder_that_is_not_there_is_said_with_the_way_out(shards, monkeypatch):
    monkeypatch.setattr(_native, "load_jpeg_library", lambda paths: (None, 0, "libjpeg.so.62: no such file"))
    monkeypatch.setattr(backends, "has", lambda name: False)
    loader = pictures(shards)
    with pytest.raises(BackendError, match=r"libjpeg.so.62: no such file.*Install simplejpeg") as caught:
        next(iter(loader))
    one_line(caught)
    assert "impossible here" in repr(loader)


def test_errors_come_quickly_while_much_else_is_on_its_way(tmp_path):
    write(tmp_path, [sample(0) | {"jpg": b"broken"}, *(sample(i) for i in range(1, 40))])
    slow = fl.Custom("txt", lambda content: time.sleep(0.5))  # 10 s, if all that is in flight were made
    fields = {"image": fl.Image(size=8), "slow": slow}
    next(iter(fl.Loader(str(tmp_path), 4, {"image": fl.Image(size=8)})))  # imports and indexes
    begun = time.perf_counter()
    with pytest.raises(SampleError):
        next(iter(fl.Loader(str(tmp_path), 4, fields, shuffle=False, prefetch=9, threads=2, on_bad="raise")))
    assert time.perf_counter() - begun < 5.0
    shutil.rmtree(tmp_path)
