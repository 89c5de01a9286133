"""Augmented batches are what `Augment` makes of the loader's levels, on every route, by position."""

import warnings

import numpy as np
import pytest
import torch

import fastload as fl
from fastload import backends
from fastload.decode.backend import choose_backend
from fastload.errors import BackendError, ConfigError
from tests import corpus
from tests.loader.samples import jpeg, sample, write

SIZE, SEED = (13, 17), 5  # height, width
COLORS = {"color_jitter": (0.4, 0.4, 0.4, 0.1), "brightness": 0.1, "hsv": (0.05, 0.3), "cutout": (0.5, 0.4)}
WARP = {"rotate": 15, "scale": (0.9, 1.2), "translate": 0.1}
STRENGTHS = {
    "flips": {"xflip": 0.5, "yflip": 0.5},
    "colors": {"xflip": 0.5, **COLORS},
    "all": {"xflip": 0.5, "yflip": 0.5, **WARP, **COLORS},
}
needs_dali = pytest.mark.skipif(not backends.has("nvidia.dali"), reason="DALI is not installed")
DECODERS = ["native", "pillow", pytest.param("dali", marks=needs_dali)]
# Of [-1, 1]; float32 against float64, and colours near gray (see fused_augment.py).
TOLERANCE = {"flips": 1e-5, "colors": 5e-5, "all": 3e-4}


def loader(source, batch_size=5, size=SIZE, augment=None, **arguments) -> fl.Loader:
    arguments.setdefault("fields", {"image": fl.Image(size=size, resize="exact"), "label": fl.Int("cls")})
    arguments.setdefault("device", "cpu")
    return fl.Loader(source, batch_size, seed=SEED, augment=augment, last="partial", **arguments)


def by_position(batches, name="image") -> dict[int, torch.Tensor]:
    """position -> the sample's tensor."""
    found = {}
    for batch in batches:
        found |= dict(zip(batch["__position__"].tolist(), batch[name].float(), strict=True))
    return found


def largest_difference(one: dict, other: dict) -> float:
    assert one.keys() == other.keys()
    return max(float((one[key] - other[key]).abs().max()) for key in one)


def expected_of(source, strengths: dict, decode: str, **arguments) -> dict[int, torch.Tensor]:
    """The float64 reference of the loader's own levels, which are not flipped."""
    found = {}
    augment = fl.Augment(**strengths)
    for batch in loader(source, decode=decode, dtype="uint8", **arguments):
        how = {"normalize": "gan", "dtype": "float64", "impl": "reference"}
        images = augment(batch["image"], batch["__position__"], SEED, **how)
        found |= dict(zip(batch["__position__"].tolist(), images, strict=True))
    return found


@pytest.mark.parametrize("strengths", STRENGTHS)
@pytest.mark.parametrize("decode", DECODERS)
def test_a_batch_is_the_reference_of_its_levels(shards, decode, strengths):
    made = by_position(loader(shards, decode=decode, augment=fl.Augment(**STRENGTHS[strengths])))
    expected = expected_of(shards, STRENGTHS[strengths], decode)
    assert len(made) == 23
    assert largest_difference(made, expected) < TOLERANCE[strengths]
    plain = by_position(loader(shards, decode=decode))
    assert largest_difference(made, plain) > 0.1


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("dtype, tolerance", [("float16", 1e-3), ("bfloat16", 8e-3), ("uint8", 1)])
@pytest.mark.parametrize("decode", DECODERS)
def test_every_dtype_and_layout(shards, decode, dtype, tolerance, layout):
    augment = fl.Augment(**STRENGTHS["all"])
    how = {"decode": decode, "augment": augment, "dtype": dtype, "layout": layout}
    batch = next(iter(loader(shards, **how)))["image"]
    assert (batch.shape, batch.dtype) == ((5, 3, *SIZE), getattr(torch, dtype))
    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    assert batch.is_contiguous(memory_format=form)
    whole = next(
        iter(loader(shards, decode=decode, augment=augment, normalize="vae" if dtype == "uint8" else "gan"))
    )
    scale = 255 if dtype == "uint8" else 1
    assert (batch.float() - whole["image"] * scale).abs().max() <= tolerance + 1e-3


@pytest.mark.parametrize("decode", DECODERS)
def test_a_position_has_the_same_pixels_in_any_batch_and_on_any_rank(shards, decode):
    augment = fl.Augment(**STRENGTHS["all"])
    whole = by_position(loader(shards, 23, decode=decode, augment=augment))
    small = by_position(loader(shards, 3, decode=decode, augment=augment, threads=1, prefetch=1))
    ranks = {}
    for rank in range(2):
        ranks |= by_position(loader(shards, 2, decode=decode, augment=augment, rank=rank, world_size=2))
    assert largest_difference(whole, small) == 0
    assert len(ranks) == 22  # of 23, "partial" leaves one to nobody
    assert all(torch.equal(ranks[position], whole[position]) for position in ranks)


def test_native_and_pillow_agree_where_their_levels_do(shards):
    augment = fl.Augment(**STRENGTHS["all"])
    fields = {"image": fl.Image(size=SIZE, scaled=None)}
    native, pillow = (
        by_position(loader(shards, decode=decode, augment=augment, fields=fields))
        for decode in ("native", "pillow")
    )
    assert largest_difference(native, pillow) < TOLERANCE["all"]


@pytest.mark.parametrize("decode", DECODERS)
def test_other_formats_and_stand_ins_are_augmented_in_the_same_batch(tmp_path, decode):
    samples = [sample(i) for i in range(6)]
    picture = corpus.picture(31, 27, 4)
    samples[1] = {"__key__": "00001", "gif": corpus.encode(picture, "GIF"), "cls": 1, "txt": ""}
    samples[2] = {"__key__": "00002", "png": corpus.encode(picture, "PNG"), "cls": 2, "txt": ""}
    samples[4] = {"__key__": "00004", "cls": 4, "txt": ""}
    paths = write(tmp_path, samples)
    fields = {"image": fl.Image(size=SIZE, resize="exact", default=(200, 10, 60))}
    made = by_position(loader(paths, decode=decode, fields=fields, augment=fl.Augment(**STRENGTHS["all"])))
    expected = expected_of(paths, STRENGTHS["all"], decode, fields=fields)
    assert largest_difference(made, expected) < TOLERANCE["all"]


@pytest.mark.parametrize("decode", DECODERS)
def test_a_mask_is_warped_with_its_picture_and_keeps_its_values(tmp_path, decode):
    paths = []
    levels = np.zeros((40, 52, 3), np.uint8)
    levels[:20, :26], levels[20:, 26:] = 90, 200
    for i in range(4):
        mask = corpus.encode(levels, "PNG")
        paths.append({"__key__": f"{i}", "jpg": jpeg(i, 52, 40), "mask.png": mask})
    source = write(tmp_path, paths)
    fields = {
        "image": fl.Image("jpg", size=SIZE),
        "mask": fl.Image("mask.png", like="image", filter="nearest"),
    }
    augment = fl.Augment(**STRENGTHS["all"])
    how = {"decode": decode, "fields": fields, "dtype": "uint8"}
    batch = next(iter(loader(source, 4, augment=augment, **how)))
    plain = next(iter(loader(source, 4, **how)))
    assert set(batch["mask"].unique().tolist()) <= {0, 90, 200}
    warp = fl.Augment(
        **{name: STRENGTHS["all"][name] for name in ("xflip", "yflip", "rotate", "scale", "translate")}
    )
    params = warp.draw(batch["__position__"], SEED, *SIZE)
    pixels = plain["mask"].permute(0, 2, 3, 1)
    expected = fl.ops.fused_augment(pixels, params, filter="nearest", impl="reference")
    # A place that lies between two pixels may go either way in float32.
    assert (batch["mask"] != expected).float().mean() < 0.01


def test_mixup_and_cutmix_give_both_labels_and_the_share(shards):
    augment = fl.Augment(xflip=0.5, mixup=0.4, cutmix=1.0)
    plain = loader(shards, 6, augment=fl.Augment(xflip=0.5))
    for batch, alone in zip(loader(shards, 6, augment=augment), plain, strict=True):
        mixed = augment.mix(alone["image"], alone["label"], batch["__position__"], SEED)
        assert torch.allclose(batch["image"], mixed.images, atol=1e-6)
        assert torch.equal(batch["label"], alone["label"])
        assert torch.equal(batch["label.mixed"], alone["label"].roll(1, 0))
        assert torch.equal(batch["__lambda__"], mixed.share)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"augment": {"xflip": 0.5}}, "augment must be an fl.Augment"),
        ({"augment": fl.Augment(mixup=1), "dtype": "uint8"}, 'need a float dtype, got dtype="uint8"'),
        (
            {
                "augment": fl.Augment(cutmix=1),
                "fields": {"image": fl.Image(size=8), "mask": fl.Image("png", like="image")},
            },
            r"fields\['mask'\] is a mask",
        ),
        ({"augment": fl.Augment(cutmix=1), "fields": {"label": fl.Int()}}, "need an image field"),
        ({"deterministic": "yes"}, "deterministic must be .*, got 'yes'"),
        ({"hw_decoder_load": 0.5}, "use 0 or 1, or deterministic=False"),
        (
            {"hw_decoder_load": 2, "deterministic": False},
            r"hw_decoder_load must be .* in \[0, 1\], got 2",
        ),
        ({"decode": "cv2"}, "decode must be .*, got 'cv2'"),
        ({"hw_decoder_load": 1, "decode": "native"}, 'needs decode="dali", got decode="native"'),
        (
            {
                "augment": fl.Augment(mixup=1),
                "fields": {"image": fl.Image(size=8), "a": fl.Int(), "a.mixed": fl.Int("x")},
            },
            "mixup and cutmix add the entry 'a.mixed'",
        ),
    ],
)
def test_what_has_no_meaning_is_refused_at_once(shards, arguments, message):
    with pytest.raises(ConfigError, match=message):
        loader(shards, **arguments)


def test_dali_that_is_missing_is_named_with_its_extra(shards, monkeypatch):
    monkeypatch.setattr("fastload.backends.has", lambda name: name != "nvidia.dali")
    with pytest.raises(
        BackendError, match=r'NVIDIA DALI, which is not installed: pip install "fastload\[cu13\]"'
    ):
        next(iter(loader(shards, decode="dali")))
    assert "impossible here" in repr(loader(shards, decode="dali"))


def test_auto_is_dali_for_a_gpu_and_native_for_a_cpu(monkeypatch):
    monkeypatch.setattr("fastload.backends.has", lambda name: True)
    assert choose_backend("auto", "cuda").name == "dali"
    assert choose_backend("auto", "cpu").name == "native"
    assert choose_backend("native", "cuda").name == "native"
    monkeypatch.setattr("fastload.backends.has", lambda name: False)
    with pytest.raises(
        BackendError, match=r'decode="auto" for device="cuda" needs NVIDIA DALI.*fastload\[cu13\]'
    ):
        choose_backend("auto", "cuda")


def test_an_augmentation_of_another_strength_is_told_when_a_checkpoint_is_resumed(shards):
    saved = loader(shards, augment=fl.Augment(rotate=5)).state_dict()
    other = loader(shards, augment=fl.Augment(rotate=6))
    other.load_state_dict(saved)
    with pytest.warns(UserWarning, match="augment"):
        next(iter(other))
    same = loader(shards, augment=fl.Augment(rotate=5))
    same.load_state_dict(saved)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        next(iter(same))
