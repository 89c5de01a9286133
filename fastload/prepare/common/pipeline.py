"""The default training pipeline of the verbs; no other file of this folder uses the Loader.

In: a source and its dataset. Out: a Loader with the fields that the data has, the samples of its batches, and
images as uint8 again. Fields: `image` (the usual image extensions), `label` from `cls`, `caption` from `txt`,
where samples have them.
"""

import numpy as np

from fastload import fields as fl
from fastload.augment.pipe import Augment
from fastload.errors import FieldError
from fastload.loader.loader import Loader
from fastload.normalize import denormalize
from fastload.order.plan import make_plan
from fastload.shards.dataset import Dataset

NORMALIZE = "gan"  # [-1, 1]
NO_LABEL, NO_CAPTION = -1, ""


def choose_fields(dataset: Dataset, **image_settings) -> dict:
    """The fields of the default pipeline for what this dataset has; `image_settings` are those of `fl.Image`.

    Raises FieldError where no sample has an image.
    """
    chosen = {"image": fl.Image(";".join(image_extensions(dataset)), **image_settings)}
    labels, captions = dataset.extensions.get("cls", 0), dataset.extensions.get("txt", 0)
    if dataset.has_labels or labels == dataset.n:
        chosen["label"] = fl.Int("cls")
    elif labels:
        chosen["label"] = fl.Int("cls", default=NO_LABEL)
    if captions:
        chosen["caption"] = fl.Text("txt") if captions == dataset.n else fl.Text("txt", default=NO_CAPTION)
    return chosen


def image_extensions(dataset: Dataset) -> tuple[str, ...]:
    """The extensions of the image field: the usual ones or, where samples only have names like `left.jpg`,
    the most frequent of those."""
    usual = fl.Image(size=1).extensions
    if any(extension in dataset.extensions for extension in usual):
        return usual
    named = {ext: count for ext, count in dataset.extensions.items() if ext.rpartition(".")[2] in usual}
    if not named:
        have = ", ".join(dataset.extensions) or "none"
        raise FieldError(
            f"{dataset.names[0]}: no sample has an image; the extensions are: {have}. "
            f"Images need one of these extensions: {', '.join(usual)}."
        )
    return (max(named, key=named.get),)


def open_loader(
    source,
    dataset: Dataset,
    *,
    size: int,
    batch_size: int,
    threads: int | None = None,
    only_images: bool = False,
    scaled: str | None = "half",
    xflip: float = 0.5,
    **other,
) -> Loader:
    """An endless, shuffled Loader with the default fields, on the CPU; `other` are settings of the Loader."""
    chosen = choose_fields(dataset, size=size, scaled=scaled)
    if only_images:
        chosen = {"image": chosen["image"]}
    settings = {
        "augment": Augment(xflip=xflip),
        "normalize": NORMALIZE,
        "epochs": None,
        "device": "cpu",
        "max_bad_fraction": 1.0,  # bad samples are counted, and nothing is trained here
    } | other
    return Loader(source, batch_size=batch_size, fields=chosen, threads=threads, **settings)


def samples_at(dataset: Dataset, positions, *, shuffle: bool = True, seed: int = 0) -> np.ndarray:
    """The sample ids at the positions of a batch (`batch["__position__"]`), int64."""
    plan = make_plan(dataset.shard_counts, shuffle=shuffle, window=None, seed=seed)
    return plan.sample_ids(np.asarray(positions, np.int64))


def as_pixels(images) -> np.ndarray:
    """Images of a batch [N, 3, H, W], normalized by NORMALIZE, as uint8 [N, H, W, 3]."""
    return denormalize(images, NORMALIZE).cpu().numpy().transpose(0, 2, 3, 1)
