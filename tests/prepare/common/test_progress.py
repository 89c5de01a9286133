"""A bar on a terminal, sparse lines elsewhere, nothing left behind."""

import io

import pytest

from fastload.prepare.common import progress as progress_module
from fastload.prepare.common.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_a_line_per_quarter():
    log = io.StringIO()
    with Progress("demo", log) as progress:
        for step in range(101):
            progress(step / 100, "note")
    assert log.getvalue().splitlines() == [f"demo: {share}% note" for share in (0, 25, 50, 75, 100)]


def test_a_share_beyond_the_ends_is_cut():
    log = io.StringIO()
    with Progress("demo", log) as progress:
        progress(-1.0)
        progress(7.0)
    assert log.getvalue() == "demo: 0%\ndemo: 100%\n"


def test_a_second_piece_of_work_begins_anew():
    log = io.StringIO()
    with Progress("demo", log) as progress:
        for share in (0.0, 0.9, 0.1, 0.95):
            progress(share)
    assert log.getvalue().split() == ["demo:", "0%", "demo:", "90%", "demo:", "10%", "demo:", "95%"]


def test_a_terminals_bar_is_redrawn_in_place_and_wiped(monkeypatch):
    monkeypatch.setattr(progress_module, "REDRAW_SECONDS", 0.0)
    terminal = Terminal()
    with Progress("demo", terminal) as progress:
        progress(0.0, "a long note")
        progress(1.0, "short")
    text = terminal.getvalue()
    assert "\n" not in text
    *_, last, wiped, after = text.split("\r")
    assert "#" * progress_module.BAR_CELLS in last and last.rstrip().endswith("short")
    assert wiped.strip() == "" and len(wiped) == len(last) and after == ""


def test_a_terminal_is_wiped_after_an_error_too():
    terminal = Terminal()
    with pytest.raises(KeyboardInterrupt), Progress("demo", terminal) as progress:
        progress(0.5)
        raise KeyboardInterrupt
    assert terminal.getvalue().endswith("\r")


def test_a_terminal_is_not_redrawn_faster_than_it_can_show():
    terminal = Terminal()
    with Progress("demo", terminal) as progress:
        for step in range(1000):
            progress(step / 1000)
    assert terminal.getvalue().count("[") < 20
