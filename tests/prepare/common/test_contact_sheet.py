"""The contact sheet: every pair is on it, nothing overlaps, and text stays in its column."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from fastload.prepare.common import contact_sheet as module
from fastload.prepare.common.contact_sheet import Pair, contact_sheet, fit_text

RED, BLUE = (200, 30, 30), (30, 30, 200)


def pair(width=300, height=200, title="key", note="note"):
    return Pair(Image.new("RGB", (width, height), RED), Image.new("RGB", (64, 64), BLUE), title, note)


def area(sheet, color):
    """How many pixels have exactly this colour."""
    return int((np.asarray(sheet) == color).all(-1).sum())


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 24])
def test_every_pair_is_drawn_at_full_size(count):
    sheet = contact_sheet([pair() for _ in range(count)], "title", "subtitle")
    side = module.PICTURE_HEIGHT
    assert area(sheet, BLUE) == count * side * side
    assert area(sheet, RED) == count * module.STORED_WIDTH * side


@pytest.mark.parametrize("width, height", [(1, 1), (1600, 7), (7, 1600), (1024, 1024), (252, 168)])
def test_a_stored_picture_keeps_its_proportions_and_stays_in_its_box(width, height):
    sheet = contact_sheet([pair(width, height)], "title", "subtitle")
    rows, columns = np.nonzero((np.asarray(sheet) == RED).all(-1))
    drawn_width, drawn_height = np.ptp(columns) + 1, np.ptp(rows) + 1
    assert drawn_width <= module.STORED_WIDTH and drawn_height <= module.PICTURE_HEIGHT
    assert drawn_width == module.STORED_WIDTH or drawn_height == module.PICTURE_HEIGHT
    assert abs(drawn_width * height - drawn_height * width) <= max(width, height)  # whole pixels


def test_a_long_caption_does_not_run_into_the_next_column():
    short = [pair(note="a"), pair(note="")]
    long = [pair(note="a very long caption " * 40), pair(note="")]
    x = module.MARGIN + module.STORED_WIDTH + module.GAP + module.PICTURE_HEIGHT
    first, second = (np.asarray(contact_sheet(pairs, "t", "s"))[:, x:] for pairs in (short, long))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("text", ["", "short", "word " * 100, "w" * 500])
@pytest.mark.parametrize("width", [40, 100, 500])
def test_text_is_cut_with_dots_only_where_it_must_be(text, width):
    font = ImageFont.load_default(12)
    fitted = fit_text(text, font, width)
    assert font.getlength(fitted) <= width
    assert fitted == text.strip() or fitted.endswith("...")
    assert (fitted == text.strip()) == (font.getlength(text.strip()) <= width)
    if fitted != text.strip():
        kept = len(fitted) - 3
        assert font.getlength(text[: kept + 2].rstrip() + "...") > width


def test_line_breaks_in_a_caption_become_spaces():
    assert fit_text("a\nb\t c", ImageFont.load_default(12), 500) == "a b c"
