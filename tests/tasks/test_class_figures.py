"""Pictures open, repeat byte by byte, and bear any number and any name of classes."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from recursight.drawing.svg import certainty
from recursight.tasks.class_figures import confusion_chart, draw_confusion, draw_mistakes, draw_reliability
from recursight.tasks.classification import Classification, reliability


def drawn_twice(draw: Callable[[Path], None], folder: Path) -> ElementTree.Element:
    for name in ("first.svg", "second.svg"):
        draw(folder / name)
    assert (folder / "first.svg").read_bytes() == (folder / "second.svg").read_bytes()
    return ElementTree.parse(folder / "first.svg").getroot()


def found(drawn: ElementTree.Element, tag: str, css: str = "") -> list[ElementTree.Element]:
    return [
        one
        for one in drawn.iter(f"{{http://www.w3.org/2000/svg}}{tag}")
        if css in one.get("class", "").split() or not css
    ]


def test_confusion_cells_are_drawn_once_each_and_in_their_hue() -> None:
    counts = np.array([[8, 2, 0], [0, 0, 0], [1, 0, 9]])
    tree = ElementTree.fromstring(confusion_chart(counts, ["a", "b", "<c>"], name="gru"))
    cells = {path.get("class"): "" for path in tree.iter("path")}
    for path in tree.iter("path"):
        cells[path.get("class")] += path.get("d", "")
    assert cells["right"].count("M") == 2
    assert "M0 0h" in cells["right"]
    assert "M2 2h" in cells["right"]
    assert cells["wrong"].count("M") == 2
    assert "M1 0h" in cells["wrong"]  # column 1, row 0: actual a, predicted b
    numbers = sorted(text.text or "" for text in tree.iter("text") if "cell" in text.get("class", ""))
    assert numbers == ["1", "2", "8", "9"]


def test_a_hundred_classes_stay_small() -> None:
    counts = np.random.default_rng(0).poisson(0.5, (100, 100)) + np.diag(np.full(100, 80))
    assert len(confusion_chart(counts, [str(index) for index in range(100)], name="gru")) < 100_000


@pytest.mark.parametrize("count", [2, 10, 100])
def test_confusion_of_any_size_is_a_file_that_stands_alone(count: int, tmp_path: Path) -> None:
    generator = np.random.default_rng(count)
    counts = np.diag(generator.integers(10, 90, count)) + generator.integers(0, 2, (count, count))
    draw_confusion(tmp_path / "confusion.svg", counts, [f"class number {index}" for index in range(count)])
    drawn = ElementTree.parse(tmp_path / "confusion.svg").getroot()
    assert drawn.tag == "{http://www.w3.org/2000/svg}svg"
    assert f"{counts.sum() - np.trace(counts):,} of {counts.sum():,}" in drawn.attrib["aria-label"]
    texts = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert ("class nu…" in texts) == (count <= 66)  # where names fit
    style = drawn.findtext("{http://www.w3.org/2000/svg}style") or ""
    assert ".wrong" in style
    assert ".right" in style


def test_reliability_with_empty_bins(tmp_path: Path) -> None:
    certain = np.array([[0.99, 0.01], [0.97, 0.03], [0.6, 0.4]])
    bins = reliability(Classification().score(certain, np.array([0, 0, 1]), ["a", "b"]), 15, 0.95)
    drawn = drawn_twice(lambda path: draw_reliability(path, bins, 0.12, 0.95), tmp_path)
    points = [(float(one.get("cx", "")), float(one.get("cy", ""))) for one in found(drawn, "circle")]
    assert len(points) == 2  # two of the fifteen bins hold examples
    assert points[0][0] < points[1][0]  # 0.6 is left of 0.98
    assert points[0][1] > points[1][1]  # nothing right there, all right here
    heights = [float(bar.get("height", "")) for bar in found(drawn, "rect", "right")]
    assert len(heights) == 15
    assert heights[-1] == pytest.approx(2 * heights[8], abs=0.2)
    assert "12.00 %" in drawn.get("aria-label", "")


@pytest.mark.parametrize(("count", "channels"), [(1, 1), (9, 3), (36, 1), (40, 3), (3, 2), (2, 4)])
def test_mistakes_of_any_number_and_channels(count: int, channels: int, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 120, (count, 8, 8, channels), dtype=np.uint8)
    captions = [("a <b> & a rather long name", "b$", 0.9999)] * count
    drawn = drawn_twice(lambda path: draw_mistakes(path, images, captions, count + 5), tmp_path)
    shown = found(drawn, "image")
    assert len({(one.get("x"), one.get("y")) for one in shown}) == count
    decoded = Image.open(io.BytesIO(base64.b64decode(shown[0].get("href", "").partition(",")[2])))
    expected = images[0, ..., 0] if channels < 3 else images[0, ..., :3]
    np.testing.assert_array_equal(np.asarray(decoded), expected)
    assert [one.text for one in found(drawn, "title")] == ["a <b> & a rather long name → b$"] * count


def test_no_mistakes_is_a_picture_too(tmp_path: Path) -> None:
    nothing = np.zeros((0, 8, 8, 1), dtype=np.uint8)
    drawn = drawn_twice(lambda path: draw_mistakes(path, nothing, [], 0), tmp_path)
    assert [one.text for one in found(drawn, "text")] == ["No mistakes"]


def test_probabilities_in_words() -> None:
    assert [certainty(value) for value in (0.4, 0.993, 0.99999, 1.0)] == ["40 %", "99.3 %", ">99.9 %", ">99.9 %"]
