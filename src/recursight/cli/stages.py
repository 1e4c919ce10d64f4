"""The stages of dvc.yaml as commands."""

from typing import Annotated

import typer

PANEL = "Stages of dvc.yaml"
Name = Annotated[str, typer.Argument(help="Name of a candidate in params.yaml.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    for command in (prepare, train, evaluate, compare):
        app.command(rich_help_panel=PANEL)(command)


def prepare() -> None:
    """Convert data/ into the store: validated, resized, split into train, validation and test.

    Example: [bold]recursight prepare[/]
    """
    from recursight.layout import Layout
    from recursight.stages import prepare

    prepare.run(Layout.find())


def train(name: Name) -> None:
    """Train a candidate once per seed; resumes interrupted trainings.

    Example: [bold]recursight train gru[/]
    """
    from recursight.layout import Layout
    from recursight.stages import train

    train.run(Layout.find(), name)


def evaluate(name: Name) -> None:
    """Score a trained candidate on the validation and test splits.

    Example: [bold]recursight evaluate gru[/]
    """
    from recursight.layout import Layout
    from recursight.stages import evaluate

    evaluate.run(Layout.find(), name)


def compare() -> None:
    """Rank all candidates and write the report.

    Example: [bold]recursight compare[/]
    """
    from recursight.layout import Layout
    from recursight.stages import compare

    compare.run(Layout.find())
