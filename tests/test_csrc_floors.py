"""The folders of csrc/ keep their floors: includes only go down, and Python is met in the bindings alone.

Every file is read, none is compiled. Bindings release the GIL with `base/unlocked`, the only other file that
includes Python.
"""

import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[1] / "csrc"
FLOORS = [{"ops"}, {"decode"}, {"read"}, {"order", "shards"}, {"base"}]
LEVEL = {folder: level for level, folders in enumerate(FLOORS) for folder in folders}
PYTHON = re.compile(r"pybind11/|Python\.h|base/unlocked\.h|.*_binding\.h")
MEETS_PYTHON = re.compile(r"bindings\.cpp|base/unlocked\.(h|cpp)|\w+/\w+_binding\.(h|cpp)")

SOURCES = {path.relative_to(CSRC).as_posix(): path.read_text() for path in sorted(CSRC.rglob("*.*"))}


def includes(source):
    return re.findall(r'^\s*#\s*include [<"]([^">]+)[">]', source, re.MULTILINE)


def sideways_or_up(source, file):
    own = file.split("/")[0]
    for name in includes(source):
        folder = name.split("/")[0]
        if folder in LEVEL and folder != own and LEVEL[folder] <= LEVEL[own]:
            yield f"{file} includes {name}, and {folder} is not below {own}"


def python_outside_bindings(source, file):
    if not MEETS_PYTHON.fullmatch(file):
        yield from (f"{file} includes {name}" for name in includes(source) if PYTHON.match(name))


def circle(sources):
    """The files of the first circle of includes, or None. sources: the text of each file."""
    try:
        TopologicalSorter({file: includes(source) for file, source in sources.items()}).prepare()
    except CycleError as error:
        return error.args[1]


def test_every_file_is_in_a_folder_of_the_plan():
    assert [file for file in SOURCES if file.split("/")[0] not in LEVEL] == ["bindings.cpp"]


def test_every_include_of_ours_names_its_folder():
    ours = {Path(file).name for file in SOURCES}
    found = {name for source in SOURCES.values() for name in includes(source) if Path(name).name in ours}
    assert found <= set(SOURCES)


def test_includes_only_go_down():
    below = {file: source for file, source in SOURCES.items() if file != "bindings.cpp"}
    assert [fault for file, source in below.items() for fault in sideways_or_up(source, file)] == []


def test_only_bindings_meet_python():
    found = (python_outside_bindings(source, file) for file, source in SOURCES.items())
    assert [fault for faults in found for fault in faults] == []


def test_no_files_include_each_other():
    assert circle(SOURCES) is None


@pytest.mark.parametrize(
    "check, file, source",
    [
        (sideways_or_up, "base/thread_pool.h", '#include "read/open_files.h"'),
        (sideways_or_up, "order/mixture.cpp", '#include "shards/index_lookup.h"'),
        (sideways_or_up, "decode/image_batch.h", '#include <cstdint>\n#include "ops/augment.h"'),
        (python_outside_bindings, "order/philox.cpp", "#include <pybind11/numpy.h>"),
        (python_outside_bindings, "read/open_files.cpp", '#include "base/unlocked.h"'),
        (python_outside_bindings, "base/kernel_choice.h", "#include <Python.h>"),
        (python_outside_bindings, "shards/tar_index.cpp", '  #include "shards/sample_rows_binding.h"'),
    ],
)
def test_what_breaks_a_rule_is_found(check, file, source):
    assert len(list(check(source, file))) == 1


def test_a_circle_of_includes_is_found():
    around = {"read/a.h": '#include "read/b.h"', "read/b.h": '#include "read/c.h"'}
    assert circle(around) is None
    assert set(circle({**around, "read/c.h": '#include "read/a.h"'})) == {"read/a.h", "read/b.h", "read/c.h"}


@pytest.mark.parametrize(
    "check, file, source",
    [
        (sideways_or_up, "ops/ada.cpp", '#include "order/philox.h"\n#include "ops/ada.h"\n#include <cmath>'),
        (sideways_or_up, "read/buffer_pool.h", '// #include "ops/ada.h"\n#include "base/per_process.h"'),
        (python_outside_bindings, "order/philox_binding.cpp", '#include "base/unlocked.h"'),
        (python_outside_bindings, "bindings.cpp", "#include <pybind11/pybind11.h>"),
    ],
)
def test_what_keeps_the_rules_is_left_alone(check, file, source):
    assert list(check(source, file)) == []
