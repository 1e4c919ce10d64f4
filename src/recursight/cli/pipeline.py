"""Commands that run everything."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recursight.errors import InputError

if TYPE_CHECKING:
    from recursight.layout import Layout

PANEL = "Workflow"

# Settings of Prefect, unless the user has set them.
PREFECT_DEFAULTS = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the live display shows progress; the log is in Prefect's UI
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",  # the first start creates a database
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "RECURSIGHT_DISPLAY": "1",
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
        layout.require_data()  # before a server starts
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
    from recursight.executors import StageFailed, clone
    from recursight.operations import cleanup, flow_runs
    from recursight.operations.platform import prefect_for_flows
    from recursight.params import load

    load(layout.params)  # refused now, before a server starts
    for name, value in PREFECT_DEFAULTS.items():
        os.environ.setdefault(name, value)
    _import_flows(layout)
    from flows import stopping

    try:
        with stopping.stoppable(), clone.claim(layout) as process:
            cleanup.on_this_machine(layout, clear=True)
            with prefect_for_flows(layout):
                from prefect import tags

                with tags(flow_runs.tag(process)):
                    yield
    except StageFailed as failure:
        for line in str(failure).splitlines():
            typer.secho(f"recursight: {line}", err=True, fg="red")
        raise typer.Exit(1) from None


def _import_flows(layout: "Layout") -> None:
    """Imports the package `flows` from the project's folder, which is not among the installed ones."""
    folder = layout.root / "flows"
    spec = importlib.util.spec_from_file_location(
        "flows", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None or not folder.is_dir():
        raise InputError(f"{folder} is missing: the project's flows belong there.")
    sys.modules["flows"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["flows"])


def _summary_of(registered: dict[str, Any] | None) -> str:
    """What happened to the winner, and what is in production."""
    if registered is None:
        return "The registry cannot be reached. Run `recursight register` later to register the winner."
    name, version = registered["name"], registered["version"]
    text = f"{name} version {version} ({registered['candidate']}) is {registered['alias']}: {registered['reason']}"
    if registered["alias"] != "champion" and registered["champion"]:
        text += f"\nThe champion is {name} version {registered['champion']}."
    return text


def _summarise(layout: "Layout", ran: list[str], registered: dict[str, Any] | None) -> None:
    """Prints the ranking, the champion, and the commands that show more."""
    from recursight.evaluation.table import print_ranking
    from recursight.files import read_json

    print()
    print_ranking(read_json(layout.comparison / "comparison.json"))
    print()
    created = registered is not None and registered["created"]
    if not ran:
        print("Nothing has changed: nothing was trained" + ("." if created else " or registered."))
    print(_summary_of(registered))
    print("\nSee more:")
    for command, what in (
        (f"open {(layout.comparison / 'report.html').relative_to(layout.root)}", "the report, in a browser"),
        ("recursight track ui", "curves and comparison in MLflow"),
        ("dvc metrics show", "metrics of every candidate"),
        ("dvc plots show", "answers and learning curves"),
        ("recursight predict FILE...", "the champion's predictions for your images"),
    ):
        print(f"  {command:<44}{what}")
