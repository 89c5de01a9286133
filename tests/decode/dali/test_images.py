"""DALI gives the reference's pictures.

With a GPU the same tests run on it as well, with tolerances for nvJPEG's own arithmetic.
"""

import itertools

import numpy as np
import PIL.Image
import pytest

from fastload.decode.spec import ImageSpec
from tests import corpus
from tests.decode.dali.stages import FAILING, PHOTOS, decoded, needs_dali, on_each_device, reference
from tests.quick import slow_but

pytestmark = needs_dali


# How far DALI's filters are from Pillow's on photos: mean levels of the worst photo, (all of it, without
# BORDER). At the border of an image DALI repeats its pixels where Pillow leaves out what lies outside: a
# corner of 32 x 32 is off by 2 levels in the mean. Elsewhere they differ by rounding: DALI keeps floats
# between its two passes. nvJPEG's inverse DCT may be off by a level more.
BORDER = 4
MEAN_LEVELS = {"cpu": (2.5, 0.35), "cuda": (3.5, 1.35)}
EXACT_LEVELS = {"cpu": 0, "cuda": 6}  # where nothing is resized


def levels_off(pixels, expected):
    return np.abs(pixels.astype(int) - expected)


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


FILTERS = ["bilinear", "bicubic", "lanczos"]
VIEWED = list(itertools.product(VIEWS, FILTERS))
QUICK_VIEWED = [case for number, case in enumerate(VIEWED) if number // 3 % 3 == 2 - number % 3]


@on_each_device
@pytest.mark.parametrize("view, filter", slow_but(QUICK_VIEWED, VIEWED))
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


REGIONS = list(itertools.product([(16, 16), (200, 190)], FILTERS))
QUICK_REGIONS = [((16, 16), "lanczos"), ((200, 190), "bilinear"), ((16, 16), "bicubic")]


@on_each_device
@pytest.mark.parametrize("size, filter", slow_but(QUICK_REGIONS, REGIONS))
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


LABELS = [(77, 77), (96, 96), (150, 256), (60, 128), (299, 511), (7, 3), (600, 1024)]


@on_each_device
@pytest.mark.parametrize(["size"], slow_but([(size,) for size in LABELS[:-1]], [(size,) for size in LABELS]))
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
