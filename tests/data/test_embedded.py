"""The embedded data set, on a fresh clone of this repository."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from recursight import commands
from recursight.data.imports import import_data
from recursight.data.readers import open_source
from recursight.data.records import Record
from recursight.layout import Layout

from .conftest import dvc, git

ROOT = Path(__file__).parents[2]


def records(folder: Path) -> list[Record]:
    return [item for item in open_source(folder).read() if isinstance(item, Record)]


def test_a_fresh_clone_gets_it_without_a_network(tmp_path: Path, digits: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    git(ROOT, "clone", "--quiet", str(ROOT), str(tmp_path / "clone"))
    dvc(tmp_path / "clone", "pull", "data.dvc")
    pulled, made = records(tmp_path / "clone" / "data"), records(digits)
    assert len(pulled) == 1797
    assert [record[:4] for record in pulled] == [record[:4] for record in made]
    for one, other in zip(pulled, made, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def test_what_is_pinned_there_is_there() -> None:
    assert "url = ../embedded" in (ROOT / ".dvc" / "config").read_text()
    out = yaml.safe_load((ROOT / "data.dvc").read_text())["outs"][0]
    assert out["remote"] == "embedded"
    assert (ROOT / "embedded" / "files" / "md5" / out["md5"][:2] / out["md5"][2:]).is_file()


def test_own_images_cannot_be_pushed_there(tmp_path: Path, flowers: Path) -> None:
    """The folder is tracked by git: they would be published with the next commit."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    clone = tmp_path / "clone"
    git(ROOT, "clone", "--quiet", str(ROOT), str(clone))
    (clone / ".dvc" / "config").write_text((ROOT / ".dvc" / "config").read_text())
    git(clone, "commit", "--all", "--allow-empty", "--message", "as it is")
    import_data(Layout(clone), flowers, validation=0.15, test=0.2)
    for target in ([], ["data.dvc"]):
        pushed = commands.dvc(clone, "push", *target)
        assert pushed.returncode
        assert "no remote specified" in pushed.stderr
    assert git(clone, "status", "--porcelain", "embedded") == ""
