"""Batches that are finished ahead of need, whole: by DALI, or by native threads that leave levels.

On a GPU every batch comes this way; here the same threads and the same code run for the CPU.

Covers image_stage.py.
"""

import gc
import os
import threading
import warnings
import weakref

import numpy as np
import pytest
import torch

import fastload as fl
from fastload import backends
from fastload._native import BufferPool
from fastload.decode.images import ImageStage
from fastload.errors import SampleError, ShardError
from fastload.loader.pipeline import WORKER_NAME, Pipeline
from fastload.loader.pixels import Pixels
from fastload.loader.specs import pipeline_spec
from tests.loader.samples import flat, sample, write
from tests.loader.test_augment import SIZE, STRENGTHS, TOLERANCE, by_position, largest_difference, loader
from tests.loader.test_life import workers, workers_after_a_while

needs_dali = pytest.mark.skipif(not backends.has("nvidia.dali"), reason="DALI is not installed")
KINDS = ["uint8", pytest.param("dali", marks=needs_dali)]


def of_whole_batches(self, threads, device, kept):
    """A decoder that leaves uint8 pixels to be finished, as on a GPU."""
    return ImageStage(self._spec.decode, threads, as_uint8=True)


@pytest.fixture(params=KINDS)
def decode(request, monkeypatch) -> str:
    """What `decode` says for batches that are finished whole."""
    if request.param == "dali":
        return "dali"

    monkeypatch.setattr(Pipeline, "_decoder", of_whole_batches)
    return "native"


def test_levels_that_are_finished_whole_give_the_pixels_of_the_threads(shards, monkeypatch):
    augment = fl.Augment(**STRENGTHS["all"])
    how = {"augment": augment, "decode": "native"}
    by_threads = by_position(loader(shards, **how))
    raw = by_position(loader(shards, dtype="uint8", layout="channels_last"))
    monkeypatch.setattr(Pipeline, "_decoder", of_whole_batches)
    assert largest_difference(by_position(loader(shards, **how)), by_threads) < TOLERANCE["flips"]
    assert largest_difference(by_position(loader(shards, dtype="uint8", layout="channels_last")), raw) == 0


def test_epochs_and_places_are_those_of_every_other_route(shards, decode):
    made = loader(shards, 4, decode=decode)
    first, second = [flat([batch for batch in made]) for _ in range(2)]
    assert sorted(first) == sorted(second) == list(range(23))
    assert first != second
    begun = iter(made)
    for _ in range(3):
        next(begun)
    state = made.state_dict()
    rest = flat(begun)
    again = loader(shards, 4, decode=decode)
    again.load_state_dict(state)
    assert flat(again) == rest
    assert len(rest) == 11


@pytest.mark.parametrize("prefetch", [1, 7])
def test_batches_in_hand_are_never_written_again(shards, decode, prefetch):
    made = loader(shards, 4, decode=decode, prefetch=prefetch)
    kept = [(batch, batch["image"].clone()) for _ in range(3) for batch in made]
    assert all(torch.equal(batch["image"], then) for batch, then in kept)


@pytest.mark.parametrize("bad", [b"", b"not an image", "cut"])
def test_a_bad_image_is_named_by_its_own_batch(tmp_path, decode, bad):
    samples = [sample(i) for i in range(12)]
    samples[9]["jpg"] = samples[9]["jpg"][:300] if bad == "cut" else bad
    made = iter(loader(write(tmp_path, samples), 4, decode=decode, shuffle=False, on_bad="raise"))
    assert flat([next(made), next(made)]) == list(range(8))
    with pytest.raises(SampleError, match=r"000\.tar.*00009.*field 'image'"):
        next(made)


def test_a_missing_shard_is_named(tmp_path, decode):
    paths = write(tmp_path, [sample(i) for i in range(8)], per_shard=4)
    made = loader(paths, 4, decode=decode, shuffle=False)
    len(made)
    os.remove(paths[1])
    run = iter(made)
    with pytest.raises(ShardError, match=r"001\.tar"):
        list(run)


def test_after_an_error_the_loader_goes_on(tmp_path, decode):
    samples = [sample(i) for i in range(12)]
    samples[2]["jpg"] = b"\xff\xd8\xff"
    made = loader(write(tmp_path, samples), 4, decode=decode, shuffle=False, prefetch=1, on_bad="raise")
    for _ in range(6):  # more often than batches may be in flight
        with pytest.raises(SampleError):
            list(made)
        made.set_epoch(made.state_dict()["epoch"] + 1)


@pytest.mark.parametrize("end", ["exhausted", "closed", "broken off", "forgotten"])
def test_no_thread_is_left_however_an_iteration_ends(shards, decode, end):
    made = loader(shards, 3, decode=decode)
    for _ in range(3):
        run = iter(made)
        if end == "exhausted":
            list(run)
        else:
            next(run)
        if end == "forgotten":
            del run
    made.close()
    gc.collect()
    assert workers_after_a_while() == []


def test_an_abandoned_loader_is_collected_with_its_threads(shards, decode):
    made = loader(shards, 3, decode=decode)
    run = iter(made)
    next(run)
    gone = weakref.ref(made)
    del made, run
    gc.collect()
    assert gone() is None
    assert workers_after_a_while() == []


def test_a_forked_child_iterates_anew_while_the_parent_goes_on(shards, decode):
    made = loader(shards, 4, decode=decode)
    run = iter(made)
    first = flat([next(run)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's, of forking beside threads
        child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if len(flat(loader(shards, 4, decode=decode))) == 23 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(first + flat(run)) == 23


def test_reports_and_statistics_are_those_of_every_other_route(shards, decode):
    fields = {"image": fl.Image(size=8, crop="random", report=True, scaled=None)}
    made = loader(shards, 23, decode=decode, fields=fields)
    (batch,) = list(made)
    (expected,) = list(loader(shards, 23, decode="pillow", fields=fields))
    for name in ("original_size", "crop_box", "crop_top_left", "target_size"):
        assert torch.equal(batch[f"image.{name}"], expected[f"image.{name}"])
    stats = made.stats()
    by_dali = {"dali_samples": 23, "pillow_samples": 0, "reruns": 0} if decode == "dali" else {}
    assert (stats["images"], stats["device"]) == (23, by_dali)
    assert stats["stages"]["decode"]["busy_seconds"] > 0
    assert stats["stages"]["batch"]["busy_seconds"] > 0


@needs_dali
def test_a_stage_that_cannot_take_a_batch_ends_the_iteration_and_nothing_else(shards, monkeypatch):
    made = loader(shards, 4, decode="dali", prefetch=2)
    good = flat(made)
    stage = made._kept["dali"]
    real = stage.submit

    def fail_at_the_second(*arguments):
        if stage.stats.batches % 6 == 1:
            stage.stats.batches += 1
            raise MemoryError("no room")
        return real(*arguments)

    monkeypatch.setattr(stage, "submit", fail_at_the_second)
    for _ in range(6):  # more often than batches may be in flight
        stage.stats.batches = 0
        with pytest.raises(MemoryError, match="no room"):
            list(made)
        assert stage.pending() == 0
    monkeypatch.undo()
    made.set_epoch(0)
    assert flat(made) == good
    made.close()
    assert workers() == []


def test_what_is_ahead_is_bounded_by_its_finished_size(shards, decode):
    """4 x 3 x 64 x 64 floats are 196,608 bytes, four times the levels: two batches fit, the third waits."""
    fields = {"image": fl.Image(size=64)}
    made = loader(shards, 4, decode=decode, fields=fields, max_bytes=4 * 250_000, prefetch=5)
    run = iter(made)
    next(run)
    assert len(run.in_flight.batches) <= 3


def test_what_leaves_the_loader_on_a_gpu_is_not_dalis_memory(shards, monkeypatch):
    """uint8 and channels last is what DALI gives; here a tensor that says it is on a GPU."""
    config = loader(shards, 2, dtype="uint8", layout="channels_last")._config
    levels = torch.zeros(2, 3, *SIZE, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    pixels = Pixels(pipeline_spec(config), 1, BufferPool(1 << 20))
    assert pixels.finished("image", levels, np.arange(2)) is levels

    class OnGpu(torch.Tensor):
        device = torch.device("cuda:0")

    monkeypatch.setattr("fastload.loader.pixels.require_triton", lambda device: None)
    there = pixels.finished("image", levels.as_subclass(OnGpu), np.arange(2))
    assert there.data_ptr() != levels.data_ptr()
    assert there.is_contiguous(memory_format=torch.channels_last)


def test_an_iteration_that_is_found_forgotten_on_a_worker_thread_ends_when_its_work_is_done(shards, decode):
    """The collector may run where a lock of the loader is held, so that nothing may wait there."""
    made = loader(shards, 2, decode=decode, prefetch=2)
    run = iter(made)
    next(run)
    cycle = [run]
    cycle.append(cycle)
    found = threading.Thread(target=gc.collect, name=f"{WORKER_NAME}somebody")
    gone = weakref.ref(run)
    del run, cycle
    found.start()
    found.join()
    assert gone() is None
    made.close()
    assert flat(made) != []
    made.close()
    assert workers_after_a_while() == []


def test_an_image_of_too_many_pixels_is_refused(tmp_path, decode):
    source = write(tmp_path, [sample(i) for i in range(4)])
    with pytest.raises(SampleError, match="more than max_pixels=100"):
        list(loader(source, 4, decode=decode, max_pixels=100, on_bad="raise"))
