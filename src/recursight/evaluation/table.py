"""The comparison as a table for people: colours on a terminal, aligned text elsewhere.

Everything here works on the rows of comparison.json, so a flow can show the table without computing it again.
"""

import sys
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

Rows = Sequence[dict[str, Any]]
STYLES = {"winner": "bold green", "tied": "", "worse": "dim", "better on test": "yellow"}


def headings(confidence: float) -> list[str]:
    interval = f"({100 * confidence:g} % interval)"
    return [
        "candidate",
        f"validation accuracy {interval}",
        f"test accuracy {interval}",
        "macro F1",
        "parameters",
        "train s",
        "images/s",
        "against the winner",
    ]


def cells(row: dict[str, Any]) -> list[str]:
    """One row of the table as text."""
    return [
        row["candidate"],
        percent_with_interval(row["validation_accuracy"], row["validation_low"], row["validation_high"]),
        percent_with_interval(row["test_accuracy"], row["test_low"], row["test_high"]),
        f"{100 * row['macro_f1']:.2f}",
        f"{row['parameters']:,.0f}",
        f"{row['train_seconds']:,.1f}",
        f"{row['images_per_second']:,.0f}",
        verdict(row),
    ]


def percent_with_interval(value: float, low: float, high: float) -> str:
    return f"{100 * value:6.2f} ({100 * low:5.2f}–{100 * high:6.2f})"


def verdict(row: dict[str, Any]) -> str:
    """The outcome in words: `worse: -1.39 points, p = 0.003`."""
    if row["p_holm"] is None:
        return "winner"
    return f"{row['verdict']}: {100 * row['difference']:+.2f} points, {p_value(row['p_holm'])}"


def p_value(value: float) -> str:
    if value < 0.001:
        return "p < 0.001"
    return f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"


def certainty(confidence: float) -> str:
    """A probability for people, who take `100 %` for certain."""
    if confidence > 0.999:
        return ">99.9 %"
    return f"{100 * confidence:.0f} %" if confidence < 0.99 else f"{100 * confidence:.1f} %"


def ranking_table(rows: Rows, confidence: float) -> "Table":
    """For a rich console."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, heading in enumerate(headings(confidence)):
        text = index in (0, 7)
        table.add_column(heading, justify="left" if text else "right", no_wrap=index == 0)
    for row in rows:
        table.add_row(*cells(row), style=STYLES[row["verdict"]])
    return table


def ranking_text(rows: Rows, confidence: float) -> str:
    """Plain lines, columns aligned by spaces."""
    lines = [headings(confidence), *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column in (0, 7) else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def print_ranking(rows: Rows, confidence: float, file: IO[str] | None = None) -> None:
    """Prints a rich table on a terminal and plain text everywhere else.

    Args:
        rows: of comparison.json.
        confidence: of the intervals in them.
        file: where to; stdout if not given.
    """
    file = file or sys.stdout
    if file.isatty():
        from rich.console import Console

        Console(file=file).print(ranking_table(rows, confidence))
    else:
        print(ranking_text(rows, confidence), file=file)
