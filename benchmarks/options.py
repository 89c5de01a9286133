"""What the benchmarks that are commands all take: where results go, where photos and drawn corpora lie."""

import argparse
from pathlib import Path

from benchmarks.end_to_end.machine import ROOT

PHOTOS = ROOT / "tests" / "data" / "photos"


def parser(description: str) -> argparse.ArgumentParser:
    """--out, --photos and --cache; `description` is the module's docstring."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    made.add_argument("--out", type=Path, help="folder for the result; nothing is written without it")
    made.add_argument("--photos", type=Path, default=PHOTOS, help="a folder of photos")
    cache = Path.home() / ".cache" / "fastload" / "benchmarks"
    made.add_argument("--cache", type=Path, default=cache, help="where the corpus lies, or is drawn")
    return made
