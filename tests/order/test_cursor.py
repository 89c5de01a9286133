"""The cursor: what it stores comes back, and what is none is refused with the part that is wrong."""

import json

import pytest

from fastload.errors import CursorError
from fastload.order.cursor import Cursor, differing
from fastload.order.mixture import SHARES, shares_of
from fastload.order.sample_order import OrderState

ORDER = {"seed": 2**64 - 1, "plan": "global/1", "window": None, "source": "0123456789abcdef"}
CURSOR = Cursor(3, OrderState(10**12), ORDER, {"dtype": "float32"}, inventory={"": [7, 2, "AAAA"]})
GOOD = CURSOR.to_dict()
MIXED_PLACE = OrderState.start(shares_of([0.7, 0.3])).at(25, 10).reweighted(shares_of([1, 1]), 10)
MIXED = Cursor(2, MIXED_PLACE, ORDER, {}, shares_of([0.7, 0.3]))


def test_a_cursor_comes_back_through_a_dictionary_and_through_json():
    for cursor in (CURSOR, MIXED):
        assert Cursor.from_dict(cursor.to_dict()) == cursor
        again = Cursor.from_dict(json.loads(json.dumps(cursor.to_dict())))
        assert again == cursor


def test_the_layout_of_version_3_is_pinned():
    assert GOOD == {
        "version": 3,
        "epoch": 3,
        "position": 10**12,
        "order": ORDER,
        "pixels": {"dtype": "float32"},
        "mixture": None,
        "inventory": {"": [7, 2, "AAAA"]},
    }
    assert MIXED.to_dict()["mixture"] == {
        "now": {"shares": [SHARES // 2, SHARES // 2], "given": [18, 7], "owed": [-SHARES // 2, SHARES // 2]},
        "epoch": {"shares": [SHARES * 7 // 10, SHARES * 3 // 10], "given": [14, 6], "owed": [0, 0]},
        "made_with": [SHARES * 7 // 10, SHARES * 3 // 10],
    }


def test_who_changes_the_dictionary_does_not_change_the_cursor():
    for cursor in (CURSOR, MIXED):
        state, text = cursor.to_dict(), json.dumps(cursor.to_dict())
        state["order"]["seed"] = 7
        if state["mixture"]:
            state["mixture"]["now"]["given"][0] += 1
        assert json.dumps(cursor.to_dict()) == text


@pytest.mark.parametrize("name", ["epoch", "position", "order", "pixels", "mixture", "inventory"])
def test_a_missing_entry_is_named(name):
    with pytest.raises(CursorError, match=f"no '{name}': pass what state_dict"):
        Cursor.from_dict({key: value for key, value in GOOD.items() if key != name})


def test_an_unknown_entry_is_named():
    with pytest.raises(CursorError, match="an unknown 'bucket'"):
        Cursor.from_dict({**GOOD, "bucket": 1})


@pytest.mark.parametrize(
    "name, value",
    [(name, value) for name in ("epoch", "position") for value in (-1, 1.0, True, "1", None)]
    + [
        (name, value)
        for name in ("order", "pixels")
        for value in (1, None, "x", [], {1: 2}, {"a": 1.5}, {"a": True}, {"a": {}})
    ]
    + [("mixture", value) for value in (1, [], {}, {"now": {}, "epoch": {}, "made_with": []})],
)
def test_an_entry_of_another_type_is_named(name, value):
    with pytest.raises(CursorError, match=f"the cursor's {name} (is|must|has) "):
        Cursor.from_dict({**GOOD, name: value})


@pytest.mark.parametrize("version", [0, 1, 99])
def test_another_version_is_refused_before_its_entries_are_looked_at(version):
    with pytest.raises(
        CursorError, match=rf"has version {version}, but this fastload reads versions 2 and 3"
    ):
        Cursor.from_dict({"version": version, "something": "else"})


@pytest.mark.parametrize("state", [{}, {"version": None}, {"version": True}, {"version": "1"}])
def test_a_dictionary_without_a_version_is_refused(state):
    with pytest.raises(CursorError, match=r"version must be an integer, got "):
        Cursor.from_dict(state)


@pytest.mark.parametrize("state", [None, [], "cursor", 3])
def test_something_else_than_a_dictionary_is_refused(state):
    with pytest.raises(CursorError, match="a cursor must be a dict, got a"):
        Cursor.from_dict(state)


MIXTURE = MIXED.to_dict()["mixture"]


@pytest.mark.parametrize(
    "change",
    [
        {"position": 26},
        {"mixture": MIXTURE | {"epoch": {"shares": [SHARES], "given": [20], "owed": [0]}}},
        {"mixture": MIXTURE | {"epoch": MIXTURE["now"] | {"given": [19, 7]}}},
        {"mixture": MIXTURE | {"made_with": [0.5, 0.5]}},
        {"mixture": MIXTURE | {"made_with": [1]}},
        {"mixture": MIXTURE | {"more": 1}},
        {"mixture": MIXTURE | {"now": None}},
    ],
    ids=["position", "sources", "epoch", "made_with", "one_share", "more", "now"],
)
def test_counters_that_do_not_belong_together_are_refused(change):
    with pytest.raises(CursorError, match="the cursor's mixture"):
        Cursor.from_dict(MIXED.to_dict() | change)


def test_differences_are_shown_with_their_values_unless_they_are_hashes():
    then = {"seed": 0, "plan": "global/1", "window": None, "source": "0123456789abcdef", "selection": None}
    assert differing(then, dict(then)) == []
    now = {"seed": 1, "plan": "global/1", "window": 4, "source": "fedcba9876543210", "selection": "0" * 16}
    assert differing(then, now) == [
        "seed (0 then, 1 now)",
        "window (None then, 4 now)",
        "source",
        "selection",
    ]
    assert differing({"source": "a" * 16}, {"source 'a'": "b" * 16}) == ["source (gone)", "source 'a' (new)"]
    assert differing({"selection 'a'": None}, {}) == []
