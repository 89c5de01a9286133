"""Where a result comes from: the commit, the CPU, and the versions of everything timed; and how it is kept.

No paths, no host name: a result is read on other machines than the one that made it.
"""

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "fastload",
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "simplejpeg",
    "webdataset",
    "nvidia-dali-cuda130",
    "nvidia-dali-cuda120",
    "spdl",
    "ffcv",
    "opencv-python-headless",
    "opencv-python",
    "numba",
)
ISA_FLAGS = ("ssse3", "sse4_1", "avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx_vnni")


def keep(
    name: str, result: dict, page: str, folder: Path, *, checkout: dict, date: str | None = None
) -> tuple[Path, Path]:
    """Writes `NAME-DATE-COMMIT.json` and `.md`, each at once or not at all; returns both paths.

    checkout: what `commit` returned. date: of the result, as "2026-11-21T19:59:36Z"; None: now.
    """
    date = date or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    digits = (checkout["commit"] or "no-commit")[:10] + ("-dirty" if checkout["dirty"] else "")
    stem = f"{name}-{date.replace(':', '').rstrip('Z')}-{digits}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"{stem}.json", folder / f"{stem}.md"
    for path, text in zip(paths, (json.dumps(result, indent=1) + "\n", page), strict=True):
        draft = path.with_suffix(path.suffix + ".tmp")
        draft.write_text(text)
        draft.replace(path)
    return paths


def commit() -> dict:
    """The commit of this checkout, and whether tracked or new files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        # Results of earlier runs lie here uncommitted and change nothing that is measured.
        changed = git("status", "--porcelain", "--", ".", ":!benchmarks/results")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError) as error:
        return {"commit": None, "dirty": None, "reason": f"not a git checkout: {error}"}


def machine() -> dict:
    """CPU, memory, system and package versions."""
    cpu = _cpuinfo()
    return {
        "cpu": cpu.get("model name", platform.processor()),
        "cpu_family_model_stepping": [cpu.get(k) for k in ("cpu family", "model", "stepping")],
        "usable_cpus": len(os.sched_getaffinity(0)),
        "isa": [flag for flag in ISA_FLAGS if flag in cpu.get("flags", "").split()],
        "cache": cpu.get("cache size"),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": packages(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
    }


def without_paths(text: str) -> str:
    """`text` with every absolute path cut to its last part."""
    return re.sub(r"/(?:[\w.+~@-]+/)+", "", text)


def packages() -> dict[str, str]:
    """The installed ones of PACKAGES."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpuinfo() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; empty where there is no such file."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except FileNotFoundError:
        return {}
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}
