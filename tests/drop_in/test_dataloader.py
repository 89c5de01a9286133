"""fl.DataLoader of an fl.Dataset: torch's arguments, fastload's Loader."""

import copy
import inspect
import json
import pickle
import threading
import warnings

import pytest
import torch
from torch.utils.data import BatchSampler, ConcatDataset, RandomSampler, Subset, default_collate

import fastload as fl
from fastload.errors import BatchTimeoutError, ConfigError
from tests import preloaded
from tests.contracts.stream import assert_every_cursor_gives_the_rest
from tests.drop_in.datasets import FIELDS, N
from tests.loader import samples
from tests.loader.samples import flat, labels


def test_it_is_a_loader_and_no_torch_dataloader(dataset):
    loader = fl.DataLoader(dataset)
    assert type(loader) is fl.Loader and not isinstance(loader, torch.utils.data.DataLoader)
    assert isinstance(fl.DataLoader([1, 2, 3]), torch.utils.data.DataLoader)
    assert type(fl.DataLoader([1, 2, 3])) is fl.DataLoader


def test_it_takes_torchs_arguments_in_torchs_order_and_two_more(dataset):
    """A call by place means the same, whichever dataset is given."""
    torchs = inspect.signature(torch.utils.data.DataLoader.__init__).parameters
    ours = inspect.signature(fl.DataLoader.__init__).parameters
    assert list(ours) == [*torchs, "device", "snapshot_every_n_steps"]
    for name in list(ours)[2:-2]:
        assert (ours[name].default, ours[name].kind) == (torchs[name].default, torchs[name].kind), name


def test_defaults_are_torchs_batches_of_one_in_order_none_left_out(dataset):
    loader = fl.DataLoader(dataset)
    assert len(loader) == N and flat(loader) == list(range(N))
    assert (loader.batch_size, loader.drop_last, loader.dataset) == (1, False, dataset)


@pytest.mark.parametrize("drop_last", [False, True])
def test_drop_last_decides_about_the_incomplete_batch(dataset, drop_last):
    loader = fl.DataLoader(dataset, 4, drop_last=drop_last)
    sizes = [len(batch["label"]) for batch in loader]
    assert sizes == [4] * 5 + ([] if drop_last else [3])
    assert len(loader) == len(sizes) and loader.drop_last is drop_last


def test_shuffle_is_another_order_in_each_epoch_and_the_same_in_each_run(dataset):
    epochs = [flat(loader) for loader in [fl.DataLoader(dataset, 4, shuffle=True)] for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(N))
    assert len({tuple(epoch) for epoch in (*epochs, range(N))}) == 3
    assert flat(fl.DataLoader(dataset, 4, shuffle=True)) == epochs[0]


def test_the_generator_gives_the_seed_and_is_left_as_it_was(dataset, shards):
    for seed in (0, 7, -1, 2**63):
        generator = torch.Generator().manual_seed(seed)
        before = generator.get_state()
        got = flat(fl.DataLoader(dataset, 4, shuffle=True, generator=generator))
        assert got == flat(labels(shards, 4, seed=seed % 2**64, last="partial"))
        assert torch.equal(generator.get_state(), before)


def test_the_window_of_the_dataset_is_for_shuffling(shards):
    dataset = fl.Dataset(shards, FIELDS, window=5)
    assert flat(fl.DataLoader(dataset, 4, shuffle=True)) == flat(labels(shards, 4, window=5, last="partial"))
    assert flat(fl.DataLoader(dataset, 4)) == list(range(N))
    assert flat(fl.DataLoader(dataset, 4, sampler=[3, 1])) == [3, 1]


class DrawnFrom:
    """Counts what was drawn from it."""

    def __iter__(self):
        self.drawn = 0
        for index in range(N):
            self.drawn += 1
            yield index

    def __len__(self):
        return N


def drawn_ahead(loader) -> int:
    """How many batches of one sample are on their way with the first one delivered."""
    next(iter(loader))
    return loader.sampler.drawn - 1


def test_num_workers_are_threads_and_prefetch_factor_batches_for_each(dataset):
    usual, sampler = fl.Loader(dataset.source, 1, FIELDS, sampler=DrawnFrom()), DrawnFrom()
    for arguments, ahead in [
        ({}, drawn_ahead(usual)),
        ({"num_workers": 3, "prefetch_factor": 5, "persistent_workers": True}, 15),
        ({"num_workers": 2, "prefetch_factor": 0}, 1),
    ]:
        loader = fl.DataLoader(dataset, sampler=sampler, **arguments)
        assert drawn_ahead(loader) == ahead
        threads = arguments.get("num_workers", usual.stats()["stages"]["decode"]["threads"])
        assert loader.stats()["stages"]["decode"]["threads"] == threads


def test_collate_fn_is_given_the_samples_of_a_batch(dataset):
    seen = []

    def collate(batch):
        seen.append(batch)
        return default_collate([{"image": one["image"], "label": one["label"]} for one in batch])

    got = list(fl.DataLoader(dataset, 4, collate_fn=collate))
    expected = list(fl.DataLoader(dataset, 4))
    for mine, plain in zip(got, expected, strict=True):
        assert torch.equal(mine["image"], plain["image"]) and torch.equal(mine["label"], plain["label"])
    assert [len(batch) for batch in seen] == [4] * 5 + [3]
    assert seen[0][1]["__key__"] == "00001" and seen[0][1]["image"].shape == (3, 8, 8)


def test_tuples_come_as_torch_collates_them(shards):
    dataset = fl.Dataset(shards, FIELDS | {"text": fl.Text()}, as_tuple=True)
    batch = next(iter(fl.DataLoader(dataset, 3)))
    images, numbers, texts = batch
    assert type(batch) is list and images.shape == (3, 3, 8, 8)
    assert numbers.tolist() == [0, 1, 2] and texts == ["caption 0", "caption 1", "caption 2"]
    given = next(iter(fl.DataLoader(dataset, 3, collate_fn=list)))
    assert [type(one) for one in given] == [tuple] * 3 and given[2][2] == "caption 2"
    assert torch.equal(given[1][0], images[1])


def test_the_datasets_map_batch_comes_before_collate_fn(shards):
    def double(batch):
        return batch | {"label": batch["label"] * 2}

    dataset = fl.Dataset(shards, FIELDS, map_batch=double, as_tuple=True)
    got = next(iter(fl.DataLoader(dataset, 3, collate_fn=lambda batch: [int(label) for _, label in batch])))
    assert got == [0, 2, 4]
    nothing = fl.Dataset(shards, FIELDS, map_batch=lambda batch: None)
    with pytest.raises(ConfigError, match="map_batch returned None"):
        next(iter(fl.DataLoader(nothing, 3)))


@pytest.mark.parametrize("as_batches", [False, True])
def test_samplers_and_batch_samplers_are_honoured(dataset, as_batches):
    def sampler():
        return RandomSampler(range(N), generator=torch.Generator().manual_seed(3))

    expected = list(BatchSampler(sampler(), 4, False))
    if as_batches:
        loader = fl.DataLoader(dataset, batch_sampler=BatchSampler(sampler(), 4, False))
    else:
        loader = fl.DataLoader(dataset, 4, sampler=sampler())
    assert [batch["label"].tolist() for batch in loader] == expected
    assert len(loader) == 6


@pytest.mark.parametrize("arguments", [{"shuffle": True}, {"batch_sampler": [[i, i + 1] for i in range(9)]}])
def test_every_cursor_gives_the_rest(dataset, arguments):
    def make():
        return fl.DataLoader(dataset, **({"batch_size": 2} if "shuffle" in arguments else {}), **arguments)

    def restore(state):
        loader = make()
        loader.load_state_dict(json.loads(json.dumps(state)))
        return iter(loader)

    assert_every_cursor_gives_the_rest(make, restore)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"batch_size": None}, "Use batch_size=1"),
        ({"batch_size": 0}, "batch_size must be .*, got 0"),
        ({"sampler": [1], "shuffle": True}, "mutually exclusive"),
        ({"batch_sampler": [[1]], "batch_size": 2}, "mutually exclusive"),
        ({"batch_sampler": [[1]], "shuffle": True}, "mutually exclusive"),
        ({"batch_sampler": [[1]], "sampler": [1]}, "mutually exclusive"),
        ({"batch_sampler": [[1]], "drop_last": True}, "mutually exclusive"),
        ({"num_workers": -1}, "num_workers must be .*, got -1"),
        ({"timeout": -1}, "timeout must be .*, got -1"),
        ({"timeout": None}, "timeout must be .*, got None"),
        ({"num_workers": None}, "num_workers must be .*, got None"),
        ({"num_workers": 2.0}, "num_workers must be .*, got 2.0"),
        ({"generator": 3}, "must be a torch.Generator or None, got 3"),
        ({"prefetch_factor": 2}, "needs num_workers of at least 1, got 0"),
        ({"prefetch_factor": -1, "num_workers": 1}, "prefetch_factor must be .*, got -1"),
        ({"persistent_workers": True}, "persistent_workers=True needs num_workers"),
        ({"collate_fn": 3}, "collate_fn must be a function"),
    ],
)
def test_what_torch_refuses_is_refused_at_once_as_a_value_error(dataset, arguments, match):
    with pytest.raises(ConfigError, match=match):
        fl.DataLoader(dataset, **arguments)
    if arguments not in ({"batch_size": None}, {"collate_fn": 3}, {"num_workers": 2.0}, {"generator": 3}):
        with pytest.raises((ValueError, TypeError)):
            torch.utils.data.DataLoader(range(5), **arguments)


def test_torchs_attributes_show_what_a_torch_loader_of_the_parts_needs(dataset):
    """accelerate makes one to skip batches: without processes, pinning or a time limit of torch's."""
    given = {
        "num_workers": 2,
        "timeout": 3,
        "collate_fn": len,
        "generator": torch.Generator(),
        "persistent_workers": True,
        "prefetch_factor": 3,
        "in_order": False,
    }
    loader, plain = fl.DataLoader(dataset, 4, **given), torch.utils.data.DataLoader(range(9), 4)
    for name in (
        "num_workers",
        "timeout",
        "pin_memory",
        "prefetch_factor",
        "persistent_workers",
        "worker_init_fn",
        "multiprocessing_context",
        "pin_memory_device",
    ):
        assert getattr(loader, name) == getattr(plain, name), name
    assert (loader.generator, loader.in_order, loader.batch_size) == (given["generator"], False, 4)
    samples = [dataset[0], dataset[1]]
    assert loader.collate_fn(samples) == 2
    assert torch.equal(fl.DataLoader(dataset).collate_fn(samples)["label"], torch.tensor([0, 1]))


def test_a_copy_is_a_loader_of_its_own_at_the_same_place(dataset):
    loader = fl.DataLoader(dataset, 4, shuffle=True, num_workers=1, in_order=False)
    fresh = pickle.loads(pickle.dumps(loader))
    iterator = iter(loader)
    next(iterator)
    copies = [pickle.loads(pickle.dumps(loader)), copy.copy(loader), copy.deepcopy(loader)]
    rest = flat(iterator)
    assert [flat(one) for one in copies] == [rest] * 3
    assert flat(fresh)[4:] == rest and fresh.in_order is False and len(fresh.dataset) == N


@pytest.mark.parametrize("arguments", [{"worker_init_fn": print}, {"multiprocessing_context": "spawn"}])
def test_what_is_meant_for_worker_processes_is_warned_of(dataset, arguments):
    with pytest.warns(UserWarning, match=f"{next(iter(arguments))} has no effect") as caught:
        fl.DataLoader(dataset, num_workers=1, **arguments)
    assert caught[0].filename == __file__


def test_what_holds_anyway_is_not_warned_of(dataset):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loader = fl.DataLoader(dataset, 4, num_workers=2, in_order=False, persistent_workers=True)
        assert flat(loader) == list(range(N))


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_pin_memory_means_the_gpu_and_is_warned_of_where_there_is_none(dataset, monkeypatch):
    with pytest.warns(UserWarning, match="torch sees no GPU") as caught:
        loader = fl.DataLoader(dataset, 4, pin_memory=True)
    assert caught[0].filename == __file__
    assert next(iter(loader))["image"].device.type == "cpu"
    # A loader for whatever GPU there is now finds none that it can use.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "decode: impossible here" in repr(fl.Loader(dataset.source, 4, FIELDS))
    for on_cpu in (loader, fl.DataLoader(dataset, device="cpu"), fl.DataLoader(dataset)):
        assert "decode: native" in repr(on_cpu)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_pin_memory_brings_batches_to_the_gpu(dataset):
    for arguments in ({"pin_memory": True}, {"device": "cuda"}):
        assert next(iter(fl.DataLoader(dataset, 4, **arguments)))["image"].device.type == "cuda"
    assert next(iter(fl.DataLoader(dataset, 4)))["image"].device.type == "cpu"


def test_a_timeout_ends_what_takes_too_long(shards):
    hang = threading.Event()
    dataset = fl.Dataset(shards, {"slow": fl.Custom("txt", lambda content: hang.wait(30))})
    with pytest.raises(BatchTimeoutError, match="took longer"):
        next(iter(fl.DataLoader(dataset, 4, num_workers=1, timeout=0.2)))
    hang.set()


HANGS = """
import sys, threading
import fastload as fl
dataset = fl.Dataset(sys.argv[1], {"slow": fl.Custom("txt", lambda content: threading.Event().wait())})
next(iter(fl.DataLoader(dataset, 4, num_workers=1, timeout=0.2)))
"""


def test_a_program_ends_though_a_function_hangs_for_ever_after_a_timeout(shards):
    """Python waits for its threads at exit, and torchrun for the process."""
    done = preloaded.run(HANGS, shards, limit_seconds=25)
    assert done.status == 1
    assert done.err.splitlines()[-1].startswith("fastload.errors.BatchTimeoutError: a batch took longer")


ENDS = """
import sys, threading, time
import fastload as fl
hang = threading.Event()
dataset = fl.Dataset(sys.argv[1], {"slow": fl.Custom("txt", lambda content: hang.wait())})
try:
    next(iter(fl.DataLoader(dataset, 4, num_workers=1, timeout=0.2)))
except fl.BatchTimeoutError:
    hang.set()
threading.Thread(target=time.sleep, args=(0.7,)).start()  # the user's own, which is waited for
print("well")
"""


def test_a_program_that_ends_by_itself_after_a_timeout_keeps_its_status(shards):
    done = preloaded.run(ENDS, shards, limit_seconds=25)
    assert done[:3] == (0, "well\n", "")


def torchvisions(name, **attributes):
    """An object that torchvision's transform of this name is taken for."""
    return type(name, (), {"__module__": "torchvision.transforms.transforms", **attributes})()


def test_options_of_a_lifted_dataset_may_not_contradict_it(tmp_path):
    class Folder:
        samples = ((str(tmp_path / "a.jpg"), 1),)
        transform = torchvisions(
            "Compose",
            transforms=[
                torchvisions("Resize", size=(8, 8), interpolation="bilinear", max_size=None, antialias=True),
                torchvisions("ToTensor"),
            ],
        )

    (tmp_path / "a.jpg").write_bytes(samples.jpeg(0))
    dataset = fl.Dataset.from_torch(Folder(), decode="pillow", window=5, as_tuple=False)
    assert (dataset.options["decode"], dataset.window, dataset.as_tuple) == ("pillow", 5, False)
    (batch,) = fl.DataLoader(dataset)
    assert batch["image"].shape == (1, 3, 8, 8) and batch["label"].tolist() == [1]
    with pytest.raises(ConfigError, match="normalize= follows from the dataset"):
        fl.Dataset.from_torch(Folder(), normalize="gan")


def test_a_subclass_cannot_become_a_loader_and_says_so(dataset):
    class Mine(fl.DataLoader):
        pass

    with pytest.raises(ConfigError, match="Mine: a subclass of DataLoader cannot load"):
        Mine(dataset)
    assert list(Mine([1, 2])) == [torch.tensor([1]), torch.tensor([2])]


def test_what_would_be_read_sample_by_sample_is_refused(dataset):
    with pytest.raises(ConfigError, match="select=indices"):
        fl.DataLoader(Subset(dataset, [1, 2]))
    with pytest.raises(ConfigError, match="a list of sources"):
        fl.DataLoader(ConcatDataset([[1], dataset]))
    with pytest.raises(ConfigError, match=r"must be a dataset, got the path .*Use fastload\.Dataset"):
        fl.DataLoader("shards/{0..9}.tar", 4)
    for make in (lambda: fl.Loader(dataset, 4, FIELDS), lambda: fl.Dataset(dataset, FIELDS)):
        with pytest.raises(ConfigError, match=r"the source is a fastload\.Dataset"):
            make()
    with pytest.raises(ConfigError, match=r"use fastload\.DataLoader"):
        next(iter(torch.utils.data.DataLoader(dataset, 2)))


@pytest.mark.parametrize(
    ("made", "arguments", "match"),
    [
        (lambda batch: {"image": batch["image"]}, {"collate_fn": list}, "with all its fields"),
        (lambda batch: (1, 2), {"collate_fn": list}, "with all its fields"),
        (
            lambda batch: batch | {"number": 1},
            {"collate_fn": list},
            "map_batch added an entry without samples",
        ),
    ],
)
def test_what_map_batch_makes_must_have_samples_for_collate_fn(shards, made, arguments, match):
    dataset = fl.Dataset(shards, FIELDS, map_batch=made)
    with pytest.raises(ConfigError, match=match):
        next(iter(fl.DataLoader(dataset, 4, **arguments)))
    assert next(iter(fl.DataLoader(dataset, 4))) is not None
