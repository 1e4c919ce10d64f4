"""Commands that run the workflow unattended."""

from typing import Annotated, Any

import typer

PANEL = "Operation"


def add_to(app: typer.Typer) -> None:
    for command in (up, down, retrain, notify):
        app.command(rich_help_panel=PANEL)(command)


def up(
    prefect_port: Annotated[
        int | None,
        typer.Option(help="Port of Prefect's server.", show_default="4200", envvar="RECURSIGHT_PREFECT_PORT"),
    ] = None,
    mlflow_port: Annotated[
        int | None, typer.Option(help="Port of MLflow's server.", show_default="5000", envvar="RECURSIGHT_MLFLOW_PORT")
    ] = None,
) -> None:
    """Start Prefect's server, MLflow's server and a worker on 127.0.0.1, and apply the deployments.

    Starts only what is not running yet. Afterwards every command in this
    project uses these servers.

    Example: [bold]recursight up --prefect-port 4300[/]
    """
    from recursight import access
    from recursight.layout import Layout
    from recursight.operations import platform

    layout = Layout.find()
    typer.echo("starting servers and worker; this takes up to a minute ...", err=True)
    made = platform.up(layout, prefect_port, mlflow_port)
    for name in ("prefect", "mlflow", "worker"):
        state = "started" if name in made.started else "already running"
        typer.echo(f"{name:<8} {made.urls.get(name, 'polls the work pool recursight'):<32} {state}")
    if made.deployed:
        typer.echo("applied the deployments of prefect.yaml, with the schedules of params.yaml")
    typer.echo(f"\nusers and passwords: cat {(access.folder(layout) / 'logins.json').relative_to(layout.root)}")
    typer.echo("logs: .recursight/logs     stop: recursight down")
    typer.echo("retrain now: prefect deployment run 'retrain/scheduled' --watch")


def down() -> None:
    """Stop the servers and the worker of `recursight up`, and all their child processes.

    Example: [bold]recursight down[/]
    """
    from recursight.layout import Layout
    from recursight.operations import platform

    stopped = platform.down(Layout.find())
    typer.echo(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


def retrain() -> None:
    """Retrain now if data, code or parameters have changed, and let the gate decide.

    With `recursight up`, the same flow also runs on the schedule in params.yaml
    and after new data.

    Example: [bold]recursight retrain[/]
    """
    from recursight.cli.pipeline import flows_at_a_terminal
    from recursight.layout import Layout
    from recursight.operations.deployment import take_new_commits

    layout = Layout.find()
    take_new_commits()
    with flows_at_a_terminal(layout):
        from flows.retrain import retrain

        outcome: Any = retrain()
    typer.echo(outcome.sentence)


def notify(
    url: Annotated[str, typer.Argument(help="Webhook URL, for example from Slack or Mattermost.", show_default=False)],
) -> None:
    """Notify a webhook of failed runs, new champions and drift.

    The Prefect server of `recursight up`, or the one at PREFECT_API_URL, sends
    the notifications.

    Example: [bold]recursight notify https://hooks.example.org/T123[/]
    """
    from recursight.operations.notifications import notify as set_up

    for name in set_up(url):
        typer.echo(f"set up: {name}")
