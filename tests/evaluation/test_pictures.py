"""Pictures open, repeat byte by byte, and bear any number and any name of classes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recursight.evaluation.pictures import draw_confusion, draw_mistakes, draw_reliability
from recursight.evaluation.scores import normalised, reliability


def drawn_twice(draw: Callable[[Path], None], folder: Path) -> Image.Image:
    for name in ("first.png", "second.png"):
        draw(folder / name)
    assert (folder / "first.png").read_bytes() == (folder / "second.png").read_bytes()
    picture = Image.open(folder / "first.png")
    picture.load()
    assert "Software" not in picture.info
    return picture.convert("RGB")


def inked(picture: Image.Image) -> float:
    """Share of the pixels that are not white."""
    return float((np.asarray(picture) < 250).any(axis=2).mean())


@pytest.mark.parametrize("count", [2, 10, 100])
def test_confusion_of_any_size(count: int, tmp_path: Path) -> None:
    generator = np.random.default_rng(count)
    counts = np.diag(generator.integers(10, 90, count)) + generator.integers(0, 2, (count, count))
    classes = [f"class number {index}" for index in range(count)]
    picture = drawn_twice(lambda path: draw_confusion(path, counts, normalised(counts), classes), tmp_path)
    assert picture.width > 1.7 * picture.height  # two matrices side by side
    assert picture.height < 2500


def test_a_mistake_has_another_hue_than_a_right_answer(tmp_path: Path) -> None:
    def hues(counts: np.ndarray) -> tuple[int, int]:
        path = tmp_path / "confusion.png"
        draw_confusion(path, counts, normalised(counts), ["cat", "dog"])
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        red, blue = pixels[..., 0], pixels[..., 2]
        return int((red > blue + 25).sum()), int((blue > red + 25).sum())

    perfect, flawed = hues(np.array([[9, 0], [0, 9]])), hues(np.array([[9, 0], [3, 6]]))
    assert perfect[0] == 0 < flawed[0]
    assert perfect[1] > 0 < flawed[1]


@pytest.mark.parametrize("classes", [["$x$", "a_b^c", "absent"], ["山", "река", "absent"]])
def test_confusion_of_odd_names_and_an_absent_class(classes: list[str], tmp_path: Path) -> None:
    counts = np.array([[5, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert inked(drawn_twice(lambda path: draw_confusion(path, counts, normalised(counts), classes), tmp_path)) > 0.2


def test_reliability_with_empty_bins(tmp_path: Path) -> None:
    certain = np.array([[0.99, 0.01], [0.97, 0.03], [0.6, 0.4]])
    bins = reliability(np.array([0, 0, 1]), certain, bins=15, confidence=0.95)
    assert inked(drawn_twice(lambda path: draw_reliability(path, bins, 0.12, 0.95), tmp_path)) > 0.02


@pytest.mark.parametrize(("count", "channels"), [(1, 1), (9, 3), (36, 1), (40, 3), (3, 2), (2, 4)])
def test_mistakes_of_any_number_and_channels(count: int, channels: int, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 120, (count, 8, 8, channels), dtype=np.uint8)
    captions = [("a rather long name of a class", "b$", 0.9999)] * count
    picture = drawn_twice(lambda path: draw_mistakes(path, images, captions, count + 5), tmp_path)
    assert inked(picture) > 0.08


def test_no_mistakes_is_a_picture_too(tmp_path: Path) -> None:
    nothing = np.zeros((0, 8, 8, 1), dtype=np.uint8)
    assert 0 < inked(drawn_twice(lambda path: draw_mistakes(path, nothing, [], 0), tmp_path)) < 0.1
