"""Warnings that point at the user's line of code."""

import sys
import warnings
from pathlib import Path
from types import FrameType

_PACKAGE = str(Path(__file__).parent)


def notice(sentence: str) -> None:
    """Warns at the innermost line outside fastload and contextlib."""
    frame: FrameType | None = sys._getframe(1)
    level = 2
    while frame is not None and _is_ours(frame.f_code.co_filename):
        frame, level = frame.f_back, level + 1
    warnings.warn(sentence, stacklevel=level - 1 if frame is None else level)


def _is_ours(file: str) -> bool:
    return file.startswith(_PACKAGE) or Path(file).name == "contextlib.py"
