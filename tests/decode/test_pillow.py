"""The reference decoder: one conversion each, upright, first frame, Pillow's resize, errors of one line."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from fastload.decode.pillow import decode_image, decode_rgb, render, upright_size
from fastload.decode.spec import Geometry, ImageSpec, denominator, geometry, stretched
from fastload.errors import SampleError
from tests.corpus import SIZE, broken, encode, photos, picture, pictures, png, tiff
from tests.pillow_version import needs_pillow_13

RGB, ALPHA = picture(), picture(seed=1)[..., 0]
UPRIGHT = {  # what EXIF's orientation N asks for, without Pillow
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((one.astype(np.float64) - other) ** 2))


@pytest.mark.parametrize("name", pictures())
@pytest.mark.filterwarnings("error")
def test_every_kind_of_file_becomes_upright_rgb_and_a_batch_image(name):
    content = pictures()[name]
    whole = decode_rgb(content)
    got = decode_image(content, ImageSpec(8, 12), 0, 0)
    assert upright_size(content) == got.size
    assert whole.dtype == got.pixels.dtype == np.uint8
    assert whole.shape == (got.size[1], got.size[0], 3) and got.pixels.shape == (8, 12, 3)
    assert got.pixels.flags.c_contiguous


@pytest.mark.parametrize(
    "name", [name for name in pictures() if "16 bits" not in name and name != "tiff float"]
)
@pytest.mark.filterwarnings("ignore:Palette images with Transparency")  # of the expected value's direct way
def test_eight_bit_files_are_what_exif_transpose_and_convert_give(name):
    expected = ImageOps.exif_transpose(opened(pictures()[name])).convert("RGB")
    assert (decode_rgb(pictures()[name]) == np.asarray(expected)).all()


@pytest.mark.parametrize(
    "name", ["png rgba", "webp alpha", "tiff rgba", "png rgb with a transparent colour", "bmp 32", "tiff big"]
)
def test_alpha_is_dropped_and_nothing_is_blended_in(name):
    assert (decode_rgb(pictures()[name]) == RGB).all()


@pytest.mark.parametrize("name", ["png gray", "bmp gray", "pgm", "gif gray", "png gray alpha"])
def test_gray_is_replicated(name):
    got = decode_rgb(pictures()[name])
    assert (got == got[..., :1]).all()
    gray = RGB[..., 0] if name == "png gray" else np.asarray(Image.fromarray(RGB).convert("L"))
    assert (got[..., 0] == gray).all()


def test_a_palette_is_looked_up_whatever_its_transparency():
    palette = Image.fromarray(RGB).quantize(17)
    expected = np.array(palette.getpalette(), np.uint8).reshape(-1, 3)[np.asarray(palette)]
    for name in ("png palette", "png palette transparent", "png palette with alphas"):
        assert (decode_rgb(pictures()[name]) == expected).all()


def test_one_bit_is_black_and_white():
    for name in ("png 1 bit", "bmp 1", "pbm"):
        expected = np.asarray(Image.fromarray(RGB).convert("1"))[..., None] * np.uint8(255)
        assert (decode_rgb(pictures()[name]) == expected).all()


@pytest.mark.parametrize("name", ["png gray 16 bits", "tiff gray 16 bits", "pgm 16 bits"])
def test_gray_of_16_bits_keeps_its_high_byte(name):
    assert (decode_rgb(pictures()[name]) == RGB[..., :1]).all()


def test_rgb_of_16_bits_keeps_its_high_byte():
    assert (decode_rgb(pictures()["png rgb 16 bits"]) == RGB).all()


def test_gray_of_12_bits_keeps_its_high_byte():
    levels = [0x000, 0x123, 0x7FF, 0xFFF]
    packed = bytes.fromhex("".join(f"{level:03x}" for level in levels))
    entries = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 6)]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    content = b"II*\0" + struct.pack("<I", 14) + packed + struct.pack("<H", 9) + directory + bytes(4)
    assert decode_rgb(content)[0, :, 0].tolist() == [level >> 4 for level in levels]


def test_cmyk_is_converted_by_the_formula():
    c, m, y, k = np.moveaxis(np.asarray(opened(pictures()["tiff cmyk"])).astype(float), -1, 0)
    expected = np.stack([(255 - ink) * (255 - k) / 255 for ink in (c, m, y)], axis=-1)
    # Pillow's division by 255 is rounded
    assert np.abs(decode_rgb(pictures()["tiff cmyk"]) - expected).max() <= 0.5001


def test_floats_in_0_to_1_are_rounded_half_to_even():
    levels = np.array([[0.0, 0.5 / 255, 1.5 / 255, 0.25, 1.0]], np.float32)
    assert decode_rgb(encode(levels, "TIFF"))[0, :, 0].tolist() == [0, 0, 2, 64, 255]


@pytest.mark.parametrize("level", [1.01, -0.01, float("nan"), float("inf"), 255.0])
def test_floats_outside_have_no_one_meaning_and_are_refused(level):
    with pytest.raises(SampleError, match=r"must be in \[0, 1\].*fl.Custom"):
        decode_rgb(encode(np.array([[0.5, level]], np.float32), "TIFF"))


def test_gray_of_32_bits_holds_16_or_is_refused():
    assert decode_rgb(encode(np.array([[0, 255, 256, 65535]], np.int32), "TIFF"))[0, :, 0].tolist() == [
        0,
        0,
        1,
        255,
    ]
    for level in (-1, 65536):
        with pytest.raises(SampleError, match=r"must be in \[0, 65535\]"):
            decode_rgb(encode(np.array([[0, level]], np.int32), "TIFF"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_image_upright(orientation):
    for format in ("png", "webp", "tiff"):
        assert (decode_rgb(pictures()[f"{format} exif-{orientation}"]) == UPRIGHT[orientation](RGB)).all()
    stored = decode_rgb(pictures()["jpeg exif-1"])
    assert (decode_rgb(pictures()[f"jpeg exif-{orientation}"]) == UPRIGHT[orientation](stored)).all()


def test_xmp_does_not_turn_the_image():
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    for format in ("JPEG", "PNG", "WEBP", "TIFF"):
        options = {"xmp": xmp} if format != "TIFF" else {"tiffinfo": {700: xmp}}
        assert decode_rgb(encode(RGB, format, **options)).shape == RGB.shape


@pytest.mark.parametrize("format", ["AVIF", "JPEG2000"])
def test_formats_that_the_header_parser_does_not_know_are_decoded_all_the_same(format):
    content = encode(picture(64, 48), format)
    assert (decode_rgb(content) == np.asarray(opened(content).convert("RGB"))).all()


def test_exif_turns_an_avif_too():
    content = encode(picture(64, 48), "AVIF", orientation=6)
    assert decode_rgb(content).shape == (64, 48, 3) and upright_size(content) == (48, 64)


@pytest.mark.parametrize("name", ["gif animated", "webp animated", "tiff of two pages"])
def test_the_first_frame_is_taken(name):
    first = decode_rgb(pictures()[name]).astype(int)
    assert np.abs(first - RGB).mean() < 12  # a GIF has 256 colours
    assert np.abs(first - picture(seed=3)).mean() > 30


@pytest.mark.parametrize("filter", ["bilinear", "bicubic", "lanczos", "nearest"])
@pytest.mark.parametrize("flip", [False, True])
def test_the_pixels_are_those_of_pillows_resize_crop_and_mirror(filter, flip):
    chosen = Geometry((1.0, 2.0, 31.0, 21.0), (20, 13), (3, 1, 11, 9), flip)
    image = Image.fromarray(RGB).resize((20, 13), Image.Resampling[filter.upper()], box=(1, 2, 31, 21))
    image = image.crop((3, 1, 14, 10))
    expected = np.asarray(ImageOps.mirror(image) if flip else image)
    assert (render(RGB, chosen, filter) == expected).all()
    assert (render(Image.fromarray(RGB), chosen, filter) == expected).all()


@pytest.mark.parametrize("filter", ["bilinear", "bicubic", "lanczos"])
def test_photographs_unscaled_are_bit_equal_to_pillow(filter):
    spec = ImageSpec(128, 128, crop="random", filter=filter, scaled=None, xflip=0.5)
    for position, content in enumerate(photos().values()):
        pixels, chosen, size = decode_image(content, spec, 0, position)
        image = opened(content).convert("RGB")
        assert size == image.size
        left, top, width, height = chosen.crop
        image = image.resize(chosen.resized, Image.Resampling[filter.upper()])
        image = image.crop((left, top, left + width, top + height))
        assert (pixels == np.asarray(ImageOps.mirror(image) if chosen.flip else image)).all()


@pytest.mark.parametrize("scaled, lowest_db, largest", [("half", 42, 2), ("full", 33, 4)])
def test_scaled_decoding_is_close_to_the_exact_result_at_even_and_odd_sizes(scaled, lowest_db, largest):
    # least of these photos: half 44.2 dB, full 34.4; with the box off by half a pixel 33.1 and 24.8
    used = set()
    for content in photos().values():
        odd = opened(content).convert("RGB")
        odd = odd.crop((0, 0, odd.width - 3, odd.height - 5))
        for one in (content, encode(odd, "JPEG", quality=92)):
            exact = decode_image(one, ImageSpec(96, 96, scaled=None), 0, 0)
            got = decode_image(one, ImageSpec(96, 96, scaled=scaled), 0, 0)
            used.add(denominator(scaled, got.geometry))
            assert got.geometry == exact.geometry
            assert (got.pixels == exact.pixels).all() or psnr(got.pixels, exact.pixels) > lowest_db
    assert max(used) == largest


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("divisor", [2, 4, 8])
def test_scaled_decoding_of_odd_sizes_in_every_orientation(orientation, divisor):
    # 333 x 251 at 1/2, 1/4, 1/8: both sides are rounded up
    content = encode(picture(333, 251), "JPEG", orientation, quality=95)
    spec = ImageSpec(251 // divisor // 2, 251 // divisor // 2, crop="random")
    pixels, chosen, size = decode_image(content, spec, 0, 5)
    assert denominator("half", chosen) == divisor
    assert size == ((333, 251) if orientation <= 4 else (251, 333))
    exact = render(decode_rgb(content), chosen)
    assert (
        psnr(pixels, exact) > 25
    )  # the least is 27.6 dB, in the 15 pixels at 1/8; a wrong turn is below 15 dB


def test_random_boxes_of_a_scaled_jpeg_show_the_same_place():
    content = photos()["0155.jpg"]
    spec = ImageSpec(32, 32, resize="random", scale=(0.3, 1.0))
    for position in range(20):
        pixels, chosen, _ = decode_image(content, spec, 0, position)
        assert denominator("half", chosen) > 1
        assert psnr(pixels, render(decode_rgb(content), chosen)) > 30


def test_a_field_like_another_follows_the_guide():
    spec = ImageSpec(16, 16, crop="random", xflip=0.5)
    picture_file, mask_file = encode(picture(90, 60), "PNG"), encode(picture(45, 30), "PNG")
    for position in range(10):
        guide = decode_image(picture_file, spec, 0, position)
        mask = decode_image(mask_file, spec, 0, position, guide=guide.size)
        assert (mask.geometry, mask.size) == (guide.geometry, guide.size)
        half = stretched(guide.geometry, (90, 60), (45, 30))
        assert half.box == tuple(edge / 2 for edge in guide.geometry.box)
        assert (mask.pixels == render(picture(45, 30), half)).all()


def test_the_random_draws_are_those_of_the_spec():
    spec = ImageSpec(10, 10, crop="random", xflip=0.5)
    for position in range(5):
        assert decode_image(pictures()["png rgb"], spec, 3, position).geometry == geometry(
            spec, *SIZE, 3, position
        )


@pytest.mark.parametrize("name", broken())
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_broken_file_is_refused_in_one_line(name):
    for decode in (decode_rgb, lambda content: decode_image(content, ImageSpec(8, 8), 0, 0)):
        with pytest.raises(SampleError) as caught:
            decode(broken()[name])
        message = str(caught.value)
        assert message and "\n" not in message and "object at 0x" not in message and "Error" not in message


@needs_pillow_13
def test_the_reason_says_what_is_wrong():
    for name, reason in {
        "empty": "the file is empty",
        "text": "not an image of a known format: it begins with b'<html><body>'",
        "jpeg cut in the middle": "cannot decode the JPEG image: its header is damaged or cut",
        "jpeg without its last quarter": "cannot decode the JPEG image: the file is cut: it has no end",
        "png cut in the middle": "cannot decode the PNG image: image file is truncated",
        "jpeg magic and garbage": "cannot decode the JPEG image: its header is damaged or cut",
    }.items():
        with pytest.raises(SampleError, match=reason):
            decode_rgb(broken()[name])


def test_a_tiff_that_pillow_turns_and_its_header_does_not_is_refused():
    signed = tiff((256, 3, 1, 4), (257, 3, 1, 1), (274, 8, 1, 6))  # an orientation is never a signed number
    with pytest.raises(
        SampleError, match=r"decoded to \(1, 4\) pixels instead of the \(4, 1\) of its header"
    ):
        decode_image(signed, ImageSpec(1, 1), 0, 0)


def test_formats_that_run_other_programs_are_not_opened():
    with pytest.raises(SampleError, match="not an image of a known format"):
        decode_rgb(encode(RGB, "EPS"))


@pytest.mark.parametrize("name", ["jpeg 420", "png rgb", "gif", "webp lossy", "bmp 24", "tiff rgb", "ppm"])
def test_max_pixels_is_the_most_that_is_decoded(name):
    count = SIZE[0] * SIZE[1]
    decode_rgb(pictures()[name], max_pixels=count)
    for decode in (
        decode_rgb,
        lambda content, **limit: decode_image(content, ImageSpec(8, 8), 0, 0, **limit),
    ):
        with pytest.raises(SampleError, match=f"37 x 23 pixels are more than max_pixels={count - 1}"):
            decode(pictures()[name], max_pixels=count - 1)


def test_a_bomb_is_refused_from_its_header():
    row = zlib.compress(bytes(10))
    header = struct.pack(">IIBBBBB", 50000, 50000, 8, 0, 0, 0, 0)
    content = png(0, 8, [b"0"], 1).replace(png(0, 8, [b"0"], 1)[16:29], header)
    content = content[:29] + struct.pack(">I", zlib.crc32(content[12:29])) + content[33:] + row
    with pytest.raises(SampleError, match="50000 x 50000 pixels are more than max_pixels=178956970"):
        decode_rgb(content)


def test_pillows_own_limit_does_not_apply(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("jpeg 420", "png rgb", "gif", "bmp 24", "ppm"):
            decode_image(pictures()[name], ImageSpec(8, 8), 0, 0)


def test_any_buffer_of_bytes_will_do():
    content = pictures()["jpeg 420"]
    for view in (memoryview(content), bytearray(content), np.frombuffer(content, np.uint8)):
        assert (decode_rgb(view) == decode_rgb(content)).all()
