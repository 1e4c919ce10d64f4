"""What is logged is there, is bounded, and survives whoever wrote it."""

import io
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from PIL import Image

from recursight.data.statistics import image_statistics
from recursight.registry.loading import LoadedVersion
from recursight.serving.prediction_log import COLUMNS, PredictionLog, read_log
from recursight.tasks import make_task

CLASSES = ("cat", "dog", "bird")
TASK = make_task("classification", {})
MODEL = LoadedVersion("pets", 7, TASK, CLASSES, (8, 8, 1), "pad", None)


def some(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images and probabilities."""
    drawn = np.random.default_rng(seed)
    return drawn.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8), drawn.dirichlet(np.ones(3), count)


def test_every_column_is_there(tmp_path):
    images, scores = some(5)
    before = datetime.now(UTC)
    with PredictionLog(tmp_path, rows=1000) as log:
        log.record("serve", MODEL, images, scores)
    found = read_log(tmp_path)
    statistics = image_statistics(images)
    answers = ["predicted", "confidence", "probabilities", "model", "version"]
    assert list(found.columns) == ["time", "source", *answers, *statistics]
    assert list(found["predicted"]) == [CLASSES[index] for index in scores.argmax(axis=1)]
    assert found["confidence"].to_numpy() == pytest.approx(scores.max(axis=1))
    assert np.stack(found["probabilities"].to_list()) == pytest.approx(scores)
    for name, values in statistics.items():
        assert found[name].dtype == np.float32
        assert found[name].to_numpy() == pytest.approx(values)
    assert set(found["model"]) == {"pets"}
    assert set(found["version"]) == {7}
    assert str(found["time"].dt.tz) == "UTC"
    assert found["time"].between(before, datetime.now(UTC)).all()


def test_images_are_kept_only_if_asked_for(tmp_path):
    images, scores = some(2)
    with PredictionLog(tmp_path, rows=1000, images=True) as log:
        log.record("serve", MODEL, images, scores)
    found = read_log(tmp_path)
    assert (np.asarray(Image.open(io.BytesIO(found["image"][1]))) == images[1, :, :, 0]).all()


def test_a_share_is_drawn_at_random_from_all(tmp_path):
    every = []
    with PredictionLog(tmp_path, rows=100_000) as log:
        for seed in range(20):
            images, scores = some(500, seed)
            log.record("predict", MODEL, images, scores, share=0.1, wait=True)
            every += list(zip(image_statistics(images)["contrast"], scores.max(axis=1).astype(np.float32), strict=True))
    found = read_log(tmp_path)
    assert 850 < len(found) < 1150  # 1,000 and five standard deviations
    places = [every.index(row) for row in zip(found["contrast"], found["confidence"], strict=True)]
    assert places == sorted(places)
    assert {place // 500 for place in places} == set(range(20))


def test_what_was_said_before_a_time_is_left_out(tmp_path):
    images, scores = some(3)
    with PredictionLog(tmp_path, rows=1000, flush_seconds=0.01) as log:
        log.record("serve", MODEL, images, scores)
        moment = datetime.now(UTC) + timedelta(microseconds=1)
        log.record("predict", MODEL, images, scores)
    assert set(read_log(tmp_path, since=moment)["source"]) == {"predict"}
    assert len(read_log(tmp_path)) == 6
    assert len(read_log(tmp_path, since=datetime.now(UTC))) == 0


def test_an_empty_log_has_its_columns(tmp_path):
    assert list(read_log(tmp_path / "nothing").columns) == list(COLUMNS)


def test_the_oldest_rows_make_room(tmp_path):
    with PredictionLog(tmp_path, rows=400) as log:
        for seed in range(100):
            log.record("predict", MODEL, *some(10, seed), wait=True)
    found = read_log(tmp_path)
    assert 300 <= len(found) <= 410
    newest = some(10, 99)[1].max(axis=1)
    assert found["confidence"].to_numpy()[-10:] == pytest.approx(newest)
    with PredictionLog(tmp_path, rows=80) as log:
        log.record("predict", MODEL, *some(10), wait=True)
    assert len(read_log(tmp_path)) <= 90


def test_versions_and_writers_share_a_folder(tmp_path):
    other = LoadedVersion("pets", 8, TASK, ("yes", "no"), (8, 8, 1), "pad", None)
    with PredictionLog(tmp_path, rows=1000) as one, PredictionLog(tmp_path, rows=1000) as two:
        one.record("serve", MODEL, *some(4))
        one.record("serve", other, some(4)[0], np.full((4, 2), 0.5))
        two.record("predict", MODEL, *some(4))
    found = read_log(tmp_path)
    assert sorted(found["version"]) == [7] * 8 + [8] * 4
    assert all(
        len(row) == (2 if version == 8 else 3)
        for row, version in zip(found["probabilities"], found["version"], strict=True)
    )


def test_a_log_that_cannot_be_written_holds_nobody_up(tmp_path, caplog):
    folder = tmp_path / "log"
    with PredictionLog(folder, rows=1000, flush_seconds=0.01) as log:
        folder.rmdir()
        folder.write_text("in the way")
        log.record("serve", MODEL, *some(3))
        deadline = threading.Event()
        while not caplog.records:
            assert not deadline.wait(0.01)
        log.record("serve", MODEL, *some(3))
    assert "the prediction log cannot be written" in caplog.text


WRITER = """
import sys
from pathlib import Path
from recursight.serving.prediction_log import PredictionLog
from tests.serving.test_prediction_log import MODEL, some
log = PredictionLog(Path(sys.argv[1]), rows=100_000, flush_seconds=0.01)
for number in range(1_000_000):
    log.record("serve", MODEL, *some(5, number))
    if number % 100 == 0:
        print(number, flush=True)
"""


def test_a_killed_writer_leaves_whole_files(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    while not list(tmp_path.glob("[!.]*.parquet")):
        assert process.stdout.readline()
    for _ in range(5):
        process.stdout.readline()
    process.kill()
    process.communicate()
    found = read_log(tmp_path)
    assert len(found) >= 5
    expected = np.concatenate([some(5, number)[1].max(axis=1) for number in range(len(found) // 5)])
    assert len(found) % 5 == 0
    assert found["confidence"].to_numpy() == pytest.approx(expected)
    PredictionLog(tmp_path, rows=100_000).close()
    assert not list(tmp_path.glob(".*")), "what the killed one was writing is swept away"
