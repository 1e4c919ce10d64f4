"""The commit that results are recorded with."""

from pathlib import Path

from recursight.commands import git
from recursight.provenance import git_commit


def test_a_commit_is_dirty_if_a_tracked_file_has_changed_except_for_dvc_lock(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None
    project = tmp_path / "project"
    project.mkdir()
    for name in ("dvc.lock", "params.yaml"):
        (project / name).write_text("before")
    (tmp_path / "README.md").write_text("before")
    git(tmp_path, "init", "--quiet")
    assert git_commit(project) is None, "nothing is committed"
    git(tmp_path, "add", "--all")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "all")
    commit = git(tmp_path, "rev-parse", "HEAD").stdout.strip()
    assert git_commit(project) == commit
    (project / "dvc.lock").write_text("by a stage")
    (project / "untracked").write_text("new")
    assert git_commit(project) == commit
    (tmp_path / "README.md").write_text("after")
    assert git_commit(project) == f"{commit}-dirty"
