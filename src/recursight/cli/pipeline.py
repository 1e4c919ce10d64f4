"""Commands that run everything."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from flows.pipeline import Outcome

    from recursight.layout import Layout

PANEL = "Workflow"

# Asked of Prefect where the user has not decided otherwise.
PREFECT_DEFAULTS = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the board shows progress; the log is in Prefect's UI
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",  # the first start creates a database
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "RECURSIGHT_BOARD": "1",
}


def add_to(app: typer.Typer) -> None:
    app.command(rich_help_panel=PANEL)(pipeline)


def pipeline(
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Stages at work at once.", show_default="what the processors bear")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Bring everything up to date: prepare, train, evaluate, compare, track, register.

    Runs what has changed, as a Prefect flow: in a temporary server, or in yours if PREFECT_API_URL names one.

    Example: [bold]recursight pipeline --jobs 2[/]
    """
    from recursight.layout import Layout

    layout = Layout.find()
    with flows_at_a_terminal(layout):
        from flows.pipeline import pipeline

        outcome = pipeline(jobs=jobs)
    if as_json:
        import json
        from dataclasses import asdict

        print(json.dumps(asdict(outcome), indent=2))
    else:
        _summarise(layout, outcome)


@contextmanager
def flows_at_a_terminal(layout: "Layout") -> Iterator[None]:
    """For running a flow of the project: Prefect is quiet, and a stage that fails ends the command with sentences."""
    from recursight.operations import reaping
    from recursight.params import load
    from recursight.stages.reproduce import StageFailed

    load(layout.params)  # refused now, before a server starts
    for name, value in PREFECT_DEFAULTS.items():
        os.environ.setdefault(name, value)
    sys.path.insert(0, str(layout.root))
    reaping.on_this_machine(layout, clear=True)  # a temporary server that lost its flow would be in the way of ours
    from flows import stopping

    try:
        with stopping.stoppable():
            from prefect import tags

            if "PREFECT_API_URL" not in os.environ:
                stopping.shield_temporary_server()
            with tags(reaping.own_tag(layout)):
                yield
    except StageFailed as failure:
        for line in str(failure).splitlines():
            typer.secho(f"recursight: {line}", err=True, fg="red")
        raise typer.Exit(1) from None


def _standing(registered: dict[str, Any] | None) -> str:
    """What became of the winner, and what is in production."""
    if registered is None:
        return "The registry cannot be reached: `recursight register` makes the winner a version when it can."
    name, version = registered["name"], registered["version"]
    said = f"{name} version {version} ({registered['candidate']}) is {registered['alias']}: {registered['reason']}"
    if registered["alias"] != "champion" and registered["champion"]:
        said += f"\nThe champion is {name} version {registered['champion']}."
    return said


def _summarise(layout: "Layout", outcome: "Outcome") -> None:
    """The table, the champion, and the commands that show more."""
    from recursight.evaluation.table import print_ranking
    from recursight.files import read_json

    print()
    print_ranking(read_json(layout.comparison / "comparison.json"))
    print()
    registered = outcome.registered
    created = registered is not None and registered["created"]
    if not outcome.ran:
        print("Nothing has changed: nothing was trained" + ("." if created else ", nothing registered."))
    print(_standing(registered))
    print("\nSee more:")
    for command, what in (
        (f"open {(layout.comparison / 'report.html').relative_to(layout.root)}", "the report, in a browser"),
        ("recursight track ui", "curves and comparison in MLflow"),
        ("dvc metrics show", "figures of every candidate"),
        ("dvc plots show", "answers and learning curves"),
        ("recursight predict FILE...", "what the champion sees in your images"),
    ):
        print(f"  {command:<44}{what}")
