"""The stages of dvc.yaml as commands."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from recursight.layout import Layout

PANEL = "Stages of dvc.yaml"
Name = Annotated[str, typer.Argument(help="Name of a candidate in params.yaml.", show_default=False)]


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
    """Train a candidate once per seed; resumes interrupted trainings.

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
    from recursight.layout import Layout
    from recursight.stages import compare

    layout = Layout.find()
    _remove_leftovers(layout)
    comparison = compare.run(layout)
    if not started_by_flow():  # a flow shows the table at its end
        print_ranking(comparison)


def _remove_leftovers(layout: "Layout") -> None:
    """Removes results of candidates that are no longer in params.yaml; DVC's cache still has them.

    The stage `compare` depends on the folders that hold all candidates, so a leftover
    would count as a change elsewhere.
    """
    import shutil

    from recursight.params import load

    candidates = load(layout.params).candidates
    for folder in (layout.candidate("x").parent, layout.evaluation("x").parent):
        for left in folder.iterdir() if folder.is_dir() else ():
            if left.is_dir() and left.name not in candidates:
                shutil.rmtree(left)
                print(f"removed {left.relative_to(layout.root)}: no such candidate in params.yaml any more")
