"""A loader that is closed while something is under way: from another thread, or by Ctrl-C amid closing.

Covers field_stage.py and in_flight.py.
"""

import threading

import pytest

import fastload as fl
from fastload import backends
from fastload.loader.pipeline import WORKER_NAME, Pipeline
from tests.loader.samples import sample, write

pytestmark = pytest.mark.filterwarnings("ignore:a bad sample was replaced")
needs_dali = pytest.mark.skipif(not backends.has("nvidia.dali"), reason="nvidia-dali is not installed")
DECODERS = ("native", pytest.param("dali", marks=needs_dali))


@pytest.fixture
def source(tmp_path):
    samples = [sample(i) for i in range(60)]
    for i in range(0, 60, 4):
        samples[i]["jpg"] = b"broken"
    return write(tmp_path, samples)


def own_threads(before) -> list[str]:
    return [one.name for one in set(threading.enumerate()) - before if one.name.startswith(WORKER_NAME)]


def make(source, decode):
    fields = {"image": fl.Image(size=16), "text": fl.Custom("txt", len)}
    augment = fl.Augment(mixup=0.3)  # batches are delivered ahead, on a thread
    return fl.Loader(
        source, 4, fields, decode=decode, augment=augment, prefetch=3, max_bad_fraction=1, epochs=None
    )


@pytest.mark.parametrize("decode", DECODERS)
def test_closing_from_another_thread_ends_the_iteration_and_its_threads(source, decode):
    before = set(threading.enumerate())
    made = make(source, decode)
    for number in range(12):
        run = iter(made)
        next(run)
        closing = threading.Timer(0.001 * number, made.close)
        closing.start()
        with pytest.raises((fl.ConfigError, StopIteration)) as caught:
            while True:
                next(run)
        if isinstance(caught.value, fl.ConfigError):
            assert "closed while this batch was made" in str(caught.value)
        closing.join()
        made.set_epoch(number + 1)
    made.close()
    assert own_threads(before) == []


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("where", ["before", "after"])
def test_a_closing_that_was_interrupted_is_finished_by_the_next_one(source, decode, where, monkeypatch):
    before = set(threading.enumerate())
    made = make(source, decode)
    run = iter(made)
    next(run)
    real, interrupts = Pipeline.close, [True]

    def interrupted(self, deadline):
        if where == "after":
            real(self, deadline)
        if interrupts.pop():
            interrupts.append(False)
            raise KeyboardInterrupt
        interrupts.append(False)
        real(self, deadline)

    monkeypatch.setattr(Pipeline, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.close()
    with pytest.raises(StopIteration):
        next(run)
    made.close()
    assert own_threads(before) == []
    assert len(next(iter(made))["text"]) == 4  # it may be iterated again
    made.close()


def test_no_thread_begins_for_an_iteration_that_is_closed(source):
    made = make(source, "native")
    run = iter(made)
    next(run)
    pipeline, pending = run.in_flight.pipeline, run.in_flight.batches[0]
    made.close()
    before = set(threading.enumerate())
    pending.cancelled = False
    with pytest.raises(Exception) as caught:
        pipeline.launch(pending)
    assert type(caught.value).__name__ == "CancelledError"
    assert set(threading.enumerate()) <= before
