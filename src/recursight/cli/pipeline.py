"""Commands that run everything."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from recursight.layout import Layout

PANEL = "Workflow"

# Settings of Prefect, unless the user has set them.
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
        int | None, typer.Option(min=1, help="Stages to run in parallel.", show_default="CPU cores / train.threads")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Run every stage that has changed: prepare, train, evaluate, compare; then track and register.

    Runs as a Prefect flow, with a temporary Prefect server or the one at
    PREFECT_API_URL. If nothing has changed, no temporary server is started.

    Example: [bold]recursight pipeline --jobs 2[/]
    """
    from recursight.layout import Layout
    from recursight.operations import up_to_date

    layout = Layout.find()
    has_server = "PREFECT_API_URL" in os.environ  # where each run is to be seen
    ran: list[str] = []
    if not has_server and up_to_date.nothing_to_run(layout):
        registered = up_to_date.complete(layout)
    else:
        with flows_at_a_terminal(layout):
            from flows.pipeline import pipeline

            outcome = pipeline(jobs=jobs)
        ran, registered = outcome.ran, outcome.registered
        if not has_server:
            up_to_date.note(layout)
    if as_json:
        import json

        print(json.dumps({"ran": ran, "registered": registered}, indent=2))
    else:
        _summarise(layout, ran, registered)


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
    """The alias of the winner, and the version in production."""
    if registered is None:
        return "The registry cannot be reached. Run `recursight register` later to register the winner."
    name, version = registered["name"], registered["version"]
    said = f"{name} version {version} ({registered['candidate']}) is {registered['alias']}: {registered['reason']}"
    if registered["alias"] != "champion" and registered["champion"]:
        said += f"\nThe champion is {name} version {registered['champion']}."
    return said


def _summarise(layout: "Layout", ran: list[str], registered: dict[str, Any] | None) -> None:
    """Prints the ranking, the champion, and the commands that show more."""
    from recursight.evaluation.table import print_ranking
    from recursight.files import read_json

    comparison = read_json(layout.comparison / "comparison.json")
    print()
    print_ranking(comparison["ranking"], comparison["confidence"])
    print()
    created = registered is not None and registered["created"]
    if not ran:
        print("Nothing has changed: nothing was trained" + ("." if created else " or registered."))
    print(_standing(registered))
    print("\nSee more:")
    for command, what in (
        (f"open {(layout.comparison / 'report.html').relative_to(layout.root)}", "the report, in a browser"),
        ("recursight track ui", "curves and comparison in MLflow"),
        ("dvc metrics show", "metrics of every candidate"),
        ("dvc plots show", "confusion matrices and learning curves"),
        ("recursight predict FILE...", "the champion's predictions for your images"),
    ):
        print(f"  {command:<44}{what}")
