"""How long the pixels of an image take on one thread, fastload beside Pillow.

    pytest -o addopts= benchmarks/bench_decode.py

Rows `resize`: a decoded photo of 500x375 to float32 [3, 256, 256] in [-1, 1] (short side, centre crop),
for each filter and each instruction set that this CPU has, against Pillow's resize and NumPy's arithmetic;
both give equal output, which is checked first. Rows `batch`: 64 JPEGs to one batch, through `fl.Loader`
with one thread and through Pillow. The photos are windows of those in tests/data/photos.
"""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fastload as fl
from benchmarks.end_to_end.corpora import Kind, make, pillow_pixels
from fastload import _native

PHOTOS = Path(__file__).resolve().parents[1] / "tests" / "data" / "photos"
SIDE, BATCH = 256, 64
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
FILTERS["lanczos"] = Image.Resampling.LANCZOS
CODES = {"bilinear": 1, "bicubic": 2, "lanczos": 3}  # of the native kernel
SIZES = {"in500": (500, 375), "sq256": (256, 256), "sq1024": (1024, 1024)}


@pytest.fixture(scope="session")
def corpus_of(tmp_path_factory):
    """name -> a corpus of 64 images, drawn once."""
    drawn = {}

    def get(name: str):
        if name not in drawn:
            kind = Kind(name, *SIZES[name], count=BATCH)
            drawn[name] = make(kind, PHOTOS, tmp_path_factory.mktemp("corpora"))
        return drawn[name]

    return get


@pytest.fixture
def photo(corpus_of) -> np.ndarray:
    """[375, 500, 3] uint8."""
    return np.asarray(Image.open(corpus_of("in500").files[0]))


def instruction_sets() -> list[str]:
    """Those of the native kernels that run here."""
    found = []
    for name in ("sse2", "avx2", "avx512", "vnni"):
        try:
            _native.use_pixel_kernels(name)
            found.append(name)
        except ValueError:
            continue
    _native.use_pixel_kernels("")
    return found


def with_pillow(pixels: np.ndarray, resample) -> np.ndarray:
    resized = Image.fromarray(pixels).resize((341, 256), resample).crop((42, 0, 298, 256))
    return np.asarray(resized).transpose(2, 0, 1) / np.float32(127.5) - np.float32(1)


class Kernel:
    """The native resize into one sample of a float32 batch."""

    def __init__(self, filter_name: str):
        self.out = np.zeros((1, 3, SIDE, SIDE), np.float32)
        mean, std = [1.0] * 3, [1.0] * 3
        self.writer = _native.PixelWriter(_native.Dtype.float32, False, SIDE, SIDE, 127.5, mean, std)
        self.code = CODES[filter_name]

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        box, crop = (0.0, 0.0, 500.0, 375.0), (42, 0, SIDE, SIDE)
        buffer = self.out.view(np.uint8)
        _native.write_image(pixels, box, (341, 256), crop, False, self.code, self.writer, buffer, 0)
        return self.out[0]


@pytest.mark.parametrize("filter_name", FILTERS)
@pytest.mark.parametrize("kernels", instruction_sets())
def test_resize_native(benchmark, photo, filter_name, kernels):
    benchmark.group = f"resize {filter_name}"
    kernel = Kernel(filter_name)
    _native.use_pixel_kernels(kernels)
    try:
        assert np.array_equal(kernel(photo), with_pillow(photo, FILTERS[filter_name]))
        benchmark(kernel, photo)
    finally:
        _native.use_pixel_kernels("")


@pytest.mark.parametrize("filter_name", FILTERS)
def test_resize_pillow(benchmark, photo, filter_name):
    benchmark.group = f"resize {filter_name}"
    benchmark(with_pillow, photo, FILTERS[filter_name])


@pytest.mark.parametrize("name", SIZES)
def test_batch_of_64_fastload(benchmark, corpus_of, name):
    benchmark.group = f"batch {name}"
    corpus = corpus_of(name)
    fields = {"image": fl.Image("jpg", size=SIDE, scaled=None)}
    arguments = {"batch_size": BATCH, "fields": fields, "shuffle": False, "epochs": None, "threads": 1}
    with fl.Loader(corpus.shards, **arguments) as loader:
        batches = iter(loader)
        levels = (next(batches)["image"].numpy() + 1) * np.float32(127.5)
        assert np.array_equal(levels.round(), corpus.reference().transpose(0, 3, 1, 2))
        # Several batches in a row: those that were prefetched between two rounds must not count for much.
        benchmark.pedantic(next, args=(batches,), rounds=5, iterations=16, warmup_rounds=1)


@pytest.mark.parametrize("name", SIZES)
def test_batch_of_64_pillow(benchmark, corpus_of, name):
    benchmark.group = f"batch {name}"
    jpegs = [Path(path).read_bytes() for path in corpus_of(name).files]
    out = np.empty((BATCH, 3, SIDE, SIDE), np.float32)

    def batch():
        for sample, jpeg in enumerate(jpegs):
            pixels = pillow_pixels(Image.open(io.BytesIO(jpeg)), SIDE)
            out[sample] = pixels.transpose(2, 0, 1) / np.float32(127.5) - np.float32(1)

    benchmark.pedantic(batch, rounds=3, warmup_rounds=1)
