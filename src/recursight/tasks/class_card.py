"""A classifier's part of the model card."""

from typing import TYPE_CHECKING

import numpy as np

from recursight.markdown import escape, table

if TYPE_CHECKING:
    from pandas import DataFrame

MOST_CLASSES = 20  # a larger confusion matrix is a picture on the run, not a table to read


def sections(per_class: "DataFrame", counts: np.ndarray) -> dict[str, str]:
    """Markdown by heading.

    Args:
        per_class: columns class, precision, recall, f1, support.
        counts: of the confusion matrix; row = actual, column = predicted.
    """
    names = [escape(name) for name in per_class["class"]]
    scores = per_class[["precision", "recall", "f1"]].map(lambda value: f"{value:.4f}" if value == value else "–")
    rows = zip(names, *(scores[name] for name in scores), per_class["support"].astype(str), strict=True)
    confusion = f"{len(names)} classes: see `evaluation/confusion.svg` on the run."
    if len(names) <= MOST_CLASSES:
        body = [[f"**{name}**", *map(str, row)] for name, row in zip(names, counts.tolist(), strict=True)]
        confusion = table(["actual ↓ predicted →", *names], body)
    return {"Classes": table(list(per_class.columns), rows), "Confusion matrix (test split)": confusion}


def limits(per_class: "DataFrame", counts: np.ndarray, calibration_error: float) -> list[str]:
    """What it is bad at, in sentences."""
    names = [escape(name) for name in per_class["class"]]
    worst = int(per_class["recall"].argmin())
    lines = [f"Worst class: {names[worst]}, of which it finds {per_class['recall'][worst]:.2%}."]
    wrong = counts - np.diag(np.diag(counts))
    actual, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
    if times := int(wrong[actual, predicted]):
        lines.append(
            f"Most frequent confusion: {names[actual]} taken for {names[predicted]}, {times} time{'s' * (times > 1)} "
            "on the test split."
        )
    lines.append(
        f"Probabilities are off by {calibration_error:.2%} on average (expected calibration error, test split)."
    )
    return lines
