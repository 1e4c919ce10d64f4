"""Commands that dvc.yaml runs: one per stage."""

from typing import Annotated

import typer

PANEL = "Stages (what dvc.yaml runs)"
Name = Annotated[str, typer.Argument(help="A candidate of params.yaml.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    for command in (prepare, train, evaluate, compare):
        app.command(rich_help_panel=PANEL)(command)


def prepare() -> None:
    """Turn data/ into the store: split, checked, uint8.

    Example: [bold]recursight prepare[/]
    """
    from recursight.layout import Layout
    from recursight.stages import prepare

    prepare.run(Layout.find())


def train(name: Name) -> None:
    """Train a candidate, once per seed; goes on where a killed training stopped.

    Example: [bold]recursight train gru[/]
    """
    from recursight.executors.local import started_by_flow
    from recursight.layout import Layout
    from recursight.stages import train

    train.run(Layout.find(), name, defer_tracking=started_by_flow())


def evaluate(name: Name) -> None:
    """Score a trained candidate on the validation and test splits.

    Example: [bold]recursight evaluate gru[/]
    """
    from recursight.executors.local import started_by_flow
    from recursight.layout import Layout
    from recursight.stages import evaluate
    from recursight.tracking import attempt_sync

    layout = Layout.find()
    evaluate.run(layout, name)
    if not started_by_flow():  # which sends all results together
        attempt_sync(layout)


def compare() -> None:
    """Rank all candidates and write the report.

    Example: [bold]recursight compare[/]
    """
    from recursight.evaluation.table import print_ranking
    from recursight.executors.local import started_by_flow
    from recursight.files import read_json
    from recursight.layout import Layout
    from recursight.stages import compare

    layout = Layout.find()
    compare.run(layout)
    if not started_by_flow():  # a flow shows the table at its end
        comparison = read_json(layout.comparison / "comparison.json")
        print_ranking(comparison["ranking"], comparison["confidence"])
