"""DALI gives the reference's pictures, and no bad sample costs more than itself.

With a GPU the same tests run on it as well, with tolerances for nvJPEG's own arithmetic.
"""

import dataclasses
import gc
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import PIL.Image
import pytest
import torch

from fastload import backends
from fastload.decode.dali import pipeline
from fastload.decode.pillow import decode_image
from fastload.decode.spec import DEFAULT_MAX_PIXELS, ImageSpec
from fastload.errors import BackendError, ConfigError, OutOfMemoryError, ResourceError, SampleError
from tests import corpus

if not backends.has("nvidia.dali"):
    pytest.skip("DALI is not installed: pip install nvidia-dali-cuda130", allow_module_level=True)

from fastload.decode.dali.stage import DaliStage

SEED = 11
PHOTOS = list(corpus.photos().values())
GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))
on_each_device = pytest.mark.parametrize("device", ["cpu", GPU])
# How far DALI's filters are from Pillow's on photos: mean levels of the worst photo, (all of it, without
# BORDER). At the border of an image DALI repeats its pixels where Pillow leaves out what lies outside: a
# corner of 32 x 32 is off by 2 levels in the mean. Elsewhere they differ by rounding: DALI keeps floats
# between its two passes. nvJPEG's inverse DCT may be off by a level more.
BORDER = 4
MEAN_LEVELS = {"cpu": (2.5, 0.35), "cuda": (3.5, 1.35)}
EXACT_LEVELS = {"cpu": 0, "cuda": 6}  # where nothing is resized


def a_stage(specs, device="cpu", **settings):
    specs = specs if isinstance(specs, dict) else {"image": specs}
    given = {"threads": 2, "max_batch": 256, "seed": SEED, "max_pixels": DEFAULT_MAX_PIXELS, "in_flight": 8}
    return DaliStage(specs, device=device, **{**given, **settings})


@pytest.fixture
def make_stage():
    """`a_stage`, closed at the end."""
    made = []

    def make(*arguments, **settings):
        made.append(a_stage(*arguments, **settings))
        return made[-1]

    yield make
    for stage in made:
        stage.close()


def finished(batch):
    """(pixels on the host, errors, rows) of the field "image"."""
    field = batch.finish()["image"]
    pixels = field.pixels.cpu().numpy()
    if field.pixels.is_cuda:
        event = torch.cuda.Event()
        event.record()
        batch.release(event)
    return pixels, field.errors, field.rows


def decoded(stage, blobs, positions=None, guides=None):
    positions = np.arange(len(blobs)) if positions is None else positions
    return finished(stage.submit({"image": blobs}, positions, guides and {"image": guides}))


def reference(blobs, spec, positions=None, guides=None):
    spec = dataclasses.replace(spec, scaled=None)
    positions, guides = positions or range(len(blobs)), guides or [None] * len(blobs)
    return [
        decode_image(blob, spec, SEED, position, guide=guide)
        for blob, position, guide in zip(blobs, positions, guides, strict=True)
    ]


def levels_off(pixels, expected):
    return np.abs(pixels.astype(int) - expected)


def with_bad_tables(jpeg):
    """Its header is fine, and no decoder takes its Huffman tables: DALI's run fails."""
    place = jpeg.index(b"\xff\xc4") + 5
    return jpeg[:place] + b"\xff" * 16 + jpeg[place + 16 :]


def with_bad_rows(png):
    """A PNG with damage in the middle of its pixels."""
    middle = len(png) // 2
    return png[:middle] + bytes(255 - byte for byte in png[middle : middle + 60]) + png[middle + 60 :]


FAILING = {
    "jpeg tables": with_bad_tables(PHOTOS[0]),
    "png rows": with_bad_rows(corpus.encode(corpus.picture(200, 150), "PNG")),
    "bmp cut": corpus.broken()["bmp cut"],
}

VIEWS = {
    "short": {"height": 96, "width": 96},
    "odd": {"height": 41, "width": 151},
    "exact": {"height": 120, "width": 90, "resize": "exact"},
    "random box": {"height": 64, "width": 64, "resize": "random"},
    "small boxes": {"height": 65, "width": 63, "resize": "random", "scale": (0.01, 0.05)},
    "random crop": {"height": 50, "width": 90, "crop": "random"},
    "given crop": {"height": 32, "width": 32, "crop": (0, 0)},
    "short side": {"height": 90, "width": 77, "resize": 101},
    "enlarged": {"height": 801, "width": 800},
}


@on_each_device
@pytest.mark.parametrize("filter", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("view", VIEWS)
def test_photos_agree_with_the_reference(make_stage, view, filter, device):
    spec = ImageSpec(**VIEWS[view], filter=filter, xflip=0.5)
    blobs = PHOTOS[::6] if view == "enlarged" else PHOTOS[::2]
    stage = make_stage(spec, device)
    pixels, errors, rows = decoded(stage, blobs)
    assert not errors and stage.stats.dali_samples == len(blobs), "DALI took them all"
    expected = reference(blobs, spec)
    for i, image in enumerate(expected):
        off = levels_off(pixels[i], image.pixels)
        inside = off[BORDER:-BORDER, BORDER:-BORDER]
        assert off.mean() <= MEAN_LEVELS[device][0] and inside.mean() <= MEAN_LEVELS[device][1], f"photo {i}"
        assert rows["sizes"][i].tolist() == list(image.size[::-1])
        assert rows["boxes"][i].tolist() == list(image.geometry.box)
        assert rows["resized"][i].tolist() == list(image.geometry.resized[::-1])
        assert rows["corners"][i].tolist() == [image.geometry.crop[1], image.geometry.crop[0]]
        assert rows["flips"][i] == image.geometry.flip
    assert 0 < rows["flips"].sum() < len(blobs) or len(blobs) < 5


@on_each_device
@pytest.mark.parametrize("filter", ["bilinear", "bicubic", "lanczos"])
def test_away_from_the_border_the_filters_are_the_same(make_stage, filter, device):
    """A filter of another width would show here; what differs at the border is in the tolerance above."""
    spec = ImageSpec(128, 128, "exact", filter=filter)
    smooth = [np.asarray(PIL.Image.fromarray(corpus.picture(500, 375)).resize((501, 377)))]
    blobs = [corpus.encode(one, "PNG") for one in smooth]
    pixels, _, _ = decoded(make_stage(spec, device), blobs)
    off = levels_off(pixels[0], reference(blobs, spec)[0].pixels)[BORDER:-BORDER, BORDER:-BORDER]
    assert off.max() <= {"bilinear": 1, "bicubic": 4, "lanczos": 6}[filter]


@on_each_device
@pytest.mark.parametrize("filter", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(16, 16), (200, 190)])
def test_a_decoded_region_holds_all_that_the_filter_reads(make_stage, filter, size, device):
    """Boxes inside the image: what lies around them counts, and the border agrees like everything else."""
    spec = ImageSpec(*size, "random", filter=filter, scale=(0.1, 0.2), xflip=0.5)
    stage = make_stage(spec, device)
    pixels, _, _ = decoded(stage, PHOTOS)
    inside = 0
    for mine, image in zip(pixels, reference(PHOTOS, spec), strict=True):
        left, top, right, bottom = image.geometry.box
        reach = 3 * max((right - left) / size[1], (bottom - top) / size[0], 1) + 1
        if min(left, top, image.size[0] - right, image.size[1] - bottom) < reach:
            continue
        inside += 1
        off = levels_off(mine, image.pixels)
        edge = np.concatenate([off[0], off[-1], off[:, 0], off[:, -1]])
        assert edge.mean() <= MEAN_LEVELS[device][1]
        assert off.max() <= {"bilinear": 1}.get(filter, 40) + EXACT_LEVELS[device]
    assert inside >= 5


@on_each_device
def test_every_format_and_oddity_agrees_with_the_reference(make_stage, device):
    """Exactly, because none is resized; whoever decodes it."""
    pictures = corpus.pictures()
    sizes = {name: reference([blob], ImageSpec(1, 1))[0].size for name, blob in pictures.items()}
    for size in sorted(set(sizes.values())):
        names = [name for name in pictures if sizes[name] == size]
        spec = ImageSpec(size[1], size[0], xflip=0.5)
        blobs = [pictures[name] for name in names]
        pixels, errors, _ = decoded(make_stage(spec, device), blobs)
        assert not errors
        for name, mine, image in zip(names, pixels, reference(blobs, spec), strict=True):
            assert levels_off(mine, image.pixels).max() <= EXACT_LEVELS[device], name


def test_who_decodes_what(make_stage):
    pictures = corpus.pictures()
    dali = ["jpeg 420", "jpeg progressive", "jpeg gray", "png rgba", "png palette", "webp lossy", "bmp 24"]
    pillow = ["jpeg cmyk", "jpeg rgb inside", "gif", "tiff rgb", "png gray 16 bits", "tiff palette", "ppm"]
    stage = make_stage(ImageSpec(16, 16))
    assert not decoded(stage, [pictures[name] for name in dali])[1]
    assert (stage.stats.dali_samples, stage.stats.pillow_samples) == (len(dali), 0)
    assert not decoded(stage, [pictures[name] for name in pillow])[1]
    assert (stage.stats.dali_samples, stage.stats.pillow_samples) == (len(dali), len(pillow))


@on_each_device
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_every_orientation_is_turned_before_it_is_cut(make_stage, format, device):
    """Small boxes, so that only a region is decoded: one of the stored image, the wrong one, would show."""
    options = {"quality": 95} if format == "JPEG" else {}
    blobs = [corpus.encode(corpus.picture(331, 277), format, o, **options) for o in range(1, 9)]
    for spec in (
        ImageSpec(40, 60, "random", scale=(0.02, 0.05), xflip=0.5),
        ImageSpec(277, 200, crop="random"),
        ImageSpec(40, 39, filter="nearest"),
    ):
        stage = make_stage(spec, device)
        pixels, errors, _ = decoded(stage, blobs)
        assert not errors and stage.stats.dali_samples == 8
        for i, image in enumerate(reference(blobs, spec)):
            off = levels_off(pixels[i], image.pixels).mean()
            assert off <= MEAN_LEVELS[device][0], f"{spec}, orientation {i + 1}"


@on_each_device
def test_nothing_changes_where_nothing_is_resized(make_stage, device):
    """Crops of whole pixels, with and without a neighbour that must be resized: equal to the reference."""
    blobs = [corpus.encode(corpus.picture(300, 200, seed), "PNG") for seed in range(6)]
    blobs += [corpus.encode(corpus.picture(300, 200, 7), "JPEG", quality=95)]
    spec = ImageSpec(200, 177, crop="random", xflip=0.5)
    larger = corpus.encode(corpus.picture(450, 333), "PNG")
    stage = make_stage(spec, device)
    expected = np.stack([one.pixels for one in reference(blobs, spec)])
    for mixed in (blobs, [*blobs, larger]):
        pixels, _, _ = decoded(stage, mixed)
        assert np.array_equal(pixels[:6], expected[:6])
        assert levels_off(pixels[6], expected[6]).max() <= EXACT_LEVELS[device]


@on_each_device
@pytest.mark.parametrize("filter", ["nearest", "bicubic"])
def test_a_sample_looks_the_same_in_every_batch(make_stage, filter, device):
    spec = ImageSpec(100, 100, "random", filter=filter, xflip=0.5)
    stage = make_stage(spec, device)
    together, _, _ = decoded(stage, PHOTOS)
    for i in (0, 7, 18):
        alone, _, _ = decoded(stage, [PHOTOS[i]], [i])
        assert np.array_equal(alone[0], together[i])
    blobs = [FAILING["jpeg tables"], corpus.pictures()["gif"], *PHOTOS[2:]]
    repaired, errors, _ = decoded(stage, blobs)
    assert list(errors) == [0] and np.array_equal(repaired[2:], together[2:])


@on_each_device
@pytest.mark.parametrize("size", [(77, 77), (96, 96), (150, 256), (60, 128), (299, 511), (7, 3), (600, 1024)])
def test_nearest_mixes_nothing_and_moves_nothing(make_stage, size, device):
    """Labels: each is the very pixel at the centre, or one of the two where the centre is on their edge.

    Pillow takes either by the last bit of its sums; where they are consistent it is the same pixel.
    """
    ramp = np.arange(512 * 300 * 3, dtype=np.uint32).reshape(300, 512, 3).astype(np.uint8)
    blob = corpus.encode(ramp, "PNG")
    for resize in ("short", "exact", "random", max(size) + 3):
        crop = "center" if resize in ("exact", "random") else "random"
        spec = ImageSpec(*size, resize, crop=crop, filter="nearest", xflip=0.5)
        pixels, _, _ = decoded(make_stage(spec, device), [blob] * 3)
        for mine, image in zip(pixels, reference([blob] * 3, spec), strict=True):
            view = image.geometry
            mine = mine[:, ::-1] if view.flip else mine
            rows, columns = (
                [
                    np.floor(view.box[axis] + (np.arange(count) + start + 0.5) * step + off).astype(int)
                    for off in (-1e-6, 1e-6)
                ]
                for axis, start, count in ((1, view.crop[1], size[0]), (0, view.crop[0], size[1]))
                for step in [(view.box[axis + 2] - view.box[axis]) / view.resized[axis]]
            )
            near = [ramp[y][:, x] for y in rows for x in columns]
            assert np.any([mine == one for one in near], axis=0).all(), resize
            if all((one == near[0]).all() for one in near):
                assert np.array_equal(mine[:, ::-1] if view.flip else mine, image.pixels), resize


def test_nearest_is_pillows_wherever_its_sums_are_consistent(make_stage):
    """512 / 77 puts a centre on an edge, which float32 decides by chance."""
    blobs = [corpus.encode(corpus.picture(512, 300), "PNG")] * 5
    spec = ImageSpec(77, 77, crop="random", filter="nearest", xflip=0.5)
    pixels, _, _ = decoded(make_stage(spec), blobs)
    assert np.array_equal(pixels, np.stack([one.pixels for one in reference(blobs, spec)]))


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (7, 8), (64, 900), (900, 64), (3, 4000)])
def test_odd_sizes_are_resized_as_by_the_reference(make_stage, size):
    blobs = [corpus.encode(corpus.picture(*size), "PNG"), corpus.encode(corpus.picture(*size), "JPEG")]
    for spec in (ImageSpec(16, 16), ImageSpec(9, 33, "exact", filter="lanczos"), ImageSpec(16, 16, "random")):
        pixels, errors, _ = decoded(make_stage(spec), blobs)
        assert not errors
        expected = np.stack([one.pixels for one in reference(blobs, spec)])
        # Of so few pixels many are at the border.
        assert levels_off(pixels, expected).mean() <= 6


@on_each_device
def test_a_field_that_is_like_another_shows_the_same_part(make_stage, device):
    picture = corpus.picture(301, 200)
    masks = [picture[::2, ::2], picture, picture[:, ::3]]
    blobs = [corpus.encode(one, "PNG") for one in masks]
    guides = [(301, 200), (301, 200), (301, 200)]
    for filter in ("nearest", "bilinear"):
        spec = ImageSpec(50, 60, "random", filter=filter, xflip=0.5)
        pixels, _, rows = decoded(make_stage(spec, device), blobs, guides=guides)
        for i, image in enumerate(reference(blobs, spec, guides=guides)):
            assert levels_off(pixels[i], image.pixels).mean() <= 1.2 * (filter != "nearest")
            assert rows["sizes"][i].tolist() == [200, 301]


@on_each_device
@pytest.mark.parametrize("name", [*corpus.broken(), *FAILING])
def test_a_broken_image_gets_the_reason_that_the_reference_gives(make_stage, name, device):
    blob = {**corpus.broken(), **FAILING}[name]
    with pytest.raises(SampleError) as caught:
        reference([blob], ImageSpec(16, 16))
    stage = make_stage(ImageSpec(16, 16), device)
    pixels, errors, rows = decoded(stage, [PHOTOS[0], blob, PHOTOS[1]])
    assert errors == {1: str(caught.value)}
    assert not any(column[1].any() for column in rows.values())
    alone, _, _ = decoded(stage, [PHOTOS[1]], [2])
    assert np.array_equal(pixels[2], alone[0])
    assert decoded(stage, [blob])[1] == {0: str(caught.value)}, "in a batch of its own"
    assert decoded(stage, PHOTOS[:3])[1] == {}, "the next batch is fine"


def test_files_that_end_early_are_found_before_dali_runs(make_stage):
    """Broken downloads are the most common damage: the batch must not be decoded twice for them."""
    stage = make_stage(ImageSpec(16, 16))
    cut = [PHOTOS[0][: len(PHOTOS[0]) // 2], PHOTOS[1][:-200], corpus.broken()["webp cut"]]
    cut += [corpus.broken()["jpeg without its last quarter"], corpus.broken()["png cut in the middle"]]
    _, errors, _ = decoded(stage, [*cut, PHOTOS[2], PHOTOS[3] + bytes(30)])
    assert sorted(errors) == [0, 1, 2, 3, 4]
    assert (stage.stats.reruns, stage.stats.dali_samples) == (0, 2)


def test_lying_sizes_and_too_many_pixels_are_refused(make_stage):
    jpeg = PHOTOS[0]
    place = re.search(rb"\xff[\xc0\xc2]", jpeg).start() + 5
    lying = jpeg[:place] + bytes([0x40, 0, 0x40, 0]) + jpeg[place + 4 :]  # 16384 x 16384
    png = corpus.encode(corpus.picture(50, 40), "PNG")
    stage = make_stage(ImageSpec(16, 16), max_pixels=1999)
    _, errors, _ = decoded(stage, [lying, png, corpus.encode(corpus.picture(49, 40), "PNG")])
    assert errors == {
        0: "16384 x 16384 pixels are more than max_pixels=1999",
        1: "50 x 40 pixels are more than max_pixels=1999",
    }
    assert stage.stats.dali_samples == 1 and stage.stats.reruns == 0
    with pytest.raises(SampleError) as caught:
        reference([lying], ImageSpec(16, 16))
    assert decoded(make_stage(ImageSpec(16, 16)), [lying, PHOTOS[1]])[1] == {0: str(caught.value)}


def test_a_given_crop_that_does_not_fit_is_an_error_of_its_sample(make_stage):
    small, large = (corpus.encode(corpus.picture(*size), "PNG") for size in ((40, 50), (160, 50)))
    _, errors, _ = decoded(make_stage(ImageSpec(16, 16, crop=(9, 0))), [small, large])
    assert list(errors) == [0] and "does not fit" in errors[0]


@on_each_device
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("places", [(0,), (63,), (0, 1, 31, 32, 63), tuple(range(63)), tuple(range(64))])
def test_several_bad_samples_at_once(make_stage, places, aligned, device):
    good = corpus.encode(corpus.picture(48, 48), "JPEG")
    kinds = [*FAILING.values(), b"", b"<html>", good[:100], good[: len(good) // 2]]
    blobs = [kinds[places.index(i) % len(kinds)] if i in places else good for i in range(64)]
    stage = make_stage(ImageSpec(48, 48) if aligned else ImageSpec(32, 32), device)
    pixels, errors, _ = decoded(stage, blobs)
    assert sorted(errors) == list(places)
    rest = [i for i in range(64) if i not in places]
    expected, _, _ = decoded(stage, [good])
    assert (pixels[rest] == expected).all()
    assert stage.stats.reruns == 1 and stage.stats.bad_samples == len(places)


def test_missing_images_are_left_alone(make_stage):
    stage = make_stage(ImageSpec(32, 32))
    pixels, errors, rows = decoded(stage, [None, PHOTOS[0], None])
    assert not errors and rows["sizes"].tolist() == [[0, 0], [512, 768], [0, 0]]
    assert np.array_equal(pixels[1], decoded(stage, [PHOTOS[0]], [1])[0][0])
    assert decoded(stage, [None, None])[0].shape == (2, 32, 32, 3)
    assert decoded(stage, [None, b""])[1].keys() == {1}, "nothing for DALI in it"
    assert decoded(stage, PHOTOS[:2])[1] == {}


@on_each_device
def test_formats_that_dali_lacks_come_from_pillow_into_the_same_batch(make_stage, device):
    stream_of = {"gif": corpus.pictures()["gif"]}
    if PIL.features.check("avif"):
        stream_of["avif"] = corpus.encode(corpus.picture(60, 50), "AVIF")
    spec = ImageSpec(20, 20, xflip=0.5)
    blobs = [PHOTOS[0], *stream_of.values(), PHOTOS[1]]
    stage = make_stage(spec, device)
    pixels, errors, rows = decoded(stage, blobs)
    assert not errors and stage.stats.pillow_samples == len(stream_of)
    for i, image in enumerate(reference(blobs, spec)):
        assert rows["sizes"][i].tolist() == list(image.size[::-1]) and rows["flips"][i] == image.geometry.flip
        if 0 < i < len(blobs) - 1:
            assert np.array_equal(pixels[i], image.pixels)


def test_what_dali_cannot_decode_and_pillow_can_is_decoded(make_stage, monkeypatch):
    """Here: because DALI's decoder says so, of a sample that is fine."""
    stage = make_stage(ImageSpec(20, 20))
    expected, _, _ = decoded(stage, PHOTOS[:4])
    real = pipeline.decodes
    monkeypatch.setattr(
        pipeline, "decodes", lambda content, *to: len(content) != len(PHOTOS[2]) and real(content, *to)
    )
    pixels, errors, _ = decoded(stage, [*PHOTOS[:3], FAILING["jpeg tables"]])
    assert list(errors) == [3] and stage.stats.pillow_samples == 2
    assert np.array_equal(pixels[:2], expected[:2])
    assert np.array_equal(pixels[2], reference([PHOTOS[2]], stage.specs["image"], [2])[0].pixels)


@pytest.mark.parametrize("xflip", [0.0, 0.5])
def test_without_a_resize_the_search_for_bad_samples_is_the_second_run(make_stage, xflip):
    """On a CPU: what is found to be good is decoded by then, and must be what DALI's run would have given."""
    jpegs = [corpus.encode(corpus.picture(48, 40, i), "JPEG", i % 8 + 1) for i in range(16)]
    spec = ImageSpec(24, 20, crop="random", xflip=xflip)
    upright = [i for i in range(16) if reference([jpegs[i]], spec, [i])[0].size == (48, 40)]
    stage = make_stage(ImageSpec(40, 30, crop=(9, 0), xflip=xflip))
    blobs = [jpegs[i] for i in upright]
    expected, _, _ = decoded(stage, blobs)
    pixels, errors, _ = decoded(stage, [*blobs, FAILING["jpeg tables"]])
    assert list(errors) == [len(blobs)] and stage.stats.reruns == 1
    assert np.array_equal(pixels[:-1], expected)
    assert stage.stats.dali_samples == 2 * len(blobs)


@pytest.mark.parametrize("xflip", [0.0, 0.5])
def test_a_margin_around_a_region_is_cut_off_again(make_stage, xflip):
    """As on a GPU, where a decoder may not look outside its region; and where a run fails, too."""
    spec = ImageSpec(40, 30, crop="random", xflip=xflip)
    blobs = [corpus.encode(corpus.picture(48, 40, i), "JPEG") for i in range(12)]
    expected, _, _ = decoded(make_stage(spec), blobs)
    stage = make_stage(spec)
    stage.margin = 4
    pixels, _, _ = decoded(stage, blobs)
    assert np.array_equal(pixels, expected)
    pixels, errors, _ = decoded(stage, [*blobs, FAILING["jpeg tables"]])
    assert list(errors) == [12] and np.array_equal(pixels[:12], expected)


@pytest.mark.parametrize("place", ["content", "start", "roi_end", "schedule_run"])
@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
def test_a_batch_that_cannot_be_fed_shifts_no_later_one(make_stage, monkeypatch, place, error):
    """Two fields, the second of which fails half fed; batches before it and after it get their own images."""
    stage = make_stage({"one": ImageSpec(20, 20), "two": ImageSpec(24, 24)})

    def submit(number):
        images = PHOTOS[4 * number : 4 * number + 4]
        content = {name: [np.frombuffer(one, np.uint8) for one in images] for name in stage.specs}
        return stage.submit(content, range(4))

    expected = [submit(number).finish() for number in range(3)]
    before = submit(0)
    pipeline = stage.pipe("two", aligned=False)._pipeline
    what = "schedule_run" if place == "schedule_run" else "feed_input"
    real = getattr(pipeline, what)

    def fail(*arguments):
        if not arguments or arguments[0] == place:
            raise error("no room")
        return real(*arguments)

    monkeypatch.setattr(pipeline, what, fail)
    failing, after = submit(1), submit(2)
    with pytest.raises((BackendError, OutOfMemoryError), match="no room"):
        failing.finish()
    for batch, whole in ((before, expected[0]), (after, expected[2])):
        for name, field in batch.finish().items():
            assert torch.equal(field.pixels, whole[name].pixels)
    assert stage.on_their_way() == 0


@pytest.mark.parametrize("what", ["workers", "_collector"])
def test_a_thread_that_cannot_be_had_shifts_no_later_batch(make_stage, monkeypatch, what):
    """Of Pillow's, for the second of two fields; or what takes DALI's outputs gets no memory."""
    stage = make_stage({"one": ImageSpec(20, 20), "two": ImageSpec(24, 24)})

    def submit(number):
        jpegs = PHOTOS[4 * number : 4 * number + 4]
        others = [corpus.encode(corpus.picture(30, 30, 4 * number + i), "GIF") for i in range(4)]
        content = {"one": jpegs, "two": others if what == "workers" else jpegs}
        content = {name: [np.frombuffer(one, np.uint8) for one in images] for name, images in content.items()}
        return stage.submit(content, range(4))

    expected = [submit(number).finish() for number in range(3)]
    before = submit(0)

    def refuse(*_):
        raise ResourceError("no thread")

    with monkeypatch.context() as patch, pytest.raises(ResourceError, match="no thread"):
        patch.setattr(getattr(stage, what), "submit", refuse)
        submit(1).finish()
    after = submit(2)
    for batch, whole in ((before, expected[0]), (after, expected[2])):
        for name, field in batch.finish().items():
            assert torch.equal(field.pixels, whole[name].pixels)
    assert stage.on_their_way() == 0


def test_bad_samples_that_the_decoder_does_not_find_are_found_by_halves(make_stage, monkeypatch):
    monkeypatch.setattr(pipeline, "decodes", lambda content, *to: True)
    stage = make_stage(ImageSpec(20, 20))
    blobs = [FAILING["jpeg tables"], *PHOTOS[:6], FAILING["png rows"], *PHOTOS[6:9]]
    pixels, errors, _ = decoded(stage, blobs)
    assert sorted(errors) == [0, 7]
    good = [i for i in range(len(blobs)) if i not in errors]
    expected, _, _ = decoded(stage, [blobs[i] for i in good], good)
    assert np.array_equal(pixels[good], expected)


def test_batches_of_64_with_bad_headers_do_not_end_the_process():
    """24 of 24 processes crashed within 12 such batches without the gate."""
    script = r"""
        import numpy as np
        from tests import corpus
        from tests.decode.test_dali import FAILING, PHOTOS, a_stage, decoded
        from fastload.decode.spec import ImageSpec

        good = corpus.encode(corpus.picture(48, 48), "JPEG")
        kinds = [b"", b"x", b"<html>", bytes(900), good[:90], good[:300]]
        kinds += [*corpus.broken().values(), *FAILING.values()]
        no_scan = good[: good.index(b"\xff\xda")] + b"\xff\xd9"
        at_one = (b"<html>", corpus.broken()["gif cut"], no_scan, corpus.broken()["png cut in the middle"])
        stage = a_stage(ImageSpec(32, 32))
        rng = np.random.default_rng(0)
        for round in range(60):
            blobs = [good] * 64
            places = rng.choice(64, 3, replace=False)
            for place in places:
                blobs[place] = kinds[rng.integers(len(kinds))]
            if round % 2 == 0:
                # Where a thread works on a later one while DALI unwinds.
                blobs[1], places = at_one[round // 2 % 4], {*places, 1}
            assert set(decoded(stage, blobs)[1]) == set(places)
        stage.close()
        print("alive")
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stdout.strip() == "alive", ran.stderr[-2000:]


@on_each_device
def test_batches_overlap_and_come_in_any_order(make_stage, device):
    stage = make_stage(ImageSpec(80, 80, crop="random", xflip=0.5), device)
    expected = [decoded(stage, PHOTOS[k : k + 3], [k, k + 1, k + 2])[0] for k in range(8)]
    batches = [stage.submit({"image": PHOTOS[k : k + 3]}, [k, k + 1, k + 2]) for k in range(8)]
    for k in (3, 0, 7, 1, 2, 6, 5, 4):
        assert np.array_equal(finished(batches[k])[0], expected[k])


@on_each_device
def test_other_batches_in_flight_survive_a_bad_one(make_stage, device):
    stage = make_stage(ImageSpec(40, 40), device)
    expected, _, _ = decoded(stage, PHOTOS[:5])
    contents = [PHOTOS[:5] if k % 3 else [FAILING["jpeg tables"], *PHOTOS[1:5]] for k in range(8)]
    for k, batch in enumerate([stage.submit({"image": content}, range(5)) for content in contents]):
        pixels, errors, _ = finished(batch)
        assert list(errors) == ([] if k % 3 else [0])
        assert np.array_equal(pixels[1:], expected[1:])
    assert stage.stats.reruns == 3


def test_outputs_stay_as_they_are_while_later_batches_pass(make_stage):
    stage = make_stage(ImageSpec(40, 40))
    held = [stage.submit({"image": [PHOTOS[k]]}, [k]).finish()["image"].pixels for k in range(19)]
    copies = [pixels.clone() for pixels in held]
    for _ in range(10):
        decoded(stage, PHOTOS)
    stage.close()
    assert all(torch.equal(mine, copy) for mine, copy in zip(held, copies, strict=True))


def test_a_batch_that_dali_decoded_alone_is_not_copied(make_stage):
    stage = make_stage(ImageSpec(40, 40))
    field = stage.submit({"image": PHOTOS[:4]}, range(4)).finish()["image"]
    assert field.pixels.shape == (4, 40, 40, 3) and field.pixels.is_contiguous()
    assert field.pixels.untyped_storage().data_ptr() == field.pixels.data_ptr()


def test_fields_of_one_batch_are_decoded_and_fail_each_for_itself(make_stage):
    specs = {"image": ImageSpec(40, 40), "mask": ImageSpec(30, 20, filter="nearest")}
    stage = make_stage(specs)
    content = {"image": [PHOTOS[0], FAILING["jpeg tables"]], "mask": [b"", PHOTOS[1]]}
    fields = stage.submit(content, [0, 1]).finish()
    assert {name: list(one.errors) for name, one in fields.items()} == {"image": [1], "mask": [0]}
    assert fields["mask"].pixels.shape == (2, 30, 20, 3)
    expected = reference([PHOTOS[1]], specs["mask"], [1])[0].pixels
    assert np.array_equal(fields["mask"].pixels[1].numpy(), expected)


def test_submit_does_not_wait_for_decoding(make_stage):
    stage = make_stage(ImageSpec(600, 600, filter="lanczos"))
    decoded(stage, PHOTOS[:2])
    begun = time.perf_counter()
    batch = stage.submit({"image": PHOTOS * 3}, range(57))
    submitted = time.perf_counter() - begun
    batch.finish()
    # 57 photos to 600 x 600 take half a second; headers and geometry take 1 ms.
    assert submitted < 0.25 * (time.perf_counter() - begun)
    assert batch.wait(0.0)


def test_more_batches_than_agreed_are_refused(make_stage):
    stage = make_stage(ImageSpec(40, 40), in_flight=2)
    batches = [stage.submit({"image": PHOTOS[:2]}, [0, 1]) for _ in range(2)]
    with pytest.raises(AssertionError, match="more than 2 batches"):
        stage.submit({"image": PHOTOS[:2]}, [0, 1])
    batches[0].finish()
    batches[1].cancel()
    for _ in range(2):
        stage.submit({"image": PHOTOS[:2]}, [0, 1])


def own_threads():
    return [one.name for one in threading.enumerate() if one.name.startswith("fastload-dali")]


def test_cancelled_batches_and_closed_stages_leave_no_thread():
    def native_threads():
        return len(os.listdir("/proc/self/task"))

    first = a_stage(ImageSpec(40, 40))  # DALI keeps one thread of its own from the first use on
    decoded(first, [*PHOTOS[:3], FAILING["jpeg tables"]])
    first.close()
    del first
    gc.collect()
    before = native_threads()
    for _ in range(3):
        stage = a_stage(ImageSpec(40, 40))
        batches = [stage.submit({"image": [*PHOTOS, FAILING["jpeg tables"]]}, range(20)) for _ in range(4)]
        kept = batches[1].finish()["image"]
        for batch in (batches[0], *batches[2:]):
            batch.cancel()
        assert own_threads()
        stage.close()
        stage.close()
        assert not own_threads() and list(kept.errors) == [19]
        with pytest.raises(CancelledError, match="closed"):
            stage.submit({"image": PHOTOS[:1]}, [0])
        del stage, batches, batch
        gc.collect()
    deadline = time.monotonic() + 5
    while native_threads() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert native_threads() <= before


def test_a_stage_that_nobody_closes_ends_with_its_last_reference():
    stage = a_stage(ImageSpec(40, 40))
    pixels = stage.submit({"image": PHOTOS[:3]}, range(3)).finish()["image"].pixels
    copy = pixels.clone()
    del stage
    gc.collect()
    deadline = time.monotonic() + 5
    while own_threads() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not own_threads() and torch.equal(pixels, copy)


def test_leaving_python_with_batches_in_flight_is_quiet():
    script = """
        from tests.decode.test_dali import PHOTOS, a_stage
        from fastload.decode.spec import ImageSpec
        stage = a_stage(ImageSpec(40, 40))
        batches = [stage.submit({"image": PHOTOS}, range(19)) for _ in range(4)]
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=30
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_a_forked_child_is_told_and_makes_its_own():
    """Without care the child hangs: in the pipeline, when it is collected, or when the child exits."""
    script = """
        import gc, os, sys
        from tests.decode.test_dali import PHOTOS, a_stage, decoded
        from fastload.decode.spec import ImageSpec
        from fastload.errors import BackendError
        stage = a_stage(ImageSpec(40, 40))
        batch = stage.submit({"image": PHOTOS}, range(19))
        child = os.fork()
        if child == 0:
            calls = [batch.finish, stage.close, lambda: decoded(stage, PHOTOS)]
            for call in calls:
                try:
                    call()
                    os._exit(1)
                except BackendError as error:
                    assert "fork" in str(error)
            del stage, batch, calls, call
            gc.collect()
            own = a_stage(ImageSpec(40, 40))
            assert not decoded(own, PHOTOS)[1]
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert not batch.finish()["image"].errors
        print("both done")
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=30
    )
    assert ran.stdout.strip() == "both done", ran.stderr


def test_a_failing_machine_is_no_bad_sample(make_stage, monkeypatch):
    stage = make_stage(ImageSpec(40, 40))
    pipe = stage.pipe("image", aligned=False)

    def fail(stream):
        type(pipe).output(pipe, stream)
        raise RuntimeError("encountered: CUDA runtime API error cudaErrorMemoryAllocation (2): out of memory")

    monkeypatch.setattr(pipe, "output", fail, raising=False)
    batch = stage.submit({"image": PHOTOS[:2]}, [0, 1])
    with pytest.raises(BackendError, match=r"^DALI failed on cpu.*out of memory.*batch_size"):
        batch.finish()
    monkeypatch.undo()
    assert not decoded(stage, PHOTOS[:2])[1]


def test_dali_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    pipeline.load.cache_clear()
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(BackendError, match=r'pip install "fastload\[cu13\]"'):
        a_stage(ImageSpec(40, 40))
    monkeypatch.undo()
    pipeline.load.cache_clear()


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match=r"hw_decoder_load=0\.5.*deterministic=False"):
        a_stage(ImageSpec(40, 40), hw_decoder_load=0.5)
    with pytest.raises(ConfigError, match="hw_decoder_load=2"):
        a_stage(ImageSpec(40, 40), hw_decoder_load=2, deterministic=False)
    with pytest.raises(ConfigError, match="device='mps'"):
        a_stage(ImageSpec(40, 40), device="mps")


def test_importing_the_backend_does_not_import_dali():
    script = "import fastload.decode.dali.stage, sys; print([n for n in sys.modules if n[:6] == 'nvidia'])"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
