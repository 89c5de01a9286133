"""webdataset's reader and loader in worker processes, with Pillow; samples are shuffled as JPEG bytes."""

import io

from benchmarks.end_to_end.peers.dataloader_parts import to_float
from benchmarks.end_to_end.peers.pillow_dataloader import PillowTransform


class JpegTransform:
    """JPEG bytes -> uint8 tensor [3, target, target]."""

    def __init__(self, target: int):
        self.pillow = PillowTransform(target, draft=False)

    def __call__(self, jpeg: bytes):
        return self.pillow(io.BytesIO(jpeg))


def _stack(samples):
    import torch

    return torch.stack([image for (image,) in samples])


def make(corpus, batch_size: int, threads: int, seed: int):
    import torch
    import webdataset

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    dataset = (
        webdataset.WebDataset(corpus.shards, shardshuffle=len(corpus.shards), seed=seed)
        .repeat()
        .shuffle(256)
        .to_tuple("jpg")
        .map_tuple(JpegTransform(corpus.target))
        .batched(batch_size, collation_fn=_stack)
    )
    return map(to_float, webdataset.WebLoader(dataset, batch_size=None, num_workers=threads))
