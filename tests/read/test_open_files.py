"""The files that all loaders keep open together: how many, which, and who closes them.

Each test is a program, as the limit on open files is that of a whole process.
"""

from pathlib import Path

from tests import preloaded

BEGINNING = """if 1:
    import contextlib, os, resource, sys, threading, time
    import numpy as np
    from fastload import _native

    folder = sys.argv[1]
    memory = _native.BufferPool(1 << 30)
    readers = _native.ShardReader(4)

    def limited(number):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))

    def table(name, files=10):
        paths = [f"{folder}/{name}-{i}" for i in range(files)]
        for number, path in enumerate(paths):
            with open(path, "wb") as file:
                file.write(bytes([number]) * 10)
        return _native.FileTable(paths)

    def read(files, numbers, reader=readers):
        n = len(numbers)
        batch = reader.submit(
            files, np.array(numbers, np.int32), np.zeros(n, np.int64), np.full(n, 10), {}, memory
        )
        assert batch.wait(20)
        assert [batch.error(i) for i in range(n)] == [0] * n, [batch.error(i) for i in range(n)]
        assert [batch.bytes(i) for i in range(n)] == [bytes([number]) * 10 for number in numbers]
        return batch

    def still_open():
        names = []
        for one in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):
                path = os.readlink(f"/proc/self/fd/{one}")
                if path.startswith(folder):
                    names.append(os.path.basename(path))
        return sorted(names)

    def soon(is_so):
        stop = time.monotonic() + 10
        while not is_so() and time.monotonic() < stop:
            time.sleep(0.005)
        assert is_so(), still_open()

    def held(number):
        return [os.open(os.devnull, os.O_RDONLY) for _ in range(number)]

    def all_held():
        found = []
        with contextlib.suppress(OSError):
            while True:
                found += held(1)
        return found
"""


def run(program: str, folder: Path) -> None:
    ran = preloaded.run(BEGINNING + program, str(folder), limit_seconds=100)
    assert ran.status == 0, ran.out + ran.err


def test_all_loaders_together_keep_a_quarter_of_the_descriptors_open(tmp_path):
    program = """
    limited(256)
    tables = [table(f"t{i}") for i in range(64)]
    for files in tables * 2:
        read(files, range(10))
    soon(lambda: len(still_open()) <= 256 // 4)
    assert len(still_open()) > 256 // 6
    """
    run(program, tmp_path)


def test_the_files_of_all_loaders_that_were_read_last_stay_open(tmp_path):
    program = """
    limited(64)
    one, other = table("one"), table("other")
    alone = _native.ShardReader(1)
    for files in (one, other):
        for number in range(6):
            read(files, [number], alone)
    for number in (0, 1):
        read(one, [number], alone)
    kept = len(still_open())
    assert 10 <= kept <= 16, kept
    for number in range(6, 10):
        read(other, [number], alone)
    read(table("third"), range(3), alone)
    soon(lambda: len(still_open()) <= kept + 3)
    assert {"one-0", "one-1", "other-9", "other-6"} <= set(still_open())
    assert not {"one-2", "one-3"} & set(still_open())
    """
    run(program, tmp_path)


def test_a_training_that_holds_most_descriptors_has_most_of_the_rest_too(tmp_path):
    program = """
    limited(128)
    files = table("t", 100)
    read(files, range(100))
    assert len(still_open()) > 16
    training = held(80)
    read(files, range(100))
    soon(lambda: len(still_open()) <= (128 - 80) // 4)
    training += held(20)
    """
    run(program, tmp_path)


def test_a_limit_that_is_raised_later_counts_from_the_next_file_on(tmp_path):
    program = """
    limited(32)
    files = table("t", 120)
    read(files, range(40))
    soon(lambda: len(still_open()) <= 8)
    limited(1024)
    read(files, range(120))
    assert len(still_open()) >= 112
    other = table("other")
    limited(64)
    read(other, range(5))
    soon(lambda: len(still_open()) <= 16)
    """
    run(program, tmp_path)


def test_loaders_that_are_made_and_dropped_leave_no_file_open(tmp_path):
    program = """
    limited(128)
    kept = table("kept", 4)
    read(kept, range(4))
    for i in range(300):
        read(table(f"t{i % 3}"), range(10))
    soon(lambda: still_open() == [f"kept-{i}" for i in range(4)])
    """
    run(program, tmp_path)


def test_files_that_are_kept_are_given_up_for_one_that_is_to_be_read(tmp_path):
    """At once, without a pause and another try."""
    program = """
    limited(64)
    files = table("t")
    read(files, range(8))
    training = all_held()
    batch = read(files, [9], _native.ShardReader(1))
    assert batch.retries == 0, batch.retries
    assert len(still_open()) < 8, still_open()
    """
    run(program, tmp_path)


def test_files_that_are_kept_are_given_up_for_a_source_that_is_to_be_opened(tmp_path):
    program = """
    from fastload.shards.dataset import open_dataset
    from tests.scarce.opening import shards
    from pathlib import Path
    limited(64)
    source = shards(Path(folder))
    open_dataset(source, cache_dir=folder + "/cache")
    files = table("t")
    read(files, range(8))
    training = all_held()
    assert open_dataset(source, cache_dir=folder + "/cache").n == 8
    """
    run(program, tmp_path)


def test_forked_children_begin_with_no_file_and_read_whatever_the_parent_does(tmp_path):
    """Also where a thread of the parent was at the shared state as it forked."""
    program = """
    limited(512)
    files = table("t", 60)
    stop = threading.Event()
    def busily():
        reader = _native.ShardReader(2)
        while not stop.is_set():
            for start in range(0, 60, 10):
                read(files, range(start, start + 10), reader)
    threads = [threading.Thread(target=busily) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        child = os.fork()
        if child == 0:
            reader = _native.ShardReader(2)
            assert _native.open_files()[0] == 0
            read(files, range(60), reader)
            assert 0 < _native.open_files()[0] <= 60
            os._exit(0)
        stopped = time.monotonic() + 20
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < stopped:
            time.sleep(0.002)
        if ended[0] == 0:
            os.kill(child, 9)
        assert ended == (child, 0), ended
    stop.set()
    for thread in threads:
        thread.join()
    """
    run(program, tmp_path)
