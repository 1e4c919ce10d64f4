"""Commands for the version in production."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from recursight.registry import Decision

PANEL = "Production"
WIDE = 160  # columns of a terminal that has room for the metrics
FIGURES = ["champion", "metric", "value", "of champion", "p-value", "level", "data", "commit"]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    for command in (promote, champion, history, rollback, restore):
        app.command(rich_help_panel=PANEL)(command)


def promote(as_json: AsJson = False) -> None:
    """Let the gate decide whether the challenger becomes champion.

    Runs both versions on the current test split. The alias moves only if the
    rule in params.yaml (section gate) holds. Every decision is recorded,
    refusals included. A refusal is not an error: the exit status is 0. If an
    earlier promote or rollback was killed, completes that one and stops.

    Example: [bold]recursight promote[/]
    """
    from recursight.layout import Layout
    from recursight.registry import promote as decide

    decide(Layout.find(), report=_report(as_json))


def champion(as_json: AsJson = False) -> None:
    """Show which version is in production, and why.

    Example: [bold]recursight champion[/]
    """
    from recursight.layout import Layout
    from recursight.registry import production_status

    found = production_status(Layout.find())
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    if found.version is None:
        typer.echo(f"{found.name} has no champion yet.")
    else:
        typer.echo(f"{found.name} version {found.version} ({found.candidate}) is champion.")
    if found.decision:
        typer.echo(f"since {found.decision.at[:19]}, {_how(found.decision)}: {found.decision.reason}")
    if found.remark:
        typer.echo(found.remark)
    for title, tag in (
        ("data", "recursight.data_md5"),
        ("code", "git_commit"),
        ("weights", "recursight.bundle_digest"),
    ):
        if tag in found.tags:
            typer.echo(f"{title:<8}{found.tags[tag]}")
    if found.challenger and found.challenger != found.version:
        typer.echo(f"version {found.challenger} is the challenger: `recursight promote` decides.")


def history(
    most: Annotated[int, typer.Option("--most", "-n", min=1, help="Number of decisions to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show the decisions about the champion, newest first.

    Example: [bold]recursight history --most 5[/]
    """
    from recursight.layout import Layout
    from recursight.params import load
    from recursight.registry import history as decisions
    from recursight.tracking import connect

    layout = Layout.find()
    found = decisions(connect(layout), load(layout.params).registry.model_name, most)
    if as_json:
        typer.echo(json.dumps([asdict(decision) for decision in found]))
    elif not found:
        typer.echo("no decisions yet; `recursight register` and `recursight promote` record them.")
    else:
        _print(found)


def rollback(
    version: Annotated[
        int | None, typer.Argument(help="Version to restore; default: the previous champion.", show_default=False)
    ] = None,
    reason: Annotated[str, typer.Option(help="Reason, recorded in the history.")] = "",
    as_json: AsJson = False,
) -> None:
    """Put the previous champion, or the given version, into production.

    The version must first load and predict, on one image and on a batch;
    otherwise nothing changes. The gate never promotes the replaced version
    again; only another rollback restores it. If an earlier promote or rollback
    was killed, completes that one and stops.

    Example: [bold]recursight rollback 3 --reason "wrong on scans of the new machine"[/]
    """
    from recursight.layout import Layout
    from recursight.registry import rollback as go_back

    go_back(Layout.find(), version, reason, report=_report(as_json))


def restore(
    version: Annotated[int, typer.Argument(help="Version of the registered model.")],
    as_json: AsJson = False,
) -> None:
    """Rebuild a version in a separate git work tree and check that its predictions are the same.

    Code comes from git, data from DVC, parameters and weights from MLflow.
    Parts that cannot be restored are listed. The exit status is 0 only if the
    predictions match the recorded ones in every digit.

    Example: [bold]recursight restore 1[/]
    """
    from recursight.layout import Layout
    from recursight.operations.restore import restore as bring_back

    layout = Layout.find()
    restored = bring_back(layout, version)
    if as_json:
        typer.echo(json.dumps(asdict(restored)))
    else:
        for part, sentence in restored.parts.items():
            typer.echo(f"{part + ':':<13}{sentence}")
        for sentence in restored.missing:
            typer.secho(f"not restored: {sentence}", fg="yellow")
        typer.echo(f"work tree: {restored.folder}\nto remove it: git worktree remove --force {restored.folder}")
    if not restored.same_predictions:
        raise typer.Exit(1)


def _report(as_json: bool) -> "Callable[[Decision], None]":
    """Prints a decision, as a sentence or as JSON."""

    def report(decision: "Decision") -> None:
        if as_json:
            typer.echo(json.dumps(asdict(decision)))
        elif decision.version is None:
            typer.echo(f"nothing to decide: {decision.reason}")
        else:
            typer.echo(_sentence(decision))
        sys.stdout.flush()

    return report


def _sentence(decision: "Decision") -> str:
    named = f"version {decision.version} ({decision.candidate})"
    if decision.resumed:
        return (
            f"completed an interrupted command of {decision.at[:16].replace('T', ' ')} UTC: {named} is champion now, "
            f"{_how(decision)}: {decision.reason}\nnothing else was done; repeat the command if you still want it."
        )
    if decision.kind == "rollback":
        was = f"it replaces version {decision.champion}" if decision.champion else "there was none before"
        return f"{named} is champion now; {was}."
    before = f" (already decided on {decision.at[:10]})" if decision.repeated else ""
    outcome = "is champion now" if decision.promoted else "does not become champion"
    return f"{named} {outcome}{before}: {decision.reason}"


def _how(decision: "Decision") -> str:
    return {"first": "as the first one", "promote": "promoted by the gate", "rollback": "by rollback"}[decision.kind]


def _print(decisions: "list[Decision]") -> None:
    """Prints a table; a narrow terminal omits the metrics, most of which the reasons repeat."""
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False)
    if not console.is_terminal:
        console = Console(markup=False, width=1000, soft_wrap=True)
    figures = console.width >= WIDE
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ["when (UTC)", "what", "version", "outcome", *FIGURES * figures]:
        table.add_column(heading, no_wrap=True)
    table.add_column("reason", overflow="fold")
    for decision in decisions:
        table.add_row(*_cells(decision, figures), style="" if decision.promoted else "dim")
    console.print(table)


def _cells(decision: "Decision", figures: bool) -> list[str]:
    metric = decision.rule.get("metric", "-")  # recorded with each decision: other tasks have other metrics

    def figure(numbers: dict[str, Any], key: str) -> str:
        value = numbers.get(key)
        return "-" if value is None else f"{value:.4g}"

    return [
        decision.at[:16].replace("T", " "),
        decision.kind,
        f"{decision.version} {decision.candidate}",
        "champion" if decision.promoted else "refused",
        *[
            str(decision.champion or "-"),
            metric,
            figure(decision.numbers.get("challenger", {}), metric),
            figure(decision.numbers.get("champion", {}), metric),
            figure(decision.numbers, "p_value"),
            figure(decision.numbers, "level"),
            (decision.data_digest or "-")[:8],
            (decision.git_commit or "-")[:8],
        ]
        * figures,
        decision.reason,
    ]
