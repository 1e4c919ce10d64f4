"""Axes put values where they belong, and charts are well-formed."""

import math
from xml.etree import ElementTree

import pytest

from recursight.drawing.charts import Axis, Line, Point, line_chart, percent, plot_axes, scatter, short


def test_axes_map_their_ends_and_middles() -> None:
    assert [Axis(0, 10, 50, 150).place(value) for value in (0, 5, 10)] == [50, 100, 150]
    assert Axis(1, 100, 0, 10, logarithmic=True).place(10) == pytest.approx(5)
    assert Axis(3, 3, 0, 10).place(3) == 0  # a single value has no width to divide by


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (Axis(0, 10, 0, 1), [0, 2, 4, 6, 8, 10]),
        (Axis(0.93, 1.0, 0, 1), [0.94, 0.96, 0.98, 1.0]),
        (Axis(1, 5, 0, 1, whole=True), [1, 2, 3, 4, 5]),
        (Axis(0, 3, 0, 1, whole=True), [0, 1, 2, 3]),
        (Axis(0.05, 2, 0, 1, logarithmic=True), [0.05, 0.1, 0.2, 0.5, 1, 2]),
        (Axis(1e-6, 1, 0, 1, logarithmic=True), [1e-6, 1e-4, 1e-2, 1]),
    ],
)
def test_ticks_are_round_and_inside(axis: Axis, expected: list[float]) -> None:
    assert axis.ticks() == pytest.approx(expected)


def test_numbers_are_short() -> None:
    assert [short(value) for value in (0, 1.5, 120_970, 2.5e6, 1e-5)] == ["0", "1.5", "121k", "2.5M", "1e-5"]
    assert percent(0.985) == "98.5 %"


def paths(svg: str, css: str) -> list[str]:
    tree = ElementTree.fromstring(svg)
    return [path.get("d", "") for group in tree.iter("g") if css in group.get("class", "") for path in group]


def test_lines_break_where_there_is_no_number_to_draw() -> None:
    x, y = plot_axes((0, 4), (0.01, 1), y_logarithmic=True)
    line = Line("a <b>", 3, [0, 1, 2, 3, 4], [0.1, 0.2, 0.0, math.nan, 0.3], "tip & text")
    chart = line_chart([line], x=x, y=y, x_title="step", y_title="norm", label='a "label"')
    drawn = [path for path in paths(chart, "series c3") if path]
    assert len(drawn) == 1
    assert drawn[0].count("M") == 2  # two pieces, with a gap between
    assert "nan" not in chart


@pytest.mark.parametrize("name", ["candidate{}", "conv-bidirectional-lstm-attention-64-{}"])
def test_scatter_names_every_point_inside_the_drawing(name: str) -> None:
    points = [Point(name.format(n), n, 10.0**n, 0.9, 0.88, 0.92) for n in range(1, 6)]
    x, y = plot_axes((5, 2e5), (0.88, 0.92), x_logarithmic=True)
    tree = ElementTree.fromstring(
        scatter(points, x=x, y=y, x_title="parameters", y_title="accuracy", label="l", y_format=percent)
    )
    names = {text.text: text for text in tree.iter("text")}
    for point in points:
        text = names[point.name]
        width = 5.9 * len(point.name)
        left = float(text.get("x", "")) - (width if text.get("text-anchor") == "end" else 0)
        assert 0 <= left <= left + width <= 420
