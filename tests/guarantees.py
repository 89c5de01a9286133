"""How often each promise was checked: a pytest plugin that counts cases and writes them down.

In: `cases("elastic", 1234)` in a test, as often as it likes. Out, with `--guarantees FILE`: JSON with the
commit, the date, the machine, and for every promise the cases and tests. Promised: only tests that passed
count, their teardown included; a test that checked no case fails.
"""

import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks.end_to_end import machine

PROPERTY = "cases"  # of a test's report, so that it also comes home from another process


def pytest_addoption(parser):
    parser.addoption("--guarantees", metavar="FILE", help="write how many cases of each promise were checked")


def pytest_configure(config):
    path = config.getoption("--guarantees")
    # A worker of pytest-xdist has the option too, and sees a part of the tests.
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Guarantees(Path(path)), "guarantees")


@pytest.fixture
def cases(request):
    """cases(promise, count): this test has checked so many cases of that promise."""

    def checked(promise: str, count: int) -> None:
        assert count > 0, f"no case of {promise!r} was checked"
        request.node.user_properties.append((PROPERTY, (promise, count)))

    return checked


class _Guarantees:
    """Collects the tests' reports; the file is written when the run ends."""

    def __init__(self, path: Path):
        self._path = path
        self._checked: dict[str, list] = {}  # test -> [(promise, count)]
        self._not_passed: set[str] = set()

    def pytest_runtest_logreport(self, report):
        if not report.passed or hasattr(report, "wasxfail"):
            self._not_passed.add(report.nodeid)
        if report.when == "teardown":
            self._checked[report.nodeid] = [
                value for name, value in report.user_properties if name == PROPERTY
            ]

    def pytest_sessionfinish(self):
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(origin() | {"promises": self._promises()}, indent=1) + "\n")

    def pytest_terminal_summary(self, terminalreporter):
        for promise, one in self._promises().items():
            terminalreporter.write_line(f"{promise}: {one['cases']:,} cases in {len(one['tests'])} tests")

    def _promises(self) -> dict[str, dict]:
        promises: dict[str, dict] = {}
        for test, checked in self._checked.items():
            for promise, count in checked if test not in self._not_passed else ():
                one = promises.setdefault(promise, {"cases": 0, "tests": []})
                one["cases"] += count
                if test not in one["tests"]:
                    one["tests"].append(test)
        return dict(sorted(promises.items()))


def origin() -> dict:
    """Where a count comes from; the commit in ten digits, with -dirty where files differ from it."""
    checkout = machine.commit()
    commit = checkout["commit"] and checkout["commit"][:10] + "-dirty" * checkout["dirty"]
    return {
        "commit": commit,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine.machine()["cpu"],
        "python": platform.python_version(),
        "torch": version("torch"),
    }
