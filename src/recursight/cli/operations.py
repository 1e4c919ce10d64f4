"""Commands: the workflow without people."""

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

    Starts what does not run yet. From then on every command here uses these servers.

    Example: [bold]recursight up --prefect-port 4300[/]
    """
    from recursight import access
    from recursight.layout import Layout
    from recursight.operations import platform

    layout = Layout.find()
    typer.echo("starting what does not run yet; this takes up to a minute ...", err=True)
    made = platform.up(layout, prefect_port, mlflow_port)
    for name in ("prefect", "mlflow", "worker"):
        state = "started" if name in made.started else "runs already"
        typer.echo(f"{name:<8} {made.urls.get(name, 'polls the work pool recursight'):<32} {state}")
    if made.deployed:
        typer.echo("deployments of prefect.yaml applied, with the schedules of params.yaml")
    typer.echo(f"\nuser and password of each: cat {(access.folder(layout) / 'logins.json').relative_to(layout.root)}")
    typer.echo("logs: .recursight/logs     stop: recursight down")
    typer.echo("retrain now: prefect deployment run 'retrain/scheduled' --watch")


def down() -> None:
    """Stop what `recursight up` has started, and everything that it has started in turn.

    Example: [bold]recursight down[/]
    """
    from recursight.layout import Layout
    from recursight.operations import platform

    stopped = platform.down(Layout.find())
    typer.echo(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


def retrain() -> None:
    """Retrain now, if data, code or parameters are new, and let the gate decide.

    The same flow runs by itself on the schedule of params.yaml and after new data, see `recursight up`.

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
    url: Annotated[str, typer.Argument(help="A webhook, as Slack or Mattermost give it.", show_default=False)],
) -> None:
    """Call a webhook when a deployed run fails, a model becomes champion, or its images drift.

    The server that `recursight up` runs, or that PREFECT_API_URL names, keeps watch.

    Example: [bold]recursight notify https://hooks.example.org/T123[/]
    """
    from recursight.operations.notifications import notify as set_up

    for name in set_up(url):
        typer.echo(f"set up: {name}")
