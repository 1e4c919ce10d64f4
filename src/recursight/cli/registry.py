"""Commands for MLflow runs and the model registry."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

PANEL = "Tracking and registry"

track = typer.Typer(help="This project's runs in MLflow.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    app.add_typer(track, name="track", rich_help_panel=PANEL)
    app.command(rich_help_panel=PANEL)(register)


@track.command()
def sync(as_json: AsJson = False) -> None:
    """Send trainings and evaluations to MLflow that it does not have yet.

    This includes results that were kept on disk while MLflow was down. Runs of
    killed processes are closed. Nothing is sent twice.

    Example: [bold]recursight track sync[/]
    """
    from recursight import tracking
    from recursight.layout import Layout

    outcome = tracking.sync(Layout.find())
    if as_json:
        typer.echo(json.dumps(asdict(outcome)))
        return
    for title, names in (("training", outcome.trainings), ("evaluation", outcome.evaluations)):
        for name in sorted(names):
            typer.echo(f"sent {title} of {name}")
    if outcome.reaped:
        typer.echo(f"closed {outcome.reaped} run{'s' * (outcome.reaped > 1)} of killed processes")
    if not outcome.trainings and not outcome.evaluations:
        typer.echo(f"nothing to send: MLflow has all {outcome.unchanged} results")


@track.command()
def ui(port: Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=1, max=65535)] = 5000) -> None:
    """Start MLflow's web interface on this project's runs.

    Example: [bold]recursight track ui --port 5005[/]
    """
    import os
    import sys

    from recursight import tracking
    from recursight.layout import Layout
    from recursight.tracking.connection import artifact_location, tracking_uri, without_password

    layout = Layout.find()
    uri = tracking_uri(layout)
    page = "?workflowType=machine_learning#/experiments"  # a new browser profile opens another page
    if uri.startswith("http"):
        typer.echo(f"{without_password(uri)}/{page}")
        return
    tracking.sync(layout)
    typer.echo(f"http://127.0.0.1:{port}/{page}   (stop with Ctrl-C)")
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", uri, "--default-artifact-root", str(artifact_location(layout))]
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # saves five processes; jobs are not used here
    os.execv(sys.executable, command)


def register(as_json: AsJson = False) -> None:
    """Register the winner of the comparison in MLflow's model registry.

    A winner that is already registered gets no second version. The first
    version that reaches the minimums in params.yaml (registry.minimums) becomes
    champion, every later winner becomes the challenger.

    Example: [bold]recursight register[/]
    """
    from recursight.layout import Layout
    from recursight.registry import register as make_version

    made = make_version(Layout.find())
    if as_json:
        typer.echo(json.dumps(asdict(made)))
        return
    state = "registered as" if made.created else "is already"
    typer.echo(f"{made.candidate} (seed {made.seed}) {state} {made.name} version {made.version}")
    typer.echo(f"{made.alias}: {made.reason}")
