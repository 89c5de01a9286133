"""Numbers as text for people: aligned tables, sizes, rates, and the stats of a loader.

In: plain values, or the dict of `Loader.stats()`. Out: lines without trailing spaces, ASCII only, at most 100
wide where the values allow.
"""

from collections.abc import Iterable, Sequence


def render_stats(stats: dict) -> str:
    """The dict of `Loader.stats()` as two tables: the totals, and how long each stage worked and waited."""
    images, seconds, first = stats["images"], stats["seconds"], stats["first_batch_seconds"]
    pairs = [
        ("images/s", f"{stats['images_per_second']:,.1f}"),
        ("CPU s per 1000 images", f"{stats['cpu_seconds'] / images * 1000:.2f}" if images else "-"),
        ("first batch after", "-" if first is None else f"{first:.3f} s"),
        ("images", f"{images:,} in {stats['batches']:,} batches, {seconds:.2f} s"),
        ("bad samples", f"{stats['bad_samples']:,}"),
    ]
    return render_pairs(pairs) + "\n\n" + render_stages(stats)


def render_stages(stats: dict) -> str:
    """Busy and waiting time of every stage; an arrow points at the stage that limits the rate."""
    from fastload.loader.stats import STAGES

    rows, stages = [], stats["stages"]
    # In the order in which a sample passes them; unknown stages come last, by name.
    for name in [*filter(stages.__contains__, STAGES), *sorted(stages.keys() - set(STAGES))]:
        stage = stages[name]
        busy, waiting = stage["busy_seconds"], stage["waiting_seconds"]
        share = f"{busy / (busy + waiting):.0%}" if busy + waiting > 0 else "-"
        mark = "<- limits" if name == stats["limited_by"] else ""
        rows.append((name, f"{busy:.2f}", f"{waiting:.2f}", share, str(stage["threads"]), mark))
    return render_table(("stage", "busy s", "waiting s", "busy", "threads", ""), rows)


def render_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns padded to their widest cell: the first is left-aligned, the others right-aligned; a last column
    without a header is left-aligned, too."""
    table = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    return "\n".join(_line(row, widths, header) for row in table)


def render_pairs(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values, the values aligned."""
    pairs = list(pairs)
    width = max((len(name) for name, _ in pairs), default=0)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in pairs)


def render_bytes(size_bytes: int) -> str:
    """A size with three digits and a binary unit: 0 B, 1023 B, 1.00 KiB, 12.3 MiB."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 999.5 or (unit == "B" and size < 1024) or unit == "TiB":
            break
        size /= 1024
    if unit == "B":
        return f"{size_bytes} B"
    digits = 2 if size < 9.995 else 1 if size < 99.95 else 0
    return f"{size:.{digits}f} {unit}"


def _line(row, widths, header) -> str:
    cells = []
    for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
        left_aligned = column == 0 or (column == len(header) - 1 and not header[column])
        cells.append(f"{cell:<{width}}" if left_aligned else f"{cell:>{width}}")
    return "  ".join(cells).rstrip()
