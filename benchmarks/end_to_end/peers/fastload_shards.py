"""fastload itself, through its public API, as a user would write it.

`kernels` forces a lesser instruction set of the resize kernels than the CPU has.
"""

from benchmarks.end_to_end.machine import without_paths
from benchmarks.end_to_end.peers import Augmented

AUGMENTS = {
    "flip": {"xflip": 0.5},
    "jitter": {"xflip": 0.5, "color_jitter": (0.4, 0.4, 0.4, 0.1), "cutout": (0.5, 0.5)},
}


def make(
    corpus,
    batch_size: int,
    threads: int,
    seed: int,
    scaled: str | None = "half",
    kernels: str = "",
    augment: str = "flip",
):
    import fastload as fl

    if kernels:
        from fastload import _native

        _native.use_pixel_kernels(kernels)
        _native.use_augment_kernels(kernels)
    settings = {
        "source": corpus.shards,
        "batch_size": batch_size,
        "fields": {"image": fl.Image("jpg", size=corpus.target, scaled=scaled), "label": fl.Int("cls")},
        "threads": threads,
        "seed": seed,
        "epochs": None,
    }
    drawn = fl.Augment(**AUGMENTS[augment])
    loader = fl.Loader(augment=drawn, normalize="gan", **settings)
    return _Images(loader) if augment == "flip" else _Augmented(loader, settings, drawn)


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


class _Augmented(_Images):
    """The same with what each batch should be: the float64 reference of the levels that a plain loader
    makes."""

    def __init__(self, loader, settings: dict, augment):
        super().__init__(loader)
        self._loader, self._settings, self._augment = loader, settings, augment

    def __next__(self):
        state = self._loader.state_dict()
        batch = next(self.batches)

        def expected():
            import fastload as fl

            plain = fl.Loader(dtype="uint8", **self._settings)
            plain.load_state_dict(
                {**plain.state_dict(), "epoch": state["epoch"], "position": state["position"]}
            )
            levels = next(iter(plain))["image"]
            how = {"normalize": "gan", "dtype": "float64", "impl": "reference"}
            return self._augment(levels, batch["__position__"], self._settings["seed"], **how)

        return Augmented(batch["image"], expected)
