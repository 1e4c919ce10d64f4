"""Drawings of a classifier's answers: confusion matrix, reliability diagram, mistakes, and their part of the report."""

from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recursight.tasks.drawing import (
    BLUE,
    FAINT,
    GREY,
    INK,
    ORANGE,
    PLAIN,
    certainty,
    drawable,
    figure,
    save,
    short,
    svg,
    svg_file,
)

if TYPE_CHECKING:
    from pandas import DataFrame

LEVELS = 8  # of shade
NUMBERED_PIXELS, NAMED_PIXELS = 20.0, 9.6  # side of a cell from which on counts and names are shown
IN_REPORT, ALONE = 250, 640  # pixels of a matrix
STYLE = """
svg{background:#fff;font-family:sans-serif}text{font-size:11px;fill:#1b1f24}.tick{fill:#6e7781}.empty{fill:#f6f8fa}
.right{fill:#2a6fbb}.wrong{fill:#d1662b}.cell{text-anchor:middle}.strong{fill:#fff}
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
    """Reliability diagram, over a histogram of the confidences.

    Args:
        path: of the PNG.
        bins: from `classification.reliability`.
        error: the expected calibration error.
        confidence: of the intervals in `bins`.
    """
    drawn = figure(5.2, 5.6)
    upper, lower = drawn.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
    filled = bins[bins["count"] > 0]
    upper.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label="perfectly calibrated", zorder=1)
    upper.vlines(
        filled["confidence"],
        filled["confidence"],
        filled["accuracy"],
        color=ORANGE,
        linewidth=6,
        alpha=0.4,
        label="distance from it",
        zorder=2,
    )
    upper.errorbar(
        filled["confidence"],
        filled["accuracy"],
        yerr=[filled["accuracy"] - filled["accuracy_low"], filled["accuracy_high"] - filled["accuracy"]],
        color=BLUE,
        fmt="o",
        markersize=4.5,
        elinewidth=1,
        capsize=2.5,
        label=f"accuracy, {100 * confidence:g} % interval",
        zorder=3,
    )
    upper.set_ylim(0, 1.02)
    upper.set_ylabel("accuracy", color=INK)
    upper.set_title(f"Expected calibration error {100 * error:.2f} %", loc="left", color=INK, fontsize=10)
    upper.legend(loc="lower right", frameon=False, fontsize=8.5, labelcolor=INK)
    share = bins["count"] / bins["count"].sum()
    lower.bar(bins["low"], share, width=bins["high"] - bins["low"], align="edge", color=BLUE, edgecolor="white")
    lower.set_xlim(0, 1)
    lower.set_ylim(0, 1)
    lower.set_ylabel("share of images", color=INK, fontsize=8.5)
    lower.set_xlabel("confidence (probability of the predicted class)", color=INK)
    for axes in (upper, lower):
        axes.tick_params(length=0, colors=FAINT, labelsize=8.5)
        axes.grid(color=GREY, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(GREY)
    drawn.align_ylabels()
    save(drawn, path)


def draw_mistakes(path: Path, images: np.ndarray, captions: list[tuple[str, str, float]], total: int) -> None:
    """A sheet of misclassified images, each with its actual and predicted class and the confidence in the latter.

    Args:
        path: of the PNG.
        images: uint8, M H W C; grey, or the first three channels as RGB.
        captions: M times actual class, predicted class, confidence.
        total: how many mistakes there are, drawn or not.
    """
    if not captions:
        drawn = figure(5.2, 1.4)
        drawn.text(0.5, 0.5, "No mistakes", ha="center", va="center", color=INK, fontsize=13)
        save(drawn, path)
        return
    columns = min(9, max(4, len(captions)))
    rows = -(-len(captions) // columns)
    drawn = figure(1.25 * columns + 0.2, 1.62 * rows + 0.5)
    shown = f"all {total:,}" if len(captions) == total else f"the {len(captions)} most confident of {total:,}"
    drawn.suptitle(f"Mistakes: {shown}", x=0.01, ha="left", color=INK, fontsize=10)
    grid = np.atleast_1d(drawn.subplots(rows, columns)).ravel()
    for axes, image, (actual, predicted, confidence) in zip(grid, images, captions, strict=False):
        axes.imshow(drawable(image), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        text = f"{short(actual, 11)} → {short(predicted, 11)}"
        if len(text) > 15:
            text = f"{short(actual, 16)}\n→ {short(predicted, 14)}"
        axes.set_title(text, fontsize=7.5, color=INK, pad=3, **PLAIN)
        axes.set_xlabel(certainty(confidence), fontsize=7.5, color=FAINT, labelpad=2)
    for axes in grid:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    for axes in grid[len(captions) :]:
        axes.set_visible(False)
    save(drawn, path)


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
