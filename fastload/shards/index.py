"""A container's index: found beside the container, found in the cache, or built and put there.

In: containers. Out: one valid `IndexFile` each. Promised: an index that does not belong to the container as
it is now, that is damaged or of another version, is built again and never trusted; each missing index is
built once, however many threads, ranks or other processes of the host ask for it; if one of them dies,
another takes over.

An index beside its container ("published": NAME.flidx, to be copied with the data) is preferred and valid if
the size and the checksum of the container's tail agree. One in the cache must agree in the time of the last
change too, which a copy may change. A folder is unchanged if none of its folders has changed; a file that is
overwritten in place changes no folder, so a reader must find the size that the index tells. A list of files
is as a folder, but has an index in the cache only, and another list has another one.

The work of a host is divided by file locks: each rank first builds its own share (every `local_world_size`-th
missing index), then whatever nobody is at work on, then waits for the rest. The kernel drops the lock of a
process that dies.
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

from fastload.errors import ConfigError, ShardError, raise_if_foreign
from fastload.shards.files import index_files
from fastload.shards.folder import folder_changed, index_folder
from fastload.shards.index_file import IndexFile, IndexUnusableError, Stamp, read_index, write_index
from fastload.shards.labels import labels_of_json
from fastload.shards.retry import with_retries, unreadable
from fastload.shards.rows import COPY_AGAIN, Rows, split_name
from fastload.shards.source import INDEX_SUFFIX, Container
from fastload.shards.tar import BLOCK, index_tar
from fastload.shards.zip import index_zip
from fastload.shortage import is_shortage, way_out
from fastload.threads import for_all

TAIL_BYTES = 4096
_HELD, _UNKNOWN = "held", "the file system knows no locks"
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ": "xz", b"BZh": "bzip2"}


def default_cache_dir() -> Path:
    return Path.home() / ".cache" / "fastload" / "index"


def open_indexes(
    containers: list[Container],
    cache_dir: Path,
    *,
    threads: int = 1,
    local_rank: int = 0,
    local_world_size: int = 1,
    found: Callable[[int, int], None] | None = None,
) -> list[IndexFile]:
    """The index of each container, in order, built where there is none; found(done, all) is called as they
    come.

    Raises SourceError or ShardError for a container that cannot be indexed (of several, the first in order,
    as far as is known), ConfigError if the cache folder cannot be written.
    """
    indexes: dict[int, IndexFile] = {}

    def note(place: int, index: IndexFile | None) -> None:
        if index is not None:
            indexes[place] = index
            if found is not None:
                found(len(indexes), len(containers))

    places = range(len(containers))
    # On threads: where a mount is gone `open` never returns, and Ctrl-C is heard on the calling thread alone.
    for_all(places, partial(_find_at, containers, cache_dir), note, threads, "fastload-index")
    own = [place for place in range(len(containers)) if place % local_world_size == local_rank]
    others = [place for place in range(len(containers)) if place % local_world_size != local_rank]
    others = (
        others[len(others) * local_rank // local_world_size :]
        + others[: len(others) * local_rank // local_world_size]
    )
    for places, wait in ((own, True), (others, False), (others, True)):
        missing = [place for place in places if place not in indexes]
        make = partial(_build_at, containers, cache_dir, wait)
        for_all(missing, make, note, threads, "fastload-index")
    return [indexes[place] for place in range(len(containers))]


def _find_at(containers: list[Container], cache_dir: Path, place: int) -> IndexFile | None:
    return find_valid(containers[place], cache_dir)


def _build_at(containers: list[Container], cache_dir: Path, wait: bool, place: int) -> IndexFile | None:
    return build(containers[place], cache_dir, wait=wait)


def find_valid(container: Container, cache_dir: Path) -> IndexFile | None:
    """The published or else the cached index of a container, if there is one that holds for it as it is
    now."""
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
    """The index at `path`, if there is one that can be used. Raises SourceError where that is not known."""
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

    wait=False: None if another process is at it. afresh: also if there is an index that seems valid.
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
            f"{error}, right after it was written. Check the disk of {path.parent}, or name another folder."
        ) from error
    except OSError as error:
        raise_if_foreign(error)
        raise ConfigError(
            f"{path.parent}: the index cannot be written ({error.strerror}). {_way_out(error)}"
        ) from error


def changed(container: Container, stamp: Stamp) -> bool:
    """Whether a tar or zip is no longer the one of this stamp: by one `stat`, where nobody has touched it.

    Another time of its last change says little, for a copy that was put back has one: then the tail decides.
    False for one that is gone, or cannot be asked: that tells nothing about what was read before. Raises
    SourceError where there are no descriptors or memory to ask. The twin of FileStamp::check in
    csrc/shard_reader.
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
    """Drops the cached index of a folder or a list.

    For one of which a file was overwritten: no folder's time of change tells that, so that the index would be
    taken for valid again.
    """
    with contextlib.suppress(OSError):
        cached_path(container, cache_dir).unlink()


def publish(container: Container) -> Path:
    """Indexes a container and writes the index beside it, to be copied with the data. Raises as build."""
    path = published_path(container)
    if container.files is not None:
        raise ConfigError(
            f"{container.files!r}: the index of a list lies in the cache; pack the files instead."
        )
    rows, stamp, classes = index_container(container)
    try:
        with_retries(lambda: write_index(path, rows, stamp, classes), is_shortage)
    except OSError as error:
        raise_if_foreign(error)
        otherwise = "Let the cache hold the index instead."
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}). "
            f"{way_out(error.errno, otherwise) if is_shortage(error.errno) else otherwise}"
        ) from error
    return path


def index_container(container: Container) -> tuple[Rows, Stamp, list[str] | None]:
    """Rows, stamp and class names of a container, read from its headers. Raises SourceError, ShardError."""
    try:
        return with_retries(lambda: _index(container))
    except OSError as error:
        raise unreadable(container.path, error) from error


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
        # Of a tar with the first block behind its members: one that is appended there, in the padding of the
        # file, changes neither its size nor what lies before.
        stop = -(-rows.members_stop // BLOCK) * BLOCK + BLOCK
        tail_stop = before.st_size if is_zip else min(before.st_size, stop)
        tail_start = max(0, tail_stop - TAIL_BYTES)
        tail_crc = zlib.crc32(_bytes_at(file.fileno(), tail_start, tail_stop - tail_start))
        after = os.stat(container.path)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ShardError(
            f"{container.name}: the file changed while it was indexed. Open it when it is complete."
        )
    return rows, Stamp(after.st_size, after.st_mtime_ns, tail_start, tail_stop, tail_crc), None


def _key_of(member: bytes) -> bytes:
    split = split_name(member)
    return b"" if isinstance(split, str) else split[0]


def published_path(container: Container) -> Path:
    return Path(container.path + INDEX_SUFFIX)


def cached_path(container: Container, cache_dir: Path) -> Path:
    """One file a container: its own name, to be recognised, and a hash of where it lies and what it lists."""
    listed = f"\0{container.list_hash}".encode() if container.list_hash else b""
    where = hashlib.blake2b(os.fsencode(container.path) + listed, digest_size=10).hexdigest()
    return Path(cache_dir) / f"{os.path.basename(container.path)[:100]}-{where}{INDEX_SUFFIX}"


def _mtime_if_current(container: Container, stamp: Stamp, published: bool) -> int | None:
    """When the tar or zip was last changed; None if it is not the one that was indexed."""

    def look() -> int | None:
        with open(container.path, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if status.st_size != stamp.size_bytes or (not published and status.st_mtime_ns != stamp.mtime_ns):
                return None
            return status.st_mtime_ns if _has_tail(file.fileno(), stamp) else None

    try:
        return with_retries(look)
    except OSError as error:
        raise unreadable(container.path, error) from error


def _has_tail(descriptor: int, stamp: Stamp) -> bool:
    tail = _bytes_at(descriptor, stamp.tail_start, stamp.tail_stop - stamp.tail_start)
    return zlib.crc32(tail) == stamp.tail_crc


def _bytes_at(descriptor: int, start: int, size_bytes: int) -> bytes:
    """So many bytes, or fewer where the file ends before; a read may fall short of what there is."""
    found = b""
    while len(found) < size_bytes:
        more = os.pread(descriptor, size_bytes - len(found), start + len(found))
        if not more:
            break
        found += more
    return found


def _way_out(error: OSError) -> str:
    """What to do about a folder for indexes that refuses one."""
    if is_shortage(error.errno):
        return way_out(error.errno, "")
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return (
        f"{'Free some space there' if full else 'Make it writable'}, or name another folder (FASTLOAD_CACHE, "
        "or cache_dir=), or let the indexes lie beside the shards: fastload index --beside"
    )


def _sniff(start: bytes, name: str) -> bool:
    """True for a zip, False for what may be a tar; what is surely neither is a ShardError."""
    if not start:
        raise ShardError(f"{name}: the file is empty (0 bytes). {COPY_AGAIN}")
    for magic, packer in _COMPRESSED.items():
        if start.startswith(magic):
            raise ShardError(
                f"{name}: the file is compressed ({packer}), and only plain ones can be read. Decompress it."
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
    """Before ustar a header had no magic: its checksum field holds an octal number. An empty tar is all
    zeros."""
    digits = start[148:156].strip(b" \0")
    return not any(start) or (bool(digits) and all(byte in b"01234567" for byte in digits))


@contextlib.contextmanager
def _locked(path: Path, wait: bool) -> Iterator[str | None]:
    """Holds the file lock at `path`, which is removed again; None if another process has it and wait is
    False.

    Threads of one process never ask for the same one. Where the file system knows no locks, _UNKNOWN: the
    same index may then be built twice, and the last one written wins.
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
            # The holder before us may have removed the file that we have opened.
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
