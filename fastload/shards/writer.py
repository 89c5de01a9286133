"""Writes WebDataset tar shards, which `webdataset` and every tar program can read.

In: samples, as {"__key__": "000001", "jpg": bytes, "cls": 3, "txt": "..."}. Out: shards PATTERN % 0, PATTERN
% 1, ... Promised: the same samples give the same bytes (time 0, owner 0, no user names); a shard is written
whole or not at all (temporary file, fsync, rename); samples that would read back differently are refused:
keys with dots, duplicate keys, extensions in upper case.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastload.errors import ConfigError
from fastload.shards.rows import split_name
from fastload.shards.tar import BLOCK, padded
from fastload.shortage import naming_shortage


class ShardWriter:
    """A context manager; `write` one sample after the other.

    pattern: a path with one %d, such as "out/train-%05d.tar". max_samples, max_bytes: a shard is closed when
    it has this many samples, or when the next sample would make it larger (a sample that exceeds max_bytes
    gets a shard of its own). paths: the finished shards. If an exception leaves the block, the shard in
    progress is removed.
    """

    def __init__(self, pattern: str | Path, *, max_samples: int = 10_000, max_bytes: int = 1 << 30):
        self.pattern = os.fspath(pattern)
        try:
            distinct = self.pattern % 0 != self.pattern % 1
        except (TypeError, ValueError):
            distinct = False
        if not distinct:
            raise ConfigError(
                f"{self.pattern}: a shard pattern must contain one number, such as train-%05d.tar."
            )
        if max_samples < 1 or max_bytes < 1:
            raise ConfigError(
                f"max_samples and max_bytes must be at least 1, got {max_samples} and {max_bytes}."
            )
        self.max_samples = max_samples
        self.max_bytes = max_bytes
        self.paths: list[str] = []
        self.samples_total = 0
        self._tar: tarfile.TarFile | None = None
        self._keys: set[str] = set()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self.close()
        elif self._tar is not None:
            self._tar = None
            self._file.close()
            self._partial.unlink(missing_ok=True)

    def write(self, sample: Mapping[str, Any]) -> None:
        """Adds one sample: `__key__`, and extension -> content; other names that begin with "__" are ignored.

        Content: bytes unchanged; str as UTF-8; int as digits; for "json" anything that json can write; for
        "npy" a NumPy array. Raises ConfigError.
        """
        key = sample.get("__key__")
        members = [
            (_member_name(key, name), _content(name, value))
            for name, value in sample.items()
            if not name.startswith("__")
        ]
        if not members:
            raise ConfigError(f"the sample '{key}' has no content. Add at least one extension.")
        size = sum(BLOCK + padded(len(content)) for _, content in members)
        full = len(self._keys) >= self.max_samples or (
            self._keys and self._size_bytes + size > self.max_bytes
        )
        if full:
            self.close()
        if self._tar is None:
            self._begin()
        if key in self._keys:
            raise ConfigError(f"the key '{key}' is already in this shard. Give every sample its own key.")
        self._keys.add(key)
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size, header.mode = len(content), 0o644  # everything else is zero or empty by default
            self._tar.addfile(header, io.BytesIO(content))
        self._size_bytes += size
        self.samples_total += 1

    def close(self) -> None:
        """Finishes the shard in progress, if there is one."""
        if self._tar is None:
            return
        self._tar.close()
        self._tar = None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._partial, self._path)
        self.paths.append(os.fspath(self._path))

    def _begin(self) -> None:
        self._path = Path(self.pattern % len(self.paths))
        self._partial = self._path.with_name(f".{self._path.name}.partial")
        with naming_shortage(f"{self._path}: cannot be written", ConfigError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._partial, "wb")  # noqa: SIM115 (closed by close or __exit__)
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8")
        self._keys = set()
        self._size_bytes = 0


def _member_name(key: Any, extension: str) -> str:
    if not isinstance(key, str) or not key:
        raise ConfigError(f"the '__key__' of a sample must be a non-empty str, got {key!r}.")
    name = f"{key}.{extension}"
    # The reader must split the name into the same key and extension.
    if split_name(name.encode()) != (key.encode(), extension.encode()) or key.startswith("/") or "\0" in name:
        raise ConfigError(
            f"'{name}' would not read back as key '{key}' and extension '{extension}': the last part of a "
            "key must have no dot and not be __x__; an extension must be in lower case, without a slash."
        )
    return name


def _content(extension: str, value: Any) -> bytes:
    kind = extension.rpartition(".")[2]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if kind == "json":
        return json.dumps(value, ensure_ascii=False).encode()
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return str(int(value)).encode()
    if kind == "npy" and isinstance(value, np.ndarray):
        out = io.BytesIO()
        np.save(out, value, allow_pickle=False)
        return out.getvalue()
    raise ConfigError(f"a {type(value).__name__} cannot be written as '{extension}'. Encode it to bytes.")
