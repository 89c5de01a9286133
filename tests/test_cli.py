"""The command line as a shell sees it: exit codes, one-line errors, nothing heavy before a verb is known."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from fastload import cli
from fastload.errors import ConfigError, ShardError, SourceError


@dataclass(frozen=True)
class Report:
    problems: int = 0

    def to_dict(self):
        return {"problems": self.problems, "key": "ß"}

    def render(self):
        return f"{self.problems} problems"


@dataclass(frozen=True)
class ReportWithError(Report):
    error: str = "x.png: no\nspace."


class Verb:
    """A fake module of fastload/prepare: returns or raises what the test wants."""

    def __init__(self, outcome):
        self.outcome = outcome

    def add_options(self, parser):
        parser.add_argument("source", nargs="?")
        parser.add_argument("--size", type=int, default=256)

    def __getattr__(self, verb):
        def function(**options):
            if isinstance(self.outcome, BaseException):
                raise self.outcome
            return self.outcome

        return function


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a command whose verbs all do `outcome`; returns (exit code, stdout, stderr)."""

    def run(*words, outcome=None):
        monkeypatch.setattr(cli, "import_module", lambda name: Verb(outcome))
        code = cli.main(list(words))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def in_a_process(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "fastload.cli", *words], capture_output=True, text=True, timeout=60, **options
    )


def test_help_imports_nothing_heavy():
    code = "import sys; from fastload import cli; cli.main(['--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.splitlines()[-1]
    for heavy in ("'numpy'", "'torch'", "'PIL'", "'fastload.prepare'", "'fastload._native'"):
        assert heavy not in loaded


def test_help_answers_in_under_a_fifth_of_a_second():
    # CPU seconds, and the best of some: other work on the machine can only make a run slower.
    def cpu_seconds():
        before = os.times()
        assert in_a_process("--help").returncode == 0
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert any(cpu_seconds() < 0.2 for _ in range(5))


def test_help_names_every_verb(run):
    code, out, _ = run("--help")
    assert code == 0
    assert all(verb in out for verb in cli.VERBS)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_the_help_of_a_verb_needs_no_torch(verb):
    code = (
        f"import sys; from fastload import cli; print(cli.main(['{verb}', '--help']), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr
    assert "--json" in done.stdout


def test_a_missing_verb_is_wrong_usage(run):
    code, out, err = run()
    assert (code, out) == (2, "")
    assert "usage: fastload" in err


@pytest.mark.parametrize(
    "words", [("dance",), ("demo", "--sise", "9"), ("demo", "--size", "wide"), ("--size", "9")]
)
def test_a_mistyped_command_is_wrong_usage(run, words):
    code, out, err = run(*words, outcome=Report())
    assert (code, out) == (2, "")
    assert "usage: fastload" in err and "Traceback" not in err


def test_a_report_is_printed_and_the_exit_code_is_zero(run):
    assert run("demo", outcome=Report()) == (0, "0 problems\n", "")


def test_json_prints_one_object_and_nothing_else(run):
    code, out, err = run("demo", "--json", outcome=Report())
    assert (code, err) == (0, "")
    assert json.loads(out) == {"problems": 0, "key": "ß"}


def test_a_report_with_an_error_is_printed_before_its_error(run):
    code, out, err = run("demo", outcome=ReportWithError())
    assert (code, out, err) == (1, "0 problems\n", "fastload: error: x.png: no space.\n")
    _, out, _ = run("demo", "--json", outcome=ReportWithError())
    assert json.loads(out)["problems"] == 0


def test_problems_in_the_data_are_exit_code_one(run):
    assert run("demo", outcome=Report(problems=3)) == (1, "3 problems\n", "")


@pytest.mark.parametrize(
    "error, code",
    [
        (SourceError("no such file: a.tar. Check the path."), 1),
        (ShardError("a.tar: cut\nat byte 512."), 1),
        (PermissionError(13, "Permission denied", "a.tar"), 1),
        (ConfigError("size is 0: give 1 or more."), 2),
    ],
)
def test_our_errors_are_a_single_line_on_stderr(run, error, code):
    returned, out, err = run("demo", outcome=error)
    assert (returned, out) == (code, "")
    assert err.startswith("fastload: error: ") and err.count("\n") == 1


def test_an_error_that_is_not_ours_is_not_hidden(run):
    with pytest.raises(ZeroDivisionError):
        run("demo", outcome=ZeroDivisionError())


def test_ctrl_c_is_quiet_and_130(run):
    assert run("demo", outcome=KeyboardInterrupt()) == (130, "", "")


def test_a_closed_pipe_is_not_an_error():
    read_end, write_end = os.pipe()
    os.close(read_end)
    code = (
        "import sys; from types import SimpleNamespace as Made; from fastload import cli\n"
        "report = Made(render=lambda: 'x')\n"
        "verb = Made(add_options=lambda parser: None, demo=lambda: report)\n"
        "cli.import_module = lambda name: verb\n"
        "sys.exit(cli.main(['demo']))\n"
    )
    with os.fdopen(write_end, "wb") as pipe:
        done = subprocess.run([sys.executable, "-c", code], stdout=pipe, stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


def test_version_is_the_package_version():
    from fastload import __version__

    assert in_a_process("--version").stdout == f"fastload {__version__}\n"
