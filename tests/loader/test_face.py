"""What a loader does before it is asked for a batch (nothing), and what it says of itself.

Covers loader.py and samples.py.
"""

import subprocess
import sys
import textwrap

import pytest

import fastload as fl
from fastload.errors import ConfigError
from tests.loader.samples import labels, pictures

IMPORTS = """
import sys
import fastload as fl
fields = {"image": fl.Image(size=8), "label": fl.Int()}
loader = fl.Loader("/nowhere/{0..9}.tar", 4, fields, dtype="float16", device="cpu")
state = {"version": 2, "epoch": 0, "position": 0, "order": {}, "pixels": {}, "mixture": None}
loader.load_state_dict(state)
loader.set_epoch(3)
run = iter(loader)
print(repr(loader), loader.stats(), bool(loader))
loader.close()
assert "torch" not in sys.modules, "torch was imported"
"""


def test_making_a_loader_imports_no_torch_and_opens_nothing():
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "the source is not opened yet" in done.stdout


def test_nothing_is_read_before_the_first_next(shards, monkeypatch):
    opened = []
    monkeypatch.setattr("fastload.shards.dataset.open_dataset", lambda *a, **k: opened.append(a))
    loader = pictures(shards, last="pad", epochs=2)
    loader.set_epoch(1)
    iter(loader)
    assert loader
    assert opened == []


def test_repr_shows_what_differs_from_the_defaults_and_who_decodes(shards):
    fields = {
        "image": fl.Image(size=256),
        "wide": fl.Image("png", size=(64, 128), scaled="full"),
        "mask": fl.Image("mask.png", like="image", filter="nearest", default=0),
        "label": fl.Int(),
        "length": fl.Custom("txt", len, default=None),
    }
    text = repr(fl.Loader(shards, 16, fields, augment=fl.Augment(xflip=0.5), threads=3))
    first, image, wide, mask, label, length, pixels, decode, order, place = text.splitlines()
    assert first == f"fastload.Loader({shards!r}, batch_size=16)"
    assert image == "  image: Image(size=256)"
    assert wide == "  wide: Image('png', size=(64, 128), scaled='full')"
    assert mask == "  mask: Image('mask.png', filter='nearest', like='image', default=(0, 0, 0))"
    assert label == "  label: Int('cls')"
    assert length == "  length: Custom('txt', len, default=None)"
    assert pixels == "  pixels: float32, nchw, normalize=gan, Augment(xflip=0.5)"
    assert decode.startswith("  decode: native (JPEG: libjpeg") and decode.endswith("3 threads")
    assert order == "  order: the source is not opened yet"
    assert place == "  at: epoch 0, start"


def test_repr_tells_order_and_place_once_there_is_one(shards):
    loader = labels(shards, 5, seed=9, window=4)
    next(iter(loader))
    assert "  order: windowed/1 lanes=64 n=23 seed=9 window=4" in repr(loader)
    assert repr(loader).endswith("at: epoch 0, position 5")


def test_repr_stays_short_and_never_raises(monkeypatch):
    monkeypatch.setenv("RANK", "three")
    sources = [f"/shards/{i}.tar" for i in range(10_000)]
    text = repr(fl.Loader(sources, 2, {"image": fl.Image(size=8), "x": fl.Tensor("npy", default=[0] * 1000)}))
    assert len(text) < 1000
    assert "RANK must be an integer, got 'three'" in text


def test_the_pillow_decoder_is_named_in_the_repr(shards):
    assert "decode: pillow" in repr(pictures(shards, decode="pillow"))


def test_stats_of_a_loader_that_did_nothing_are_zeros_and_none(shards):
    stats = pictures(shards).stats()
    assert (stats["images"], stats["batches"], stats["first_batch_seconds"], stats["limited_by"]) == (
        0,
        0,
        None,
        None,
    )
    assert stats["pool"] == {"idle_bytes": 0, "used_bytes": 0, "reused": 0, "allocated": 0}


def test_rank_and_world_size_come_from_the_environment_at_the_first_batch(shards, monkeypatch):
    loader = labels(shards, 3, shuffle=False)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    run = iter(loader)
    assert next(run)["label"].tolist() == [1, 3, 5]
    assert next(run)["label"].tolist() == [7, 9, 11]


def test_a_world_that_changes_under_an_iteration_ends_it_and_the_next_one_goes_on(shards, monkeypatch):
    loader = labels(shards, 3, shuffle=False)
    run = iter(loader)
    next(run)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"began as rank 0 of 1, and this is rank 1 of 2 now\. Keep"):
        next(run)
    with pytest.raises(StopIteration):
        next(run)
    state = loader.state_dict()
    assert state["position"] == 3
    loader.load_state_dict(state)
    assert next(iter(loader))["label"].tolist() == [4, 6, 8]


def test_a_world_that_only_lies_otherwise_on_its_hosts_is_the_same_world(shards, monkeypatch):
    run = iter(labels(shards, 3, shuffle=False))
    next(run)
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert next(run)["label"].tolist() == [3, 4, 5]
    monkeypatch.setenv("RANK", "1")  # and no WORLD_SIZE: which is no world, and no reason to stop this one
    assert next(run)["label"].tolist() == [6, 7, 8]


def test_what_the_environment_has_wrong_is_said_at_the_first_batch(shards, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ConfigError, match="RANK=1 but no WORLD_SIZE"):
        next(iter(labels(shards)))


def test_the_examples_of_the_docstring_are_its_own_arguments():
    import inspect

    doc = textwrap.dedent(inspect.getdoc(fl.Loader))
    for name in inspect.signature(fl.Loader).parameters:
        assert name in doc, f"{name} is not documented"
