"""The native reader against Python's own files, and what it does about what cannot be read."""

import contextlib
import errno
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fastload import _native
from fastload.errors import ShardError
from fastload.read.shard_reader import ShardReader, read_reference
from fastload.shards.dataset import open_dataset
from fastload.shards.index import publish
from fastload.shards.mixture import Mixture, open_mixture
from fastload.shards.source import find_containers
from fastload.shards.writer import ShardWriter

EXTENSIONS = (("bin",), ("txt",), ("odd",))


@pytest.fixture
def memory():
    return _native.BufferPool(1 << 24)


def write(folder, contents, per_shard):
    folder.mkdir(exist_ok=True)
    with ShardWriter(str(folder / "%04d.tar"), max_samples=per_shard) as writer:
        for i, content in enumerate(contents):
            odd = {"odd": f"odd {i}"} if i % 3 == 0 else {}
            writer.write({"__key__": f"{i:05d}", "bin": content, "txt": f"text {i}"} | odd)
    return open_dataset(str(folder))


def some_bytes(sizes):
    rng = np.random.default_rng(7)
    return [rng.bytes(size) for size in sizes]


def located(dataset, sample_ids):
    return [dataset.locate(np.array(sample_ids, np.int64), extensions) for extensions in EXTENSIONS]


def read(dataset, where, memory, threads=4):
    batch = ShardReader(dataset, threads).submit(where, memory)
    assert batch.wait(20)
    return batch


def blobs(batch, n):
    return [None if batch.missing(i) else batch.bytes(i) for i in range(n)]


def files_open_in(folder) -> int:
    """How many descriptors of this process are files in the folder, also of files that are gone."""
    count = 0
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one of listdir itself
            count += os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(folder))
    return count


@pytest.mark.parametrize("per_shard", [1, 3, 100])
def test_native_reads_equal_the_reference_in_any_order_and_again(tmp_path, memory, per_shard):
    sizes = [0, 1, 511, 512, 513, 8191, 8192, 8193, 100_000, 3, 2**16 - 1, 2**16, 2**16 + 1]
    dataset = write(tmp_path / "set", some_bytes(sizes), per_shard)
    orders = [
        range(13),
        reversed(range(13)),
        [5],
        [],
        [3, 3, 0, 12, 3],
        np.random.default_rng(1).permutation(13),
    ]
    for order in orders:
        where = located(dataset, list(order))
        n = sum(len(one.file_id) for one in where)
        assert blobs(read(dataset, where, memory), n) == read_reference(where)


def test_a_folder_is_read_file_by_file(tmp_path, memory):
    contents = some_bytes(range(0, 40, 3))
    for i, content in enumerate(contents):
        (tmp_path / f"{i:02d}.jpg").write_bytes(content)
        (tmp_path / f"{i:02d}.txt").write_bytes(b"x" * i)
    dataset = open_dataset(str(tmp_path))
    where = [dataset.locate(np.array([4, 0, 13]), (extension,)) for extension in ("jpg", "txt", "cls")]
    expected = [contents[4], contents[0], contents[13], b"xxxx", b"", b"x" * 13, None, None, None]
    assert read_reference(where) == expected
    assert blobs(read(dataset, where, memory), 9) == expected


def test_neighbours_are_one_read_and_strangers_are_not(tmp_path, memory):
    dataset = write(tmp_path / "set", some_bytes([1000] * 100), 100)
    alone = [dataset.locate(np.array([10]), ("bin",)), dataset.locate(np.array([10]), ("txt",))]
    # 1000 bytes, padded to blocks, the header of the text, the text
    assert read(dataset, alone, memory).bytes_read == 1024 + 512 + len("text 10")
    strangers = read(dataset, [dataset.locate(np.array([10, 90]), ("bin",))], memory)
    assert strangers.bytes_read == 2 * 1000


def test_the_bytes_of_a_blob_are_a_view_that_keeps_its_batch(tmp_path, memory):
    (content,) = some_bytes([5000])
    dataset = write(tmp_path / "set", [content], 1)
    batch = read(dataset, located(dataset, [0]), memory)
    view = memoryview(batch.blob(0))
    del batch
    assert memory.used_bytes > 0
    assert view.readonly and bytes(view) == content
    view.release()
    for _ in range(1000):  # the thread that read it may be about to let go of it
        if memory.used_bytes == 0:
            break
        time.sleep(0.001)
    assert memory.used_bytes == 0


def test_a_cut_shard_is_an_error_of_the_samples_beyond_the_cut_alone(tmp_path, memory):
    contents = some_bytes([700] * 6)
    dataset = write(tmp_path / "set", contents, 6)
    where = located(dataset, range(6))
    cut = int(where[0].offset_bytes[4]) + 100
    reader = ShardReader(dataset, 4)
    assert reader.submit(located(dataset, [0]), memory).wait(20)  # it is open now
    os.truncate(dataset.files[0], cut)
    batch = reader.submit(where, memory)
    assert batch.wait(20)
    assert [batch.error(i) for i in range(6)] == [0, 0, 0, 0, -1, -1]
    assert [batch.bytes(i) for i in range(4)] == contents[:4]
    with pytest.raises(
        ShardError, match=r"0000.tar: key '00004' at byte \d+: the file has changed since it was indexed"
    ):
        ShardReader(dataset, 4).raise_error(batch, np.arange(6))


def test_a_shard_that_vanished_is_an_error_of_its_own_samples(tmp_path, memory):
    dataset = write(tmp_path / "set", some_bytes([700] * 6), 2)
    os.unlink(dataset.files[1])
    batch = read(dataset, located(dataset, [5, 3, 0]), memory)
    assert [batch.error(i) != 0 for i in range(6)] == [False, True, False] * 2
    assert batch.first_error == 1
    with pytest.raises(
        ShardError, match=r"0001.tar: key '00003' at byte \d+: No such file or directory\. It was"
    ):
        ShardReader(dataset, 4).raise_error(batch, np.array([5, 3, 0]))


def rewritten(path, how):
    """Changes a file in one of the ways in which shards change under a training."""
    content, times = path.read_bytes(), path.stat()
    if how == "cut":
        os.truncate(path, len(content) - 512)
    elif how == "longer":
        path.write_bytes(content + bytes(512))
    elif how == "other content of the same size":
        path.write_bytes(content[::-1])
    elif how == "replaced by another of the same size":
        path.with_suffix(".new").write_bytes(content[::-1])
        os.replace(path.with_suffix(".new"), path)
    elif how == "touched":
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 10**9))
    elif how == "copied again":
        path.with_suffix(".new").write_bytes(content)
        os.replace(path.with_suffix(".new"), path)


REWRITTEN = ("cut", "longer", "other content of the same size", "replaced by another of the same size")
STILL_THE_SAME = ("touched", "copied again", "not at all")


@pytest.mark.parametrize("published", [False, True], ids=["cached", "published"])
@pytest.mark.parametrize("how", REWRITTEN)
def test_a_shard_that_was_rewritten_is_noticed_when_it_is_opened(tmp_path, memory, how, published):
    dataset = write(tmp_path / "set", some_bytes([700] * 6), 3)
    if published:
        for container in find_containers(str(tmp_path / "set")):
            publish(container)
        dataset = open_dataset(str(tmp_path / "set"))
    rewritten(Path(dataset.files[1]), how)
    where = located(dataset, [0, 4])
    batch = read(dataset, where, memory)
    assert [batch.error(i) for i in range(4)] == [0, _native.CHANGED_FILE] * 2
    message = r"0001.tar: key '00004' at byte \d+: the file has changed since .* fastload index --beside"
    with pytest.raises(ShardError, match=message):
        ShardReader(dataset, 4).raise_error(batch, np.array([0, 4]))
    with pytest.raises(ShardError, match=message):
        dataset.check_unchanged(4)
    dataset.check_unchanged(0)


@pytest.mark.parametrize("how", STILL_THE_SAME)
def test_a_shard_that_was_only_touched_or_copied_again_is_read(tmp_path, memory, how):
    contents = some_bytes([700] * 6)
    dataset = write(tmp_path / "set", contents, 3)
    rewritten(Path(dataset.files[1]), how)
    assert blobs(read(dataset, located(dataset, [5]), memory), 1) == [contents[5]]
    dataset.check_unchanged(5)


def test_a_shard_that_vanished_while_it_is_open_is_read_on(tmp_path, memory):
    contents = some_bytes([700] * 6)
    dataset = write(tmp_path / "set", contents, 3)
    reader = ShardReader(dataset, 4)
    assert reader.submit(located(dataset, [3]), memory).wait(20)
    os.unlink(dataset.files[1])
    batch = reader.submit(located(dataset, [5]), memory)
    assert batch.wait(20) and batch.bytes(0) == contents[5]
    dataset.check_unchanged(5)  # what was read before it went was no other one's


@pytest.mark.parametrize("size", [0, 1, 1000])
@pytest.mark.parametrize("change", [-1, 0, 1])
def test_a_file_of_a_folder_that_has_another_size_is_noticed(tmp_path, memory, size, change):
    if size + change < 0:
        pytest.skip("no file is that short")
    for i in range(2):
        (tmp_path / f"{i}.jpg").write_bytes(bytes(size))
    dataset = open_dataset(str(tmp_path))
    (tmp_path / "1.jpg").write_bytes(bytes(size + change))
    batch = read(dataset, [dataset.locate(np.arange(2), ("jpg",))], memory)
    expected = {-1: _native.SHORT_FILE, 0: 0, 1: _native.CHANGED_FILE}[change]
    assert [batch.error(0), batch.error(1)] == [0, expected]
    dataset.check_unchanged(0)
    if change:
        for check in (
            lambda: ShardReader(dataset, 4).raise_error(batch, np.arange(2)),
            lambda: dataset.check_unchanged(1),
        ):
            with pytest.raises(ShardError, match="key '1': the file has changed since it was indexed"):
                check()


def test_a_mixture_says_whose_shard_has_changed(tmp_path, memory):
    for name in ("one", "other"):
        write(tmp_path / name, some_bytes([700] * 2), 2)
    sources = {name: (str(tmp_path / name), 1) for name in ("one", "other")}
    dataset = open_mixture(Mixture(sources, 4))
    rewritten(tmp_path / "other" / "0000.tar", "cut")
    batch = read(dataset, [dataset.locate(np.arange(4), ("bin",))], memory)
    assert [batch.error(i) for i in range(4)] == [0, 0, _native.CHANGED_FILE, _native.CHANGED_FILE]
    for wrong in (2, 3):
        with pytest.raises(ShardError, match=r"^other: 0000.tar: key .* has changed"):
            dataset.check_unchanged(wrong)
    dataset.check_unchanged(1)


def test_a_whole_batch_raises_nothing(tmp_path, memory):
    dataset = write(tmp_path / "set", some_bytes([10]), 1)
    assert (
        ShardReader(dataset, 4).raise_error(read(dataset, located(dataset, [0]), memory), np.arange(1))
        is None
    )


def test_batches_are_read_in_the_order_of_submission(tmp_path, memory):
    dataset = write(tmp_path / "set", some_bytes([100] * 20), 20)
    pool = _native.ShardReader(1)
    files = _native.FileTable(list(dataset.files))
    pool.set_delay_seconds(0.01)
    one = [dataset.locate(np.array([i]), ("bin",)) for i in range(20)]
    batches = [pool.submit(files, w.file_id, w.offset_bytes, w.size_bytes, {}, memory) for w in one]
    done = 0
    while done < 20:
        states = [batch.wait(0) for batch in batches]
        assert states == sorted(states, reverse=True)
        done = sum(states)
        time.sleep(0.002)


def test_an_urgent_batch_is_read_before_all_that_wait_and_nothing_is_lost(tmp_path, memory):
    contents = some_bytes([100] * 20)
    dataset = write(tmp_path / "set", contents, 1)  # each its own file, so its own read
    pool = _native.ShardReader(1)
    files = _native.FileTable(list(dataset.files))
    pool.set_delay_seconds(0.02)

    def submit(ids, **how):
        one = dataset.locate(np.array(ids), ("bin",))
        return pool.submit(files, one.file_id, one.offset_bytes, one.size_bytes, {}, memory, **how)

    half_served = submit(range(9))
    waiting = submit(range(9, 18))
    time.sleep(0.05)
    urgent = submit([18, 19], urgent=True)
    assert urgent.wait(20)
    assert not half_served.wait(0) and not waiting.wait(0)
    assert half_served.wait(20) and waiting.wait(20)
    assert blobs(half_served, 9) + blobs(waiting, 9) + blobs(urgent, 2) == contents


def test_a_cancelled_batch_is_complete_soon_and_has_read_nothing(tmp_path, memory):
    dataset = write(tmp_path / "set", some_bytes([100] * 50), 1)
    reader = _native.ShardReader(2)
    reader.set_delay_seconds(0.02)
    where = dataset.locate(np.arange(50), ("bin",))
    files = _native.FileTable(list(dataset.files))
    begun = time.perf_counter()
    batch = reader.submit(files, where.file_id, where.offset_bytes, where.size_bytes, {}, memory)
    batch.cancel()
    assert batch.wait(20)
    assert time.perf_counter() - begun < 0.4
    assert batch.busy_seconds < 0.2


def test_waiting_for_reads_leaves_python_free(tmp_path, memory):
    dataset = write(tmp_path / "set", some_bytes([100]), 1)
    reader = _native.ShardReader(1)
    reader.set_delay_seconds(0.2)
    where = dataset.locate(np.arange(1), ("bin",))
    files = _native.FileTable(list(dataset.files))
    batch = reader.submit(files, where.file_id, where.offset_bytes, where.size_bytes, {}, memory)
    waiter = threading.Thread(target=batch.wait, args=(10,))
    waiter.start()
    turns = 0
    while waiter.is_alive():
        turns += 1
        time.sleep(0.001)
    assert turns > 20
    assert not batch.wait(0) or batch.error(0) == 0


@pytest.mark.parametrize(
    ("file_ids", "offsets", "sizes", "message"),
    [
        ([0, 0], [0], [1], "must have one length"),
        ([1], [0], [1], "beyond the table of files"),
        ([-1], [0], [1], "needs a path"),
        ([0], [-1], [1], "must not be negative"),
        ([0], [2**62], [2**62], "below 2"),
    ],
)
def test_requests_that_make_no_sense_are_refused(tmp_path, memory, file_ids, offsets, sizes, message):
    files = _native.FileTable([str(tmp_path / "a")])
    with pytest.raises(ValueError, match=message):
        _native.ShardReader(1).submit(
            files, np.array(file_ids, np.int32), np.array(offsets), np.array(sizes), {}, memory
        )


def test_more_memory_than_there_is_is_a_memory_error(tmp_path, memory):
    files = _native.FileTable([str(tmp_path / "a")])
    with pytest.raises(MemoryError):
        _native.ShardReader(1).submit(
            files, np.zeros(1, np.int32), np.zeros(1, np.int64), np.array([2**60]), {}, memory
        )


def test_blobs_that_are_not_there_are_an_index_error(tmp_path, memory):
    dataset = write(tmp_path / "set", some_bytes([10]), 1)
    batch = read(dataset, located(dataset, [0]), memory)
    for ask in (batch.blob, batch.bytes, batch.error, batch.missing):
        with pytest.raises(IndexError, match="no such blob"):
            ask(3)


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="no file that always fails to be read")
def test_a_batch_that_is_lost_waits_once_and_not_for_each_of_its_ranges(memory):
    """Reading at 0 in a process's memory fails with EIO, which may pass elsewhere."""
    reader = _native.ShardReader(2)
    reader.backoff_seconds = [0.05] * 4
    files = _native.FileTable(["/proc/self/mem"])

    def submit(ranges, **how):
        columns = np.zeros(ranges, np.int32), np.arange(ranges) * 20_000, np.full(ranges, 10)
        return reader.submit(files, *columns, {}, memory, **how)

    lost, tried_once = submit(40), submit(40, retry=False)
    assert lost.wait(10) and tried_once.wait(10)
    assert {lost.error(blob) for blob in range(40)} == {errno.EIO}
    assert lost.retries <= 2 * 4  # of the two that the threads had in hand
    assert sorted(lost.attempts(blob) for blob in range(40))[-3:] == [1, 5, 5]
    assert tried_once.retries == 0 and tried_once.attempts(0) == 1
