"""JPEGs that lack what they need are damaged, or are decoded as Pillow has it, whatever came before them.

tests/fuzz/fuzz_jpeg.cpp found both: a decoder that kept the tables of its last image, and files that are cut
below the crop, which some instruction sets took.
"""

import numpy as np
import pytest

from fastload.errors import SampleError
from fastload.fields import Image
from tests import corpus
from tests.decode.test_images import decoded, reference

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
