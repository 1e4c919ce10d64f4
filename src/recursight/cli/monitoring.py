"""The command that checks for drift."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from recursight.monitoring.compare import Drift

PANEL = "Production"
DRIFTED = 3  # exit status


def add_to(app: typer.Typer) -> None:
    app.command(rich_help_panel=PANEL)(monitor)


def monitor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Check for drift: compare the champion's logged predictions with its test split.

    Writes a report, logs the results to MLflow, and sends the event that can
    start a retraining. The exit status is 3 with drift, and 0 without drift or
    with too few predictions.

    Example: [bold]recursight monitor[/]
    """
    from recursight.layout import Layout
    from recursight.operations.monitor import check_drift

    found = check_drift(Layout.find())
    if as_json:
        typer.echo(json.dumps(found.as_dict()))
    else:
        if found.verdict:
            _print(found.verdict)
        typer.secho(found.sentence, fg="red" if found.drifted else None)
        if found.alarm == "repeated":
            typer.echo("the alarm was already sent and is not repeated yet (monitor.repeat_hours)")
        elif found.alarm != "none":
            typer.echo("the alarm was sent" if found.alarm == "sent" else "no Prefect server received the alarm")
        if found.report:
            typer.echo(f"report: {found.report}")
    if found.drifted:
        raise typer.Exit(DRIFTED)


def _print(verdict: "Drift") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("feature", "drift"):
        table.add_column(heading)
    for heading in ("PSI", "p-value", "corrected"):
        table.add_column(heading, justify="right")
    for feature in verdict.features:
        table.add_row(
            feature.name,
            "yes" if feature.drifted else "no",
            f"{feature.psi:.3f}",
            f"{feature.p_value:.2g}",
            f"{feature.p_holm:.2g}",
            style="red" if feature.drifted else "",
        )
    Console(markup=False, highlight=False).print(table)
