"""A value of a state becomes one leaf and comes back as it was."""

import collections
import json
import math

import numpy as np
import pytest
import torch

from fastload.errors import CursorError
from fastload.opaque import leaf, value_of


@pytest.mark.parametrize(
    "value",
    [{}, [], {"a": [1, None, {"b": "ü\ud800"}]}, -0.0, 0.1, 2**128, True, "text", [[]], {"": {"": []}}],
)
def test_what_json_keeps_becomes_text_that_json_keeps(value):
    text = leaf(value)
    assert type(text) is str and json.loads(json.dumps(text)) == text
    back = value_of(text)
    assert back == value and repr(back) == repr(value)


class Text(str):
    pass


def endless():
    value = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [
        (1, 2),
        {1: 2},
        {"a": (1,)},
        [torch.ones(2)],
        np.float64(0.5),
        math.inf,
        math.nan,
        Text("a"),
        {Text("a"): 1},
        collections.OrderedDict(a=1),
        pytest.param(1 << 20_000, id="a long integer"),
        b"bytes",
        [{1, 2}],
        pytest.param(endless(), id="endless"),
    ],
)
def test_what_json_would_change_is_left_as_it_is_where_nobody_enters(value):
    kept = leaf(value)
    assert type(kept) is tuple and kept[0] is value
    assert value_of(kept) is value


def test_none_stays_none_and_a_value_that_is_not_a_leaf_is_itself():
    assert leaf(None) is None and value_of(None) is None
    assert value_of({"a": 1}) == {"a": 1}


def test_what_json_made_of_a_tuple_is_read():
    value = {"a": [1, 2]}
    assert value_of(json.loads(json.dumps(leaf({"a": (1, 2)})))) == value


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
def test_text_that_is_not_json_is_a_damaged_checkpoint(text):
    with pytest.raises(CursorError, match=r"the checkpoint is damaged: .* is not JSON .*state_dict"):
        value_of(text)
