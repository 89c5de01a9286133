"""JPEGs that lack what they need are damaged, or are decoded as Pillow has it, whatever came before them.

tests/fuzz/fuzz_jpeg.cpp found both: a decoder that kept the tables of its last image, and files that are cut
below the crop, which some instruction sets took.
"""

import itertools

import numpy as np
import pytest

from fastload import _native
from fastload.errors import SampleError
from fastload.fields import Image
from tests import corpus
from tests.decode.test_images import decoded, reference
from tests.decode.test_jpeg_planes import runs_here
from tests.decode.test_resize import INSTRUCTION_SETS
from tests.quick import slow_but

FIELD = Image(size=(20, 30), resize="exact")
TABLES = {"huffman": 0xC4, "quantization": 0xDB}


def without_segments(jpeg: bytes, marker: int) -> bytes:
    """The file without the segments of this marker."""
    at, out = 2, jpeg[:2]
    while jpeg[at + 1] != 0xDA:
        stop = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if jpeg[at + 1] != marker:
            out += jpeg[at:stop]
        at = stop
    return out + jpeg[at:]


def test_a_file_without_huffman_tables_has_the_usual_ones_and_not_those_of_the_image_before(tmp_path):
    # as in the frames of a Motion JPEG
    bare = without_segments(corpus.encode(corpus.picture(), "JPEG"), TABLES["huffman"])
    others = [corpus.encode(corpus.picture(seed=i), "JPEG", optimize=True, quality=20 + i) for i in range(8)]
    blobs = [blob for other in others for blob in (other, bare)]
    _, tensors = decoded(tmp_path, blobs, {"image": FIELD}, dtype="uint8")
    assert np.array_equal(tensors["image"].permute(0, 2, 3, 1), reference(blobs, FIELD, xflip=0.0))


def test_a_file_without_quantization_tables_is_damaged_whatever_came_before(tmp_path):
    bare = without_segments(corpus.encode(corpus.picture(), "JPEG"), TABLES["quantization"])
    for before in ([], [corpus.pictures()["jpeg 420"]] * 8):
        with pytest.raises(SampleError, match=r"[Qq]uantization table"):
            decoded(tmp_path, [*before, bare], {"image": FIELD}, dtype="uint8")


@pytest.mark.parametrize("missing_bytes", [1, 2, 20, 200])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_file_that_is_cut_below_its_crop_is_damaged_as_pillow_has_it(tmp_path, progressive, missing_bytes):
    whole = corpus.encode(corpus.picture(150, 100), "JPEG", progressive=progressive)
    top = Image(size=(20, 80), crop=(0, 0))
    decoded(tmp_path, [whole, whole + b"trailing"], {"image": top}, dtype="uint8")
    with pytest.raises(SampleError, match="no end marker"):
        reference([whole[:-missing_bytes]], top)
    with pytest.raises(SampleError, match="cut"):
        decoded(tmp_path, [whole[:-missing_bytes]], {"image": top}, dtype="uint8")


def with_a_wrong_restart(jpeg: bytes) -> list[bytes]:
    """Copies with one restart marker out of turn, each another one: damage that begins at a known row."""
    start = jpeg.index(b"\xff\xda") + 14
    places = [i for i in range(start, len(jpeg) - 1) if jpeg[i] == 0xFF and 0xD0 <= jpeg[i + 1] <= 0xD7]
    return [jpeg[: i + 1] + bytes([0xD0 + (jpeg[i + 1] + 4) % 8]) + jpeg[i + 2 :] for i in places]


WAYS = list(itertools.product([True, False], [0, 1, 2]))


@pytest.mark.parametrize(
    "halved, subsampling", slow_but([(True, 2), (True, 1), (False, 2), (False, 0)], WAYS)
)
def test_whether_a_file_is_damaged_depends_on_no_instruction_set(tmp_path, subsampling, halved):
    """Each way through a JPEG reads as far below its crop as every other."""
    noise = np.random.default_rng(0).integers(0, 255, (192, 64, 3), np.uint8)
    jpeg = corpus.encode(noise, "JPEG", quality=80, subsampling=subsampling, restart_marker_rows=1)
    mcu_rows = 16 if subsampling == 2 else 8
    seen = set()
    try:
        for stop in range(60, 100, 2):  # rows of the image that the crop needs, more or less
            size = (stop // 2, 32) if halved else (stop, 64)
            field = Image(size=size, crop=(0, 0), scaled=None)
            for number, blob in enumerate(with_a_wrong_restart(jpeg)):
                if abs((number + 1) * mcu_rows - stop) > 20:
                    continue
                outcomes = {}
                for kernels in filter(runs_here, INSTRUCTION_SETS):
                    _native.use_pixel_kernels(kernels)
                    try:
                        decoded(tmp_path, [blob], {"image": field}, dtype="uint8")
                        outcomes[kernels] = "whole"
                    except SampleError:
                        outcomes[kernels] = "damaged"
                assert len(set(outcomes.values())) == 1, (stop, number, outcomes)
                seen |= set(outcomes.values())
    finally:
        _native.use_pixel_kernels("")
    assert seen == {"whole", "damaged"}
