"""Progress on stderr: a bar on a terminal, a few lines in a log file.

In: calls with the share that is done (0..1) and a short note. Promised: nothing is written to stdout, and a
terminal's bar is erased when the work ends, even by an exception.
"""

import sys
import time

BAR_CELLS = 28
REDRAW_SECONDS = 0.1  # faster than this, a terminal only flickers
LOG_STEP = 0.25  # share of the work between two lines where stderr is no terminal


class Progress:
    """Shows the progress of a task; a context manager, called with (share, note)."""

    def __init__(self, label: str, stream=None):
        self.label = label
        self.stream = sys.stderr if stream is None else stream
        self._is_terminal = self.stream.isatty()
        self._next_seconds = 0.0
        self._next_share = self._last_share = 0.0
        self._drawn_width = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._drawn_width:
            self._write("\r" + " " * self._drawn_width + "\r")
            self._drawn_width = 0

    def __call__(self, share: float, note: str = "") -> None:
        share = min(max(share, 0.0), 1.0)
        if self._is_terminal:
            now = time.monotonic()
            if now >= self._next_seconds:
                self._next_seconds = now + REDRAW_SECONDS
                self._draw(share, note)
        else:
            if share < self._last_share:  # the next task has begun
                self._next_share = 0.0
            if share >= self._next_share:
                self._next_share = (share // LOG_STEP + 1) * LOG_STEP
                self._write(f"{self.label}: {share:.0%} {note}".rstrip() + "\n")
            self._last_share = share

    def _draw(self, share: float, note: str) -> None:
        full = round(share * BAR_CELLS)
        line = f"{self.label} [{'#' * full}{'.' * (BAR_CELLS - full)}] {share:4.0%}  {note}"
        self._write("\r" + line.ljust(self._drawn_width))
        self._drawn_width = max(self._drawn_width, len(line))

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()
