"""The count of checked cases: passed tests count, others do not, and the file says where it comes from."""

import json
import re

import pytest

from tests import guarantees

TESTS = """
    import pytest

    def test_two_promises(cases):
        cases("elastic", 10)
        cases("elastic", 5)
        cases("pixels", 1)

    @pytest.mark.parametrize("n", [1, 2])
    def test_of_each_n(cases, n):
        cases("elastic", n)

    def test_without_cases():
        pass

    def test_that_fails_after_counting(cases):
        cases("elastic", 1000)
        assert False

    @pytest.fixture
    def bad_end():
        yield
        assert False

    def test_whose_teardown_fails(cases, bad_end):
        cases("elastic", 1000)

    def test_that_skips_after_counting(cases):
        cases("elastic", 1000)
        pytest.skip("no")

    @pytest.mark.xfail(strict=False)
    def test_that_is_expected_to_fail_and_passes(cases):
        cases("elastic", 1000)
"""


@pytest.fixture
def run(pytester):
    """run(tests, *arguments): the result of a pytest of their own, with the plugin."""

    def run(tests, *arguments):
        pytester.makepyfile(test_some=tests)
        return pytester.runpytest_inprocess("-p", "tests.guarantees", *arguments)

    return run


def test_passed_tests_count_and_no_others(run, tmp_path):
    out = tmp_path / "new" / "guarantees.json"
    result = run(TESTS, f"--guarantees={out}")
    result.assert_outcomes(passed=5, failed=1, errors=1, skipped=1, xpassed=1)
    assert json.loads(out.read_text())["promises"] == {
        "elastic": {
            "cases": 18,
            "tests": [
                "test_some.py::test_two_promises",
                "test_some.py::test_of_each_n[1]",
                "test_some.py::test_of_each_n[2]",
            ],
        },
        "pixels": {"cases": 1, "tests": ["test_some.py::test_two_promises"]},
    }
    result.stdout.fnmatch_lines(["elastic: 18 cases in 3 tests", "pixels: 1 cases in 1 tests"])


def test_the_file_names_commit_date_machine_and_versions(run, tmp_path, monkeypatch):
    monkeypatch.setattr(guarantees.machine, "machine", lambda: {"cpu": "Some CPU"})
    monkeypatch.setattr(guarantees.machine, "commit", lambda: {"commit": "0123456789abcdef", "dirty": True})
    run("def test_nothing(): pass", f"--guarantees={tmp_path / 'out.json'}")
    written = json.loads((tmp_path / "out.json").read_text())
    assert (written["commit"], written["machine"]) == ("0123456789-dirty", "Some CPU")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", written["date"])
    assert re.match(r"3\.\d+", written["python"]) and re.match(r"\d+\.\d+", written["torch"])
    assert written["promises"] == {}


@pytest.mark.parametrize(
    "checkout, commit",
    [
        ({"commit": "0123456789abcdef", "dirty": False}, "0123456789"),
        ({"commit": None, "dirty": None, "reason": "not a git checkout"}, None),
    ],
)
def test_a_clean_commit_has_no_mark_and_no_checkout_no_commit(monkeypatch, checkout, commit):
    monkeypatch.setattr(guarantees.machine, "commit", lambda: checkout)
    assert guarantees.origin()["commit"] == commit


def test_without_the_option_tests_may_count_and_nothing_is_written(run, pytester):
    result = run("def test_some(cases): cases('elastic', 1)")
    result.assert_outcomes(passed=1)
    assert not list(pytester.path.glob("*.json"))


@pytest.mark.parametrize("count", [0, -1])
def test_a_test_that_checked_no_case_fails(run, count):
    result = run(f"def test_some(cases): cases('elastic', {count})")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*no case of 'elastic' was checked*"])
