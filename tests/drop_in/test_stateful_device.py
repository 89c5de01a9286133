"""Batches of a torch dataset on a device: copied ahead of need, and saved as without a device."""

import copy
import itertools
import pickle

import pytest
import torch
from torch.utils.data import TensorDataset

from fastload import DataLoader as OurLoader
from fastload.loader.device import CpuDelivery
from tests.drop_in.stateful_cases import Numbers, OwnStream, after, epoch, maker, rest_of, workers
from tests.quick import slow_but

pytestmark = [
    pytest.mark.filterwarnings("ignore:neither the dataset nor its iterator"),
    pytest.mark.filterwarnings("ignore:with in_order=False"),
]


def test_on_a_device_one_batch_is_on_its_way_while_the_last_is_used(calls):
    iterator = iter(OurLoader(Numbers(3), None, device="cuda"))
    assert calls == []
    assert next(iterator) == 0
    assert calls == [("deliver", 0), ("deliver", 1), ("hand over", 0)]
    assert list(iterator) == [1, 2]
    assert calls[3:] == [("deliver", 2), ("hand over", 1), ("hand over", 2)]
    with pytest.raises(StopIteration):
        next(iterator)


CASES = ("shuffled", "own place", "no state", "dataset's state", "iterator's state")


@pytest.mark.parametrize(
    ("num_workers", "case"),
    slow_but(
        [*itertools.product([0], CASES), (2, "shuffled"), (2, "dataset's state")],
        itertools.product([0, 2], CASES),
    ),
)
def test_on_a_device_the_state_is_that_of_the_batch_delivered(calls, case, num_workers):
    make = maker(OurLoader, case, num_workers, device="cuda")
    whole = epoch(maker(OurLoader, case, num_workers)())
    for step in (0, 1, 2, len(whole)):
        batches, state = after(make, step)
        assert batches == whole[:step]
        assert rest_of(make, state) == whole[step:], step
    _, state = after(make, len(whole), finish=True)
    assert state["finished"]


class Interrupted(Numbers):
    interrupted = False

    def __getitem__(self, index):
        if index == 1 and not self.interrupted:
            self.interrupted = True
            raise KeyboardInterrupt
        return index


def test_on_a_device_an_interrupt_loses_no_batch(calls):
    loader = OurLoader(Interrupted(4), None, device="cuda")
    iterator = iter(loader)
    with pytest.raises(KeyboardInterrupt):
        next(iterator)
    assert rest_of(lambda: OurLoader(Numbers(4), None), loader.state_dict()) == [0, 1, 2, 3]
    assert next(iterator) == 0


def test_on_a_device_an_error_comes_at_its_batch_and_iteration_goes_on(calls):
    loader = OurLoader(Numbers(5, bad=2), None, device="cuda")
    iterator = iter(loader)
    assert [next(iterator), next(iterator)] == [0, 1]
    with pytest.raises(ValueError, match="bad"):
        next(iterator)
    assert list(iterator) == [3, 4]


def test_all_iterations_over_a_loader_share_one_stream_and_its_copies_have_their_own(monkeypatch, calls):
    made = []
    monkeypatch.setattr(
        "fastload.drop_in.stateful_loader.delivery", lambda device: made.append(device) or OwnStream(calls)
    )
    loader = OurLoader(Numbers(2), None, device="cuda")
    assert epoch(loader) == epoch(loader) == [0, 1]
    assert made == ["cuda"]
    for other in (pickle.loads(pickle.dumps(loader)), copy.copy(loader)):
        assert epoch(other) == [0, 1]
    assert made == ["cuda"] * 3
    loader.device = "cuda:1"
    assert epoch(loader) == [0, 1]
    assert made[3:] == ["cuda:1"]


@pytest.mark.parametrize("device", [None, "cpu", torch.device("cpu")])
def test_on_the_cpu_batches_are_torch_s_own(device):
    loader = OurLoader(Numbers(2), None, device=device)
    assert loader.device is device
    assert type(iter(loader)).__name__ == "_Iterator"
    assert CpuDelivery.stream is None
    assert epoch(loader) == [0, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@workers
@pytest.mark.parametrize("pin_memory", [False, True])
def test_batches_come_to_the_gpu(num_workers, pin_memory):
    dataset = TensorDataset(torch.arange(4000).reshape(40, 100), torch.ones(40))
    loader = OurLoader(dataset, 4, num_workers=num_workers, pin_memory=pin_memory, device="cuda")
    seen = []
    for numbers, ones in loader:
        assert numbers.device.type == ones.device.type == "cuda"
        torch.cuda._sleep(1_000_000)
        seen.append(numbers.clone())
    assert torch.equal(torch.cat(seen).cpu(), dataset.tensors[0])
