"""fastload itself, through its public API, as a user would write it.

`kernels` forces a lesser instruction set of the resize kernels than the CPU has.
"""

from benchmarks.end_to_end.machine import without_paths


def make(corpus, batch_size: int, threads: int, seed: int, scaled: str | None = "half", kernels: str = ""):
    import fastload as fl

    if kernels:
        from fastload import _native

        _native.use_pixel_kernels(kernels)
    loader = fl.Loader(
        corpus.shards,
        batch_size=batch_size,
        fields={"image": fl.Image("jpg", size=corpus.target, scaled=scaled), "label": fl.Int("cls")},
        augment=fl.Augment(xflip=0.5),
        normalize="gan",
        threads=threads,
        seed=seed,
        epochs=None,
    )
    return _Images(loader)


class _Images:
    """The image field of each batch; `described` is what the loader says of its decoder."""

    def __init__(self, loader):
        lines = (line.strip() for line in repr(loader).splitlines())
        self.described = without_paths(next((line for line in lines if line.startswith("decode:")), ""))
        self.batches = iter(loader)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.batches)["image"]
