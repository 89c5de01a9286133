"""FFCV: its own file format (.beton), holding the corpus's JPEGs byte for byte, and its numba pipeline.

Its decoder crops the centre square and shrinks it with OpenCV's INTER_AREA: there is no bicubic. Its
batches are channels-last, which is the faster way there.
"""

import os

import numpy as np


def write_beton(corpus) -> None:
    """Write `corpus.beton` with the JPEG bytes of the corpus, not re-encoded as FFCV's own writer would."""
    from ffcv.fields import RGBImageField
    from ffcv.fields.rgb_image import IMAGE_MODES
    from ffcv.writer import DatasetWriter

    class StoredJpeg(RGBImageField):
        def encode(self, destination, jpeg, malloc):
            destination["mode"] = IMAGE_MODES["jpg"]
            destination["width"], destination["height"] = corpus.width, corpus.height
            destination["data_ptr"], storage = malloc(len(jpeg))
            storage[:] = np.frombuffer(jpeg, np.uint8)

    class Files:
        def __len__(self):
            return len(corpus.files)

        def __getitem__(self, index):
            with open(corpus.files[index], "rb") as file:
                return (file.read(),)

    draft = corpus.beton.with_suffix(f".{os.getpid()}.tmp")
    DatasetWriter(str(draft), {"image": StoredJpeg()}, num_workers=1).from_indexed_dataset(Files())
    draft.replace(corpus.beton)


def make(corpus, batch_size: int, threads: int, seed: int):
    from ffcv.fields import RGBImageField
    from ffcv.fields.rgb_image import CenterCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, ToTensor, ToTorchImage

    if not corpus.beton.exists():
        write_beton(corpus)
    half = np.full(3, 127.5)
    loader = Loader(
        str(corpus.beton),
        batch_size=batch_size,
        num_workers=threads,
        os_cache=True,
        order=OrderOption.RANDOM,
        seed=seed,
        custom_fields={"image": RGBImageField},
        # One long epoch: each of FFCV's begins with a new thread and new buffers.
        indices=np.tile(np.arange(corpus.count), 200),
        pipelines={
            "image": [
                CenterCropRGBImageDecoder((corpus.target, corpus.target), ratio=1),
                RandomHorizontalFlip(0.5),
                NormalizeImage(half, half, np.float32),
                ToTensor(),
                ToTorchImage(),
            ]
        },
    )
    return _run(loader)


def _run(loader):
    while True:
        for (images,) in loader:
            yield images
