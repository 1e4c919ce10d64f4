import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recursight.layout import Layout

from .pictures import pictures, splits_of, write_folder


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


def dvc(root: Path, *arguments: str) -> str:
    command = [str(Path(sys.executable).parent / "dvc"), *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="session")
def project_template(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """A project with git and DVC whose data/ is the digits, pinned, in an embedded remote, and committed."""
    root = tmp_path_factory.mktemp("template") / "project"
    root.mkdir()
    git(root, "init", "--quiet")
    dvc(root, "init", "--quiet")
    dvc(root, "config", "core.analytics", "false")
    dvc(root, "config", "core.autostage", "false")
    dvc(root, "remote", "add", "embedded", "embedded")
    (root / "params.yaml").write_text("candidates:\n  gru:\n    layer: gru\n")
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / ".gitignore").write_text("/.recursight/\n/artifacts/\n")
    shutil.copytree(digits, root / "data")
    dvc(root, "add", "--quiet", "data")
    with (root / "data.dvc").open("a") as stream:
        stream.write("  remote: embedded\n")
    dvc(root, "push", "--quiet", "data.dvc")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "Digits")
    return root


@pytest.fixture
def project(project_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A copy of that project; it is also the working folder."""
    root = tmp_path / "project"
    shutil.copytree(project_template, root, symlinks=True)
    monkeypatch.chdir(root)
    return Layout(root)


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """An image folder outside the project: 2 classes of 20 grey images, without splits."""
    write_folder(tmp_path / "flowers", splits_of(pictures(), False))
    return tmp_path / "flowers"
