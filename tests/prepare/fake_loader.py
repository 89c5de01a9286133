"""A loader with the names of the real one, slow and plain, until the real one is there."""

import time

import numpy as np
import torch

from fastload.errors import ConfigError
from fastload.order.plan import make_plan
from fastload.prepare.pillow_peer import short_side_center_crop
from fastload.prepare.stored import read_bytes, read_stored
from fastload.shards.dataset import open_dataset


class Loader:
    def __init__(
        self, source, batch_size, fields, *, augment, normalize, epochs, threads, shuffle=True, seed=0
    ):
        assert normalize == "gan" and epochs is None
        self.dataset = open_dataset(source)
        if batch_size > self.dataset.n:
            raise ConfigError(f"batch_size={batch_size}: the data has {self.dataset.n} samples. Give fewer.")
        self.batch_size, self.fields, self.threads = batch_size, fields, threads or 1
        self.plan = make_plan(self.dataset.shard_counts, shuffle=shuffle, window=None, seed=seed)
        self.images = self.batches = 0
        self.start = time.perf_counter()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __repr__(self):
        return "Loader(a stand-in)"

    def __iter__(self):
        position, n = 0, self.dataset.n
        while True:
            positions = np.arange(position, position + self.batch_size)
            position += self.batch_size
            yield self._batch(positions % n + positions // n * n)

    def _batch(self, positions):
        ids = self.plan.sample_ids(positions)
        image = self.fields["image"]
        pictures = [read_stored(self.dataset, i, image.extensions).picture for i in ids.tolist()]
        pixels = np.stack([np.asarray(short_side_center_crop(one, image.size[0])) for one in pictures])
        values = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        batch = {"image": values, "__key__": self.dataset.keys(ids), "__position__": positions}
        if "label" in self.fields:
            labels = self.dataset.labels(ids)
            batch["label"] = [int(self._content(i, "label")) for i in ids] if labels is None else labels
        if "caption" in self.fields:
            batch["caption"] = [self._content(i, "caption").decode() for i in ids]
        self.images, self.batches = self.images + len(ids), self.batches + 1
        return batch

    def _content(self, sample_id, name):
        return read_bytes(self.dataset, int(sample_id), self.fields[name].extensions)

    def stats(self):
        seconds = time.perf_counter() - self.start
        stage = {"busy_seconds": 1.0, "waiting_seconds": 0.5, "threads": 1}
        return {
            "images": self.images,
            "batches": self.batches,
            "seconds": seconds,
            "images_per_second": self.images / seconds,
            "first_batch_seconds": 0.1,
            "cpu_seconds": time.process_time(),
            "stages": dict.fromkeys(("read", "decode", "values", "training"), stage),
            "limited_by": "decode",
            "pool": {},
            "bad_samples": 0,
        }
