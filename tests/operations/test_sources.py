"""data/ against data.dvc with a real DVC and git: whichever is new is taken, and nothing is lost."""

import hashlib
from pathlib import Path

import pytest
import yaml

from recursight.errors import InputError
from recursight.layout import Layout
from recursight.operations.sources import Sources, causes, settle_data
from tests.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A clone with the digits, a second version of the data in the cache, and a remote."""
    made = Workspace(tmp_path)
    made.fill()
    return made


@pytest.fixture
def layout(workspace: Workspace) -> Layout:
    return Layout(workspace.root)


def pinned(layout: Layout) -> str:
    return str(yaml.safe_load(layout.data_dvc.read_text())["outs"][0]["md5"])


def untouched() -> None:
    raise AssertionError("nothing new was to be read")


def sound() -> None: ...


def test_nothing_is_done_where_both_agree(layout: Layout) -> None:
    assert settle_data(layout, untouched) is None
    assert Sources.of(layout).data == pinned(layout)


def test_missing_data_is_pulled(workspace: Workspace, layout: Layout) -> None:
    workspace.run("rm", "-r", "data")
    assert "data.dvc pins" in str(settle_data(layout, untouched))
    assert len(list(layout.data.iterdir())) == 2


def test_new_files_are_pinned_once_they_are_read(workspace: Workspace, layout: Layout) -> None:
    before = pinned(layout)
    (layout.data / "more.txt").write_text("new")
    read = []
    assert "new files" in str(settle_data(layout, lambda: read.append(pinned(layout))))
    assert read == [before]  # checked first, pinned then
    assert pinned(layout) != before
    assert "remote" not in yaml.safe_load(layout.data_dvc.read_text())["outs"][0]
    assert workspace.run("dvc", "status", "data.dvc").strip().endswith("up to date.")


def test_files_that_cannot_be_read_are_not_pinned(layout: Layout) -> None:
    before = layout.data_dvc.read_bytes()
    (layout.data / "more.txt").write_text("new")

    def refuse() -> None:
        raise InputError("no images")

    with pytest.raises(InputError, match="no images"):
        settle_data(layout, refuse)
    assert layout.data_dvc.read_bytes() == before


def test_files_that_change_while_they_are_read_are_not_pinned(layout: Layout) -> None:
    before = layout.data_dvc.read_bytes()
    (layout.data / "more.txt").write_text("new")
    with pytest.raises(InputError, match="was changed while"):
        settle_data(layout, lambda: (layout.data / "another.txt").write_text("newer") and None)
    assert layout.data_dvc.read_bytes() == before


def test_a_new_pin_is_checked_out(workspace: Workspace, layout: Layout) -> None:
    before = pinned(layout)
    (layout.data / "more.txt").write_text("new")
    settle_data(layout, sound)
    workspace.run("git", "checkout", "--quiet", "data.dvc")
    assert f"pins, {before}" in str(settle_data(layout, untouched))
    assert not (layout.data / "more.txt").exists()


def test_a_pin_from_elsewhere_is_pulled_from_the_remote(workspace: Workspace, layout: Layout, tmp_path: Path) -> None:
    workspace.run("dvc", "remote", "add", "--default", "shared", str(tmp_path / "shared"))
    (layout.data / "more.txt").write_text("new")
    settle_data(layout, sound)
    new = pinned(layout)
    workspace.run("dvc", "push", "--quiet", "data.dvc")
    workspace.commit("new data")
    workspace.run("git", "checkout", "--quiet", "HEAD~1", "--", "data.dvc")
    settle_data(layout, untouched)
    path = layout.root / ".dvc" / "cache" / "files" / "md5" / new[:2] / new[2:]
    path.unlink()
    workspace.run("git", "checkout", "--quiet", "HEAD", "--", "data.dvc")
    assert new in str(settle_data(layout, untouched))
    assert (layout.data / "more.txt").read_text() == "new"


def test_a_version_that_no_remote_has_is_a_sentence(workspace: Workspace, layout: Layout) -> None:
    text = layout.data_dvc.read_text().replace("0d1785af", "1d1785af")
    layout.data_dvc.write_text(text)
    with pytest.raises(InputError, match="no configured DVC remote"):
        settle_data(layout, untouched)
    assert len(list(layout.data.iterdir())) == 2


def test_half_a_version_is_not_checked_out(workspace: Workspace, layout: Layout) -> None:
    before = pinned(layout)
    (layout.data / "more.txt").write_text("new")
    settle_data(layout, sound)
    new = pinned(layout)
    workspace.run("git", "checkout", "--quiet", "data.dvc")
    settle_data(layout, untouched)
    md5 = hashlib.md5(b"new").hexdigest()
    (layout.root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]).unlink()
    layout.data_dvc.write_text(layout.data_dvc.read_text().replace(before, new))
    with pytest.raises(InputError, match="no configured DVC remote"):
        settle_data(layout, untouched)
    assert len(list(layout.data.iterdir())) == 2


def test_where_both_are_new_people_decide(layout: Layout) -> None:
    layout.data_dvc.write_text(layout.data_dvc.read_text().replace("0d1785af", "1d1785af"))
    (layout.data / "more.txt").write_text("new")
    with pytest.raises(InputError, match="are new"):
        settle_data(layout, untouched)
    assert (layout.data / "more.txt").exists()


def test_data_that_is_nowhere_is_a_sentence(workspace: Workspace, layout: Layout) -> None:
    workspace.run("rm", "-r", "data", "data.dvc")
    with pytest.raises(InputError, match="data import"):
        settle_data(layout, untouched)


def test_data_without_a_pin_gets_one(workspace: Workspace, layout: Layout) -> None:
    before = pinned(layout)
    workspace.run("rm", "data.dvc")
    assert "no data.dvc" in str(settle_data(layout, sound))
    assert pinned(layout) == before


def test_causes_are_what_people_change(workspace: Workspace, layout: Layout) -> None:
    workspace.change_params(candidates={"gru": {"layer": "gru"}})
    workspace.run("dvc", "repro", "prepare")
    assert not [cause for cause in causes(layout) if cause.startswith(("prepare", "data", "src/recursight/data"))]
    (layout.data / "more.txt").write_text("new")
    workspace.change_params(prepare={"seed": 1})
    path = layout.root / "src" / "recursight" / "data" / "split.py"
    path.write_text(path.read_text() + "\n")
    found = causes(layout)
    assert {"data is modified", "prepare in params.yaml is modified", "src/recursight/data is modified"} <= set(found)
    assert len(found) == len(set(found))


def test_sources_differ_where_anything_does(workspace: Workspace, layout: Layout) -> None:
    first = Sources.of(layout)
    assert first == Sources.of(layout)
    workspace.change_params(prepare={"seed": 1})
    assert Sources.of(layout).params != first.params
    path = layout.root / "flows" / "pipeline.py"
    path.write_text(path.read_text() + "\n")
    second = Sources.of(layout)
    assert (second.code != first.code, second.data == first.data) == (True, True)
    assert str(second.git_commit).endswith("-dirty")
