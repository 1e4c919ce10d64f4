"""`recursight data import`, `show` and `prepare` with clips, as a person runs them."""

import csv
import json
import shutil
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from recursight.data.store import open_store
from recursight.layout import Layout

from .clip_files import bar, write_video
from .conftest import git
from .test_clip_sources import write_classes
from .test_commands import run


@pytest.fixture
def streams(tmp_path: Path) -> Path:
    """Six streams with events."""
    rows = ["path,start_seconds,end_seconds,label,group"]
    for number in range(6):
        write_video(tmp_path / "streams" / f"{number}.mp4", bar(60, number))
        rows += [f"{number}.mp4,0,0.5,run,p{number}", f"{number}.mp4,1.2,1.9,jump,p{number}"]
    (tmp_path / "streams" / "events.csv").write_text("\n".join(rows))
    return tmp_path / "streams"


def test_import_show_and_prepare_clips(
    project: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_classes(tmp_path / "source", "clip.mp4")
    status, out, err = run(monkeypatch, capsys, "data", "import", str(tmp_path / "source"))
    assert (status, err) == (0, "")
    assert "16 clips from folder; height×width 32×48 (16); rgb (16)" in out
    assert "248 frames, 8.3 s; shortest clip 12 frames, median 16, longest 19" in out
    assert "Frames per second: 30 (16)" in out
    assert "Tasks that these data allow: classification, frame_labels" in out
    original = (tmp_path / "source" / "left" / "clip-3.mp4").read_bytes()
    assert (project.data / "left" / "clip-3.mp4").read_bytes() == original
    status, out, _ = run(monkeypatch, capsys, "data", "show", "--out", "sheet.png", "--per-class", "1")
    assert status == 0
    assert "Contact sheet: sheet.png" in out
    with Image.open("sheet.png") as sheet:
        assert sheet.format == "PNG"
    project.params.write_text("candidates: {gru: {layer: gru}}\nprepare: {frames: {rate: 15, crop: [0, 0, 16, 16]}}\n")
    status, out, _ = run(monkeypatch, capsys, "prepare")
    assert status == 0
    assert "16 clips with 2 different labels, 128 frames, 16×16, RGB, from folder: train" in out
    assert (open_store(project.store).examples["rate"] == 15).all()


def test_import_streams(
    project: Layout, streams: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (streams / "4.mp4").write_bytes((streams / "4.mp4").read_bytes()[:500])
    status, _, err = run(monkeypatch, capsys, "data", "import", str(streams))
    assert status == 2
    assert "4.mp4 " in err
    assert "Traceback" not in err
    status, out, _ = run(monkeypatch, capsys, "data", "import", str(streams), "--skip-bad")
    assert status == 0
    assert "5 clips from events" in out
    assert "10 events; frames outside of them are background" in out
    assert "Tasks that these data allow: frame_labels\n" in out
    assert "params.yaml asks for classification; set task: frame_labels" in out
    with (project.data / "events.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["path"] for row in rows} == {"0.mp4", "1.mp4", "2.mp4", "3.mp4", "5.mp4"}
    assert [row["end_seconds"] for row in rows[:2]] == ["0.5", "1.9"]
    assert not (project.data / "4.mp4").exists()
    status, _, _ = run(monkeypatch, capsys, "prepare")
    assert status == 0
    assert open_store(project.store).targets["start_frame"].tolist() == [0, 36] * 5


def test_numbered_frames_and_their_assumption(
    project: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_classes(tmp_path / "source", "clip", per_class=4)
    status, out, _ = run(monkeypatch, capsys, "data", "import", str(tmp_path / "source"))
    assert status == 0
    assert "Folders of numbered frames, such as left/clip-0/, were read as one clip each." in out
    assert (project.data / "left" / "clip-0" / "frame0012.png").is_file()


def test_a_folder_inside_an_archive(
    project: Layout, streams: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = streams.parent / "clips"
    clips.mkdir()
    for number in range(6):
        shutil.copy(streams / f"{number}.mp4", clips)
    lines = [f"{number}.mp4,{'ab'[number % 2]}" for number in range(6)]
    (clips / "manifest.csv").write_text("\n".join(["path,label", *lines]))
    with tarfile.open("all.tar", "w") as archive:
        archive.add(clips, "all/clips")
        archive.add(streams, "all/streams")
    status, _, err = run(monkeypatch, capsys, "data", "import", "all.tar")
    assert status == 2
    assert "all/ contains 2 data sets: all/clips, all/streams; import one of them" in err
    status, _, err = run(monkeypatch, capsys, "data", "import", "all.tar", "--folder", "all/clip")
    assert status == 2
    assert "all.tar has no folder all/clip; did you mean 'all/clips'?" in err
    assert run(monkeypatch, capsys, "data", "import", "all.tar", "--folder", "../..")[0] == 2
    status, out, _ = run(monkeypatch, capsys, "data", "import", "all.tar", "--folder", "all/clips", "--json")
    assert status == 0
    summary = json.loads(out[out.index("{") :])
    assert (summary["kind"], summary["count"], summary["tasks"]) == ("clips", 6, ["classification", "frame_labels"])
    git(project.root, "commit", "--all", "--message", "Clips")
    status, out, _ = run(monkeypatch, capsys, "data", "import", "all.tar", "--folder", "all/streams", "--json")
    assert status == 0
    assert json.loads(out[out.index("{") :])["events"] == 12


def test_moving_digits_by_name(
    project: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(monkeypatch, capsys, "data", "import", "moving-digits-events")
    assert status == 0
    assert "144 clips from events; height×width 16×16 (144); grey (144)" in out
