"""What is on disk: tar, zip and folder containers as rows (key, extension, offset_bytes, size_bytes)."""

from fastload.shards.dataset import Dataset, Located, Row, open_dataset
from fastload.shards.index import default_cache_dir, publish
from fastload.shards.source import Container, find_containers
from fastload.shards.writer import ShardWriter

__all__ = [
    "Container",
    "Dataset",
    "Located",
    "Row",
    "ShardWriter",
    "default_cache_dir",
    "find_containers",
    "open_dataset",
    "publish",
]
