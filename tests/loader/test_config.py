"""What is wrong in itself is said at once, in one line, by the argument's name."""

import pytest

import fastload as fl
from fastload.errors import ConfigError

FIELDS = {"image": fl.Image(size=8)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: give a whole number, at least 1"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"batch_size": True}, "batch_size=True"),
        ({"batch_size": "64"}, "batch_size='64'"),
        ({"fields": {}}, "fields={}: name at least one"),
        ({"fields": fl.Image(size=8)}, "name at least one"),
        ({"fields": {"image": "jpg"}}, "fields['image']='jpg': give fl.Image"),
        ({"fields": {"image": fl.Image}}, "give fl.Image"),
        ({"fields": {"__key__": fl.Text()}}, "'__key__' cannot name a field"),
        ({"fields": {3: fl.Text()}}, "3 cannot name a field"),
        ({"fields": {"image": fl.Image()}}, "fields['image']: an image needs a size"),
        ({"fields": {"mask": fl.Image(like="image")}}, "like='image' must name an image field"),
        ({"fields": {"a": fl.Image(like="b"), "b": fl.Text()}}, "like='b' must name an image field"),
        ({"fields": {"a": fl.Image(like="a")}}, "like='a' must name"),
        ({"fields": {"a": fl.Image(size=8, normalize="vgg")}}, "normalize='vgg': give one of gan"),
        ({"augment": 0.5}, "augment=0.5: give fl.Augment"),
        ({"normalize": "vgg"}, "normalize='vgg': give one of gan"),
        ({"normalize": (0.5, 0.0)}, "std must be above 0"),
        ({"dtype": "float64"}, "dtype='float64': give one of 'float32'"),
        ({"dtype": int}, "dtype="),
        ({"layout": "hwc"}, "layout='hwc': give one of 'nchw', 'channels_last'"),
        ({"shuffle": 1000}, "shuffle=1000: give True or False; a number of samples to mix goes to window="),
        ({"window": 0}, "window=0: give a whole number, at least 1"),
        ({"window": 100, "shuffle": False}, "window=100 has no meaning with shuffle=False"),
        ({"seed": -1}, "seed=-1: give a whole number, 0 to 18446744073709551615"),
        ({"seed": 2**64}, "give a whole number, 0 to"),
        ({"epochs": 0}, "epochs=0: give a whole number, at least 1"),
        ({"last": "keep"}, "last='keep': give one of 'drop'"),
        ({"map_batch": 3}, "map_batch=3: give a function"),
        ({"decode": "cv2"}, "decode='cv2': give one of 'auto'"),
        ({"threads": 0}, "threads=0: give a whole number, 1 to 1024"),
        ({"threads": 100_000}, "threads=100000: give a whole number, 1 to 1024"),
        ({"prefetch": 0}, "prefetch=0"),
        ({"max_bytes": 0}, "max_bytes=0"),
        ({"max_pixels": -5}, "max_pixels=-5"),
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
