"""The reports of a training run: its log, grids of generated images, and a plot of the log."""

import json
import math
import time
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

GAP = 2  # pixels between the images of a grid

WIDTH, PANEL_HEIGHT = 1000, 220  # pixels, of the plot and of each of its panels
LEFT, RIGHT, TOP, BETWEEN, BOTTOM = 80, 30, 50, 50, 50  # margins in pixels
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")
TICKS = 4


class Log:
    """Prints lines and writes them as JSON to a file. Old lines after `step` are dropped: that run was
    killed before its next checkpoint."""

    def __init__(self, path: Path, step: int):
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        rows = [json.loads(line) for line in lines if line.endswith("\n")]  # the last line may be incomplete
        self.rows = [row for row in rows if row["step"] <= step]
        self.path, self.step = path, step
        self.path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        self.clock, self.waited_seconds = time.perf_counter(), 0.0

    def write(self, step: int, batch_size: int, numbers: dict, waited_seconds: float) -> None:
        """numbers: loss_d, loss_g, r_t and p. waited_seconds: for the loader, since the start."""
        clock = time.perf_counter()
        seconds = clock - self.clock
        row = {"step": step, "kimg": step * batch_size / 1000, **numbers}
        row["images_per_second"] = (step - self.step) * batch_size / seconds
        row["loader_wait"] = (waited_seconds - self.waited_seconds) / seconds
        self.step, self.clock, self.waited_seconds = step, clock, waited_seconds
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        shown = {"D": "loss_d", "G": "loss_g", "r_t": "r_t", "p": "p"}
        columns = "".join(
            f"  {short} {row[name]:.3f}" for short, name in shown.items() if row[name] is not None
        )
        rate = f"{row['images_per_second']:.1f} images/s  loader wait {row['loader_wait']:.1%}"
        print(f"step {step}  kimg {row['kimg']:.2f}{columns}  {rate}", flush=True)


def save_grid(images: torch.Tensor, columns: int, path: Path) -> None:
    """Writes images [N, 3, H, W] in [-1, 1] as a single PNG, row by row; values out of range are clamped."""
    pixels = (images.float().clamp(-1, 1) * 127.5 + 127.5).round().to("cpu", torch.uint8)
    height, width = images.shape[2] + GAP, images.shape[3] + GAP
    rows = -(-len(images) // columns)
    grid = Image.new("RGB", (columns * width + GAP, rows * height + GAP), "white")
    for number, image in enumerate(pixels.permute(0, 2, 3, 1).numpy()):
        grid.paste(Image.fromarray(image), (number % columns * width + GAP, number // columns * height + GAP))
    grid.save(path)


def save_plot(rows: list[dict], panels: dict[str, dict], path: Path) -> None:
    """Writes a PNG of panels, one below the other, over the rows' "kimg".

    panels: title -> {"lines": names of the rows' numbers, optionally "low" and "high": values that the axis
    must include, and "dashed": a value to mark}. A name whose values are all None is left out.
    """
    height = TOP + len(panels) * (PANEL_HEIGHT + BETWEEN) - BETWEEN + BOTTOM
    picture = Image.new("RGB", (WIDTH, height), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    max_kimg = max((row["kimg"] for row in rows), default=0) or 1
    for number, (title, panel) in enumerate(panels.items()):
        top = TOP + number * (PANEL_HEIGHT + BETWEEN)
        pen.text((LEFT, top - 24), title, "black", font)
        _draw_panel(pen, font, top, rows, max_kimg, **panel)
    step = _round_step(max_kimg / 10)
    for tick in range(int(max_kimg / step + 1e-9) + 1):
        x = LEFT + (WIDTH - LEFT - RIGHT) * tick * step / max_kimg
        pen.line([(x, height - BOTTOM), (x, height - BOTTOM + 5)], "black")
        pen.text((x, height - BOTTOM + 8), f"{tick * step:g}", "black", font, anchor="mt")
    pen.text((WIDTH - RIGHT, height - 8), "thousand images", "black", font, anchor="rb")
    picture.save(path, optimize=True)


def _draw_panel(pen, font, top: int, rows, max_kimg: float, lines, low=None, high=None, dashed=None) -> None:
    lines = [name for name in lines if any(row[name] is not None for row in rows)]
    shown = [row[name] for row in rows for name in lines if row[name] is not None]
    shown += [value for value in (low, high, dashed) if value is not None]
    low, high = min(shown, default=0), max(shown, default=1)
    step = _round_step((high - low or 1) / TICKS)
    low, high = low // step * step, -(-high // step) * step
    high = max(high, low + step)

    def point(kimg: float, value: float) -> tuple[float, float]:
        across = (WIDTH - LEFT - RIGHT) * kimg / max_kimg
        return LEFT + across, top + PANEL_HEIGHT * (high - value) / (high - low)

    for tick in range(round((high - low) / step) + 1):
        _, y = point(0, low + tick * step)
        pen.line([(LEFT, y), (WIDTH - RIGHT, y)], "#dddddd")
        pen.text((LEFT - 8, y), f"{low + tick * step:.4g}", "black", font, anchor="rm")
    if dashed is not None:
        _, y = point(0, dashed)
        for x in range(LEFT, WIDTH - RIGHT, 12):
            pen.line([(x, y), (x + 6, y)], "#888888", 2)
    for number, name in enumerate(lines):
        points = [point(row["kimg"], row[name]) for row in rows if row[name] is not None]
        pen.line(points, COLOURS[number], 2)
        x, y = points[-1]
        pen.ellipse(
            [x - 2, y - 2, x + 2, y + 2], COLOURS[number]
        )  # so that a line of a single point is visible
        if len(lines) > 1:
            at = WIDTH - RIGHT - 150 * (len(lines) - number), top - 16
            pen.line([at, (at[0] + 24, at[1])], COLOURS[number], 3)
            pen.text((at[0] + 30, at[1]), name, "black", font, anchor="lm")


def _round_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-6))
