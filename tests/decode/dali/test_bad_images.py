"""A bad image costs itself only: it gets the reference's reason, and the rest of its batch comes.

Covers gate.py.
"""

import re
import textwrap

import numpy as np
import PIL.Image
import pytest

from fastload.decode.dali import pipeline
from fastload.decode.spec import ImageSpec
from fastload.errors import SampleError
from tests import corpus, preloaded
from tests.decode.dali.stages import FAILING, PHOTOS, decoded, needs_dali, on_each_device, reference

pytestmark = needs_dali


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


def test_an_image_that_only_pillow_can_decode_is_decoded(make_stage, monkeypatch):
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
        from tests.decode.dali.stages import FAILING, PHOTOS, a_stage, decoded
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
    ran = preloaded.run(textwrap.dedent(script), limit_seconds=120)
    assert ran.status == 0 and ran.out.strip() == "alive", ran.err[-2000:]
