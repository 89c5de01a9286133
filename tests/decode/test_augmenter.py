"""An augmenter in the decoder's threads gives what decoding to levels and augmenting those gives."""

import numpy as np
import pytest
import torch

from fastload import _native
from fastload.decode.backend import choose_backend
from fastload.decode.spec import ImageSpec
from fastload.fields import Image
from fastload.ops.fused.augment_params import AugmentParams, Stage
from tests import corpus
from tests.decode.test_images import SEED, read

RULE = (255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PLAIN = (255.0, (0.0,) * 3, (1.0,) * 3)
NUMPY = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16, "uint8": np.uint8}
SIZES = [(40, 64), (33, 47)]
DECODER = _native.ImageDecoder(2)
choose_backend("native")  # finds libjpeg


def drawn(n):
    """All stages, the first image flipped only, without a warp."""
    generator = torch.Generator().manual_seed(1)
    G_inv = torch.eye(3) + torch.rand((n, 3, 3), generator=generator) - 0.5
    G_inv[0] = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))
    return AugmentParams(
        G_inv=G_inv,
        jitter=torch.rand((n, 4), generator=generator) * 1.5,
        C=torch.eye(4) + torch.rand((n, 4, 4), generator=generator) / 4,
        hsv=torch.rand((n, 2), generator=generator) * 2,
        cut_size=torch.full((n,), 0.5),
        cut_center=torch.rand((n, 2), generator=generator),
    )


def augmenter(params, n, size, dtype="float32", channels_last=False, nearest=False):
    rule = PLAIN if dtype == "uint8" else RULE
    rows, stages = params.rows(n, "cpu").numpy(), int(params.stages)
    return _native.Augmenter(
        rows, stages, *rule, nearest, getattr(_native.Dtype, dtype), channels_last, *size
    )


def augmented(levels, params, dtype="float32", channels_last=False, nearest=False):
    """`_native.augment` of levels [N, 3, H, W]."""
    images = levels.transpose(0, 2, 3, 1)
    out = np.empty(images.shape if channels_last else levels.shape, NUMPY[dtype])
    rule = PLAIN if dtype == "uint8" else RULE
    rows, stages = params.rows(len(levels), "cpu").numpy(), int(params.stages)
    threads = _native.AugmentThreads(1)
    dtype = getattr(_native.Dtype, dtype)
    _native.augment(images, rows, stages, *rule, nearest, out, dtype, channels_last, threads)
    return out


def decoded(tmp_path, blobs, size, out, augmenter=None):
    """`out` [N, ...] filled by the native threads."""
    native = ImageSpec.of(Image(size=size), xflip=0.5).native
    writer = _native.PixelWriter(_native.Dtype.uint8, False, *size, *PLAIN)
    extra = {} if augmenter is None else {"augmenter": augmenter}
    request = _native.ImageFieldRequest(native, 0, 0, writer, memoryview(out).cast("B"), **extra)
    pending = DECODER.submit(read(tmp_path, blobs), [request], SEED, np.arange(len(blobs)), 1 << 30)
    assert pending.wait(20)
    assert not np.any(pending.status)
    return out


@pytest.fixture(scope="module")
def blobs():
    return list(corpus.photos().values())[:5]


@pytest.mark.parametrize("channels_last", [False, True], ids=["nchw", "channels_last"])
@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_decoding_with_an_augmenter_is_decoding_then_augmenting(tmp_path, blobs, size, dtype, channels_last):
    n, params = len(blobs), drawn(len(blobs))
    levels = decoded(tmp_path, blobs, size, np.empty((n, 3, *size), np.uint8))
    expected = augmented(levels, params, dtype, channels_last)
    with_augmenter = augmenter(params, n, size, dtype, channels_last)
    assert with_augmenter.sample_bytes == expected[0].nbytes and with_augmenter.samples == n
    result = decoded(tmp_path, blobs, size, np.empty_like(expected), with_augmenter)
    assert np.array_equal(result, expected)


@pytest.mark.parametrize("nearest", [False, True])
def test_the_filter_is_the_augmenters(tmp_path, blobs, nearest):
    n, size, params = len(blobs), (40, 64), drawn(len(blobs))
    levels = decoded(tmp_path, blobs, size, np.empty((n, 3, *size), np.uint8))
    out = np.empty(levels.shape, np.float32)
    result = decoded(tmp_path, blobs, size, out, augmenter(params, n, size, nearest=nearest))
    assert np.array_equal(result, augmented(levels, params, nearest=nearest))
    assert not np.array_equal(result, augmented(levels, params, nearest=not nearest))


@pytest.mark.parametrize("channels_last", [False, True], ids=["nchw", "channels_last"])
@pytest.mark.parametrize("dtype", NUMPY)
def test_write_does_the_same_for_an_image_that_is_decoded_already(dtype, channels_last):
    levels = np.random.default_rng(0).integers(0, 256, (3, 3, 33, 47), dtype=np.uint8)
    params = drawn(3)
    expected = augmented(levels, params, dtype, channels_last)
    one = augmenter(params, 3, (33, 47), dtype, channels_last)
    out = np.empty_like(expected)
    for sample in (2, 0, 1):
        one.write(np.ascontiguousarray(levels[sample].transpose(1, 2, 0)), sample, out)
    assert np.array_equal(out, expected)


def test_uint8_pixels_pass_through_the_writer_unchanged_in_both_layouts(tmp_path, blobs):
    size = (40, 64)
    planes = decoded(tmp_path, blobs, size, np.empty((len(blobs), 3, *size), np.uint8))
    image = np.ascontiguousarray(planes[0].transpose(1, 2, 0))
    view = ((0.0, 0.0, 64.0, 40.0), (64, 40), (0, 0, 64, 40), False, 0)
    for channels_last in (False, True):
        writer = _native.PixelWriter(_native.Dtype.uint8, channels_last, *size, *PLAIN)
        out = np.zeros(image.size, np.uint8)
        _native.write_image(image, *view, writer, out, 0)
        expected = image if channels_last else planes[0]
        assert np.array_equal(out, expected.ravel())


def test_an_augmenter_that_does_not_fit_the_batch_is_refused(tmp_path, blobs):
    n, size = len(blobs), (40, 64)
    out = np.empty((n, 3, *size), np.float32)
    for match, bad in [
        ("a row for each sample", augmenter(drawn(n - 1), n - 1, size)),
        ("a row for each sample", augmenter(drawn(n + 1), n + 1, size)),
        ("one size", augmenter(drawn(n), n, (64, 40))),
    ]:
        with pytest.raises(ValueError, match=match):
            decoded(tmp_path, blobs, size, out, bad)
    with pytest.raises(ValueError, match="too small"):
        decoded(tmp_path, blobs, size, np.empty((n, 3, *size), np.float16), augmenter(drawn(n), n, size))


def test_write_refuses_arguments_that_do_not_match():
    one, levels = augmenter(drawn(2), 2, (4, 5)), np.zeros((4, 5, 3), np.uint8)
    out = np.zeros((2, 3, 4, 5), np.float32)
    frozen = out.copy()
    frozen.flags.writeable = False
    for match, arguments in [
        ("augmenter's size", (np.zeros((5, 4, 3), np.uint8), 0, out)),
        ("augmenter's size", (np.zeros((4, 5, 1), np.uint8), 0, out)),
        ("number of rows", (levels, 2, out)),
        ("out is too small", (levels, 1, out[:1])),
        ("contiguous", (levels, 0, np.zeros((2, 3, 4, 10), np.float32)[..., ::2])),
        ("aligned", (levels, 0, np.zeros(481, np.uint8)[1:])),
        ("read-?only", (levels, 0, frozen)),
    ]:
        with pytest.raises((ValueError, BufferError), match=match):
            one.write(*arguments)
    with pytest.raises(TypeError):
        one.write(levels.astype(np.float32), 0, out)


def test_an_augmenter_refuses_rows_and_sizes_that_mean_nothing():
    rows = drawn(2).rows(2, "cpu").numpy()
    rows[1, 0] = np.nan
    fine = (*RULE, False, _native.Dtype.float32, False)
    with pytest.raises(ValueError, match="row 1: G_inv"):
        _native.Augmenter(rows, int(Stage.WARP), *fine, 4, 5)
    for size in [(0, 5), (4, 1 << 24), (1 << 16, 1 << 16)]:
        with pytest.raises(ValueError, match="2\\^"):
            _native.Augmenter(rows, 0, *fine, *size)
    with pytest.raises(ValueError, match="above 0"):
        _native.Augmenter(rows, 0, 255.0, (0.0,) * 3, (1.0, 0.0, 1.0), *fine[3:], 4, 5)
