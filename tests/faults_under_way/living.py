"""Scenarios of iterations that end otherwise than by their end, with each decoder that this machine has."""

import gc
import os
import signal
import sys
import time
import traceback
import weakref

from fastload.backends import has
from fastload.errors import ConfigError
from tests.faults import Belongings, Rule, left_behind, rules
from tests.faults_under_way.scenarios import SlowReads, equal, labels_of, loader, pressed_after, raised

ALL = list(range(22))  # of 23 in steps of two
FORK_SECONDS = 20


def ctrl_c_in_the_middle_of_next(shards, **how):
    interrupted = loader(shards, **how)
    run = iter(interrupted)
    equal(labels_of([next(run)]), [0, 1])
    begun = time.perf_counter()
    with SlowReads(0.5), pressed_after(0.3):
        raised(KeyboardInterrupt, lambda: list(run))
    assert time.perf_counter() - begun < 3
    equal(list(run), [])
    interrupted.load_state_dict(interrupted.state_dict())
    place = interrupted.state_dict()["position"]
    equal(labels_of(interrupted), ALL[place:])
    interrupted.close()


def ctrl_c_while_the_source_is_opened(shards, **how):
    with rules(Rule("read", "002.tar", delay_seconds=0.5)), pressed_after(0.2):
        raised(KeyboardInterrupt, lambda: loader(shards, **how))


def an_exception_in_the_training_loop(shards, **how):
    def train():
        for batch in loader(shards, **how):
            if 4 in batch["label"]:
                raise ZeroDivisionError("the training's own")

    raised(ZeroDivisionError, train)


def an_exception_in_the_training_loop_whose_traceback_is_kept(shards, **how):
    error = None
    broken = loader(shards, **how)
    try:
        for batch in broken:
            raise ZeroDivisionError(len(batch))
    except ZeroDivisionError as caught:
        error = caught
    broken.close()  # what holds the frame holds the iteration, so only closing ends it
    assert error is not None


def iterating_twice(shards, **how):
    twice = loader(shards, **how)
    first = iter(twice)
    next(first)
    second = iter(twice)
    assert "use two loaders" in str(raised(ConfigError, lambda: next(first)))
    equal(len(list(second)), 11)
    twice.close()


def two_loaders_at_once(shards, **how):
    one, other = loader(shards, **how), loader(shards, **how)
    pairs = list(zip(one, other, strict=True))
    equal(labels_of(pair[0] for pair in pairs), ALL)
    equal(labels_of(pair[1] for pair in pairs), ALL)
    one.close()
    equal(labels_of([next(iter(other))]), [0, 1])
    other.close()


def a_loader_abandoned_half_way(shards, **how):
    run = iter(loader(shards, **how))
    next(run)
    del run
    gc.collect()


def a_loader_abandoned_in_a_cycle_with_batches_on_their_way(shards, **how):
    class Trainer:
        pass

    with SlowReads(0.05):
        trainer = Trainer()
        trainer.me, trainer.loader = trainer, loader(shards, **how)
        trainer.run = iter(trainer.loader)
        next(trainer.run)
        gone = weakref.ref(trainer.run)
        del trainer
        gc.collect()
        assert gone() is None


def a_closed_loader_that_is_kept(shards, **how):
    before = Belongings.now()
    kept = loader(shards, **how)
    run = iter(kept)
    equal(labels_of([next(run)]), [0, 1])
    kept.close()
    equal(left_behind(before), {})
    equal(list(run), [])


def a_batch_that_outlives_its_loader(shards, **how):
    run = iter(loader(shards, **how))
    batch = next(run)
    before = batch["image"].clone()
    del run
    gc.collect()
    assert (batch["image"] == before).all()


def in_a_child(work) -> None:
    """`work` in a forked child, which must end well and in time."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(FORK_SECONDS)
            work()
            gc.collect()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    equal(status, 0)


def fork_after_creation(shards, **how):
    made = loader(shards, **how)
    in_a_child(lambda: equal(labels_of(made), ALL))
    equal(labels_of(made), ALL)
    made.close()


def fork_in_the_middle_of_an_iteration(shards, **how):
    made = loader(shards, **how)
    run = iter(made)
    equal(labels_of([next(run)]), [0, 1])

    def work():
        raised(ConfigError, lambda: next(run))
        with loader(shards, **how) as own:
            equal(labels_of(own), ALL)

    in_a_child(work)
    equal(labels_of(run), ALL[2:])
    made.close()


def fork_after_an_iteration(shards, **how):
    made = loader(shards, **how)
    equal(labels_of(made), ALL)
    made.set_epoch(0)
    in_a_child(lambda: equal(labels_of(made), ALL))
    equal(labels_of(made), ALL)
    made.close()


ENDS = (
    ctrl_c_in_the_middle_of_next,
    ctrl_c_while_the_source_is_opened,
    an_exception_in_the_training_loop,
    an_exception_in_the_training_loop_whose_traceback_is_kept,
    iterating_twice,
    two_loaders_at_once,
    a_loader_abandoned_half_way,
    a_loader_abandoned_in_a_cycle_with_batches_on_their_way,
    a_closed_loader_that_is_kept,
    a_batch_that_outlives_its_loader,
)
FORKS = (fork_after_creation, fork_in_the_middle_of_an_iteration, fork_after_an_iteration)
DECODERS = ("native", "pillow", *(["dali"] if has("nvidia.dali") else []))
SCENARIOS = {
    f"{one.__name__}, {decode}": (one, {"decode": decode})
    for decode in DECODERS
    for one in (*ENDS, *(FORKS if decode != "dali" else ()))  # DALI's own library does not survive a fork
}
