"""The pixels of whole batches against a plain reference of Pillow and NumPy, bit for bit.

The reference is written here from the documented rules, not taken from the package: open, turn upright, scale
the short side, cut out the middle, flip by the dice, (float32(v) / divisor - mean) / std, cast.
"""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import fastload as fl
from fastload import rng
from fastload.decode.pillow import decode_image
from fastload.decode.spec import ImageSpec
from tests import corpus
from tests.loader.samples import jpeg, write

SIZE = (9, 7)  # height, width
N = 23
DECODERS = ("native", "pillow")
PRESETS = {
    "gan": (127.5, 1.0, 1.0),
    "diffusion": (127.5, 1.0, 1.0),
    "vae": (255.0, 0.0, 1.0),
    "imagenet": (255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def reference_levels(content: bytes, flip: bool, size=SIZE, filter=Image.Resampling.BICUBIC) -> np.ndarray:
    """[height, width, 3] uint8: short side resized, middle cropped, flipped."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    (height, width), (w, h) = size, image.size
    if width * h >= height * w:
        resized = width, max(height, round(h * (width / w)))
    else:
        resized = max(width, round(w * (height / h))), height
    left, top = (resized[0] - width) // 2, (resized[1] - height) // 2
    levels = np.asarray(image.resize(resized, filter))[top : top + height, left : left + width]
    return levels[:, ::-1] if flip else levels


def flips(positions, xflip: float, seed: int = 0) -> np.ndarray:
    return rng.uniforms(seed, np.asarray(positions), rng.Purpose.XFLIP)[:, 0] < xflip


def reference_images(levels: np.ndarray, preset: str, dtype: str) -> torch.Tensor:
    """[N, 3, height, width] of [N, height, width, 3] uint8."""
    levels = np.ascontiguousarray(levels.transpose(0, 3, 1, 2))
    if dtype == "uint8":
        return torch.from_numpy(levels)
    divisor, mean, std = (np.broadcast_to(np.float32(c), 3).reshape(3, 1, 1) for c in PRESETS[preset])
    images = (levels.astype(np.float32) / divisor - mean) / std
    if dtype == "float16":
        return torch.from_numpy(images.astype(np.float16))
    return torch.from_numpy(images).to(getattr(torch, dtype))  # NumPy has no bfloat16


@pytest.fixture(scope="module")
def stored_in_order(shards) -> np.ndarray:
    """The reference levels of samples 0..22 at positions 0..22, flipped with probability 0.5."""
    flipped = flips(np.arange(N), 0.5)
    assert 3 < flipped.sum() < 20
    return np.stack([reference_levels(jpeg(i), bool(flipped[i])) for i in range(N)])


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8"])
@pytest.mark.parametrize("decode", DECODERS)
def test_every_dtype_layout_and_preset_is_the_references_bits(shards, stored_in_order, decode, dtype, layout):
    fields = {preset: fl.Image(size=SIZE, scaled=None, normalize=preset) for preset in PRESETS}
    loader = fl.Loader(
        shards,
        N,
        fields,
        augment=fl.Augment(xflip=0.5),
        shuffle=False,
        dtype=dtype,
        layout=layout,
        decode=decode,
    )
    (batch,) = loader
    memory = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    for preset in PRESETS:
        images = batch[preset]
        assert (images.shape, images.dtype) == ((N, 3, *SIZE), getattr(torch, dtype))
        assert images.is_contiguous(memory_format=memory)
        assert torch.equal(images, reference_images(stored_in_order, preset, dtype)), preset


@pytest.mark.parametrize("decode", DECODERS)
def test_a_shuffled_second_epoch_flips_by_position_not_by_sample(shards, decode):
    loader = fl.Loader(
        shards,
        5,
        {"image": fl.Image(size=SIZE, scaled=None), "label": fl.Int()},
        augment=fl.Augment(xflip=0.5),
        dtype="uint8",
        seed=7,
        last="partial",
        decode=decode,
    )
    loader.set_epoch(1)
    for batch in loader:
        flipped = flips(batch["__position__"].numpy(), 0.5, seed=7)
        expected = [
            reference_levels(jpeg(i), bool(flip))
            for i, flip in zip(batch["label"].tolist(), flipped, strict=True)
        ]
        assert torch.equal(batch["image"], reference_images(np.stack(expected), "", "uint8"))


@pytest.mark.parametrize("filter", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("decode", DECODERS)
def test_real_photos_are_the_references_bits(photo_shards, decode, filter):
    loader = fl.Loader(
        photo_shards,
        4,
        {"image": fl.Image(size=64, scaled=None, filter=filter)},
        shuffle=False,
        dtype="uint8",
        decode=decode,
    )
    photos, resampling = corpus.photos(), getattr(Image.Resampling, filter.upper())
    for batch in loader:
        for key, image in zip(batch["__key__"], batch["image"], strict=True):
            expected = reference_levels(photos[f"{key}.jpg"], False, (64, 64), resampling)
            assert np.array_equal(image.permute(1, 2, 0).numpy(), expected), key


@pytest.mark.parametrize(
    "arguments",
    [
        {"scaled": "half"},
        {"scaled": "full"},
        {"resize": "exact"},
        {"resize": "random"},
        {"crop": "random"},
        {"crop": (0, 0)},
    ],
    ids=str,
)
def test_both_decoders_keep_to_the_spec(photo_shards, arguments):
    field = fl.Image(size=(40, 48), **arguments)
    photos = corpus.photos()
    expected = None
    for decode in DECODERS:
        loader = fl.Loader(
            photo_shards,
            5,
            {"image": field},
            augment=fl.Augment(xflip=0.5),
            seed=3,
            dtype="uint8",
            decode=decode,
        )
        batch = next(iter(loader))
        if expected is None:
            spec = ImageSpec.of(field, xflip=0.5)
            where = zip(batch["__key__"], batch["__position__"].tolist(), strict=True)
            expected = np.stack([decode_image(photos[f"{key}.jpg"], spec, 3, p).pixels for key, p in where])
        assert torch.equal(batch["image"], reference_images(expected, "", "uint8")), decode


def test_simplejpeg_stands_in_where_no_libjpeg_can_be_loaded(photo_shards, monkeypatch):
    from fastload import _native

    field = {"image": fl.Image(size=(40, 48)), "exact": fl.Image(size=(40, 48), scaled=None)}
    usual = next(iter(fl.Loader(photo_shards, 5, field, augment=fl.Augment(xflip=0.5))))
    monkeypatch.setattr(_native, "load_jpeg_library", lambda paths: (None, 0, "libjpeg.so: not here"))
    loader = fl.Loader(photo_shards, 5, field, augment=fl.Augment(xflip=0.5))
    assert "simplejpeg" in repr(loader) and "libjpeg.so: not here" in repr(loader)
    batch = next(iter(loader))
    for name in field:  # its libjpeg-turbo is another build: rounding of the last level may differ
        assert (batch[name] - usual[name]).abs().max() <= 2 / 127.5


MIXED = {
    "exif-6": lambda picture: corpus.encode(picture, "JPEG", 6, quality=95),
    "exif-3": lambda picture: corpus.encode(picture, "JPEG", 3),
    "gray": lambda picture: corpus.encode(picture[..., 0], "JPEG"),
    "progressive": lambda picture: corpus.encode(picture, "JPEG", progressive=True),
    "cmyk": lambda picture: corpus.encode(Image.fromarray(picture).convert("CMYK"), "JPEG"),
    "png": lambda picture: corpus.encode(picture, "PNG"),
    "webp": lambda picture: corpus.encode(picture, "WEBP", lossless=True),
    "gif": lambda picture: corpus.encode(Image.fromarray(picture).quantize(31), "GIF"),
    "bmp": lambda picture: corpus.encode(picture, "BMP"),
    "tiff": lambda picture: corpus.encode(picture, "TIFF"),
    "jpeg": lambda picture: corpus.encode(picture, "JPEG"),
}


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("decode", DECODERS)
def test_formats_mix_in_one_batch_whatever_they_are_called(tmp_path, decode, dtype):
    files = {name: make(corpus.picture(seed=i)) for i, (name, make) in enumerate(MIXED.items())}
    write(tmp_path, ({"__key__": name, "jpg": content} for name, content in files.items()))
    fields = {"image": fl.Image(size=SIZE)}
    loader = fl.Loader(str(tmp_path), 4, fields, shuffle=False, dtype=dtype, decode=decode, last="partial")
    seen = []
    for batch in loader:
        expected = np.stack([reference_levels(files[key], False) for key in batch["__key__"]])
        assert torch.equal(batch["image"], reference_images(expected, "gan", dtype))
        seen += batch["__key__"]
    assert seen == list(MIXED)


def test_a_dataset_without_any_jpeg_is_decoded_too(tmp_path):
    files = {f"{i}": corpus.encode(corpus.picture(seed=i), "PNG") for i in range(9)}
    write(tmp_path, ({"__key__": name, "png": content} for name, content in files.items()))
    for batch in fl.Loader(str(tmp_path), 3, {"image": fl.Image(size=SIZE)}, dtype="uint8", epochs=2):
        expected = np.stack([reference_levels(files[key], False) for key in batch["__key__"]])
        assert torch.equal(batch["image"], reference_images(expected, "", "uint8"))


def test_torch_dtypes_are_accepted(shards):
    batch = next(iter(fl.Loader(shards, 2, {"image": fl.Image(size=8)}, dtype=torch.bfloat16)))
    assert batch["image"].dtype == torch.bfloat16


def test_denormalize_gives_the_levels_back(shards, stored_in_order):
    for preset in PRESETS:
        (batch,) = fl.Loader(
            shards,
            N,
            {"image": fl.Image(size=SIZE, scaled=None)},
            normalize=preset,
            augment=fl.Augment(xflip=0.5),
            shuffle=False,
            dtype="bfloat16",
        )
        levels = fl.denormalize(batch["image"], preset)
        assert torch.equal(levels, reference_images(stored_in_order, "", "uint8"))
