"""The results of the parts as one Markdown page, made of their JSON alone."""

import json
from pathlib import Path

from benchmarks.gpu.cases import BAD, PARTS
from benchmarks.gpu.targets import verdicts

PAGE = "gpu.md"


def path_of(folder: Path, part: str) -> Path:
    return Path(folder) / f"gpu-{part}.json"


def read(folder: Path) -> dict[str, dict]:
    """Part -> its result, for the parts whose files are there."""
    paths = {part: path_of(folder, part) for part in PARTS}
    return {part: json.loads(path.read_text()) for part, path in paths.items() if path.exists()}


def write(folder: Path) -> str:
    """Writes the page of all results in the folder; returns it."""
    page = markdown(read(folder))
    draft = Path(folder) / f"{PAGE}.tmp"
    draft.write_text(page)
    draft.replace(Path(folder) / PAGE)
    return page


def failures(results: dict[str, dict]) -> list[str]:
    """One sentence for each thing that is wrong, failed, or was not reached."""
    found = []
    for part, result in results.items():
        for case in result["cases"]:
            if case["state"] in BAD:
                whys = case["faults"] or [case.get("reason", "")]
                found += [f"{part}: {case['name']}: {case['state']}: {why}" for why in whys]
        if not result["finished"]:
            found.append(f"{part}: the run ended before its last case")
    return found


def markdown(results: dict[str, dict]) -> str:
    """The page: where and when, the targets, what failed, what was skipped, then the cases of each part."""
    lines = ["# fastload on a GPU", ""]
    if any(result["device"] != "cuda" for result in results.values()):
        lines += ["**A run on the CPU, which tries the code at tiny sizes: no figure here says anything "
                  "about a GPU.**", ""]  # fmt: skip
    lines += [_where(part, result) for part, result in results.items()]
    lines += _targets(verdicts(results))
    skipped = [
        f"{part}: {case['name']}: {case['reason']}"
        for part, result in results.items()
        for case in result["cases"]
        if case["state"] == "skipped"
    ]
    lines += _list("Wrong, failed or late", failures(results)) + _list("Cannot run here", skipped)
    for part, result in results.items():
        lines += ["", f"## {part}"]
        for case in result["cases"]:
            lines += _case(case)
    return "\n".join(lines) + "\n"


def _where(part: str, result: dict) -> str:
    where, gpu = result["machine"], result["gpu"]
    state = " with uncommitted changes" if result["dirty"] else ""
    versions = ", ".join(
        f"{name} {version}" for name, version in (where["packages"] | gpu["packages"]).items()
    )
    device = (
        f"{gpu['name']} ({gpu['memory_gib']} GiB, {gpu['multiprocessors']} SM)" if gpu["name"] else "no GPU"
    )
    return (
        f"- {part}: {result['date']}, commit {result['commit']}{state}; {device}; {where['cpu']}, "
        f"{where['usable_cpus']} CPUs; Python {where['python']}; {versions}."
    )


def _targets(rows: list[dict]) -> list[str]:
    lines = ["", "## Targets", "", "| part | what | target | measured | |", "|---|---|---|---|---|"]
    for row in rows:
        if row["measured"] is None:
            measured, word = "-", f"not measured: {_cell(row['why'])}"
        else:
            measured = f"{row['measured']:.3g}"
            word = {True: "met", False: "**missed**", None: "for comparison"}[row["met"]]
            word += f" ({row['why']})" if row["why"] else ""
        lines.append(f"| {row['part']} | {row['says']} | {row['bound'] or '-'} | {measured} | {word} |")
    return lines


def _case(case: dict) -> list[str]:
    word = {"right": "", "skipped": " (cannot run here)"}.get(case["state"], f" (**{case['state']}**)")
    lines = ["", f"### {case['name']}{word}", ""]
    if case["table"]:
        columns = list(dict.fromkeys(name for row in case["table"] for name in row))
        lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        lines += [f"| {' | '.join(_cell(row.get(name, '-')) for name in columns)} |" for row in case["table"]]
        lines.append("")
    lines += [*case["notes"], *(f"- {fault}" for fault in case["faults"])]
    if "reason" in case:
        lines.append(case["reason"])
    return [*lines, f"({case['seconds']:.1f} s)"]


def _cell(value) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("|", "/").replace("\n", " ")


def _list(title: str, items: list[str]) -> list[str]:
    return ["", f"## {title}", "", *(f"- {_cell(item)}" for item in items)] if items else []
