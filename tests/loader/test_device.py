"""Where batches go: the CPU as they are, a GPU on a stream of the loader's own.

Without a GPU the copies run against a stand-in for torch.cuda that records what it is asked for.
"""

import contextlib
from types import SimpleNamespace

import pytest
import torch

import fastload as fl
from fastload.errors import BackendError
from fastload.loader.device import CudaCopy, StayOnCpu, device_copy, resolve_device
from tests.loader.samples import labels


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_on_a_cpu_a_batch_stays_what_it_is(shards, device):
    batch = {"image": torch.zeros(3)}
    copy = device_copy(device)
    assert isinstance(copy, StayOnCpu)
    assert copy(batch) is batch
    assert next(iter(labels(shards, device=device)))["label"].device.type == "cpu"


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", 'device=\'gpu\'.*Use "cpu", "cuda" or "auto"'),
        (None, "device=None"),
        (3.5, "device=3.5"),
        ("meta", 'batches are made for "cpu" and "cuda" only'),
    ],
)
def test_a_device_that_is_none_is_refused_by_the_first_batch(shards, device, message):
    with pytest.raises(BackendError, match=message) as caught:
        next(iter(labels(shards, device=device)))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_torch_does_not_see_is_refused(shards):
    assert resolve_device("auto").type == "cpu"
    with pytest.raises(BackendError, match="torch sees no CUDA device here"):
        next(iter(labels(shards, device="cuda")))


class FakeTensor(torch.Tensor):
    """A tensor that says it is pinned, and where it went."""

    def is_pinned(self):
        return True

    def to(self, device, non_blocking=False):
        assert non_blocking
        moved = torch.Tensor.clone(self).as_subclass(FakeTensor)
        moved.place, moved.streams = device, []
        return moved

    def record_stream(self, stream):
        self.streams.append(stream)


@pytest.fixture
def cuda(monkeypatch):
    """torch.cuda with events that complete when the test says so."""
    state = SimpleNamespace(done=False, waited=[], inside=False)

    @contextlib.contextmanager
    def on(stream):
        state.inside = stream
        yield
        state.inside = False

    def record(stream):
        assert state.inside == stream

    def event():
        return SimpleNamespace(record=record, query=lambda: state.done)

    current = SimpleNamespace(wait_event=state.waited.append)
    state.current = current
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: "own stream")
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "Event", event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    return state


def test_a_gpu_gets_all_tensors_of_a_batch_and_the_training_stream_waits_for_them(cuda):
    copy = CudaCopy("cuda:0")
    image, latent = (torch.arange(3).as_subclass(FakeTensor) for _ in range(2))
    batch = {"image": image, "arrays": {"latent": latent}, "text": ["a"], "__key__": ["k"]}
    moved = copy(batch)
    assert (moved["image"].place, moved["arrays"]["latent"].place) == ("cuda:0", "cuda:0")
    assert (moved["text"], moved["__key__"]) == (["a"], ["k"])
    assert len(cuda.waited) == 1
    assert moved["image"].streams == moved["arrays"]["latent"].streams == [cuda.current]


def test_pinned_memory_is_kept_until_its_copy_is_done(cuda):
    copy = CudaCopy("cuda:0")
    copy({"image": torch.arange(3).as_subclass(FakeTensor)})
    copy({})
    assert len(copy._in_flight) == 2
    cuda.done = True
    copy({})
    assert len(copy._in_flight) == 1


def test_auto_is_a_device_that_torch_can_use(shards):
    batch = next(iter(fl.Loader(shards, 2, {"image": fl.Image(size=8)}, device="auto")))
    assert batch["image"].device.type == ("cuda" if torch.cuda.is_available() else "cpu")
