"""Scenarios of reads and opens that fail, hang or fall short, and of memory that is not there."""

import errno
import os
import resource
import shutil
import time

import numpy as np

import fastload as fl
from fastload import _native
from fastload.errors import ShardError, SourceError
from fastload.read.shard_reader import ShardReader
from fastload.shards import retry
from fastload.shards.dataset import open_dataset
from tests.faults import Rule, rules
from tests.faults_under_way.scenarios import (
    Pauses,
    SlowReads,
    equal,
    labels_of,
    loader,
    pressed_after,
    raised,
)

PASSING = [
    "EIO",
    "EREMOTEIO",
    "ESTALE",
    "ETIMEDOUT",
    "EAGAIN",
    "EBUSY",
    "EINTR",
    "ENOMEM",
    "ENOBUFS",
    "ENOTCONN",
    "ESHUTDOWN",
    "ECONNABORTED",
    "ECONNREFUSED",
    "ECONNRESET",
    "EPIPE",
    "ENETDOWN",
    "ENETRESET",
    "ENETUNREACH",
    "EHOSTDOWN",
    "EHOSTUNREACH",
]
PASSING_OPENS = ["EMFILE", "ENFILE", "EIO", "ESTALE", "ETIMEDOUT", "EINTR", "ENOMEM"]
LASTING = ["EACCES", "EPERM", "ENOENT", "EISDIR", "ELOOP", "ENAMETOOLONG", "ENXIO"]
BAD_SHARD = "001.tar"  # samples 6 to 11
ALL = list(range(22))  # of 23 in steps of two
LABEL = {"label": fl.Int("cls")}


def a_read_error_that_passes_costs_nothing_but_time(shards):
    _passes(shards, "read", PASSING)


def an_error_of_opening_that_passes_costs_nothing_but_time(shards):
    _passes(shards, "open", PASSING_OPENS)


def _passes(shards, call: str, names: list[str]) -> None:
    with Pauses(0.001, 0.001, 0.001):
        for name in names:
            good = loader(shards)
            with rules(Rule(call, BAD_SHARD, getattr(errno, name), times=2)) as seen:
                equal((name, labels_of(good)), (name, ALL))
            equal((name, seen.hits), (name, [2]))


def a_stale_file_is_opened_anew_before_the_next_try(shards):
    good, stale = loader(shards, batch_size=1), Rule("read", BAD_SHARD, errno.ESTALE, after=1, times=2)
    with Pauses(0.001, 0.001, 0.001), rules(Rule("open", BAD_SHARD), stale) as seen:
        equal(labels_of(good), list(range(23)))
    assert seen.calls[0] >= 2 and seen.hits[1] == 2, (seen.calls, seen.hits)


def retries_are_counted_in_the_batch(shards):
    batch = _read(shards, Rule("read", BAD_SHARD, errno.EIO, times=2))
    equal([batch.error(0), batch.retries, batch.attempts(0)], [0, 2, 3])
    batch = _read(shards, Rule("read", BAD_SHARD, errno.EIO))
    equal([batch.error(0), batch.retries, batch.attempts(0)], [errno.EIO, 3, 4])
    batch = _read(shards)
    equal([batch.error(0), batch.retries, batch.attempts(0)], [0, 0, 1])


def _read(shards, *given):
    """The batch of one sample of the bad shard, read with these faults."""
    dataset = open_dataset(shards, cache_dir=os.environ["FASTLOAD_CACHE"] + "/index")
    with Pauses(0.001, 0.001, 0.001), rules(*given):
        located = [dataset.locate(np.array([7]), ("jpg",))]
        batch = ShardReader(dataset, 4).submit(located, _native.BufferPool(1 << 20))
        assert batch.wait(20)
    return batch


def an_error_that_lasts_is_raised_after_the_batches_before_it(shards):
    got, bad = [], loader(shards, prefetch=9)
    with Pauses(0.001, 0.001), rules(Rule("read", BAD_SHARD, errno.EIO)):
        run = iter(bad)
        error = raised(ShardError, lambda: got.extend(batch for batch in run))
    equal(labels_of(got), list(range(6)))
    said = str(error)
    assert "001.tar: key '00006' at byte" in said and "Input/output error, tried 3 times. Check" in said, said
    equal(list(run), [])
    equal(bad.state_dict()["position"], 6)
    bad.load_state_dict(bad.state_dict())
    equal(labels_of(bad), list(range(6, 22)))  # the disk is well again, and the loader goes on where it was


def opening_the_source_tries_again_too(shards):
    fresh = os.environ["FASTLOAD_CACHE"] + "/fresh"
    for name in ("EIO", "ESTALE", "ETIMEDOUT"):
        for cache in (os.environ["FASTLOAD_CACHE"] + "/index", fresh):  # found, and built
            with rules(Rule("read", BAD_SHARD, getattr(errno, name), times=1)) as seen:
                equal(open_dataset(shards, cache_dir=cache).n, 23)
            equal((name, seen.hits), (name, [1]))
            shutil.rmtree(fresh, ignore_errors=True)
    before, retry.PAUSES_SECONDS = retry.PAUSES_SECONDS, (0.001, 0.001)
    try:
        with rules(Rule("read", BAD_SHARD, errno.EIO)) as seen:
            error = raised(SourceError, lambda: loader(shards))
    finally:
        retry.PAUSES_SECONDS = before
    assert "001.tar: cannot be read (Input/output error). Check its disk" in str(error), str(error)
    equal(seen.hits, [3])
    begun = time.perf_counter()
    with rules(Rule("open", BAD_SHARD, errno.EACCES)):
        error = raised(SourceError, lambda: loader(shards))
    assert "Permission denied" in str(error) and time.perf_counter() - begun < 1, str(error)


def an_error_that_cannot_pass_is_raised_at_once(shards):
    for name in LASTING:  # the pauses are the true ones: seven seconds each time
        bad, begun = loader(shards), time.perf_counter()
        with rules(Rule("open", BAD_SHARD, getattr(errno, name))):
            error = raised(ShardError, lambda bad=bad: list(bad))
        assert "001.tar: key '00006' at byte" in str(error) and "tried" not in str(error), str(error)
        assert os.strerror(getattr(errno, name)) in str(error), str(error)
        assert time.perf_counter() - begun < 2


def reads_that_fall_short_are_continued(shards):
    with rules(Rule("read", ".tar", most_bytes=100)) as seen:
        equal(labels_of(loader(shards)), ALL)  # which reads indexes' stamps, too
    assert seen.hits[0] > 23, seen.hits


def a_slow_file_keeps_the_order_and_loses_nothing(shards):
    good = loader(shards, prefetch=9)
    with rules(Rule("read", BAD_SHARD, delay_seconds=0.1)):
        equal(labels_of(good), ALL)


def a_file_that_is_slow_to_open_keeps_no_other_waiting(shards):
    dataset = open_dataset(shards, cache_dir=os.environ["FASTLOAD_CACHE"] + "/index")
    reader, memory = ShardReader(dataset, 4), _native.BufferPool(1 << 20)
    with rules(Rule("open", BAD_SHARD, delay_seconds=1.0)):
        slow = reader.submit([dataset.locate(np.array([7]), ("jpg",))], memory)
        time.sleep(0.05)
        other = reader.submit([dataset.locate(np.array([1, 13]), ("jpg",))], memory)
        assert other.wait(0.8) and not slow.wait(0)
        assert slow.wait(20) and not slow.error(0)


def closing_waits_for_one_slow_read_and_no_more(shards):
    slow = loader(shards, batch_size=1, prefetch=20)
    with rules(Rule("read", BAD_SHARD, delay_seconds=0.7)):
        run = iter(slow)
        equal(labels_of([next(run)]), [0])
        begun = time.perf_counter()
        slow.close()
        assert time.perf_counter() - begun < 2 * 0.7


def closing_does_not_wait_for_reads_that_are_to_be_tried_again(shards):
    bad = loader(shards, batch_size=1, prefetch=20)
    with rules(Rule("read", BAD_SHARD, errno.EIO)):  # seven seconds of pauses
        run = iter(bad)
        equal(labels_of([next(run)]), [0])
        time.sleep(0.4)  # so that the pause at hand is one of more than a second
        begun = time.perf_counter()
        bad.close()
        assert time.perf_counter() - begun < 0.9


def ctrl_c_does_not_wait_for_reads_that_are_to_be_tried_again(shards):
    bad, begun = loader(shards, batch_size=4), time.perf_counter()
    with rules(Rule("read", BAD_SHARD, errno.EIO)), pressed_after(0.5):
        raised(KeyboardInterrupt, lambda: list(bad))
    assert 0.4 < time.perf_counter() - begun < 2


def what_waits_for_its_next_try_keeps_no_other_batch_waiting(shards):
    run = iter(loader(shards, prefetch=9))
    with Pauses(1.5), rules(Rule("read", "003.tar", errno.EIO, times=1)):
        begun = time.perf_counter()
        equal(labels_of([next(run) for _ in range(9)]), list(range(18)))
        assert time.perf_counter() - begun < 1.2
        equal(labels_of(run), list(range(18, 22)))


def a_pool_that_ends_does_not_wait_for_reads_that_are_to_be_tried_again(shards):
    dataset = open_dataset(shards, cache_dir=os.environ["FASTLOAD_CACHE"] + "/index")
    pool, files = _native.ShardReader(1), _native.FileTable(list(dataset.files))
    one = dataset.locate(np.array([7]), ("jpg",))
    with rules(Rule("read", BAD_SHARD, errno.EIO)):
        memory = _native.BufferPool(1 << 20)
        batch = pool.submit(files, one.file_id, one.offset_bytes, one.size_bytes, {}, memory)
        time.sleep(0.4)  # so that the pause at hand is one of more than a second
        begun = time.perf_counter()
        del pool
        assert time.perf_counter() - begun < 0.3
    assert batch.wait(2)


def files_are_closed_where_there_are_no_more_descriptors(shards):
    good = loader(shards, fields=LABEL)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 2, before[1]))  # for two of the four shards at most
    try:
        with Pauses(0.001, 0.01, 0.1):
            equal(labels_of(good), ALL)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def a_reader_thread_without_memory_tries_again(shards):
    # Each reader thread has read before: glibc aborts where one has no memory for its thread_locals.
    with SlowReads(0.02):
        equal(labels_of(loader(shards, fields=LABEL, prefetch=9)), ALL)
    for after in range(12):
        good = loader(shards, fields=LABEL)  # no other thread allocates then
        with Pauses(0.001, 0.001), rules(Rule("malloc", "0", errno.ENOMEM, after=after, times=1)) as seen:
            equal(labels_of(good), ALL)
        equal((after, seen.hits), (after, [1]))


SCENARIOS = {
    one.__name__: (one, {})
    for one in (
        a_read_error_that_passes_costs_nothing_but_time,
        an_error_of_opening_that_passes_costs_nothing_but_time,
        a_stale_file_is_opened_anew_before_the_next_try,
        retries_are_counted_in_the_batch,
        an_error_that_lasts_is_raised_after_the_batches_before_it,
        opening_the_source_tries_again_too,
        an_error_that_cannot_pass_is_raised_at_once,
        reads_that_fall_short_are_continued,
        a_slow_file_keeps_the_order_and_loses_nothing,
        a_file_that_is_slow_to_open_keeps_no_other_waiting,
        closing_waits_for_one_slow_read_and_no_more,
        closing_does_not_wait_for_reads_that_are_to_be_tried_again,
        ctrl_c_does_not_wait_for_reads_that_are_to_be_tried_again,
        what_waits_for_its_next_try_keeps_no_other_batch_waiting,
        a_pool_that_ends_does_not_wait_for_reads_that_are_to_be_tried_again,
        files_are_closed_where_there_are_no_more_descriptors,
        a_reader_thread_without_memory_tries_again,
    )
}
