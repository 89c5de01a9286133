"""torch DataLoader and Pillow with `draft`: JPEGs are decoded at the least scale that reaches the target."""

from benchmarks.end_to_end.peers import pillow_dataloader


def make(corpus, batch_size: int, threads: int, seed: int):
    return pillow_dataloader.make(corpus, batch_size, threads, seed, draft=True)
