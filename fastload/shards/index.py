"""A container's index: found beside the container or in the cache, or built and cached.

In: containers. Out: a valid `IndexFile` for each. Promised: an index that does not match the container as it
is now, is damaged or has another version is never used, but built again; each missing index is built once,
however many threads, ranks or other processes of the host ask for it; if the builder dies, another process
takes over.

An index beside its container ("published": NAME.flidx, to be copied with the data) is preferred. It is valid
if the size and the checksum of the container's tail agree. For a cached index the modification time must
agree as well; a copy may change it. A folder is unchanged if none of its folders has changed. A file that is
overwritten in place changes no folder, so a reader checks that it has the size in the index. A list of files
is like a folder, but its index is only cached, and each list has its own.

File locks divide the work on a host: each rank first builds its own share (every `local_world_size`-th
missing index), then those that no process works on, then waits for the rest. The kernel releases the lock of
a process that dies.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from fastload import backends
from fastload.errors import ConfigError, ShardError, raise_if_foreign
from fastload.shards.files import index_files
from fastload.shards.folder import folder_changed, index_folder
from fastload.shards.index_file import IndexFile, IndexUnusableError, Stamp, read_index, write_index
from fastload.shards.labels import labels_of_json
from fastload.shards.retry import reading, unreadable, with_retries
from fastload.shards.rows import COPY_AGAIN, Rows, split_name
from fastload.shards.source import INDEX_SUFFIX, Container
from fastload.shards.tar import BLOCK, index_tar, padded
from fastload.shards.zip import index_zip
from fastload.shortage import is_shortage, way_out
from fastload.threads import for_all

TAIL_BYTES = 4096
_HELD, _UNKNOWN = "held", "the file system has no locks"
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ": "xz", b"BZh": "bzip2"}


def default_cache_dir() -> Path:
    """The folder of cached indexes that the Loader reads, too."""
    return backends.cache_dir() / "index"


def open_indexes(
    containers: list[Container],
    cache_dir: Path,
    *,
    threads: int = 1,
    local_rank: int = 0,
    local_world_size: int = 1,
    found: Callable[[int, int], None] | None = None,
) -> list[IndexFile]:
    """The index of each container, in order; missing ones are built. found(done, total) is called for each.

    Raises SourceError or ShardError for a container that cannot be indexed (of several, the first in order,
    as far as known), ConfigError if the cache folder is not writable.
    """
    indexes: dict[Container, IndexFile] = {}

    def note(container: Container, index: IndexFile | None) -> None:
        if index is not None:
            indexes[container] = index
            if found is not None:
                found(len(indexes), len(containers))

    # On threads: if a mount is gone, `open` never returns, and only the calling thread reacts to Ctrl-C.
    for_all(containers, partial(find_valid, cache_dir=cache_dir), note, threads, "fastload-index")
    own = containers[local_rank::local_world_size]
    others = [each for i, each in enumerate(containers) if i % local_world_size != local_rank]
    middle = len(others) * local_rank // local_world_size
    others = others[middle:] + others[:middle]
    for share, wait in ((own, True), (others, False), (others, True)):
        missing = [container for container in share if container not in indexes]
        for_all(missing, partial(build, cache_dir=cache_dir, wait=wait), note, threads, "fastload-index")
    return [indexes[container] for container in containers]


def find_valid(container: Container, cache_dir: Path) -> IndexFile | None:
    """The published or else the cached index of a container, if one is valid for its current state."""
    for path, published in ((published_path(container), True), (cached_path(container, cache_dir), False)):
        if published and container.files is not None:
            continue
        index = _read(path)
        if index is None:
            continue
        if container.is_folder:
            if index.stamp.folders and not folder_changed(container.path, index.stamp.folders):
                return index
            continue
        mtime_ns = _mtime_if_current(container, index.stamp, published)
        if mtime_ns is not None:
            return replace(index, seen_mtime_ns=mtime_ns)
    return None


def _read(path: Path) -> IndexFile | None:
    """The index at `path`, if it exists and is usable. Raises SourceError if that cannot be found out."""
    try:
        with contextlib.suppress(FileNotFoundError, IndexUnusableError):
            return with_retries(lambda: read_index(path), is_shortage)
    except OSError as error:
        raise unreadable(str(path), error) from error
    return None


def build(
    container: Container, cache_dir: Path, *, wait: bool = True, afresh: bool = False
) -> IndexFile | None:
    """Indexes a container into the cache, unless another process has done so meanwhile.

    wait=False: returns None if another process is building it. afresh: even if there is a valid index.
    """
    path = cached_path(container, cache_dir)

    def built() -> IndexFile | None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock"), wait) as lock:
            if lock is None:
                return None
            index = None if afresh else find_valid(container, cache_dir)
            if index is None:
                rows, stamp, classes = index_container(container)
                write_index(path, rows, stamp, classes, alone=lock == _HELD)
                index = read_index(path)
            return index

    try:
        return with_retries(built, is_shortage)
    except IndexUnusableError as error:
        raise ConfigError(
            f"{error}, right after it was written. Check the disk of {path.parent}, or use another folder."
        ) from error
    except OSError as error:
        raise_if_foreign(error)
        raise ConfigError(
            f"{path.parent}: the index cannot be written ({error.strerror}). {_way_out(error)}"
        ) from error


def changed(container: Container, stamp: Stamp) -> bool:
    """Whether a tar or zip has changed since this stamp: one `stat`, if it was not touched.

    If only the modification time differs, as for a restored copy, the tail decides. False for a file that is
    gone or inaccessible: that says nothing about what was read before. Raises SourceError if descriptors or
    memory run out. The twin of FileStamp::check in csrc/read/shard_reader.
    """

    def look() -> bool:
        status = os.stat(container.path)
        if status.st_size != stamp.size_bytes:
            return True
        if status.st_mtime_ns == stamp.mtime_ns:
            return False
        with open(container.path, "rb", buffering=0) as file:
            return not _has_tail(file.fileno(), stamp)

    try:
        return with_retries(look, is_shortage)
    except OSError as error:
        if is_shortage(error.errno):
            raise unreadable(container.path, error) from error
        raise_if_foreign(error)
        return False


def forget(container: Container, cache_dir: Path) -> None:
    """Drops the cached index of a folder or a list in which a file was overwritten.

    The modification times of the folders do not show that, so the index would be considered valid again.
    """
    with contextlib.suppress(OSError):
        cached_path(container, cache_dir).unlink()


def publish(container: Container) -> Path:
    """Indexes a container and writes the index beside it, to be copied with the data. Raises as build."""
    path = published_path(container)
    if container.files is not None:
        raise ConfigError(f"{container.files!r}: the index of a list is only cached; pack the files instead.")
    rows, stamp, classes = index_container(container)
    try:
        with_retries(lambda: write_index(path, rows, stamp, classes), is_shortage)
    except OSError as error:
        raise_if_foreign(error)
        otherwise = "Keep the index in the cache instead."
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}). "
            f"{way_out(error.errno, otherwise) if is_shortage(error.errno) else otherwise}"
        ) from error
    return path


def index_container(container: Container) -> tuple[Rows, Stamp, list[str] | None]:
    """Rows, stamp and class names of a container, read from its headers. Raises SourceError, ShardError."""
    return reading(container.path, lambda: _index(container))


def _index(container: Container) -> tuple[Rows, Stamp, list[str] | None]:
    if container.files is not None:
        rows, folders, classes = index_files(container.files, container.path)
        return rows, Stamp(folders=folders), classes
    if container.is_folder:
        rows, folders, classes = index_folder(container.path, container.name)
        return rows, Stamp(folders=folders), classes
    with open(container.path, "rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        is_zip = _sniff(_bytes_at(file.fileno(), 0, BLOCK), container.name)
        rows = (index_zip if is_zip else index_tar)(container.path, container.name)
        if rows.label_member is not None:
            content = _bytes_at(file.fileno(), *rows.label_member)
            rows.labels = labels_of_json(content, rows, container.name, _key_of)
        # Of a tar including the first block after its members: a member that is written there, in the padding
        # of the file, changes neither its size nor the bytes before.
        tail_stop = before.st_size if is_zip else min(before.st_size, padded(rows.members_stop) + BLOCK)
        tail_start = max(0, tail_stop - TAIL_BYTES)
        tail_crc = zlib.crc32(_bytes_at(file.fileno(), tail_start, tail_stop - tail_start))
        after = os.stat(container.path)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ShardError(
            f"{container.name}: the file changed while it was indexed. Open it once it is complete."
        )
    return rows, Stamp(after.st_size, after.st_mtime_ns, tail_start, tail_stop, tail_crc), None


def _key_of(member: bytes) -> bytes:
    split = split_name(member)
    return b"" if isinstance(split, str) else split[0]


def published_path(container: Container) -> Path:
    return Path(container.path + INDEX_SUFFIX)


def cached_path(container: Container, cache_dir: Path) -> Path:
    """One file for each container: its name, for humans, and a hash of its path and of the listed files."""
    listed = f"\0{container.list_hash}".encode() if container.list_hash else b""
    where = hashlib.blake2b(os.fsencode(container.path) + listed, digest_size=10).hexdigest()
    return Path(cache_dir) / f"{os.path.basename(container.path)[:100]}-{where}{INDEX_SUFFIX}"


def _mtime_if_current(container: Container, stamp: Stamp, published: bool) -> int | None:
    """The modification time of a tar or zip; None if it has changed since it was indexed."""

    def look() -> int | None:
        with open(container.path, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if status.st_size != stamp.size_bytes or (not published and status.st_mtime_ns != stamp.mtime_ns):
                return None
            return status.st_mtime_ns if _has_tail(file.fileno(), stamp) else None

    return reading(container.path, look)


def _has_tail(descriptor: int, stamp: Stamp) -> bool:
    tail = _bytes_at(descriptor, stamp.tail_start, stamp.tail_stop - stamp.tail_start)
    return zlib.crc32(tail) == stamp.tail_crc


def _bytes_at(descriptor: int, start: int, size_bytes: int) -> bytes:
    """`size_bytes` bytes, or fewer at the end of the file; a single read may return fewer."""
    found = b""
    while len(found) < size_bytes:
        more = os.pread(descriptor, size_bytes - len(found), start + len(found))
        if not more:
            break
        found += more
    return found


def _way_out(error: OSError) -> str:
    if is_shortage(error.errno):
        return way_out(error.errno, "")
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return (
        f"{'Free some space there' if full else 'Make it writable'}, or use another folder (FASTLOAD_CACHE, "
        "or cache_dir=), or put the indexes beside the shards: fastload index --beside"
    )


def _sniff(start: bytes, name: str) -> bool:
    """True for a zip, False for a possible tar; anything else is a ShardError."""
    if not start:
        raise ShardError(f"{name}: the file is empty (0 bytes). {COPY_AGAIN}")
    for magic, packer in _COMPRESSED.items():
        if start.startswith(magic):
            raise ShardError(
                f"{name}: the file is compressed ({packer}), which is not supported. Decompress it."
            )
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        return True
    if len(start) < BLOCK or (start[257:262] != b"ustar" and not _may_be_old_tar(start)):
        raise ShardError(
            f"{name}: this is neither a tar nor a zip (by its first bytes). "
            "Name tars, zips or folders of images; a single image goes into a folder."
        )
    return False


def _may_be_old_tar(start: bytes) -> bool:
    """Before ustar, headers had no magic, but an octal checksum field. An empty tar is all zeros."""
    digits = start[148:156].strip(b" \0")
    return not any(start) or (bool(digits) and all(byte in b"01234567" for byte in digits))


@contextlib.contextmanager
def _locked(path: Path, wait: bool) -> Iterator[str | None]:
    """Holds the file lock at `path`, and removes the file afterwards; None if another process holds it and
    wait is False.

    Threads of one process never ask for the same lock. _UNKNOWN if the file system has no locks: then the
    same index may be built twice, and the last one written wins.
    """
    while True:
        with open(path, "wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield None
                return
            except OSError as error:
                raise_if_foreign(error)
                yield _UNKNOWN
                return
            # The previous holder may have removed the file that we opened.
            try:
                if os.fstat(file.fileno()).st_ino != os.stat(path).st_ino:
                    continue
            except FileNotFoundError:
                continue
            try:
                yield _HELD
            finally:
                path.unlink(missing_ok=True)
            return
