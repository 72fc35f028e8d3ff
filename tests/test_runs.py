import shlex
import subprocess
import sys
from pathlib import Path

from pipeline import runs
from pipeline.runs import versions


def test_versions_hold_the_command_as_a_shell_takes_it_and_the_time(monkeypatch):
    asked = ["entk", "run", "my config.yaml", "--set", "executor={kind: local}"]
    monkeypatch.setattr(sys, "argv", asked)
    found = versions()
    assert shlex.split(found["command"]) == asked
    assert found["started"].endswith("Z")


def test_versions_hold_the_commit_of_a_checkout_alone(monkeypatch, tmp_path):
    package = tmp_path / "pipeline"
    package.mkdir()
    monkeypatch.setattr(runs, "__file__", str(package / "runs.py"))
    assert runs._commit() is None
    (package / "__init__.py").touch()
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    for arguments in (("init",), ("commit", "--allow-empty", "-m", "first")):
        _git(tmp_path, *identity, *arguments)
    assert runs._commit() is None, "installed inside another project's checkout"
    _git(tmp_path, "add", ".")
    _git(tmp_path, *identity, "commit", "-m", "second")
    commit = runs._commit()
    assert commit == _git(tmp_path, "rev-parse", "HEAD")
    (package / "__init__.py").write_text("changed = True\n")
    assert runs._commit() == f"{commit}-dirty"


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    return done.stdout.strip()
