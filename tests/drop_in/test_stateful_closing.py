"""Closing a loader of a torch dataset ends its iteration and its workers."""

import threading

import pytest

import fastload as fl
from fastload.errors import ConfigError


class Numbers:
    def __len__(self):
        return 24

    def __getitem__(self, i):
        return i


def torch_loader(workers: int, **more):
    return fl.DataLoader(Numbers(), 4, num_workers=workers, **more)


@pytest.mark.parametrize("how", [{}, {"persistent_workers": True}], ids=["", "persistent"])
@pytest.mark.parametrize("workers", [0, 2])
def test_close_ends_an_iteration_of_a_torch_dataset_and_its_workers(workers, how):
    loader = torch_loader(workers, **(how if workers else {}))
    iterator = iter(loader)
    first = next(iterator).tolist()
    processes = list(getattr(iterator, "_workers", []))
    assert len(processes) == workers and all(one.is_alive() for one in processes)
    loader.close()
    assert not any(one.is_alive() for one in processes)
    with pytest.raises(StopIteration):
        next(iterator)
    loader.close()
    assert next(iter(loader)).tolist() == first
    loader.close()


def test_a_loader_of_a_torch_dataset_that_was_never_used_can_be_closed():
    with torch_loader(2) as loader:
        pass
    assert len(list(loader)) == 6


def test_the_state_of_a_loader_of_a_torch_dataset_outlives_its_closing():
    loader = torch_loader(0)
    iterator = iter(loader)
    next(iterator), next(iterator)
    loader.close()
    rest = torch_loader(0)
    rest.load_state_dict(loader.state_dict())
    assert [batch.tolist() for batch in rest] == [batch.tolist() for batch in torch_loader(0)][2:]


def test_closing_a_loader_of_a_torch_dataset_from_another_thread_is_told(monkeypatch):
    begun, go = threading.Event(), threading.Event()

    class Waits(Numbers):
        def __getitem__(self, i):
            begun.set()
            go.wait(10)
            raise ValueError("of the dataset, after it was closed")

    loader = fl.DataLoader(Waits(), 4)

    def close():
        begun.wait(10)
        loader.close()
        go.set()

    closing = threading.Thread(target=close)
    closing.start()
    with pytest.raises(ConfigError, match="closed while this batch was made"):
        next(iter(loader))
    closing.join()
