"""The DataLoader that the bench compares with: the same samples in the same order, its CPU time counted."""

import itertools

import numpy as np

from fastload.prepare.common import pipeline
from fastload.prepare.common.pillow_peer import EndlessOrder, open_peer
from fastload.shards.dataset import open_dataset


def test_both_sides_read_the_same_samples(shards):
    dataset = open_dataset(shards)
    theirs = list(itertools.islice(EndlessOrder(dataset, seed=5), 60))
    assert [sorted(theirs[start : start + 20]) for start in (0, 20, 40)] == [list(range(20))] * 3
    loader = pipeline.open_loader(shards, dataset, size=32, batch_size=20, seed=5, only_images=True)
    with loader:
        for step, batch in enumerate(itertools.islice(loader, 3)):
            assert batch["__key__"] == [f"{number:04d}" for number in theirs[20 * step : 20 * step + 20]]


def test_the_peers_order_continues_across_its_chunks(shards):
    dataset = open_dataset(shards)
    theirs = list(itertools.islice(EndlessOrder(dataset, seed=5), 2500))
    assert theirs == pipeline.samples_at(dataset, np.arange(2500), seed=5).tolist()


def test_the_peer_sends_the_cpu_time_of_its_workers(shards):
    peer = iter(open_peer(open_dataset(shards), size=32, batch_size=4, workers=2, seed=0))
    batches = [next(peer) for _ in range(6)]
    assert len({worker for _, worker, _ in batches}) == 2
    assert all(images.shape == (4, 3, 32, 32) and seconds > 0 for images, _, seconds in batches)
    assert all(abs(float(images.abs().max())) <= 1 for images, _, _ in batches)
