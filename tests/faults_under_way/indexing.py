"""Scenarios of a cache for indexes that cannot be written: it says what to do, and leaves no half file."""

import errno
import os
import tempfile
from pathlib import Path

import numpy as np

from fastload.errors import ConfigError
from fastload.shards.dataset import open_dataset
from tests.faults import Rule, rules
from tests.faults_under_way.scenarios import equal, raised

SOME_BYTES = 100  # of an index: the disk is full in the middle of it
FAULTS = {
    "full in the middle": Rule("write", ".partial", errno.ENOSPC, most_bytes=SOME_BYTES),
    "full at once": Rule("open", ".partial", errno.ENOSPC),
    "full for locks": Rule("open", ".lock", errno.ENOSPC),
    "over its quota": Rule("write", ".partial", errno.EDQUOT),
    "failing": Rule("write", ".partial", errno.EIO),
    "not to be written": Rule("open", ".partial", errno.EACCES),
    "not to be locked": Rule("open", ".lock", errno.EACCES),
    "read-only": Rule("open", ".lock", errno.EROFS),
    "full for names": Rule("rename", ".flidx", errno.ENOSPC),
}


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def a_cache_that_cannot_be_written_says_what_to_do(shards):
    for name, rule in FAULTS.items():
        with tempfile.TemporaryDirectory() as cache:
            with rules(rule) as seen:
                error = raised(ConfigError, lambda: open_dataset(shards, cache_dir=cache))
            said = str(error)
            assert seen.hits[0] > 0, name
            assert f"{cache}: the index cannot be written ({os.strerror(rule.errno)})" in said, said
            full = rule.errno in (errno.ENOSPC, errno.EDQUOT)
            assert ("Free some space" if full else "Make it writable") in said, said
            assert "FASTLOAD_CACHE" in said and "fastload index --beside" in said, said
            equal((name, files_below(Path(cache))), (name, []))
            dataset = open_dataset(shards, cache_dir=cache)
            equal((name, len(files_below(Path(cache)))), (name, 4))
            equal(dataset.keys(np.arange(2)), ["00000", "00001"])


def a_cache_that_fills_up_keeps_the_indexes_that_were_whole(shards):
    with tempfile.TemporaryDirectory() as cache:
        with rules(Rule("write", ".partial", errno.ENOSPC, after=2, most_bytes=0)):
            raised(ConfigError, lambda: open_dataset(shards, cache_dir=cache))
        whole = files_below(Path(cache))
        assert len(whole) == 2 and all(name.endswith(".flidx") for name in whole), whole
        times = [(Path(cache) / name).stat().st_mtime_ns for name in whole]
        open_dataset(shards, cache_dir=cache)
        equal([(Path(cache) / name).stat().st_mtime_ns for name in whole], times)


def indexes_written_and_read_in_small_pieces_are_whole(shards):
    with tempfile.TemporaryDirectory() as cache, rules(Rule("write", ".partial", most_bytes=7)) as seen:
        equal(open_dataset(shards, cache_dir=cache).keys(np.arange(1)), ["00000"])
        equal(open_dataset(shards, cache_dir=cache).n, 23)
    assert seen.hits[0] > 100, seen.hits


SCENARIOS = {
    one.__name__: (one, {})
    for one in (
        a_cache_that_cannot_be_written_says_what_to_do,
        a_cache_that_fills_up_keeps_the_indexes_that_were_whole,
        indexes_written_and_read_in_small_pieces_are_whole,
    )
}
