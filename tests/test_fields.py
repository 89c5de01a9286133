"""Fields are judged when they are written, in one line that says the way out."""

import copy
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from fastload.errors import ConfigError
from fastload.fields import REQUIRED, Bytes, Custom, Image, Int, Json, Tensor, Text


@pytest.mark.parametrize(
    "size, kept", [(1, (1, 1)), (256, (256, 256)), ((3, 5), (3, 5)), (65535, (65535, 65535))]
)
def test_a_size_is_kept_as_height_and_width(size, kept):
    assert Image(size=size).size == kept


def test_sizes_may_come_from_numpy_or_as_a_list():
    assert Image(size=np.int64(64)).size == (64, 64)
    assert Image(size=[32, 48]).size == (32, 48)
    assert type(Image(size=np.int64(64)).size[0]) is int


@pytest.mark.parametrize("size", [0, -1, (0, 8), (8, 0), 65536, 2.5, "256", True, (1, 2, 3), ()])
def test_a_size_that_is_none_is_refused_with_the_way_out(size):
    with pytest.raises(ConfigError, match=r"Image\(size=.*size=256"):
        Image(size=size)


@pytest.mark.parametrize(
    "wrong",
    [
        {"resize": "long"},
        {"resize": 0},
        {"resize": -8},
        {"resize": 65536},
        {"resize": True},
        {"resize": 8.0},
        {"resize": (8, 8)},
        {"resize": None},
        {"crop": "centre"},
        {"crop": (-1, 0)},
        {"crop": (1.5, 0)},
        {"crop": (1, 2, 3)},
        {"filter": "box"},
        {"scaled": "quarter"},
        {"scaled": True},
        {"scale": (0.0, 1.0)},
        {"scale": (0.5, 1.1)},
        {"scale": (0.9, 0.5)},
        {"scale": 0.5},
        {"scale": (float("nan"), 1.0)},
        {"ratio": (0.5, float("inf"))},
        {"ratio": (-1, 1)},
        {"normalize": 3},
        {"normalize": (1, 2, 3)},
        {"report": "yes"},
        {"like": ""},
        {"like": 3},
        {"default": 256},
        {"default": (0, 0)},
        {"default": "black"},
    ],
)
def test_a_wrong_setting_is_named_in_one_line(wrong):
    (name,) = wrong
    with pytest.raises(ConfigError, match=rf"Image\({name}=") as caught:
        Image(size=8, **wrong) if name != "like" else Image(**wrong)
    assert "\n" not in str(caught.value)


def test_an_integer_is_the_short_side_and_size_must_fit_into_it():
    for size in (8, (8, 8), (1, 8), (8, 1)):
        assert Image(size=size, resize=8).resize == 8
    assert type(Image(size=8, resize=np.int64(9)).resize) is int
    assert Image(resize=8).resize == 8  # a size may come later, by dataclasses.replace
    for size in (9, (9, 1), (1, 9)):
        with pytest.raises(
            ConfigError, match=r"Image\(size=.*, resize=8\): .* resize=9 or more, or a smaller"
        ):
            Image(size=size, resize=8)


def test_only_short_and_an_integer_leave_something_to_crop():
    for resize in ("exact", "random"):
        with pytest.raises(ConfigError, match=f'resize="{resize}".*leave crop out'):
            Image(size=8, resize=resize, crop="random")
    for resize in ("short", 9):
        for crop in ("center", "random", (3, 4)):
            assert Image(size=8, resize=resize, crop=crop).crop == crop


@pytest.mark.parametrize(
    "own",
    [
        {"size": 8},
        {"resize": "exact"},
        {"resize": 8},
        {"crop": "random"},
        {"scale": (0.5, 1.0)},
        {"ratio": (1.0, 1.0)},
    ],
)
def test_a_field_that_is_like_another_has_no_geometry_of_its_own(own):
    (name,) = own
    with pytest.raises(ConfigError, match=rf'like="image".*leave {name} out'):
        Image("mask.png", like="image", **own)


def test_a_field_that_is_like_another_keeps_its_own_filter_and_normalization():
    mask = Image("mask.png", like="image", filter="nearest", normalize="vae")
    assert (mask.filter, mask.normalize, mask.size) == ("nearest", "vae", None)


def test_extensions_are_alternatives_in_order_and_lower_case():
    assert Image("JPG; jpeg;png").extensions == ("jpg", "jpeg", "png")
    assert Tensor("latent.npy").extensions == ("latent.npy",)
    assert Image().extensions[0] == "jpg" and "webp" in Image().extensions


@pytest.mark.parametrize("ext", ["", " ", ".jpg", "jpg;;png", "jpg;", "a/b", None, 3])
def test_an_extension_that_is_none_is_refused(ext):
    with pytest.raises(ConfigError, match=r"Bytes\(ext="):
        Bytes(ext)


def test_the_leading_dot_is_named_as_the_mistake():
    with pytest.raises(ConfigError, match=r'write "jpg"'):
        Image(".jpg")


def test_a_default_is_told_from_none_given():
    assert Int().required and Int().default is REQUIRED
    assert not Text(default=None).required
    assert Int(default=np.int32(-1)).default == -1
    assert Image(default=7).default == (7, 7, 7)
    assert Image(default=[1, 2, 3]).default == (1, 2, 3)


@pytest.mark.parametrize("default", [None, "0", 1.0, True, 2**63, -(2**63) - 1])
def test_a_default_label_must_be_an_int64(default):
    with pytest.raises(ConfigError, match=r"Int\(default="):
        Int(default=default)


def test_required_is_one_object_after_pickling_and_copying():
    assert pickle.loads(pickle.dumps(REQUIRED)) is REQUIRED
    assert copy.deepcopy(Int()).default is REQUIRED
    assert repr(REQUIRED) == "REQUIRED"


def test_fields_are_frozen_hashable_and_compare_by_value():
    one, other = (
        Image(size=8, normalize=([0.5] * 3, [0.5] * 3)),
        Image(size=(8, 8), normalize=((0.5,) * 3, (0.5,) * 3)),
    )
    assert one == other and hash(one) == hash(other)
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(FrozenInstanceError):
        one.size = (4, 4)


def test_custom_needs_a_function():
    assert Custom("bin", len).fn is len
    with pytest.raises(ConfigError, match="fn must be a function of bytes"):
        Custom("bin", "len")


def test_the_ground_floor_loads_nothing_heavy():
    code = "import sys, fastload.fields; print([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


def test_json_and_text_know_their_usual_extensions():
    assert (Json().ext, Text().ext, Int().ext) == ("json", "txt", "cls")
