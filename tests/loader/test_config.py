"""What is wrong in itself is said at once, in one line, by the argument's name."""

import pytest

import fastload as fl
from fastload.errors import ConfigError

FIELDS = {"image": fl.Image(size=8)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size must be an integer of at least 1, got 2.5"),
        ({"batch_size": True}, "batch_size must be an integer of at least 1, got True"),
        ({"batch_size": "64"}, "batch_size must be an integer of at least 1, got '64'"),
        ({"fields": {}}, "fields must be a dict of at least one field"),
        ({"fields": fl.Image(size=8)}, "fields must be a dict of at least one field"),
        ({"fields": {"image": "jpg"}}, "fields['image'] must be fl.Image"),
        ({"fields": {"image": fl.Image}}, "fields['image'] must be fl.Image"),
        ({"fields": {"__key__": fl.Text()}}, "got '__key__'"),
        ({"fields": {3: fl.Text()}}, "__lambda__, got 3"),
        ({"fields": {"image": fl.Image()}}, "fields['image']: an image needs a size"),
        (
            {"fields": {"mask": fl.Image(like="image")}},
            "like= must name an image field with a size of its own, got 'image'",
        ),
        (
            {"fields": {"a": fl.Image(like="b"), "b": fl.Text()}},
            "like= must name an image field with a size of its own, got 'b'",
        ),
        ({"fields": {"a": fl.Image(like="a")}}, "with a size of its own, got 'a'"),
        ({"fields": {"a": fl.Image(size=8, normalize="vgg")}}, "normalize='vgg': give one of gan"),
        ({"augment": 0.5}, "augment must be an fl.Augment, got 0.5"),
        ({"normalize": "vgg"}, "normalize='vgg': give one of gan"),
        ({"normalize": (0.5, 0.0)}, "std must be above 0"),
        ({"dtype": "float64"}, "dtype must be one of 'float32'"),
        ({"dtype": int}, "got <class 'int'>"),
        ({"layout": "hwc"}, "layout must be one of 'nchw', 'channels_last'"),
        ({"shuffle": 1000}, "shuffle must be True or False (a number of samples is window=), got 1000"),
        ({"window": 0}, "window must be an integer of at least 1, got 0"),
        ({"window": 100, "shuffle": False}, "window=100 needs shuffle=True"),
        ({"seed": -1}, "seed must be an integer from 0 to 2**64 - 1, got -1"),
        ({"seed": 2**64}, "seed must be an integer from 0 to 2**64 - 1"),
        ({"epochs": 0}, "epochs must be an integer of at least 1, got 0"),
        ({"last": "keep"}, "last must be one of 'drop'"),
        ({"map_batch": 3}, "map_batch must be a function of the batch, got 3"),
        ({"decode": "cv2"}, "decode must be one of 'auto'"),
        ({"threads": 0}, "threads must be an integer from 1 to 1024, got 0"),
        ({"threads": 100_000}, "threads must be an integer from 1 to 1024, got 100000"),
        ({"prefetch": 0}, "prefetch must be an integer of at least 1, got 0"),
        ({"max_bytes": 0}, "max_bytes must be an integer of at least 1, got 0"),
        ({"max_pixels": -5}, "max_pixels must be an integer of at least 1, got -5"),
        ({"rank": 0}, "rank=0 with world_size=None: give both, or neither"),
        ({"rank": 2, "world_size": 2}, "0 <= rank < world_size, got rank=2 and world_size=2"),
        ({"rank": -1, "world_size": 2}, "0 <= rank < world_size, got rank=-1 and world_size=2"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_named_at_once(arguments, message):
    with pytest.raises(ConfigError) as caught:
        fl.Loader("/nowhere.tar", **{"batch_size": 2, "fields": FIELDS} | arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_size_of_zero_is_refused_by_the_field():
    with pytest.raises(ConfigError, match=r"Image\(size=0\)"):
        fl.Image(size=0)


@pytest.mark.parametrize("xflip", [-0.1, 1.1, "half", None])
def test_a_flip_that_is_no_probability_is_refused(xflip):
    with pytest.raises(ConfigError, match="give a probability, 0 to 1"):
        fl.Augment(xflip=xflip)


def test_none_means_the_default_where_the_default_is_a_choice_of_ours(shards):
    loader = fl.Loader(
        shards, 2, FIELDS, augment=None, threads=None, prefetch=None, max_bytes=None, max_pixels=None
    )
    assert len(next(iter(loader))["image"]) == 2


def test_numpys_integers_are_integers(shards):
    import numpy as np

    loader = fl.Loader(shards, np.int64(2), FIELDS, seed=np.uint64(5), epochs=np.int32(1))
    assert len(next(iter(loader))["image"]) == 2
