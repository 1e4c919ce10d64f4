"""`recursight data import` and `show`, as a person runs them."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from recursight import cli
from recursight.layout import Layout

from .conftest import git


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    monkeypatch.setattr("sys.argv", ["recursight", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


def test_import_archive_then_show(
    project: Layout, flowers: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (flowers / "2" / "notes.txt").write_text("not an image")
    with tarfile.open("flowers.tar.gz", "w:gz") as archive:
        archive.add(flowers, "flowers")
    status, out, _ = run(monkeypatch, capsys, "data", "import", "flowers.tar.gz")
    assert status == 0
    assert [line.split() for line in out.splitlines() if line.startswith("10 ")] == [["10", "20"]]
    assert "40 images from folder; height×width 6×5 (40); grey (40)" in out
    assert "2/notes.txt" in out
    assert "git add data.dvc" in out
    assert not list(project.state.glob(".source.*"))
    status, out, _ = run(monkeypatch, capsys, "data", "show", "--out", "sheet.png", "--json")
    assert status == 0
    summary = json.loads(out[out.index("{") :])
    assert (summary["format"], summary["count"], summary["sheet"]) == ("parquet", 40, "sheet.png")
    with Image.open("sheet.png") as sheet:
        assert sheet.format == "PNG"


def test_one_parquet_file(
    project: Layout, flowers: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, capsys, "data", "import", str(flowers))
    git(project.root, "commit", "--all", "--message", "Flowers")
    shutil.copy(project.data / "images-00000.parquet", "train.parquet")
    status, out, _ = run(monkeypatch, capsys, "data", "import", "train.parquet", "--json")
    assert status == 0
    assert json.loads(out[out.index("{") :])["splits"] == {"train": {"2": 20, "10": 20}}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "nowhere is neither a path nor the name of a data set; known: digits, moving-digits"),
        (["minst"], "did you mean 'mnist'?"),
        (["params.yaml"], "params.yaml is a single file; pass its folder"),
        ([".", "--from", "."], "--from needs the name of a data set"),
        (["mnist", "--from", "."], "has no train-images-idx3-ubyte.gz; mnist needs"),
        (["empty"], "empty is empty."),
    ],
)
def test_what_cannot_be_imported(
    project: Layout,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    (project.root / "empty").mkdir()
    before = project.data_dvc.read_text()
    status, _, err = run(monkeypatch, capsys, "data", "import", *arguments)
    assert status == 2
    assert sentence in err
    assert "Traceback" not in err
    assert project.data_dvc.read_text() == before
    assert len(list(project.data.iterdir())) == 2


def test_show_without_data(
    project: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(project.data)
    status, _, err = run(monkeypatch, capsys, "data", "show")
    assert status == 2
    assert err.startswith("recursight: data/ is missing: get it with `dvc pull data.dvc`, or bring images: ")


def test_every_command_shows_an_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("import", "show"):
        assert f"Example: recursight data {command}" in run(monkeypatch, capsys, "data", command, "--help")[1]


def test_no_name_reaches_the_terminal_raw(
    project: Layout, flowers: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (flowers / "10").rename(flowers / "ten\x1b]0;pwned\x07")
    (flowers / "2" / "notes\x1b[2J.txt").write_text("not an image")
    (flowers / "2" / "bad\x1b[2J.png").write_bytes(b"")
    status, out, err = run(monkeypatch, capsys, "data", "import", str(flowers))
    assert status == 2
    assert "2/bad\\x1b[2J.png is empty." in err
    status, shown, _ = run(monkeypatch, capsys, "data", "import", str(flowers), "--skip-bad")
    assert status == 0
    assert "ten\\x1b]0;pwned\\x07" in shown
    missing = run(monkeypatch, capsys, "data", "import", "no\x1b[2Jthing")
    sheet = run(monkeypatch, capsys, "data", "show")
    assert (missing[0], sheet[0]) == (2, 0)
    assert "\x1b" not in out + err + shown + "".join(missing[1:] + sheet[1:])
