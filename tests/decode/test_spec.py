"""One spec decides the geometry: the rules hold, and both twins have the same numbers."""

import copy
import pickle
from fractions import Fraction

import numpy as np
import pytest

from fastload import _native
from fastload.decode.spec import (
    MAX_RESIZED_SIDE,
    MAX_SOURCE_SIDE,
    Geometry,
    ImageSpec,
    denominator,
    geometries,
    geometry,
    scaled_box,
)
from fastload.errors import ConfigError, SampleError
from fastload.fields import Image

ODD_SIDES = [1, 2, 3, 7, 8, 9, 255, 256, 257, 375, 500, 511, 512, 513, 997, 1024, 65535]


def random_specs(rng, n):
    """Specs of every kind, with odd targets."""
    for i in range(n):
        height, width = (int(side) for side in rng.choice(ODD_SIDES[:-1], 2))
        scale = sorted(float(x) for x in rng.uniform(0.001, 1.0, 2))
        ratio = sorted(float(x) for x in np.exp(rng.uniform(-3, 3, 2)))
        resize = ("short", "exact", "random", max(height, width) + i % 5 * (i % 2) * 16)[i % 4]
        crop = "center"
        if resize not in ("exact", "random"):
            crop = ("center", "random", tuple(int(x) for x in rng.integers(0, 40, 2)))[i // 4 % 3]
        scaled = ("half", "full", None)[i % 3]
        xflip = (0.0, 0.5, 1.0)[i // 2 % 3]
        yield ImageSpec(height, width, resize, crop, "bicubic", scaled, tuple(scale), tuple(ratio), xflip)


def random_sides(rng, n):
    log = np.exp(rng.uniform(0, np.log(65535), n)).astype(np.int64)
    return np.where(rng.random(n) < 0.3, rng.choice(ODD_SIDES, n), log)


def test_the_twins_are_equal_bit_for_bit():
    rng, n, compared = np.random.default_rng(0), 240, 0
    for i, spec in enumerate(random_specs(rng, 168)):
        widths, heights = random_sides(rng, n), random_sides(rng, n)
        positions = rng.integers(0, 2**62, n) if i % 2 else np.arange(n) * 3
        seed = (0, 1, 2**64 - 1)[i % 3]
        plain = geometries(spec, widths, heights, seed, positions, impl="reference")
        native = geometries(spec, widths, heights, seed, positions, impl="native")
        for name, one, other in zip(plain._fields, plain, native, strict=True):
            assert one.dtype == other.dtype and one.tobytes() == other.tobytes(), (name, spec)
        compared += int((plain.status == 0).sum())
    assert compared > 27_000  # of 40,320: the rest are crops that do not fit, and images too long


@pytest.mark.parametrize("side", [-1, 0, MAX_SOURCE_SIDE + 1, 2**31, 2**40])
def test_the_twins_refuse_the_same_sides(side):
    for spec in (ImageSpec(8, 8, resize=resize) for resize in ("short", "exact", "random", 9)):
        for impl in ("reference", "native"):
            columns = geometries(spec, [side, 5, 5], [5, side, 5], 0, [0, 1, 2], impl=impl)
            assert columns.status.tolist() == [2, 2, 0]
            assert not columns.box[:2].any() and columns.box[2].any()
        with pytest.raises(SampleError, match="the sides of an image must be in"):
            geometry(spec, side, 5, 0, 0)


@pytest.mark.parametrize("target", [(256, 256), (1, 1), (64, 96), (257, 131)])
def test_short_just_covers_the_target_and_the_governing_side_is_exact(target):
    spec = ImageSpec(*target)
    rng = np.random.default_rng(1)
    for width, height in zip(random_sides(rng, 300), random_sides(rng, 300), strict=True):
        if max(width, height) > 1000 * min(width, height):
            continue
        width, height = int(width), int(height)
        got = geometry(spec, width, height, 0, 0)
        scale = max(Fraction(target[1], width), Fraction(target[0], height))
        exact = (max(target[1], round(width * scale)), max(target[0], round(height * scale)))
        assert got.resized == exact
        assert got.resized[0] == target[1] or got.resized[1] == target[0]
        assert got.box == (0, 0, width, height)
        assert got.crop[:2] == ((exact[0] - target[1]) // 2, (exact[1] - target[0]) // 2)


def test_the_long_side_is_rounded_half_to_even():
    assert geometry(ImageSpec(2, 2), 5, 4, 0, 0).resized == (2, 2)  # 2.5
    assert geometry(ImageSpec(2, 2), 7, 4, 0, 0).resized == (4, 2)  # 3.5
    assert geometry(ImageSpec(256, 256), 500, 375, 0, 0).resized == (341, 256)  # 341.33


def torchvision_view(width, height, side, crop_height, crop_width):
    """Size after Resize(side) and corner of CenterCrop, line by line as torchvision 0.29 computes them."""
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = side, int(side * long / short)
    new_w, new_h = (new_short, new_long) if width <= height else (new_long, new_short)
    crop_top = round((new_h - crop_height) / 2.0)
    crop_left = round((new_w - crop_width) / 2.0)
    return (new_w, new_h), (crop_left, crop_top)


SHORT_SIDES = [(256, 224, 224), (256, 256, 256), (232, 224, 200), (64, 63, 1), (511, 255, 256), (1, 1, 1)]


@pytest.mark.parametrize("side, height, width", SHORT_SIDES)
def test_an_integer_is_torchvisions_resize_and_center_crop(side, height, width):
    spec, rng = ImageSpec(height, width, resize=side), np.random.default_rng(3)
    pairs = [*np.argwhere(np.ones((40, 40), bool)) + 1, *np.stack([random_sides(rng, 2000)] * 2, 1)]
    pairs += [*np.stack([random_sides(rng, 2000), random_sides(rng, 2000)], 1)]
    odd_rooms = 0
    for w, h in ((int(w), int(h)) for w, h in pairs):
        resized, corner = torchvision_view(w, h, side, height, width)
        if max(resized) > MAX_RESIZED_SIDE:
            continue
        got = geometry(spec, w, h, 0, 0)
        assert (got.resized, got.crop) == (resized, (*corner, width, height)), (w, h)
        assert got.box == (0, 0, w, h) and min(got.resized) == side
        odd_rooms += (resized[0] - width) % 4 == 3 or (resized[1] - height) % 4 == 3
    assert odd_rooms > 300  # rooms whose half is rounded up


@pytest.mark.parametrize("side, height, width", SHORT_SIDES)
def test_an_integer_agrees_with_torchvision_itself(side, height, width):
    functional = pytest.importorskip("torchvision.transforms.functional")
    v2 = pytest.importorskip("torchvision.transforms.v2.functional._geometry")
    spec, rng = ImageSpec(height, width, resize=side), np.random.default_rng(4)
    for w, h in zip(random_sides(rng, 1000), random_sides(rng, 1000), strict=True):
        w, h = int(w), int(h)
        new_h, new_w = functional._compute_resized_output_size((h, w), [side])
        if max(new_h, new_w) <= MAX_RESIZED_SIDE:
            top, left = v2._center_crop_compute_crop_anchor(height, width, new_h, new_w)
            got = geometry(spec, w, h, 0, 0)
            assert (got.resized, got.crop[:2]) == ((new_w, new_h), (left, top))


def test_an_integer_floors_the_long_side_where_short_rounds_it():
    for size, expected in (((500, 375), (341, 256)), ((5, 3), (426, 256)), ((400, 300), (341, 256))):
        assert geometry(ImageSpec(224, 224, resize=256), *size, 0, 0).resized == expected
    assert geometry(ImageSpec(256, 256), 5, 3, 0, 0).resized == (427, 256)  # 426.67


def test_an_integer_is_cropped_as_asked_and_refused_one_pixel_further():
    assert geometry(ImageSpec(224, 200, resize=256, crop=(141, 32)), 500, 375, 0, 0).crop == (
        141,
        32,
        200,
        224,
    )
    for crop in ((142, 32), (141, 33)):
        with pytest.raises(SampleError, match="does not fit into the resized image of 341 x 256"):
            geometry(ImageSpec(224, 200, resize=256, crop=crop), 500, 375, 0, 0)
    n = 3000
    spec = ImageSpec(8, 7, resize=9, crop="random")
    crops = geometries(spec, np.full(n, 12), np.full(n, 9), 3, np.arange(n)).crop
    assert np.unique(crops, axis=0).tolist() == [[x, y, 7, 8] for x in range(6) for y in range(2)]


def test_an_integer_that_makes_the_long_side_too_long_is_refused():
    spec = ImageSpec(8, 8, resize=256)
    assert geometry(spec, 4096, 1, 0, 0).resized == (MAX_RESIZED_SIDE, 256)
    with pytest.raises(
        SampleError, match="4097 x 1 pixels, scaled to a short side of 256, would become 1048832 x"
    ):
        geometry(spec, 4097, 1, 0, 0)
    assert geometries(spec, [4096, 4097, 2**24], [1, 1, 1], 0, [0] * 3).status.tolist() == [0, 2, 2]


def test_an_image_of_the_target_size_is_left_alone():
    assert geometry(ImageSpec(7, 9), 9, 7, 0, 0) == Geometry((0, 0, 9, 7), (9, 7), (0, 0, 9, 7), False)


def test_exact_takes_the_whole_image_and_crops_nothing():
    got = geometry(ImageSpec(3, 5, resize="exact"), 1000, 10, 0, 0)
    assert got == Geometry((0, 0, 1000, 10), (5, 3), (0, 0, 5, 3), False)


def test_a_random_crop_reaches_every_place_and_lies_inside():
    n = 2000
    columns = geometries(ImageSpec(8, 8, crop="random"), np.full(n, 12), np.full(n, 8), 3, np.arange(n))
    counts = np.bincount(columns.crop[:, 0], minlength=5)
    assert len(counts) == 5 and (columns.crop[:, 1] == 0).all()
    assert (np.abs(counts - n / 5) < 5 * np.sqrt(n * 0.2 * 0.8)).all()  # five standard deviations


def test_a_given_crop_is_taken_where_it_fits_and_refused_one_pixel_further():
    resized = (341, 256)  # of 500 x 375
    assert geometry(ImageSpec(256, 256, crop=(85, 0)), 500, 375, 0, 0).crop == (85, 0, 256, 256)
    for crop in ((86, 0), (0, 1)):
        with pytest.raises(SampleError, match=f"does not fit into the resized image of {resized[0]} x"):
            geometry(ImageSpec(256, 256, crop=crop), 500, 375, 0, 0)
        status = [
            geometries(ImageSpec(256, 256, crop=crop), [500], [375], 0, [0], i).status
            for i in ("reference", "auto")
        ]
        assert status == [[1], [1]]


def test_an_image_too_long_to_cover_the_target_is_refused():
    spec = ImageSpec(256, 256)
    assert geometry(spec, 1, 4096, 0, 0).resized == (256, MAX_RESIZED_SIDE)
    with pytest.raises(
        SampleError, match="1 x 4097 pixels, scaled to cover 256 x 256, would become 256 x 1048832"
    ):
        geometry(spec, 1, 4097, 0, 0)
    assert geometries(spec, [1, 1], [4096, 4097], 0, [0, 0]).status.tolist() == [0, 2]


def test_random_boxes_have_area_and_aspect_in_range_and_spread_over_it():
    n, side = 4000, 1000
    spec = ImageSpec(64, 64, resize="random", scale=(0.2, 0.6), ratio=(0.5, 2.0))
    columns = geometries(spec, np.full(n, side), np.full(n, side), 7, np.arange(n))
    left, top, right, bottom = columns.box.T
    area, aspect = (right - left) * (bottom - top) / side**2, (right - left) / (bottom - top)
    assert (columns.box == np.round(columns.box)).all()
    assert left.min() >= 0 and top.min() >= 0 and right.max() <= side and bottom.max() <= side
    # sides are rounded to whole pixels: half of one in 300
    assert area.min() > 0.2 * 0.99 and area.max() < 0.6 * 1.01
    assert aspect.min() > 0.5 * 0.99 and aspect.max() < 2.0 * 1.01
    assert abs(np.log(aspect).mean()) < 0.05 and abs(area.mean() - 0.4) < 0.02
    assert (columns.resized == 64).all() and (columns.crop == (0, 0, 64, 64)).all()


def test_where_no_try_fits_the_largest_centred_box_in_the_ratio_is_taken():
    wide = ImageSpec(8, 8, resize="random", scale=(1.0, 1.0), ratio=(1.0, 1.0))
    assert geometry(wide, 101, 20, 0, 0).box == (40, 0, 60, 20)
    assert geometry(wide, 20, 101, 0, 0).box == (0, 40, 20, 60)
    assert geometry(wide, 20, 20, 0, 0).box == (0, 0, 20, 20)
    narrow = ImageSpec(8, 8, resize="random", scale=(1.0, 1.0), ratio=(10.0, 10.0))
    assert geometry(narrow, 1, 20, 0, 0).box == (0, 9, 1, 10)  # 0.1 pixels high becomes one


@pytest.mark.parametrize("xflip, share", [(0.0, 0.0), (1.0, 1.0), (0.25, 0.25)])
def test_images_are_flipped_as_often_as_asked(xflip, share):
    n = 4000
    flips = geometries(ImageSpec(8, 8, xflip=xflip), np.full(n, 9), np.full(n, 9), 0, np.arange(n)).flip
    assert abs(flips.mean() - share) <= 5 * np.sqrt(share * (1 - share) / n)


def test_random_draws_depend_only_on_seed_and_position():
    spec, n = ImageSpec(8, 8, crop="random", xflip=0.5), 500
    sides = np.full(n, 4000), np.full(n, 900)
    one = geometries(spec, *sides, 0, np.arange(n))
    again = geometries(spec, *(side[::-1] for side in sides), 0, np.arange(n)[::-1])
    assert (one.crop == again.crop[::-1]).all() and (one.flip == again.flip[::-1]).all()
    other_seed = geometries(spec, *sides, 1, np.arange(n))
    assert (one.crop != other_seed.crop).any(axis=1).mean() > 0.9


@pytest.mark.parametrize("scaled, factor", [("full", 1), ("half", 2)])
def test_the_denominator_is_the_largest_that_leaves_enough_pixels(scaled, factor):
    resized = (100, 50)
    for d in (1, 2, 4, 8):
        for width in (factor * d * 100 - 1, factor * d * 100, factor * d * 100 + 1):
            for height in (factor * d * 50 - 1, factor * d * 50, 10_000):
                got = denominator(
                    scaled, Geometry((3.0, 5.0, 3.0 + width, 5.0 + height), resized, (0, 0, 1, 1), False)
                )
                enough = [e for e in (1, 2, 4, 8) if width / e >= factor * 100 and height / e >= factor * 50]
                assert got == max(enough, default=1)
    assert denominator(None, Geometry((0, 0, 10**4, 10**4), (1, 1), (0, 0, 1, 1), False)) == 1


def test_a_scaled_image_is_rounded_up_and_its_box_divided():
    for width in (*range(1, 70), 997, 16383, 65535):
        for d in (1, 2, 4, 8):
            whole = Geometry((0.0, 1.0, width, 11.0), (1, 1), (0, 0, 1, 1), False)
            size, box = scaled_box(whole, width, 11, d)
            assert size == (-(-width // d), -(-11 // d))
            assert box == (0.0, 1 / d, width / d, 11 / d)  # exact: d is a power of two, sides are below 2^24


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_box_is_where_decoding_and_turning_puts_the_pixels(orientation):
    # The stored image is 13 x 9; at 1/4 it is 4 x 3, and pixel (x, y) covers source pixels [4x, 4x + 4), [4y,
    # 4y + 4).
    columns, rows = np.meshgrid(np.arange(4) * 4.0, np.arange(3) * 4.0)
    upright_w, upright_h = (13, 9) if orientation <= 4 else (9, 13)
    turns = {1: "", 2: "x", 3: "xy", 4: "y", 5: "t", 6: "tx", 7: "txy", 8: "ty"}[orientation]
    for turn in turns:  # as EXIF defines them: transpose first, then mirror
        columns, rows = (
            (one.T if turn == "t" else one[:, ::-1] if turn == "x" else one[::-1]) for one in (columns, rows)
        )
    x, y = (rows, columns) if "t" in turns else (columns, rows)  # the stored place along the upright axes
    start_x = (
        upright_w - x[0] - 4 if "x" in turns else x[0]
    )  # where each upright pixel begins in upright source pixels
    start_y = upright_h - y[:, 0] - 4 if "y" in turns else y[:, 0]
    whole = Geometry((0.0, 0.0, upright_w, upright_h), (1, 1), (0, 0, 1, 1), False)
    size, box = scaled_box(whole, upright_w, upright_h, 4, orientation)
    assert size == (len(start_x), len(start_y))
    assert (box[0], box[1]) == (-start_x[0] / 4, -start_y[0] / 4)
    assert (box[2] - box[0], box[3] - box[1]) == (upright_w / 4, upright_h / 4)


def test_the_scaled_boxes_of_the_twins_are_equal_and_float32():
    rng = np.random.default_rng(2)
    for i in range(4000):
        width, height = (int(side) for side in rng.integers(1, 5000, 2))
        x, y = sorted(rng.integers(0, width + 1, 2)), sorted(rng.integers(0, height + 1, 2))
        box = tuple(float(edge) for edge in (x[0] + i / 7, y[0], x[1] + i / 7, y[1]))
        d, orientation = int(rng.choice([1, 2, 4, 8])), int(rng.integers(1, 9))
        plain = scaled_box(Geometry(box, (1, 1), (0, 0, 1, 1), False), width, height, d, orientation)
        assert plain == _native.scaled_box(box, width, height, d, orientation)
        assert all(edge == np.float32(edge) for edge in plain[1])


def test_the_scaled_box_lies_inside_the_scaled_image():
    for width in range(1, 200):
        for d in (1, 2, 4, 8):
            for orientation in range(1, 9):
                whole = Geometry((0.0, 0.0, width, 7.0), (1, 1), (0, 0, 1, 1), False)
                size, box = scaled_box(whole, width, 7, d, orientation)
                assert min(box) >= 0 and box[2] <= size[0] and box[3] <= size[1]


def test_a_spec_comes_from_a_field():
    field = Image(size=(3, 5), resize="short", crop=(1, 2), filter="lanczos", scaled="full")
    spec = ImageSpec.of(field, xflip=0.5)
    assert (spec.height, spec.width, spec.crop, spec.filter, spec.scaled) == (3, 5, (1, 2), "lanczos", "full")
    assert spec.xflip == 0.5


def test_a_mask_shares_geometry_and_random_draws_but_not_the_filter():
    mask = Image("png", like="image", filter="nearest")
    views = {"resize": "random", "scale": (0.2, 1.0)}, {"resize": 99, "crop": "random"}
    for image in (Image(size=64, **view) for view in views):
        one, other = ImageSpec.of(image, 0.5), ImageSpec.of(mask, 0.5, like=image)
        assert (other.filter, other.scaled) == ("nearest", None)
        for position in range(50):
            assert geometry(one, 500, 375, 0, position) == geometry(other, 500, 375, 0, position)


def test_an_image_without_a_size_has_no_spec():
    with pytest.raises(ConfigError, match="size=256"):
        ImageSpec.of(Image())


@pytest.mark.parametrize(
    "wrong",
    [{"height": 0}, {"xflip": 1.5}, {"xflip": -0.1}, {"filter": "box"}, {"resize": 0}, {"resize": 7}],
)
def test_a_spec_is_checked_on_construction(wrong):
    with pytest.raises(ConfigError):
        ImageSpec(**{"height": 8, "width": 8, **wrong})


def test_specs_are_values_that_pickle_with_and_without_their_native_half():
    spec = ImageSpec(8, 8)
    assert spec.native is spec.native
    assert pickle.loads(pickle.dumps(spec)) == spec == copy.deepcopy(spec)
    assert hash(spec) == hash(ImageSpec(8, 8))


def test_the_binding_refuses_arguments_without_a_geometry():
    with pytest.raises(ValueError, match="all of one N"):
        _native.geometries(ImageSpec(8, 8).native, [1, 2], [1], 0, [0])
    for side in (7, 65536):
        with pytest.raises(ValueError, match="out of range"):
            wrong = ImageSpec(8, 8)
            object.__setattr__(wrong, "resize", side)
            wrong.native  # noqa: B018
    with pytest.raises(ConfigError, match=r"seed must be .* got -1"):
        geometries(ImageSpec(8, 8), [1], [1], -1, [0])
    with pytest.raises(ConfigError, match=r"impl must be .* got 'fast'"):
        geometries(ImageSpec(8, 8), [1], [1], 0, [0], impl="fast")
