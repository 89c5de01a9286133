"""A loader that is handed to another process, or forked with: whose it is, and where it begins."""

import ctypes
import multiprocessing
import os
import signal
import sys

import pytest

import fastload as fl
from fastload import backends
from tests import preloaded
from tests.loader.samples import labels, numbers, write_shards
from tests.quick import slow_but

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
CLONE_NEWPID = 0x20000000


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("processes"), 24, 12)


def child(loader, queue):
    queue.put([batch["label"].tolist() for batch in loader])


def begun(source, place: str):
    """A loader of epochs of six batches of four, at some place."""
    loader = labels(source, 4, epochs=1)
    if place == "new":
        return loader
    if place == "after a state was loaded":
        before = labels(source, 4)
        iterator = iter(before)
        next(iterator), next(iterator)
        loader.load_state_dict(before.state_dict())
        return loader
    if place == "after an epoch":
        list(loader)
        return loader
    iterator = iter(loader)
    for _ in range({"after a batch": 1, "before the last": 5, "closed": 2, "an iterator": 0}[place]):
        next(iterator)
    if place == "closed":
        loader.close()
    loader.held = iterator if place == "an iterator" else None
    return loader


PLACES = ["new", "after a state was loaded", "after an epoch", "after a batch", "before the last", "closed"]


@pytest.mark.parametrize("place", PLACES)
def test_a_child_begins_where_the_state_stood_however_it_was_started(source, place):
    wanted = labels(source, 4)
    wanted.load_state_dict(begun(source, place).state_dict())
    expected = numbers(wanted)
    methods = ["fork", "spawn", "forkserver"] if place == "after a batch" else ["fork"]
    for method in methods:
        context = multiprocessing.get_context(method)
        queue, loader = context.Queue(), begun(source, place)
        process = context.Process(target=child, args=(loader, queue))
        process.start()
        assert queue.get(timeout=60) == expected, method
        process.join()
    loader = begun(source, place)  # what a copy by pickle gives, in this process
    import pickle

    assert numbers(pickle.loads(pickle.dumps(loader))) == expected


def test_the_parent_s_place_stays_while_the_child_goes_on(source):
    loader = labels(source, 4)
    iterator = iter(loader)
    first = next(iterator)["label"].tolist()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(loader, queue))
    process.start()
    rest = queue.get(timeout=60)
    process.join()
    assert [first, *numbers(iterator)] == numbers(labels(source, 4)) == [first, *rest]


def test_a_forked_child_is_another_process_though_its_pid_may_be_the_same():
    before = backends.process()
    pid = os.fork()
    if pid == 0:
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(backends.process() - before)
        status = os.waitpid(grandchild, 0)[1] >> 8
        os._exit(10 * status + backends.process() - before)
    assert os.waitpid(pid, 0)[1] >> 8 == 21
    assert backends.process() == before


NAMESPACES = """
import ctypes, os, signal, sys
import fastload as fl
import torch
libc = ctypes.CDLL(None)
fields = {"image": fl.Image(size=8), "text": fl.Custom("txt", len)}
def make(): return fl.Loader(sys.argv[1:], 4, fields, epochs=None)
def fork():
    if libc.unshare(0x20000000) != 0: os._exit(77)
    return os.fork()
def wait(pid):
    status = os.waitpid(pid, 0)[1]
    return status >> 8 or status
outer = fork()
if outer == 0:
    signal.alarm(30)
    loader = make(); iterator = iter(loader); next(iterator)
    inner = fork()
    if inner == 0:
        signal.alarm(15)
        if os.getpid() != 1: os._exit(2)
        try: next(iterator)
        except fl.ConfigError as error: assert "another process" in str(error)
        else: os._exit(3)
        own = iter(make()); next(own); next(own)
        os._exit(0)
    os._exit(wait(inner) if os.getpid() == 1 else 4)
sys.exit(wait(outer))
"""


def can_unshare() -> bool:
    pid = os.fork()
    if pid == 0:
        os._exit(0 if sys.platform == "linux" and ctypes.CDLL(None).unshare(CLONE_NEWPID) == 0 else 1)
    return os.waitpid(pid, 0)[1] == 0


def test_a_child_in_a_pid_namespace_of_its_own_is_told_apart_from_its_parent(source):
    if not can_unshare():
        pytest.skip("PID namespaces need Linux and root")
    done = preloaded.run(NAMESPACES, *source, limit_seconds=60)
    assert (done.status, done.err) == (0, "")


ENDS = ["os._exit(0)", "sys.exit(0)", "raise SystemExit(0)"]


@pytest.mark.parametrize("ends", slow_but(["sys.exit(0)"], ENDS))
def test_a_child_that_was_forked_amid_an_iteration_ends_at_once(source, ends):
    program = f"""
import os, signal, sys, threading
import fastload as fl
fields = dict(image=fl.Image(size=8), text=fl.Custom("txt", len))
loader = fl.Loader(sys.argv[1:], 2, fields, augment=fl.Augment(mixup=0.3), epochs=None)
iterator = iter(loader); next(iterator)
for _ in range(5):
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        {ends}
    next(iterator)
    assert os.waitpid(child, 0)[1] == 0
"""
    done = preloaded.run(program, *source, limit_seconds=60)
    assert (done.status, done.err) == (0, "")


def test_an_interrupt_in_the_parent_is_not_the_child_s(source):
    """The ends of processes are their own: a child that is killed leaves the parent's iteration alone."""
    loader = labels(source, 4, epochs=None)
    iterator = iter(loader)
    next(iterator)
    pid = os.fork()
    if pid == 0:
        next(iter(loader))
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert isinstance(next(iterator), dict)
    assert isinstance(loader, fl.Loader)


class Numbers:
    def __len__(self):
        return 40

    def __getitem__(self, i):
        return i


@pytest.mark.parametrize("how", [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}])
@pytest.mark.parametrize("does", ["close", "iterate", "next", "collect"])
def test_what_a_forked_child_does_with_a_loader_of_a_torch_dataset_leaves_the_parent_alone(how, does):
    import gc

    loader = fl.DataLoader(Numbers(), 4, **how)
    iterator = iter(loader)
    got = [next(iterator).tolist()]
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        if does == "close":
            loader.close()
        elif does == "iterate":
            assert len(list(loader)) == 10
        elif does == "next":
            with pytest.raises(fl.ConfigError, match="another process"):
                next(iterator)
        else:
            del loader, iterator
            gc.collect()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    got += [batch.tolist() for batch in iterator]
    assert got == [list(range(i, i + 4)) for i in range(0, 40, 4)]
    loader.close()
