"""A contact sheet: a picture of samples as stored beside the same samples as trained.

In: pairs of pictures with their captions. Out: a Pillow image. Both halves of a pair have the same height;
the stored half keeps its proportions, so that what the crop removed can be seen.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from PIL import Image, ImageDraw, ImageFont

PAPER, INK, GRAY = (250, 249, 246), (28, 28, 30), (120, 119, 114)
RULE, WELL = (216, 214, 208), (238, 236, 231)
COLUMNS = 4
PICTURE_HEIGHT = 168  # pixels, of both halves
STORED_WIDTH = 252  # pixels: 3:2 fills it; wider pictures are fitted into it
MARGIN, GUTTER, GAP = 48, 36, 8  # pixels: around the sheet, between cells, between the halves
TEXT_HEIGHT = 46  # pixels below a pair: two lines
ROW_GAP = 18  # pixels between rows


@dataclass(frozen=True)
class Pair:
    """A sample as stored (upright) and as trained, and two lines of text."""

    stored: Image.Image
    trained: Image.Image
    title: str
    note: str


def contact_sheet(pairs: Sequence[Pair], title: str, subtitle: str) -> Image.Image:
    """The pairs in reading order under a heading; as many rows as they need."""
    columns = max(min(COLUMNS, len(pairs)), 2)  # the heading needs the width of two
    rows = -(-len(pairs) // columns)
    cell_width = STORED_WIDTH + GAP + PICTURE_HEIGHT
    cell_height = PICTURE_HEIGHT + TEXT_HEIGHT + ROW_GAP
    heading = 118
    width = 2 * MARGIN + columns * cell_width + (columns - 1) * GUTTER
    sheet = Image.new("RGB", (width, heading + rows * cell_height + MARGIN - ROW_GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    _draw_heading(draw, width, title, subtitle)
    for column in range(columns):
        x = MARGIN + column * (cell_width + GUTTER)
        draw.text((x, 92), "as stored", GRAY, _font(12))
        draw.text((x + STORED_WIDTH + GAP, 92), "as trained", GRAY, _font(12))
    for number, pair in enumerate(pairs):
        x = MARGIN + number % columns * (cell_width + GUTTER)
        _draw_pair(sheet, draw, x, heading + number // columns * cell_height, pair)
    return sheet


def fit_text(text: str, font, width: float) -> str:
    """The text in a single line, cut off with "..." where it is wider than `width` pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    beginnings = [text[:count].rstrip() + "..." for count in range(len(text))]
    return beginnings[max(bisect_right(beginnings, width, key=font.getlength), 1) - 1]


def _draw_heading(draw, width: int, title: str, subtitle: str) -> None:
    room = width - 2 * MARGIN
    draw.text((MARGIN, 26), fit_text(title, _font(26), room), INK, _font(26))
    draw.text((MARGIN, 60), fit_text(subtitle, _font(14), room), GRAY, _font(14))
    draw.line((MARGIN, 84, width - MARGIN, 84), RULE)


def _draw_pair(sheet: Image.Image, draw, x: int, y: int, pair: Pair) -> None:
    draw.rectangle((x, y, x + STORED_WIDTH - 1, y + PICTURE_HEIGHT - 1), WELL)
    _paste(sheet, pair.stored, x, y, STORED_WIDTH)
    _paste(sheet, pair.trained, x + STORED_WIDTH + GAP, y, PICTURE_HEIGHT)
    width = STORED_WIDTH + GAP + PICTURE_HEIGHT
    draw.text((x, y + PICTURE_HEIGHT + 7), fit_text(pair.title, _font(13), width), INK, _font(13))
    draw.text((x, y + PICTURE_HEIGHT + 25), fit_text(pair.note, _font(12), width), GRAY, _font(12))


def _paste(sheet: Image.Image, picture: Image.Image, x: int, y: int, width: int) -> None:
    """Pastes a picture into the middle of a box of PICTURE_HEIGHT, as large as it fits."""
    scale = min(width / picture.width, PICTURE_HEIGHT / picture.height)
    size = max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)
    small = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    sheet.paste(small, (x + (width - size[0]) // 2, y + (PICTURE_HEIGHT - size[1]) // 2))


@cache
def _font(size: int):
    """Pillow's own font, so that a sheet looks the same on every machine."""
    return ImageFont.load_default(size)
