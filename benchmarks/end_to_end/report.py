"""A result as files: JSON with everything, and a Markdown page of tables made from the JSON alone."""

from pathlib import Path

from benchmarks.end_to_end.machine import keep

COLUMNS = ("", "images/s", "min - max", "of decode_limit", "fastload is", "CPU s/1000", "first batch s")
COLUMNS += ("levels off", "resize")


def write(result: dict, folder: Path) -> tuple[Path, Path]:
    """Write `end_to_end-<date>-<commit>.json` and `.md`, each at once or not at all; returns both paths."""
    return keep("end_to_end", result, markdown(result), Path(folder), checkout=result, date=result["date"])


def markdown(result: dict) -> str:
    """The page: where and when, a table for each corpus and mode, the targets, what failed or was missing."""
    lines = [*_head(result)]
    for corpus in result["corpora"]:
        for mode in ("quiet", "spinner", "step"):
            rows = [r for r in result["summary"] if r["corpus"] == corpus["name"] and r["mode"] == mode]
            if rows:
                lines += _table(result, corpus, mode, rows)
    lines += _verdict_table(result["verdicts"])
    lines += _list("Not installed", [f"{name}: {reason}" for name, reason in result["absent"].items()])
    failures = [f"{f['corpus']} {f['mode']} {f['competitor']}: {f['reason']}" for f in result["failures"]]
    lines += _list("Failed, or wrong output", failures)
    return "\n".join(lines) + "\n"


def _head(result: dict) -> list[str]:
    where, settings = result["machine"], result["settings"]
    state = {True: " with uncommitted changes", False: "", None: ""}[result["dirty"]]
    cpu = f"{where['cpu']} ({', '.join(map(str, where['cpu_family_model_stepping']))})"
    versions = ", ".join(f"{name} {version}" for name, version in where["packages"].items())
    others = [window["others_cpu_seconds"] / window["seconds"] for window in result["windows"]]
    lines = [
        f"# {result['what']}",
        "",
        f"{result['date']}, commit {result['commit']}{state}.",
        "",
        f"{cpu}, {where['usable_cpus']} CPUs, {' '.join(where['isa'])}, {where['memory_gib']} GiB, "
        f"{where['system']}, Python {where['python']}; {versions}.",
        "",
        f"Batches of {settings['batch_size']}, {settings['threads']} threads or workers, "
        f"{settings['rounds']} interleaved rounds, windows of {settings['measure_seconds']:g} s after "
        f"{settings['warm_seconds']:g} s of warming up. Other work on the machine took "
        f"up to {max(others, default=0.0):.2f} CPUs during a window.",
    ]
    if result["interrupted"]:
        lines += ["", "**The run was interrupted: the rounds are incomplete.**"]
    return lines


def _table(result: dict, corpus: dict, mode: str, rows: list[dict]) -> list[str]:
    step = f"a training step that sleeps {result['settings']['step_ms']} ms"
    beside = {"quiet": "", "spinner": ", beside a Python thread that spins", "step": f", with {step}"}[mode]
    size = f"{corpus['width']}x{corpus['height']}, {corpus['jpeg_bytes'] / corpus['count'] / 1e3:.1f} kB each"
    enlarged = f", {corpus['enlarged']} of them enlarged" if corpus["enlarged"] else ""
    competitors = {c["name"]: c for c in result["competitors"]}
    rates = {row["competitor"]: row["median"] for row in rows}
    lines = [
        "",
        f"## {corpus['name']}{beside}",
        "",
        f"{corpus['count']} images of {size}, from {corpus['photos']} photos{enlarged}.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    for row in sorted(rows, key=lambda row: -row["median"]):
        name, rate = row["competitor"], row["median"]
        cells = [name, f"{rate:.0f}", f"{row['min']:.0f} - {row['max']:.0f}"]
        cells += [_share(rate, rates.get("decode_limit")), _times(rates.get("fastload"), rate)]
        cells += [f"{row['cpu_seconds_per_1000']:.2f}", f"{row['first_batch_seconds']:.1f}"]
        lines.append(f"| {' | '.join([*cells, _check(row['check']), competitors[name]['resize']])} |")
    described = sorted({f"{row['competitor']}: {row['described']}" for row in rows if row["described"]})
    return lines + [f"\n{line}" for line in described]


def _verdict_table(verdicts: list[dict]) -> list[str]:
    if not verdicts:
        return []
    lines = ["", "## Targets", "", "| corpus | ratio | at least | measured | |", "|---|---|---|---|---|"]
    for row in verdicts:
        word = {True: "met", False: "**missed**", None: "for comparison"}[row["met"]]
        if row["ratio"] is None:
            word, measured = "not measured", "-"
        else:
            measured = f"{row['ratio']:.3f}"
        lines.append(f"| {row['corpus']} | {row['says']} | {row['least'] or '-'} | {measured} | {word} |")
    return lines


def _list(title: str, items: list[str]) -> list[str]:
    return ["", f"## {title}", "", *(f"- {item}" for item in items)] if items else []


def _share(rate: float, limit: float | None) -> str:
    return "-" if not limit else f"{100 * rate / limit:.0f} %"


def _times(ours: float | None, rate: float) -> str:
    return "-" if not ours else f"{ours / rate:.2f}x"


def _check(check: dict | None) -> str:
    if not check or "mean_difference_levels" not in check:
        return "-"
    wrong = " **WRONG**" if check["faults"] else ""
    return f"{check['mean_difference_levels']:.3f} (<= {check['bound_levels']:g}){wrong}"
