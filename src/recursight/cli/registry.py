"""Commands for MLflow runs and the model registry."""

import json
import sys
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
    if outcome.ended:
        typer.echo(f"closed {outcome.ended} run{'s' * (outcome.ended > 1)} of killed processes")
    if not outcome.trainings and not outcome.evaluations:
        typer.echo(f"nothing to send: MLflow has all {outcome.unchanged} results")


@track.command()
def ui(
    port: Annotated[
        int, typer.Option(help="Port on 127.0.0.1; default: any free port.", min=0, max=65535, show_default=False)
    ] = 0,
) -> None:
    """Start MLflow's web interface on this project's runs, protected by a login.

    The login is printed; it is the same as for the server of `recursight up`.
    If a tracking server is configured or running, prints its address instead.

    Example: [bold]recursight track ui[/]
    """
    import os

    from recursight import access, tracking
    from recursight.layout import Layout
    from recursight.operations import services
    from recursight.tracking.connection import tracking_uri, without_password

    layout = Layout.find()
    uri = tracking_uri(layout)
    page = "?workflowType=machine_learning#/experiments"  # a new browser profile opens another page
    if uri.startswith("http"):
        typer.echo(f"{without_password(uri)}/{page}")
        known = access.running(layout, "mlflow")
        if known and known.url == uri:
            typer.echo("user and password: .recursight/servers/logins.json")
        return
    port = services.free_port(port, alternative="recursight track ui")
    tracking.sync(layout)
    login = services.ensure_logins(layout)["mlflow"]
    os.environ["MLFLOW_BACKEND_STORE_URI"] = uri
    server = services.mlflow(layout, login, port)
    user, _, password = login.partition(":")
    typer.echo(f"{server.url}/{page}   (stop with Ctrl-C)\nuser {user}, password {password}")
    sys.stdout.flush()
    os.execve(server.command[0], server.command, server.environment)


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
