"""Reads the bytes of a batch on native threads, ahead of need.

In: for each stored field of a batch, where its samples lie (`Located`). Out: a `ByteBatch` whose blob
`field * batch_size + sample` holds the bytes of that field of that sample, complete after `wait`.
Promised: no Python runs while bytes are read; batches are read in the order of submission; neighbours in a shard
(the image, label and caption of a sample) are one read; an error stays with its own sample and is raised with
shard, key and byte offset. `read_plain` is the twin: what each blob must hold.
"""

import os

import numpy as np

from fastload import _native
from fastload.backends import once_per_process
from fastload.errors import ShardError

MAX_OPEN_FILES = 128  # shards kept open by one loader; common limits on descriptors begin at 1024
_SHORT_FILE = -1


class ShardReader:
    """The reader threads of this process, and the files of one dataset.

    `threads`: how many reads are under way at once. The threads are shared by all loaders of the process that ask
    for the same number.
    """

    def __init__(self, dataset, threads: int):
        self._dataset = dataset
        self._pool = once_per_process(("reader", threads), lambda: _native.ShardReader(threads))
        self._files = _native.FileTable(list(dataset.files), MAX_OPEN_FILES)

    @property
    def threads(self) -> int:
        return self._pool.threads

    def submit(self, located: list, memory: "_native.BufferPool") -> "_native.ByteBatch":
        """Begins to read the blobs of `located`, one entry for each field, into memory of the pool `memory`."""
        if len(located) == 1:
            file_ids, offsets, sizes = located[0].file_id, located[0].offset_bytes, located[0].size_bytes
        else:
            file_ids = np.concatenate([one.file_id for one in located])
            offsets = np.concatenate([one.offset_bytes for one in located])
            sizes = np.concatenate([one.size_bytes for one in located])
        return self._pool.submit(self._files, file_ids, offsets, sizes, _paths(located), memory)

    def raise_error(self, batch: "_native.ByteBatch", sample_ids: np.ndarray) -> None:
        """Raises the first read error of a complete batch, if there is one: a ShardError that names the sample."""
        blob = batch.first_error
        if blob is None:
            return
        code = batch.error(blob)
        reason = "the file is shorter than its index says" if code == _SHORT_FILE else os.strerror(code)
        where = self._dataset.where(int(sample_ids[blob % len(sample_ids)]))
        raise ShardError(f"{where}: {reason}. If the shard was rewritten, run: fastload index")


def read_plain(dataset, located: list) -> list[bytes | None]:
    """The bytes of each blob of `located` (None: missing), read one after the other with Python's own files."""
    blobs = []
    for one in located:
        paths = _paths([one])
        for i in range(len(one.file_id)):
            if one.size_bytes[i] < 0:
                blobs.append(None)
                continue
            path = paths[i] if one.file_id[i] < 0 else dataset.files[one.file_id[i]]
            with open(path, "rb") as file:
                file.seek(int(one.offset_bytes[i]))
                blobs.append(file.read(int(one.size_bytes[i])))
    return blobs


def _paths(located: list) -> dict[int, str]:
    """Blob number -> path, for the blobs that are files of their own."""
    paths, first = {}, 0
    for one in located:
        for i, path in one.paths.items():
            paths[first + i] = path
        first += len(one.file_id)
    return paths
