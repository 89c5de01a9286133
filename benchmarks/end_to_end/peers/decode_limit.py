"""No loader: libjpeg-turbo (simplejpeg) decoding alone in Python threads, what no loader on these threads
can pass.

Each thread reads JPEGs out of the shards (`os.pread`, offsets known beforehand) and decodes them into a
buffer of its own, which the next image overwrites. `denominator` decodes at 1/2 or 1/4 of the size.
"""

import itertools
import os
import queue
import tarfile
import threading
from collections.abc import Iterator

import numpy as np

from benchmarks.end_to_end.peers import Decoded
from benchmarks.end_to_end.peers.dataloader_parts import EndlessOrder

GROUP = 16  # images that a thread decodes between two words to the main thread


def make(corpus, batch_size: int, threads: int, seed: int, denominator: int = 1):
    import simplejpeg  # noqa: F401  a missing library shall be reported here, not in a thread

    ranges = list(_jpeg_ranges(corpus.shards))
    done: queue.Queue = queue.Queue(maxsize=8 * threads)
    for thread in range(threads):
        order = iter(EndlessOrder(len(ranges), seed + thread))
        least_side = min(corpus.width, corpus.height) // denominator
        work = (ranges, order, least_side, corpus.width * corpus.height * 3, done)
        threading.Thread(target=_decode_for_ever, args=work, daemon=True).start()
    return _count(done, batch_size)


def _jpeg_ranges(shards: list[str]) -> Iterator[tuple[int, int, int]]:
    """(file descriptor, offset in bytes, size in bytes) of each JPEG."""
    for path in shards:
        descriptor = os.open(path, os.O_RDONLY)
        with tarfile.open(path) as tar:
            yield from ((descriptor, m.offset_data, m.size) for m in tar if m.name.endswith(".jpg"))


def _decode_for_ever(ranges, order, least_side: int, largest_bytes: int, done: queue.Queue) -> None:
    import simplejpeg

    buffer = np.empty(largest_bytes, np.uint8)
    try:
        while True:
            for index in itertools.islice(order, GROUP):
                descriptor, offset_bytes, size_bytes = ranges[index]
                jpeg = os.pread(descriptor, size_bytes, offset_bytes)
                pixels = simplejpeg.decode_jpeg(
                    jpeg, "RGB", min_height=least_side, min_width=least_side, min_factor=1, buffer=buffer
                )
            done.put(Decoded(GROUP, pixels.copy()))
    except Exception as error:
        done.put(error)


def _count(done: queue.Queue, batch_size: int) -> Iterator[Decoded]:
    while True:
        count = 0
        while count < batch_size:
            group = done.get()
            if isinstance(group, Exception):
                raise group
            count += group.count
        yield Decoded(count, group.sample)
