"""Scenarios of decoder threads that have no memory: the sample fails, the thread lives, nothing is damage."""

import errno
import os
from pathlib import Path

import numpy as np

import fastload as fl
from fastload import _native
from fastload.decode.images import ImageStage
from fastload.loader.config import LoaderConfig
from fastload.loader.specs import decode_spec
from fastload.read.shard_reader import ShardReader
from fastload.shards.dataset import open_dataset
from tests import corpus
from tests.faults import Rule, rules
from tests.faults_under_way.scenarios import equal

SEED = 5
OK, OUT_OF_MEMORY = int(_native.ImageStatus.OK), int(_native.ImageStatus.OUT_OF_MEMORY)
KINDS = {
    "baseline": corpus.encode(corpus.picture(90, 70), "JPEG"),
    "progressive": corpus.encode(corpus.picture(90, 70), "JPEG", progressive=True),
    "turned": corpus.encode(corpus.picture(90, 70), "JPEG", orientation=6),
    "gray": corpus.encode(corpus.picture(90, 70)[..., 0], "JPEG"),
    "full colour": corpus.encode(corpus.picture(90, 70), "JPEG", subsampling=0),
}


class Images:
    """The KINDS, read and ready to be decoded again and again."""

    def __init__(self):
        folder = Path(os.environ["TMPDIR"]) / "kinds"
        folder.mkdir()
        for i, content in enumerate(KINDS.values()):
            (folder / f"{i}.jpg").write_bytes(content)
        dataset = open_dataset(str(folder), cache_dir=os.environ["FASTLOAD_CACHE"] + "/kinds")
        located = [dataset.locate(np.arange(len(KINDS)), ("jpg",))]
        fields = {"image": fl.Image(size=32)}
        config = LoaderConfig(source="unused", batch_size=1, fields=fields, dtype="uint8")
        self._memory = _native.BufferPool(1 << 24)
        self._bytes = ShardReader(dataset, 4).submit(located, self._memory)
        assert self._bytes.wait(20)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        self._stage = ImageStage(decode_spec(config), threads=1)

    def decode(self, decoder) -> tuple[list[int], bytes]:
        """(the status of each, all pixels)"""
        out = self._memory.acquire(len(KINDS) * self._stage.bytes_of["image"])
        spec, writer = self._stage.specs["image"].native, self._stage.writers["image"]
        field = _native.ImageFieldRequest(spec, 0, 0, writer, out)
        pending = decoder.submit(self._bytes, [field], SEED, np.arange(len(KINDS)), 10**6)
        assert pending.wait(20)
        return pending.status.tolist(), bytes(memoryview(out))[: len(KINDS) * self._stage.bytes_of["image"]]


def every_allocation_of_a_decoder_thread_may_fail(shards):
    images, failed, decoder = Images(), set(), _native.ImageDecoder(1)
    statuses, expected = images.decode(decoder)
    equal(statuses, [OK] * len(KINDS))
    for times in (1, 30):  # libjpeg gets over one: it asks for less then
        for after in range(10_000):
            with rules(Rule("malloc", "0", errno.ENOMEM, after=after, times=times)) as seen:
                statuses, pixels = images.decode(decoder)
            if seen.hits == [0]:
                break
            assert set(statuses) <= {OK, OUT_OF_MEMORY}, (after, statuses)
            if statuses == [OK] * len(KINDS):
                equal((after, pixels), (after, expected))
            failed |= {i for i, status in enumerate(statuses) if status == OUT_OF_MEMORY}
            equal((after, images.decode(decoder)), (after, ([OK] * len(KINDS), expected)))
        assert after > 2 * len(KINDS), after
    equal(failed, set(range(len(KINDS))))


def a_thread_without_any_memory_fails_every_image_and_lives(shards):
    images = Images()
    decoder = _native.ImageDecoder(
        1
    )  # decodes once first: glibc aborts where a thread has no memory for its thread_locals
    _, expected = images.decode(decoder)
    with rules(Rule("malloc", "0", errno.ENOMEM)):
        equal(images.decode(decoder)[0], [OUT_OF_MEMORY] * len(KINDS))
    equal(images.decode(decoder), ([OK] * len(KINDS), expected))


SCENARIOS = {
    one.__name__: (one, {})
    for one in (
        every_allocation_of_a_decoder_thread_may_fail,
        a_thread_without_any_memory_fails_every_image_and_lives,
    )
}
