"""Pictures of one evaluation, as PNG: the same figures give the same bytes.

Drawn with matplotlib's objects, without pyplot: no window, no global state. Colours keep their order in grey and for
colour-blind eyes.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from recursight.evaluation.table import certainty

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 150
INK, FAINT, BLUE, ORANGE, GREY = "#1b1f24", "#6e7781", "#2a6fbb", "#d1662b", "#d8dee4"
MOST_NUMBERED = 20  # classes up to which a confusion matrix has its numbers in the cells
PLAIN = {"parse_math": False}  # a class may be called `$x$`


def draw_confusion(path: Path, counts: np.ndarray, shares: np.ndarray, classes: list[str]) -> None:
    """Confusion matrix, counts and shares of each actual class side by side.

    Args:
        path: of the PNG.
        counts: K × K, row = actual, column = predicted.
        shares: the same as shares of each row; NaN in the row of a class without images.
        classes: K names.
    """
    side = float(np.clip(0.36 * len(classes) + 1.2, 4.2, 11))
    figure = _figure(2 * side + 0.9, side + 0.7)
    left, right = figure.subplots(1, 2)
    _matrix(left, counts.astype(float), classes, [f"{value:d}" for value in counts.ravel()], side)
    _matrix(right, shares, classes, [_share(value) for value in shares.ravel()], side)
    wrong = counts.sum() - np.trace(counts)
    left.set_title(f"Images: {wrong:,} of {counts.sum():,} misclassified", loc="left", color=INK, fontsize=10)
    right.set_title("Percent of the actual class", loc="left", color=INK, fontsize=10)
    _save(figure, path)


def _share(value: float) -> str:
    if np.isnan(value):
        return ""
    return f"{100 * value:.0f}" if value == 0 or value >= 0.01 else "<1"


def _matrix(axes: "Axes", values: np.ndarray, classes: list[str], texts: list[str], side: float) -> None:
    from matplotlib.colors import PowerNorm

    count = len(classes)
    highest = max(np.nanmax(values), 1e-9)
    norm = PowerNorm(0.4, 0, highest)  # rare mistakes stay visible beside a heavy diagonal
    right = np.eye(count, dtype=bool) | (values == 0)
    for colours, hidden in (("Blues", ~right), ("Oranges", right)):
        shown = np.ma.masked_where(hidden | np.isnan(values), values)
        axes.imshow(shown, cmap=colours, norm=norm, interpolation="nearest")
    axes.set_facecolor(GREY)  # what a class without images shows
    size = float(np.clip(62 * side / (count + 2) / 4.2, 3.2, 9))
    if count <= MOST_NUMBERED:
        for place, text in enumerate(texts):
            row, column = divmod(place, count)
            zero = values[row, column] == 0
            dark = norm(values[row, column]) > 0.6
            axes.text(
                column,
                row,
                "·" if zero else text,
                ha="center",
                va="center",
                fontsize=size,
                color="white" if dark else FAINT if zero else INK,
            )
        axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=0.8)
    size = float(np.clip(40 * side / (count + 2), 4, 9))
    names = [_short(name, 18) for name in classes]
    upright = max(map(len, names)) * 0.75 * size < 60 * side / count  # roughly, in points
    axes.set_xticks(range(count), names, rotation=0 if upright else 90, fontsize=size, **PLAIN)
    axes.set_yticks(range(count), names, fontsize=size, **PLAIN)
    axes.tick_params(which="both", length=0, colors=INK)
    axes.set_xlabel("predicted", color=FAINT, fontsize=9)
    axes.set_ylabel("actual", color=FAINT, fontsize=9)
    axes.spines[:].set_visible(False)


def draw_reliability(path: Path, bins: pd.DataFrame, error: float, confidence: float) -> None:
    """Reliability diagram, over a histogram of the confidences.

    Args:
        path: of the PNG.
        bins: from `scores.reliability`.
        error: the expected calibration error.
        confidence: of the intervals in `bins`.
    """
    figure = _figure(5.2, 5.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
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
    figure.align_ylabels()
    _save(figure, path)


def draw_mistakes(path: Path, images: np.ndarray, captions: list[tuple[str, str, float]], total: int) -> None:
    """A sheet of misclassified images, each with its actual and predicted class and the confidence in the latter.

    Args:
        path: of the PNG.
        images: uint8, M H W C; grey, or the first three channels as RGB.
        captions: M times actual class, predicted class, confidence.
        total: how many mistakes there are, drawn or not.
    """
    if not captions:
        figure = _figure(5.2, 1.4)
        figure.text(0.5, 0.5, "No mistakes", ha="center", va="center", color=INK, fontsize=13)
        _save(figure, path)
        return
    columns = min(9, max(4, len(captions)))
    rows = -(-len(captions) // columns)
    figure = _figure(1.25 * columns + 0.2, 1.62 * rows + 0.5)
    shown = f"all {total:,}" if len(captions) == total else f"the {len(captions)} most confident of {total:,}"
    figure.suptitle(f"Mistakes: {shown}", x=0.01, ha="left", color=INK, fontsize=10)
    grid = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes, image, (actual, predicted, confidence) in zip(grid, images, captions, strict=False):
        axes.imshow(drawable(image), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        text = f"{_short(actual, 11)} → {_short(predicted, 11)}"
        if len(text) > 15:
            text = f"{_short(actual, 16)}\n→ {_short(predicted, 14)}"
        axes.set_title(text, fontsize=7.5, color=INK, pad=3, **PLAIN)
        axes.set_xlabel(certainty(confidence), fontsize=7.5, color=FAINT, labelpad=2)
    for axes in grid:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    for axes in grid[len(captions) :]:
        axes.set_visible(False)
    _save(figure, path)


def drawable(image: np.ndarray) -> np.ndarray:
    """H W for one or two channels, else H W 3."""
    return image[..., 0] if image.shape[-1] < 3 else image[..., :3]


def _short(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained", facecolor="white")


def _save(figure: "Figure", path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # names in scripts that it lacks
        figure.savefig(path, format="png", metadata={"Software": None})
