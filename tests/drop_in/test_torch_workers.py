"""What torch documents of a DataLoader's workers, asked of torch's class and of ours."""

import multiprocessing
import os

import pytest
from torch.utils.data import IterableDataset, get_worker_info

from tests.drop_in.torch_cases import Numbers, Stream, both, epochs, mark_dataset

pytestmark = pytest.mark.filterwarnings("ignore:.*pin_memory", "ignore:This DataLoader will create")


class Whose(Numbers):
    def __getitem__(self, index):
        return os.getpid()


class StreamOfInfo(IterableDataset):
    """What worker_init_fn wrote on the dataset of get_worker_info(), and whether that is this one."""

    mark = "none"

    def __iter__(self):
        worker = get_worker_info()
        yield f"{worker.id} of {worker.num_workers}, {worker.dataset.mark}, {worker.dataset is self}"


def fail_to_start(worker_id):
    raise RuntimeError(f"worker {worker_id} cannot start")


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
@both
def test_worker_init_fn_finds_your_dataset_in_get_worker_info(loader_class, context):
    loader = loader_class(
        StreamOfInfo(), None, num_workers=2, worker_init_fn=mark_dataset, multiprocessing_context=context
    )
    assert list(loader) == ["0 of 2, worker 0, True", "1 of 2, worker 1, True"]
    assert get_worker_info() is None


@pytest.mark.slow  # torch waits for such a worker, now and then
@both
def test_a_worker_that_cannot_start_says_why(loader_class):
    for dataset in (Numbers(), Stream()):
        loader = loader_class(dataset, num_workers=1, worker_init_fn=fail_to_start)
        with pytest.raises(
            RuntimeError, match=r"(?s)Caught RuntimeError in DataLoader worker.*worker 0 cannot start"
        ):
            next(iter(loader))


@both
def test_a_batch_that_takes_too_long_is_an_error(loader_class):
    numbers = Numbers(2, slow=1)
    iterator = iter(loader_class(numbers, num_workers=1, timeout=0.5))
    assert next(iterator).tolist() == [0]
    with pytest.raises(RuntimeError, match=r"DataLoader timed out after 0.5 seconds"):
        next(iterator)
    numbers.go_on.set()  # or the worker would be waited for


class Dies(Numbers):
    def __getitem__(self, index):
        os._exit(3)


@both
def test_a_worker_that_dies_is_an_error(loader_class):
    with pytest.raises(RuntimeError, match=r"DataLoader worker \(pid.*\) exited unexpectedly"):
        next(iter(loader_class(Dies(), num_workers=1)))


@both
def test_persistent_workers_live_on_and_others_do_not(loader_class):
    lasting = epochs(loader_class(Whose(2), None, num_workers=2, persistent_workers=True))
    assert set(lasting[0]) == set(lasting[1]) and len(set(lasting[0])) == 2
    passing = epochs(loader_class(Whose(2), None, num_workers=2))
    assert not set(passing[0]) & set(passing[1])


@both
def test_persistent_workers_begin_anew_after_an_epoch_that_was_broken_off(loader_class):
    for dataset in (Numbers(9), Stream(9)):
        loader = loader_class(dataset, None, num_workers=2, persistent_workers=True)
        first = iter(loader)
        assert [next(first), next(first)] == [0, 1]
        assert epochs(loader, 2) == [list(range(9))] * 2
        assert loader._iterator is not None
        loader._iterator._shutdown_workers()
        loader._iterator = None  # so do frameworks that end workers themselves
        assert epochs(loader, 1) == [list(range(9))]


@both
def test_in_order_false_gives_each_batch_once_and_passes_a_slow_one(loader_class):
    numbers = Numbers(8, slow=0)
    iterator = iter(loader_class(numbers, None, num_workers=2, in_order=False))
    first = next(iterator)
    numbers.go_on.set()
    assert first != 0
    assert sorted([first, *iterator]) == list(range(8))
    assert sorted(loader_class(Stream(8), None, num_workers=2, in_order=False)) == list(range(8))


@both
def test_the_workers_of_an_iteration_end_with_it(loader_class):
    loader = loader_class(Numbers(50), num_workers=2)
    iterator = iter(loader)
    next(iterator)
    processes = multiprocessing.active_children()
    assert len(processes) == 2 and all(one.is_alive() for one in processes)
    del iterator
    for one in processes:
        one.join(5)
    assert not any(one.is_alive() for one in processes)
