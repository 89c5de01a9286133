"""The memory of batches: used again when nobody has it, never before, and bounded."""

import gc
import time

import pytest
import torch

import fastload as fl
from fastload import _native
from tests.loader.samples import write_shards

SIZE = 32
BATCH = 4
BATCH_BYTES = BATCH * 3 * SIZE * SIZE * 4  # 49152: whole pages, so the pool holds exactly so much
FIELDS = {"image": fl.Image(size=SIZE)}


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """97 samples in one shard: 24 batches of 4."""
    folder = tmp_path_factory.mktemp("many")
    write_shards(folder, 97, 100)
    return str(folder)


def pool_at_rest(loader) -> dict:
    """The pool's numbers; a native thread may be about to let go of the bytes that it read last."""
    pool, quiet_ms = loader.stats()["pool"], 0
    while quiet_ms < 30:
        time.sleep(0.001)
        before, pool = pool, loader.stats()["pool"]
        quiet_ms = quiet_ms + 1 if pool == before else 0
    return pool


def loader_of(source, **arguments):
    return fl.Loader(source, BATCH, FIELDS, **{"epochs": None, "prefetch": 2} | arguments)


def test_a_batch_that_is_held_never_changes_while_the_loader_goes_on(many):
    run = iter(loader_of(many))
    held = [next(run)["image"] for _ in range(5)]
    copies = [images.clone() for images in held]
    for _ in range(40):
        next(run)
    assert all(torch.equal(mine, copy) for mine, copy in zip(held, copies, strict=True))
    assert len({images.data_ptr() for images in held}) == 5


@pytest.mark.parametrize(
    "view",
    [
        lambda images: images[2],
        lambda images: images[:, 1:2, ::2].flatten(2),
        lambda images: images.numpy()[1],
    ],
    ids=["one image", "a slice", "a NumPy view"],
)
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_a_view_keeps_the_whole_buffer_from_being_used_again(many, view, layout):
    run = iter(loader_of(many, layout=layout))
    held = view(next(run)["image"])
    copy = torch.as_tensor(held).clone()
    gc.collect()
    for _ in range(40):
        next(run)
    assert torch.equal(torch.as_tensor(held), copy)


def test_memory_is_used_again_once_it_is_let_go(many):
    loader = loader_of(many)
    run = iter(loader)
    places = {next(run)["image"].data_ptr() for _ in range(50)}
    pool = loader.stats()["pool"]
    assert len(places) <= 5
    assert pool["allocated"] <= 20
    assert pool["reused"] >= 80  # images and bytes read, of 50 batches


def test_memory_outlives_the_loader(many):
    images = next(iter(loader_of(many)))["image"]
    copy = images.clone()
    gc.collect()
    for batch in loader_of(many, epochs=1):
        del batch
    assert torch.equal(images, copy)
    images.fill_(1.0)


@pytest.mark.parametrize("prefetch", [1, 4])
def test_what_is_handed_out_stays_bounded_while_the_training_lets_go(many, prefetch):
    loader = loader_of(many, prefetch=prefetch)
    run = iter(loader)
    for _ in range(60):
        next(run)
        pool = loader.stats()["pool"]
        read_bytes = 64 * 1024  # of four small JPEGs, at most
        assert pool["used_bytes"] <= (prefetch + 2) * (BATCH_BYTES + read_bytes)


@pytest.mark.parametrize("batches", [4, 6, 9])
def test_max_bytes_bounds_what_is_ahead_the_trainings_batch_and_idle_memory(many, batches):
    max_bytes = batches * (BATCH_BYTES + 8192)
    loader = loader_of(many, prefetch=50, max_bytes=max_bytes)
    run = iter(loader)
    most_ahead = 0
    batches_held = [next(run)]
    for _ in range(60):
        batches_held[0] = next(run)
        pool = loader.stats()["pool"]
        assert pool["used_bytes"] + pool["idle_bytes"] <= max_bytes
        most_ahead = max(most_ahead, len(run.in_flight.batches))
    assert batches - 3 <= most_ahead <= batches


def test_a_batch_larger_than_max_bytes_is_delivered_all_the_same(many):
    loader = loader_of(many, max_bytes=1, prefetch=8)
    run = iter(loader)
    for _ in range(10):
        next(run)
        assert loader.stats()["pool"]["idle_bytes"] == 0
        assert len(run.in_flight.batches) <= 2


def test_close_gives_all_memory_back(many):
    loader = loader_of(many)
    run = iter(loader)
    batch = next(run)
    loader.close()
    assert (pool_at_rest(loader)["idle_bytes"], pool_at_rest(loader)["used_bytes"]) == (0, BATCH_BYTES)
    del batch
    loader.close()
    assert (pool_at_rest(loader)["idle_bytes"], pool_at_rest(loader)["used_bytes"]) == (0, 0)


def test_a_forgotten_iteration_gives_all_memory_back(many):
    loader = loader_of(many)
    for _ in loader:
        break
    del _
    assert pool_at_rest(loader)["used_bytes"] == 0


def test_a_trimmed_pool_keeps_nothing_until_it_is_used_again():
    pool = _native.BufferPool(1 << 20)
    late = pool.acquire(4096)
    pool.trim()
    del late
    assert pool.idle_bytes == 0
    del [pool.acquire(4096)][0]
    assert pool.idle_bytes == 4096


def test_the_pool_prefers_the_smallest_buffer_that_fits():
    pool = _native.BufferPool(1 << 20)
    small, large = pool.acquire(4096), pool.acquire(16384)
    places = {"small": small.address, "large": large.address}
    del small, large
    assert pool.acquire(4000).address == places["small"]
    assert pool.acquire(10_000).address == places["large"]
    assert (pool.reused, pool.allocated) == (2, 2)


def test_the_pool_does_not_waste_a_buffer_on_less_than_half_of_it():
    pool = _native.BufferPool(1 << 20)
    del [pool.acquire(16384)][0]
    assert pool.idle_bytes == 16384
    pool.acquire(4096)
    assert (pool.reused, pool.allocated) == (0, 2)


def test_the_pool_keeps_nothing_beyond_its_bound_and_lets_the_oldest_go_first():
    pool = _native.BufferPool(3 * 4096)
    buffers = [pool.acquire(4096) for _ in range(3)]
    places = [buffer.address for buffer in buffers]
    while buffers:
        del buffers[0]
    assert (pool.used_bytes, pool.idle_bytes) == (0, 3 * 4096)
    two_pages = pool.acquire(8192)  # makes room: two of the three idle pages go
    assert (pool.used_bytes, pool.idle_bytes) == (8192, 4096)
    assert pool.acquire(4096).address == places[2]
    far_too_large = pool.acquire(10 * 4096)
    assert pool.idle_bytes == 0
    del far_too_large, two_pages
    assert (pool.used_bytes, pool.idle_bytes) == (0, 2 * 4096)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, (2 << 20) - 1, 2 << 20, (2 << 20) + 1])
def test_buffers_hold_at_least_what_was_asked_for_and_can_be_written(size):
    pool = _native.BufferPool(16 << 20)
    buffer = pool.acquire(size)
    view = memoryview(buffer)
    assert size <= view.nbytes == buffer.capacity == pool.used_bytes
    if size:
        view[0] = view[size - 1] = 7
    view.release()
    del buffer
    assert (pool.used_bytes, pool.idle_bytes > 0) == (0, True)


def test_an_impossible_size_is_a_memory_error():
    with pytest.raises(MemoryError):
        _native.BufferPool(1).acquire(2**64 - 1)
