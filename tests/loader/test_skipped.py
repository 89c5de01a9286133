"""A torch DataLoader of a loader's parts, as accelerate's skip_first_batches makes one, has its batches.

Covers step_ids.py.
"""

import itertools
import sys
import types

import pytest
import torch
from accelerate import skip_first_batches
from torch.utils.data import BatchSampler, SequentialSampler

import fastload as fl
from fastload.errors import ConfigError
from tests.loader.samples import labels

N = 23
EPOCHS = 3
FIELDS = {"image": fl.Image(size=8), "label": fl.Int("cls"), "key": fl.Text("txt")}
DICE = fl.Augment(xflip=0.5, brightness=0.2, mixup=0.2)


def two_sources(shards, n: int = N) -> fl.Mixture:
    return fl.Mixture({"one": (shards, 0.3), "other": (shards, 0.7)}, n)


def as_labels(samples: list) -> list:
    return [one["label"] for one in samples]


def of_dataset(shards, *arguments, as_tuple=False, **more):
    return fl.DataLoader(fl.Dataset(shards, FIELDS, as_tuple=as_tuple), 3, *arguments, shuffle=True, **more)


LOADERS = {
    "a loader": lambda shards: fl.Loader(shards, 3, FIELDS, augment=DICE),
    "partial": lambda shards: fl.Loader(shards, 3, FIELDS, augment=DICE, last="partial"),
    "padded, a rank": lambda shards: fl.Loader(shards, 2, FIELDS, last="pad", rank=1, world_size=3),
    "endless": lambda shards: fl.Loader(shards, 3, FIELDS, augment=DICE, epochs=None),
    "two epochs": lambda shards: fl.Loader(shards, 4, FIELDS, epochs=2, prefetch=20),
    "a mixture": lambda shards: fl.Loader(two_sources(shards), 3, FIELDS, augment=DICE),
    "a window": lambda shards: fl.Loader(shards, 3, FIELDS, window=10, map_batch=lambda batch: [batch]),
    "a dataset": lambda shards: of_dataset(shards),
    "tuples": lambda shards: of_dataset(shards, num_workers=2, as_tuple=True, timeout=20),
    "collate_fn": lambda shards: of_dataset(
        shards, num_workers=2, prefetch_factor=3, persistent_workers=True, collate_fn=as_labels
    ),
}
each_loader = pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)


def plain(batch):
    """A batch as Python compares it, to the last bit."""
    if isinstance(batch, dict):
        return {name: plain(value) for name, value in batch.items()}
    if isinstance(batch, torch.Tensor):
        return batch.tolist()
    return [plain(one) for one in batch] if isinstance(batch, (list, tuple)) else batch


def epochs_of(loader, count: int = EPOCHS) -> list[list]:
    """The batches of each epoch, of a run that never stops."""
    found = []
    for epoch in range(count):
        loader.set_epoch(epoch)
        found.append([plain(batch) for batch in itertools.islice(loader, len(loader))])
    return found


@each_loader
def test_skipped_batches_leave_exactly_the_rest_and_then_the_next_epoch(shards, make):
    whole = epochs_of(make(shards))
    steps = len(whole[0])
    for epoch, skipped in itertools.product(range(EPOCHS - 1), (0, 1, 3, steps - 1)):
        loader = make(shards)
        loader.set_epoch(epoch)
        rest = skip_first_batches(loader, skipped)
        assert len(rest) == steps - skipped
        got = [plain(batch) for batch in itertools.islice(rest, steps - skipped)]
        assert got == whole[epoch][skipped:]
        following = [plain(batch) for batch in itertools.islice(loader, steps)]
        assert following == whole[epoch + 1]


@each_loader
def test_the_state_of_a_loader_whose_batches_were_skipped_is_that_of_a_run_without(shards, make):
    loader, other = make(shards), make(shards)
    loader.set_epoch(1)
    other.set_epoch(1)
    assert loader.state_dict() == other.state_dict()
    rest, run = iter(skip_first_batches(loader, 1)), iter(other)
    next(run)
    for _ in range(2):
        assert plain(next(rest)) == plain(next(run))
        assert loader.state_dict() == other.state_dict()


@pytest.mark.parametrize("last", ["drop", "partial", "pad", "straddle"])
def test_a_loop_over_several_epochs_goes_on_to_their_end(shards, last):
    def make():
        return labels(shards, 3, epochs=3, last=last)

    whole = [plain(batch) for batch in make()]
    assert len(whole) >= 2 * len(make())
    for skipped in (0, 1, len(make()) - 1, len(make()), len(make()) + 2, len(whole)):
        loader = make()
        assert [plain(batch) for batch in skip_first_batches(loader, skipped)] == whole[skipped:]
        if skipped < len(whole):
            assert loader.state_dict()["position"] == 3 * N
    endless = skip_first_batches(labels(shards, 3, epochs=None, last=last), len(make()) + 2)
    assert [plain(batch) for batch in itertools.islice(endless, 8)] == whole[len(make()) + 2 :][:8]


def test_the_batch_sampler_of_several_epochs_shows_them_all(shards):
    loader = labels(shards, 3, epochs=2)
    shown = list(loader.batch_sampler)
    assert [len(ids) for ids in shown] == [len(batch["label"]) for batch in loader]
    assert shown[0] + [1] == [*shown[0], 1] and [1] + shown[0] == [1, *shown[0]]


def test_after_all_batches_the_state_is_the_next_epochs_start(shards):
    loader, other = labels(shards, 3), labels(shards, 3)
    list(skip_first_batches(loader, 3))
    list(other)
    assert loader.state_dict() == other.state_dict() and loader.state_dict()["position"] == N


def test_an_epoch_may_be_told_after_the_skipping_loader_was_made(shards):
    """transformers does so, to the batch sampler."""
    whole = epochs_of(labels(shards, 3))
    for told in ("batch_sampler", "sampler"):
        loader = labels(shards, 3)
        rest = skip_first_batches(loader, 2)
        getattr(loader, told).set_epoch(1)
        assert [plain(batch) for batch in rest] == whole[1][2:]


def test_the_epoch_of_a_loaded_state_is_the_one_whose_batches_are_skipped(shards):
    whole, saved = epochs_of(labels(shards, 3)), labels(shards, 3)
    saved.set_epoch(1)
    next(iter(saved))
    loader = labels(shards, 3)
    loader.load_state_dict(saved.state_dict())
    assert [plain(batch) for batch in skip_first_batches(loader, 4)] == whole[1][4:]


def test_skipping_computes_no_sample_ids_and_reads_nothing(shards, monkeypatch):
    loader, whole = labels(shards, 1), epochs_of(labels(shards, 1), 1)[0]
    taken = []
    from fastload.order.sample_order import PlanSampleOrder

    take = PlanSampleOrder.take
    monkeypatch.setattr(
        PlanSampleOrder, "take", lambda walk, step, *more: (taken.append(step), take(walk, step, *more))[1]
    )
    assert [plain(batch) for batch in skip_first_batches(loader, N - 2)] == whole[-2:]
    assert [step.start for step in taken] == [N - 2, N - 1]
    assert loader.stats()["samples"] == 2


def test_the_batch_sampler_shows_the_sample_ids_of_every_step(shards):
    for last in ("drop", "partial", "pad", "straddle"):
        loader = labels(shards, 3, last=last, rank=1, world_size=2)
        shown = list(loader.batch_sampler)
        assert len(shown) == len(loader.batch_sampler) == len(loader)
        assert shown == list(BatchSampler(loader.sampler, 3, last == "drop"))
        assert [len(ids) for ids in shown] == [len(batch["label"]) for batch in loader]
        assert str(shown[0]) == str(list(shown[0])) and shown[0][1:] == list(shown[0])[1:]
        assert shown[0] != shown[1] and shown[0] != 3


def test_looking_at_the_batch_sampler_moves_nothing(shards):
    loader = labels(shards, 3)
    iterator = iter(loader)
    head = plain(next(iterator))
    list(loader.batch_sampler)
    assert [head, *(plain(batch) for batch in iterator)] == epochs_of(labels(shards, 3), 1)[0]


@pytest.mark.parametrize("skipped", [0, 2])
def test_what_another_one_splits_again_raises(shards, skipped):
    loader = labels(shards, 2)
    parts = loader.dataset, list(loader.batch_sampler)[skipped::2]
    split = torch.utils.data.DataLoader(parts[0], batch_sampler=parts[1], collate_fn=loader.collate_fn)
    with pytest.raises(
        ConfigError, match=f"batch {skipped + 2} of the epoch was requested after batch {skipped}"
    ):
        list(split)


def test_a_loader_that_is_closed_on_the_way_raises(shards):
    loader = labels(shards, 3)
    rest = iter(skip_first_batches(loader, 2))
    next(rest)
    loader.close()
    with pytest.raises(ConfigError, match="was closed, or went to another position"):
        next(rest)
    rest = iter(skip_first_batches(loader, 2))
    next(rest)
    next(iter(loader))
    with pytest.raises(ConfigError, match="another iter"):
        next(rest)


def test_a_collate_fn_that_wants_samples_of_a_finished_batch_raises(shards):
    loader = labels(shards, 3)
    for collate_fn in (None, list, len):
        parts = torch.utils.data.DataLoader(
            loader.dataset, batch_sampler=loader.batch_sampler, collate_fn=collate_fn
        )
        with pytest.raises(ConfigError, match=r"collate_fn=loader\.collate_fn"):
            next(iter(parts))


def test_indices_that_no_loader_drew_raise(shards):
    for dataset in (
        fl.Dataset(shards, FIELDS),
        labels(shards).dataset,
        labels(two_sources(shards)).dataset,
    ):
        with pytest.raises(ConfigError, match=r"one at a time.*docs/resume\.md"):
            next(iter(torch.utils.data.DataLoader(dataset, 2)))


def test_worker_processes_raise(shards):
    loader = labels(shards, 3)
    parts = torch.utils.data.DataLoader(
        loader.dataset, batch_sampler=loader.batch_sampler, collate_fn=loader.collate_fn, num_workers=1
    )
    with pytest.raises(ConfigError, match="with num_workers=0"):
        next(iter(parts))


def test_skipping_in_a_sampler_of_yours_raises_with_the_way_out(shards):
    sampler = SequentialSampler(range(N))
    loader = of_dataset_with(shards, sampler)
    with pytest.raises(ConfigError, match=r"your own sampler.*load_state_dict"):
        next(iter(skip_first_batches(loader, 2)))


def of_dataset_with(shards, sampler):
    return fl.DataLoader(fl.Dataset(shards, FIELDS), 3, sampler=sampler, num_workers=2)


def test_straddling_epochs_are_skipped_in_only_where_a_step_begins_at_their_start(shards):
    loader = labels(shards, 3, last="straddle")
    assert [plain(batch) for batch in skip_first_batches(loader, 2)] == epochs_of(
        labels(shards, 3, last="straddle"), 1
    )[0][2:]
    loader.set_epoch(2)
    with pytest.raises(ConfigError, match=r'last="straddle".*epoch 2.*load_state_dict'):
        next(iter(skip_first_batches(loader, 2)))
    even = labels(two_sources(shards, 24), 3, last="straddle")
    even.set_epoch(2)
    whole = epochs_of(labels(two_sources(shards, 24), 3, last="straddle"))
    assert [plain(batch) for batch in skip_first_batches(even, 2)] == whole[2][2:]


@pytest.mark.parametrize(
    "version, tells", [("4.57.0", True), ("5.0.0", False), ("5.17.1", False), ("5.18.0", True)]
)
def test_a_transformers_that_tells_no_epoch_is_refused(shards, monkeypatch, version, tells):
    monkeypatch.setitem(sys.modules, "transformers", types.SimpleNamespace(__version__=version))
    monkeypatch.setitem(sys.modules, "transformers.trainer", types.SimpleNamespace())
    loader = labels(shards, 3)
    assert len(list(skip_first_batches(loader, 0))) == N // 3
    if tells:
        assert len(list(skip_first_batches(loader, 2))) == N // 3 - 2
    else:
        with pytest.raises(
            ConfigError, match=f"transformers {version} does not pass the epoch.*ignore_data_skip"
        ):
            next(iter(skip_first_batches(loader, 2)))
