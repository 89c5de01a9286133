"""The header parser agrees with Pillow's lazy open, on whole files, on prefixes, and survives damage."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from fastload import _native
from fastload.decode.image_header import ImageHeader, image_header
from tests.corpus import ORIENTATION, SIZE, broken, encode, photos, picture, pictures, png, tiff
from tests.pillow_version import needs_pillow_13

CHANNELS = {"1": 1, "L": 1, "P": 1, "I;16": 1, "I": 1, "F": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}
BMP_32 = b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 5, -7, 1, 32, 0) + bytes(20 + 5 * 7 * 4)


def by_pillow(content: bytes) -> ImageHeader:
    """The header as Pillow's plugins see it, without decoding. XMP, which we do not read, is dropped."""
    image = Image.open(io.BytesIO(content))
    size = image.size
    for name in ("xmp", "XML:com.adobe.xmp"):
        image.info.pop(name, None)
    orientation = image.getexif().get(ORIENTATION, 1)
    if image.format == "TIFF" and orientation >= 5:
        size = size[::-1]  # Pillow turns a TIFF's size, and only a TIFF's, when it is opened
    format = {"MPO": "jpeg", "PPM": "pnm"}.get(image.format, image.format.lower())
    return ImageHeader(format, *size, orientation, CHANNELS[image.mode], 0, "progressive" in image.info, 0)


@pytest.mark.parametrize("name", pictures())
def test_a_header_agrees_with_pillow(name):
    content = pictures()[name]
    got, expected = image_header(content), by_pillow(content)
    assert got.complete
    assert got._replace(bits=0, adobe_transform=0, channels=0) == expected._replace(channels=0)
    assert got.upright == (Image.open(io.BytesIO(content)).size if got.format == "tiff" else got.upright)
    if name != "bmp 32":  # four channels are stored; Pillow drops the fourth when it opens the file
        assert got.channels == expected.channels


def test_photographs_have_the_size_of_the_manifest():
    for name, content in photos().items():
        got, expected = image_header(content), by_pillow(content)
        assert got._replace(bits=0, adobe_transform=0) == expected._replace(adobe_transform=0), name
        assert got.bits == 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "tiff"])
def test_upright_sizes_swap_where_exif_turns_the_image(format, orientation):
    got = image_header(pictures()[f"{format} exif-{orientation}"])
    assert got.orientation == orientation and (got.width, got.height) == SIZE
    assert got.upright == (SIZE if orientation <= 4 else SIZE[::-1])


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("kind, form", [(3, "HH"), (4, "I")])
def test_exif_is_read_in_both_byte_orders_and_both_integer_types(endian, kind, form):
    values = (6, 0) if form == "HH" else (6,)
    block = struct.pack(endian + "HI", 42, 8) + struct.pack(endian + "HHHI", 1, ORIENTATION, kind, 1)
    block = (b"II" if endian == "<" else b"MM") + block + struct.pack(endian + form, *values) + bytes(4)
    content = encode(picture(), "JPEG", exif=b"Exif\0\0" + block)
    assert image_header(content).orientation == 6 == by_pillow(content).orientation


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_invalid_orientation_counts_as_upright(value):
    assert image_header(encode(picture(), "JPEG", orientation=value)).orientation == 1


@pytest.mark.parametrize("cut", range(0, 26))
def test_a_cut_exif_block_counts_as_upright(cut):
    block = b"II" + struct.pack("<HIHHHIHHI", 42, 8, 1, ORIENTATION, 3, 1, 6, 0, 0)
    content = encode(picture(), "JPEG", exif=b"Exif\0\0" + block[:cut])
    assert image_header(content).orientation == (6 if cut >= 22 else 1)


def test_exif_behind_the_pixels_of_a_png_is_found_where_the_whole_file_is_given():
    exif = Image.Exif()
    exif[ORIENTATION] = 8
    whole = encode(picture(), "PNG")
    chunk = png(2, 8, [bytes(3)], 1, (b"eXIf", exif.tobytes()[6:]))[33:-12]
    chunk = chunk[: 12 + len(exif.tobytes()[6:])]
    content = whole[:-12] + chunk + whole[-12:]
    assert image_header(content).orientation == 8
    assert image_header(content[:100])[1:4] == (*SIZE, 1)


def test_xmp_is_not_read():
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert image_header(encode(picture(), "JPEG", xmp=xmp)).orientation == 1


def test_a_progressive_jpeg_and_its_adobe_marker_are_told():
    assert image_header(pictures()["jpeg progressive"]).progressive
    assert not image_header(pictures()["jpeg 420"]).progressive
    assert image_header(pictures()["jpeg 420"]).adobe_transform == -1
    assert image_header(pictures()["jpeg cmyk"]).adobe_transform == 0
    assert image_header(pictures()["jpeg rgb inside"]).adobe_transform == 0


@pytest.mark.parametrize(
    "name, channels, bits",
    [
        ("png 1 bit", 1, 1),
        ("png palette 4 bits", 1, 4),
        ("png gray 16 bits", 1, 16),
        ("png rgb 16 bits", 3, 16),
        ("bmp 24", 3, 8),
        ("bmp 1", 1, 1),
        ("tiff rgb", 3, 8),
        ("tiff gray 16 bits", 1, 16),
        ("tiff float", 1, 32),
        ("pgm 16 bits", 1, 16),
        ("pbm", 1, 1),
        ("gif", 1, 8),
        ("webp lossy alpha", 4, 8),
    ],
)
def test_channels_and_bits_are_those_stored(name, channels, bits):
    got = image_header(pictures()[name])
    assert (got.channels, got.bits) == (channels, bits)


@needs_pillow_13
@pytest.mark.filterwarnings("ignore:Metadata Warning")
@pytest.mark.parametrize(
    "entries",
    [
        [(256, 3, 1, 4), (257, 3, 1, 1), (256, 3, 1, 7)],  # the first of two widths counts
        [(274, 3, 1, 6), (274, 3, 1, 3), (256, 3, 1, 4), (257, 3, 1, 1)],
        [(274, 3, 2, 6), (256, 3, 1, 4), (257, 3, 1, 1)],  # of two orientations in one entry the first
    ],
)
def test_a_tiff_directory_that_says_a_thing_twice_is_read_as_pillow_reads_it(entries):
    got, expected = image_header(tiff(*entries)), by_pillow(tiff(*entries))
    assert got[:4] == expected[:4] and got[1:3] == (4, 1)


def test_the_gif_canvas_grows_with_its_first_frame():
    content = bytearray(pictures()["gif"])
    content[6:10] = struct.pack("<HH", 3, 100)
    assert image_header(bytes(content))[1:3] == (SIZE[0], 100) == Image.open(io.BytesIO(content)).size


def test_a_bmp_may_be_stored_from_the_top():
    assert image_header(BMP_32)[:3] == ("bmp", 5, 7)
    old = b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 5, 7, 1, 24) + bytes(200)
    assert image_header(old)[:3] == ("bmp", 5, 7)


def test_a_jpeg_needs_only_its_first_bytes():
    content = pictures()["jpeg 420"]
    frame = content.index(b"\xff\xc0")
    for size in range(len(content)):
        got = image_header(content[:size])
        assert got.complete == (size >= frame + 10)
        assert got.format == ("jpeg" if size >= 3 else "unknown")


def test_tables_before_the_frame_are_not_taken_for_it():
    # DHT, DAC and JPG lie among the numbers of the frame markers; some encoders write their tables first
    content = pictures()["jpeg 420"]
    for marker in (0xC4, 0xC8, 0xCC):
        table = bytes([0xFF, marker]) + struct.pack(">HBHHB", 17, 8, 5, 5, 3) + bytes(9)
        assert image_header(content[:2] + table + content[2:])[1:3] == SIZE


@pytest.mark.parametrize("name", pictures())
def test_every_prefix_of_every_file_is_unknown_incomplete_or_right(name):
    content = pictures()[name]
    whole = image_header(content)
    for size in [*range(min(len(content), 300)), *range(300, len(content), 97)]:
        got = image_header(content[:size])
        assert got.format in ("unknown", whole.format)
        if got.complete and whole.format != "gif":  # whose size may grow with a frame that is not there yet
            assert got[1:3] == whole[1:3]


def test_damaged_files_never_break_the_parser():
    rng = np.random.default_rng(0)
    files = [bytearray(content[:2000]) for content in (*pictures().values(), *broken().values())]
    for _ in range(60):
        for content in files:
            damaged = bytearray(content)
            for place in rng.integers(0, max(len(content), 1), 4) if content else ():
                damaged[place] = rng.integers(0, 256)
            got = image_header(damaged)
            assert got.complete == (got.height > 0) and 1 <= got.orientation <= 8


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"text", bytes(100), b"P7\n1 1\n", b"RIFF\0\0\0\0AVI ", b"P6"]
)
def test_anything_but_an_image_is_unknown(content):
    got = image_header(content)
    assert (got.format, got.width, got.height, got.complete) == ("unknown", 0, 0, False)


def test_a_size_of_zero_is_incomplete():
    assert not image_header(png(2, 8, [], 5)).complete
    assert not image_header(b"P5 0 3 255 ").complete
    assert not image_header(b"P5 3 0 255 ").complete


def test_any_contiguous_buffer_will_do_and_no_other():
    content = pictures()["png rgb"]
    assert image_header(memoryview(content)) == image_header(np.frombuffer(content, np.uint8))
    with pytest.raises(ValueError, match="contiguous bytes"):
        _native.parse_image_header(np.frombuffer(content, np.uint8)[::2])
    with pytest.raises(ValueError, match="contiguous bytes"):
        _native.parse_image_header(np.zeros(4, np.int32))
