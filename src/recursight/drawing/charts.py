"""Charts for the report, as inline SVG: small, sharp, and in the page's own colours, light or dark.

Colours are not written here: what belongs to a candidate has the class `cN`, with N its number, and the page's style
sheet gives each number its colour. The same values give the same text.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from recursight.drawing.svg import svg

WIDTH, HEIGHT = 420, 270
MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 48, 10, 10, 38
COLOURS = 10  # of the style sheet; more candidates than that start over


@dataclass(frozen=True)
class Axis:
    """Where values stand.

    Attributes:
        low: value at `start`.
        high: value at `end`.
        start: in the drawing's units.
        end: in the same units; below `start` for an axis that grows upwards.
        logarithmic: equal distances are equal ratios.
        whole: it counts something, so ticks are whole numbers.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False
    whole: bool = False

    def place(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, 1e-300))
        return self.start + (value - low) / ((high - low) or 1) * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values within the axis."""
        if not self.logarithmic:
            return self._within(self._steps(most))
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        every = max(1, math.ceil(len(decades) / most))
        tens = self._within([10.0**decade for decade in decades if decade % every == 0])
        return (
            tens if len(tens) > 2 else self._within([head * 10.0**decade for decade in decades for head in (1, 2, 5)])
        )

    def _steps(self, most: int) -> list[float]:
        rough = (self.high - self.low) / most or 1
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * head for head in (1, 2, 5, 10) if unit * head >= rough)
        step = max(1, step) if self.whole else step
        return [step * count for count in range(math.floor(self.low / step), math.ceil(self.high / step) + 1)]

    def _within(self, values: list[float]) -> list[float]:
        slack = 1e-9 * (self.high - self.low)
        return [value for value in values if self.low - slack <= value <= self.high + slack]


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        name: of the candidate it belongs to.
        colour: the candidate's number.
        xs: ascending.
        ys: as many.
        title: shown under the pointer.
        style: further CSS classes.
    """

    name: str
    colour: int
    xs: Sequence[float]
    ys: Sequence[float]
    title: str
    style: str = ""


@dataclass(frozen=True)
class Point:
    """One mark of a scatter plot, with the interval of its y."""

    name: str
    colour: int
    x: float
    y: float
    low: float
    high: float


Format = Callable[[float], str]


def percent(value: float) -> str:
    return f"{100 * value:.4g} %"


def short(value: float) -> str:
    """1,200,000 as 1.2M; 0.00001 as 1e-5."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    if value and abs(value) < 0.001:
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.3g}"


def line_chart(
    lines: Sequence[Line],
    *,
    x: Axis,
    y: Axis,
    x_title: str,
    y_title: str,
    label: str,
    y_format: Format = short,
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> str:
    """Curves on common axes; what leaves the axes is cut off.

    Args:
        lines: the curves; those that are not above zero on a logarithmic axis have gaps.
        x: horizontal axis.
        y: vertical axis.
        x_title: under the axis.
        y_title: above the axis.
        label: what the chart shows, for those who do not see it.
        y_format: of the vertical axis's numbers.
        size: width and height.
    """
    around = frame(x, y, x_title, y_title, short, y_format, size)
    # A nested svg cuts off what leaves it, without a clip path's id that would have to be unique in the page.
    width, height = abs(x.end - x.start), abs(y.start - y.end)
    curves = "".join(_curve(line, x, y) for line in lines)
    inner = (
        f'<svg x="{x.start:g}" y="{y.end:g}" width="{width:g}" height="{height:g}" '
        f'viewBox="{x.start:g} {y.end:g} {width:g} {height:g}">{curves}</svg>'
    )
    return svg(size, label, around + inner)


def _curve(line: Line, x: Axis, y: Axis) -> str:
    pieces: list[list[str]] = [[]]
    stride = max(1, len(line.xs) // 200)
    for place, value in list(zip(line.xs, line.ys, strict=True))[::stride]:
        if not math.isfinite(value) or (y.logarithmic and value <= 0):
            pieces.append([])
        else:
            pieces[-1].append(f"{x.place(place):.1f} {y.place(value):.1f}")
    path = "".join("M" + "L".join(piece) for piece in pieces if piece)
    return (
        f'<g class="series c{line.colour % COLOURS} {line.style}" data-candidate="{escape(line.name)}">'
        f'<title>{escape(line.title)}</title><path d="{path}"/></g>'
    )


def scatter(
    points: Sequence[Point], *, x: Axis, y: Axis, x_title: str, y_title: str, label: str, y_format: Format
) -> str:
    """Marks with vertical intervals and the candidates' names beside them; arguments as of `line_chart`."""
    marks, taken = [], [(x.place(point.x) - 5, y.place(point.y) - 5, 10.0, 10.0) for point in points]
    for point in points:
        across, up = x.place(point.x), y.place(point.y)
        text, box = _label(point.name, across, up, taken)
        taken.append(box)
        tip = f"{point.name}: {y_format(point.y)}, {x_title} {short(point.x)}"
        marks.append(
            f'<g class="mark c{point.colour % COLOURS}" data-candidate="{escape(point.name)}">'
            f"<title>{escape(tip)}</title>"
            f'<path d="M{across:.1f} {y.place(point.low):.1f}V{y.place(point.high):.1f}"/>'
            f'<circle cx="{across:.1f}" cy="{up:.1f}" r="4.5"/>{text}</g>'
        )
    return svg((WIDTH, HEIGHT), label, frame(x, y, x_title, y_title, short, y_format, (WIDTH, HEIGHT)) + "".join(marks))


Box = tuple[float, float, float, float]  # left, top, width, height


def _label(name: str, across: float, up: float, taken: Sequence[Box]) -> tuple[str, Box]:
    """The name, on the side of its mark where it covers least of what is there."""
    width, height = 5.9 * len(name), 12.0
    places = [(across + 8, up + shift, "start") for shift in (0, -9, 9, -18, 18) if across + 8 + width < WIDTH] + [
        (across - 8, up + shift, "end") for shift in (0, -9, 9, -18, 18) if across - 8 - width > MARGIN_LEFT
    ]
    if not places:  # too long for either side
        places = [(max(MARGIN_LEFT, WIDTH - width), up + shift, "start") for shift in (-12, 12)]
    places = [place for place in places if MARGIN_TOP + 6 < place[1] < HEIGHT - MARGIN_BOTTOM - 4] or places

    def box(place: tuple[float, float, str]) -> Box:
        return (place[0] - (width if place[2] == "end" else 0), place[1] - height / 2, width, height)

    best = min(places, key=lambda place: sum(_overlap(box(place), other) for other in taken))
    return f'<text x="{best[0]:.1f}" y="{best[1] + 4:.1f}" text-anchor="{best[2]}">{escape(name)}</text>', box(best)


def _overlap(one: Box, other: Box) -> float:
    across = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    down = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    return max(across, 0.0) * max(down, 0.0)


def plot_axes(
    xs: tuple[float, float],
    ys: tuple[float, float],
    *,
    x_logarithmic: bool = False,
    x_whole: bool = False,
    y_logarithmic: bool = False,
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> tuple[Axis, Axis]:
    """Axes that hold the given ranges, in the usual place."""
    return (
        Axis(*xs, MARGIN_LEFT, size[0] - MARGIN_RIGHT, x_logarithmic, x_whole),
        Axis(*ys, size[1] - MARGIN_BOTTOM, MARGIN_TOP + 12, y_logarithmic),
    )


def frame(
    x: Axis,
    y: Axis,
    x_title: str,
    y_title: str,
    x_format: Format,
    y_format: Format,
    size: tuple[int, int],
    y_ticks: int = 6,
) -> str:
    """Ticks, grid lines and titles of a chart's axes."""
    parts = []
    for value in y.ticks(y_ticks):
        place = y.place(value)
        parts.append(f'<path class="grid" d="M{x.start:g} {place:.1f}H{x.end:g}"/>')
        parts.append(
            f'<text class="tick" x="{x.start - 6:g}" y="{place + 4:.1f}" text-anchor="end">{y_format(value)}</text>'
        )
    for value in x.ticks():
        place = x.place(value)
        parts.append(f'<path class="grid" d="M{place:.1f} {y.start:g}v4"/>')
        parts.append(
            f'<text class="tick" x="{place:.1f}" y="{y.start + 16:g}" text-anchor="middle">{x_format(value)}</text>'
        )
    parts.append(f'<text class="tick" x="{x.end:g}" y="{size[1] - 5}" text-anchor="end">{escape(x_title)}</text>')
    parts.append(f'<text class="tick" x="2" y="{MARGIN_TOP:g}">{escape(y_title)}</text>')
    return "".join(parts)


def interval_bar(value: float, low: float, high: float, *, axis: Axis, mark: float, colour: int, label: str) -> str:
    """One row of a forest plot: a point on its interval, and a line that all rows share.

    Args:
        value: the point.
        low: where the interval begins.
        high: where it ends.
        axis: the same for all rows.
        mark: value of the common line.
        colour: the candidate's number.
        label: the same in words.
    """
    middle, height = 9, 18
    at = axis.place
    body = (
        f'<path class="grid" d="M{at(mark):.1f} 0v{height}"/>'
        f'<g class="mark c{colour % COLOURS}"><path d="M{at(low):.1f} {middle}H{at(high):.1f}"/>'
        f'<circle cx="{at(value):.1f}" cy="{middle}" r="3.6"/></g>'
    )
    return svg((int(axis.start + axis.end), height), label, body)
