"""What Pillow would let pass is found; what is no file's fault is never called a bad sample."""

import io
import zlib

import numpy as np
import PIL.Image
import pytest

from fastload import _native
from fastload.decode import damage, pillow, simplejpeg_fallback
from fastload.decode.pillow import decode_image, decode_rgb, upright_size
from fastload.decode.spec import DEFAULT_MAX_PIXELS, ImageSpec
from fastload.errors import SampleError
from tests.corpus import SIZE, encode, picture, pictures
from tests.odd_images import chunk, odd, png_of, refused
from tests.odd_jpegs import lossless
from tests.pillow_version import needs_pillow_13

SEED = 11
SPEC = ImageSpec(SIZE[1], SIZE[0])


def test_decompressed_bytes_of_a_png_are_not_kept(monkeypatch):
    """Of a bomb as much is inflated as its rows need, a piece at a time."""
    largest = []
    real = damage._inflated
    noted = lambda content: (largest.append(len(piece)) or piece for piece in real(content))  # noqa: E731
    monkeypatch.setattr(damage, "_inflated", noted)
    decode_rgb(odd()["png whose pixels inflate to 64 MB"])  # black: its rows are counted
    assert largest == [damage._PIECE_BYTES]


def test_rows_are_counted_only_where_they_might_be_missing(monkeypatch):
    monkeypatch.setattr(damage, "_inflated", lambda content: pytest.fail("inflated twice"))
    decode_rgb(pictures()["png rgb"])
    decode_rgb(pictures()["png palette"])


@pytest.mark.parametrize("name", [name for name in pictures() if name.startswith("png")])
def test_pixel_chunks_keep_every_pixel(name):
    """And drop what no pixel depends on; Pillow itself is given all of it here."""
    content = pictures()[name]
    text = chunk(b"tEXt", b"a\0" + bytes(99))
    full = content[:33] + text + content[33:-12] + text + content[-12:]
    kept = damage.pixel_chunks(full)
    assert len(kept) <= len(content) and b"tEXt" not in kept
    assert damage.pixel_chunks(kept) == kept
    left, right = (PIL.Image.open(io.BytesIO(one)) for one in (kept, content))
    assert left.mode == right.mode and left.tobytes() == right.tobytes()
    assert left.info.get("transparency") == right.info.get("transparency")


@needs_pillow_13
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_simplejpeg_takes_and_refuses_the_same_jpegs():
    """But for three, see simplejpeg_fallback.py. Another build of libjpeg-turbo may be off by a level."""
    pytest.importorskip("simplejpeg")
    files = {**odd(), **{name: blob for name, (blob, _) in refused().items()}}
    differ = set()
    for name in (name for name in files if "jpeg" in name):
        outcomes = []
        for decode in (simplejpeg_fallback.decode_image, decode_image):
            try:
                got = decode(files[name], SPEC, SEED, 0, max_pixels=DEFAULT_MAX_PIXELS).pixels
            except SampleError:
                got = None
            outcomes.append(got)
        if (outcomes[0] is None) != (outcomes[1] is None):
            differ.add(name)
        elif outcomes[0] is not None:
            assert np.abs(outcomes[0].astype(int) - outcomes[1]).max() <= 1, name
    # Of the third the last warning is one of bytes that were skipped.
    odd_ones = {"jpeg lossless gray", "jpeg with a segment that runs out of it"}
    assert differ == odd_ones | {"jpeg that lost a restart marker"}


OWN = ("geometry", "stretched", "denominator", "scaled_box", "turned", "check_jpeg", "_rgb")


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("error", [TypeError, ValueError, KeyError, OSError])
def test_an_error_of_this_program_is_not_a_bad_sample(monkeypatch, name, error):
    def broken(*arguments):
        raise error("a bug")

    monkeypatch.setattr(pillow, name, broken)
    with pytest.raises(error, match="a bug"):
        decode_image(pictures()["jpeg 420"], SPEC, 0, 0)


@pytest.mark.parametrize("name", ["geometry", "stretched", "denominator", "scaled_box"])
def test_an_error_of_this_program_is_not_a_bad_sample_of_simplejpeg(monkeypatch, name):
    def broken(*arguments):
        raise ValueError("a bug")

    monkeypatch.setattr(simplejpeg_fallback, name, broken)
    with pytest.raises(ValueError, match="a bug"):
        simplejpeg_fallback.decode_image(pictures()["jpeg 420"], SPEC, 0, 0, max_pixels=DEFAULT_MAX_PIXELS)


@pytest.mark.parametrize("place", ["PIL.JpegImagePlugin.JpegImageFile.load", "PIL.Image.Image.convert"])
@pytest.mark.parametrize("error", [MemoryError, ImportError, ModuleNotFoundError])
def test_lack_of_memory_or_of_a_plugin_is_not_a_bad_sample(monkeypatch, place, error):
    def missing(*arguments, **options):
        raise error("not here")

    monkeypatch.setattr(place, missing)
    with pytest.raises(error, match="not here"):
        decode_rgb(pictures()["jpeg cmyk"])


@pytest.mark.parametrize("error", [OSError, SyntaxError, KeyError, ZeroDivisionError, AttributeError])
@pytest.mark.parametrize("ask", [decode_rgb, upright_size])
def test_whatever_pillow_raises_about_a_file_is_a_bad_sample(monkeypatch, error, ask):
    def broken(*arguments, **options):
        raise error("this file")

    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.__init__", broken)
    with pytest.raises(SampleError, match=r"cannot decode the JPEG image: .?this file"):
        ask(pictures()["jpeg 420"])


def test_without_a_libjpeg_pillow_decides(monkeypatch):
    monkeypatch.setattr(damage, "_has_libjpeg", lambda: False)
    assert decode_rgb(refused()["jpeg cut and closed"][0]).shape == (*SIZE[::-1], 3)
    with pytest.raises(SampleError, match="truncated"):
        decode_rgb(refused()["jpeg cut"][0])


def test_jpeg_damage_wants_bytes():
    damage._has_libjpeg()
    for wrong in (np.zeros((2, 2), np.uint8), np.zeros(4, np.int32), np.zeros(8, np.uint8)[::2]):
        with pytest.raises(ValueError, match="contiguous bytes"):
            _native.jpeg_damage(wrong)
    assert _native.jpeg_damage(lossless(picture())) == _native.jpeg_damage(pictures()["jpeg cmyk"]) == ""
    assert _native.jpeg_damage(b"") and _native.jpeg_damage(b"\xff\xd8")


@pytest.mark.parametrize("level", [0, 90])
@pytest.mark.parametrize("interlaced", [False, True])
def test_a_png_truncated_after_its_pixels_decodes_as_in_pillow(level, interlaced):
    png = adam7(level) if interlaced else encode(np.full((40, 40), level, np.uint8), "PNG")
    whole = 0
    for cut in range(20 if level == 0 else 40):  # of black pixels nobody sees which are missing
        try:
            pixels = np.asarray(PIL.Image.open(io.BytesIO(png[: len(png) - cut])))
        except (OSError, SyntaxError):
            pixels = None
        if pixels is not None and (pixels == level).all():
            assert (decode_rgb(png[: len(png) - cut]) == level).all()
            whole += 1
        else:
            with pytest.raises(SampleError):
                decode_rgb(png[: len(png) - cut])
    assert whole >= 12  # all of the end chunk


def adam7(level: int) -> bytes:
    """An interlaced gray PNG of 16 x 16 pixels."""
    rows = [(2, 2), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16)]  # (rows, bytes) of each pass
    content = b"".join((b"\0" + bytes([level]) * width) * count for count, width in rows)
    return png_of(16, 16, zlib.compress(content), kind=(8, 0, 1))
