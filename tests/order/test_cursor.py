"""The cursor: what it stores comes back, and what is none is refused with the part that is wrong."""

import json

import pytest

from fastload.errors import CursorError
from fastload.order.cursor import CURSOR_VERSION, Cursor

CURSOR = Cursor(CURSOR_VERSION, 3, 10**12, "order", "pixels")
GOOD = CURSOR.to_dict()


def test_a_cursor_comes_back_through_a_dictionary_and_through_json():
    assert Cursor.from_dict(CURSOR.to_dict()) == CURSOR
    assert Cursor.from_dict(json.loads(json.dumps(CURSOR.to_dict()))) == CURSOR


def test_the_layout_of_version_1_is_pinned():
    assert GOOD == {
        "version": 1,
        "epoch": 3,
        "position": 10**12,
        "order_fingerprint": "order",
        "pixel_fingerprint": "pixels",
    }


@pytest.mark.parametrize("name", ["epoch", "position", "order_fingerprint", "pixel_fingerprint"])
def test_a_missing_entry_is_named(name):
    with pytest.raises(CursorError, match=f"no '{name}': pass what state_dict"):
        Cursor.from_dict({key: value for key, value in GOOD.items() if key != name})


def test_an_unknown_entry_is_named():
    with pytest.raises(CursorError, match="an unknown 'bucket'"):
        Cursor.from_dict({**GOOD, "bucket": 1})


@pytest.mark.parametrize(
    "name, value",
    [(name, value) for name in ("epoch", "position") for value in (-1, 1.0, True, "1", None)]
    + [(name, value) for name in ("order_fingerprint", "pixel_fingerprint") for value in (1, None, b"x")],
)
def test_an_entry_of_another_type_is_named(name, value):
    with pytest.raises(CursorError, match=f"the cursor's {name} is "):
        Cursor.from_dict({**GOOD, name: value})
    with pytest.raises(CursorError, match=f"the cursor's {name} is "):
        Cursor(**{**GOOD, name: value})


@pytest.mark.parametrize("version", [0, 2, 99])
def test_another_version_is_refused_before_its_entries_are_looked_at(version):
    with pytest.raises(CursorError, match=rf"has version {version}, this fastload reads version 1"):
        Cursor.from_dict({"version": version, "something": "else"})


@pytest.mark.parametrize("state", [{}, {"version": None}, {"version": True}, {"version": "1"}])
def test_a_dictionary_without_a_version_is_refused(state):
    with pytest.raises(CursorError, match=r"version is .*, not an integer"):
        Cursor.from_dict(state)


@pytest.mark.parametrize("state", [None, [], "cursor", 3])
def test_something_else_than_a_dictionary_is_refused(state):
    with pytest.raises(CursorError, match="a cursor is a dictionary, not a"):
        Cursor.from_dict(state)
