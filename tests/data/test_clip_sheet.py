from pathlib import Path

import numpy as np
from PIL import Image

from recursight.data import clip_sheet
from recursight.data.clip_sheet import CAPTION_HEIGHT, FRAMES, GAP, HEIGHT, LABEL_WIDTH, WIDTH, label_at, shown_frames
from recursight.data.findings import Findings
from recursight.data.readers import open_source

from .clip_files import bar, write_npy
from .test_clip_sources import write_classes


def test_six_evenly_spaced_frames() -> None:
    assert shown_frames(11) == [0, 2, 4, 6, 8, 10]
    assert shown_frames(101) == [0, 20, 40, 60, 80, 100]
    assert shown_frames(3) == [0, 1, 2]
    assert shown_frames(1) == [0]


def test_a_row_for_each_of_a_few_clips_of_each_class(tmp_path: Path) -> None:
    write_classes(tmp_path / "source", "clip.mp4")
    findings = Findings(open_source(tmp_path / "source"))
    strips = clip_sheet.survey(findings, per_class=3)
    assert [strip.clip.record.label for strip in strips] == ["left"] * 3 + ["right"] * 3
    hashes = sorted(row.tobytes() for row in findings.sha256[findings.labels == 0])
    assert [strip.sha256 for strip in strips[:3]] == hashes[:3]
    for strip in strips:
        assert list(strip.frames) == shown_frames(strip.clip.frames)
    clip_sheet.draw(tmp_path / "sheet.png", strips)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (6 * (HEIGHT + GAP) + GAP, LABEL_WIDTH + FRAMES * (WIDTH + GAP) + GAP, 3)
    for row in range(6):
        top = GAP + row * (HEIGHT + GAP)
        assert (sheet[top : top + HEIGHT, :LABEL_WIDTH] < 100).any()  # the label
        for column in range(FRAMES):
            left = LABEL_WIDTH + column * (WIDTH + GAP)
            picture = sheet[top : top + HEIGHT, left : left + WIDTH]
            assert (picture < 60).any()
            assert (picture > 180).any()


def test_frames_are_those_of_their_clip(tmp_path: Path) -> None:
    write_classes(tmp_path / "source", "clip.npy", per_class=4)
    for strip in clip_sheet.survey(Findings(open_source(tmp_path / "source")), per_class=2):
        clip = np.load(strip.clip.record.image)
        for number, picture in strip.frames.items():
            np.testing.assert_array_equal(np.asarray(picture)[::2, ::2], clip[number])  # enlarged twice


def test_labels_of_the_frames_of_streams(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_npy(tmp_path / f"{name}.npy", bar(30, ord(name)))
    (tmp_path / "events.csv").write_text("path,start_frame,end_frame,label\na.npy,6,12,run\nb.npy,0,30,jump\n")
    strips = clip_sheet.survey(Findings(open_source(tmp_path)))
    by_name = {strip.clip.record.id: strip for strip in strips}
    assert [label_at(by_name["a.npy"].clip, frame) for frame in (5, 6, 11, 12)] == [
        "background",
        "run",
        "run",
        "background",
    ]
    clip_sheet.draw(tmp_path / "sheet.png", strips)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height == 2 * (HEIGHT + CAPTION_HEIGHT + GAP) + GAP
