"""The comparison as a table for people: colours on a terminal, aligned text elsewhere.

Everything here works on the content of comparison.json, so that a flow can show the table without computing it again.
"""

import sys
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

Comparison = Mapping[str, Any]
STYLES = {"winner": "bold green", "tied": "", "worse": "dim", "better on test": "yellow"}


def headings(comparison: Comparison) -> list[str]:
    interval = f"({100 * comparison['confidence']:g} % interval)"
    first, *others = comparison["metrics"]
    return [
        "candidate",
        f"validation {first['title']} {interval}",
        f"test {first['title']} {interval}",
        *(metric["title"] for metric in others),
        "parameters",
        "train s",
        "images/s",
        "against the winner",
    ]


def cells(comparison: Comparison, row: Mapping[str, Any]) -> list[str]:
    """One row of the table as text."""
    first, *others = comparison["metrics"]
    return [
        row["candidate"],
        with_interval(row, "validation", first),
        with_interval(row, "test", first),
        *(figure(row[f"test_{metric['name']}"], metric) for metric in others),
        f"{row['parameters']:,.0f}",
        f"{row['train_seconds']:,.1f}",
        f"{row['images_per_second']:,.0f}",
        verdict(row, first),
    ]


def figure(value: float, metric: Mapping[str, Any]) -> str:
    """A share in percent, without the sign; anything else with four digits."""
    return f"{100 * value:.2f}" if metric["share"] else f"{value:.4g}"


def with_interval(row: Mapping[str, Any], split: str, metric: Mapping[str, Any]) -> str:
    """Such as ` 97.22 (95.10–98.40)`."""
    key = f"{split}_{metric['name']}"
    value, low, high = (figure(row[part], metric) for part in (key, f"{key}_low", f"{key}_high"))
    return f"{value:>6} ({low:>5}–{high:>6})"


def verdict(row: Mapping[str, Any], metric: Mapping[str, Any]) -> str:
    """The outcome in words: `worse: -1.39 points, p = 0.003`."""
    if row["p_holm"] is None:
        return "winner"
    return f"{row['verdict']}: {difference(row, metric)}, {p_value(row['p_holm'])}"


def difference(row: Mapping[str, Any], metric: Mapping[str, Any]) -> str:
    """From the winner: `-1.39 points` of a share, else `+0.0123`."""
    value = row["difference"]
    return f"{100 * value:+.2f} points" if metric["share"] else f"{value:+.3g}"


def p_value(value: float) -> str:
    if value < 0.001:
        return "p < 0.001"
    return f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"


def ranking_table(comparison: Comparison) -> "Table":
    """For a rich console."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    titles = headings(comparison)
    for index, heading in enumerate(titles):
        text = index in (0, len(titles) - 1)
        table.add_column(heading, justify="left" if text else "right", no_wrap=index == 0)
    for row in comparison["ranking"]:
        table.add_row(*cells(comparison, row), style=STYLES[row["verdict"]])
    return table


def ranking_text(comparison: Comparison) -> str:
    """Plain lines, columns aligned by spaces."""
    lines = [headings(comparison), *(cells(comparison, row) for row in comparison["ranking"])]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column in (0, len(widths) - 1) else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def print_ranking(comparison: Comparison, file: IO[str] | None = None) -> None:
    """Prints a rich table on a terminal and plain text everywhere else.

    Args:
        comparison: the content of comparison.json.
        file: where to; stdout if not given.
    """
    file = file or sys.stdout
    if file.isatty():
        from rich.console import Console

        Console(file=file).print(ranking_table(comparison))
    else:
        print(ranking_text(comparison), file=file)
