"""README.md and the pages in docs/: their code runs, their links work, the files that they name exist.

The Python blocks of a page run one after the other in a folder with a few shards; of a diff, its new side
runs. In a page, `<!-- in the tests: ... -->` is code that runs here and is not shown, and
`<!-- not run: why -->` above a block says why it does not run.
"""

import re
from pathlib import Path

import pytest

from tests import preloaded
from tests.loader.samples import write_shards
from tests.trainers.recipe_run import PROGRAM

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
PAGES = ["README.md", *DOCS]
WITH_PATHS = [*PAGES, "benchmarks/README.md", "CHANGELOG.md"]
BLOCK = re.compile(
    r"^<!-- in the tests:\n(?P<hidden>.*?)^-->$"
    r"|^(?:<!-- not run: (?P<why>[^\n]+) -->\n\n)?^```(?P<language>[^\n]*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
REPOSITORY_PATH = re.compile(r"`((?:benchmarks|csrc|docs|examples|fastload|tests|\.ci)/[\w./-]+)`")


def code_of(text: str) -> str:
    """All code of a page that runs, each block at its own line: an error names the line of the page."""
    code = ""
    for block in BLOCK.finditer(text):
        kind = "hidden" if block["hidden"] else "code"
        runs = block[kind]
        if block["why"] or block["language"] not in (None, "python", "diff"):
            continue
        if block["language"] == "diff":
            runs = re.sub(r"^(?:-.*|[ +])", "", runs, flags=re.MULTILINE)
        code += "\n" * (text.count("\n", 0, block.start(kind)) - code.count("\n")) + runs
    return code


def languages(text: str) -> list[str]:
    """Of the blocks that run or should."""
    return [block["language"] for block in BLOCK.finditer(text) if block["code"] and not block["why"]]


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> list[str]:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.is_file() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    return broken


def test_hidden_code_and_new_sides_run_and_marked_blocks_do_not():
    text = """
<!-- in the tests:
a = 1
-->

```python
b = 2
```

<!-- not run: shell -->

```sh
rm -r /
```

```diff
-c = 3
+c = 4
 d = 5
```
"""
    names = {}
    exec(code_of(text), names)
    assert {name: names.get(name) for name in "abcd"} == {"a": 1, "b": 2, "c": 4, "d": 5}
    assert code_of(text).splitlines().index("d = 5") == text.splitlines().index(" d = 5")
    assert languages(text) == ["python", "diff"]


@pytest.mark.parametrize("page", PAGES)
def test_a_block_runs_or_says_why_it_does_not(page):
    text = (ROOT / page).read_text()
    programs = [block.group(0).split("\n", 1)[0][3:] for block in PROGRAM.finditer(text)]
    assert page == "docs/resume.md" or not programs  # the page whose programs run in tests/trainers
    assert set(languages(text)) <= {"python", "diff", *programs}
    assert len(re.findall("^```", text, re.MULTILINE)) == 2 * sum(
        block["code"] is not None for block in BLOCK.finditer(text)
    )


@pytest.mark.parametrize("page", [page for page in PAGES if code_of((ROOT / page).read_text())])
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    write_shards(tmp_path / "shards", 24, 6)
    monkeypatch.chdir(tmp_path)
    done = preloaded.run(code_of((ROOT / page).read_text()), limit_seconds=120)
    assert done.status == 0, done.err


@pytest.mark.parametrize("page", WITH_PATHS)
def test_links_lead_somewhere(page):
    assert broken_links(ROOT / page, (ROOT / page).read_text()) == []


def test_a_link_to_a_missing_file_or_heading_is_noticed():
    links = "[](#use-it) [](docs/order.md#ranks) [](#none) [](none.md) [](docs/order.md#none)"
    assert broken_links(ROOT / "README.md", links) == ["#none", "none.md", "docs/order.md#none"]
    assert anchors("# A heading, of `this`\n```sh\n# none\n```\n") == {"a-heading-of-this"}


@pytest.mark.parametrize("page", WITH_PATHS)
def test_files_that_a_page_names_exist(page):
    named = REPOSITORY_PATH.findall((ROOT / page).read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_readme_links_to_every_page_and_has_the_speed_of_its_page():
    readme = (ROOT / "README.md").read_text()
    missing = [page for page in DOCS if page != "docs/index.md" and f"({page})" not in readme]
    assert missing == []
    table = re.search(r"^\| \| 500x375.*?\n\n", readme, re.MULTILINE | re.DOTALL)
    assert table and table[0] in (ROOT / "docs/speed.md").read_text()
