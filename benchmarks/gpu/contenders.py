"""The loaders that take turns: fastload, the same pipeline written by hand in DALI, DataLoader + torchvision.

All of them read the same JPEGs in an order of their own, for ever, and give batches on the device in [-1, 1],
half of the images mirrored, of 16-bit floats [N, 3, side, side]: bfloat16, and for DALI float16, since its
operator has no bfloat16. A stream has `buffered`, the batches that may lie ready, and `close`.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.gpu.cases import Context, Skipped, cpus
from benchmarks.gpu.corpus import Corpus

DALI_AHEAD = 3


class Fastload:
    """fastload as a user would write it."""

    def __init__(self, context: Context, corpus: Corpus, batch_size: int, **options: Any):
        import fastload as fl

        if context.device == "cpu":
            options = {"decode": "dali"} | options  # as "auto" is on a GPU
        self._loader = fl.Loader(
            corpus.shards,
            batch_size,
            {"image": fl.Image("jpg", size=corpus.target), "label": fl.Int("cls")},
            augment=fl.Augment(xflip=0.5),
            normalize="gan",
            dtype="bfloat16",
            device=context.device,
            epochs=None,
            **options,
        )
        self._batches = iter(self._loader)
        self.buffered = 8  # prefetch, and what is on its way

    def __next__(self) -> Any:
        return next(self._batches)["image"]

    def close(self) -> None:
        self._loader.close()

    def stats(self) -> dict:
        return self._loader.stats()


class DaliByHand:
    """DALI's own file reader, mixed decoder, resize and crop_mirror_normalize, as its manual has them."""

    def __init__(self, context: Context, corpus: Corpus, batch_size: int, load: float = 0.65):
        from nvidia.dali import Pipeline, fn, types

        side = corpus.target
        gpu = {"device": "mixed", "hw_decoder_load": load} if context.on_gpu else {"device": "cpu"}
        self._pipeline = Pipeline(
            batch_size=batch_size,
            num_threads=cpus(),
            device_id=0 if context.on_gpu else None,
            exec_dynamic=True,
            prefetch_queue_depth=DALI_AHEAD,
            seed=context.seed + 1,
        )
        with self._pipeline:
            encoded, _ = fn.readers.file(files=corpus.files, random_shuffle=True, name="files")
            images = fn.decoders.image(encoded, output_type=types.RGB, jpeg_fancy_upsampling=True, **gpu)
            images = fn.resize(images, resize_shorter=side, interp_type=types.INTERP_CUBIC, antialias=True)
            images = fn.crop_mirror_normalize(
                images,
                crop=(side, side),
                mirror=fn.random.coin_flip(probability=0.5),
                mean=[127.5] * 3,
                std=[127.5] * 3,
                dtype=types.FLOAT16,
                output_layout="CHW",
                rounding="truncate",  # the default rounds the crop's origin up, where others round it down
            )
            self._pipeline.set_outputs(images)
        self._pipeline.build()
        self._on_gpu = context.on_gpu
        self.buffered = DALI_AHEAD + 1

    def __next__(self) -> Any:
        import torch

        if not self._on_gpu:
            (images,) = self._pipeline.run()
        else:
            (images,) = self._pipeline.run(torch.cuda.current_stream())
        return torch.from_dlpack(images.as_tensor())

    def close(self) -> None:
        del self._pipeline


class TorchvisionFiles:
    """A path -> uint8 [3, target, target]; in a worker process."""

    def __init__(self, target: int):
        from torchvision.transforms import v2

        resize = v2.Resize(target, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
        self._transform = v2.Compose([resize, v2.CenterCrop(target), v2.RandomHorizontalFlip(0.5)])

    def __getitem__(self, path: str) -> Any:
        from torchvision.io import ImageReadMode, decode_jpeg, read_file

        return self._transform(decode_jpeg(read_file(path), mode=ImageReadMode.RGB))


class Torchvision:
    """DataLoader with a worker for each CPU, then pinned, copied and normalized on the device.

    One pool of workers serves all corpora, since starting it takes longer than a window: `turn_to` changes
    the files, and what was prefetched of the others is dropped.
    """

    def __init__(self, context: Context, batch_size: int, target: int):
        try:
            import torchvision  # noqa: F401
        except ImportError as error:
            raise Skipped(f"torchvision cannot be imported: {error}") from error
        from torch.utils.data import DataLoader

        self._context, self._batch_size = context, batch_size
        self._files: list[str] = []
        workers = context.of(cpus(), 1)
        self.buffered = 2 * workers + 1
        self._loader = DataLoader(
            TorchvisionFiles(target),
            batch_sampler=self,
            num_workers=workers,
            prefetch_factor=2,
            pin_memory=context.on_gpu,
            multiprocessing_context="forkserver",  # this process holds a GPU and DALI's threads
        )
        self._batches: Iterator | None = None

    def __iter__(self) -> Iterator[list[str]]:
        """The batches' paths, for the DataLoader."""
        dice = np.random.default_rng(self._context.seed)
        order: Iterator[int] = iter(())
        files: list[str] = []
        while True:
            batch = []
            while len(batch) < self._batch_size:
                if files is not self._files:
                    files, order, batch = self._files, iter(()), []
                for i in itertools.islice(order, self._batch_size - len(batch)):
                    batch.append(files[i])
                if len(batch) < self._batch_size:
                    order = iter(dice.permutation(len(files)).tolist())
            yield batch

    def turn_to(self, corpus: Corpus) -> None:
        self._files = corpus.files
        if self._batches is None:
            self._batches = iter(self._loader)
        for _ in range(self.buffered):
            next(self._batches)

    def __next__(self) -> Any:
        import torch

        images = next(self._batches).to(self._context.device, non_blocking=True)
        return images.float().div_(127.5).sub_(1).to(torch.bfloat16)

    def close(self) -> None:
        """Nothing: the workers wait for the next corpus, and end with the process."""
