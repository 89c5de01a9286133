"""Where batches go: the CPU as they are, a GPU on a stream of the loader's own.

Without a GPU the copies run against a stand-in for torch.cuda that records what it is asked for.
"""

import collections
import contextlib
import sys
import threading
import weakref
from types import SimpleNamespace

import pytest
import torch

import fastload as fl
from fastload.errors import BackendError
from fastload.loader.device import CpuDelivery, CudaDelivery, delivery, resolve_device
from tests.loader.samples import labels


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_on_a_cpu_a_batch_stays_what_it_is(shards, device):
    batch = {"image": torch.zeros(3)}
    there = delivery(resolve_device(device))
    assert isinstance(there, CpuDelivery)
    delivered = there.deliver(batch, lambda batch: batch)
    assert there.hand_over(delivered) is batch
    assert there.counters() == {}
    assert next(iter(labels(shards, device=device)))["label"].device.type == "cpu"


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "device must be .*, got 'gpu'"),
        (None, "device must be .*, got None"),
        (3.5, r"device must be .*, got 3\.5"),
        ("meta", "device must be .*, got 'meta'"),
    ],
)
def test_a_device_that_is_none_is_refused_by_the_first_batch(shards, device, message):
    with pytest.raises(BackendError, match=message) as caught:
        next(iter(labels(shards, device=device)))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_torch_does_not_see_is_refused(shards):
    assert resolve_device("auto").type == "cpu"
    with pytest.raises(BackendError, match="needs a GPU, but torch sees none"):
        next(iter(labels(shards, device="cuda")))


class FakeTensor(torch.Tensor):
    """A tensor that says it is pinned, and where it went."""

    place = None

    def is_pinned(self):
        return True

    def to(self, device, non_blocking=False):
        assert non_blocking
        moved = torch.Tensor.clone(self).as_subclass(FakeTensor)
        moved.place, moved.streams = device, []
        return moved

    def record_stream(self, stream):
        self.streams.append(stream)


class FakeEvent:
    """An event that is passed when the test says so; between two of them lie 3 ms."""

    def __init__(self, state):
        self._state, self.recorded_on = state, None

    def record(self, stream):
        assert self._state.inside == stream
        self.recorded_on = stream

    def query(self):
        return self._state.done

    def elapsed_time(self, _):
        assert self.query(), "not ready"
        return 3.0

    def synchronize(self):
        self._state.done = True


@pytest.fixture
def cuda(monkeypatch):
    """torch.cuda with events that complete when the test says so."""
    state = SimpleNamespace(done=False, waited=[], inside=False)

    @contextlib.contextmanager
    def on(stream):
        state.inside = stream
        yield
        state.inside = False

    current = SimpleNamespace(wait_event=state.waited.append)
    state.current = current
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: "own stream")
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: FakeEvent(state))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    return state


def fake(*numbers):
    return torch.tensor(numbers).as_subclass(FakeTensor)


def test_a_gpu_gets_all_tensors_of_a_batch_and_the_training_stream_waits_for_them(cuda):
    there = CudaDelivery("cuda:0")
    batch = {"image": fake(1, 2), "arrays": {"latent": fake(3)}, "text": ["a"], "__key__": ["k"]}
    delivered = there.deliver(batch, lambda batch: batch)
    assert cuda.waited == []
    moved = there.hand_over(delivered)
    assert (moved["image"].place, moved["arrays"]["latent"].place) == ("cuda:0", "cuda:0")
    assert (moved["text"], moved["__key__"]) == (["a"], ["k"])
    assert cuda.waited == [delivered.done]
    assert delivered.done.recorded_on == "own stream"
    assert moved["image"].streams == moved["arrays"]["latent"].streams == [cuda.current]


class Titled(collections.UserDict):
    """A mapping with an attribute of its own, as a tokenizer's."""

    title = "none"


class Graph:
    """An object that moves itself, and keeps its tensors to itself."""

    def __init__(self, nodes):
        self.nodes = nodes

    def to(self, device, non_blocking=False):
        return Graph(self.nodes.to(device, non_blocking=non_blocking))


Point = collections.namedtuple("Point", "x y")


def test_tensors_in_containers_come_to_the_gpu_and_the_containers_stay_what_they_are(cuda):
    """Those that torch's pin_memory knows, and objects that have `to`."""
    titled = Titled(latent=fake(5))
    titled.title = "mine"
    numbers = collections.UserList([fake(6), "text"])
    batch = [fake(1), (fake(2), b"bytes"), Point(fake(3), 4), titled, numbers, range(2), Graph(fake(7)), None]
    there = CudaDelivery("cuda:0")
    moved = there.hand_over(there.deliver(batch, lambda batch: batch))
    assert [type(one) for one in moved] == [type(one) for one in batch[:5]] + [list, Graph, type(None)]
    assert (moved[1][1], moved[2].y, moved[4][1], moved[5]) == (b"bytes", 4, "text", [0, 1])
    assert moved[3].title == "mine" and batch[3]["latent"].place is None
    tensors = [moved[0], moved[1][0], moved[2].x, moved[3]["latent"], moved[4][0], moved[6].nodes]
    assert [int(one) for one in tensors] == [1, 2, 3, 5, 6, 7]
    for tensor in tensors:
        assert (tensor.place, tensor.streams) == ("cuda:0", [cuda.current])
    assert there.counters()["copied_bytes"] == 5 * 8  # what moves itself is not counted


class Slotted:
    """Keeps its tensor in a slot, knows its parent, and moves itself when it is told where, and no more."""

    __slots__ = ("nodes", "parent", "unset")

    def __init__(self, nodes):
        self.nodes, self.parent = nodes, [self]

    def to(self, device):
        return Slotted(self.nodes.to(device, non_blocking=True))


class Passing(Graph):
    def to(self, *arguments, **named):
        return Passing(self.nodes.to(*arguments, **named))


@pytest.mark.parametrize("kind", [Slotted, Passing])
def test_what_moves_itself_is_told_no_more_than_it_takes_and_its_tensors_are_found(cuda, kind):
    there = CudaDelivery("cuda:0")
    (moved,) = there.hand_over(there.deliver([kind(fake(7))], lambda batch: batch))
    assert (moved.nodes.place, moved.nodes.streams) == ("cuda:0", [cuda.current])


def test_a_batch_is_finished_on_the_device_and_the_own_stream(cuda):
    there = CudaDelivery("cuda:0")
    seen = []

    def finish(batch):
        seen.append((cuda.inside, batch["image"].place))
        return {"image": batch["image"].to("there", non_blocking=True)}

    delivered = there.deliver({"image": fake(1)}, finish)
    assert seen == [("own stream", "cuda:0")]
    assert there.hand_over(delivered)["image"].place == "there"


def test_pinned_memory_is_kept_until_its_copy_is_done(cuda):
    there = CudaDelivery("cuda:0")
    source = fake(1)
    gone = [weakref.ref(source)]
    there.deliver({"image": source}, lambda batch: batch)
    del source
    there.deliver({}, lambda batch: batch)
    assert gone[0]() is not None
    assert len(there._in_flight) == 2
    cuda.done = True
    there.deliver({}, lambda batch: batch)
    assert gone[0]() is None
    assert len(there._in_flight) == 1


def test_the_counters_are_of_what_is_done(cuda):
    there = CudaDelivery("cuda:0")
    there.deliver({"image": fake(1, 2)}, lambda batch: batch)
    assert there.counters()["batches"] == 0
    cuda.done = True
    counters = there.counters()
    assert counters == {"batches": 1, "copied_bytes": 16, "copy_seconds": 0.003, "augment_seconds": 0.003}


def test_counters_are_asked_for_while_batches_are_delivered(cuda):
    """Two threads must not take the same batch for done; with no lock this fails within a few hundred
    turns."""
    cuda.done = True
    there = CudaDelivery("cuda:0")
    stop, errors = threading.Event(), []

    def ask():
        while not stop.is_set():
            try:
                there.counters()
            except Exception as error:
                errors.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(3000):
        there.deliver({}, lambda batch: batch)
    stop.set()
    asking.join()
    sys.setswitchinterval(before)
    assert errors == []
    assert there.counters()["batches"] == 3000


def test_closing_waits_for_what_is_still_read(cuda):
    there = CudaDelivery("cuda:0")
    there.deliver({"image": fake(1)}, lambda batch: batch)
    there.close()
    assert cuda.done
    assert len(there._in_flight) == 0


def test_pinned_memory_that_is_not_there_is_a_lack_of_memory(cuda, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("CUDA error: out of memory")

    there = CudaDelivery("cuda:0")
    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.raises(MemoryError, match="7 bytes of pinned memory"):
        there.pinned(7)


def test_auto_is_a_device_that_torch_can_use(shards):
    batch = next(iter(fl.Loader(shards, 2, {"image": fl.Image(size=8)}, device="auto")))
    assert batch["image"].device.type == ("cuda" if torch.cuda.is_available() else "cpu")
