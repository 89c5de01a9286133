"""Pixels do not depend on where they were made: the SHA-256 of every sample, however it came about.

Everything that is drawn by dice is on, and the sizes are odd, so that a sample's rows begin at another
address in every batch. mixup and CutMix mix the neighbours of a batch and are left out; the layout is a
matter of memory, not of pixels.
"""

import pytest

import fastload as fl
from fastload import backends
from tests import corpus
from tests.contracts.pixels import assert_same_samples, assert_same_samples_after_resuming
from tests.loader.samples import jpeg, write

N = 13
SIZE = (11, 13)  # height, width
ALL_DICE = fl.Augment(
    xflip=0.5,
    yflip=0.3,
    rotate=15.0,
    scale=(0.8, 1.2),
    translate=0.1,
    color_jitter=(0.4, 0.4, 0.4, 0.1),
    brightness=0.2,
    hsv=(0.1, 0.5),
    cutout=(0.5, 0.4),
)
needs_dali = pytest.mark.skipif(not backends.has("nvidia.dali"), reason="DALI is not installed")
DECODERS = ["native", "pillow", pytest.param("dali", marks=needs_dali)]
VARIATIONS = [
    *({"world_size": world_size, "batch_size": 2} for world_size in (1, 2, 3, 4, 8)),
    *({"batch_size": batch_size} for batch_size in (1, 3, 7, N)),
    *({"threads": threads} for threads in (1, 2, 5)),
    *({"prefetch": prefetch} for prefetch in (1, 6)),
    {"world_size": 3, "batch_size": 1, "threads": 5, "prefetch": 6},
    {"batch_size": 2, "max_bytes": 1},
]
RESUMES = [
    (
        {"batch_size": 2, "world_size": 2, "threads": 2, "prefetch": 6},
        {"batch_size": 3, "threads": 5},
        (1, 3),
    ),
    ({"batch_size": 5, "threads": 1}, {"batch_size": 1, "world_size": 3, "prefetch": 1}, (1,)),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """JPEGs of several sizes and pictures of other kinds in turn, each with a mask."""
    files = corpus.pictures()
    odd = [
        ("png", files["png rgba"]),
        ("jpg", files["jpeg cmyk"]),
        ("gif", files["gif transparent"]),
        ("jpg", files["jpeg exif-6"]),
        ("webp", files["webp lossy"]),
        ("jpg", files["jpeg progressive gray"]),
    ]
    samples = []
    for i in range(N):
        width, height = 40 + 9 * (i % 5), 30 + 7 * (i % 4)
        extension, content = odd[i // 2] if i % 2 else ("jpg", jpeg(i, width, height))
        mask = corpus.encode(corpus.picture(29 + i, 31, seed=100 + i), "PNG")
        samples.append({"__key__": f"{i:05d}", extension: content, "mask.png": mask, "cls": i})
    return write(tmp_path_factory.mktemp("pixels"), samples, per_shard=5)


def maker(source, decode, **more):
    """A loader of two views of an image and its mask; "pad", so that any batch size gives every position."""
    usual = {"batch_size": 4, "threads": 2, "last": "pad", "decode": decode, "augment": ALL_DICE, "seed": 11}
    fields = {
        "image": fl.Image("jpg;png;gif;webp", size=SIZE, resize="random"),
        "mask": fl.Image("mask.png", like="image", filter="nearest"),
        "cropped": fl.Image("jpg;png;gif;webp", size=SIZE[0], crop="random", filter="lanczos"),
        "label": fl.Int("cls"),
    }

    def make_loader(**arguments):
        # Where there is one process and no other is named, the loader finds that out by itself.
        ranks = {"rank": arguments.pop("rank"), "world_size": arguments.pop("world_size", 1)}
        return fl.Loader(source, fields=fields, **usual | more | arguments, **ranks)

    return make_loader


@pytest.mark.parametrize("decode", DECODERS)
def test_no_size_thread_or_prefetch_has_a_say_in_pixels(cases, source, decode):
    cases("pixels", assert_same_samples(maker(source, decode), VARIATIONS))


@pytest.mark.parametrize("decode", DECODERS)
def test_a_resume_with_other_sizes_makes_the_same_pixels(cases, source, decode):
    for before, after, steps in RESUMES:
        make_loader = maker(source, decode)
        cases("pixels", assert_same_samples_after_resuming(make_loader, before, after, steps))


@pytest.mark.parametrize(
    "more", [{"window": 3, "epochs": 2}, {"dtype": "uint8"}, {"dtype": "float16"}], ids=str
)
def test_no_order_or_dtype_lets_sizes_have_a_say_in_pixels(cases, source, more):
    cases("pixels", assert_same_samples(maker(source, "native", **more), VARIATIONS[2:8]))


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"window": 3, "dtype": "uint8"}], ids=str)
@pytest.mark.parametrize("decode", DECODERS)
def test_no_combination_of_sizes_has_a_say_in_pixels(cases, source, decode, more):
    every = [
        {"world_size": world_size, "batch_size": batch_size, "threads": threads, "prefetch": prefetch}
        for world_size in (1, 2, 3, 4, 8)
        for batch_size in (1, 3, 7, N)
        for threads, prefetch in ((1, 1), (2, 6), (5, 6))
    ]
    cases("pixels", assert_same_samples(maker(source, decode, **more), every))


@pytest.mark.slow
@pytest.mark.parametrize("decode", DECODERS)
def test_a_resume_after_any_step_makes_the_same_pixels(cases, source, decode):
    for world_size in (1, 2, 3, 4, 8):
        for before in ({"batch_size": 1}, {"batch_size": 3, "world_size": 2}):
            steps = range(1, -(-N // (before["batch_size"] * before.get("world_size", 1))))
            after = {"batch_size": 2, "world_size": world_size, "threads": 5, "prefetch": 1}
            make_loader = maker(source, decode)
            cases("pixels", assert_same_samples_after_resuming(make_loader, before, after, steps))
