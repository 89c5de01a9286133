"""A field stage in a single file of the user's: batches, bad samples, ends, states, words."""

import threading

import numpy as np
import pytest
import torch

import fastload as fl
from tests.loader.samples import write
from tests.toys.volumes import Volume

N, SIDE = 24, 3


def volume(i: int) -> np.ndarray:
    return np.random.default_rng(i).standard_normal((SIDE,) * 3).astype(np.float16)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    samples = [{"__key__": f"{i:03d}", "vol": volume(i).tobytes(), "cls": i} for i in range(N)]
    return write(tmp_path_factory.mktemp("volumes"), samples, per_shard=8)


def loader(source, batch_size=4, **arguments):
    fields = {"volume": Volume(SIDE), "label": fl.Int("cls")}
    return fl.Loader(source, batch_size, fields, ledger=None, **arguments)


def test_batches_hold_what_the_stage_makes(source):
    for batch in loader(source, prefetch=3):
        expected = np.stack([volume(i) for i in batch["label"].tolist()]).astype(np.float32)
        assert torch.equal(batch["volume"], torch.from_numpy(expected))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("toy")]


def test_a_bad_sample_is_replaced_and_named(tmp_path):
    samples = [
        {"__key__": f"{i:03d}", "vol": volume(i).tobytes()[: None if i != 5 else 7], "cls": i}
        for i in range(N)
    ]
    source = write(tmp_path, samples, per_shard=8)
    with pytest.warns(UserWarning, match="7 bytes are no volume of side 3"):
        loaded = loader(source, max_bad_fraction=1.0)
        labels = [label for batch in loaded for label in batch["label"].tolist()]
    assert len(labels) == N and 5 not in labels
    assert loaded.stats()["bad_samples"] == 1
    with pytest.raises(fl.SampleError, match="no volume of side 3"):
        list(loader(source, on_bad="raise"))


@pytest.mark.parametrize("end", ["close", "forget", "break"])
def test_no_thread_is_left(source, end):
    it = iter(loader(source, epochs=None))
    next(it)
    if end == "close":
        it.close()
    del it
    deadline = [thread.join(10) for thread in threading.enumerate() if thread.name.startswith("toy")]
    assert deadline == [None] * len(deadline)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("toy")]


def test_what_is_registered_is_named_in_the_repr_and_in_the_state(source):
    loaded = loader(source)
    assert "volume: Volume(side=3, ext='vol')" in repr(loaded)
    state = loaded.state_dict()
    fields = {"volume": Volume(SIDE, default=np.zeros(SIDE)), "label": fl.Int("cls")}
    other = fl.Loader(source, 4, fields, ledger=None)
    with pytest.warns(UserWarning, match="registered fields"):
        other.load_state_dict(state)
        next(iter(other))


def test_only_fields_of_the_user_s_have_a_registered_stage():
    larger = type("Larger", (fl.Image,), {})
    for field_class, what in (
        (larger, "not of fl.Image"),
        (fl.Int, "of your own"),
        (int, "of your own"),
        (5, "of your own"),
    ):
        with pytest.raises(fl.ConfigError, match=what):
            fl.register_field_stage(field_class, lambda fields, context: None)
    with pytest.raises(fl.ConfigError, match="a function of the fields"):
        fl.register_field_stage(Volume, None)
