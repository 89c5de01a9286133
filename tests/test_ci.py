"""The steps of the scripts in .ci: what fails or is skipped is said, and is in the result."""

import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / ".ci"


@pytest.fixture
def steps_of(monkeypatch, tmp_path):
    """steps_of(*arguments): the steps of a script that was called with them; their folder is tmp_path's."""
    spec = importlib.util.spec_from_file_location("steps_of_ci", SCRIPTS / "steps.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)

    def steps_of(*arguments):
        monkeypatch.setattr(sys, "argv", ["script", *arguments])
        return module.Steps("some", "A script.", "--python")

    return steps_of


def test_a_script_whose_steps_pass_exits_with_0_and_keeps_its_result(steps_of, tmp_path):
    steps = steps_of("--out", str(tmp_path / "results"), "--python", "python3.12")
    assert steps.arguments.python == "python3.12"
    assert steps.run("hello", [sys.executable, "-c", "import os; print(os.environ['A'])"], A="/some/folder/x")
    assert steps.finish() == 0
    page, result = sorted((tmp_path / "results").iterdir(), key=lambda path: path.suffix, reverse=True)
    assert page.name.startswith("some-20") and page.stem == result.stem
    kept = json.loads(result.read_text())
    assert kept["commit"].keys() >= {"commit", "dirty"} and kept["machine"]["python"]
    assert [(step["name"], step["outcome"], step["detail"]) for step in kept["steps"]] == [
        ("hello", "passed", "x")
    ]
    assert "1 passed, 0 failed, 0 skipped" in page.read_text()


def test_a_failed_step_is_shown_and_the_script_exits_with_1(steps_of, capsys):
    steps = steps_of()
    assert not steps.run("bad", [sys.executable, "-c", "import sys; print('reason'); sys.exit(3)"])
    steps.check("files", ["missing: a"], "12 files")
    assert steps.finish() == 1
    shown = capsys.readouterr().out
    assert "reason" in shown and "missing: a" in shown and "0 passed, 2 failed, 0 skipped" in shown


def test_a_skipped_step_is_said_and_fails_nothing(steps_of, capsys):
    steps = steps_of()
    steps.skip("Python 3.99", "no python3.99")
    steps.check("files", [], "12 files")
    assert steps.finish() == 0
    shown = capsys.readouterr().out
    assert "!!! Python 3.99 SKIPPED: no python3.99" in shown and "1 passed, 0 failed, 1 skipped" in shown


def test_a_command_hears_ctrl_c_even_if_the_script_is_a_background_job(steps_of):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = "import signal; assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN"
        assert steps_of().run("signal", [sys.executable, "-c", code])
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("script", ["docs", "versions", "wheels"])
def test_a_script_explains_itself_and_names_no_path_of_a_machine(script):
    done = subprocess.run([sys.executable, SCRIPTS / script, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "Run by hand." in done.stdout and "--out" in done.stdout
    text = (SCRIPTS / script).read_text() + (SCRIPTS / "steps.py").read_text()
    assert not [word for word in ("/root", "/home", "/opt", "http", "~") if word in text]
