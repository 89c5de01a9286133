"""Numbers as text: aligned, complete, and the stage that limits is named."""

import pytest

from fastload.prepare.common.report import (
    render_bytes,
    render_pairs,
    render_stages,
    render_stats,
    render_table,
)

STATS = {
    "images": 6400,
    "batches": 100,
    "seconds": 5.0,
    "images_per_second": 1280.0,
    "first_batch_seconds": 0.1234,
    "cpu_seconds": 9.6,
    "stages": {
        "training": {"busy_seconds": 0.1, "waiting_seconds": 4.9, "threads": 1},
        "decode": {"busy_seconds": 9.5, "waiting_seconds": 0.5, "threads": 2},
        "read": {"busy_seconds": 0.25, "waiting_seconds": 9.75, "threads": 2},
        "values": {"busy_seconds": 0.0, "waiting_seconds": 0.0, "threads": 1},
    },
    "limited_by": "decode",
    "pool": {},
    "bad_samples": 0,
}


def test_stats_name_the_rate_the_cost_and_the_first_batch():
    text = render_stats(STATS)
    assert "1,280.0" in text and "1.50" in text and "0.123 s" in text
    assert "6,400 in 100 batches, 5.00 s" in text


def test_only_the_limiting_stage_is_marked():
    marked = [line for line in render_stages(STATS).splitlines() if "<- limits" in line]
    assert len(marked) == 1 and marked[0].startswith("decode")


def test_stages_come_in_the_order_of_a_samples_trip():
    lines = render_stages(STATS).splitlines()
    assert [line.split()[0] for line in lines] == ["stage", "read", "decode", "values", "training"]


def test_a_stage_that_is_new_is_shown_after_the_known_ones():
    stages = {"augment": STATS["stages"]["read"], **STATS["stages"]}
    assert render_stages({**STATS, "stages": stages}).splitlines()[-1].startswith("augment")


def test_stats_before_the_first_batch_do_not_divide_by_zero():
    nothing = {"images": 0, "batches": 0, "seconds": 0.0, "images_per_second": 0.0}
    text = render_stats({**STATS, **nothing, "first_batch_seconds": None, "limited_by": None})
    assert "CPU s per 1000 images  -" in text and "limits" not in text
    assert "first batch after      -" in text


def test_columns_are_aligned_and_no_line_ends_in_a_space():
    text = render_table(("side", "rate", ""), [("a", "1", "note"), ("longer", "1,000", "")])
    assert text.splitlines() == ["side     rate", "a           1  note", "longer  1,000"]


def test_a_table_without_rows_is_its_header():
    assert render_table(("a", "b"), []) == "a  b"


def test_pairs_share_one_column_for_their_values():
    assert render_pairs([("a", "1"), ("long", "2")]) == "a     1\nlong  2"


@pytest.mark.parametrize(
    "size, text",
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (10_240, "10.0 KiB"),
        (102_400, "100 KiB"),
        (1_048_575, "1.00 MiB"),
        (1_048_576, "1.00 MiB"),
        (5 * 2**40, "5.00 TiB"),
        (5000 * 2**40, "5000 TiB"),
    ],
)
def test_sizes_have_three_digits_and_a_unit(size, text):
    assert render_bytes(size) == text
