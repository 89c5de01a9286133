"""Reads the bytes of a batch on native threads, ahead of need.

In: for each stored field of a batch, where its samples lie (`Located`). Out: a `ByteBatch` whose blob
`field * batch_size + sample` holds the bytes of that field of that sample, complete after `wait`. Promised:
no Python runs while bytes are read; batches are read in the order of submission, urgent ones before all
pending ones; neighbours in a shard (the image, label and caption of a sample) are one read; transient errors
are retried for some seconds, but not for a cancelled batch; any other error stays with its own sample and is
raised with shard, key and byte offset. A shard is compared with its index whenever it is opened; an open
shard can be read after it was deleted. The shards that were read last, by any loader, stay open, as many as
the limit on open files allows (csrc/read/open_files.h). `read_reference` says what each blob must hold.
"""

import errno
import os

import numpy as np

from fastload import _native
from fastload.errors import ShardError
from fastload.shards.dataset import CHANGED
from fastload.shortage import way_out
from fastload.threads import native_threads

_NOT_AS_INDEXED = (_native.SHORT_FILE, _native.CHANGED_FILE)
_GONE = "It was moved or deleted: put it back, or open the dataset again without it."
_DISK = "Check the disk or the mount, then resume from the last checkpoint."


class ShardReader:
    """The reader threads of this process, and the files of one dataset.

    threads: how many reads run at once. All loaders of the process that ask for the same number share them.
    """

    def __init__(self, dataset, threads: int):
        self._dataset = dataset
        self._pool = native_threads("reader", threads, _native.ShardReader)
        stamps = [
            (stamp.size_bytes, stamp.mtime_ns, stamp.tail_start, stamp.tail_stop, stamp.tail_crc)
            for stamp in dataset.stamps
        ]
        self._files = _native.FileTable(list(map(os.fsencode, dataset.files)), stamps)

    @property
    def threads(self) -> int:
        return self._pool.threads

    def submit(
        self, located: list, memory: "_native.BufferPool", urgent: bool = False, retry: bool = True
    ) -> "_native.ByteBatch":
        """Begins to read the blobs of `located`, one entry for each field, into memory of that pool.

        urgent: before all pending batches, because the training run waits for this one. retry: transient
        errors are retried.
        """
        names = ("file_id", "offset_bytes", "size_bytes")
        columns = [np.concatenate([getattr(field, name) for field in located]) for name in names]
        return self._pool.submit(self._files, *columns, _paths(located), memory, urgent=urgent, retry=retry)

    def close_files(self, seconds: float) -> bool:
        """Closes the files of this dataset; False if that takes longer, as on a mount that is gone."""
        return self._files.close(seconds)

    def leave_behind(self, batch: "_native.ByteBatch") -> None:
        """Gives up a batch whose reads hang, and the threads that hang with it; new ones replace them."""
        self._pool.leave_behind(batch)

    def raise_error(self, batch: "_native.ByteBatch", sample_ids: np.ndarray) -> None:
        """Raises a ShardError for the first blob of a complete batch that could not be read, if any."""
        blob = batch.first_error
        if blob is None:
            return
        where = self._dataset.where(int(sample_ids[blob % len(sample_ids)]))
        code, attempts = batch.error(blob), batch.attempts(blob)
        if code in _NOT_AS_INDEXED:
            self._dataset.check_unchanged(int(sample_ids[blob % len(sample_ids)]))  # drops a folder's index
            raise ShardError(f"{where}: {CHANGED}")
        tried = f", tried {attempts} times" if attempts > 1 else ""
        otherwise = _GONE if code in (errno.ENOENT, errno.ENOTDIR) else _DISK
        raise ShardError(f"{where}: {os.strerror(code)}{tried}. {way_out(code, otherwise)}")


def read_reference(located: list) -> list[bytes | None]:
    """The bytes of each blob of `located` (None: missing), read one after the other by Python."""
    blobs: list[bytes | None] = []
    for field in located:
        for i, size_bytes in enumerate(field.size_bytes.tolist()):
            if size_bytes < 0:
                blobs.append(None)
                continue
            with open(field.path_of(i), "rb") as file:
                file.seek(int(field.offset_bytes[i]))
                blobs.append(file.read(size_bytes))
    return blobs


def _paths(located: list) -> dict[int, bytes]:
    """Blob number -> path, for the blobs that are files of their own."""
    paths, first = {}, 0
    for field in located:
        paths.update((first + i, os.fsencode(path)) for i, path in field.paths.items())
        first += len(field.file_id)
    return paths
