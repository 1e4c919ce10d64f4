"""A folder becomes one parquet file, whatever happens on the way."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from recursight.data.store import open_store
from recursight.errors import InputError
from recursight.registry import register
from recursight.serving import folder as module
from recursight.serving import parts
from recursight.serving.champion import load_champion, predict_files
from recursight.serving.folder import score_folder
from recursight.serving.listing import count_images
from recursight.serving.prediction_log import read_log
from tests.projects import change_params


@pytest.fixture
def champion(project):
    register(project)
    return load_champion(project)


@pytest.fixture
def pictures(project, tmp_path) -> Path:
    """300 PNG files in nested folders, a JPEG of another size, and files that are no images."""
    images = open_store(project.store).frames[:300, :, :, 0]
    for number, image in enumerate(images):
        path = tmp_path / "pictures" / f"{number % 3}" / f"deep{number % 2}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    Image.fromarray(images[0]).convert("RGB").resize((30, 20)).save(tmp_path / "pictures" / "above.JPG")
    (tmp_path / "pictures" / "notes.txt").write_text("no image")
    (tmp_path / "pictures" / ".hidden.png").write_text("no image")
    return tmp_path / "pictures"


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(module, "BATCH", 16)
    monkeypatch.setattr(parts, "PART_ROWS", 64)


def left_behind(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_rows_are_what_single_files_get(champion, pictures, tmp_path):
    out = tmp_path / "out" / "predictions.parquet"
    seen = []
    scored = score_folder(champion, pictures, out, found=lambda images, scores: seen.append((images, scores)))
    assert (scored.rows, scored.resumed, scored.skipped) == (301, 0, 0)
    assert count_images(pictures) == 301
    table = pd.read_parquet(out)
    assert list(table.columns) == ["path", "predicted", "confidence", "probabilities", "model", "version"]
    assert list(table["path"]) == sorted(table["path"])
    ((_, images, scores),) = list(predict_files(champion, [pictures / path for path in table["path"][:200]]))
    assert (np.concatenate([each for each, _ in seen])[:200] == images).all()
    assert np.stack(table["probabilities"][:200].to_list()) == pytest.approx(scores, abs=1e-5)
    assert list(table["predicted"][:200]) == [champion.vocabulary[index] for index in scores.argmax(axis=1)]
    assert json.loads(pq.read_schema(out).metadata[b"vocabulary"]) == list(champion.vocabulary)
    assert set(table["version"]) == {1}
    assert left_behind(out.parent) == []


def test_many_parts_make_the_same_file(champion, pictures, tmp_path, small_parts):
    score_folder(champion, pictures, tmp_path / "small.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "PART_ROWS", 10_000)
        score_folder(champion, pictures, tmp_path / "large.parquet", threads=1)
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "small.parquet"), pd.read_parquet(tmp_path / "large.parquet")
    )


def test_unreadable_images_are_refused_or_left_out(champion, pictures, tmp_path, small_parts):
    for name in ("1/deep0/0000.png", "2/deep1/zzz.png"):
        (pictures / name).write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    out = tmp_path / "predictions.parquet"
    with pytest.raises(InputError, match=r"0000\.png is not an image(.|\n)*--skip-bad"):
        score_folder(champion, pictures, out)
    assert not out.exists()
    skipped: list[str] = []
    scored = score_folder(champion, pictures, out, skip=skipped.append)
    assert scored.resumed > 0, "what came before the first bad one was kept"
    assert [Path(sentence.split(" ")[0]).name for sentence in skipped] == ["0000.png", "zzz.png"]
    assert (scored.rows, scored.skipped) == (301, 2)
    assert len(pd.read_parquet(out)) == 301


def test_nothing_to_score_is_said(champion, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        score_folder(champion, tmp_path / "empty", tmp_path / "predictions.parquet")
    with pytest.raises(InputError, match="is a folder"):
        score_folder(champion, tmp_path / "empty", tmp_path)


def test_a_second_writer_is_refused(champion, pictures, tmp_path):
    out = tmp_path / "predictions.parquet"

    def meanwhile(images, scores):
        with pytest.raises(InputError, match="another `recursight predict`"):
            score_folder(champion, pictures, out)

    score_folder(champion, pictures, out, found=meanwhile)


def test_memory_does_not_grow_with_the_folder(champion, pictures, tmp_path, small_parts, monkeypatch):
    listed = done = furthest = 0
    whole = parts.list_images

    def counted(folder):
        nonlocal listed, furthest
        for each in whole(folder):
            listed += 1
            furthest = max(furthest, listed - done)
            yield each

    def report(so_far):
        nonlocal done
        done = so_far

    monkeypatch.setattr(parts, "list_images", counted)
    score_folder(champion, pictures, tmp_path / "predictions.parquet", report=report, threads=2)
    assert listed == 301
    assert furthest <= 16 * (2 * 2 + 2)


KILLED = """
import sys
from pathlib import Path
from recursight.layout import Layout
from recursight.serving import folder, parts
from recursight.serving.champion import load_champion
folder.BATCH, parts.PART_ROWS = 16, 64
root, pictures, out = map(Path, sys.argv[1:])
def report(done):
    print(done, flush=True)
    sys.stdin.readline()
folder.score_folder(load_champion(Layout(root)), pictures, out, report=report)
"""


@pytest.mark.slow
@pytest.mark.parametrize("changed", [False, True], ids=["unchanged", "changed"])
def test_a_killed_run_goes_on_unless_the_images_have_changed(champion, project, pictures, tmp_path, changed):
    out = tmp_path / "predictions.parquet"
    command = [sys.executable, "-c", KILLED, str(project.root), str(pictures), str(out)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    while int(process.stdout.readline()) < 200:  # it waits for a line after each batch
        process.stdin.write("\n")
        process.stdin.flush()
    process.kill()
    process.communicate()
    assert not out.exists()
    if changed:
        os.utime(pictures / "0" / "deep0" / "000.png", ns=(1, 1))
    (pictures / "2" / "deep1" / "zzz.png").write_bytes((pictures / "2" / "deep1" / "005.png").read_bytes())
    scored = score_folder(champion, pictures, out)
    assert scored.rows == 302
    assert scored.resumed == (0 if changed else 192), "three parts of 64 were whole"
    assert left_behind(tmp_path) == []
    score_folder(champion, pictures, tmp_path / "again.parquet")
    ours, again = pd.read_parquet(out), pd.read_parquet(tmp_path / "again.parquet")
    assert list(ours["path"]) == list(again["path"])
    assert np.stack(ours["probabilities"].to_list()) == pytest.approx(
        np.stack(again["probabilities"].to_list()), abs=1e-6
    )


@pytest.mark.slow
def test_the_command_scores_a_folder(champion, project, pictures):
    (pictures / "bad.png").write_text("no image")
    change_params(project, "serve", log_folder_rows=100)
    command = [sys.executable, "-c", "from recursight.cli import main; main()", "predict"]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *words], cwd=project.root, capture_output=True, text=True, env=dict(os.environ), check=False
        )

    refused = run(str(pictures), "--out", "predictions.parquet")
    assert refused.returncode == 2
    assert "bad.png is not an image" in refused.stderr
    done = run(str(pictures), "--out", "predictions.parquet", "--skip-bad")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [f"skipped: {pictures / 'bad.png'} is not an image that can be decoded."]
    assert "301 images by recursight version 1" in done.stdout
    assert len(pd.read_parquet(project.root / "predictions.parquet")) == 301
    assert 60 < len(read_log(project.predictions)) < 140  # by both; 100, and five standard deviations
    assert "--out" in run(str(pictures)).stderr


def test_ctrl_c_keeps_what_is_done(champion, pictures, tmp_path, small_parts):
    out = tmp_path / "predictions.parquet"

    def interrupt(done):
        if done >= 100:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        score_folder(champion, pictures, out, report=interrupt)
    assert score_folder(champion, pictures, out).resumed >= 100


def test_hostile_names_are_scored_and_escaped(champion, pictures, tmp_path, small_parts):
    names = [b"caf\xe9.png", b"clear\x1b[2J.png"]
    (content,) = [(pictures / "0" / "deep0" / "000.png").read_bytes()]
    for name in names:
        Path(os.fsdecode(os.fsencode(pictures) + b"/" + name)).write_bytes(content)
    scored = score_folder(champion, pictures, tmp_path / "out.parquet")
    assert scored.rows == 303
    assert {"caf\\udce9.png", "clear\\x1b[2J.png"} <= set(pd.read_parquet(tmp_path / "out.parquet")["path"])
