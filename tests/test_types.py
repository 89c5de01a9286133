"""Types reach users: mypy and pyright find the two planted mistakes of a user's file, and nothing else."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import fastload as fl
from fastload.backends import has

ROOT = Path(__file__).resolve().parents[1]
USER = """
from typing import Any

import fastload as fl
from fastload.augment import AdaPipe

fields = {"image": fl.Image(size=64), "label": fl.Int("cls"), "text": fl.Custom("txt", len)}
augment = fl.Augment(xflip=0.5, color_jitter=(0.4, 0.4, 0.4, 0.1))
loader: fl.Loader = fl.Loader("shards/*.tar", batch_size=8, fields=fields, augment=augment)
pipe: AdaPipe = fl.augment.AdaPipe.named("bgc")
for batch in loader:
    entries: dict[str, Any] = batch
    changed = fl.ops.ada_augment(pipe(batch["image"]), pipe.draw(8, 3, 64, 64))
torch_way = fl.DataLoader(fl.Dataset("shards/*.tar", fields), batch_size=8, shuffle=True)
loader.load_state_dict(loader.state_dict())
mixture = fl.Mixture({"one": ("one.tar", 1.0), "other": ("other.tar", 2.0)}, epoch_samples=100)
try:
    fl.Loader(mixture, 8, fields)
except fl.ConfigError as error:
    print(error)
"""
MISTAKES = {
    'fl.Loader("x.tar", batch_size=8, fields=fields, batch_sise=3)': "batch_sise",
    "fl.Nope": "Nope",
}


@pytest.fixture
def user(tmp_path) -> Path:
    """A user's file, in a folder with the settings of both checkers."""
    path = tmp_path / "user.py"
    path.write_text(USER + "\n".join(MISTAKES) + "\n")
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)]}))
    return path


def lines_of(user: Path) -> list[int]:
    lines = user.read_text().splitlines()
    return [lines.index(mistake) + 1 for mistake in MISTAKES]


@pytest.mark.skipif(not has("mypy"), reason="mypy is not installed")
def test_mypy_finds_the_mistakes_of_a_user_and_no_others(user, tmp_path):
    # torch's own types take mypy half a minute, and say nothing about these names.
    (tmp_path / "mypy.ini").write_text("[mypy]\n[mypy-torch.*,numpy.*]\nfollow_imports = skip\n")
    command = [sys.executable, "-m", "mypy", "--output", "json", "--follow-imports", "silent", user.name]
    environment = {"MYPYPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    errors = [one for one in found if one["severity"] == "error"]
    assert [one["line"] for one in errors] == lines_of(user), done.stdout + done.stderr
    assert all(name in one["message"] for name, one in zip(MISTAKES.values(), errors, strict=True))


@pytest.mark.skipif(not has("pyright"), reason="pyright is not installed")
def test_pyright_finds_the_mistakes_of_a_user_and_no_others(user, tmp_path):
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, user.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    found = json.loads(done.stdout)["generalDiagnostics"]
    errors = [one for one in found if one["severity"] == "error"]
    assert [one["range"]["start"]["line"] + 1 for one in errors] == lines_of(user), done.stdout
    assert all(name in one["message"] for name, one in zip(MISTAKES.values(), errors, strict=True))


@pytest.mark.parametrize("module", [fl, fl.augment], ids=["fastload", "fastload.augment"])
def test_a_stub_has_the_names_of_its_module(module):
    stub = ast.parse(Path(module.__file__).with_suffix(".pyi").read_text())
    imported = {
        alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assigned = {node.target.id for node in stub.body if isinstance(node, ast.AnnAssign)}
    assert (imported | assigned) - {"_native"} == set(module.__all__)


def test_completion_shows_the_public_names_alone():
    shown = {name for name in dir(fl) if not name.startswith("__")}
    assert shown == set(fl.__all__) - {"__version__"}


def test_the_stub_of_the_native_module_has_its_names():
    from fastload import _native

    stub = ast.parse((ROOT / "fastload/_native.pyi").read_text())
    named = {node.name for node in stub.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    named |= {node.target.id for node in stub.body if isinstance(node, ast.AnnAssign)}
    assert named - {"__all__"} == {name for name in dir(_native) if not name.startswith("__")}
