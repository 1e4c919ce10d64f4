"""Following a branch with a real git: what is new is taken, and what is here alone stays."""

import subprocess
from pathlib import Path

import pytest
import yaml

from recursight.layout import Layout
from recursight.operations.upstream import follow


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)


def commit(folder: Path, **files: str) -> None:
    write(folder, **files)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "change")


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    folder = tmp_path / "origin"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "main")
    params = {"candidates": {"gru": {"layer": "gru"}}}
    commit(folder, params_yaml=yaml.safe_dump(params), dvc_yaml="stages: {}\n", data_dvc="first")
    return folder


@pytest.fixture
def clone(origin: Path, tmp_path: Path) -> Layout:
    git(tmp_path, "clone", "--quiet", str(origin), "clone")
    return Layout(tmp_path / "clone")


def test_a_new_commit_is_taken(origin: Path, clone: Layout) -> None:
    commit(origin, data_dvc="second")
    assert "took origin/main" in follow(clone)
    assert clone.data_dvc.read_text() == "second"
    assert "nothing new" in follow(clone)


def test_uncommitted_work_stays(origin: Path, clone: Layout) -> None:
    commit(origin, data_dvc="second")
    clone.data_dvc.write_text("mine")
    assert "so as to lose nothing here" in follow(clone)
    assert clone.data_dvc.read_text() == "mine"


def test_a_commit_that_is_here_alone_stays(origin: Path, clone: Layout) -> None:
    commit(origin, data_dvc="second")
    commit(clone.root, dvc_yaml="stages: {} # mine\n")
    assert "so as to lose nothing here" in follow(clone)
    assert clone.data_dvc.read_text() == "first"


@pytest.mark.parametrize("known", [True, False])
def test_the_lock_of_computed_stages_gives_way(origin: Path, clone: Layout, known: bool) -> None:
    if known:
        commit(origin, dvc_lock="old")
        follow(clone)
    commit(origin, dvc_lock="theirs", data_dvc="second")
    (clone.root / "dvc.lock").write_text("mine")
    assert "took origin/main" in follow(clone)
    assert (clone.root / "dvc.lock").read_text() == "theirs"


def test_the_lock_stays_where_nothing_can_be_taken(origin: Path, clone: Layout) -> None:
    commit(origin, dvc_lock="theirs", data_dvc="second")
    (clone.root / "dvc.lock").write_text("mine")
    clone.data_dvc.write_text("mine")
    assert "so as to lose nothing here" in follow(clone)
    assert (clone.root / "dvc.lock").read_text() == "mine"


def test_an_unreachable_origin_stops_nothing(origin: Path, clone: Layout) -> None:
    origin.rename(origin.with_name("away"))
    assert "cannot be reached" in follow(clone)


def test_a_branch_of_its_own_and_params_can_say_no(origin: Path, clone: Layout) -> None:
    params = yaml.safe_load((origin / "params.yaml").read_text()) | {"retrain": {"follow_upstream": False}}
    (clone.root / "params.yaml").write_text(yaml.safe_dump(params))
    assert "is off" in follow(clone)
    assert "follows none" in follow(Layout(origin))
