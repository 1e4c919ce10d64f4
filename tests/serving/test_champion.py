"""The champion answers for image files."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from recursight.data.store import open_store
from recursight.errors import InputError
from recursight.registry import register
from recursight.serving.champion import load_champion, predict_files
from recursight.serving.prediction_log import read_log
from recursight.tracking.connection import fluent


@pytest.fixture
def champion(project):
    register(project)
    return load_champion(project)


@pytest.fixture
def pictures(project):
    """Test images as files: grey PNG, an RGB JPEG of another size."""
    images = open_store(project.store).frames[:3]
    paths = [project.root / f"{index}.png" for index in range(2)]
    for path, image in zip(paths, images, strict=False):
        Image.fromarray(image[:, :, 0]).save(path)
    Image.fromarray(images[2][:, :, 0]).convert("RGB").resize((40, 20)).save(project.root / "wide.jpg")
    return [*paths, project.root / "wide.jpg"]


def test_files_are_answered_like_the_arrays_that_they_hold(champion, pictures, project):
    ((paths, decoded, scores),) = predict_files(champion, pictures)
    answers = champion.task.present(scores, champion.vocabulary)
    images = np.array(open_store(project.store).frames[:2])
    assert list(paths) == pictures
    assert (decoded[:2] == images).all()
    assert scores[:2] == pytest.approx(champion.answers(images), abs=1e-6)
    assert len(answers) == 3
    for answer in answers:
        assert answer["class"] in champion.vocabulary
        assert answer["probability"] == max(answer["probabilities"].values())
        assert sum(answer["probabilities"].values()) == pytest.approx(1)


def test_any_number_of_images_is_answered(champion, project):
    images = np.array(open_store(project.store).frames)
    scores = champion.answers(images)
    assert scores.shape == (len(images), len(champion.vocabulary))
    assert len(images) > 1024
    assert champion.answers(images[-1:])[0] == pytest.approx(scores[-1], abs=1e-5)
    assert champion.answers(images[:0]).shape == (0, len(champion.vocabulary))
    assert champion.task.present(champion.answers(images[:0]), champion.vocabulary) == []


def test_answers_are_what_mlflow_answers(champion, project):
    images = np.array(open_store(project.store).frames[:5])
    with fluent(project) as mlflow:
        table = mlflow.pyfunc.load_model("models:/recursight@champion").predict(images)
    assert table.to_dict("records") == champion.task.present(champion.answers(images), champion.vocabulary)


def test_every_file_that_is_no_image_is_named(champion, pictures, project):
    (project.root / "text.png").write_text("not an image")
    wrong = [project.root / "missing.png", project.root / "text.png", project.root]
    with pytest.raises(InputError) as caught:
        list(predict_files(champion, [*pictures, *wrong]))
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "missing.png: does not exist" in lines[0]
    assert "text.png: is not an image" in lines[1]
    assert "is a folder" in lines[2]


def test_without_a_champion_the_command_that_makes_one_is_named(project):
    with pytest.raises(InputError, match="recursight register"):
        load_champion(project)


def test_a_champion_that_cannot_be_loaded_is_said_plainly(project):
    register(project)
    for path in (project.root / "mlartifacts" / "models").glob("m-*/artifacts/artifacts/network.pt2"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="champion of 'recursight' cannot be used: version 1 cannot be loaded"):
        load_champion(project)


def test_the_command_prints_a_line_per_file(project, pictures):
    register(project)
    command = [
        sys.executable,
        "-c",
        "from recursight.cli import main; main()",
        "predict",
        *map(str, pictures),
        "--json",
    ]
    done = subprocess.run(command, cwd=project.root, capture_output=True, text=True, env=dict(os.environ), check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["file"] for line in lines] == [str(path) for path in pictures]
    assert all(line["probabilities"][line["class"]] == line["probability"] for line in lines)
    logged = read_log(project.predictions)
    assert list(logged["predicted"]) == [line["class"] for line in lines]
    assert set(logged["source"]) == {"predict"}


MAPPED = """
import ctypes, sys
from pathlib import Path
import torch
from recursight.layout import Layout
from recursight.serving.champion import load_champion
class Information(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (*"abc", "mapped_blocks", *"efghij")]
information = ctypes.CDLL("libc.so.6").mallinfo2
information.restype = Information
load_champion(Layout(Path(sys.argv[1])))
before = information().mapped_blocks
kept, large = torch.zeros(7_500_000), torch.zeros(50_000_000)
print(information().mapped_blocks - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is asked to keep memory")
def test_a_batch_finds_the_memory_of_the_one_before(champion, project):
    """Of a model with convolutions, mapping it anew takes half of the time; what a photograph needs goes back."""
    said = subprocess.run([sys.executable, "-c", MAPPED, str(project.root)], capture_output=True, check=True, text=True)
    assert said.stdout.split() == ["1"]
