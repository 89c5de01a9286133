"""What no encoder writes: each file decodes alike in all backends, or is refused with a reason.

The files of `corpus.pictures()` and `corpus.broken()` are tried in test_pillow.py, test_images.py and
test_dali.py; these are the rarer ones, of odd_images.py.
"""

import faulthandler
import re
import struct
import textwrap
import time

import numpy as np
import pytest

from fastload import backends
from fastload.decode.image_header import image_header
from fastload.decode.pillow import decode_image, decode_rgb
from fastload.decode.spec import DEFAULT_MAX_PIXELS, ImageSpec
from fastload.errors import SampleError
from fastload.fields import Image
from tests import preloaded
from tests.corpus import SIZE, encode, picture, pictures
from tests.decode.test_images import SEED, decoded, reference
from tests.odd_images import odd, png_of, refused
from tests.odd_jpegs import DALI_FILLS_IN, END, many_scans, segment, with_size
from tests.pillow_version import needs_pillow_13

SPEC = ImageSpec(SIZE[1], SIZE[0])  # most of them have this size, and are not resized
FIELD = Image(size=SIZE[::-1])
# At most, in the mean, where one is resized: of images this small much is border, as in test_dali.py.
RESIZED_LEVELS = 6
BACKENDS = ("native", "pillow", "dali")
MOST_SECONDS = 60.0


@pytest.fixture(autouse=True)
def no_hang(request):
    """A hang inside a decoder ends the run with a traceback: no signal handler of Python's would run."""
    seconds = MOST_SECONDS * (15 if request.node.get_closest_marker("slow") else 1)
    faulthandler.dump_traceback_later(seconds, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def a_stage(spec):
    from fastload.decode.dali.stage import DaliStage

    limits = {"threads": 2, "max_batch": 256, "seed": SEED, "max_pixels": DEFAULT_MAX_PIXELS, "in_flight": 4}
    return DaliStage({"image": spec}, device="cpu", **limits)


@pytest.fixture(scope="module")
def make_dali():
    """make_dali(spec): a stage on the CPU, the same one for the same spec."""
    if not backends.has("nvidia.dali"):
        pytest.skip("DALI is not installed: pip install nvidia-dali-cuda130")
    made = {}
    yield lambda spec=SPEC: made.get(spec) or made.setdefault(spec, a_stage(spec))
    for stage in made.values():
        stage.close()


def by_dali(stage, blobs) -> list:
    """The pixels of each, or why there are none."""
    field = stage.submit({"image": blobs}, np.zeros(len(blobs), np.int64)).finish()["image"]
    return [field.errors.get(i, field.pixels[i].numpy()) for i in range(len(blobs))]


def by_stage(folder, blob, backend) -> "np.ndarray | str":
    """The pixels, or why there are none."""
    try:
        _, tensors = decoded(folder, [blob], {"image": FIELD}, decode=backend, dtype="uint8")
        return tensors["image"][0].permute(1, 2, 0).numpy()
    except SampleError as error:
        return str(error)


@pytest.fixture
def outcome(tmp_path, request):
    """outcome(backend, file): the pixels, or why there are none."""

    def of(backend, blob):
        if backend == "dali":
            return by_dali(request.getfixturevalue("make_dali")(), [blob])[0]
        return by_stage(tmp_path, blob, backend)

    return of


@needs_pillow_13
@pytest.mark.parametrize("backend", ["native", "dali"])
@pytest.mark.parametrize("name", odd())
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_an_odd_file_is_decoded_as_by_the_reference(outcome, name, backend):
    expected = reference([odd()[name]], FIELD, xflip=0.0)[0]
    got = outcome(backend, odd()[name])
    assert not isinstance(got, str), got
    off = np.abs(got.astype(int) - expected)
    if backend == "dali" and image_header(odd()[name]).upright != SIZE:
        assert off.mean() <= RESIZED_LEVELS
    else:
        assert off.max() == 0


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(65500, 1), (1, 65500), (65500, 2)])
def test_the_longest_images_are_decoded(tmp_path, make_dali, size, format):
    blob, field = encode(picture(*size), format), Image(size=8)
    expected = reference([blob], field, 0.0)
    for decode in ("native", "pillow"):
        _, tensors = decoded(tmp_path, [blob], {"image": field}, decode=decode, dtype="uint8")
        assert np.array_equal(tensors["image"].permute(0, 2, 3, 1), expected)
    got = by_dali(make_dali(ImageSpec(8, 8)), [blob])[0]
    assert np.abs(got.astype(int) - expected[0]).mean() <= RESIZED_LEVELS


def test_an_image_that_would_become_too_long_is_refused(outcome):
    """Before it is decoded: the sides of a resized image are limited, whatever the crop shows of it."""
    blob = encode(picture(65500, 1), "JPEG")
    for backend in BACKENDS:
        assert "would become 1506500 x 23 pixels; at most 1048576 a side" in outcome(backend, blob)


@needs_pillow_13
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", refused())
def test_a_damaged_file_is_refused_with_a_reason(outcome, name, backend):
    blob, reason = refused()[name]
    got = outcome(backend, blob)
    if backend == "dali" and name in DALI_FILLS_IN:
        assert not isinstance(got, str), "DALI has become stricter: take it from the list"
        return
    assert isinstance(got, str), "it was decoded"
    assert re.search(reason, got) and "\n" not in got


def test_odd_files_show_the_picture():
    """Against what they were made from, as the reference could be wrong in the same way as the others."""
    for name in ("png animated", "png without its end", "png with a text of 64 MB", "jpeg lossless rgb"):
        assert np.array_equal(decode_rgb(odd()[name]), picture()), name
    assert np.array_equal(decode_rgb(odd()["png interlaced"]), picture(7, 6))
    assert np.array_equal(decode_rgb(odd()["jpeg lossless gray"])[..., 0], picture()[..., 0])
    blocks = decode_rgb(odd()["jpeg of flat blocks"])[..., 0]
    assert np.array_equal(blocks[::8, ::8], picture(5, 3)[..., 0])
    whole = decode_rgb(pictures()["jpeg 420"])
    for name in ("two jpegs", "jpeg with a thumbnail", "jpeg without huffman tables", "jpeg and one byte"):
        assert np.array_equal(decode_rgb(odd()[name]), whole), name
    for name in ("jpeg arithmetic", "jpeg arithmetic progressive"):
        assert np.abs(decode_rgb(odd()[name]).astype(int) - picture()).mean() < 9, (
            name
        )  # of other pictures: over 30


def cuts(content: bytes) -> list[int]:
    """Every length in the first 700 bytes, where the headers are, and in the last 100; every 7th else."""
    size = len(content)
    return [n for n in range(size) if n < 700 or n > size - 100 or n % 7 == 0]


CUT = ["jpeg 420", "jpeg progressive", "png rgb", "gif", "webp lossy", "pgm"]
CUT_ALIKE = ["jpeg gray", "png palette", "bmp 8"]


@needs_pillow_13
@pytest.mark.parametrize("name", [*CUT, *(pytest.param(name, marks=pytest.mark.slow) for name in CUT_ALIKE)])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_file_cut_anywhere_is_refused_or_has_all_of_its_pixels(name, make_dali):
    content = pictures()[name]
    expected = decode_image(content, SPEC, SEED, 0).pixels
    whole_from = None  # how much of the file the reference needs
    for size in cuts(content):
        try:
            pixels = decode_image(content[:size], SPEC, SEED, 0).pixels
        except SampleError:
            assert whole_from is None, f"{size} bytes are refused, and {whole_from} are not"
            continue
        assert np.array_equal(pixels, expected), size
        whole_from = size if whole_from is None else whole_from
    lengths = cuts(content)
    for start in range(0, len(lengths), 256):
        part = lengths[start : start + 256]
        for size, got in zip(part, by_dali(make_dali(), [content[:size] for size in part]), strict=True):
            assert isinstance(got, str) == (whole_from is None or size < whole_from), size
            assert isinstance(got, str) or np.array_equal(got, expected), size


@pytest.mark.parametrize("name", ["jpeg 420", "jpeg progressive", "jpeg with restarts"])
def test_native_threads_refuse_a_jpeg_cut_anywhere(tmp_path, name):
    content = pictures()[name]
    for size in [*range(3, len(content), 29), len(content) - 2, len(content) - 1]:
        with pytest.raises(SampleError, match=r"cut|ends within its header"):
            decoded(tmp_path, [content[:size]], {"image": FIELD})


@needs_pillow_13
@pytest.mark.parametrize("count", [120, pytest.param(6000, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_bytes_changed_anywhere_in_a_jpeg_are_judged_alike(tmp_path, make_dali, count):
    """An error behind the last row is none to native threads, which stop there; DALI must survive it."""
    rng = np.random.default_rng(count)
    files = {**pictures(), **odd()}
    names = [name for name in files if "jpeg" in name and len(files[name]) < 10_000]
    for i in range(count):
        name = names[i % len(names)]
        damaged = bytearray(files[name])
        first = 2 if i % 3 == 0 else damaged.index(b"\xff\xda")  # headers are much of files this small
        for place in rng.integers(first, len(damaged), rng.integers(1, 4)):
            damaged[place] = rng.integers(0, 256)
        blob = bytes(damaged)
        if image_header(blob).width * image_header(blob).height > 1_000_000:
            continue  # a lie that would take long
        native, plain = (by_stage(tmp_path, blob, backend) for backend in ("native", "pillow"))
        by_dali(make_dali(), [blob])  # whatever comes of it: it must not end the process
        if isinstance(plain, str):
            assert isinstance(native, str) or "broken data stream" in plain, (name, i)
        else:
            assert np.array_equal(native, plain), (name, i)


def test_damage_below_the_rows_that_a_crop_needs_is_not_looked_for(tmp_path):
    """By native threads: the pixels that are asked for are right. The reference reads all of a file."""
    tall = encode(picture(40, 400), "JPEG")
    closed = tall[:-300] + END
    top = Image(size=40, crop=(0, 0), scaled=None)
    _, tensors = decoded(tmp_path, [closed], {"image": top}, dtype="uint8")
    assert np.array_equal(tensors["image"].permute(0, 2, 3, 1), reference([tall], top, 0.0))
    for field, decode in ((top, "pillow"), (Image(size=40, crop=(0, 360)), "native")):
        with pytest.raises(SampleError, match="premature end"):
            decoded(tmp_path, [closed], {"image": field}, decode=decode)


def test_arithmetic_codes_may_be_longer_than_pillow_reads_at_a_time():
    jpeg = odd()["jpeg arithmetic"]
    scan = jpeg.index(b"\xff\xda")
    padded = jpeg[:scan] + segment(0xFE, bytes(65536 - scan - 60)) + jpeg[scan:]
    assert np.array_equal(decode_rgb(padded), decode_rgb(jpeg))


def test_arithmetic_codes_that_are_cut_and_closed_pass():
    """They never run out, by their standard: a decoder goes on with zeros, and nothing warns."""
    decode_rgb(odd()["jpeg arithmetic"][:-60] + END)


def bombs() -> list[bytes]:
    """As decoded pixels they are 3 to 35 GB each."""
    side, webp, bmp = 65500, pictures()["webp lossy alpha"], pictures()["bmp 24"]
    return [
        with_size(pictures()["jpeg 420"], side, side),
        with_size(pictures()["jpeg progressive"], side, side),
        with_size(pictures()["jpeg cmyk"], side, side),
        png_of(side, side, b""),
        png_of(side, side, b"", kind=(16, 6, 1)),
        pictures()["gif"][:6] + struct.pack("<HH", side, side) + pictures()["gif"][10:],
        webp[:24] + b"\xff\xff\0\xff\xff\0" + webp[30:],
        bmp[:18] + struct.pack("<ii", side, side) + bmp[26:],
        b"P6 65500 65500 255\n" + bytes(99),
    ]


def test_a_bomb_is_refused_from_its_header_at_once_and_without_memory():
    """In a process of its own, so that the peak of memory is that of the bombs."""
    script = """
        import pathlib, pytest, resource, tempfile, time
        from tests.decode import test_odd_images as here

        def refuse(backend):
            if backend == "dali":
                stage = here.a_stage(here.SPEC)
                outcome = lambda blob: here.by_dali(stage, [blob])[0]
            else:
                folder = pathlib.Path(tempfile.mkdtemp())
                outcome = lambda blob: here.by_stage(folder, blob, backend)
            for name in ("jpeg 420", "png rgb"):
                assert not isinstance(outcome(here.pictures()[name]), str)
            blobs = here.bombs()
            before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
            for blob in blobs:
                assert "pixels are more than max_pixels" in outcome(blob), blob[:30]
            seconds = time.perf_counter() - begun
            kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert seconds < 2 and kibibytes < 50_000, (backend, seconds, kibibytes)

        refuse("native")
        refuse("pillow")
        if here.backends.has("nvidia.dali"):
            refuse("dali")
    """
    ran = preloaded.run(textwrap.dedent(script))
    assert ran.status == 0, ran.err[-2000:]


@pytest.mark.parametrize(
    "name", ["png with 99 texts of a MB", "bmp without its last padding", "jpeg and 300 markers of scans"]
)
def test_files_that_slow_down_or_confuse_dali_go_to_pillow(make_dali, name):
    """The last is taken for one of many scans, which Pillow finds out at its leisure."""
    content = {**odd(), "jpeg and 300 markers of scans": pictures()["jpeg 420"] + b"\xff\xda" * 300}[name]
    stage = make_dali()
    before = stage.stats.dali_samples, stage.stats.reruns
    got = by_dali(stage, [content])[0]
    assert (stage.stats.dali_samples, stage.stats.reruns) == before
    assert np.array_equal(got, decode_image(content, SPEC, SEED, 0).pixels)


@pytest.mark.slow
def test_a_progressive_jpeg_of_the_most_scans_and_pixels_is_bounded(tmp_path):
    """11 s; without the limit the 882 scans of the second take 35, and three channels would take 80."""
    side = int(DEFAULT_MAX_PIXELS**0.5)
    for scans in (256, 882):
        begun = time.perf_counter()
        try:
            decoded(tmp_path, [many_scans(side, scans)], {"image": FIELD})
        except SampleError as error:
            assert scans > 256 and "more than 256 scans" in str(error)
        assert time.perf_counter() - begun < 60
