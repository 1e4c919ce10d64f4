"""Pictures of a classifier's answers, as SVG: confusion matrix, reliability diagram, mistakes; and their part of the
report."""

from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recursight.drawing.charts import Axis, frame, percent, plot_axes
from recursight.drawing.svg import certainty, data_url, short, svg, svg_file

if TYPE_CHECKING:
    from pandas import DataFrame

LEVELS = 8  # of shade
NUMBERED_PIXELS, NAMED_PIXELS = 20.0, 9.6  # side of a cell from which on counts and names are shown
IN_REPORT, ALONE = 250, 640  # pixels of a matrix
RELIABILITY, HISTOGRAM = (420, 400), 110  # size of the diagram, and the height of the histogram under it
TILE = (104, 140)  # of one mistake: the image, and two lines of text
STYLE = """
svg{background:#fff;font-family:sans-serif}text{font-size:11px;fill:#1b1f24}.tick{fill:#6e7781}.empty{fill:#f6f8fa}
.right{fill:#2a6fbb}.wrong{fill:#d1662b}.cell{text-anchor:middle}.strong{fill:#fff}.grid{stroke:#d8dee4;fill:none}
.perfect{stroke:#6e7781;stroke-dasharray:4 3}.gap{stroke:#d1662b;stroke-width:6;opacity:.4}.interval{stroke:#2a6fbb}
image{image-rendering:pixelated}
"""


def draw_confusion(path: Path, counts: np.ndarray, classes: Sequence[str]) -> None:
    """Writes the confusion matrix as SVG."""
    path.write_text(svg_file(confusion_chart(counts, classes, inner=ALONE), STYLE), encoding="utf-8")


def confusion_chart(counts: np.ndarray, classes: Sequence[str], *, name: str = "", inner: int = IN_REPORT) -> str:
    """A confusion matrix: shares of each actual class; right answers in one hue, mistakes in another.

    Cells of one shade are one path, so that a hundred classes stay small.

    Args:
        counts: K × K, row = actual, column = predicted.
        classes: K names.
        name: of the candidate.
        inner: width and height in pixels, without the names.
    """
    count = len(classes)
    wrong, total = counts.sum() - np.trace(counts), counts.sum()
    label = f"Confusion matrix{' of ' * bool(name)}{name}: {wrong:,} of {total:,} test images are misclassified"
    longest = max(map(len, classes))
    cell = inner / count
    named = cell >= NAMED_PIXELS
    room = (14 + 5.4 * min(longest, 9)) if named else 12
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    # The square root lifts rare mistakes out of the background.
    levels = np.ceil(np.sqrt(shares) * LEVELS).astype(int)
    right = np.eye(count, dtype=bool)
    parts = [f'<rect class="empty" x="{room:g}" y="0" width="{inner}" height="{inner}"/>']
    for hue, chosen in (("right", right), ("wrong", ~right)):
        for level in range(1, LEVELS + 1):
            cells = np.argwhere(chosen & (levels == level))
            path = "".join(f"M{column} {row}h1v1h-1z" for row, column in cells)
            if path:
                parts.append(
                    f'<path class="{hue}" fill-opacity="{level / LEVELS:g}" '
                    f'transform="translate({room:g} 0) scale({cell:.4f})" d="{path}"/>'
                )
    if cell >= NUMBERED_PIXELS:
        font = min(11.0, cell * 0.42)
        for row, column in np.argwhere(counts > 0):
            strong = " strong" if levels[row, column] > LEVELS * 0.6 else ""
            parts.append(
                f'<text class="cell{strong}" style="font-size:{font:.1f}px" x="{room + (column + 0.5) * cell:.1f}" '
                f'y="{(row + 0.5) * cell + font * 0.36:.1f}">{counts[row, column]}</text>'
            )
    if named:
        parts.extend(_names(classes, room, cell, inner))
    return svg((int(room + inner + 2), int(inner + room + 2)), label, "".join(parts))


def _names(classes: Sequence[str], room: float, cell: float, inner: float) -> list[str]:
    font = min(10.0, cell * 0.8)
    parts = []
    for index, name in enumerate(classes):
        text = escape(short(name, 9))
        centre = (index + 0.5) * cell
        across = room + centre
        parts.append(
            f'<text class="tick" style="font-size:{font:.1f}px" x="{room - 5:.1f}" y="{centre + font * 0.36:.1f}" '
            f'text-anchor="end">{text}</text>'
        )
        if len(name) <= 2:
            place = f'x="{across:.1f}" y="{inner + font + 4:.1f}" text-anchor="middle"'
        else:
            turned = f"rotate(-90 {across:.1f} {inner + 5:.1f})"
            place = f'x="{across:.1f}" y="{inner + 5 + font * 0.36:.1f}" text-anchor="end" transform="{turned}"'
        parts.append(f'<text class="tick" style="font-size:{font:.1f}px" {place}>{text}</text>')
    return parts


def draw_reliability(path: Path, bins: "DataFrame", error: float, confidence: float) -> None:
    """Reliability diagram, over a histogram of the confidences, as SVG.

    Args:
        path: of the file.
        bins: from `classification.reliability`.
        error: the expected calibration error.
        confidence: of the intervals in `bins`.
    """
    width, height = RELIABILITY
    x, y = plot_axes((0.0, 1.0), (0.0, 1.0), size=RELIABILITY)
    below = Axis(0.0, 1.0, height + HISTOGRAM - 38, height + 8)
    filled = bins[bins["count"] > 0]
    parts = [
        frame(x, y, "", f"accuracy, {100 * confidence:g} % interval", percent, percent, RELIABILITY),
        f'<path class="perfect" d="M{x.start:g} {y.start:g}L{x.end:g} {y.end:g}"/>',
    ]
    for row in filled.to_dict("records"):
        across, up = x.place(row["confidence"]), y.place(row["accuracy"])
        parts.append(
            f'<path class="gap" d="M{across:.1f} {y.place(row["confidence"]):.1f}V{up:.1f}"/>'
            f'<path class="interval" d="M{across:.1f} {y.place(row["accuracy_low"]):.1f}'
            f'V{y.place(row["accuracy_high"]):.1f}"/><circle class="right" cx="{across:.1f}" cy="{up:.1f}" r="4"/>'
        )
    title, size = "confidence: probability of the predicted class", (width + 14, height + HISTOGRAM)
    parts.append(frame(x, below, title, "", percent, percent, size, y_ticks=2))
    for row in bins.to_dict("records"):
        left, top = x.place(row["low"]), below.place(row["count"] / bins["count"].sum())
        side = x.place(row["high"]) - left - 1
        parts.append(
            f'<rect class="right" x="{left:.1f}" y="{top:.1f}" width="{side:.1f}" height="{below.start - top:.1f}"/>'
        )
    parts.append(f'<text class="tick" x="2" y="{height:g}">share of images</text>')
    parts.append(f'<text x="{x.start + 10:g}" y="{y.end + 20:g}">expected calibration error {100 * error:.2f} %</text>')
    drawn = svg(size, f"Reliability diagram: expected calibration error {100 * error:.2f} %", "".join(parts))
    path.write_text(svg_file(drawn, STYLE), encoding="utf-8")


def draw_mistakes(path: Path, images: np.ndarray, captions: list[tuple[str, str, float]], total: int) -> None:
    """A sheet of misclassified images, each with its actual and predicted class and the confidence in the latter.

    Args:
        path: of the SVG.
        images: uint8, M H W C; grey, or the first three channels as RGB.
        captions: M times actual class, predicted class, confidence.
        total: how many mistakes there are, drawn or not.
    """
    if len(captions) == total:
        title = f"All {total:,} mistakes" if total else "No mistakes"
    else:
        title = f"The {len(captions)} most confident of {total:,} mistakes"
    columns = min(9, max(4, len(captions)))
    wide, high = TILE
    heading = title + ": actual → predicted, and how confident" * bool(captions)
    parts = [f'<text x="4" y="16">{heading}</text>']
    for place, (image, (actual, predicted, confidence)) in enumerate(zip(images, captions, strict=True)):
        left, top = wide * (place % columns) + 4, high * (place // columns) + 26
        parts.append(
            f'<image x="{left}" y="{top}" width="{wide - 8}" height="{wide - 8}" href="{data_url(image)}"/>'
            f'<text x="{left}" y="{top + wide + 4}">{escape(short(actual, 8))} → {escape(short(predicted, 8))}'
            f"<title>{escape(actual)} → {escape(predicted)}</title></text>"
            f'<text class="tick" x="{left}" y="{top + wide + 18}">{certainty(confidence)}</text>'
        )
    size = (wide * columns + 8, 30 + high * -(-len(captions) // columns))
    path.write_text(svg_file(svg(size, title, "".join(parts)), STYLE), encoding="utf-8")


def frequent_mistakes(counts: np.ndarray, classes: list[str]) -> list[tuple[str, str, int, float]]:
    """Confusions that happened more than once, most frequent first: actual, predicted, count, share of the actual."""
    wrong = counts * ~np.eye(len(counts), dtype=bool)
    order = np.argsort(-wrong.ravel(), kind="stable")[:8]
    places = [divmod(int(place), len(counts)) for place in order if wrong.ravel()[place] > 1]
    return [
        (classes[row], classes[column], int(counts[row, column]), float(counts[row, column] / counts[row].sum()))
        for row, column in places
    ]


def render(template: str, **context: Any) -> str:
    """A part of the report, from a template beside this file."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": lambda value: f"{100 * value:.2f}", "certainty": certainty}
    source = resources.files("recursight.tasks").joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(source).render(context)
