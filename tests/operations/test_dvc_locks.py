"""What DVC notes of processes that are gone is cleared away, and nothing else."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from secrets import token_urlsafe

import pytest

from recursight.layout import Layout
from recursight.operations.dvc_locks import BROKEN, half_copies, stale_notes

DVC = [sys.executable, "-m", "dvc"]


@pytest.fixture
def noted(tmp_path: Path) -> Path:
    path = tmp_path / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(parents=True)
    return path


def test_notes_of_ended_processes_go_and_those_of_running_ones_stay(noted: Path, tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    dead, living = ({"pid": pid, "cmd": "dvc repro"} for pid in (ended.pid, os.getpid()))
    noted.write_text(json.dumps({"write": {"a": dead, "b": living}, "read": {"c": [dead, living], "d": [dead]}}))
    for clear in (False, True):
        assert stale_notes(Layout(tmp_path), clear) == [f"process {ended.pid}"]
    assert json.loads(noted.read_text()) == {"write": {"b": living}, "read": {"c": [living]}}
    assert stale_notes(Layout(tmp_path), True) == []


def test_half_a_file_is_repaired_so_that_dvc_works_again(noted: Path, tmp_path: Path) -> None:
    root = tmp_path
    subprocess.run([*DVC, "init", "--no-scm", "--force", "--quiet"], cwd=root, check=True)
    (root / "dvc.yaml").write_text("stages: {copy: {cmd: cp a b, deps: [a], outs: [b]}}\n")
    (root / "a").write_text("a")
    noted.parent.mkdir(exist_ok=True)
    noted.write_text('{"write": {"a": ')
    assert "corrupted" in subprocess.run([*DVC, "repro"], cwd=root, capture_output=True, text=True).stderr
    assert stale_notes(Layout(root), True) == [BROKEN]
    subprocess.run([*DVC, "repro", "--quiet"], cwd=root, check=True)


def test_half_copies_go_once_no_dvc_works(noted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "artifacts" / "candidates"
    folder.mkdir(parents=True)
    half, others = folder / f".{token_urlsafe(16)}.tmp", [folder / ".notes.tmp", folder / "gru.tmp"]
    for path in (half, *others):
        path.write_text("x")
    lock = noted.parent / "lock"
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert half_copies(Layout(tmp_path), [folder], True) == []
    for clear in (False, True):
        assert half_copies(Layout(tmp_path), [folder], clear) == [half]
    assert sorted(folder.iterdir()) == sorted(others)


def test_a_project_in_which_dvc_never_worked_has_none(tmp_path: Path) -> None:
    assert stale_notes(Layout(tmp_path), True) == []
