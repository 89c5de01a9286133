"""The Python code of every page in docs/ runs, page by page, in a folder with a few shards."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.loader.samples import write_shards

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def code_of(page: str) -> str:
    """All blocks of a page, each at its own line, so that an error names the line of the page."""
    text, code = (DOCS / page).read_text(), ""
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(1))
        code += "\n" * (line - code.count("\n")) + block.group(1)
    return code


def test_there_are_pages_with_code():
    assert PAGES and all(code_of(page) for page in PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page, tmp_path):
    write_shards(tmp_path / "shards", 24, 6)
    (tmp_path / page).with_suffix(".py").write_text(code_of(page))
    command = [sys.executable, str(Path(page).with_suffix(".py"))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
