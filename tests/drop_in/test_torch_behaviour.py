"""What torch documents of its DataLoader, asked of torch's class and of ours."""

import collections
import copy
import inspect
import itertools
import pickle
import random
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
)
from torch.utils.data.dataloader import default_collate, default_convert
from torchdata.stateful_dataloader import StatefulDataLoader

from fastload import DataLoader as OurLoader
from tests.drop_in.torch_cases import Numbers, Stream, both, both_and_workers, epochs, mark_dataset
from tests.quick import slow_but

pytestmark = pytest.mark.filterwarnings("ignore:.*pin_memory", "ignore:This DataLoader will create")
workers = pytest.mark.parametrize("num_workers", [0, 2])


class ManyAtOnce(Numbers):
    def __getitems__(self, indices):
        return [100 + index for index in indices]


class Dice(Numbers):
    """What a worker's three global generators give, and its seed."""

    def __getitem__(self, index):
        worker = get_worker_info()
        seed = None if worker is None else worker.seed
        return index, seed, random.random(), float(np.random.rand()), float(torch.rand(()))


class SizedStream(Stream):
    def __len__(self):
        return self.length


class Eager:
    """A batch sampler that draws its whole order when it is asked for an iterator."""

    def __init__(self, n=11):
        self.n = n

    def __iter__(self):
        return iter([[int(i)] for i in torch.randperm(self.n)])

    def __len__(self):
        return self.n


def as_list(samples):
    return list(samples)


def test_our_signature_is_torch_s_a_device_and_torchdata_s_own():
    ours = inspect.signature(OurLoader.__init__).parameters
    theirs = inspect.signature(DataLoader.__init__).parameters
    assert [*ours] == [*theirs, "device", "snapshot_every_n_steps"]
    for name, one in theirs.items():
        assert (ours[name].default, ours[name].kind) == (one.default, one.kind), name
    torchdata = inspect.signature(StatefulDataLoader.__init__).parameters
    for name, default in (("device", None), ("snapshot_every_n_steps", 1)):
        assert ours[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert ours[name].default == default
    assert [*torchdata] == [name for name in ours if name != "device"]


def test_the_two_private_names_of_torch_mean_what_we_take_them_for():
    """If one of these fails, torch has changed how its iterators are made: see epoch_record.py."""
    assert inspect.signature(DataLoader._get_iterator).parameters.keys() == {"self"}
    assert isinstance(DataLoader._index_sampler, property)
    loader = DataLoader(Numbers(), batch_size=2)
    assert loader._index_sampler is loader.batch_sampler
    assert DataLoader(Numbers(), batch_size=None)._index_sampler.__class__ is SequentialSampler
    for name in ("_get_iterator()", "_iterator._reset(self)"):
        assert name in inspect.getsource(DataLoader.__iter__)


def test_torch_asks_for_one_index_per_batch_that_is_through():
    """Ours counts on it: what was asked for, less what was asked for at first, is what is through."""

    class Counted(SequentialSampler):
        asked = 0

        def __iter__(self):
            for index in super().__iter__():
                self.asked += 1
                yield index

    sampler = Counted(Numbers(40))
    iterator = iter(DataLoader(Numbers(40), None, sampler=sampler, num_workers=2, prefetch_factor=3))
    assert sampler.asked == 6
    for through in range(1, 5):
        next(iterator)
        assert sampler.asked == 6 + through


@both
def test_it_is_a_loader_of_torch_with_torch_s_attributes(loader_class):
    dataset = Numbers()
    loader = loader_class(dataset, 4, True, collate_fn=as_list, worker_init_fn=mark_dataset, num_workers=1)
    assert isinstance(loader, DataLoader)
    assert (loader.dataset, loader.collate_fn, loader.worker_init_fn) == (dataset, as_list, mark_dataset)
    assert type(loader.batch_sampler) is BatchSampler and type(loader.sampler) is RandomSampler
    next(iter(loader))
    assert (loader.dataset, loader.collate_fn, loader.worker_init_fn) == (dataset, as_list, mark_dataset)
    assert type(loader.batch_sampler) is BatchSampler and type(loader.sampler) is RandomSampler
    assert (loader.prefetch_factor, loader._iterator) == (2, None)
    assert loader_class(dataset).collate_fn is default_collate
    assert loader_class(dataset, None).collate_fn is default_convert
    with pytest.raises(ValueError, match="dataset attribute should not be set after"):
        loader.dataset = dataset


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_workers": -1}, "num_workers option should be non-negative"),
        ({"timeout": -1}, "timeout option should be non-negative"),
        ({"prefetch_factor": 2}, "prefetch_factor option could only be specified in multiprocessing"),
        ({"persistent_workers": True}, "persistent_workers option needs num_workers > 0"),
        ({"sampler": [1], "shuffle": True}, "sampler option is mutually exclusive with shuffle"),
        ({"batch_sampler": [[1]], "batch_size": 2}, "batch_sampler option is mutually exclusive"),
        ({"batch_size": None, "drop_last": True}, "batch_size=None option disables auto-batching"),
        ({"multiprocessing_context": "spawn"}, "can only be used with multi-process loading"),
        ({"num_workers": 1, "multiprocessing_context": "x"}, "should specify a valid start method"),
    ],
)
@both
def test_arguments_that_contradict_each_other_are_refused_in_torch_s_words(loader_class, arguments, message):
    with pytest.raises(ValueError, match=message):
        loader_class(Numbers(), **arguments)


@pytest.mark.parametrize("arguments", [{"sampler": [0]}, {"batch_sampler": [[0]]}, {"shuffle": True}])
@both
def test_an_iterable_dataset_takes_no_sampler(loader_class, arguments):
    with pytest.raises(ValueError, match="DataLoader with IterableDataset: expected unspecified"):
        loader_class(Stream(), **arguments)


ORDERS = {
    "sequential": lambda: {"batch_size": 4},
    "shuffled": lambda: {"batch_size": 4, "shuffle": True},
    "generator": lambda: {"shuffle": True, "generator": torch.Generator().manual_seed(5)},
    "sampler": lambda: {"batch_size": 3, "sampler": RandomSampler(range(11), True, 37)},
    "weighted": lambda: {"batch_size": 2, "sampler": WeightedRandomSampler([1.0] * 11, 9)},
    "distributed": lambda: {"batch_size": 2, "sampler": DistributedSampler(range(11), 2, 1)},
    "drop_last": lambda: {"batch_size": 4, "shuffle": True, "drop_last": True},
    "batch sampler": lambda: {"batch_sampler": BatchSampler(RandomSampler(range(11)), 4, False)},
    "eager": lambda: {"batch_sampler": Eager()},
    "list": lambda: {"batch_sampler": [[1], [4, 4, 7], [0, 2]]},
    "unbatched": lambda: {"batch_size": None, "shuffle": True},
}


# In workers: orders that are drawn early and late, by torch's samplers and by one that draws by itself.
QUICK_IN_WORKERS = ("shuffled", "generator", "eager", "unbatched")


@pytest.mark.parametrize(
    ("num_workers", "order"),
    slow_but(
        [*itertools.product([0], ORDERS), *itertools.product([2], QUICK_IN_WORKERS)],
        itertools.product([0, 2], ORDERS),
    ),
)
def test_batches_and_generators_for_a_seed_are_torch_s(order, num_workers):
    """And after two epochs the global generator is where torch leaves it."""
    seen = []
    for loader_class in (DataLoader, OurLoader):
        torch.manual_seed(13)
        made = loader_class(Numbers(), num_workers=num_workers, **ORDERS[order]())
        seen.append((epochs(made, 2), len(made), torch.rand(2).tolist()))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("persistent_workers", [False, True])
def test_workers_have_torch_s_seeds(persistent_workers):
    seen = []
    for loader_class in (DataLoader, OurLoader):
        torch.manual_seed(7)
        made = loader_class(Dice(6), None, num_workers=2, persistent_workers=persistent_workers)
        seen.append(epochs(made))
    assert seen[0] == seen[1]
    assert len({sample[1] for sample in seen[0][0]}) == 2


@both_and_workers
def test_the_last_batch_is_smaller_or_dropped(loader_class, num_workers):
    assert epochs(loader_class(Numbers(5), 2, num_workers=num_workers), 1) == [[[0, 1], [2, 3], [4]]]
    dropped = loader_class(Numbers(5), 2, drop_last=True, num_workers=num_workers)
    assert epochs(dropped, 1) == [[[0, 1], [2, 3]]]
    assert len(dropped) == len(iter(dropped)) == 2


@both
def test_an_empty_dataset_has_no_batches(loader_class):
    loader = loader_class(Numbers(0), 2)
    assert (list(loader), len(loader)) == ([], 0)


@both
def test_default_collate_makes_tensors_in_the_containers_of_the_samples(loader_class):
    point = collections.namedtuple("point", "x y")
    samples = [{"a": 1.5, "b": ("s", np.ones(2, np.float32)), "c": point(1, [2])}] * 3
    batch = next(iter(loader_class(samples, 3)))
    assert batch["a"].dtype is torch.float64 and batch["a"].shape == (3,)
    assert list(batch["b"][0]) == ["s"] * 3 and batch["b"][1].shape == (3, 2)
    assert type(batch["c"]) is point and batch["c"].y[0].tolist() == [2, 2, 2]


@both_and_workers
def test_a_collate_fn_of_yours_gets_the_samples(loader_class, num_workers):
    assert epochs(loader_class(Numbers(5), 2, num_workers=num_workers, collate_fn=as_list), 1) == [
        [[0, 1], [2, 3], [4]]
    ]


@both_and_workers
def test_a_dataset_may_fetch_a_whole_batch(loader_class, num_workers):
    assert epochs(loader_class(ManyAtOnce(3), 2, num_workers=num_workers), 1) == [[[100, 101], [102]]]


@both_and_workers
def test_an_iterable_dataset_is_read_by_each_worker(loader_class, num_workers):
    loader = loader_class(Stream(7), 2, num_workers=num_workers)
    expected = [[0, 1], [2, 3], [4, 5], [6]] if num_workers == 0 else [[0, 2], [1, 3], [4, 6], [5]]
    assert epochs(loader) == [expected, expected]
    dropped = loader_class(Stream(7), 2, num_workers=num_workers, drop_last=True)
    assert epochs(dropped, 1) == [expected[:3]]
    one_by_one = loader_class(Stream(5), None, num_workers=num_workers)
    assert epochs(one_by_one, 1) == [[0, 1, 2, 3, 4]]
    with pytest.raises(TypeError, match="has no len"):
        len(loader)


@both
def test_the_length_of_an_iterable_dataset_is_a_promise(loader_class):
    """torch warns when there are more batches than it was told samples."""
    assert len(loader_class(SizedStream(6, length=5), 2)) == 3
    assert len(loader_class(SizedStream(6, length=5), 2, drop_last=True)) == 2
    loader = loader_class(SizedStream(6, length=1), 2)
    assert len(loader) == 1
    with pytest.warns(UserWarning, match=r"Length of IterableDataset <.*SizedStream.*> was reported to be 1"):
        assert len(list(loader)) == 3


@both_and_workers
def test_an_error_comes_at_its_batch_and_iteration_goes_on(loader_class, num_workers):
    iterator = iter(loader_class(Numbers(9, bad=4), 2, num_workers=num_workers))
    assert [next(iterator).tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(ValueError, match="sample 4 is bad") as caught:
        next(iterator)
    if num_workers:
        assert "Original Traceback" in str(caught.value) and "__getitem__" in str(caught.value)
    assert [batch.tolist() for batch in iterator] == [[6, 7], [8]]


@both_and_workers
def test_iterations_may_be_nested(loader_class, num_workers):
    loader = loader_class(Numbers(3), None, num_workers=num_workers)
    assert [(a, b) for a in loader for b in loader] == [(a, b) for a in range(3) for b in range(3)]


@both_and_workers
def test_an_early_break_leaves_a_whole_epoch_for_the_next(loader_class, num_workers):
    loader = loader_class(Numbers(7), 2, num_workers=num_workers)
    for batch in loader:
        assert batch.tolist() == [0, 1]
        break
    assert epochs(loader, 1) == [[[0, 1], [2, 3], [4, 5], [6]]]


@both_and_workers
def test_an_iterator_at_its_end_stays_there(loader_class, num_workers):
    iterator = iter(loader_class(Numbers(2), num_workers=num_workers))
    assert len(list(iterator)) == 2
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(iterator)


@both
def test_loaders_can_be_pickled_and_copied_once_they_have_run_and_iterators_cannot(loader_class):
    loader = loader_class(Numbers(4), 2)
    iterator = iter(loader)
    next(iterator)
    for again in (pickle.loads(pickle.dumps(loader)), copy.deepcopy(loader), copy.copy(loader)):
        assert type(again) is loader_class
        assert epochs(again, 1) == [[[0, 1], [2, 3]]]
    with pytest.raises(NotImplementedError, match="cannot be pickled"):
        pickle.dumps(iterator)


@both
def test_pin_memory_without_a_gpu_is_a_warning(loader_class):
    if torch.accelerator.is_available():
        pytest.skip("there is a GPU")
    with pytest.warns(UserWarning, match="no accelerator is found"):
        assert len(list(loader_class(Numbers(2), pin_memory=True))) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@both
@workers
def test_pin_memory_pins_tensors_in_containers(loader_class, num_workers):
    samples = [{"a": torch.zeros(2), "b": "text"}] * 4
    for batch in loader_class(samples, 2, pin_memory=True, num_workers=num_workers):
        assert batch["a"].is_pinned() and batch["b"] == ["text"] * 2


@both
def test_datapipes_keep_their_shuffle_and_sharding(loader_class):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.utils.data.datapipes.iter import IterableWrapper

        pipe = IterableWrapper(range(12)).shuffle().sharding_filter()
    seen = []
    for one in (DataLoader, loader_class):
        torch.manual_seed(3)
        seen.append(epochs(one(pipe, None, shuffle=True, num_workers=2)))
    assert seen[0] == seen[1]
    assert sorted(seen[1][0]) == list(range(12))


@both
def test_a_tensor_dataset_gives_lists_of_tensors(loader_class):
    batch = next(iter(loader_class(TensorDataset(torch.arange(4), torch.ones(4)), 4)))
    assert type(batch) is list and [one.tolist() for one in batch] == [[0, 1, 2, 3], [1.0] * 4]


class Delegating(OurLoader):
    """Has what its dataset has."""

    def __getattr__(self, name):
        return getattr(self.dataset, name)


def test_a_subclass_may_pass_attributes_on_to_its_dataset():
    loader = Delegating(TensorDataset(torch.arange(3)))
    assert len(list(loader)) == 3
    assert torch.equal(loader.tensors[0], torch.arange(3))


class OfNumbers(OurLoader[int]):
    pass


@both
def test_the_type_of_its_batches_can_be_named(loader_class):
    assert epochs(loader_class[int](Numbers(3), None), 1) == [[0, 1, 2]]
    assert epochs(OfNumbers(Numbers(3), None), 1) == [[0, 1, 2]]
    assert type(loader_class[int](Numbers(3))) is loader_class
