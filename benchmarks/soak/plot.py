"""The readings as a picture: resident memory over samples, one line a decoder."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIZE = (1100, 560)
LEFT, TOP, RIGHT, BOTTOM = 90, 60, 40, 70  # margins
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")
TICKS = 5


def draw(readings: dict[str, list[dict]], path: Path) -> None:
    """Writes a PNG; the axis of memory begins at 0, or every ripple would look like a leak."""
    most_samples = max(one[-1]["samples"] for one in readings.values())
    most_memory = _round_up(max(one["rss_mib"] for part in readings.values() for one in part))
    picture = Image.new("RGB", SIZE, "white")
    pen = ImageDraw.Draw(picture)
    font, title = ImageFont.load_default(15), ImageFont.load_default(19)
    width, height = SIZE[0] - LEFT - RIGHT, SIZE[1] - TOP - BOTTOM

    def place(samples: float, memory: float) -> tuple[float, float]:
        return LEFT + width * samples / most_samples, TOP + height * (1 - memory / most_memory)

    for tick in range(TICKS + 1):
        memory = most_memory * tick / TICKS
        _, y = place(0, memory)
        pen.line([(LEFT, y), (SIZE[0] - RIGHT, y)], "#dddddd")
        pen.text((LEFT - 10, y), f"{memory:,.0f}", "black", font, anchor="rm")
    step = 10 ** (len(str(most_samples)) - 1) // 2 or 1
    for samples in range(0, most_samples + 1, step):
        x, _ = place(samples, 0)
        pen.line([(x, SIZE[1] - BOTTOM), (x, SIZE[1] - BOTTOM + 5)], "black")
        pen.text((x, SIZE[1] - BOTTOM + 10), f"{samples:,}", "black", font, anchor="mt")
    pen.text((LEFT, 18), "resident memory (MiB) over samples delivered", "black", title)
    for number, (name, part) in enumerate(readings.items()):
        colour = COLOURS[number % len(COLOURS)]
        pen.line([place(one["samples"], one["rss_mib"]) for one in part], colour, 2)
        at = LEFT + 130 * number, SIZE[1] - 26
        pen.line([at, (at[0] + 28, at[1])], colour, 3)
        pen.text((at[0] + 36, at[1]), name, "black", font, anchor="lm")
    picture.save(path, optimize=True)


def _round_up(memory: float) -> float:
    """To a number whose fifths are round."""
    step = 10 ** (len(str(int(memory))) - 1) // 2 or 1
    return -(-memory // step) * step
