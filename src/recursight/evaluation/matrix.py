"""A confusion matrix for the report, as inline SVG in the page's own colours."""

from collections.abc import Sequence
from html import escape

import numpy as np

from recursight.evaluation.charts import svg

LEVELS = 8
MOST_NUMBERED, MOST_NAMED = 12, 26


def confusion_chart(counts: np.ndarray, classes: Sequence[str], *, label: str) -> str:
    """A confusion matrix: shares of each actual class; right answers in one hue, mistakes in another.

    Cells of one shade are one path, so that a hundred classes stay small.

    Args:
        counts: K × K, row = actual, column = predicted.
        classes: K names.
        label: what it shows in words.
    """
    count = len(classes)
    longest = max(map(len, classes))
    room = (14 + 5.4 * min(longest, 9)) if count <= MOST_NAMED else 12
    inner = 250
    cell = inner / count
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
    if count <= MOST_NUMBERED:
        font = min(11.0, cell * 0.42)
        for row, column in np.argwhere(counts > 0):
            strong = " strong" if levels[row, column] > LEVELS * 0.6 else ""
            parts.append(
                f'<text class="cell{strong}" style="font-size:{font:.1f}px" x="{room + (column + 0.5) * cell:.1f}" '
                f'y="{(row + 0.5) * cell + font * 0.36:.1f}">{counts[row, column]}</text>'
            )
    if count <= MOST_NAMED:
        parts.extend(_names(classes, room, cell, inner))
    return svg((int(room + inner + 2), int(inner + room + 2)), label, "".join(parts))


def _names(classes: Sequence[str], room: float, cell: float, inner: float) -> list[str]:
    font = min(10.0, cell * 0.8)
    parts = []
    for index, name in enumerate(classes):
        text = escape(name if len(name) <= 9 else name[:8] + "…")
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
