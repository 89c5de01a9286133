"""Batches in flight through DALI's stage: they overlap, fail one by one, and leave no thread behind.

Covers field.py.
"""

import gc
import itertools
import os
import sys
import textwrap
import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pytest
import torch

from fastload.decode.dali import pipeline
from fastload.decode.spec import ImageSpec
from fastload.errors import BackendError, ConfigError, OutOfMemoryError, ResourceError
from tests import corpus, preloaded
from tests.decode.dali.stages import (
    FAILING,
    PHOTOS,
    a_stage,
    decoded,
    finished,
    needs_dali,
    on_each_device,
    reference,
)
from tests.quick import slow_but

pytestmark = needs_dali


PLACES = list(itertools.product([RuntimeError, MemoryError], ["content", "start", "roi_end", "schedule_run"]))
QUICK_PLACES = [
    (MemoryError, "content"),
    (RuntimeError, "start"),
    (RuntimeError, "roi_end"),
    (MemoryError, "schedule_run"),
]


@pytest.mark.parametrize("error, place", slow_but(QUICK_PLACES, PLACES))
def test_a_batch_that_cannot_be_fed_shifts_no_later_one(make_stage, monkeypatch, place, error):
    """Two fields, the second of which fails half fed; batches before it and after it get their own images."""
    stage = make_stage({"one": ImageSpec(20, 20), "two": ImageSpec(24, 24)})

    def submit(number):
        images = PHOTOS[4 * number : 4 * number + 4]
        content = {name: [np.frombuffer(one, np.uint8) for one in images] for name in stage.specs}
        return stage.submit(content, range(4))

    expected = [submit(number).finish() for number in range(3)]
    before = submit(0)
    pipeline = stage.pipe("two", aligned=False)._pipeline
    what = "schedule_run" if place == "schedule_run" else "feed_input"
    real = getattr(pipeline, what)

    def fail(*arguments):
        if not arguments or arguments[0] == place:
            raise error("no room")
        return real(*arguments)

    monkeypatch.setattr(pipeline, what, fail)
    failing, after = submit(1), submit(2)
    with pytest.raises((BackendError, OutOfMemoryError), match="no room"):
        failing.finish()
    for batch, whole in ((before, expected[0]), (after, expected[2])):
        for name, field in batch.finish().items():
            assert torch.equal(field.pixels, whole[name].pixels)
    assert stage.pending() == 0


@pytest.mark.parametrize("what", ["workers", "_collector"])
def test_a_thread_that_cannot_be_had_shifts_no_later_batch(make_stage, monkeypatch, what):
    """Of Pillow's, for the second of two fields; or what takes DALI's outputs gets no memory."""
    stage = make_stage({"one": ImageSpec(20, 20), "two": ImageSpec(24, 24)})

    def submit(number):
        jpegs = PHOTOS[4 * number : 4 * number + 4]
        others = [corpus.encode(corpus.picture(30, 30, 4 * number + i), "GIF") for i in range(4)]
        content = {"one": jpegs, "two": others if what == "workers" else jpegs}
        content = {name: [np.frombuffer(one, np.uint8) for one in images] for name, images in content.items()}
        return stage.submit(content, range(4))

    expected = [submit(number).finish() for number in range(3)]
    before = submit(0)

    def refuse(*_):
        raise ResourceError("no thread")

    with monkeypatch.context() as patch, pytest.raises(ResourceError, match="no thread"):
        patch.setattr(getattr(stage, what), "submit", refuse)
        submit(1).finish()
    after = submit(2)
    for batch, whole in ((before, expected[0]), (after, expected[2])):
        for name, field in batch.finish().items():
            assert torch.equal(field.pixels, whole[name].pixels)
    assert stage.pending() == 0


@on_each_device
def test_batches_overlap_and_come_in_any_order(make_stage, device):
    stage = make_stage(ImageSpec(80, 80, crop="random", xflip=0.5), device)
    expected = [decoded(stage, PHOTOS[k : k + 3], [k, k + 1, k + 2])[0] for k in range(8)]
    batches = [stage.submit({"image": PHOTOS[k : k + 3]}, [k, k + 1, k + 2]) for k in range(8)]
    for k in (3, 0, 7, 1, 2, 6, 5, 4):
        assert np.array_equal(finished(batches[k])[0], expected[k])


@on_each_device
def test_other_batches_in_flight_survive_a_bad_one(make_stage, device):
    stage = make_stage(ImageSpec(40, 40), device)
    expected, _, _ = decoded(stage, PHOTOS[:5])
    contents = [PHOTOS[:5] if k % 3 else [FAILING["jpeg tables"], *PHOTOS[1:5]] for k in range(8)]
    for k, batch in enumerate([stage.submit({"image": content}, range(5)) for content in contents]):
        pixels, errors, _ = finished(batch)
        assert list(errors) == ([] if k % 3 else [0])
        assert np.array_equal(pixels[1:], expected[1:])
    assert stage.stats.reruns == 3


def test_outputs_stay_as_they_are_while_later_batches_pass(make_stage):
    stage = make_stage(ImageSpec(40, 40))
    held = [stage.submit({"image": [PHOTOS[k]]}, [k]).finish()["image"].pixels for k in range(12)]
    copies = [pixels.clone() for pixels in held]
    for _ in range(10):
        decoded(stage, PHOTOS[:5])
    stage.close()
    assert all(torch.equal(mine, copy) for mine, copy in zip(held, copies, strict=True))


def test_a_batch_that_dali_decoded_alone_is_not_copied(make_stage):
    stage = make_stage(ImageSpec(40, 40))
    field = stage.submit({"image": PHOTOS[:4]}, range(4)).finish()["image"]
    assert field.pixels.shape == (4, 40, 40, 3) and field.pixels.is_contiguous()
    assert field.pixels.untyped_storage().data_ptr() == field.pixels.data_ptr()


def test_fields_of_one_batch_are_decoded_and_fail_each_for_itself(make_stage):
    specs = {"image": ImageSpec(40, 40), "mask": ImageSpec(30, 20, filter="nearest")}
    stage = make_stage(specs)
    content = {"image": [PHOTOS[0], FAILING["jpeg tables"]], "mask": [b"", PHOTOS[1]]}
    fields = stage.submit(content, [0, 1]).finish()
    assert {name: list(one.errors) for name, one in fields.items()} == {"image": [1], "mask": [0]}
    assert fields["mask"].pixels.shape == (2, 30, 20, 3)
    expected = reference([PHOTOS[1]], specs["mask"], [1])[0].pixels
    assert np.array_equal(fields["mask"].pixels[1].numpy(), expected)


def test_submit_does_not_wait_for_decoding(make_stage):
    stage = make_stage(ImageSpec(600, 600, filter="lanczos"))
    decoded(stage, PHOTOS[:2])
    begun = time.perf_counter()
    batch = stage.submit({"image": PHOTOS * 3}, range(57))
    submitted = time.perf_counter() - begun
    batch.finish()
    # 57 photos to 600 x 600 take half a second; headers and geometry take 1 ms.
    assert submitted < 0.25 * (time.perf_counter() - begun)
    assert batch.wait(0.0)


def test_more_batches_than_agreed_are_refused(make_stage):
    stage = make_stage(ImageSpec(40, 40), in_flight=2)
    batches = [stage.submit({"image": PHOTOS[:2]}, [0, 1]) for _ in range(2)]
    with pytest.raises(AssertionError, match="more than 2 batches"):
        stage.submit({"image": PHOTOS[:2]}, [0, 1])
    batches[0].finish()
    batches[1].cancel()
    for _ in range(2):
        stage.submit({"image": PHOTOS[:2]}, [0, 1])


def own_threads():
    return [one.name for one in threading.enumerate() if one.name.startswith("fastload-dali")]


def test_cancelled_batches_and_closed_stages_leave_no_thread():
    def native_threads():
        return len(os.listdir("/proc/self/task"))

    first = a_stage(ImageSpec(40, 40))  # DALI keeps one thread of its own from the first use on
    decoded(first, [*PHOTOS[:3], FAILING["jpeg tables"]])
    first.close()
    del first
    gc.collect()
    before = native_threads()
    for _ in range(3):
        stage = a_stage(ImageSpec(40, 40))
        content = [*PHOTOS[:7], FAILING["jpeg tables"]]
        batches = [stage.submit({"image": content}, range(8)) for _ in range(4)]
        kept = batches[1].finish()["image"]
        for batch in (batches[0], *batches[2:]):
            batch.cancel()
        assert own_threads()
        stage.close()
        stage.close()
        assert not own_threads() and list(kept.errors) == [7]
        with pytest.raises(CancelledError, match="closed"):
            stage.submit({"image": PHOTOS[:1]}, [0])
        del stage, batches, batch
        gc.collect()
    deadline = time.monotonic() + 5
    while native_threads() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert native_threads() <= before


def test_a_stage_that_nobody_closes_ends_with_its_last_reference():
    stage = a_stage(ImageSpec(40, 40))
    pixels = stage.submit({"image": PHOTOS[:3]}, range(3)).finish()["image"].pixels
    copy = pixels.clone()
    del stage
    gc.collect()
    deadline = time.monotonic() + 5
    while own_threads() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not own_threads() and torch.equal(pixels, copy)


def test_leaving_python_with_batches_in_flight_is_quiet():
    script = """
        from tests.decode.dali.stages import PHOTOS, a_stage
        from fastload.decode.spec import ImageSpec
        stage = a_stage(ImageSpec(40, 40))
        batches = [stage.submit({"image": PHOTOS}, range(19)) for _ in range(4)]
    """
    ran = preloaded.run(textwrap.dedent(script))
    assert (ran.status, ran.out, ran.err) == (0, "", "")


def test_a_forked_child_is_told_and_makes_its_own():
    """Without care the child hangs: in the pipeline, when it is collected, or when the child exits."""
    script = """
        import gc, os, sys
        from tests.decode.dali.stages import PHOTOS, a_stage, decoded
        from fastload.decode.spec import ImageSpec
        from fastload.errors import BackendError
        stage = a_stage(ImageSpec(40, 40))
        batch = stage.submit({"image": PHOTOS}, range(19))
        child = os.fork()
        if child == 0:
            calls = [batch.finish, stage.close, lambda: decoded(stage, PHOTOS)]
            for call in calls:
                try:
                    call()
                    os._exit(1)
                except BackendError as error:
                    assert "fork" in str(error)
            del stage, batch, calls, call
            gc.collect()
            own = a_stage(ImageSpec(40, 40))
            assert not decoded(own, PHOTOS)[1]
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert not batch.finish()["image"].errors
        print("both done")
    """
    ran = preloaded.run(textwrap.dedent(script))
    assert ran.out.strip() == "both done", ran.err


def test_a_failing_machine_is_not_a_bad_sample(make_stage, monkeypatch):
    stage = make_stage(ImageSpec(40, 40))
    pipe = stage.pipe("image", aligned=False)

    def fail(stream):
        type(pipe).output(pipe, stream)
        raise RuntimeError("encountered: CUDA runtime API error cudaErrorMemoryAllocation (2): out of memory")

    monkeypatch.setattr(pipe, "output", fail, raising=False)
    batch = stage.submit({"image": PHOTOS[:2]}, [0, 1])
    with pytest.raises(BackendError, match=r"^DALI failed on cpu.*out of memory.*batch_size"):
        batch.finish()
    monkeypatch.undo()
    assert not decoded(stage, PHOTOS[:2])[1]


def test_dali_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    pipeline.load.cache_clear()
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(BackendError, match=r'pip install "fastload\[cu13\]"'):
        a_stage(ImageSpec(40, 40))
    monkeypatch.undo()
    pipeline.load.cache_clear()


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match=r"hw_decoder_load=0\.5.*deterministic=False"):
        a_stage(ImageSpec(40, 40), hw_decoder_load=0.5)
    with pytest.raises(ConfigError, match=r"hw_decoder_load must be .* got 2"):
        a_stage(ImageSpec(40, 40), hw_decoder_load=2, deterministic=False)
    with pytest.raises(ConfigError, match="device must be the CPU or a CUDA GPU for DALI, got 'mps'"):
        a_stage(ImageSpec(40, 40), device="mps")


def test_importing_the_backend_does_not_import_dali():
    script = "import fastload.decode.dali.stage, sys; print([n for n in sys.modules if n[:6] == 'nvidia'])"
    ran = preloaded.run(script)
    assert ran.out.strip() == "[]", ran.err
